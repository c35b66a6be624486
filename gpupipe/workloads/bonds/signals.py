"""Rich and cheap bonds of a date: quote against fair value, with intervals."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpupipe.data.panel import Panel
from gpupipe.workloads.bonds import fair_values, schema
from gpupipe.workloads.bonds.dates import positions
from gpupipe.workloads.bonds.intervals import Intervals
from gpupipe.workloads.bonds.models import scale_of
from gpupipe.workloads.bonds.ratings import NAMES, NOT_RATED

RICH, CHEAP, FAIR = "rich", "cheap", "fair"
COLUMNS = (
    "bond", "date", "issuer", "sector", "rating", "clean", "yield", "spread", "predicted_spread", "fair_spread",
    "fair_low", "fair_high", "fair_clean", "difference", "modified", "signal",
)  # fmt: skip


def table(
    panel: Panel, rows: np.ndarray, fair: fair_values.FairValues, change: np.ndarray, intervals: Intervals,
    convention: str,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Columns of the rich and cheap table, one entry for each row, by descending expected move in units of the spread.

    change: float32 (n_rows,), expected for all rows of the panel, percent; predicted_spread is the spread with it.
    intervals: from which fair_spread, fair_low and fair_high follow.  A bond is cheap where even the high end lies
    below the spread that it is quoted at, and rich where the low end lies above.
    rating: known on the row's day.  fair_clean: the price at the yield that the fair spread gives today.
    difference: clean less fair_clean.
    """
    device, panel = panel.device, fair_values.on_host(panel)
    symbol, rating = panel.symbol_of_row[rows], panel.columns["rating_rank"][rows].astype(np.int64)
    spread = fair.spread[rows]
    expected, low, high = intervals.ends(change[rows], spread, rating)
    terms = {**schema.bond_table(panel, rows), "yield": fair.curve_yield[rows] + expected}
    clean = panel.columns["clean"][rows]
    (fair_clean,) = fair_values.valued(terms, "yield", convention, device, "clean")
    signal = np.where(high < spread, CHEAP, np.where(low > spread, RICH, FAIR))
    found: dict[str, Any] = {
        "bond": np.asarray(panel.symbols, object)[symbol],
        "date": schema.days_of(panel)[rows].astype("datetime64[D]"),
        **{name: np.asarray(panel.attributes[name], object)[symbol] for name in ("issuer", "sector")},
        "rating": np.array([NAMES.get(int(k), NOT_RATED) for k in rating], object),
        "clean": clean, "yield": fair.yield_[rows], "spread": spread, "predicted_spread": spread + change[rows],
        "fair_spread": expected, "fair_low": low, "fair_high": high, "fair_clean": fair_clean,
        "difference": clean - fair_clean, "modified": fair.modified[rows], "signal": signal.astype(object),
    }  # fmt: skip
    order = np.lexsort((found["bond"].astype(str), -np.abs(change[rows] / scale_of(spread))))
    return {name: found[name][order] for name in COLUMNS}


def latest(time_ns: np.ndarray, known: np.ndarray) -> np.ndarray:
    """int64: the known rows of the last date that has any."""
    rows = np.flatnonzero(known)
    if not len(rows):
        return rows
    return rows[positions(time_ns[rows])[1] == positions(time_ns[rows])[1].max()]
