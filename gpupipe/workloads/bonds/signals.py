"""Rich and cheap bonds of a date: quote against fair value, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpupipe.data.panel import Panel
from gpupipe.workloads.bonds import fair_values, schema
from gpupipe.workloads.bonds.dates import positions
from gpupipe.workloads.bonds.ratings import NOT_RATED, RANKS

LEVEL = 0.9  # of the intervals
RICH, CHEAP, FAIR = "rich", "cheap", "fair"
NAMES = {rank: name for name, rank in RANKS.items()}
COLUMNS = (
    "bond", "date", "issuer", "sector", "rating", "clean", "yield", "spread", "fair_spread", "fair_low", "fair_high",
    "fair_clean", "difference", "modified", "signal",
)  # fmt: skip


def residual_quantiles(
    residual: np.ndarray, rating: np.ndarray, level: float = LEVEL
) -> dict[int, tuple[float, float]]:
    """For each rating the quantiles of validation residuals, happened less predicted, that hold `level` of them.

    -1 stands for all ratings: those with fewer than 50 rows take it.

    >>> residual_quantiles(np.arange(101.0), np.zeros(101, np.int64), level=0.5)[-1]
    (25.0, 75.0)
    """
    tail = (1 - level) / 2

    def of(values: np.ndarray) -> tuple[float, float]:
        low, high = np.quantile(values, [tail, 1 - tail])
        return float(low), float(high)

    known = np.isfinite(residual)
    found = {-1: of(residual[known]) if known.any() else (float("nan"), float("nan"))}
    for k in np.unique(rating[known]):
        own = residual[known & (rating == k)]
        if len(own) >= 50:
            found[int(k)] = of(own)
    return found


def table(
    panel: Panel, rows: np.ndarray, fair: fair_values.FairValues, change: np.ndarray,
    quantiles: Mapping[int, tuple[float, float]], convention: str,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Columns of the rich and cheap table, one entry for each row, by descending distance from fair.

    change: float32 (n_rows,), predicted for all rows of the panel.  A bond is cheap where even the high end of its fair
    spread lies below the spread that it is quoted at, and rich where the low end lies above.
    rating: known on the row's day.  fair_clean: the price at the yield that the fair spread gives today.
    difference: clean less fair_clean.
    """
    device, panel = panel.device, fair_values.on_host(panel)
    symbol, rating = panel.symbol_of_row[rows], panel.columns["rating_rank"][rows].astype(np.int64)
    spread, moved = fair.spread[rows], change[rows].astype(np.float64)
    ends = np.array([quantiles.get(int(k), quantiles[-1]) for k in rating]).reshape(-1, 2)
    expected = spread + moved
    low, high = expected + ends[:, 0], expected + ends[:, 1]
    terms = {**schema.bond_table(panel, rows), "yield": fair.curve_yield[rows] + expected}
    clean = panel.columns["clean"][rows]
    (fair_clean,) = fair_values.valued(terms, "yield", convention, device, "clean")
    signal = np.where(high < spread, CHEAP, np.where(low > spread, RICH, FAIR))
    found: dict[str, Any] = {
        "bond": np.asarray(panel.symbols, object)[symbol],
        "date": schema.days_of(panel)[rows].astype("datetime64[D]"),
        **{name: np.asarray(panel.attributes[name], object)[symbol] for name in ("issuer", "sector")},
        "rating": np.array([NAMES.get(int(k), NOT_RATED) for k in rating], object),
        "clean": clean, "yield": fair.yield_[rows], "spread": spread, "fair_spread": expected, "fair_low": low,
        "fair_high": high, "fair_clean": fair_clean, "difference": clean - fair_clean,
        "modified": fair.modified[rows], "signal": signal.astype(object),
    }  # fmt: skip
    order = np.lexsort((found["bond"].astype(str), -np.abs(moved)))
    return {name: found[name][order] for name in COLUMNS}


def latest(time_ns: np.ndarray, known: np.ndarray) -> np.ndarray:
    """int64: the known rows of the last date that has any."""
    rows = np.flatnonzero(known)
    if not len(rows):
        return rows
    return rows[positions(time_ns[rows])[1] == positions(time_ns[rows])[1].max()]
