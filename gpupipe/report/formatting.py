"""Numbers and label names as the report prints them."""

from __future__ import annotations

from typing import Any

from gpupipe.artifacts.summary import title_of


def title_of_label(label: str) -> str:
    """The title of a label by its name: label_5d_10pct is "5 bars, 10 %"."""
    _, horizon, threshold = label.split("_", 2)
    columns = {"horizon": int(horizon.removesuffix("d")), "threshold": float(threshold.removesuffix("pct")) / 100}
    return title_of(columns)


def to_percent(fraction: Any) -> Any:
    """A fraction in percent; None for None and for NaN."""
    return None if fraction is None or fraction != fraction else 100 * fraction
