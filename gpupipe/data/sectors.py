"""Sector names: their canonical spelling, and the sectors that a user requests."""

from __future__ import annotations

import difflib
import functools
import hashlib
import re
import unicodedata
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence

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

# Symbols that tell names apart where they stand at a word: AA+, AA-, C++, C#, <1Y. A symbol between two words is a
# separator, as in "Oil & Gas - Integrated".
_TELLING = (
    (re.compile(r"(?<=[\w+])\+|\+(?=\w)"), "plus"),
    (re.compile(r"(?<=[\w-])-(?=-*\s*(?:$|[)\]/,;]))|^-(?=\d)"), "minus"),
    (re.compile(r"(?<=[\w#])#|#(?=\w)"), "sharp"),
    (re.compile(r"<(?=[\w=])"), "below"),
    (re.compile(r">(?=[\w=])"), "above"),
    (re.compile(r"≤(?=\w)"), "at_most"),
    (re.compile(r"≥(?=\w)"), "at_least"),
)
# The words of other symbols, for names that nothing else tells apart; further ones have their Unicode name.
_WORDS = {
    "+": "plus", "-": "dash", "#": "sharp", "<": "below", ">": "above", "*": "star", "/": "slash", "\\": "backslash",
    ".": "dot", ",": "comma", "!": "bang", "?": "question", "&": "and", "%": "percent", "$": "dollar", "€": "euro",
    "£": "pound", "¥": "yen", "=": "equals", "@": "at", ":": "colon", ";": "semicolon", "'": "quote", '"': "quotes",
    "(": "in", ")": "out", "[": "in", "]": "out", "|": "bar", "~": "tilde", "^": "caret",
}  # fmt: skip
_SEPARATORS = r"[\s_/&,.:;|()'\"-]"
_NO_NAME = re.compile(r"[\s_.,:;?!/\\|'\"()\[\]*~–—-]*")  # "", "-", "?", "..": cells without a sector
_MINUS_SIGNS = str.maketrans("−﹣－⁻₋", "-----")
_LONGEST = 240  # characters of a slug in the name of a store's folder, "sector=" + percent-encoded slug, of 255 bytes
_DIGEST = 8  # hexadecimal digits that tell apart slugs that were cut


@functools.lru_cache(maxsize=4096)  # a map names the same few sectors for hundreds of symbols
def canonical(name: str) -> str:
    """Return the canonical spelling of a sector: GICS names map to `GICS`, any other name to a slug; "" stays "".

    A slug holds letters, digits and underscores only, and its length is limited, so it is safe as the name of a folder.
    A slug is its own canonical spelling. Symbols at a word are spelled out, because they tell ratings and the like
    apart. A name without a letter, a digit or a symbol of its own ("-", "?", "..") is none: "".

    >>> canonical("Information Technology"), canonical("Crypto / FX")
    ('technology', 'crypto_fx')
    >>> canonical("AA+"), canonical("AA-"), canonical("AA"), canonical("C#"), canonical("<1Y")
    ('aa_plus', 'aa_minus', 'aa', 'c_sharp', 'below_1y')
    """
    text = _normalized(name)
    text = text[1:-1] if re.fullmatch(r"<[^<>]*>", text) else text
    for pattern, word in _TELLING:
        text = pattern.sub(f" {word} ", text)
    slug = _slug(text)
    if not slug and not _NO_NAME.fullmatch(text):
        slug = _spelled_out(name)
    return _SYNONYMS.get(slug, slug)


def distinct(names: Iterable[str]) -> dict[str, str]:
    """Return `{name: slug}` for the sectors of one data set, so that different names have different slugs.

    Names are the same sector if they differ in case, in blanks, underscores or hyphens between words, in "&" for "and",
    or if they are synonyms of a GICS sector. Almost always the slug is `canonical(name)`. Where different names share
    that, the one without punctuation keeps it, and the symbols of the others are spelled out; where this does not help
    either, they are numbered. The order of the names does not matter.

    >>> distinct(["Oil/Gas", "Oil-Gas", "oil gas", "Oil.Gas"])
    {'Oil-Gas': 'oil_gas', 'Oil.Gas': 'oil_dot_gas', 'Oil/Gas': 'oil_slash_gas', 'oil gas': 'oil_gas'}
    """
    keys_of_slug: dict[str, dict[str, list[str]]] = {}
    for name in sorted(set(names)):
        slug = canonical(name)
        keys_of_slug.setdefault(slug, {}).setdefault(_key(name, slug), []).append(name)
    taken = set(keys_of_slug)
    slugs: dict[str, str] = {}
    for slug, names_of_key in sorted(keys_of_slug.items()):
        ordered = sorted(names_of_key, key=lambda key: (bool(re.search(r"[^\w\s]", key)), key))
        plain = not re.search(r"[^\w\s]", ordered[0]) or len(ordered) == 1 or not slug
        for k, key in enumerate(ordered):
            chosen = slug
            if slug and not (plain and k == 0):
                chosen = _free(_spelled_out(names_of_key[key][0]), taken)
                taken.add(chosen)
            slugs |= dict.fromkeys(names_of_key[key], chosen)
    return dict(sorted(slugs.items()))


def remarks(names: Iterable[str]) -> tuple[str, ...]:
    """Say which names of one data set are told apart by spelling out symbols, and which are read as one sector.

    >>> remarks(["Oil/Gas", "oil gas", "Energy", "energy"])
    ("the sectors 'Oil/Gas' and 'oil gas' differ in punctuation only: they are oil_slash_gas and oil_gas",)
    """
    slugs = distinct(names)
    by_canonical: dict[str, list[str]] = {}
    for name in slugs:
        if name.strip() and (canonical(name) or slugs[name]):
            by_canonical.setdefault(canonical(name), []).append(name)
    sentences = []
    for same in by_canonical.values():
        first_of_slug = {slugs[name]: name for name in reversed(same)}
        if len(first_of_slug) > 1:
            listed = _joined([repr(name) for name in first_of_slug.values()][::-1])
            sentences.append(
                f"the sectors {listed} differ in punctuation only: they are {_joined(list(first_of_slug)[::-1])}"
            )
        folded = {re.sub(r"[\s_-]+", " ", name.lower().replace("&", " and ")).strip(): name for name in reversed(same)}
        if len(first_of_slug) == 1 and len(folded) > 1 and slugs[same[0]] not in GICS:
            listed = _joined(sorted(map(repr, folded.values())))
            sentences.append(f"the sectors {listed} are read as one, {slugs[same[0]]}")
    return tuple(sentences)


def _joined(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _normalized(name: str) -> str:
    return unicodedata.normalize("NFKC", name.translate(_MINUS_SIGNS)).lower().replace("&", " and ").strip()


def _slug(text: str) -> str:
    """Join the words of a text by underscores; a slug that is too long for a folder is cut, and gets a digest."""
    slug = re.sub(r"\W+", "_", text).strip("_")
    if len(urllib.parse.quote(slug)) <= _LONGEST:
        return slug
    digest = hashlib.sha256(slug.encode()).hexdigest()[:_DIGEST]
    while len(urllib.parse.quote(slug)) > _LONGEST - _DIGEST - 1:
        slug = slug[:-1]
    return f"{slug.rstrip('_')}_{digest}"


def _key(name: str, slug: str) -> str:
    """A text that is equal for names of the same sector."""
    text = re.sub(r"[\s_]+|(?<=\w)-(?=\w)", " ", _normalized(name)).strip()
    if slug in GICS:  # all synonyms are one sector, however their words are separated
        return "" if not re.search(r"[^\w\s]", re.sub(_SEPARATORS, "", text)) else text
    return text


def _spelled_out(name: str) -> str:
    """A slug in which every symbol is a word; marks that belong to a letter stay."""
    words = []
    for letter in unicodedata.normalize("NFKC", name.translate(_MINUS_SIGNS)).lower():
        if letter in _WORDS:
            words.append(f" {_WORDS[letter]} ")
        elif letter.isalnum() or letter.isspace() or letter == "_":
            words.append(" " if letter == "_" else letter)
        elif not unicodedata.category(letter).startswith(("M", "C")):
            words.append(f" {unicodedata.name(letter, f'u{ord(letter):04x}').lower()} ")
        elif not unicodedata.name(letter, "").startswith("VARIATION SELECTOR"):
            words.append(f" u{ord(letter):04x} ")
    return _slug("".join(words))


def _free(slug: str, taken: set[str]) -> str:
    """The slug itself, or with the first number that makes it a new one."""
    number, chosen = 1, slug
    while not chosen or chosen in taken or chosen in _SYNONYMS:
        number += 1
        chosen = f"{slug}_{number}".strip("_")
    return chosen


def parse_requested(sectors: str | Iterable[str]) -> tuple[str, ...] | None:
    """Return the names of the requested sectors as they are spelled, or None for all; `choose` finds them in the data.

    sectors: "all", a comma-separated text, or names. Raises DataError if it names no sector.

    >>> parse_requested("Energy, Health Care")
    ('Energy', 'Health Care')
    """
    names = sectors.split(",") if isinstance(sectors, str) else list(sectors)
    if not all(isinstance(name, str) for name in names):
        raise DataError(f"sectors must be names, got {names!r}")
    requested = tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
    if not requested:
        raise DataError('no sector is named; expected "all" or names such as technology,energy')
    return None if tuple(map(canonical, requested)) == ("all",) else requested


def choose(requested: Sequence[str], present: Iterable[str], slugs: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the slugs of the requested sectors; DataError, with the nearest name, if the data do not hold one.

    present: slugs.  slugs: of `distinct`, for the names that the data give; a bar store gives slugs only.

    >>> choose(["Oil/Gas", "Health Care"], ["oil_gas", "oil_slash_gas", "healthcare"])
    ('oil_slash_gas', 'healthcare')
    """
    held = sorted(present)
    slug_of_key = {(canonical(name), _key(name, canonical(name))): slug for name, slug in (slugs or {}).items()}
    chosen = []
    for name in requested:
        usual = canonical(name)
        has_sign = any(pattern.search(_normalized(name)) for pattern, _ in _TELLING)  # AA- is aa_minus, not aa_dash
        other = (usual, _spelled_out(name)) if has_sign else (_spelled_out(name), usual)
        candidates = (slug_of_key.get((usual, _key(name, usual))), *other)
        slug = next((slug for slug in candidates if slug in held), None)
        if slug is None:
            near = difflib.get_close_matches(usual, held, n=1, cutoff=0.5)
            guess = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(f"no symbol has sector {usual!r}{guess} (the data have {', '.join(held) or 'none'})")
        chosen.append(slug)
    return tuple(dict.fromkeys(chosen))
