"""Numbers and titles as the report prints them."""

from __future__ import annotations

import re
from typing import Any

from gpupipe.artifacts.summary import title_of

BARRIER_LABEL = re.compile(r"label_(\d+)d_([\d.e+-]+)(pct|vol)")


def title_of_label(label: str) -> str:
    """The title of a target by the name of its column of y.

    >>> title_of_label("label_5d_10pct"), title_of_label("label_1d_2vol"), title_of_label("next_price")
    ('5 bars, 10 %', '1 bar, 2 x volatility', 'next_price')
    """
    match = BARRIER_LABEL.fullmatch(label)
    if not match:
        return title_of({"label": label})
    size = {"threshold": float(match[2]) / 100} if match[3] == "pct" else {"multiple": float(match[2])}
    return title_of({"label": label, "horizon": int(match[1]), **size})


def to_percent(fraction: Any) -> Any:
    """A fraction in percent; None for None and for NaN."""
    return None if fraction is None or fraction != fraction else 100 * fraction


def words_of(name: str) -> str:
    """The name of a loss in words.

    >>> words_of("log_loss"), words_of("squared_error")
    ('log-loss', 'squared error')
    """
    return "log-loss" if name == "log_loss" else name.replace("_", " ")
