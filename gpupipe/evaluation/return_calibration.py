"""Expected against realised returns, in groups of rising expected return."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gpupipe.evaluation.block_bootstrap import block_length
from gpupipe.evaluation.expected_return_fit import FEWEST_BLOCKS, ratio


@dataclass(frozen=True)
class Calibration:
    """Expected and realised returns of rows in groups of rising expected return, on rows that nothing was learned from.

    expected, realised: mean returns of each group.  error: standard error of their difference: of the realised mean
    over blocks of dates, and of the expected return; NaN with fewer than four blocks.  rows: numbers of rows.

    >>> expected = np.linspace(-0.01, 0.01, 400)
    >>> calibration = calibrate(expected, expected * 0, expected, np.repeat(np.arange(100), 4), horizon=1, n_groups=4)
    >>> calibration.rows, calibration.is_monotone, calibration.worst < 1
    ((100, 100, 100, 100), True, True)
    """

    expected: tuple[float, ...]
    realised: tuple[float, ...]
    error: tuple[float, ...]
    rows: tuple[int, ...]

    @property
    def is_monotone(self) -> bool:
        """Whether realised returns rise from group to group."""
        return bool((np.diff(self.realised) > 0).all())

    @property
    def worst(self) -> float:
        """The largest difference between expected and realised returns, in standard errors; NaN without any.

        A group whose error is 0 or NaN has no difference in standard errors.
        """
        errors = np.array(self.error)
        known = errors > 0
        difference = np.abs(np.array(self.expected) - np.array(self.realised))[known]
        return float((difference / errors[known]).max()) if known.any() else float("nan")


def calibrate(
    expected: np.ndarray,
    expected_error: np.ndarray,
    realised: np.ndarray,
    time_ns: np.ndarray,
    horizon: int,
    n_groups: int = 10,
) -> Calibration:
    """Compare expected with realised returns in groups of about equally many rows, by expected return.

    expected, expected_error, realised: float (n,); rows where one is NaN are left out.  time_ns: int64 (n,).
    horizon: in bars.
    Equal expected returns stay together, so that there are fewer groups where many rows have the same one.
    """
    known = np.isfinite(expected) & np.isfinite(realised)
    expected, expected_error, realised = (
        array[known].astype(np.float64) for array in (expected, expected_error, realised)
    )
    time_ns = time_ns[known]
    if not len(expected):
        return Calibration((), (), (), ())
    edges = np.unique(np.quantile(expected, np.arange(1, n_groups) / n_groups))
    group = np.searchsorted(edges, expected, side="left")
    dates, date = np.unique(time_ns, return_inverse=True)
    n_blocks = len(dates) // block_length(len(dates), horizon)
    block = np.minimum(date * max(n_blocks, 1) // len(dates), max(n_blocks, 1) - 1)
    lines = []
    for k in np.unique(group):
        rows = group == k
        error = float("nan")
        if n_blocks >= FEWEST_BLOCKS:
            error = ratio(realised[rows], np.ones(int(rows.sum())), block[rows], n_blocks).error
            error = math.hypot(error, float(expected_error[rows].mean()))
        lines.append((float(expected[rows].mean()), float(realised[rows].mean()), error, int(rows.sum())))
    means, reals, errors, counts = zip(*lines, strict=True)
    return Calibration(means, reals, errors, counts)
