"""The row of the next period: where the targets of workloads that predict values are read."""

from __future__ import annotations

from typing import Any

import numpy as np


def next_row(values: Any, time_ns: Any, offsets: Any, most_ns: int) -> np.ndarray:
    """The number of the row whose value is the target of each row: the next row of the same symbol.

    Reads:   row i + 1, the future of row i: a target, never a feature.
    values: float (n_rows,).  time_ns: int64 (n_rows,).  offsets: int64 (n_symbols + 1,).  All on the host.
    most_ns: a next row later than that is no next period.
    Returns int64 (n_rows,), -1 in a symbol's last row, before a longer gap, and where the next value is NaN.

    >>> next_row(np.array([1.0, 2.0, 5.0]), np.array([0, 10, 0]), np.array([0, 2, 3]), 20).tolist()
    [1, -1, -1]
    """
    n_rows = len(values)
    after = np.full(n_rows, -1)
    if n_rows < 2:
        return after
    ends = np.asarray(offsets)[1:][np.diff(offsets) > 0]
    known = np.append((np.diff(time_ns) <= most_ns) & np.isfinite(values[1:]), False)
    known[ends - 1] = False
    at = np.flatnonzero(known)
    after[at] = at + 1
    return after
