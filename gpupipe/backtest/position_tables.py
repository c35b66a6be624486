"""Tables of a backtest of positions: trades and equity of every path, as Arrow tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.backtest.choices import BUY_AND_HOLD
from gpupipe.backtest.engine import REASONS
from gpupipe.backtest.position_measures import portfolios
from gpupipe.backtest.position_trades import PositionBacktest
from gpupipe.backtest.tables import _times, _words
from gpupipe.targets.trade_return import SHORT

if TYPE_CHECKING:
    import pyarrow


def trades_table(result: PositionBacktest) -> pyarrow.Table:
    """A row for each trade: path, symbol, side, decision, entry, exit, reason and net return.

    decision_time: of the bar from which on the side was decided.  entry_time, exit_time: of the bars of the fills.
    exit_price of a trade that the end of the data closed: the last close, which the account still holds.
    """
    import pyarrow as pa

    panel, trades, host = result.path.panel, result.trades, result.path.panel.device.to_host
    row, time = host(trades.row), host(panel.time_ns)
    return pa.table({
        "path": _words(host(trades.model), result.path.names),
        "symbol": _words(host(panel.symbol_of_row)[row], panel.symbols),
        "side": _words(host(trades.side) == SHORT, ("long", "short")),
        "decision_time": _times(time[row]),
        "entry_time": _times(time[host(trades.first_row)]),
        "entry_price": pa.array(host(trades.entry_price)),
        "exit_time": _times(time[host(trades.last_row)]),
        "exit_price": pa.array(host(trades.exit_price)),
        "reason": _words(host(trades.reason), REASONS),
        "net_return": pa.array(host(trades.net)),
        "exit_waited": pa.array(host(trades.waited)),
    })  # fmt: skip


def equity_table(result: PositionBacktest) -> pyarrow.Table:
    """A row for each portfolio, path and time, then for its buy and hold: return, equity, exposure, turnover.

    Equity is 1 before the first fill, marked at closes.  turnover: half of the value of the fills, as a share of the
    equity of the time before.
    """
    import pyarrow as pa

    n = len(result.times)
    titles: list[tuple[str, str]] = []
    parts: list[tuple[np.ndarray, ...]] = []
    for name, groups in portfolios(result):
        for path, path_name in [*enumerate(result.path.names), (None, BUY_AND_HOLD)]:
            equity, (returns, exposure, filled) = result.series(path, groups)
            titles.append((name, path_name))
            parts.append((returns, equity, exposure, filled / 2))
    number = np.repeat(np.arange(len(titles)), n)
    columns: dict[str, Any] = {
        "group": _words(number, [group for group, _ in titles]),
        "path": _words(number, [path for _, path in titles]),
        "time": _times(np.tile(result.times, len(titles))),
    }
    for k, name in enumerate(("return", "equity", "exposure", "turnover")):
        columns[name] = pa.array(np.concatenate([part[k] for part in parts]))
    return pa.table(columns)
