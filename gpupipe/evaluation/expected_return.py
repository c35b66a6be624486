"""Expected return of a trade, from class probabilities and volatility: a score in money, with its standard error.

Three steps, each of them small enough to be printed:

1. Payoffs. The mean return of a long and of a short trade by observed class and by volatility bin. A row's raw return
   is the mean of the payoffs of its bin, weighted by its class probabilities.
2. Selection. Realised returns are regressed on two predictors: the raw return; and the lean, the log-odds of the upper
   against the lower class times the volatility, of an estimator of the run that ranks returns, if there is one. All
   are taken minus their mean over the symbol's peers, so that neither the market's move nor that of volatile stocks
   counts as skill. The raw returns of a stretch of dates come from the payoffs of the other
   stretches (cross-fitting), because payoffs fit the dates that they were learned from. A slope of 1 says that the
   probabilities are right about the direction.
3. Level. The mean realised return of all rows: what a trade of any symbol earned.

    expected = level + slope * (raw - peers' raw) + lean slope * (lean - peers' lean),  before costs

A symbol's peers are the symbols of the same date with a similar rank of volatility: a fifth of the date's symbols, or
ten at least. The mean of all fitted rows counts as five more peers, so that the score is defined for a single symbol.
Slopes and level are estimates, and are shrunk by their standard errors: each has a normal prior with mean 0, the slope
with a deviation of 1 (the probabilities may be right about the order of the symbols, or worth nothing), the lean with
that of an information coefficient of 0.05, the level with its own size (empirical Bayes: an estimate of one standard
error is halved). Standard errors are those of sums over blocks of dates, because trades of one date, and of overlapping
windows, move together.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.evaluation.losses import SMALLEST_PROBABILITY

VOLATILITY = "natr_14"  # the feature by whose bins payoffs are learned, and by whose ranks peers are grouped
N_PEERS, FEWEST_PEERS = 5, 10  # groups of like volatility on a date, and symbols of a group
PRIOR_SYMBOLS = 5.0  # symbols' weight on the mean of all rows, in the mean of peers
SIDES = ("long", "short")
RAW, LEAN = 0, 1  # predictors
SIGNS = np.array([1.0, -1.0])  # of the lean, for a long and for a short trade


@dataclass(frozen=True)
class Effect:
    """An estimate with its standard error.

    >>> effect = Effect(0.5, 1.0).posterior(1.0)  # prior: mean 0, deviation 1
    >>> effect.estimate, round(effect.error, 3)
    (0.25, 0.707)
    """

    estimate: float
    error: float

    def posterior(self, deviation: float) -> Effect:
        """Posterior mean and deviation under a normal prior with mean 0 and this deviation.

        A deviation of 0, or an estimate of exactly 0 with no error, leaves 0.
        """
        if not deviation > 0:
            return Effect(0.0, 0.0)
        weight = deviation**2 / (deviation**2 + self.error**2)
        return Effect(self.estimate * weight, self.error * math.sqrt(weight))


@dataclass(frozen=True)
class Slopes:
    """The coefficients of the raw return and of the lean, on one side.

    estimate: float64 (2,).  covariance: float64 (2, 2), of the estimates.  deviation: float64 (2,), of their normal
    prior with mean 0; 0 for a predictor that does not vary.

    >>> slopes = Slopes(np.array([0.5, 0.0]), np.diag([1.0, 0.0]), np.array([1.0, 0.0]))
    >>> mean, covariance = slopes.posterior()
    >>> mean.tolist(), covariance[0].tolist()
    ([0.25, 0.0], [0.5, 0.0])
    """

    estimate: np.ndarray
    covariance: np.ndarray
    deviation: np.ndarray

    def effect(self, predictor: int) -> Effect:
        """The estimate of one coefficient, RAW or LEAN, with its standard error."""
        return Effect(
            float(self.estimate[predictor]), math.sqrt(max(0.0, float(self.covariance[predictor, predictor])))
        )

    def posterior(self) -> tuple[np.ndarray, np.ndarray]:
        """Posterior mean (2,) and covariance (2, 2) of the coefficients.

        A mean below 0 is 0: an order that was worth less than nothing is not turned around.
        """
        mean, covariance = np.zeros(2), np.zeros((2, 2))
        active = np.flatnonzero(self.deviation > 0)
        if active.size:
            before = np.diag(self.deviation[active] ** 2)
            at = np.ix_(active, active)
            gain = before @ np.linalg.inv(before + self.covariance[at])
            mean[active] = np.maximum(gain @ self.estimate[active], 0.0)
            covariance[at] = before - gain @ before
        return mean, covariance


@dataclass(frozen=True)
class Scores:
    """Scores of rows; float64 (n_rows, 2), the last axis long and short; returns of a trade before costs.

    expected: the expected return.  error: its standard error.  selection: the part of it that is the row's own, beyond
    its peers.  selection_error: the standard error of that part.
    ranking: the selection; or, where both slopes of a side are shrunk to 0, the raw return minus that of the peers. It
    orders the symbols of a date, whether or not that order was shown to be worth anything.

    >>> zero = np.zeros((1, 2))
    >>> Scores(zero + 0.01, zero + 0.004, zero, zero, zero).expected.tolist()
    [[0.01, 0.01]]
    """

    expected: np.ndarray
    error: np.ndarray
    selection: np.ndarray
    selection_error: np.ndarray
    ranking: np.ndarray

    @classmethod
    def unknown(cls, n_rows: int) -> Scores:
        """NaN for every row."""
        return cls(*(np.full((n_rows, 2), np.nan) for _ in dataclasses.fields(cls)))

    def put(self, rows: np.ndarray, scores: Scores) -> None:
        """Set the scores of some rows, int64 (n,) or bool (n_rows,)."""
        for field in dataclasses.fields(self):
            getattr(self, field.name)[rows] = getattr(scores, field.name)


@dataclass(frozen=True)
class ExpectedReturn:
    """The expected return of a model's trades of one label.

    edges: float64 (n_bins - 1,), the volatilities that part the bins of payoffs.
    payoff: float64 (2, n_bins, n_classes), mean returns of a long and of a short trade by bin and observed class.
    centre: (3,), means over the fitted rows: of the raw returns of long and of short trades, and of the lean.
    level, slopes: of long and of short trades.
    n_rows, n_dates: fitted.  ranker: the estimator whose log-odds are the lean; "" for none.

    >>> rng = np.random.default_rng(0)
    >>> up = rng.uniform(0.1, 0.5, 4000)
    >>> probability = np.stack([0.6 - up, np.full(4000, 0.4), up], axis=1)
    >>> y = (rng.random(4000)[:, None] > probability.cumsum(axis=1)).sum(axis=1)
    >>> gross = (y - 1)[:, None] * np.array([0.05, -0.05])
    >>> time_ns, lean = np.repeat(np.arange(200), 20), np.zeros(4000)
    >>> from gpupipe.evaluation.expected_return_fit import fit
    >>> fitted = fit(probability, lean, np.ones(4000), time_ns, y, gross, horizon=1)
    >>> slope = fitted.slopes[0].effect(0)  # of the raw return
    >>> abs(slope.estimate - 1) < 3 * slope.error
    True
    >>> scores = fitted.scores(probability[:2], lean[:2], np.ones(2), time_ns[:2])
    >>> bool((np.sign(scores.selection[0]) == -np.sign(scores.selection[1])).all())
    True
    """

    edges: np.ndarray
    payoff: np.ndarray
    centre: np.ndarray
    level: tuple[Effect, Effect]
    slopes: tuple[Slopes, Slopes]
    n_rows: int
    n_dates: int
    ranker: str = ""

    def raw(self, probability: np.ndarray, volatility: np.ndarray) -> np.ndarray:
        """float64 (n_rows, 2): raw returns. NaN where a probability is; an unknown volatility is in the highest bin.

        probability: float (n_rows, n_classes).  volatility: float (n_rows,).
        """
        return raw_returns(self.payoff, probability, np.searchsorted(self.edges, volatility, side="right"))

    def leaned(self, lean: np.ndarray, volatility: np.ndarray) -> np.ndarray:
        """float64 (n_rows,): the lean in units of the volatility, see `times_volatility`."""
        return times_volatility(lean, volatility, self.edges)

    def scores(self, probability: np.ndarray, lean: np.ndarray, volatility: np.ndarray, time_ns: np.ndarray) -> Scores:
        """Scores of rows, compared with the other given rows of the same time; NaN where a probability or lean is.

        probability: float (n_rows, n_classes).  lean: float (n_rows,), `lean_of` the ranker's probabilities.
        volatility: float (n_rows,).  time_ns: int64 (n_rows,).
        A row that is NaN is nobody's peer: scores are the same without it.
        """
        columns = np.column_stack([self.raw(probability, volatility), self.leaned(lean, volatility)])
        known = np.isfinite(columns).all(axis=1)
        beyond = np.full_like(columns, np.nan)
        peers = peers_of(time_ns[known], volatility[known])
        beyond[known] = columns[known] - _of_peers(columns[known], peers, self.centre)
        parts = [self._side(side, beyond) for side in range(2)]
        selection, selection_error, ranking = (np.stack(part, axis=1) for part in zip(*parts, strict=True))
        levels = [effect.posterior(abs(effect.estimate)) for effect in self.level]
        level, level_error = (np.array([getattr(effect, name) for effect in levels]) for name in ("estimate", "error"))
        return Scores(level + selection, np.hypot(level_error, selection_error), selection, selection_error, ranking)

    def _side(self, side: int, beyond: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Selection, its error and the ranking of one side; beyond: float64 (n_rows, 3)."""
        predictors = np.column_stack([beyond[:, side], SIGNS[side] * beyond[:, 2]])
        mean, covariance = self.slopes[side].posterior()
        selection = predictors @ mean
        error = np.sqrt(np.maximum(np.einsum("ni,ij,nj->n", predictors, covariance, predictors), 0.0))
        return selection, error, selection if mean.any() else predictors[:, RAW]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON can hold them."""
        return {
            **{name: getattr(self, name).tolist() for name in ("edges", "payoff", "centre")},
            "level": [[effect.estimate, effect.error] for effect in self.level],
            "slopes": [
                {name: getattr(slopes, name).tolist() for name in ("estimate", "covariance", "deviation")}
                for slopes in self.slopes
            ],
            "rows": self.n_rows, "dates": self.n_dates, "ranker": self.ranker,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> ExpectedReturn:
        """The value of `as_dict`; KeyError or ValueError for another."""
        edges, payoff, centre = (np.array(plain[name], np.float64) for name in ("edges", "payoff", "centre"))
        if payoff.ndim != 3 or payoff.shape[:2] != (2, len(edges) + 1) or centre.shape != (3,):
            raise ValueError(f"payoff has shape {payoff.shape}, centre {centre.shape}, edges {edges.shape}")
        level = [Effect(float(estimate), float(error)) for estimate, error in plain["level"]]
        slopes = [
            Slopes(*(np.array(side[name], np.float64) for name in ("estimate", "covariance", "deviation")))
            for side in plain["slopes"]
        ]
        return cls(
            edges, payoff, centre, (level[0], level[1]), (slopes[0], slopes[1]), int(plain["rows"]),
            int(plain["dates"]), str(plain["ranker"]),
        )  # fmt: skip


def ranker_of(learned: Iterable[ExpectedReturn | None], family: str) -> str:
    """The estimator whose log-odds the expected returns of a family's models read: the run's ranker, else the family.

    >>> ranker_of([None], "linear")
    'linear'
    """
    return next((value.ranker for value in learned if value is not None), "") or family


def lean_of(probability: np.ndarray) -> np.ndarray:
    """float64 (n,): log-odds of the last class against the first; NaN where one is.  probability: float (n, n_classes).

    >>> lean_of(np.array([[0.2, 0.5, 0.3], [0.25, 0.5, 0.25]])).round(3).tolist()
    [0.405, 0.0]
    """
    odds = np.log(np.maximum(probability.astype(np.float64), SMALLEST_PROBABILITY))
    lean: np.ndarray = odds[:, -1] - odds[:, 0]
    return lean


def times_volatility(lean: np.ndarray, volatility: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """float64 (n,): the lean in units of the volatility; an unknown volatility counts as the middle of the edges.

    edges: float64 (n_edges,), of the bins of volatility, so that a row's value does not depend on the other rows.

    >>> times_volatility(np.ones(3), np.array([0.5, np.nan, 4.0]), np.array([1.0, 2.0, 3.0])).tolist()
    [0.5, 2.0, 4.0]
    """
    middle = float(np.median(edges)) if len(edges) else 1.0
    return lean * np.where(np.isfinite(volatility), volatility, middle).astype(np.float64)


def peers_of(time_ns: np.ndarray, volatility: np.ndarray) -> np.ndarray:
    """int64 (n,): the number of each row's group of peers: rows of the same time with a similar rank of volatility.

    A time has a group for each FEWEST_PEERS of its rows, at least one and at most N_PEERS. Unknown volatilities rank
    last.

    >>> peers_of(np.zeros(20, int), np.arange(20.0)).tolist() == [0] * 10 + [1] * 10
    True
    """
    _, date, count = np.unique(time_ns, return_inverse=True, return_counts=True)
    order = np.lexsort((volatility, date))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - (np.cumsum(count) - count)[date[order]]
    n_groups = np.clip(count // FEWEST_PEERS, 1, N_PEERS)[date]
    return date * N_PEERS + rank * n_groups // count[date]


def scores_of(
    learned: Sequence[ExpectedReturn | None],
    probability: np.ndarray,
    lean: np.ndarray,
    volatility: np.ndarray | None,
    time_ns: np.ndarray,
    group: np.ndarray,
) -> Scores:
    """Scores of one model's rows, before costs; NaN where its group has no expected return.

    learned: for each group; groups that share one object are compared with each other on each date.
    probability: float (n, n_classes).  lean: float (n,).  volatility: float (n,), or None where nothing was learned.
    time_ns, group: int64 (n,).
    """
    whole = Scores.unknown(len(time_ns))
    for value in {id(value): value for value in learned if value is not None}.values():
        at = np.flatnonzero(np.isin(group, [g for g, other in enumerate(learned) if other is value]))
        assert volatility is not None, "an expected return needs volatilities"
        whole.put(at, value.scores(probability[at], lean[at], volatility[at], time_ns[at]))
    return whole


def raw_returns(payoff: np.ndarray, probability: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """float64 (n, 2): the payoffs of each row's bin, weighted by its probabilities, of a long and of a short trade.

    payoff: float64 (2, n_bins, n_classes).  probability: float (n, n_classes).  bins: int (n,).
    """
    weighted = [(probability * payoff[side][bins]).sum(axis=1, dtype=np.float64) for side in range(2)]
    return np.stack(weighted, axis=1)


def _of_peers(columns: np.ndarray, peers: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """float64 (n_rows, 3): the means of each row's peers, with PRIOR_SYMBOLS symbols of the centre.

    columns: float64 (n_rows, 3), finite.
    """
    count = np.bincount(peers) + PRIOR_SYMBOLS
    means = [(np.bincount(peers, columns[:, k]) + PRIOR_SYMBOLS * centre[k]) / count for k in range(columns.shape[1])]
    return np.stack(means, axis=1)[peers]
