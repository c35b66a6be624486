"""The slope from a score to the log-odds of a side: logistic regression, shrunk by its own standard error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpupipe.estimators.three_classes import LOWER, UPPER
from gpupipe.evaluation.paired_test import BLOCK_TIMES

FEWEST_BLOCKS = 3
STEPS, LARGEST_SLOPE = 50, 3.0


@dataclass(frozen=True)
class Sides:
    """What a slope is measured on.

    score: float (n,), of deviation about 1; a NaN score is not counted.  y: int8 (n, n_targets), -1 for unknown.
    time_ns: int64 (n,).  log_odds: float64 (n_targets,), of the upper against the lower class, without the score.

        >>> Sides(np.zeros(2), np.int8([[2], [1]]), np.array([1, 2]), np.zeros(1)).touched()[0].tolist()
        [1.0]
    """

    score: np.ndarray
    y: np.ndarray
    time_ns: np.ndarray
    log_odds: np.ndarray

    def touched(self) -> tuple[np.ndarray, ...]:
        """(1 for upper and 0 for lower, score, log-odds, time, target) of each row and target of an outer class."""
        row, target = np.nonzero((self.y == LOWER) | (self.y == UPPER))
        known = ~np.isnan(self.score[row])
        row, target = row[known], target[known]
        upper = (self.y[row, target] == UPPER).astype(np.float64)
        return upper, self.score[row].astype(np.float64), self.log_odds[target], self.time_ns[row], target


def slope_of(sides: Sides, horizon_rows: int) -> float:
    """b of P(upper | touched) = 1 / (1 + exp(-(log_odds + b * score))), shrunk by its standard error; >= 0.

    It solves sum((upper - P) * (score - mean score of the touched rows of its time and target)) = 0: what moves all
    symbols of a time to one side then counts neither for nor against the score. With s the standard error of b, the
    result is b * max(0, 1 - s^2 / b^2), the positive-part estimator of James and Stein for one mean, and 0 for b < 0:
    a score that validation finds reversed is no score. The sums are made over blocks of at least ten times, twice the
    longest horizon in bars, because neighbouring times share label windows. 0 with fewer than three blocks.

        >>> rng = np.random.default_rng(1)
        >>> score = rng.normal(size=4000)
        >>> up = rng.random(4000) < 1 / (1 + np.exp(-0.5 * score))
        >>> sides = Sides(score, np.where(up, 2, 0).astype(np.int8)[:, None], np.arange(4000) // 10, np.zeros(1))
        >>> round(slope_of(sides, horizon_rows=1), 1)
        0.5
        >>> slope_of(Sides(-score, sides.y, sides.time_ns, sides.log_odds), horizon_rows=1)
        0.0
    """
    upper, score, log_odds, time_ns, target = sides.touched()
    times, position = np.unique(time_ns, return_inverse=True)
    block = position // max(BLOCK_TIMES, 2 * horizon_rows)
    if len(times) == 0 or block.max() + 1 < FEWEST_BLOCKS:
        return 0.0
    own = position * len(sides.log_odds) + target
    within = score - (np.bincount(own, weights=score) / np.maximum(np.bincount(own), 1))[own]
    if np.abs(within).max() < 1e-9:
        return 0.0
    slope = 0.0
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-(log_odds + slope * score)))
        gradient, curvature = (upper - p) * within, float((p * (1 - p) * score * within).sum())
        step = gradient.sum() / curvature if curvature > 1e-12 else 0.0
        slope = float(np.clip(slope + step, -LARGEST_SLOPE, LARGEST_SLOPE))
        if abs(step) < 1e-9:
            break
    if slope <= 0 or curvature <= 1e-12:
        return 0.0
    variance = float((np.bincount(block, weights=gradient) ** 2).sum()) / curvature**2
    return float(slope * max(0.0, 1 - variance / slope**2))
