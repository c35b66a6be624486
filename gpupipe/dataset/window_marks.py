"""WindowMarks: the rows that have all the rows before them that an estimator reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.data.panel import NS_PER_DAY, Panel
from gpupipe.dataset.lookback import Lookback

# The gap that a window may cross where nothing else is said: weekends and holidays are no gaps.
GAP_DAYS, LEAST_GAP_BARS = 5, 10


@dataclass(frozen=True)
class WindowMarks:
    """The rows of a panel whose window is complete.

    complete: bool (n_rows,), on the panel's device.
    n_short: rows with fewer rows of their symbol before them.  n_gaps: other rows whose window crosses a long gap.
    gap_bars: the longest gap that a window may cross, in bars; 0 where no row looks back.

        >>> from gpupipe.data import simulate
        >>> marks = mark_windows(simulate(n_symbols=2, n_bars=100), Lookback(59))
        >>> int(marks.complete.sum()), marks.n_short, marks.n_gaps, marks.gap_bars
        (82, 118, 0, 10)
    """

    complete: Any
    n_short: int
    n_gaps: int
    gap_bars: int


def mark_windows(panel: Panel, lookback: Lookback) -> WindowMarks:
    """Mark the rows that have `lookback.rows` rows of their symbol before them, without a long gap in between.

    A gap of k bars between two rows is k times the usual time between them (`bar_ns`).
    """
    device, xp = panel.device, panel.device.xp
    if not lookback.rows:
        return WindowMarks(xp.ones(panel.n_rows, dtype=bool), 0, 0, 0)
    rows = xp.arange(panel.n_rows)
    first = panel.offsets[:-1][panel.symbol_of_row]
    long_enough = rows - first >= lookback.rows
    bar = bar_ns(panel)
    limit = gap_limit(bar, lookback.max_gap_bars)
    begins = xp.zeros(panel.n_rows + 1, dtype=xp.int64)  # long gaps before each row, summed
    if bar:
        # Half a bar of tolerance: clocks jitter, and days of a clock that changes have 23 or 25 hours.
        is_gap = (panel.time_ns[1:] - panel.time_ns[:-1] > limit * bar + bar // 2) & (first[1:] == first[:-1])
        begins[2:] = xp.cumsum(is_gap)
    crossed = begins[rows + 1] - begins[xp.maximum(rows - lookback.rows, 0) + 1]
    complete = long_enough & (crossed == 0)
    n_long, n_complete = int(device.to_host(long_enough).sum()), int(device.to_host(complete).sum())
    return WindowMarks(complete, panel.n_rows - n_long, n_long - n_complete, limit)


def bar_ns(panel: Panel) -> int:
    """The usual time between two rows of a symbol: the median, in nanoseconds; 0 without two rows of a symbol."""
    time_ns, symbol = (panel.device.to_host(array) for array in (panel.time_ns, panel.symbol_of_row))
    steps = np.diff(time_ns)[symbol[1:] == symbol[:-1]]
    return int(np.median(steps)) if len(steps) else 0


def gap_limit(bar: int, max_gap_bars: int = 0) -> int:
    """The longest gap that a window may cross, in bars: `max_gap_bars`; for 0, five days, and 10 bars at least.

    >>> hour = 3_600 * 10**9
    >>> gap_limit(hour), gap_limit(24 * hour), gap_limit(hour, 6)
    (120, 10, 6)
    """
    if max_gap_bars:
        return max_gap_bars
    return max(LEAST_GAP_BARS, -(-GAP_DAYS * NS_PER_DAY // bar) if bar else 0)
