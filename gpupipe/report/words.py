"""Figures and names as the report writes them."""

from __future__ import annotations

from typing import Any

from gpupipe.artifacts.summary import title_of


def title_of_label(label: str) -> str:
    """label_5d_10pct as "5 bars, 10 %"."""
    _, horizon, threshold = label.split("_", 2)
    of = {"horizon": int(horizon.removesuffix("d")), "threshold": float(threshold.removesuffix("pct")) / 100}
    return title_of(of)


def times_100(value: Any) -> Any:
    """In percent; None for what is not known."""
    return None if value is None or value != value else 100 * value
