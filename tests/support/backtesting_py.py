"""The rules of gpupipe.backtest in Backtesting.py (the package `backtesting`, AGPL: a peer to measure against alone).

Its engine goes through the bars of one symbol, fills market orders at the next open, looks for a stop before a target,
and fills both at the open where a bar opens beyond them. What it lacks: barriers that are measured from the fill, which
is not known when the order is given, in the very bar of the entry; and an exit at a close by time. Both come by giving
it each bar as three, of its open, of the whole bar, and of its close: an order of a close is filled at the next open,
its barriers are set at that open, and an exit by time is ordered after the whole bar and filled at its close. Barrier
prices are those of gpupipe.targets.barriers. What cannot be made the same: overlapping positions, both barriers in one
bar left at the target, bars with unknown prices, spread and slippage on both fills.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np

from bench.runs import library
from gpupipe.backtest import Backtest, Rules
from gpupipe.backtest.engine import REASONS
from gpupipe.data.panel import Panel
from gpupipe.targets.barriers import barrier_prices

SAME = Rules(side="both", commission_bps=5, spread_bps=0, slippage_bps=0)
PER_BAR = 3
FIELDS = ("row", "last_row", "side", "entry_price", "exit_price", "net")


def engine() -> tuple[Any, str]:
    """The package and its version, without its progress bars, of which there would be one a run."""
    backtesting, name = library("backtesting", "Backtesting.py")
    importlib.import_module("backtesting.backtesting")._tqdm = lambda bars, **how: bars
    return backtesting, name


def run_symbol(backtesting: Any, panel: Panel, symbol: int, call: np.ndarray, horizon: int, threshold: float) -> Any:
    """The trades of one symbol and model: an array (n_trades, 6), of FIELDS; float64.

    call: int8 (n_rows of the symbol,), 1 long, 2 short.  Trades still open at the end are left out.
    """
    import pandas as pd

    first, stop = (int(edge) for edge in panel.offsets[symbol : symbol + 2])
    bars = np.stack([getattr(panel, name)[first:stop].astype(np.float64) for name in ("open", "high", "low", "close")])
    opened, whole, closed = bars[[0, 0, 0, 0]], bars, bars[[3, 3, 3, 3]]
    three = np.stack([opened, whole, closed], axis=2).reshape(4, -1).T
    frame = pd.DataFrame(three, columns=["Open", "High", "Low", "Close"])
    frame.index = pd.date_range("2000-01-01", periods=len(frame), freq="min")

    class Calls(backtesting.Strategy):  # type: ignore[misc, name-defined]
        def init(self) -> None:
            self.called = -1

        def next(self) -> None:
            bar, part = divmod(len(self.data) - 1, PER_BAR)
            if part == 0 and self.trades and self.trades[0].sl is None:
                trade = self.trades[0]
                barriers = barrier_prices(np.float32([trade.entry_price]), threshold)
                above, below = (float(price[0]) for price in barriers)
                trade.sl, trade.tp = (below, above) if trade.is_long else (above, below)
            if part == 1 and self.trades and bar == self.called + horizon:
                self.trades[0].close()
            if part == 2 and not self.trades and call[bar]:
                self.called = bar
                (self.buy if call[bar] == 1 else self.sell)(size=1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trades that are still open at the end
        table = backtesting.Backtest(frame, Calls, cash=1e9, commission=SAME.commission).run()._trades
    side = np.where(table.Size > 0, 1, 2)
    row, last = table.EntryBar.to_numpy() // PER_BAR - 1 + first, table.ExitBar.to_numpy() // PER_BAR + first
    price, left = table.EntryPrice.to_numpy(), table.ExitPrice.to_numpy()
    net = np.where(side == 1, 1, -1) * (left - price) / price - table.Commission.to_numpy() / price
    return np.stack([row, last, side, price, left, net], axis=1).astype(np.float64)


def trades(backtesting: Any, found: Backtest) -> np.ndarray:
    """(n_trades, 1 + 6): model, then FIELDS, of the calls of a backtest of ours; models one by one, then symbols."""
    tables = []
    for m, (h, t) in enumerate(zip(found.source.horizons, found.source.thresholds, strict=True)):
        for symbol in range(found.panel.n_symbols):
            rows = slice(*found.panel.offsets[symbol : symbol + 2])
            table = run_symbol(backtesting, found.panel, symbol, found.calls[m, rows], h, t)
            tables.append(np.column_stack([np.full(len(table), m), table]))
    return np.concatenate(tables)


def ours(found: Backtest) -> np.ndarray:
    """Our own trades in the same form, without those that the end of the data closed."""
    t, ended = found.trades, found.trades.reason != REASONS.index("end of data")
    columns = (t.model, t.row, t.last_row, t.side, t.entry_price, t.exit_price, t.net)
    table = np.stack([column[ended].astype(np.float64) for column in columns], axis=1)
    return table[np.lexsort((table[:, 1], table[:, 0]))]


def same(own: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether two tables hold the same trades: rows, sides and prices as they are, returns to 1e-12."""
    theirs = theirs[np.lexsort((theirs[:, 1], theirs[:, 0]))]
    return (
        own.shape == theirs.shape and bool((own[:, :-1] == theirs[:, :-1]).all())
        and bool((np.abs(own[:, -1] - theirs[:, -1]) < 1e-12).all())
    )  # fmt: skip
