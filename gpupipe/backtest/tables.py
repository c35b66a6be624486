"""Tables of a backtest: trades and equity curves of every portfolio, as Arrow tables and as Parquet."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.backtest import benchmarks, statistics
from gpupipe.backtest.choices import BUY_AND_HOLD
from gpupipe.backtest.engine import REASONS, Backtest, title_of
from gpupipe.backtest.sources import OutOfSample
from gpupipe.targets.trade_return import SHORT

if TYPE_CHECKING:
    import pyarrow

ALL, HOLD = "all", BUY_AND_HOLD  # names of the portfolio of all sectors, and of the benchmark


def portfolios(source: OutOfSample) -> list[tuple[str, Any]]:
    """Name and positions of the sectors of every portfolio: all sectors that have models, then each alone."""
    has_models: Any = source.has_model.any(axis=0)
    single = [(name, np.array([k])) for k, name in enumerate(source.panel.groups) if has_models[k]]
    return [(ALL, np.flatnonzero(has_models)), *single] if len(single) > 1 else single


def trades_table(result: Backtest) -> pyarrow.Table:
    """A row for each trade: its model, sector and symbol, its side, its entry and exit, the reason, the net return."""
    import pyarrow as pa

    panel, trades, host = result.panel, result.trades, result.panel.device.to_host
    model, row = host(trades.model), host(trades.row)
    titles = [title_of(result.source, m) for m in range(len(result.source.families))]
    time, symbol = host(panel.time_ns), host(panel.symbol_of_row)[row]
    columns = {
        "model": _words(model, [title["model"] for title in titles]),
        "label": _words(model, [title["label"] for title in titles]),
        "sector": _words(panel.group_of_symbol[symbol], panel.groups),
        "symbol": _words(symbol, panel.symbols),
        "side": _words(host(trades.side) == SHORT, ("long", "short")),
        "call_time": _times(time[row]),
        "entry_time": _times(time[host(trades.first_row)]),
        "entry_price": pa.array(host(trades.entry_price)),
        "exit_time": _times(time[host(trades.last_row)]),
        "exit_price": pa.array(host(trades.exit_price)),
        "reason": _words(host(trades.reason), REASONS),
        "net_return": pa.array(host(trades.net)),
        "exit_waited": pa.array(host(trades.waited)),
    }
    return pa.table(columns)


def equity_table(result: Backtest) -> pyarrow.Table:
    """A row for each portfolio and date: return, equity (1 on the first date), exposure, positions.

    Each model's portfolios are followed by buy and hold.
    """
    import pyarrow as pa

    source, n = result.source, len(result.times)
    held = benchmarks.buy_and_hold(result)
    titles: list[tuple[str, str, str]] = []
    parts: list[list[np.ndarray]] = []
    for name, sectors in portfolios(source):
        for m in range(len(source.families)):
            if not source.has_model[m, sectors].any():
                continue
            returns, exposure, _ = result.series(m, sectors)
            n_open = result.days[m, sectors, 2].sum(axis=0)
            parts.append([returns, statistics.equity_curve(returns), exposure, n_open])
            titles.append((source.families[m], title_of(source, m)["label"], name))
        returns = held[-1 if name == ALL else sectors[0]]
        listed = result.listed[sectors].sum(axis=0)
        parts.append([returns, statistics.equity_curve(returns), np.ones(n), listed.astype(float)])
        titles.append((HOLD, "", name))
    names = ("model", "label", "sector")
    columns: dict[str, Any] = {}
    for k, name in enumerate(names):
        columns[name] = _words(np.repeat(np.arange(len(titles)), n), [title[k] for title in titles])
    columns["time"] = _times(np.tile(result.times, len(titles)))
    for k, name in enumerate(("return", "equity", "exposure")):
        columns[name] = pa.array(np.concatenate([part[k] for part in parts]))
    columns["positions"] = pa.array(np.concatenate([part[3] for part in parts]).astype(np.int64))
    return pa.table(columns)


def _words(codes: Any, words: Sequence[str]) -> Any:
    """words[codes] as a dictionary without duplicates: with duplicates the bytes of a Parquet file would vary."""
    import pyarrow as pa

    place = {word: k for k, word in enumerate(dict.fromkeys(words))}
    at = np.array([place[word] for word in words], np.int32)[np.asarray(codes).astype(np.int64)]
    return pa.DictionaryArray.from_arrays(pa.array(at), pa.array(list(place), pa.string()))


def _times(time_ns: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.array(time_ns).cast(pa.timestamp("ns", "UTC"))


def table_of(rows: list[dict[str, Any]]) -> pyarrow.Table:
    """Rows as a table; a column has null where a row lacks its name."""
    import pyarrow as pa

    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})


def parquet(table: pyarrow.Table) -> bytes:
    """The content of a Parquet file with the table."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
