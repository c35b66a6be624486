"""The par curve that a panel of bonds carries: tenors, yields at any maturity, and its value by date."""

from __future__ import annotations

from typing import Any

import numpy as np

PREFIX = "curve_"
# Years of each tenor of the Treasury's par curve.
TENORS = {
    "m1": 1 / 12, "m3": 0.25, "m6": 0.5, "y1": 1.0, "y2": 2.0, "y3": 3.0, "y5": 5.0, "y7": 7.0, "y10": 10.0,
    "y20": 20.0, "y30": 30.0,
}  # fmt: skip
DAYS_OF_YEAR = 365.25


def tenors_of(columns: Any) -> tuple[str, ...]:
    """Names of the tenors among the columns of a panel, from short to long."""
    return tuple(name for name in TENORS if PREFIX + name in columns)


def known_curve(columns: Any) -> np.ndarray:
    """float64 (n_rows, n_tenors), percent: the par curve of each row; a missing tenor lies on the line between others.

    Beyond the shortest and longest known tenor the curve is flat. NaN where a row has no tenor at all.
    """
    names = tenors_of(columns)
    curve = np.stack([np.asarray(columns[PREFIX + name], np.float64) for name in names], axis=1)
    holes = np.isnan(curve)
    if not holes.any():
        return curve
    years = np.array([TENORS[name] for name in names])
    # Few patterns of missing tenors occur, each on many rows.
    patterns, pattern_of_row = np.unique(holes, axis=0, return_inverse=True)
    for k, pattern in enumerate(patterns):
        if pattern.all() or not pattern.any():
            continue
        rows = np.flatnonzero(pattern_of_row.ravel() == k)
        curve[rows] = at_years(curve[np.ix_(rows, ~pattern)], years[~pattern], np.tile(years, (len(rows), 1)))
    return curve


def at_years(curve: np.ndarray, tenor_years: np.ndarray, years: np.ndarray) -> np.ndarray:
    """The curve at any maturity, linear between tenors and flat beyond them; NaN where it touches an unknown tenor.

    curve: float64 (n_rows, n_tenors).  tenor_years: float64 (n_tenors,), rising.  years: float64 (n_rows,) or
    (n_rows, n).  Returns float64 like years.

    >>> at_years(np.array([[1.0, 3.0]]), np.array([1.0, 2.0]), np.array([1.5])).tolist()
    [2.0]
    """
    if len(tenor_years) == 1:
        return np.broadcast_to(curve[:, :1] if years.ndim == 2 else curve[:, 0], years.shape).copy()
    x = np.clip(years, tenor_years[0], tenor_years[-1])
    right = np.clip(np.searchsorted(tenor_years, x), 1, len(tenor_years) - 1)
    weight = (x - tenor_years[right - 1]) / (tenor_years[right] - tenor_years[right - 1])
    rows = np.arange(len(curve)).reshape((-1, *(1,) * (years.ndim - 1)))
    return curve[rows, right - 1] * (1 - weight) + curve[rows, right] * weight
