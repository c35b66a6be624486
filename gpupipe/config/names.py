"""Names that configuration knows, and the error that tells an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from gpupipe.runtime.errors import UserError

RULES, WINDOWS = ("take_profit_first", "first_touch"), ("bars", "calendar")  # of labels.py
BOOSTERS = ("joint", "joint_sector", "hist", "leafwise")  # fields of Config that are a Booster
FAMILIES = ("xgb_joint", "xgb_hist", "xgb_leafwise", "random_forest", "linear", "meta_learner")
OPTIONAL_FAMILIES = ("lightgbm", "catboost")  # named as their packages, which the extra boosters brings
SAMPLING = (*BOOSTERS, *OPTIONAL_FAMILIES, "forest")  # fields of Config with a subsample
TURBOMODE = "turbomode"  # among the models: the predecessor's six, with its parameters
BY_SECTOR = ("hist", "leafwise")  # sections that may have values of their own for a sector, or a label of it
TURBOMODE_FAMILIES = ("lightgbm", "catboost", "xgb_hist", "linear", "random_forest", "meta_learner")


class ConfigError(UserError):
    """A configuration that cannot be used; the message names the key, what came, and the fix."""


def nearest(word: str, known: Iterable[str]) -> str:
    """ "; did you mean ...?", or the list of what is known where it is short."""
    known = list(known)
    by_field = {name.rpartition(".")[2]: name for name in known}
    close = difflib.get_close_matches(word, known, 1, 0.5)
    close = close or [by_field[m] for m in difflib.get_close_matches(word.rpartition(".")[2], by_field, 1, 0.5)]
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(known)}" if len(known) <= 12 else ""
