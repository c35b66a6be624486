"""The out-of-sample bars and scores as matrices of dates and symbols, which a portfolio of ranks trades."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe.backtest.calling.calls import rankings
from gpupipe.backtest.engine import VOLATILITY_BARS, cut
from gpupipe.backtest.rank_rules import INVERSE, RankRules
from gpupipe.backtest.sources import OutOfSample
from gpupipe.data.halts import halted_rows
from gpupipe.data.panel import Panel

VOLUME_BARS = 20


def score_of(source: OutOfSample) -> Any:
    """float32 (n_rows, n_models), on the panel's device: the score by which names are ranked; NaN without one.

    The expected return of a long trade beyond that of its peers (`expected_return.Scores.ranking`): the higher, the
    better to own; the lower, the better to be short. A model without an expected return has no score. Where `source`
    comes without any, the score is P(BUY) - P(SELL).
    """
    if source.expected_returns is None:
        return source.values[:, :, 2] - source.values[:, :, 0]
    return source.panel.device.asarray(rankings(source))


def score_in_words(source: OutOfSample) -> str:
    """What `score_of` returns."""
    if source.expected_returns is None:
        return "P(BUY) - P(SELL)"
    return "expected return of a long trade beyond that of its peers"


@dataclass(frozen=True)
class RankBars:
    """What a portfolio of ranks can see and trade; arrays on the host, (n_dates, n_symbols) unless stated.

    times: int64 (n_dates,), the distinct times of the out-of-sample bars.
    open, close: float64, prices; NaN where a symbol has no bar, or no price.  mark: the last known close up to a date;
        NaN before the first.
    traded: bool, whether orders are filled in the bar.  listed: bool, whether there is a bar with a close.
    last: int64 (n_symbols,), the date of a symbol's last bar; -1 without any.
    volatility: float64, standard deviation of the last 20 returns, NaN where it is not known; None where the rules do
        not ask for it.
    dollar_volume: float64, median of close * volume over the last 20 bars up to a date; NaN without volumes.
    score: float32 (n_rows, n_models), of rows sorted by date: those of date d are rows_of[d]:rows_of[d + 1].
    symbol: int64 (n_rows,), of these rows.

        >>> from gpupipe.data import simulate
        >>> panel = simulate(n_symbols=2, n_bars=4)
        >>> bars = bars_of_panel(panel, np.zeros((8, 1), np.float32), RankRules())
        >>> bars.close.shape, bars.last.tolist(), bars.scores(0).shape
        ((4, 2), [3, 3], (1, 2))
    """

    times: np.ndarray
    open: np.ndarray = field(repr=False)
    close: np.ndarray = field(repr=False)
    mark: np.ndarray = field(repr=False)
    traded: np.ndarray = field(repr=False)
    listed: np.ndarray = field(repr=False)
    last: np.ndarray = field(repr=False)
    volatility: np.ndarray | None = field(repr=False)
    dollar_volume: np.ndarray = field(repr=False)
    score: np.ndarray = field(repr=False)
    symbol: np.ndarray = field(repr=False)
    rows_of: np.ndarray = field(repr=False)

    @property
    def n_dates(self) -> int:
        """The number of dates."""
        return len(self.times)

    @property
    def n_symbols(self) -> int:
        """The number of symbols."""
        return int(self.close.shape[1])

    @property
    def n_models(self) -> int:
        """The number of models, each of which has a portfolio."""
        return int(self.score.shape[1])

    def scores(self, date: int) -> np.ndarray:
        """float64 (n_models, n_symbols): the scores of a date; NaN without one, and in a bar that fills nothing."""
        rows = slice(*self.rows_of[date : date + 2])
        scores = np.full((self.n_models, self.n_symbols), np.nan)
        scores[:, self.symbol[rows]] = self.score[rows].T
        scores[:, ~self.traded[date]] = np.nan
        return scores

    def first_scored(self) -> np.ndarray:
        """int64 (n_models,): the first date with a score; n_dates for a model without any."""
        known = ~np.isnan(self.score)
        date = np.repeat(np.arange(self.n_dates), np.diff(self.rows_of))
        first = np.full(self.n_models, self.n_dates)
        for model in range(self.n_models):
            dates = date[known[:, model]]
            first[model] = dates[0] if len(dates) else self.n_dates
        return first


def bars_of(source: OutOfSample, rules: RankRules) -> tuple[RankBars, Panel]:
    """The bars and scores of the out-of-sample rows, and the panel of these rows.

    Halts, volatility and volume look back over the whole panel. Raises ValueError when no row is out of sample.
    """
    panel, rows = cut(source)
    return bars_of_panel(source.panel, score_of(source), rules, rows), panel


def bars_of_panel(panel: Panel, score: Any, rules: RankRules, rows: Any = None) -> RankBars:
    """The matrices of some rows of a panel.

    score: float32 (n_rows, n_models), for every row of the panel.  rows: int64, ascending; None for all of them.
    """
    to_host = panel.device.to_host
    chosen = np.arange(panel.n_rows) if rows is None else to_host(rows)
    times, date = np.unique(to_host(panel.time_ns)[chosen], return_inverse=True)
    symbol = to_host(panel.symbol_of_row)[chosen].astype(np.int64)
    halted = to_host(halted_rows(panel))[chosen] if rules.fills.halts == "wait" else np.zeros(len(chosen), np.int8)

    def wide(column: Any) -> np.ndarray:
        matrix = np.full((len(times), panel.n_symbols), np.nan)
        matrix[date, symbol] = column
        return matrix

    price = {name: to_host(getattr(panel, name))[chosen].astype(np.float64) for name in ("open", "close")}
    first, close = (wide(np.where(price[name] > 0, price[name], np.nan)) for name in ("open", "close"))
    listed = ~np.isnan(close)
    at = np.maximum.accumulate(np.where(listed, np.arange(len(times))[:, None], -1), axis=0)
    mark = np.where(at >= 0, np.take_along_axis(close, np.maximum(at, 0), axis=0), np.nan)
    by_date = np.argsort(date, kind="stable")
    return RankBars(
        times=times, open=first, close=close, mark=mark,
        traded=listed & ~np.isnan(first) & (wide(halted) == 0), listed=listed,
        last=at[-1] if len(times) else np.full(panel.n_symbols, -1),
        volatility=wide(_volatility(panel)[chosen]) if rules.weighting == INVERSE else None,
        dollar_volume=wide(_dollar_volume(panel)[chosen]),
        score=to_host(score)[chosen][by_date], symbol=symbol[by_date],
        rows_of=np.searchsorted(date[by_date], np.arange(len(times) + 1)),
    )  # fmt: skip


def _volatility(panel: Panel) -> np.ndarray:
    """float64 (n_rows,): standard deviation of the last 20 returns."""
    from gpupipe.features.matrix import compute_features

    values = panel.device.to_host(compute_features(panel, f"volatility_{VOLATILITY_BARS}").values)
    column: np.ndarray = values[:, 0].astype(np.float64)
    return column


def _dollar_volume(panel: Panel) -> np.ndarray:
    """float64 (n_rows,): median of close * volume over the last 20 bars of a symbol, fewer at its begin."""
    to_host = panel.device.to_host
    value = to_host(panel.close).astype(np.float64) * to_host(panel.volume)
    medians = np.full(len(value), np.nan)
    for begin, end in zip(*(to_host(panel.offsets)[k:][: panel.n_symbols] for k in (0, 1)), strict=True):
        padded = np.concatenate([np.full(VOLUME_BARS - 1, np.nan), value[begin:end]])
        windows = np.lib.stride_tricks.sliding_window_view(padded, VOLUME_BARS)
        known = ~np.isnan(windows).all(axis=1)
        if known.any():
            medians[begin:end][known] = np.nanmedian(windows[known], axis=1)
    return medians
