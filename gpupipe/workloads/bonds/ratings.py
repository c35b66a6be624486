"""Ratings: the letters of all agencies as ten ranks."""

from __future__ import annotations

import re

LETTERS = ("AAA", "AA", "A", "BBB", "BB", "B", "CCC", "CC", "C", "D")
TREASURY, NOT_RATED = "Treasury", "NR"
RANKS = {TREASURY: 0, **{letter: k for k, letter in enumerate(LETTERS, start=1)}, NOT_RATED: 11}
NAMES = {rank: name for name, rank in RANKS.items()}
_MOODYS = {"BAA": "BBB", "BA": "BB", "CAA": "CCC", "CA": "CC"}
_SYNONYMS = {
    **dict.fromkeys(("TREASURY", "UST", "GOVT", "GOVERNMENT"), TREASURY),
    **dict.fromkeys(("NR", "WR", "NA", "N/A", "NONE", "UNRATED", "NOT RATED", "WD", "-"), NOT_RATED),
    **dict.fromkeys(("SD", "RD", "DD", "DDD", "DEFAULT"), "D"),
}
_REMARKS = re.compile(r"\((?:P|SF|HYB|EXP)\)|\*[+-]?|(?<=[A-D+-])U$")  # provisional, structured, on watch, unsolicited
_NOTCH = re.compile(r"(?:[+-]|[123])$")


def rating_of(text: str) -> str | None:
    """The rating that a text spells, without its notch: a key of RANKS; None for an unknown text.

    >>> [rating_of(text) for text in ("AA+", "Aa1", "Baa3", "Caa", "bbb-", "NR", "WR", "Treasury", "P-1")]
    ['AA', 'AA', 'BBB', 'CCC', 'BBB', 'NR', 'NR', 'Treasury', None]
    """
    upper = text.strip().upper()
    if not upper:
        return NOT_RATED
    if upper in _SYNONYMS:
        return _SYNONYMS[upper]
    letters = _NOTCH.sub("", re.sub(r"\s+", "", _REMARKS.sub("", upper)))
    letters = _MOODYS.get(letters, letters)
    return letters if letters in LETTERS else _SYNONYMS.get(letters)
