"""Corrections for choosing the best of many trials: deflated Sharpe ratio, probability of backtest overfitting.

Arrays in, numbers out. A result is NaN if there are too few periods or a series is constant. Series must not hold NaN.
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
    """float64 (n_dates // length, ...): means over consecutive periods of at least `length` dates.

    values: float (n_dates, ...), oldest first; a NaN makes the mean of its period NaN. The dates left over by the
    division make the first periods longer. Empty if there are fewer than `length` dates.

        >>> periods(np.arange(7.0), 3)
        array([1.5, 5. ])
    """
    n = len(values) // length
    values = np.asarray(values, dtype=np.float64)
    return np.stack([part.mean(axis=0) for part in np.array_split(values, n)]) if n else values[:0]


def sharpe(series: np.ndarray) -> np.ndarray:
    """Sharpe ratio of one period (not annualised): mean / sample standard deviation along the first axis.

    series: float (n_periods, ...).  NaN where a series is constant or holds NaN, and with fewer than two periods.
    """
    series = np.asarray(series, dtype=np.float64)
    if len(series) < 2:
        return np.full(series.shape[1:], np.nan)
    spread = series.std(axis=0, ddof=1)
    return series.mean(axis=0) / np.where(spread > 0, spread, np.nan)


def expected_maximum(n_trials: int, deviation: float) -> float:
    """Expected maximum Sharpe ratio of n_trials without skill whose Sharpe ratios have this standard deviation.

        deviation * ((1 - g) z(1 - 1/n) + g z(1 - 1/(n e))),  g Euler's constant, z the normal quantile

    0 for one trial; NaN if `deviation` is. The formula assumes independent trials. Trials of a search that converges
    are correlated, which makes the result too large: the correction errs on the strict side.
    Source: Bailey and Lopez de Prado (2014), The Deflated Sharpe Ratio, equation 1.
    """
    if n_trials < 2:
        return 0.0
    upper, further = (_NORMAL.inv_cdf(1 - 1 / (n_trials * factor)) for factor in (1.0, math.e))
    return deviation * ((1 - np.euler_gamma) * upper + np.euler_gamma * further)


def probabilistic_sharpe(series: np.ndarray, benchmark: float) -> float:
    """Probability that the true Sharpe ratio of a series is above `benchmark`, both of one period.

        Phi((S - benchmark) sqrt(n - 1) / sqrt(1 - skew S + (kurtosis - 1) / 4 S^2)),  Phi the normal distribution

    series: float (n_periods,).  NaN with fewer than 6 periods, for a constant series, or if an input is NaN.
    Source: Bailey and Lopez de Prado (2012), The Sharpe Ratio Efficient Frontier.
    """
    series = np.asarray(series, dtype=np.float64)
    ratio = float(sharpe(series))
    if len(series) < FEWEST_PERIODS or not np.isfinite([ratio, benchmark]).all():
        return math.nan
    standard = (series - series.mean()) / series.std()
    variance = 1 - (standard**3).mean() * ratio + ((standard**4).mean() - 1) / 4 * ratio**2
    # Never negative, because kurtosis >= skew^2 + 1, but 0 for a series of only two distinct values.
    return _NORMAL.cdf((ratio - benchmark) * math.sqrt(len(series) - 1) / math.sqrt(max(variance, 1e-12)))


def deflated_sharpe(chosen: np.ndarray, n_trials: int, others: np.ndarray | None = None) -> float:
    """Probability that the chosen series has skill, given that it is the best of n_trials (deflated Sharpe ratio).

    It is the probabilistic Sharpe ratio against the maximum that trials without skill would reach, `expected_maximum`.
    chosen: float (n_periods,).  n_trials: the number of all trials.
    others: float (n_periods, n_known), the trials whose series is known. As in the paper, the standard deviation of
        their Sharpe ratios, NaN ignored, stands for all trials. Without them it is 1 / sqrt(n_periods - 1), as for
        trials whose true Sharpe ratio is 0. Leave them out where trials truly differ: trials far below a reference
        would raise the standard deviation, and with it the benchmark.
    NaN as in `probabilistic_sharpe`.
    """
    if others is None:
        deviation = 1 / math.sqrt(max(1, len(chosen) - 1))
    else:
        known = sharpe(others)
        known = known[np.isfinite(known)]
        deviation = float(known.std(ddof=1)) if len(known) > 1 else 0.0
    return probabilistic_sharpe(chosen, expected_maximum(n_trials, deviation))


def overfitting(series: np.ndarray) -> tuple[float, float]:
    """Probability of backtest overfitting, and the mean out-of-sample performance of the trial chosen in sample.

    Combinatorially symmetric cross-validation: periods are split into an even number of groups, at most 16. For every
    choice of half of the groups, the trial with the best mean in them is ranked by its mean in the other half. The
    probability is the share of choices with rank / (n_trials + 1) <= 1/2; ties take their mean rank. The second number
    is the mean of the chosen trial in the other half, averaged over all choices.

    series: float (n_periods, n_trials), larger is better, without NaN.
    Returns (NaN, NaN) with fewer than 6 periods or two trials.
    Source: Bailey, Borwein, Lopez de Prado and Zhu (2016), The Probability of Backtest Overfitting, with the mean as
    the measure of performance, because tuning maximises the mean.

        >>> overfitting(np.array([[0.0, 1.0]] * 6))  # the second trial is better in every period
        (0.0, 1.0)
    """
    n_periods, n_trials = series.shape
    if n_periods < FEWEST_PERIODS or n_trials < 2:
        return math.nan, math.nan
    n_groups = min(MOST_GROUPS, n_periods - n_periods % 2)
    groups = np.array_split(np.asarray(series, dtype=np.float64), n_groups)
    sums, sizes = np.stack([group.sum(axis=0) for group in groups]), np.array([len(group) for group in groups])
    chosen = np.zeros((math.comb(n_groups, n_groups // 2), n_groups))
    for row, half in enumerate(itertools.combinations(range(n_groups), n_groups // 2)):
        chosen[row, half] = 1
    in_sample = chosen @ sums / (chosen @ sizes)[:, None]
    out_of_sample = (1 - chosen) @ sums / ((1 - chosen) @ sizes)[:, None]
    best = in_sample.argmax(axis=1)
    performance = out_of_sample[np.arange(len(best)), best]
    below = (out_of_sample < performance[:, None]).sum(axis=1)
    equal = (out_of_sample == performance[:, None]).sum(axis=1)
    rank = below + (equal + 1) / 2
    return float((rank / (n_trials + 1) <= 0.5).mean()), float(performance.mean())
