"""Averages over dates of the measures of ranking.py, with intervals: ICIR, years, regimes of volatility, paired scores.

Forward returns of h bars overlap over h dates, and so do the dates' ICs. Intervals therefore come from the same
circular block bootstrap of dates as those of the gains (block_bootstrap.py), and t from Newey and West (1987); for one
bar it is the t of alphalens' table of information.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gpupipe.evaluation import block_bootstrap
from gpupipe.evaluation.block_bootstrap import Draws
from gpupipe.evaluation.ranking import ByDate, CrossSections, measure_by_date, ranks_by, without

REGIMES = ("low", "middle", "high")  # terciles of volatility
WITH_INTERVAL = (
    "ic", "rank_ic", "ic_neutral", "rank_ic_neutral", "spread", "spread_net", "hit_rate", "top_k_return",
    "rank_autocorrelation", "turnover_top", "turnover_bottom",
)  # fmt: skip
RATIOS = {"ic": "icir", "rank_ic": "rank_icir", "rank_ic_neutral": "rank_icir_neutral"}  # mean / standard deviation
IN_PARTS = ("rank_ic", "rank_ic_neutral", "spread", "spread_net")  # measured by year and by regime too


def summarise(by_date: ByDate, draws: Draws, regime: np.ndarray | None = None) -> dict[str, Any]:
    """Means over dates with their 95 % intervals, as plain values; NaN where not defined, or without an interval.

    draws: of times that include all dates; intervals of scores with the same draws can be compared.
    regime: int (n_dates,), number in REGIMES of each date, -1 not known; None for no such part.

    Returned by name: "dates" (with a rank IC), "symbols" (median of a date), "quantiles", "top_k", "horizon"; every
    measure of WITH_INTERVAL as NAME, NAME_low, NAME_high; "icir", "rank_icir", "rank_icir_neutral": mean / standard
    deviation over dates, not annualised, as Qlib states them, with intervals; "ic_std", "rank_ic_std"; "rank_ic_t";
    "rank_ic_positive": share of dates with a rank IC above 0; "quantile_returns", "quantile_low", "quantile_high":
    lists, lowest quantile first; "monotone": Spearman's correlation of the number of the quantile with its mean return;
    "by_year" (UTC) and "by_regime": lists of {"year" or "regime", "dates", measures of IN_PARTS}.

        >>> rng, n_dates = np.random.default_rng(0), 60
        >>> forward_return = rng.normal(size=n_dates * 10)
        >>> from gpupipe.evaluation.ranking import cross_sections
        >>> sections = cross_sections(
        ...     np.repeat(np.arange(n_dates), 10), np.tile(np.arange(10), n_dates), np.zeros(n_dates * 10),
        ...     forward_return, horizon=1)
        >>> by_date = measure_by_date(forward_return + rng.normal(size=n_dates * 10), sections)
        >>> summary = summarise(by_date, block_bootstrap.draw(sections.times, 1, seed=0))
        >>> summary["dates"], summary["rank_ic_low"] > 0.4, summary["quantiles"], summary["rank_ic_positive"] > 0.95
        (60, True, 2, True)
    """
    sections = by_date.sections
    means = {name: getattr(by_date, name) for name in WITH_INTERVAL}
    quantiles = [by_date.quantile_returns[:, q] for q in range(sections.n_quantiles)]
    parts = [*_years(sections.times), *_regimes(regime)]
    columns = [*means.values(), *quantiles, *(means[name] ** 2 for name in RATIOS)]
    columns += [np.where(mask, means[name], np.nan) for _, _, mask in parts for name in IN_PARTS]
    drawn = _Drawn(np.stack(columns, axis=1), sections.times, draws)
    whole: dict[str, Any] = {
        "dates": int(np.isfinite(by_date.rank_ic).sum()),
        "symbols": float(np.median(sections.symbols)) if len(sections.times) else 0.0,
        "quantiles": sections.n_quantiles, "top_k": sections.top_k, "horizon": sections.horizon,
    }  # fmt: skip
    for k, name in enumerate(means):
        whole |= _named(name, drawn.mean(k))
    first_square = len(means) + len(quantiles)
    for k, (name, ratio) in enumerate(RATIOS.items()):
        whole |= _named(ratio, drawn.ratio(list(means).index(name), first_square + k))
    whole |= {"ic_std": _std(by_date.ic), "rank_ic_std": _std(by_date.rank_ic)}
    known = by_date.rank_ic[np.isfinite(by_date.rank_ic)]
    whole |= {
        "rank_ic_t": newey_west_t(known, overlap_lags(sections.horizon)),
        "rank_ic_positive": float((known > 0).mean()) if len(known) else float("nan"),
    }
    by_quantile = [drawn.mean(len(means) + q) for q in range(len(quantiles))]
    for k, name in enumerate(("quantile_returns", "quantile_low", "quantile_high")):
        whole[name] = [values[k] for values in by_quantile]
    whole["monotone"] = _order(whole["quantile_returns"])
    lines: dict[str, list[dict[str, Any]]] = {"year": [], "regime": []}
    first = first_square + len(RATIOS)
    for p, (kind, value, mask) in enumerate(parts):
        line = {kind: value, "dates": int((mask & np.isfinite(by_date.rank_ic)).sum())}
        for k, name in enumerate(IN_PARTS):
            line |= _named(name, drawn.mean(first + p * len(IN_PARTS) + k))
        lines[kind].append(line)
    return {**whole, "by_year": lines["year"], "by_regime": lines["regime"]}


def paired_rank_ic(
    score_a: np.ndarray, score_b: np.ndarray, sections: CrossSections, draws: Draws | None = None, seed: int = 0
) -> dict[str, Any]:
    """Difference of the mean rank ICs of two scores on the same rows, with its 95 % interval.

    score_a, score_b: float (n_given,), as `measure_by_date` takes them; rows where either is not finite are left out of
        both.  draws: None draws blocks for the dates of the sections, from `seed`.
    Returns "dates" (with both rank ICs), "rank_ic_a", "rank_ic_b", "difference" (a - b), "difference_low",
    "difference_high", and the same of the group-neutral rank IC with "_neutral" at the end.

        >>> from gpupipe.evaluation.ranking import cross_sections
        >>> rng, n = np.random.default_rng(0), 600
        >>> forward_return = rng.normal(size=n)
        >>> sections = cross_sections(np.arange(n) // 10, np.arange(n) % 10, np.zeros(n), forward_return, horizon=1)
        >>> paired = paired_rank_ic(forward_return, -forward_return, sections)
        >>> paired["difference"], paired["difference_low"], paired["dates"]
        (2.0, 2.0, 60)
    """
    both = np.isfinite(score_a[sections.rows]) & np.isfinite(score_b[sections.rows])
    kept = without(sections, ~both)
    first, second = (measure_by_date(score, kept) for score in (score_a, score_b))
    draws = block_bootstrap.draw(sections.times, sections.horizon, seed) if draws is None else draws
    paired: dict[str, Any] = {}
    for end in ("", "_neutral"):
        a, b = (getattr(measured, f"rank_ic{end}") for measured in (first, second))
        known = np.isfinite(a - b)
        drawn = _Drawn(np.stack([np.where(known, x, np.nan) for x in (a, b, a - b)], axis=1), kept.times, draws)
        paired |= {f"dates{end}": int(known.sum()), f"rank_ic_a{end}": drawn.mean(0)[0]}
        difference = dict(zip(("", "_low", "_high"), drawn.mean(2), strict=True))
        paired |= {f"rank_ic_b{end}": drawn.mean(1)[0]}
        paired |= {f"difference{side}{end}": value for side, value in difference.items()}
    return paired


class _Drawn:
    """Means of columns over dates, and in every bootstrap sample; NaN is left out."""

    def __init__(self, values: np.ndarray, times: np.ndarray, draws: Draws) -> None:
        at = np.searchsorted(draws.times, times)
        if len(times) and (at.max() == len(draws.times) or (draws.times[at] != times).any()):
            raise ValueError("expected draws of times that include all dates of the score")
        known, n = np.isfinite(values), values.shape[1]
        self.values, self.counts = values, known.sum(axis=0)
        self.n_blocks = self.counts / draws.block
        columns = np.zeros((len(draws.times), 2 * n))
        columns[at, :n], columns[at, n:] = np.where(known, values, 0.0), known
        sums = draws.sums(columns) if len(draws.times) else np.zeros((len(draws.starts), 2 * n))
        counts = np.where(sums[:, n:] > 0, sums[:, n:], np.nan)
        self.drawn_counts, self.drawn = counts, sums[:, :n] / counts
        totals = np.where(known, values, 0.0).sum(axis=0)
        self.means = totals / np.where(self.counts > 0, self.counts, np.nan)

    def mean(self, k: int) -> tuple[float, float, float]:
        """The mean of column k, and the ends of its interval."""
        estimate = float(self.means[k])
        return (estimate, *block_bootstrap.interval(estimate, self.drawn[:, k], float(self.n_blocks[k])))

    def ratio(self, k: int, square: int) -> tuple[float, float, float]:
        """Mean / standard deviation of column k, with its interval.  square: the column of squares of column k."""
        of = _ratio(self.means[k], self.means[square], self.counts[k])
        drawn = _ratio(self.drawn[:, k], self.drawn[:, square], self.drawn_counts[:, k])
        return (float(of), *block_bootstrap.interval(float(of), drawn, float(self.n_blocks[k])))


def _ratio(mean: Any, square: Any, count: Any) -> Any:
    """mean / standard deviation (with n - 1); NaN without any variance, which here is below 1e-12 of the squares."""
    variance = np.asarray(square - mean**2)
    defined = (count > 1) & (variance > 1e-12 * square)
    spread = np.sqrt(np.where(defined, variance, 1.0) * count / np.maximum(1, count - 1))
    return np.where(defined, mean / spread, np.nan)


def overlap_lags(horizon: int) -> int:
    """Lags of Newey and West's error for windows of `horizon` bars: 2 (horizon - 1).

    Windows that overlap are correlated over horizon - 1 dates. Bartlett's weights fall to 0 over the lags, so that with
    as many lags the error of overlapping sums is a fifth too small, with twice as many a tenth.
    """
    return 2 * (horizon - 1)


def newey_west_t(values: np.ndarray, lags: int) -> float:
    """Mean / its standard error, with Bartlett's weights for autocorrelation up to `lags` (Newey and West 1987).

    values: float (n,), finite, in order of time. The variance is multiplied by n / (n - 1), so that without lags it is
    Student's t. NaN for fewer than two values, or without any variance.

    >>> round(newey_west_t(np.array([1.0, 2.0, 3.0, 4.0]), 0), 6), np.isnan(newey_west_t(np.ones(4), 0))
    (3.872983, np.True_)
    """
    error = newey_west_error(values, lags)
    return float(values.mean() / error) if error > 0 else float("nan")


def newey_west_error(values: np.ndarray, lags: int) -> float:
    """Standard error of the mean of autocorrelated values; see `newey_west_t`. NaN for fewer than two values."""
    n = len(values)
    if n < 2:
        return float("nan")
    if values.min() == values.max():
        return 0.0
    centred = values - values.mean()
    variance = float(centred @ centred)
    for lag in range(1, min(lags, n - 1) + 1):
        variance += 2 * (1 - lag / (lags + 1)) * float(centred[lag:] @ centred[:-lag])
    return float(np.sqrt(max(0.0, variance) / n / (n - 1)))


def median_by_date(time_ns: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(times int64 (n_dates,), float64 (n_dates,)): the median of each date; NaN where a date has no finite value.

    time_ns: int64 (n,).  values: float (n,); those that are not finite are left out.

    >>> median_by_date(np.array([7, 7, 7, 9]), np.array([1.0, 4.0, np.nan, 2.0]))
    (array([7, 9]), array([2.5, 2. ]))
    """
    times, date = np.unique(time_ns, return_inverse=True)
    known = np.isfinite(values)
    date, values = date[known], values[known].astype(np.float64)
    values = values[np.lexsort((values, date))]
    count = np.bincount(date, minlength=len(times))
    first = np.cumsum(count) - count
    full = np.flatnonzero(count)
    medians = np.full(len(times), np.nan)
    low, high = first[full] + (count[full] - 1) // 2, first[full] + count[full] // 2
    medians[full] = (values[low] + values[high]) / 2
    return times, medians


def regimes_of(medians: np.ndarray, training: np.ndarray) -> np.ndarray:
    """int64 (n_dates,): the tercile of volatility of each date, a number in REGIMES; -1 where it is NaN.

    medians: float64 (n_dates,), the median volatility of each date.  training: those of the training dates, whose
    terciles are the cuts: nothing is learned from the dates that are judged, and all of them may be in one regime.

    >>> regimes_of(np.array([0.5, 2.0, 9.0, np.nan]), np.array([1.0, 2.0, 3.0])).tolist()
    [0, 1, 2, -1]
    """
    known = training[np.isfinite(training)]
    if not len(known):
        return np.full(len(medians), -1)
    cuts = np.quantile(known, [1 / 3, 2 / 3])
    return np.where(np.isfinite(medians), np.searchsorted(cuts, medians, side="right"), -1)


def _years(times: np.ndarray) -> Iterable[tuple[str, Any, np.ndarray]]:
    year = times.astype("datetime64[ns]").astype("datetime64[Y]").astype(np.int64) + 1970
    for value in np.unique(year):
        yield "year", int(value), year == value


def _regimes(regime: np.ndarray | None) -> Iterable[tuple[str, Any, np.ndarray]]:
    for number, name in enumerate(REGIMES if regime is not None else ()):
        if regime is not None and (regime == number).any():
            yield "regime", name, regime == number


def _named(name: str, values: Sequence[float]) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _std(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1)) if len(known) > 1 else float("nan")


def _order(returns: Sequence[float]) -> float:
    """Spearman's correlation of the quantiles' numbers with their returns; NaN below three quantiles, or with a gap."""
    if len(returns) < 3 or not np.isfinite(returns).all() or len(set(returns)) == 1:
        return float("nan")
    ranks = ranks_by(np.zeros(len(returns), np.int64), np.array(returns)).mean
    return float(np.corrcoef(np.arange(len(returns)), ranks)[0, 1])
