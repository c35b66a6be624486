"""Expected move: the volatility of the next bars that probabilities of barrier labels imply.

A barrier label is HOLD exactly where the price reaches neither close * (1 + t) nor close * (1 - t) within h bars. So
P(touch) = P(BUY) + P(SELL) is the probability that a path leaves a corridor, and a wider corridor that is left as often
means a larger volatility. For a driftless random walk with a standard deviation of v per bar, s = v * sqrt(h), and a
corridor of the half-width a = atanh(t) (the mean of log(1 + t) and -log(1 - t)), the reflection principle gives

    P(touch) = 4 * sum over k >= 0 of (-1)^k * (1 - Phi((2k + 1) * a / s))

and `implied_volatility` solves it for v. Several thresholds of a horizon give several v; their logarithms are averaged,
weighted by the Fisher information of each touch about log v, (dP / dlog v)^2 / (P * (1 - P)): a probability next to 0
or 1 says little about v.

What the formula ignores, and in which direction it errs:

- It sees the path at all times. Labels see highs and lows, which do so within a session, but not a path between bars:
  of bars without a range, v would be too low by the factor a / (a + 0.58 * v) (Broadie, Glasserman and Kou 1997).
- Returns have fat tails, and volatility is not known. P is then a mean over many volatilities, so that v is too high
  where few rows touch and too low where most do.
- Highs and lows of a bar reach further than closes do; volatility that reverts within h bars counts as if it lasted.

The second is the largest: on daily stocks it makes the forecasts too flat. Two numbers, learned on earlier rows,
correct level and flatness (`calibrate`): factor * v^exponent. They leave the order of the rows as it is.

Source: Feller (1971), An Introduction to Probability Theory and Its Applications, volume 2, section X.5 (two absorbing
barriers); Broadie, Glasserman and Kou (1997), A continuity correction for discrete barrier options.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SMALLEST = 1e-4  # probabilities of a touch are taken as at least this, and as at most 1 less this
N_IMAGES = 8  # terms of the series; the next is below 1e-16 for every s / a of the table
GRID = 4096  # points of the table that is inverted; its error is below 1e-6 of v
FEWEST_ROWS = 30  # from which a correction is learned
EXPONENTS = (0.1, 4.0)  # between which its exponent lies
BISECTIONS = 30  # its exponent is known to 4e-9 then


def touch_probability(threshold: float, volatility: np.ndarray, horizon: int) -> np.ndarray:
    """float64 (n,): the probability that a driftless random walk leaves close * (1 - t) to close * (1 + t) in h bars.

    threshold: t, a fraction inside (0, 1).  volatility: float (n,), the standard deviation of a bar's log return; 0
    gives 0, and NaN or a negative one NaN.  horizon: h, in bars. Raises ValueError for another threshold or horizon.

    >>> touch_probability(0.05, np.array([0.0, 0.01, 0.02, 0.05]), horizon=5).round(3).tolist()
    [0.0, 0.05, 0.525, 0.997]
    """
    _check(threshold, horizon)
    volatility = np.asarray(volatility, np.float64)
    spread = np.where(volatility >= 0, volatility, np.nan) * math.sqrt(horizon) / math.atanh(threshold)
    return _leaves(spread)


def implied_volatility(touch: np.ndarray, thresholds: Sequence[float], horizon: int) -> np.ndarray:
    """float64 (n,): the volatility of a bar, as a fraction of the price, that probabilities of a touch imply.

    touch: float (n, n_thresholds), P(BUY) + P(SELL) of each threshold; NaN where a threshold has none.
    thresholds: fractions inside (0, 1).  horizon: in bars.
    A row whose probabilities are all NaN is NaN; others use the thresholds they have, alone if it is one. Probabilities
    are taken as at least 1e-4 and at most 1 - 1e-4, so that 0 and 1 give a small and a large volatility that still
    depend on the threshold, and never 0 or infinity.
    Raises ValueError for another shape, threshold or horizon.

    >>> volatility = np.array([0.01, 0.02, 0.05])
    >>> touch = np.stack([touch_probability(t, volatility, 5) for t in (0.05, 0.10)], axis=1)
    >>> implied_volatility(touch, (0.05, 0.10), 5).round(4).tolist()
    [0.01, 0.02, 0.05]
    """
    touch = np.asarray(touch, np.float64)
    if touch.ndim != 2 or touch.shape[1] != len(thresholds) or not len(thresholds):
        raise ValueError(f"touch has shape {touch.shape}, expected (n, {len(thresholds)}), of one threshold or more")
    for threshold in thresholds:
        _check(threshold, horizon)
    log_odds, log_spread, information = _table()
    known = np.isfinite(touch)
    probability = np.clip(np.where(known, touch, 0.5), SMALLEST, 1 - SMALLEST)
    at = np.log(probability) - np.log1p(-probability)
    widths = np.log([math.atanh(threshold) for threshold in thresholds])
    log_volatility = np.interp(at, log_odds, log_spread) + widths - 0.5 * math.log(horizon)
    weight = np.where(known, np.interp(at, log_odds, information), 0.0)
    total = weight.sum(axis=1)
    some = total > 0
    mean = (weight * log_volatility).sum(axis=1) / np.where(some, total, 1.0)
    return np.where(some, np.exp(mean), np.nan)


@dataclass(frozen=True)
class Scale:
    """A correction of volatilities: factor * v^exponent.

    >>> Scale(2.0, 1.0).of(np.array([0.01, np.nan, 0.0])).tolist()
    [0.02, nan, nan]
    """

    factor: float
    exponent: float

    def of(self, volatility: np.ndarray) -> np.ndarray:
        """float64 (n,): the corrected volatilities; NaN where one is NaN, infinite, or not above 0."""
        volatility = np.asarray(volatility, np.float64)
        usable = np.isfinite(volatility) & (volatility > 0)
        return np.where(usable, self.factor * np.where(usable, volatility, 1.0) ** self.exponent, np.nan)


def calibrate(
    volatility: np.ndarray, realised: np.ndarray, horizon: int, exponent: float | None = None
) -> Scale | None:
    """The correction of volatilities of a bar that fits realised squared returns best, by the QLIKE loss.

    It minimises the mean of log(w^2) + r^2 / (w^2 * h) over w = factor * v^exponent, a gamma regression of r^2 on log v
    with a logarithmic link: convex, with an optimal factor for each exponent in closed form. A learned exponent lies
    between 0.1 and 4: it cannot reverse the order of the rows, even where the forecasts are worth nothing.
    volatility: float (n,), in any unit.  realised: float (n,), returns r of the next `horizon` bars. Rows where one is
    not finite, or the volatility is not above 0, are left out.  exponent: a given one; only the factor is learned then.
    None where fewer than 30 rows, or no return but 0, is left. Where all volatilities are equal the exponent is 1.
    Learn it on rows before those that it is used on.

    >>> rng = np.random.default_rng(0)
    >>> volatility = rng.uniform(0.01, 0.03, 20_000)
    >>> scale = calibrate(0.5 * volatility, volatility * np.sqrt(5) * rng.standard_normal(20_000), horizon=5)
    >>> round(scale.exponent, 1), scale.of(np.array([0.01])).round(3).tolist()
    (1.0, [0.02])
    """
    volatility, realised = np.asarray(volatility, np.float64), np.asarray(realised, np.float64)
    known = np.isfinite(volatility) & np.isfinite(realised) & (volatility > 0)
    squared = realised[known] ** 2 / horizon
    if known.sum() < FEWEST_ROWS or not squared.any():
        return None
    log_volatility = np.log(volatility[known])
    centre = float(log_volatility.mean())
    x = log_volatility - centre
    slope = 2 * (1.0 if exponent is None else exponent)
    if exponent is None and np.ptp(x) > 0:
        low, high = (2 * limit for limit in EXPONENTS)
        for _ in range(BISECTIONS):  # of the derivative of the loss by the slope, which rises
            slope = (low + high) / 2
            weight = squared * np.exp(-slope * x)
            low, high = (slope, high) if (weight * x).sum() > 0 else (low, slope)
    level = float(np.mean(squared * np.exp(-slope * x)))
    return Scale(math.exp(0.5 * (math.log(level) - slope * centre)), slope / 2)


def stop_probability(moves: float) -> float:
    """The share of positions that a stop closes within h bars, at `moves` times v * sqrt(h) from the entry.

    2 * (1 - Phi(moves)): the reflection principle for one barrier. 1 at a distance of 0; ValueError below it.

    >>> round(stop_probability(1.0), 4), stop_probability(0.0)
    (0.3173, 1.0)
    """
    if not moves >= 0:
        raise ValueError(f"moves {moves!r}: expected a distance of 0 or more")
    return math.erfc(moves / math.sqrt(2))


def _leaves(spread: np.ndarray) -> np.ndarray:
    """The probability that a walk leaves a corridor; spread: its deviation at the end, over the half-width.

    The sum over images converges fast for small spreads, its Fourier series for large ones.
    """
    from scipy.special import ndtr

    k = np.arange(N_IMAGES)
    sign, odd = (-1.0) ** k, 2 * k + 1
    with np.errstate(divide="ignore"):
        near = 4 * (sign * ndtr(-odd / np.minimum(spread, 2.0)[..., None])).sum(axis=-1)
    decay = np.exp(-((odd * np.pi * np.maximum(spread, 1.0)[..., None]) ** 2) / 8)
    far = 1 - 4 / np.pi * (sign / odd * decay).sum(axis=-1)
    return np.where(np.isnan(spread), np.nan, np.where(spread < 1.0, near, far))


@functools.cache
def _table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log(P / (1 - P)) of rising log(s / a), and the information of a touch about the latter; float64 (GRID,) each."""
    log_spread = np.linspace(math.log(0.2), math.log(3.2), GRID)
    probability = _leaves(np.exp(log_spread))
    slope = np.gradient(probability, log_spread)
    variance = probability * (1 - probability)
    return np.log(probability) - np.log1p(-probability), log_spread, slope**2 / variance


def _check(threshold: float, horizon: int) -> None:
    if not 0 < threshold < 1:
        raise ValueError(f"threshold {threshold!r}: expected a fraction inside (0, 1), such as 0.05")
    if not horizon >= 1:
        raise ValueError(f"horizon {horizon!r}: expected one bar or more")
