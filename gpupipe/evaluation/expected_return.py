"""Expected return of a trade, from class probabilities and volatility: a score in money, with its standard error.

Three steps, each of them small enough to be printed:

1. Payoffs. The mean return of a long and of a short trade by observed class and by volatility bin. A row's raw return
   is the mean of the payoffs of its bin, weighted by its class probabilities.
2. Selection. Realised returns are regressed on raw returns within dates: both are taken less their mean of the date,
   so that the market's move is no merit. The raw returns of a stretch of dates come from the payoffs of the other
   stretches (cross-fitting), because payoffs fit the dates that they were learned from. The slope is 1 where the
   probabilities are right about the direction, and 0 where they do not rank symbols at all.
3. Level. The mean realised return of all rows: what a trade of any symbol earned.

    expected = level + slope * (raw - the date's raw return),  before costs

The date's raw return is the mean over its symbols, with a few symbols' weight on the mean of all rows, so that the
score is relative to the cross-section in any regime and still defined for a single symbol. Slope and level are
estimates, and are believed as far as their standard errors allow: the slope against 0 with a deviation of 1 (an order
that may be right, or wrong), the level against 0 with the deviation that it has itself (empirical Bayes: an estimate
of one standard error is halved). Standard errors are those of sums over blocks of dates, because trades of one date,
and of overlapping windows, move together.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

N_BINS = 5
PRIOR_ROWS = 100.0  # rows' weight on a class's payoff over all bins, in each bin
PRIOR_SYMBOLS = 5.0  # symbols' weight on the mean raw return of all rows, in each date's mean
SLOPE_DEVIATION = 1.0  # of the slope before anything is known: 1 is the slope of right probabilities
STRETCHES = 5  # of dates, for cross-fitting
FEWEST_BLOCKS = 4
SIDES = ("long", "short")


@dataclass(frozen=True)
class Effect:
    """An estimate with its standard error.

    >>> believed = Effect(0.5, 1.0).given(1.0)  # beforehand 0 with a deviation of 1: half of it is believed
    >>> believed.estimate, round(believed.error, 3)
    (0.25, 0.707)
    """

    estimate: float
    error: float

    def given(self, deviation: float) -> Effect:
        """Mean and deviation after the estimate, of a value that was expected to be 0 with this deviation beforehand.

        A deviation of 0, or an estimate of exactly 0 with no error, leaves 0.
        """
        if not deviation > 0:
            return Effect(0.0, 0.0)
        weight = deviation**2 / (deviation**2 + self.error**2)
        return Effect(self.estimate * weight, self.error * math.sqrt(weight))


@dataclass(frozen=True)
class Scores:
    """Scores of rows; float64 (n_rows, 2), the last axis long and short; returns of a trade before costs.

    expected: the expected return.  error: its standard error.  selection: the part of it that is due to the row, beyond
    the mean symbol of the date.  selection_error: the standard error of that part.
    ranking: the raw return less that of the date: it orders the symbols of a date, whether or not the order was shown
    to be worth anything.

    >>> zero = np.zeros((1, 2))
    >>> Scores(zero + 0.01, zero + 0.004, zero, zero, zero).expected.tolist()
    [[0.01, 0.01]]
    """

    expected: np.ndarray
    error: np.ndarray
    selection: np.ndarray
    selection_error: np.ndarray
    ranking: np.ndarray


@dataclass(frozen=True)
class ExpectedReturn:
    """The expected return of a model's trades of one label.

    edges: float64 (n_bins - 1,), the volatilities that part the bins.
    payoff: float64 (2, n_bins, n_classes), mean returns of a long and of a short trade by bin and observed class.
    centre: (2,), mean raw returns of the fitted rows.
    level, slope: of long and of short trades.
    n_rows, n_dates: fitted.

    >>> rng = np.random.default_rng(0)
    >>> up = rng.uniform(0.1, 0.5, 4000)
    >>> probability = np.stack([0.6 - up, np.full(4000, 0.4), up], axis=1)
    >>> y = (rng.random(4000)[:, None] > probability.cumsum(axis=1)).sum(axis=1)
    >>> gross = (y - 1)[:, None] * np.array([0.05, -0.05])
    >>> time_ns = np.repeat(np.arange(200), 20)
    >>> fitted = fit(probability, np.ones(4000), time_ns, y, gross, horizon=1)
    >>> abs(fitted.slope[0].estimate - 1) < 3 * fitted.slope[0].error
    True
    >>> scores = fitted.scores(probability[:2], np.ones(2), time_ns[:2])
    >>> bool((np.sign(scores.selection[0]) == -np.sign(scores.selection[1])).all())
    True
    """

    edges: np.ndarray
    payoff: np.ndarray
    centre: np.ndarray
    level: tuple[Effect, Effect]
    slope: tuple[Effect, Effect]
    n_rows: int
    n_dates: int

    def raw(self, probability: np.ndarray, volatility: np.ndarray) -> np.ndarray:
        """float64 (n_rows, 2): raw returns. NaN where a probability is; an unknown volatility is in the highest bin.

        probability: float (n_rows, n_classes).  volatility: float (n_rows,).
        """
        return raw_returns(self.payoff, probability, np.searchsorted(self.edges, volatility, side="right"))

    def scores(self, probability: np.ndarray, volatility: np.ndarray, time_ns: np.ndarray) -> Scores:
        """Scores of rows, compared with the other given rows of the same time; NaN where a probability is.

        probability: float (n_rows, n_classes).  volatility: float (n_rows,).  time_ns: int64 (n_rows,).
        """
        raw = self.raw(probability, volatility)
        ranking = raw - _of_date(raw, time_ns, self.centre)
        slopes = [effect.given(SLOPE_DEVIATION) for effect in self.slope]
        levels = [effect.given(abs(effect.estimate)) for effect in self.level]
        selection = ranking * np.array([max(effect.estimate, 0.0) for effect in slopes])
        selection_error = np.abs(ranking) * np.array([effect.error for effect in slopes])
        level, level_error = (np.array([getattr(effect, name) for effect in levels]) for name in ("estimate", "error"))
        return Scores(level + selection, np.hypot(level_error, selection_error), selection, selection_error, ranking)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON can hold them."""
        effects = {
            name: [[effect.estimate, effect.error] for effect in getattr(self, name)] for name in ("level", "slope")
        }
        arrays = {name: getattr(self, name).tolist() for name in ("edges", "payoff", "centre")}
        return {**arrays, **effects, "rows": self.n_rows, "dates": self.n_dates}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> ExpectedReturn:
        """The value of `as_dict`; KeyError or ValueError for another."""
        edges, payoff, centre = (np.array(plain[name], np.float64) for name in ("edges", "payoff", "centre"))
        if payoff.ndim != 3 or payoff.shape[:2] != (2, len(edges) + 1) or centre.shape != (2,):
            raise ValueError(f"payoff has shape {payoff.shape}, centre {centre.shape}, edges {edges.shape}")
        level, slope = (
            (Effect(*map(float, plain[name][0])), Effect(*map(float, plain[name][1]))) for name in ("level", "slope")
        )
        return cls(edges, payoff, centre, level, slope, int(plain["rows"]), int(plain["dates"]))


def fit(
    probability: np.ndarray,
    volatility: np.ndarray,
    time_ns: np.ndarray,
    y: np.ndarray,
    gross: np.ndarray,
    horizon: int,
) -> ExpectedReturn | None:
    """Learn from rows whose models had not seen them: out-of-fold and validation rows.

    probability: float (n, n_classes).  volatility: float (n,), in any unit.  time_ns: int64 (n,).
    y: int (n,), class numbers.  gross: float (n, 2), realised returns of a long and of a short trade, before costs.
    horizon: in bars; windows of as many dates overlap.
    Rows with an unknown probability, class or return are left out. None where fewer than four blocks of dates are left:
    there is no standard error then.
    """
    known = (y >= 0) & np.isfinite(gross).all(axis=1) & np.isfinite(probability).all(axis=1)
    if not known.all():
        probability, volatility, time_ns, y, gross = (
            array[known] for array in (probability, volatility, time_ns, y, gross)
        )
    dates, date = np.unique(time_ns, return_inverse=True)
    block = block_length(len(dates), horizon)
    if len(dates) < FEWEST_BLOCKS * block:
        return None
    edges = _edges(volatility)
    bins, shape = np.searchsorted(edges, volatility, side="right"), (len(edges) + 1, probability.shape[1])
    payoff = _payoffs(bins, y, gross, *shape)
    crossed = np.empty((len(y), 2))
    stretch = date * STRETCHES // len(dates)
    for k in range(STRETCHES):
        inside = stretch == k
        others = _payoffs(bins[~inside], y[~inside], gross[~inside], *shape)
        crossed[inside] = raw_returns(others, probability[inside], bins[inside])
    n_blocks = len(dates) // block
    block_of_row = np.minimum(date // block, n_blocks - 1)
    levels, slopes = [], []
    for side in range(2):
        realised, predicted = gross[:, side].astype(np.float64), crossed[:, side]
        levels.append(_ratio(realised, np.ones(len(y)), block_of_row, n_blocks))
        x, z = (_less_date_mean(values, date, len(dates)) for values in (predicted, realised))
        slopes.append(_ratio(x * z, x * x, block_of_row, n_blocks))
    centre = raw_returns(payoff, probability, bins).mean(axis=0)
    return ExpectedReturn(edges, payoff, centre, (levels[0], levels[1]), (slopes[0], slopes[1]), len(y), len(dates))


def scores_of(
    learned: Sequence[ExpectedReturn | None],
    probability: np.ndarray,
    volatility: np.ndarray | None,
    time_ns: np.ndarray,
    group: np.ndarray,
) -> Scores:
    """Scores of one model's rows, before costs; NaN where its group has no expected return.

    learned: for each group; groups that share one object are compared with each other on each date.
    probability: float (n, n_classes).  volatility: float (n,), or None where nothing was learned.
    time_ns, group: int64 (n,).
    """
    whole = Scores(*(np.full((len(time_ns), 2), np.nan) for _ in dataclasses.fields(Scores)))
    for value in {id(value): value for value in learned if value is not None}.values():
        at = np.flatnonzero(np.isin(group, [g for g, other in enumerate(learned) if other is value]))
        assert volatility is not None, "an expected return needs volatilities"
        some = value.scores(probability[at], volatility[at], time_ns[at])
        for field in dataclasses.fields(Scores):
            getattr(whole, field.name)[at] = getattr(some, field.name)
    return whole


def raw_returns(payoff: np.ndarray, probability: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """float64 (n, 2): the payoffs of each row's bin, weighted by its probabilities, of a long and of a short trade.

    payoff: float64 (2, n_bins, n_classes).  probability: float (n, n_classes).  bins: int (n,).
    """
    weighted = [(probability * payoff[side][bins]).sum(axis=1, dtype=np.float64) for side in range(2)]
    return np.stack(weighted, axis=1)


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
        """The largest difference between expected and realised returns, in standard errors; NaN without any."""
        difference = np.abs(np.array(self.expected) - np.array(self.realised))
        errors = np.array(self.error)
        return float(np.nanmax(difference / errors)) if (errors > 0).any() else float("nan")


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
            error = _ratio(realised[rows], np.ones(int(rows.sum())), block[rows], n_blocks).error
            error = math.hypot(error, float(expected_error[rows].mean()))
        lines.append((float(expected[rows].mean()), float(realised[rows].mean()), error, int(rows.sum())))
    means, reals, errors, counts = zip(*lines, strict=True)
    return Calibration(means, reals, errors, counts)


def block_length(n_dates: int, horizon: int) -> int:
    """The number of dates in a block, as `block_bootstrap.draw` chooses it."""
    return max(10, 2 * horizon, math.ceil(n_dates ** (1 / 3)))


def _edges(volatility: np.ndarray) -> np.ndarray:
    """float64 (at most N_BINS - 1,): distinct quantiles of the known volatilities; empty without any."""
    known = volatility[np.isfinite(volatility)].astype(np.float64)
    if not known.size:
        return np.empty(0)
    edges: np.ndarray = np.unique(np.quantile(known, np.arange(1, N_BINS) / N_BINS))
    return edges


def _payoffs(bins: np.ndarray, y: np.ndarray, gross: np.ndarray, n_bins: int, n_classes: int) -> np.ndarray:
    """float64 (2, n_bins, n_classes): mean returns by bin and class, pulled to those of the class over all bins.

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


def _ratio(above: np.ndarray, below: np.ndarray, block: np.ndarray, n_blocks: int) -> Effect:
    """sum(above) / sum(below), float64 (n,), with the standard error over blocks; 0 and 0 where the divisor is 0.

    The error is stretched as Student's t asks for few blocks, as intervals are (block_bootstrap.interval).
    """
    from scipy.special import ndtri, stdtrit

    tops, bottoms = (np.bincount(block, values, minlength=n_blocks) for values in (above, below))
    whole = bottoms.sum()
    if not whole > 0:
        return Effect(0.0, 0.0)
    ratio = tops.sum() / whole
    residual = tops - ratio * bottoms
    error = math.sqrt(float((residual**2).sum()) * n_blocks / (n_blocks - 1)) / whole
    return Effect(float(ratio), float(error * stdtrit(n_blocks - 1, 0.975) / ndtri(0.975)))


def _less_date_mean(values: np.ndarray, date: np.ndarray, n_dates: int) -> np.ndarray:
    count = np.bincount(date, minlength=n_dates)
    return values - (np.bincount(date, values, minlength=n_dates) / count)[date]


def _of_date(raw: np.ndarray, time_ns: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """float64 (n_rows, 2): the mean raw return of each row's time, with PRIOR_SYMBOLS symbols of the centre."""
    known = np.isfinite(raw).all(axis=1)
    _, date = np.unique(time_ns, return_inverse=True)
    n_dates = int(date.max(initial=-1)) + 1
    count = np.bincount(date[known], minlength=n_dates) + PRIOR_SYMBOLS
    means = [
        (np.bincount(date[known], raw[known, side], minlength=n_dates) + PRIOR_SYMBOLS * centre[side]) / count
        for side in range(2)
    ]
    return np.stack(means, axis=1)[date]
