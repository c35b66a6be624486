"""Numbers and titles as the report prints them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from gpupipe.artifacts.summary import title_of
from gpupipe.report.page import Shown

BARRIER_LABEL = re.compile(r"label_(\d+)d_([\d.e+-]+)(pct|vol)")


def title_of_label(label: str) -> str:
    """The title of a target by the name of its column of y.

    >>> title_of_label("label_5d_10pct"), title_of_label("label_1d_2vol"), title_of_label("next_price")
    ('5 bars, 10 %', '1 bar, 2 x volatility', 'next_price')
    >>> title_of_label("direction_1d")
    'direction of the next bar'
    """
    match = BARRIER_LABEL.fullmatch(label)
    if not match:
        return title_of({"label": label})
    size = {"threshold": float(match[2]) / 100} if match[3] == "pct" else {"multiple": float(match[2])}
    return title_of({"label": label, "horizon": int(match[1]), **size})


def titles_in_sentences(whole: Mapping[str, Any]) -> dict[str, str]:
    """Titles of the labels by name, for sentences; empty where all labels are barriers at fractions of the price.

    Their names are what the sentences of such runs have always had, and say both horizon and threshold.
    whole: the summary.

    >>> rows = [{"label": "label_1d_1pct", "horizon": 1, "threshold": 0.01}]
    >>> titles_in_sentences({"models": rows})
    {}
    >>> titles_in_sentences({"models": [*rows, {"label": "direction_1d", "horizon": 1}]})
    {'label_1d_1pct': '1 bar, 1 %', 'direction_1d': 'direction of the next bar'}
    """
    titles = {row["label"]: title_of(row) for row in whole["models"]}
    matches = map(BARRIER_LABEL.fullmatch, titles)
    return {} if all(match and match[3] == "pct" for match in matches) else titles


def significant(value: float | None, digits: int = 4) -> Shown | None:
    """A number with this many significant digits, for a column whose rows differ in magnitude; None for None and NaN.

    >>> [significant(value).text for value in (428.52, 30512.4, 0.00123456, 0.0)]
    ['428.5', '30,512', '0.001235', '0']
    """
    if value is None or value != value:
        return None
    if value == 0 or math.isinf(value):
        return Shown(value, f"{value:g}")
    return Shown(value, f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}")


def to_percent(fraction: Any) -> Any:
    """A fraction in percent; None for None and for NaN."""
    return None if fraction is None or fraction != fraction else 100 * fraction


def words_of(name: str) -> str:
    """The name of a loss in words.

    >>> words_of("log_loss"), words_of("squared_error")
    ('log-loss', 'squared error')
    """
    return "log-loss" if name == "log_loss" else name.replace("_", " ")
