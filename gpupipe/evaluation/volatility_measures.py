"""What knowing volatility is worth: larger moves found, risk spread evenly, stops at an even distance.

A forecast of volatility is compared with a rival's on the same rows and the same bootstrap draws of dates, so that
differences are paired. Everything is a sum over dates, or a function of such sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.evaluation.block_bootstrap import Draws, interval
from gpupipe.evaluation.ranking import Ranks, ranks_by

TOP_SHARE = 0.1  # of a date's symbols, those that are expected to move most
FEWEST_SYMBOLS = 10  # of a date that is compared within itself
STOP_MOVES = 1.0  # distance of the stop, in expected moves
N_GROUPS = 5  # of rising volatility, whose stops are compared
YEAR_NS = 365.25 * 86_400e9
# Columns of the sums by date.
_TOP, _ALL, _CORRELATION, _CORRELATED, _QLIKE, _ROWS, _RETURN, _SQUARE, _BARS, _DISPERSION, _DISPERSED = range(11)
_HITS, _STOPS, _N_COLUMNS = slice(11, 11 + N_GROUPS), slice(11 + N_GROUPS, 11 + 2 * N_GROUPS), 11 + 2 * N_GROUPS
ABOVE_RIVAL = ("move_ratio", "rank_correlation", "qlike", "stop_unevenness", "portfolio_volatility", "sharpe",
               "risk_dispersion")  # fmt: skip


@dataclass(frozen=True)
class Outcomes:
    """What followed each row; float (n,), NaN where not known; times int64 (n,), UTC ns.

    horizon: h, in bars.  moved: the return of the next h bars.  next_return: that of the next bar.
    rise, fall: highest high / close - 1 and 1 - lowest low / close of the next h bars.

        >>> outcomes = Outcomes(np.array([7]), 5, *np.array([[0.02], [0.01], [0.03], [0.005]]))
        >>> outcomes.of(np.array([True])).horizon
        5
    """

    time_ns: np.ndarray
    horizon: int
    moved: np.ndarray
    next_return: np.ndarray
    rise: np.ndarray
    fall: np.ndarray

    def of(self, known: np.ndarray) -> Outcomes:
        """Those of some rows; known: bool (n,)."""
        arrays = (self.moved, self.next_return, self.rise, self.fall)
        return Outcomes(self.time_ns[known], self.horizon, *(np.asarray(a[known], np.float64) for a in arrays))


def compare(volatility: np.ndarray, rival: np.ndarray, outcomes: Outcomes, draws: Draws) -> dict[str, Any]:
    """Measures of a forecast of volatility, and how far they lie above those of a rival; for the summary.

    volatility, rival: float (n,), standard deviations of a bar, as fractions of the price. Rows where one of them is
    not above 0, or the return is not known, are left out for both.  draws: of dates that include those of the rows.

    Each measure is [estimate, low, high], with its 95 % interval; None where it is not defined.

    move_ratio: the mean |return| of the tenth of each date's symbols with the largest forecast over that of all its
        symbols, both averaged over dates. Symbols with equal forecasts share the places.
    rank_correlation: of forecasts with |return| within a date (Spearman), averaged over dates.
    qlike: the mean of log(v^2 h) + r^2 / (v^2 h), the loss of a variance forecast that noisy squared returns order as
        the true variance would (Patton 2011); smaller is better.
    stop_share: the share of positions, half of them long and half short, that a stop at one expected move, v sqrt(h),
        closes within h bars; a gap beyond the stop counts.
    stop_shares, rival_stop_shares: the same by five groups of rising volatility (mean of the ranks by both forecasts),
        of stops by the forecast, and by the rival at the multiple that closes as many in all.
    stop_unevenness: the root mean square difference of the five shares from the whole. It is above 0 by chance, too.
    portfolio_volatility: the deviation of a bar's return of the portfolio of all symbols, weights 1 / v with the sum 1,
        rebalanced at every bar's close; with its worst bar, drawdown and yearly sharpe, before costs.
    risk_dispersion: the deviation of |return / v| over its mean within a date: 0 if all positions carried equal risk.
    above_rival: differences of some measures, forecast less rival.

    move_ratio, rank_correlation and risk_dispersion use dates with ten symbols or more.
    Source: Patton (2011), Volatility forecast comparison using imperfect volatility proxies.

    >>> from gpupipe.evaluation.block_bootstrap import draw
    >>> rng = np.random.default_rng(0)
    >>> time_ns, true = np.repeat(np.arange(100), 20), rng.lognormal(-4, 0.5, 2000)
    >>> moved = true * rng.standard_normal(2000)
    >>> outcomes = Outcomes(time_ns, 1, moved, moved, np.maximum(moved, 0), np.maximum(-moved, 0))
    >>> measures = compare(true, np.full(2000, 0.02), outcomes, draw(time_ns, 1, seed=0))
    >>> measures["move_ratio"][1] > 1.5, measures["above_rival"]["qlike"][2] < 0
    (True, True)
    """
    known = np.isfinite(volatility) & np.isfinite(rival) & np.isfinite(outcomes.moved)
    known &= (volatility > 0) & (rival > 0)
    rows, n_rows = outcomes.of(known), int(known.sum())
    forecasts = [np.asarray(values[known], np.float64) for values in (volatility, rival)]
    date = np.searchsorted(draws.times, rows.time_ns)
    ranked = _Ranked.of(np.abs(rows.moved), date)
    hits, groups = _stops(forecasts[0], forecasts[1], rows)
    columns = [
        _columns(forecast, rows, date, ranked, hit, groups, len(draws.times))
        for forecast, hit in zip(forecasts, hits, strict=True)
    ]
    year = bars_a_year(rows.time_ns)
    own, other = (_Sampled.of(sums, draws, year) for sums in columns)
    measures: dict[str, Any] = {"rows": n_rows, "dates": len(np.unique(date))}
    measures |= {name: own.interval(name, draws) for name in own.estimates if not name.startswith("stop_share_")}
    shares = [[_plain(sampled.estimates[f"stop_share_{g}"]) for g in range(N_GROUPS)] for sampled in (own, other)]
    measures |= {"stop_shares": shares[0], "rival_stop_shares": shares[1]}
    measures |= _worst(columns[0])
    measures["above_rival"] = {name: own.less(other, name, draws) for name in ABOVE_RIVAL}
    return measures


def bars_a_year(time_ns: np.ndarray) -> float:
    """How many distinct times there are in a year; NaN with fewer than two.  time_ns: int64 (n,).

    >>> round(bars_a_year(np.arange(0, 10 * 7 * 86_400 * 10**9, 7 * 86_400 * 10**9)))
    52
    """
    times = np.unique(time_ns)
    return (len(times) - 1) / (float(times[-1] - times[0]) / YEAR_NS) if len(times) > 1 else float("nan")


@dataclass(frozen=True)
class _Ranked:
    """The ranks of values within their dates.  count: int64 (n,), values of each row's date."""

    ranks: Ranks
    count: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, date: np.ndarray) -> _Ranked:
        return cls(ranks_by(date, values), np.bincount(date)[date] if len(date) else np.zeros(0, np.int64))

    @property
    def centred(self) -> np.ndarray:
        """float64 (n,): ranks minus the mean rank of the date."""
        return self.ranks.mean - (self.count + 1) / 2

    @property
    def top(self) -> np.ndarray:
        """float64 (n,): the weight of each row among the largest tenth of its date; they add up to its places."""
        return self.ranks.top(self.count, np.maximum(1, np.round(TOP_SHARE * self.count)))


def _stops(volatility: np.ndarray, rival: np.ndarray, rows: Outcomes) -> tuple[tuple[np.ndarray, np.ndarray], Any]:
    """How many of a row's two positions a stop closes, by forecast and by rival, and the row's group of volatility.

    float64 (n,) each, NaN where highs or lows are not known; groups int64 (n,).
    """
    adverse = np.stack([rows.rise, rows.fall], axis=1)
    known = np.isfinite(adverse).all(axis=1)
    own = adverse / (volatility * math.sqrt(rows.horizon))[:, None]
    other = adverse / rival[:, None]
    closed = (own >= STOP_MOVES) & known[:, None]
    n_closed = int(closed.sum())
    ratios = np.sort(other[known], axis=None)
    multiple = ratios[len(ratios) - n_closed] if n_closed else np.inf
    closed_by_rival = (other >= multiple) & known[:, None]
    # A forecast's own groups collect its errors, so that both have to count alike: ranks do, whatever their spread.
    together = np.zeros(len(volatility), np.int64)
    level = _Ranked.of(volatility, together).centred + _Ranked.of(rival, together).centred
    edges = np.quantile(level[known], np.arange(1, N_GROUPS) / N_GROUPS) if known.any() else np.empty(0)
    hits = tuple(np.where(known, one.sum(axis=1), np.nan) for one in (closed, closed_by_rival))
    return (hits[0], hits[1]), np.searchsorted(edges, level, side="left")


def _columns(
    volatility: np.ndarray,
    rows: Outcomes,
    date: np.ndarray,
    moves: _Ranked,
    hits: np.ndarray,
    groups: np.ndarray,
    n: int,
) -> np.ndarray:
    """float64 (n, _N_COLUMNS): the sums of each of n dates."""
    sums = np.zeros((n, _N_COLUMNS))
    size = np.abs(rows.moved)

    def total(values: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(date, values, minlength=n).astype(np.float64)

    count, ranked = total(), _Ranked.of(volatility, date)
    wide = count >= FEWEST_SYMBOLS
    top = ranked.top
    some = np.maximum(count, 1.0)
    sums[:, _TOP] = np.where(wide, total(top * size) / np.maximum(total(top), 1.0), 0.0)
    sums[:, _ALL] = np.where(wide, total(size) / some, 0.0)
    spread = np.sqrt(total(ranked.centred**2) * total(moves.centred**2))
    ranks = wide & (spread > 0)
    sums[:, _CORRELATION] = np.where(ranks, total(ranked.centred * moves.centred) / np.where(ranks, spread, 1.0), 0.0)
    sums[:, _CORRELATED] = ranks
    variance = volatility**2 * rows.horizon
    sums[:, _QLIKE], sums[:, _ROWS] = total(np.log(variance) + rows.moved**2 / variance), count
    held = np.isfinite(rows.next_return)
    weight = np.where(held, 1 / volatility, 0.0)
    whole = total(weight)
    bars = whole > 0
    sums[:, _RETURN] = total(weight * np.where(held, rows.next_return, 0.0)) / np.where(bars, whole, 1.0)
    sums[:, _SQUARE], sums[:, _BARS] = sums[:, _RETURN] ** 2, bars
    risk = size / volatility
    mean = total(risk) / some
    deviation = np.sqrt(np.maximum(total(risk**2) / some - mean**2, 0.0))
    even = wide & (mean > 0)
    sums[:, _DISPERSION], sums[:, _DISPERSED] = np.where(even, deviation / np.where(even, mean, 1.0), 0.0), even
    known = np.isfinite(hits)
    for g in range(N_GROUPS):
        inside = known & (groups == g)
        sums[:, _HITS.start + g] = total(np.where(inside, hits, 0.0))
        sums[:, _STOPS.start + g] = 2 * total(inside.astype(np.float64))
    return sums


def _statistics(sums: np.ndarray, year: float) -> dict[str, np.ndarray]:
    """The measures of sums over dates, float64 (..., _N_COLUMNS); NaN where one is not defined."""

    def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
        return np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan)

    column = np.moveaxis(sums, -1, 0)
    hits, stops = column[_HITS], column[_STOPS]
    shares, share = ratio(hits, stops), ratio(hits.sum(axis=0), stops.sum(axis=0))
    squares = np.where(stops > 0, (shares - share) ** 2, 0.0).sum(axis=0)
    mean = ratio(column[_RETURN], column[_BARS])
    deviation = np.sqrt(np.maximum(ratio(column[_SQUARE], column[_BARS]) - mean**2, 0.0))
    return {
        "move_ratio": ratio(column[_TOP], column[_ALL]),
        "rank_correlation": ratio(column[_CORRELATION], column[_CORRELATED]),
        "qlike": ratio(column[_QLIKE], column[_ROWS]),
        "stop_share": share,
        "stop_unevenness": np.sqrt(ratio(squares, (stops > 0).sum(axis=0))),
        "portfolio_volatility": deviation,
        "sharpe": ratio(mean, deviation) * math.sqrt(year),
        "risk_dispersion": ratio(column[_DISPERSION], column[_DISPERSED]),
        **{f"stop_share_{g}": shares[g] for g in range(N_GROUPS)},
    }


@dataclass(frozen=True)
class _Sampled:
    """Measures by name: of all dates, and of each draw of dates, float64 (n_draws,)."""

    estimates: dict[str, float]
    drawn: dict[str, np.ndarray]

    @classmethod
    def of(cls, sums: np.ndarray, draws: Draws, year: float) -> _Sampled:
        whole = _statistics(sums.sum(axis=0), year)
        return cls({name: float(value) for name, value in whole.items()}, _statistics(draws.sums(sums), year))

    def interval(self, name: str, draws: Draws) -> list[float | None]:
        return _estimate(self.estimates[name], self.drawn[name], draws)

    def less(self, other: _Sampled, name: str, draws: Draws) -> list[float | None]:
        drawn = self.drawn[name] - other.drawn[name]
        return _estimate(self.estimates[name] - other.estimates[name], drawn, draws)


def _estimate(estimate: float, drawn: np.ndarray, draws: Draws) -> list[float | None]:
    return [_plain(value) for value in (estimate, *interval(estimate, drawn, draws.n_blocks))]


def _worst(sums: np.ndarray) -> dict[str, float | None]:
    """The worst bar's return and the largest fall from a peak of the portfolio, as positive fractions."""
    returns = sums[sums[:, _BARS] > 0, _RETURN]
    if not len(returns):
        return {"worst_bar": None, "drawdown": None}
    worth = np.concatenate([[1.0], np.cumprod(1 + returns)])
    return {"worst_bar": float(-returns.min()), "drawdown": float((1 - worth / np.maximum.accumulate(worth)).max())}


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
