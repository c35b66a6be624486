"""Measures of a score by date: IC, rank IC, quantile returns, spread, turnover, hit rate, autocorrelation of ranks.

A score ranks the symbols of a date; these measures say whether the symbols that it ranks high return more afterwards.
They have the names and formulas of alphalens (alphalens-reloaded 0.5) and of Qlib (`qlib.contrib.eva.alpha`,
"IC", "ICIR", "Rank IC", "Rank ICIR"), which compute them date by date; here all dates are computed at once.
rank_summary.py averages them over dates, with intervals.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

FEWEST_SYMBOLS = 5  # of a date, for a correlation
QUANTILES = (10, 5, 3, 2)  # numbers of quantiles, of which the first that leaves enough symbols in each is taken
FEWEST_IN_QUANTILE = 5
TOP_K, LEAST_SHARE = 10, 5  # the top K are ten symbols, and at most one in five
FILL_COST_BPS = 3.0  # of each fill: 1 commission, half a spread of 2, 1 slippage; the backtest's rules have the same


@dataclass(frozen=True)
class CrossSections:
    """Rows of many symbols by date, with the forward returns that scores are compared with.

    rows: int64 (n,), positions in the arrays that `cross_sections` was given, sorted by date and then by symbol.
    times: int64 (n_dates,), UTC ns, distinct, rising.  date: int64 (n,), position in times.
    forward_return: float64 (n,), return of the next `horizon` bars, a fraction; finite.
    group: int64 (n,), a number for each group (sector), from 0 on.
    earlier: int64 (n,), the row of the same symbol `horizon` dates before; -1 where there is none.
    horizon: bars of the forward return.
    n_quantiles: quantiles of a date; 0 where dates have too few symbols.  top_k: how many symbols the top K are.

        >>> time_ns, symbol = np.repeat(np.arange(3), 5), np.tile(np.arange(5), 3)
        >>> sections = cross_sections(time_ns, symbol, np.zeros(15), np.linspace(-0.1, 0.1, 15), horizon=1)
        >>> sections.times.tolist(), sections.earlier[4:7].tolist(), sections.n_quantiles, sections.top_k
        ([0, 1, 2], [-1, 0, 1], 0, 1)
    """

    rows: np.ndarray
    times: np.ndarray
    date: np.ndarray
    forward_return: np.ndarray
    group: np.ndarray
    earlier: np.ndarray
    horizon: int
    n_quantiles: int
    top_k: int

    @property
    def symbols(self) -> np.ndarray:
        """int64 (n_dates,): number of symbols of each date."""
        return np.bincount(self.date, minlength=len(self.times))

    def total(self, values: np.ndarray) -> np.ndarray:
        """float64 (n_dates,): the sum of each date.  values: (n,)."""
        return np.bincount(self.date, weights=values, minlength=len(self.times))

    @functools.cached_property
    def returns(self) -> Returns:
        """What all scores share: forward returns, their ranks, and both neutral of groups."""
        neutral = self.neutral(self.forward_return)
        excess = self.forward_return - _safe(self.total(self.forward_return), self.symbols)[self.date]
        ranks, neutral_ranks = (ranks_by(self.date, values).mean for values in (self.forward_return, neutral))
        return Returns(excess, ranks, neutral, neutral_ranks)

    def neutral(self, values: np.ndarray) -> np.ndarray:
        """float64 (n,): values minus the mean of their group on their date (alphalens' group_adjust, group_neutral).

        Differences that are rounding errors of the mean become 0, so that values that are constant in every group are
        constant afterwards. A symbol that is alone in its group on a date has 0.
        """
        cell = self.date * (int(self.group.max(initial=0)) + 1) + self.group
        means = np.bincount(cell, weights=values) / np.maximum(1, np.bincount(cell))
        difference = values - means[cell]
        return np.where(np.abs(difference) <= 1e-12 * np.abs(values).max(initial=0.0), 0.0, difference)


def cross_sections(
    time_ns: np.ndarray,
    symbol: np.ndarray,
    group: np.ndarray,
    forward_return: np.ndarray,
    horizon: int,
    n_quantiles: int | None = None,
    top_k: int | None = None,
) -> CrossSections:
    """Sort rows by date; rows whose forward return is not finite are left out.

    time_ns: int64 (n,), UTC ns.  symbol, group: integers (n,).  forward_return: float (n,).
    horizon: bars of the forward return, which is also the lag of turnover and autocorrelation, in dates of these rows.
    n_quantiles: by default ten (deciles), or the most of 5, 3 and 2 that leave five symbols in each quantile, by the
        median number of symbols of a date; 0 (none) below ten symbols. All dates have the same number.
    top_k: by default ten, but at most a fifth of that median, at least one.
    Raises ValueError where a symbol stands twice on a date, or arrays differ in length.
    """
    arrays = {"symbol": symbol, "group": group, "forward_return": forward_return}
    if bad := {name: values.shape for name, values in arrays.items() if values.shape != time_ns.shape}:
        raise ValueError(f"expected arrays of shape {time_ns.shape}, as time_ns has, got {bad}")
    finite = np.flatnonzero(np.isfinite(forward_return))
    rows = finite[np.lexsort((symbol[finite], time_ns[finite]))]
    times, date = np.unique(time_ns[rows], return_inverse=True)
    _, code = np.unique(symbol[rows], return_inverse=True)
    key = code.astype(np.int64) * max(1, len(times)) + date
    by_key = np.argsort(key, kind="stable")
    ordered = key[by_key]
    if (ordered[1:] == ordered[:-1]).any():
        raise ValueError("expected each symbol once on a date; some stand twice")
    place = np.searchsorted(ordered, key - horizon)
    found = (date >= horizon) & (ordered[np.minimum(place, len(key) - 1)] == key - horizon) if len(key) else date < 0
    _, groups = np.unique(group[rows], return_inverse=True)
    typical = float(np.median(np.bincount(date))) if len(rows) else 0.0
    if n_quantiles is None:
        n_quantiles = next((q for q in QUANTILES if typical >= q * FEWEST_IN_QUANTILE), 0)
    if top_k is None:
        top_k = max(1, min(TOP_K, int(typical) // LEAST_SHARE))
    return CrossSections(
        rows, times, date, forward_return[rows].astype(np.float64), groups,
        np.where(found, by_key[np.minimum(place, max(0, len(key) - 1))] if len(key) else 0, -1),
        horizon, n_quantiles, top_k,
    )  # fmt: skip


@dataclass(frozen=True)
class Returns:
    """Forward returns as the measures need them, float64 (n,) each.

    excess: minus the mean of the date.  ranks: within the date.  neutral: minus the mean of the group on the date.
    neutral_ranks: ranks of these.

        >>> sections = cross_sections(np.zeros(2, int), np.arange(2), np.zeros(2), np.array([0.25, 0.75]), horizon=1)
        >>> sections.returns.excess.tolist(), sections.returns.ranks.tolist()
        ([-0.25, 0.25], [1.0, 2.0])
    """

    excess: np.ndarray
    ranks: np.ndarray
    neutral: np.ndarray
    neutral_ranks: np.ndarray


@dataclass(frozen=True)
class Ranks:
    """Ranks of values within dates.

    least: int64 (n,), how many values of the date are smaller.  ties: int64 (n,), how many are equal, itself included.

        >>> ranks = ranks_by(np.zeros(4, np.int64), np.array([0.3, 0.1, 0.3, 0.5]))
        >>> ranks.least.tolist(), ranks.mean.tolist()
        ([1, 0, 1, 3], [2.5, 1.0, 2.5, 4.0])
    """

    least: np.ndarray
    ties: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """float64 (n,): ranks from 1 on; equal values have the mean of their ranks."""
        return self.least + (self.ties + 1) / 2

    def top(self, count: np.ndarray, places: Any) -> np.ndarray:
        """float64 (n,): the weight of each value among the highest of its date; equal values share the last places.

        count: int64 (n,), values of the date.  places: how many are the highest: one number, or float (n,).
        """
        higher = count - self.least - self.ties
        weight: np.ndarray = np.clip((places - higher) / self.ties, 0.0, 1.0)
        return weight


def ranks_by(date: np.ndarray, values: np.ndarray) -> Ranks:
    """Rank values within dates.  date: int64 (n,).  values: float (n,), finite."""
    order = np.lexsort((values, date))
    sorted_date, sorted_values = date[order], values[order]
    position = np.arange(len(order))
    new_date = np.ones(len(order), bool)
    new_date[1:] = sorted_date[1:] != sorted_date[:-1]
    new_value = new_date.copy()
    new_value[1:] |= sorted_values[1:] != sorted_values[:-1]
    tie = np.cumsum(new_value) - 1
    first = np.flatnonzero(new_value)
    start = np.maximum.accumulate(np.where(new_date, position, 0))
    least, ties = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    least[order] = first[tie] - start
    ties[order] = np.diff(np.append(first, len(order)))[tie]
    return Ranks(least, ties)


@dataclass(frozen=True)
class ByDate:
    """The measures of one score, float64 (n_dates,) each; NaN on a date that does not define them.

    sections: the rows that were measured.
    ic: correlation of score and forward return (Pearson).  rank_ic: of their ranks (Spearman); equal values have the
        mean of their ranks. NaN below five symbols, and where all scores or all returns of the date are equal.
    ic_neutral, rank_ic_neutral: the same of scores and returns minus the means of their group on the date.
        alphalens' group_adjust subtracts them from the returns alone; to subtract them from the scores, too, leaves out
        what the score says about whole groups.
    quantile_returns: float64 (n_dates, n_quantiles), mean forward return of each quantile of the score, lowest first,
        minus the mean of the date (alphalens' mean_return_by_quantile, demeaned). Quantiles are cut as pandas.qcut
        cuts, equal scores are in the same one, so that some may be empty: NaN. A date with fewer symbols than quantiles
        has none.
    spread: return of the highest quantile minus the lowest: long one, short the other, a position of 1 in each.
        alphalens 0.5 and Qlib state half of it.
    spread_net: the same after costs: each symbol that enters a quantile is bought and sold, two fills.  A date without
        a date `horizon` before it, whose positions are all new, pays for all of them.
    turnover_top, turnover_bottom: share of the symbols of the highest and the lowest quantile that were not in it
        `horizon` dates before (alphalens' quantile_turnover).
    rank_autocorrelation: correlation of the ranks with those of the same symbols `horizon` dates before (alphalens'
        factor_rank_autocorrelation); NaN below five common symbols.
    hit_rate: share of the top K symbols by score whose return is above the date's mean (Qlib's long precision with
        is_alpha, of K symbols).  top_k_return: their mean return minus the date's mean. Equal scores at the border
        count in part. NaN on dates with fewer than 2 K symbols.

        >>> time_ns, symbol = np.repeat(np.arange(3), 5), np.tile(np.arange(5), 3)
        >>> forward_return = np.array([1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 5, 4, 3, 2, 1]) / 100
        >>> sections = cross_sections(time_ns, symbol, np.zeros(15), forward_return, horizon=1, n_quantiles=5)
        >>> by_date = measure_by_date(symbol.astype(float), sections)
        >>> by_date.rank_ic.round(6).tolist(), by_date.spread.round(6).tolist(), by_date.turnover_top.tolist()
        ([1.0, 1.0, -1.0], [0.04, 0.04, -0.04], [nan, 0.0, 0.0])
    """

    sections: CrossSections
    ic: np.ndarray
    rank_ic: np.ndarray
    ic_neutral: np.ndarray
    rank_ic_neutral: np.ndarray
    quantile_returns: np.ndarray
    spread: np.ndarray
    spread_net: np.ndarray
    turnover_top: np.ndarray
    turnover_bottom: np.ndarray
    rank_autocorrelation: np.ndarray
    hit_rate: np.ndarray
    top_k_return: np.ndarray


def measure_by_date(score: np.ndarray, sections: CrossSections, fill_cost_bps: float = FILL_COST_BPS) -> ByDate:
    """All measures of a score, date by date.

    score: float (n_given,), for the rows that `cross_sections` was given; rows where it is not finite are left out, and
        the dates and numbers of quantiles stay.
    fill_cost_bps: costs of a fill, basis points of its value; the default is that of the backtest's rules.
    """
    values = score[sections.rows].astype(np.float64)
    if not np.isfinite(values).all():
        return measure_by_date(score, without(sections, ~np.isfinite(values)), fill_cost_bps)
    ranks, returns, neutral = ranks_by(sections.date, values), sections.returns, sections.neutral(values)
    neutral_ranks = ranks_by(sections.date, neutral).mean
    rank_ic = _correlation(sections, ranks.mean, returns.ranks)
    rank_ic_neutral = _correlation(sections, neutral_ranks, returns.neutral_ranks)
    # The ranks tell exactly where all values of a date are equal; the sums of values leave rounding errors.
    ic = np.where(np.isnan(rank_ic), np.nan, _correlation(sections, values, sections.forward_return))
    ic_neutral = np.where(np.isnan(rank_ic_neutral), np.nan, _correlation(sections, neutral, returns.neutral))
    pairs = sections.earlier >= 0
    autocorrelation = _correlation(sections, ranks.mean, ranks.mean[sections.earlier], pairs)
    by_quantile, turnover = _quantile_measures(sections, ranks, returns.excess)
    spread = by_quantile[:, -1] - by_quantile[:, 0] if sections.n_quantiles else np.full(len(sections.times), np.nan)
    new = np.where(np.isnan(turnover), 1.0, turnover).sum(axis=1)
    hits, top_return = _top_k(sections, ranks, returns.excess)
    return ByDate(
        sections, ic, rank_ic, ic_neutral, rank_ic_neutral, by_quantile, spread,
        spread - 2 * fill_cost_bps * 1e-4 * new, turnover[:, 1], turnover[:, 0], autocorrelation, hits, top_return,
    )  # fmt: skip


def without(sections: CrossSections, left_out: np.ndarray) -> CrossSections:
    """The cross-sections without some rows; dates that become empty stay.  left_out: bool (n,)."""
    number = np.cumsum(~left_out) - 1
    earlier = sections.earlier[~left_out]
    kept = (earlier >= 0) & ~left_out[earlier]
    return CrossSections(
        sections.rows[~left_out], sections.times, sections.date[~left_out], sections.forward_return[~left_out],
        sections.group[~left_out], np.where(kept, number[earlier], -1), sections.horizon, sections.n_quantiles,
        sections.top_k,
    )  # fmt: skip


def quantiles_of(sections: CrossSections, ranks: Ranks) -> np.ndarray:
    """int64 (n,): the quantile of each row, from 0 on; -1 on dates with fewer symbols than quantiles.

    Equal to pandas.qcut where no edge falls on equal scores; qcut raises an error there, here they share a quantile.
    """
    n, count = sections.n_quantiles, sections.symbols[sections.date]
    position = -(-ranks.least * n // np.maximum(1, count - 1)) - 1
    return np.where((count >= max(2, n)) & (n > 0), np.maximum(0, position), -1)


def _quantile_measures(sections: CrossSections, ranks: Ranks, excess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean excess return by date and quantile; turnover (n_dates, 2) of the lowest and of the highest quantile."""
    n_dates, n = len(sections.times), sections.n_quantiles
    if not n:
        return np.empty((n_dates, 0)), np.full((n_dates, 2), np.nan)
    quantile = quantiles_of(sections, ranks)
    used = quantile >= 0
    cell = sections.date[used] * n + quantile[used]
    sums = np.bincount(cell, weights=excess[used], minlength=n_dates * n)
    means = _safe(sums, np.bincount(cell, minlength=n_dates * n)).reshape(n_dates, n)
    turnover = []
    for k in (0, n - 1):
        inside = quantile == k
        stayed = inside & (sections.earlier >= 0) & inside[sections.earlier]
        size, kept = sections.total(inside), sections.total(stayed)
        before = np.zeros(n_dates)
        before[sections.horizon :] = size[: max(0, n_dates - sections.horizon)]
        turnover.append(np.where(before > 0, _safe(size - kept, size), np.nan))
    return means, np.stack(turnover, axis=1)


def _top_k(sections: CrossSections, ranks: Ranks, excess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hit rate and mean excess return of the top K, by date."""
    count, k = sections.symbols, sections.top_k
    weight = ranks.top(count[sections.date], k)
    size = np.where(count >= 2 * k, sections.total(weight), 0.0)
    return _safe(sections.total(weight * (excess > 0)), size), _safe(sections.total(weight * excess), size)


def _correlation(sections: CrossSections, a: np.ndarray, b: np.ndarray, used: np.ndarray | None = None) -> np.ndarray:
    """Pearson's correlation by date of the `used` rows; NaN below FEWEST_SYMBOLS rows, or without any variance."""
    date = sections.date if used is None else sections.date[used]
    a, b = (a, b) if used is None else (a[used], b[used])
    n_dates = len(sections.times)
    count = np.bincount(date, minlength=n_dates)

    def centred(x: np.ndarray) -> np.ndarray:
        return x - _safe(np.bincount(date, weights=x, minlength=n_dates), count)[date]

    a, b = centred(a), centred(b)
    both, of_a, of_b = (np.bincount(date, weights=x, minlength=n_dates) for x in (a * b, a * a, b * b))
    enough = (count >= FEWEST_SYMBOLS) & (of_a > 0) & (of_b > 0)
    return np.where(enough, both / np.sqrt(np.where(enough, of_a * of_b, 1.0)), np.nan)


def _safe(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """total / count; NaN where count is 0."""
    return np.where(count > 0, total / np.where(count > 0, count, 1), np.nan)
