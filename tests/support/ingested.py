"""Shared by the tests of ingest: days of a small market as tables, and the content of a store."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpupipe.data import data_hash, load
from tests.support.panels import random_panel

DAY = 86_400_000_000_000
START = 14_500 * DAY  # 2009-09-13, a Sunday


def market(n_days=40, lengths=4, seed=0) -> pa.Table:
    """Daily bars of S000, S001, ... (technology and energy in turn), on every day from START."""
    panel = random_panel((n_days,) * lengths, seed)
    table = panel.to_arrow()
    return with_column(table, "time", pa.array(panel.time_ns + START).cast(pa.timestamp("ns", "UTC")))


def with_column(table, name, values):
    return table.set_column(table.column_names.index(name), name, values)


def days(table, first, last):
    """The rows of days first <= d < last."""
    day = (table["time"].cast(pa.int64()).to_numpy() - START) // DAY
    return table.filter(pa.array((day >= first) & (day < last)))


def only(table, *symbols):
    return table.filter(pc.is_in(table["symbol"].cast(pa.string()), pa.array(symbols)))


def without(table, *symbols):
    return table.filter(pc.invert(pc.is_in(table["symbol"].cast(pa.string()), pa.array(symbols))))


def scaled(table, symbol, factor, before=10**6, volume=None):
    """Multiply one symbol's prices before a day by factor, and its volumes by `volume` (default: 1 / factor)."""
    day = (table["time"].cast(pa.int64()).to_numpy() - START) // DAY
    chosen = np.array([name == symbol for name in table["symbol"].to_pylist()]) & (day < before)
    for name in ("open", "high", "low", "close", "volume"):
        values = table[name].to_numpy().astype(np.float64)
        values[chosen] *= (1 / factor if volume is None else volume) if name == "volume" else factor
        table = with_column(table, name, pa.array(values.astype(np.float32)))
    return table


def edited(table, symbol, day, **values):
    """Set values of one bar."""
    is_symbol = np.array([name == symbol for name in table["symbol"].to_pylist()])
    is_day = (table["time"].cast(pa.int64()).to_numpy() - START) // DAY == day
    row = np.flatnonzero(is_symbol & is_day)[0]
    for name, value in values.items():
        column = table[name].to_numpy().copy()
        column[row] = value
        table = with_column(table, name, pa.array(column))
    return table


def stored_panel(store):
    """The Panel that the main job reads from a store."""
    return load(str(store), None, "all", "cpu")[0]


def panel_of(table):
    return load(table, None, "all", "cpu")[0]


def same(store, table) -> bool:
    return data_hash(stored_panel(store)) == data_hash(panel_of(table))


def change_of(report, symbol):
    (change,) = [change for change in report.changes if change.symbol == symbol]
    return change


def file_contents(store) -> dict[str, bytes]:
    """The content of every file except the log and the lock."""
    paths = [path for path in store.rglob("*") if path.is_file() and "_log" not in path.parts and path.name != "lock"]
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in paths}
