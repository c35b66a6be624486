"""The section of a summary on rows that lack a complete window, and its sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpupipe.dataset.dataset import Dataset


def of(datasets: Mapping[str, Dataset]) -> dict[str, Any] | None:
    """The section of the summary on rows without a complete window; None where no estimator looks back.

    length: bars of a window.  short: rows with too few bars of their symbol before them.  gaps: rows whose window
    crosses a gap in time of more than `gap_bars` bars.  rows: of all groups.
    """
    marked = [(dataset, dataset.windows) for dataset in datasets.values() if dataset.windows is not None]
    if not marked:
        return None
    return {
        "length": marked[0][0].lookback_rows + 1, "rows": sum(dataset.n_rows for dataset, _ in marked),
        "short": sum(marks.n_short for _, marks in marked), "gaps": sum(marks.n_gaps for _, marks in marked),
        "gap_bars": max(marks.gap_bars for _, marks in marked),
    }  # fmt: skip


def sentence(windows: Mapping[str, Any] | None) -> str:
    """The section in words; "" without one.

    >>> sentence({"length": 60, "rows": 5000, "short": 120, "gaps": 34, "gap_bars": 10})
    'windows of 60 bars: 120 of 5,000 rows have too few bars before them, and 34 cross a gap of more than 10 bars'
    """
    if not windows:
        return ""
    return (
        f"windows of {windows['length']} bars: {windows['short']:,} of {windows['rows']:,} rows have too few bars "
        f"before them, and {windows['gaps']:,} cross a gap of more than {windows['gap_bars']} bars"
    )
