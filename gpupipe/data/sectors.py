"""Sector names: their canonical spelling, and the sectors that a user requests."""

from __future__ import annotations

import difflib
import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence

from gpupipe.data.errors import DataError

# The eleven sectors of the Global Industry Classification Standard (GICS) since 2018.
GICS = (
    "communication_services",
    "consumer_discretionary",
    "consumer_staples",
    "energy",
    "financials",
    "healthcare",
    "industrials",
    "materials",
    "real_estate",
    "technology",
    "utilities",
)

# Synonyms of the same eleven: the official names, the names before 2018, and Yahoo's.
_SYNONYMS = {
    "information_technology": "technology",
    "info_tech": "technology",
    "tech": "technology",
    "it": "technology",
    "health_care": "healthcare",
    "health": "healthcare",
    "telecommunication_services": "communication_services",
    "telecommunications_services": "communication_services",
    "telecommunications": "communication_services",
    "telecom": "communication_services",
    "communications": "communication_services",
    "communication": "communication_services",
    "consumer_cyclical": "consumer_discretionary",
    "consumer_defensive": "consumer_staples",
    "financial": "financials",
    "financial_services": "financials",
    "finance": "financials",
    "industrial": "industrials",
    "basic_materials": "materials",
    "material": "materials",
    "realestate": "real_estate",
    "reit": "real_estate",
    "reits": "real_estate",
    "utility": "utilities",
}


@functools.lru_cache(maxsize=4096)  # a map names the same few sectors for hundreds of symbols
def canonical(name: str) -> str:
    """Return the canonical spelling of a sector: GICS names map to `GICS`, any other name to a slug; "" stays "".

    A slug holds letters, digits and underscores only, so it is safe as the name of a folder.

    >>> canonical("Information Technology"), canonical("Crypto / FX")
    ('technology', 'crypto_fx')
    """
    slug = re.sub(r"\W+", "_", unicodedata.normalize("NFKC", name).lower().replace("&", " and ")).strip("_")
    return _SYNONYMS.get(slug, slug)


def parse_requested(sectors: str | Iterable[str]) -> tuple[str, ...] | None:
    """Return the canonical names of the requested sectors, or None for all.

    sectors: "all", a comma-separated text, or names. Raises DataError if it names no sector.

    >>> parse_requested("Energy, Health Care")
    ('energy', 'healthcare')
    """
    names = sectors.split(",") if isinstance(sectors, str) else list(sectors)
    if not all(isinstance(name, str) for name in names):
        raise DataError(f"sectors must be names, got {names!r}")
    requested = tuple(dict.fromkeys(canonical(name) for name in names if name.strip()))
    if not requested:
        raise DataError('no sector is named; expected "all" or names such as technology,energy')
    return None if requested == ("all",) else requested


def check_known(requested: Sequence[str], present: Sequence[str]) -> None:
    """Raise DataError, with the nearest name, if the data do not hold a requested sector."""
    for name in requested:
        if name not in present:
            near = difflib.get_close_matches(name, present, n=1, cutoff=0.5)
            guess = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(f"no symbol has sector {name!r}{guess} (the data have {', '.join(present) or 'none'})")
