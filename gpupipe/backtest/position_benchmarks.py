"""Random entries for position trades: as many trades, of the same sides and lengths, at random places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.backtest.benchmarks import N_DRAWS, RandomEntries
from gpupipe.backtest.position_trades import PositionBacktest
from gpupipe.evaluation.block_bootstrap import block_length
from gpupipe.targets.trade_return import LONG

_AT_ONCE = 1 << 21  # trades that are placed at the same time: bounds the memory


def random_places(
    lengths: np.ndarray, n_rows: int, n_draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Random places of trades that do not overlap: int64 (n_draws, n_trades) each, entry rows and which trade it is.

    lengths: int64 (n_trades,), rows from the entry to the exit; an exit and the next entry may share a row.
    n_rows: of the symbol; fills are possible from row 1 on. Trades come in random order, and as many rows without a
    position as the path has are put before, between and after them at random.
    Raises ValueError where the trades do not fit.

        >>> rows, trade = random_places(np.array([3, 1]), n_rows=8, n_draws=2, rng=np.random.default_rng(1))
        >>> rows.tolist(), trade.tolist()
        ([[3, 6], [1, 4]], [[0, 1], [0, 1]])
    """
    free = n_rows - 2 - int(lengths.sum())
    if free < 0:
        raise ValueError(f"trades over {int(lengths.sum())} rows do not fit into {n_rows} rows")
    trade = rng.permuted(np.broadcast_to(np.arange(len(lengths)), (n_draws, len(lengths))), axis=1)
    before = np.sort(rng.integers(0, free + 1, trade.shape), axis=1)
    taken = np.cumsum(lengths[trade], axis=1) - lengths[trade]
    return 1 + before + taken, trade


@dataclass(frozen=True)
class _Fills:
    """The fills of one symbol, on the host.

    price: float32 (n_rows,), of a fill in each row.  slip: float64 (n_rows,).
    next_fill: int64 (n_rows,), the first row from here on in which a fill is possible; n_rows without one.
    last_row, last_close: of the last known close; -1 without one.
    close: float64 (n_rows,), the last one known in each row; NaN before the first.
    """

    price: np.ndarray
    slip: np.ndarray
    next_fill: np.ndarray
    last_row: int
    last_close: float
    close: np.ndarray

    @classmethod
    def of(cls, result: PositionBacktest, rows: slice) -> _Fills:
        """The fills of the symbol of some rows."""
        panel, to_host = result.path.panel, result.path.panel.device.to_host
        close = to_host(panel.close[rows])
        price = close if result.rules.at_close else to_host(panel.open[rows])
        possible = (price > 0) & np.isfinite(price) & (to_host(result.halted[rows]) == 0)
        row = np.where(possible, np.arange(len(price)), len(price))
        next_fill = np.minimum.accumulate(row[::-1])[::-1]
        known = np.flatnonzero((close > 0) & np.isfinite(close))
        last = int(known[-1]) if len(known) else -1
        before = np.searchsorted(known, np.arange(len(close)), side="right") - 1
        marks = np.where(before >= 0, close[known[before]] if len(known) else np.nan, np.nan).astype(np.float64)
        return cls(
            price, to_host(result.slip[rows]), next_fill, last, float(close[last]) if last >= 0 else np.nan, marks
        )  # fmt: skip

    def net(self, entry: np.ndarray, leave: np.ndarray, direction: np.ndarray, commission: float) -> np.ndarray:
        """Net returns of trades, NaN without an entry; fills wait as those of a path do, at the end for the last close.

        entry, leave: int64, rows; any shape.  direction: 1 or -1.
        """
        from gpupipe.kernels.account import filled, profit

        n = len(self.price)
        first, last = self.next_fill[entry], self.next_fill[leave]
        known, closed = first < n, last < n
        first, last = np.where(known, first, 0), np.where(closed, last, max(self.last_row, 0))
        got_price = np.where(closed, self.price[last].astype(np.float64), self.last_close)
        paid = filled(self.price[first].astype(np.float64), direction, self.slip[first])
        got = filled(got_price, -direction, self.slip[last])
        return np.where(known, profit(paid, got, direction, commission), np.nan)

    def marked(self, entry: np.ndarray, row: np.ndarray, direction: np.ndarray, commission: float) -> np.ndarray:
        """Returns of open trades at the closes of rows, without the costs of leaving; NaN before the fill.

        entry, row: int64, rows, of one shape.  direction: 1 or -1.
        """
        from gpupipe.kernels.account import filled

        first = self.next_fill[entry]
        known = first <= row
        first = np.where(known, first, 0)
        paid = filled(self.price[first].astype(np.float64), direction, self.slip[first])
        return np.where(known, direction * (self.close[row] / paid - 1) - commission, np.nan)


def random_entries(result: PositionBacktest, seed: int, n_draws: int = N_DRAWS) -> RandomEntries:
    """The trades of every path in `n_draws` draws of random places; equal draws for equal trades.

    A draw keeps the number of trades of each symbol, their sides and their lengths in rows from fill to fill; no two
    overlap. A trade that the end of the data closed leaves at a fill of its last row, in the path as in the draws. A
    fill in a halt waits; an entry that finds none until the end is left out.
    The days of the bars make the blocks that `RandomEntries.of` asks for.
    """
    panel, to_host = result.path.panel, result.path.panel.device.to_host
    n_paths, n_groups = len(result.path.names), len(panel.groups)
    total = np.zeros((n_paths, n_groups, 1 + n_draws))
    known = np.zeros(total.shape, np.int64)
    for path, symbol, at, fills, offset in _by_path_and_symbol(result):
        group = panel.group_of_symbol[symbol]
        first, last, direction = _placed(result, at, offset)
        total[path, group, 0] += np.nansum(fills.net(first, last, direction, result.rules.commission))
        known[path, group, 0] += len(at)
        for drawn in _draws(result, fills, (first, last, direction), (seed, symbol), n_draws):
            here = slice(1 + drawn.draws.start, 1 + drawn.draws.stop)
            total[path, group, here] += np.nansum(drawn.net, axis=1)
            known[path, group, here] += np.isfinite(drawn.net).sum(axis=1)
    n_days = len(np.unique(to_host(panel.session_day)))
    return RandomEntries(total, known, n_days / block_length(n_days, 1))


def random_equity(result: PositionBacktest, path: int, at: np.ndarray, seed: int, n_draws: int = N_DRAWS) -> np.ndarray:
    """float64 (n_draws, len(at)): the equity of each draw of `random_entries` at some times, of 1 at the beginning.

    path: its number.  at: int64, numbers of `result.times`.  The stake is that of the rules, and an open trade is
    marked at the close, as in an account. Of several symbols it is the mean of their accounts.

        >>> from gpupipe.backtest import PositionPath, backtest_positions
        >>> from gpupipe.data import simulate
        >>> panel = simulate(n_symbols=1, n_bars=50)
        >>> path = PositionPath(np.int8([[0, 1, 1] + [0] * 47]), ("mine",), panel, 0, 2**62)
        >>> equity = random_equity(backtest_positions(path), 0, np.array([0, 49]), seed=0, n_draws=3)
        >>> equity.shape, equity[:, 0].tolist(), len(set(equity[:, 1]))
        ((3, 2), [1.0, 1.0, 1.0], 3)
    """
    n_symbols = result.path.panel.n_symbols
    total = np.full((n_draws, len(at)), float(n_symbols))
    for number, symbol, trades, fills, offset in _by_path_and_symbol(result):
        if number != path:
            continue
        time_of_row = result.time_of_row[offset : offset + len(fills.price)]
        row = np.searchsorted(time_of_row, at, side="right") - 1  # -1 before the symbol's first
        placed = _placed(result, trades, offset)
        for drawn in _draws(result, fills, placed, (seed, symbol), n_draws):
            growth = np.maximum(0.0, 1 + result.rules.size * np.nan_to_num(drawn.net))
            equity = np.cumprod(np.insert(growth, 0, 1.0, axis=1), axis=1)
            for k, draw in enumerate(range(drawn.draws.start, drawn.draws.stop)):
                closed = np.searchsorted(drawn.leave[k], row, side="right")
                open_ = np.minimum(closed, len(trades) - 1)
                marked = fills.marked(drawn.entry[k][open_], row, drawn.direction[k][open_], result.rules.commission)
                stands = (closed < len(trades)) & (drawn.entry[k][open_] <= row)
                gain = np.where(stands, result.rules.size * np.nan_to_num(marked), 0.0)
                total[draw] += equity[k, closed] * np.maximum(0.0, 1 + gain) - 1
    return total / max(1, n_symbols)


@dataclass(frozen=True)
class _Drawn:
    """Some draws.  draws: which.  Arrays (draws, n_trades), in the order of time: entry and exit rows, directions 1 or
    -1, and net returns."""

    draws: slice
    entry: np.ndarray
    leave: np.ndarray
    direction: np.ndarray
    net: np.ndarray


def _placed(result: PositionBacktest, at: np.ndarray, offset: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First and last rows of trades within their symbol, and their directions, 1 or -1.  offset: the symbol's row."""
    to_host, trades = result.path.panel.device.to_host, result.trades
    first, last = (to_host(rows[at]) - offset for rows in (trades.first_row, trades.last_row))
    return first, last, np.where(to_host(trades.side[at]) == LONG, 1, -1)


def _draws(
    result: PositionBacktest,
    fills: _Fills,
    placed: tuple[np.ndarray, np.ndarray, np.ndarray],
    seeds: tuple[int, int],
    n_draws: int,
) -> Iterator[_Drawn]:
    """The draws, some after the other.

    placed: of `_placed`.  seeds: of the run, and the symbol.
    """
    first, last, direction = placed
    lengths = last - first
    rng = np.random.default_rng([seeds[0], 8, seeds[1]])
    for begin in range(0, n_draws, step := max(1, _AT_ONCE // len(lengths))):
        draws = slice(begin, min(begin + step, n_draws))
        entry, trade = random_places(lengths, len(fills.price), draws.stop - draws.start, rng)
        leave = entry + lengths[trade]
        net = fills.net(entry, leave, direction[trade], result.rules.commission)
        yield _Drawn(draws, entry, leave, direction[trade], net)


def _by_path_and_symbol(result: PositionBacktest) -> Iterator[tuple[int, int, Any, _Fills, int]]:
    """Path, symbol, numbers of its trades, its fills and its first row, for all that have trades."""
    panel, trades, to_host = result.path.panel, result.trades, result.path.panel.device.to_host
    offsets, model = to_host(panel.offsets), to_host(trades.model)
    symbol_of_trade = to_host(panel.symbol_of_row[trades.row])
    for symbol in np.unique(symbol_of_trade).tolist():
        fills = _Fills.of(result, slice(offsets[symbol], offsets[symbol + 1]))
        of_symbol = symbol_of_trade == symbol
        for path in np.unique(model[of_symbol]).tolist():
            yield path, symbol, np.flatnonzero(of_symbol & (model == path)), fills, int(offsets[symbol])
