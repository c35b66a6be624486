"""What the best of many trials is worth: Deflated Sharpe Ratio and probability of backtest overfitting.

Arrays in, numbers out. NaN where there are too few periods, or nothing varies, to say anything.
"""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import numpy as np

FEWEST_PERIODS = 6
MOST_GROUPS = 16  # 12,870 ways to choose half of them, as in Bailey et al. (2016)
_NORMAL = NormalDist()


def periods(values: np.ndarray, length: int) -> np.ndarray:
    """float64 (n_dates // length, ...): means over successive dates, `length` of them or, the first periods, one more.

    values: float (n_dates, ...), oldest first.
    """
    n = len(values) // length
    values = np.asarray(values, dtype=np.float64)
    return np.stack([part.mean(axis=0) for part in np.array_split(values, n)]) if n else values[:0]


def sharpe(series: np.ndarray) -> np.ndarray:
    """Mean over standard deviation along the first axis, of one period (not annualised); NaN where nothing varies."""
    series = np.asarray(series, dtype=np.float64)
    if len(series) < 2:
        return np.full(series.shape[1:], np.nan)
    spread = series.std(axis=0, ddof=1)
    return series.mean(axis=0) / np.where(spread > 0, spread, np.nan)


def expected_maximum(n_trials: int, deviation: float) -> float:
    """Largest Sharpe ratio to expect of n_trials without any skill whose Sharpe ratios have this standard deviation.

    deviation * ((1 - g) z(1 - 1/n) + g z(1 - 1/(n e))), g Euler's constant, z the normal quantile; 0 for one trial.
    Source: Bailey and Lopez de Prado (2014), The Deflated Sharpe Ratio, equation 1. Trials are taken as
    independent: those of a search that closes in on a place are not, so that this is too strict rather than too kind.
    """
    if n_trials < 2:
        return 0.0
    upper, further = (_NORMAL.inv_cdf(1 - 1 / (n_trials * factor)) for factor in (1.0, math.e))
    return deviation * ((1 - np.euler_gamma) * upper + np.euler_gamma * further)


def probabilistic_sharpe(series: np.ndarray, benchmark: float) -> float:
    """Probability that the true Sharpe ratio of a series lies above `benchmark` (of one period).

    The normal distribution at (S - benchmark) sqrt(n - 1) / sqrt(1 - skew S + (kurtosis - 1) / 4 S^2).
    series: float (n_periods,).  Source: Bailey and Lopez de Prado (2012), The Sharpe Ratio Efficient Frontier.
    """
    series = np.asarray(series, dtype=np.float64)
    ratio = float(sharpe(series))
    if len(series) < FEWEST_PERIODS or not np.isfinite([ratio, benchmark]).all():
        return math.nan
    standard = (series - series.mean()) / series.std()
    variance = 1 - (standard**3).mean() * ratio + ((standard**4).mean() - 1) / 4 * ratio**2
    # Never negative, as kurtosis >= skew^2 + 1; but 0 with two values alone.
    return _NORMAL.cdf((ratio - benchmark) * math.sqrt(len(series) - 1) / math.sqrt(max(variance, 1e-12)))


def deflated_sharpe(chosen: np.ndarray, n_trials: int, others: np.ndarray | None = None) -> float:
    """Probability that the chosen series has skill, given that it is the best of n_trials.

    The probabilistic Sharpe ratio against the largest that luck would give: `expected_maximum`.
    chosen: float (n_periods,).  n_trials: all that were tried.
    others: float (n_periods, n_known), trials of which the series is known; the spread of their Sharpe ratios is that
        of the trials, as in the paper. Without them it is 1 / sqrt(n_periods - 1), that of trials whose true Sharpe
        ratio is 0: right where trials differ in truth, as those that are worse than a reference would make the
        spread, and so the bar, as high as they are bad.
    """
    if others is None:
        deviation = 1 / math.sqrt(max(1, len(chosen) - 1))
    else:
        known = sharpe(others)
        known = known[np.isfinite(known)]
        deviation = float(known.std(ddof=1)) if len(known) > 1 else 0.0
    return probabilistic_sharpe(chosen, expected_maximum(n_trials, deviation))


def overfitting(series: np.ndarray) -> tuple[float, float]:
    """Probability of backtest overfitting, and what the trial chosen on one half of the periods gives on the other.

    Combinatorially symmetric cross-validation: periods are cut into an even number of groups, at most 16; for every
    choice of half of them the trial with the best mean there is ranked by its mean on the other half. The probability
    is the share of choices where it comes out in the lower half, rank / (n_trials + 1) <= 1/2; ties take their mean
    rank. The second number is its mean on the other half, over all choices.

    series: float (n_periods, n_trials), larger is better.  NaN with fewer than 6 periods or two trials.
    Source: Bailey, Borwein, Lopez de Prado and Zhu (2016), The Probability of Backtest Overfitting, with the mean as
    performance, because the mean is what is tuned.
    """
    n_periods, n_trials = series.shape
    if n_periods < FEWEST_PERIODS or n_trials < 2:
        return math.nan, math.nan
    n_groups = min(MOST_GROUPS, n_periods - n_periods % 2)
    parts = np.array_split(np.asarray(series, dtype=np.float64), n_groups)
    sums, sizes = np.stack([part.sum(axis=0) for part in parts]), np.array([len(part) for part in parts])
    chosen = np.zeros((math.comb(n_groups, n_groups // 2), n_groups))
    for row, half in enumerate(itertools.combinations(range(n_groups), n_groups // 2)):
        chosen[row, half] = 1
    inside = chosen @ sums / (chosen @ sizes)[:, None]
    outside = (1 - chosen) @ sums / ((1 - chosen) @ sizes)[:, None]
    best = inside.argmax(axis=1)
    found = outside[np.arange(len(best)), best]
    below = (outside < found[:, None]).sum(axis=1)
    equal = (outside == found[:, None]).sum(axis=1)
    rank = below + (equal + 1) / 2
    return float((rank / (n_trials + 1) <= 0.5).mean()), float(found.mean())
