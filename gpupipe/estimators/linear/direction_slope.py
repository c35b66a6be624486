"""The slope from a score to the log-odds of a side, with its standard error by blocks of times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpupipe.estimators.three_classes import LOWER, UPPER
from gpupipe.evaluation.paired_test import BLOCK_TIMES

FEWEST_BLOCKS = 3
STEPS, LARGEST_SLOPE = 50, 3.0
CLEARLY = 3.0  # standard errors; two would be met by chance in one of forty fits


@dataclass(frozen=True)
class Sides:
    """Which side each of some rows went to, and what the score had said; arrays (n,).

    upper: float64, 1 for the upper and 0 for the lower side.  score: float64.  log_odds: float64, of the upper side
    without the score.  time_ns: int64.  cell: int64 >= 0, the same for rows that are compared with one another.

        >>> score, y = np.array([0.3, -0.2, 0.1]), np.int8([[2, 1], [0, 1], [1, 2]])
        >>> sides_of_touches(score, y, np.array([10, 10, 20]), np.zeros(2)).upper.tolist()
        [1.0, 0.0, 1.0]
    """

    upper: np.ndarray
    score: np.ndarray
    log_odds: np.ndarray
    time_ns: np.ndarray
    cell: np.ndarray


def sides_of_touches(score: np.ndarray, y: np.ndarray, time_ns: np.ndarray, log_odds: np.ndarray) -> Sides:
    """The touched rows of every target, each compared with those of its time and target; NaN scores are left out.

    y: int8 (n, n_targets), -1 for unknown.  log_odds: float64 (n_targets,), of the upper against the lower class.
    """
    row, target = np.nonzero(((y == LOWER) | (y == UPPER)) & ~np.isnan(score)[:, None])
    time_number = np.unique(time_ns, return_inverse=True)[1]
    return Sides(
        (y[row, target] == UPPER).astype(np.float64), score[row].astype(np.float64), log_odds[target], time_ns[row],
        time_number[row] * len(log_odds) + target,
    )  # fmt: skip


def sides_of_ranks(score: np.ndarray, rank: np.ndarray, time_ns: np.ndarray) -> Sides:
    """All rows, above or below the median of their time; those at it, and NaN scores and ranks, are left out.

    rank: float64 (n,), see `rank_regression.ranks_within`.

        >>> sides_of_ranks(np.zeros(3), np.array([0.2, 0.0, np.nan]), np.array([1, 1, 1])).upper.tolist()
        [1.0]
    """
    row = np.flatnonzero(~np.isnan(score) & (np.abs(np.nan_to_num(rank)) > 0))
    time_number = np.unique(time_ns, return_inverse=True)[1]
    return Sides(
        (rank[row] > 0).astype(np.float64), score[row].astype(np.float64), np.zeros(len(row)), time_ns[row],
        time_number[row],
    )  # fmt: skip


@dataclass(frozen=True)
class Slope:
    """A slope and its standard error; NaN where it cannot be measured.

    >>> round(Slope(0.05, 0.03).shrunk, 3), Slope(0.02, 0.03).shrunk, Slope(-0.2, 0.03).is_reversed
    (0.032, 0.0, True)
    """

    estimate: float
    standard_error: float

    @property
    def shrunk(self) -> float:
        """estimate * max(0, 1 - (standard error / estimate)^2), and 0 below 0 or where it is unknown.

        The positive-part estimator of James and Stein (1961) for one mean.
        """
        if not self.estimate > 0:
            return 0.0
        return self.estimate * max(0.0, 1 - (self.standard_error / self.estimate) ** 2)

    @property
    def is_reversed(self) -> bool:
        """Whether it is below 0 by more than three standard errors."""
        return bool(self.estimate < -CLEARLY * self.standard_error)


UNKNOWN = Slope(float("nan"), float("nan"))


def slope_of(sides: Sides, horizon_rows: int) -> Slope:
    """b of P(upper) = 1 / (1 + exp(-(log_odds + b * score))), at most 3 in size.

    It solves sum((upper - P) * (score - mean score of the row's cell)) = 0: what moves all rows of a time to one side
    counts neither for nor against the score. The standard error adds these terms up over blocks of at least ten times,
    twice the longest horizon in bars, because neighbouring times share label windows. Unknown with fewer than three
    blocks, or where no cell has different scores.

        >>> rng = np.random.default_rng(1)
        >>> score, time_ns = rng.normal(size=4000), np.arange(4000) // 10
        >>> up = rng.random(4000) < 1 / (1 + np.exp(-0.5 * score))
        >>> slope = slope_of(sides_of_ranks(score, up - 0.5, time_ns), horizon_rows=1)
        >>> round(slope.estimate, 1), round(slope.standard_error, 2)
        (0.5, 0.04)
    """
    times, position = np.unique(sides.time_ns, return_inverse=True)
    block = position // max(BLOCK_TIMES, 2 * horizon_rows)
    if len(times) == 0 or block.max() + 1 < FEWEST_BLOCKS:
        return UNKNOWN
    sums = np.bincount(sides.cell, weights=sides.score)
    within = sides.score - (sums / np.maximum(np.bincount(sides.cell), 1))[sides.cell]
    slope, terms, curvature = 0.0, within, 0.0
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-(sides.log_odds + slope * sides.score)))
        terms, curvature = (sides.upper - p) * within, float((p * (1 - p) * sides.score * within).sum())
        if curvature < 1e-9:
            return UNKNOWN
        step = float(terms.sum()) / curvature
        slope = float(np.clip(slope + step, -LARGEST_SLOPE, LARGEST_SLOPE))
        if abs(step) < 1e-9:
            break
    variance = float((np.bincount(block, weights=terms) ** 2).sum()) / curvature**2
    return Slope(slope, float(np.sqrt(variance)))
