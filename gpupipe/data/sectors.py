"""Sector names: one spelling for each, and the sectors that a user asks for."""

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

# Other names of the same eleven: the official ones, those of before 2018, and Yahoo's.
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
    """The one spelling of a sector: GICS names are mapped to `GICS`, any other name becomes a slug; "" stays "".

    "Information Technology" -> "technology", "Crypto / FX" -> "crypto_fx". A slug holds letters, digits and
    underscores alone, so it is safe as the name of a folder.
    """
    slug = re.sub(r"\W+", "_", unicodedata.normalize("NFKC", name).lower().replace("&", " and ")).strip("_")
    return _SYNONYMS.get(slug, slug)


def asked_for(sectors: str | Iterable[str]) -> tuple[str, ...] | None:
    """The canonical names that were asked for, or None for all of them.

    sectors: "all", a comma-separated text, or names. Raises DataError when no name is given.
    """
    names = sectors.split(",") if isinstance(sectors, str) else list(sectors)
    if not all(isinstance(name, str) for name in names):
        raise DataError(f"sectors must be names, got {names!r}")
    wanted = tuple(dict.fromkeys(canonical(name) for name in names if name.strip()))
    if not wanted:
        raise DataError('no sector is named; expected "all" or names such as technology,energy')
    return None if wanted == ("all",) else wanted


def check_known(wanted: Sequence[str], present: Sequence[str]) -> None:
    """Raise DataError, with the nearest name, for a sector of `wanted` that the data do not hold."""
    for name in wanted:
        if name not in present:
            near = difflib.get_close_matches(name, present, n=1, cutoff=0.5)
            guess = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(f"no symbol is of sector {name!r}{guess} (the data have {', '.join(present) or 'none'})")
