"""What the fills of portfolios of ranks come to: round trips, and the equity at which fills meet the volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpupipe.backtest.engine import title_of
from gpupipe.backtest.rank_portfolio import REASONS, REBALANCE, RankBacktest
from gpupipe.backtest.tables import _times, _words

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class RoundTrips:
    """Positions from the first fill to the one that closes them, sorted by model, symbol, then time; on the host.

    model, symbol: int64 (n_trips,).  side: int8, 1 long, -1 short.
    decided, entry, exit: int64, dates of the decision that opened it, of the first and of the last fill.
    entry_price, exit_price: float64, means over the fills that made it larger and smaller, by shares, before costs.
    weight: float64, share of the equity at the first fill.  fills: int64.
    net: float64, profit after costs over the value of all fills that made it larger, at their prices after slippage and
        half the spread: of a trip of two fills it is the return of `engine.net_returns`.
    reason: int8, of rank_portfolio.REASONS.  waited: bool, whether the exit waited for the end of a halt.

        >>> one, price = np.array([0]), np.array([100.0])
        >>> trip = RoundTrips(
        ...     one, one, np.array([1]), one, one + 1, one + 6, price, price * 1.1, np.array([0.02]), one + 2,
        ...     np.array([0.0995]), one, one > 0)
        >>> trip.n_trips, REASONS[trip.reason[0]]
        (1, 'rebalance')
    """

    model: np.ndarray
    symbol: np.ndarray
    side: np.ndarray
    decided: np.ndarray
    entry: np.ndarray
    exit: np.ndarray
    entry_price: np.ndarray
    exit_price: np.ndarray
    weight: np.ndarray
    fills: np.ndarray
    net: np.ndarray
    reason: np.ndarray
    waited: np.ndarray

    @property
    def n_trips(self) -> int:
        """The number of round trips."""
        return len(self.model)


def round_trips(result: RankBacktest) -> RoundTrips:
    """The round trips of all portfolios. At the end of the data every position is closed, so that none is left open."""
    fills, costs = result.fills, result.rules.fills
    order = np.lexsort((fills.symbol, fills.portfolio))  # stable: fills of a symbol stay in time
    model, symbol, shares, after, price = (
        getattr(fills, name)[order] for name in ("portfolio", "symbol", "shares", "after", "price")
    )
    n = len(order)
    first = np.ones(n, bool)
    first[1:] = (model[1:] != model[:-1]) | (symbol[1:] != symbol[:-1]) | (after[:-1] == 0)
    trip, begin = np.cumsum(first) - 1, np.flatnonzero(first)
    last = np.append(begin[1:], n)[: len(begin)] - 1
    side = np.sign(shares[begin]).astype(np.int8)
    larger = np.sign(shares) == side[trip]
    filled = np.abs(shares) * price * (1 + np.sign(shares) * costs.slip)

    def total(values: np.ndarray, where: np.ndarray) -> np.ndarray:
        sums: np.ndarray = np.bincount(trip[where], values[where], len(begin))
        return sums

    paid, got = total(filled, larger), total(filled, ~larger)
    sizes = [total(np.abs(shares), where) for where in (larger, ~larger)]
    values = [total(np.abs(shares) * price, where) for where in (larger, ~larger)]
    entry_price, exit_price = (
        value / np.where(size > 0, size, np.nan) for value, size in zip(values, sizes, strict=True)
    )
    return RoundTrips(
        model=model[begin], symbol=symbol[begin], side=side, decided=fills.decided[order][begin],
        entry=fills.date[order][begin], exit=fills.date[order][last], entry_price=entry_price, exit_price=exit_price,
        weight=fills.weight[order][begin], fills=last - begin + 1,
        net=(side * (got - paid) - costs.commission * (got + paid)) / np.where(paid > 0, paid, np.nan),
        reason=fills.reason[order][last], waited=fills.waited[order][last],
    )  # fmt: skip


def capacity(result: RankBacktest) -> tuple[np.ndarray, np.ndarray]:
    """Median and 10th percentile of the capacities of each portfolio's fills, float64 (n_models,), in money.

    A fill's capacity is the equity at which it would be `volume_share` of the median dollar volume of the symbol's last
    20 bars up to the decision: volume_share * dollar volume / traded share of the equity. One fill in ten has a
    capacity below the 10th percentile. Closings at the end of the data do not count; NaN without known volumes.
    """
    fills, n_models = result.fills, len(result.every)
    volume = result.bars.dollar_volume[fills.decided, fills.symbol]
    weight = fills.weight
    known = (fills.reason == REBALANCE) & ~np.isnan(volume) & (weight > 0)
    money = result.rules.volume_share * volume[known] / weight[known]
    of = fills.portfolio[known]
    measures = np.full((2, n_models), np.nan)
    for model in np.unique(of):
        measures[:, model] = np.quantile(money[of == model], (0.5, 0.1))
    return measures[0], measures[1]


def trips_table(result: RankBacktest, trips: RoundTrips) -> pyarrow.Table:
    """A row for each round trip, with the columns of `tables.trades_table`, the weight and the number of fills.

    call_time is that of the decision that opened it.
    """
    import pyarrow as pa

    titles = [title_of(result.source, m) for m in range(len(result.every))]
    panel, times = result.panel, result.bars.times
    columns = {
        "model": _words(trips.model, [title["model"] for title in titles]),
        "label": _words(trips.model, [title["label"] for title in titles]),
        "sector": _words(panel.group_of_symbol[trips.symbol], panel.groups),
        "symbol": _words(trips.symbol, panel.symbols),
        "side": _words(trips.side < 0, ("long", "short")),
        "call_time": _times(times[trips.decided]),
        "entry_time": _times(times[trips.entry]),
        "entry_price": pa.array(trips.entry_price),
        "exit_time": _times(times[trips.exit]),
        "exit_price": pa.array(trips.exit_price),
        "reason": _words(trips.reason, REASONS),
        "weight": pa.array(trips.weight),
        "fills": pa.array(trips.fills),
        "net_return": pa.array(trips.net),
        "exit_waited": pa.array(trips.waited),
    }
    return pa.table(columns)
