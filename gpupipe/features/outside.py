"""Columns from outside as features: each column with_NAME that was joined to a panel is the feature of that name."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from gpupipe.data.outside import PREFIX, names_in
from gpupipe.data.panel import Panel
from gpupipe.features.formulas.registry import FEATURES, Feature, FeatureError, PanelFunction

# A row may be used where a column from outside is not known yet: as with windows of more bars than a warm row has.
WARM_UP_BARS = 1_000_000


def register(names: Iterable[str]) -> tuple[str, ...]:
    """Make columns from outside selectable as features, and return those names; other names are left.

    Their family, "outside", is in no set of features.

    >>> register(["roc_5", "with_funding"]), FEATURES["with_funding"].family
    (('with_funding',), 'outside')
    """
    chosen = tuple(name for name in names if name.startswith(PREFIX))
    for name in chosen:
        if name not in FEATURES:
            code = f"panel.columns[{name!r}]"
            function = PanelFunction(name, functools.partial(_column, name), WARM_UP_BARS, code)
            words = f"{name.removeprefix(PREFIX)}, the last value known before the bar ended"
            FEATURES[name] = Feature(name, "outside", words, "a file of the user's own", function, (), False)
    return chosen


def register_of(panel: Panel) -> tuple[str, ...]:
    """`register` of all columns from outside that a panel has."""
    return register(names_in(panel))


def require(panel: Panel, names: Iterable[str], where: str = "the models") -> None:
    """Register those of these features that are from outside; FeatureError where the panel lacks one of them."""
    missing = [name for name in register(names) if name not in panel.columns]
    if missing:
        raise FeatureError(_missing(missing, where))


def _missing(names: list[str], where: str) -> str:
    plural = "s" if len(names) > 1 else ""
    return (
        f"{where} need the column{plural} from outside {', '.join(names)}, which the bars do not have: give the file "
        "by --with FILE, or call gpupipe.data.outside.join(panel, FILE)"
    )


def _column(name: str, panel: Panel) -> Any:
    """float32 (n_rows,): a column of a panel; FeatureError where the panel lacks it."""
    if name not in panel.columns:
        raise FeatureError(_missing([name], "the features"))
    return panel.columns[name]
