"""Learn the expected return of a model's trades; expected_return.py says what is learned, and how it is used."""

from __future__ import annotations

import math

import numpy as np

from gpupipe.evaluation.block_bootstrap import block_length, student_over_normal
from gpupipe.evaluation.expected_return import (
    LEAN,
    SIGNS,
    Effect,
    ExpectedReturn,
    Slopes,
    peers_of,
    raw_returns,
    times_volatility,
)

N_BINS = 5  # of volatility, for payoffs
PRIOR_ROWS = 100.0  # rows' weight on a class's payoff over all bins, in each bin
SLOPE_DEVIATION = 1.0  # of the slope's prior: 1 is the slope of right probabilities
IC_DEVIATION = 0.05  # of the prior of the lean's information coefficient
N_PERIODS = 5  # of dates, for cross-fitting
FEWEST_BLOCKS = 4


def fit(
    probability: np.ndarray,
    lean: np.ndarray,
    volatility: np.ndarray,
    time_ns: np.ndarray,
    y: np.ndarray,
    gross: np.ndarray,
    horizon: int,
    ranker: str = "",
) -> ExpectedReturn | None:
    """Learn from rows whose models had not seen them: out-of-fold and validation rows.

    probability: float (n, n_classes).  lean: float (n,), see `lean_of`.  volatility: float (n,), in any unit.
    time_ns: int64 (n,).  y: int (n,), class numbers.
    gross: float (n, 2), realised returns of a long and of a short trade, before costs.
    horizon: in bars; windows of as many dates overlap.  ranker: see `ExpectedReturn`.
    Rows with an unknown probability, lean, class or return are left out. None where fewer than four blocks of dates are
    left: there is no standard error then.
    """
    known = (y >= 0) & np.isfinite(gross).all(axis=1) & np.isfinite(probability).all(axis=1) & np.isfinite(lean)
    if not known.all():
        probability, lean, volatility, time_ns, y, gross = (
            array[known] for array in (probability, lean, volatility, time_ns, y, gross)
        )
    dates, date = np.unique(time_ns, return_inverse=True)
    block = block_length(len(dates), horizon)
    if len(dates) < FEWEST_BLOCKS * block:
        return None
    edges = _edges(volatility)
    bins, shape = np.searchsorted(edges, volatility, side="right"), (len(edges) + 1, probability.shape[1])
    payoff = _payoffs(bins, y, gross, *shape)
    crossed = np.empty((len(y), 2))
    period = date * N_PERIODS // len(dates)
    for k in range(N_PERIODS):
        inside = period == k
        others = _payoffs(bins[~inside], y[~inside], gross[~inside], *shape)
        crossed[inside] = raw_returns(others, probability[inside], bins[inside])
    n_blocks = len(dates) // block
    block_of_row = np.minimum(date // block, n_blocks - 1)
    peers, leaned = peers_of(time_ns, volatility), times_volatility(lean, volatility, edges)
    levels, slopes = [], []
    for side in range(2):
        realised = gross[:, side].astype(np.float64)
        levels.append(ratio(realised, np.ones(len(y)), block_of_row, n_blocks))
        columns = (crossed[:, side], SIGNS[side] * leaned, realised)
        x = [_centred(values, peers) for values in columns]
        slopes.append(_regression(np.column_stack(x[:2]), x[2], block_of_row, n_blocks))
    centre = np.append(raw_returns(payoff, probability, bins).mean(axis=0), leaned.mean())
    return ExpectedReturn(
        edges, payoff, centre, (levels[0], levels[1]), (slopes[0], slopes[1]), len(y), len(dates), ranker
    )


def _edges(volatility: np.ndarray) -> np.ndarray:
    """float64 (at most N_BINS - 1,): distinct quantiles of the known volatilities; empty without any."""
    known = volatility[np.isfinite(volatility)].astype(np.float64)
    if not known.size:
        return np.empty(0)
    edges: np.ndarray = np.unique(np.quantile(known, np.arange(1, N_BINS) / N_BINS))
    return edges


def _payoffs(bins: np.ndarray, y: np.ndarray, gross: np.ndarray, n_bins: int, n_classes: int) -> np.ndarray:
    """float64 (2, n_bins, n_classes): mean returns by bin and class, shrunk towards those of the class over all bins.

    A class that never occurs has the mean return of all rows.
    """
    cell = bins * n_classes + y.astype(np.int64)
    count = np.bincount(cell, minlength=n_bins * n_classes).reshape(n_bins, n_classes)
    payoff = np.empty((2, n_bins, n_classes))
    for side in range(2):
        total = np.bincount(cell, gross[:, side], minlength=n_bins * n_classes).reshape(n_bins, n_classes)
        mean = gross[:, side].mean(dtype=np.float64) if len(y) else 0.0
        of_class = (total.sum(axis=0) + mean) / (count.sum(axis=0) + 1.0)
        payoff[side] = (total + PRIOR_ROWS * of_class) / (count + PRIOR_ROWS)
    return payoff


def ratio(above: np.ndarray, below: np.ndarray, block: np.ndarray, n_blocks: int) -> Effect:
    """sum(above) / sum(below), float64 (n,), with the standard error over blocks; 0 and 0 where the divisor is 0."""
    tops, bottoms = (np.bincount(block, values, minlength=n_blocks) for values in (above, below))
    whole = bottoms.sum()
    if not whole > 0:
        return Effect(0.0, 0.0)
    estimate = tops.sum() / whole
    residual = tops - estimate * bottoms
    error = math.sqrt(float((residual**2).sum()) * n_blocks / (n_blocks - 1)) / whole
    return Effect(float(estimate), float(error * student_over_normal(n_blocks)))


def _regression(x: np.ndarray, y: np.ndarray, block: np.ndarray, n_blocks: int) -> Slopes:
    """The least-squares coefficients of y, float64 (n,), on x, float64 (n, 2), with their covariance over blocks.

    A predictor that does not vary, or that the other explains, has the coefficient 0, and a prior that leaves it there.
    """
    products = np.empty((n_blocks, 2, 2))
    tops = np.empty((n_blocks, 2))
    for i in range(2):
        tops[:, i] = np.bincount(block, x[:, i] * y, minlength=n_blocks)
        for j in range(2):
            products[:, i, j] = np.bincount(block, x[:, i] * x[:, j], minlength=n_blocks)
    whole = products.sum(axis=0)
    estimate, covariance, deviation = np.zeros(2), np.zeros((2, 2)), np.zeros(2)
    variance = np.diag(whole)
    active = np.flatnonzero(variance > 0)
    if active.size == 2 and whole[0, 1] ** 2 > (1 - 1e-9) * variance.prod():
        active = active[:1]
    if active.size:
        at = np.ix_(active, active)
        inverse = np.linalg.inv(whole[at])
        estimate[active] = inverse @ tops.sum(axis=0)[active]
        residual = tops[:, active] - products[:, active][:, :, active] @ estimate[active]
        meat = residual.T @ residual * n_blocks / (n_blocks - 1)
        covariance[at] = inverse @ meat @ inverse * student_over_normal(n_blocks) ** 2
        of_ic = IC_DEVIATION * math.sqrt(float((y**2).sum()) / variance[LEAN]) if variance[LEAN] > 0 else 0.0
        deviation[active] = np.array([SLOPE_DEVIATION, of_ic])[active]
    return Slopes(estimate, covariance, deviation)


def _centred(values: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Values minus the mean of their part.  part: int64 (n,), >= 0."""
    count = np.bincount(part)
    return values - (np.bincount(part, values) / np.maximum(count, 1))[part]
