"""Rows by date and by bond: positions of dates, means over groups of a date, and values of earlier quotes."""

from __future__ import annotations

import numpy as np


def positions(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values, rising, and int64 (n_rows,): the position of each row's value among them."""
    distinct, at = np.unique(values, return_inverse=True)
    return distinct, at.ravel().astype(np.int64)


def group_mean(values: np.ndarray, group: np.ndarray, leave_out_own: bool = False) -> np.ndarray:
    """float64 (n_rows,): the mean of the known values of each row's group; NaN without any.

    values: float64 (n_rows,).  group: int64 (n_rows,), 0 or more.
    leave_out_own: of the other rows alone, so that a row says nothing of itself.
    """
    known = np.isfinite(values)
    n = int(group.max(initial=-1)) + 1
    count = np.bincount(group, weights=known, minlength=n)[group]
    total = np.bincount(group, weights=np.where(known, values, 0.0), minlength=n)[group]
    if leave_out_own:
        count, total = count - known, total - np.where(known, values, 0.0)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def less_mean_of_date(values: np.ndarray, date: np.ndarray) -> np.ndarray:
    """float64 (n_rows,): values less the mean of the known ones of their date.

    >>> less_mean_of_date(np.array([1.0, 3.0, 5.0]), np.array([4, 4, 9])).tolist()
    [-1.0, 1.0, 0.0]
    """
    return np.asarray(values - group_mean(values, positions(date)[1]), np.float64)


def earlier(values: np.ndarray, offsets: np.ndarray, k: int) -> np.ndarray:
    """float64 (n_rows,): the value of the same symbol k rows before; NaN where it has fewer.

    >>> earlier(np.array([1.0, 2.0, 5.0]), np.array([0, 2, 3]), 1).tolist()
    [nan, 1.0, nan]
    """
    lagged = np.full(len(values), np.nan)
    if k < len(values):
        lagged[k:] = values[: len(values) - k]
    first = np.repeat(offsets[:-1], np.diff(offsets))
    lagged[np.arange(len(values)) - first < k] = np.nan
    return lagged


def mean_of_last(values: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
    """float64 (n_rows,): the mean of the known values of a row and of the n - 1 rows of its symbol before it."""
    stack = np.stack([values if k == 0 else earlier(values, offsets, k) for k in range(n)])
    known = np.isfinite(stack)
    count = known.sum(axis=0)
    total = np.where(known, stack, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def total_so_far(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """float64 (n_rows,): the sum of the known values of a row and of all rows of its symbol before it.

    Each symbol is summed from its own first row, so that neither other symbols nor later rows change a bit.

    >>> total_so_far(np.array([1.0, 2.0, np.nan, 5.0]), np.array([0, 3, 4])).tolist()
    [1.0, 3.0, 3.0, 5.0]
    """
    total = np.where(np.isfinite(values), values, 0.0)
    begin, end = offsets[:-1], offsets[1:]
    for k in range(1, int(np.diff(offsets).max(initial=0))):
        row = (begin + k)[begin + k < end]
        total[row] += total[row - 1]
    return total


def mean_so_far(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """float64 (n_rows,): the mean of the known values of a row and of all rows of its symbol before it.

    >>> mean_so_far(np.array([1.0, 3.0, np.nan, np.nan]), np.array([0, 3, 4])).tolist()
    [1.0, 2.0, 2.0, nan]
    """
    count = total_so_far(np.isfinite(values).astype(np.float64), offsets)
    return np.divide(total_so_far(values, offsets), count, out=np.full(len(values), np.nan), where=count > 0)
