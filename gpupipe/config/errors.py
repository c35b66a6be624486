"""ConfigError, and the hint at the nearest known key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from gpupipe.runtime.errors import UserError


class ConfigError(UserError):
    """A configuration cannot be used; the message names the key, its value, and the fix."""


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a message on an unknown word: "; did you mean ...?", or the list of known words if it is short."""
    known = list(known)
    by_field = {name.rpartition(".")[2]: name for name in known}
    close = difflib.get_close_matches(word, known, 1, 0.5)
    close = close or [by_field[m] for m in difflib.get_close_matches(word.rpartition(".")[2], by_field, 1, 0.5)]
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(known)}" if len(known) <= 12 else ""


def require(condition: bool, key: str, value: object, expected: str) -> None:
    """Raise ConfigError unless the condition is met."""
    if not condition:
        raise ConfigError(f"{key} = {value!r}: expected {expected}")
