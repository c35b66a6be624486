"""The table of active signals: at most one for each symbol, kept from scan to scan in an SQLite file."""

from __future__ import annotations

import contextlib
import sqlite3

import numpy as np

from gpupipe.data.panel import Panel
from gpupipe.runtime.errors import UserError
from gpupipe.serving.scan import Scanned

TABLE = """
create table if not exists active_signals (
    symbol text primary key, sector text, status text, side text, model text, horizon integer, threshold real,
    probability real, agreement real, expected_net_return real, uncertainty real, close real, entry_low real,
    entry_high real, stop real, target real, created text, updated text
)
"""
FIELDS = ("sector", "side", "model", "horizon", "threshold", "probability", "agreement",
          "expected_net_return", "uncertainty", "close", "entry_low", "entry_high", "stop", "target")  # fmt: skip


def keep_active(path: str, scanned: Scanned, panel: Panel) -> list[tuple[str, str]]:
    """Update the table active_signals of an SQLite file by a scan; the changes, as (event, symbol).

    A symbol has at most one active signal, its strongest. CREATED: there was none. UPDATED: the same side, a later bar.
    FLIPPED: the other side. EXPIRED: removed. A signal that is not called again is kept until as many bars have come as
    its horizon has, and then expires. The signal of a symbol that stopped trading (Scanned.stale) or left the data
    expires once it is as old. Bars later than the scanned ones do not count. The same scan again changes nothing, and a
    scan of an earlier bar than the stored one leaves it.
    """
    offsets, time_ns = (panel.device.to_host(array) for array in (panel.offsets, panel.time_ns))
    bars = {symbol: time_ns[offsets[k] : offsets[k + 1]] for k, symbol in enumerate(panel.symbols)}
    try:
        return _keep_active(path, scanned, bars)
    except sqlite3.Error as error:
        raise UserError(
            f"--active {path}: {error}: name an SQLite file of gpupipe scan, or a new file in a folder that can be "
            "written"
        ) from None


def _keep_active(path: str, scanned: Scanned, bars: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    events: list[tuple[str, str]] = []
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(TABLE)
        _add_missing_columns(database)
        rows = database.execute("select symbol, side, updated, created, horizon from active_signals")
        stored = {symbol: values for symbol, *values in rows}
        called = {signal.symbol: signal for signal in scanned.top(len(scanned.signals))}
        for symbol, signal in called.items():
            side, updated, created, _ = stored.get(symbol, ("", "", signal.time, 0))
            if updated >= signal.time:
                continue
            event = "CREATED" if not side else "UPDATED" if side == signal.side else "FLIPPED"
            values = [None if value != value else value for value in (getattr(signal, name) for name in FIELDS)]
            begun = created if event == "UPDATED" else signal.time
            row = (symbol, *values, event, begun, signal.time)
            names, marks = ("symbol", *FIELDS, "status", "created", "updated"), ", ".join("?" * len(row))
            database.execute(f"insert or replace into active_signals ({', '.join(names)}) values ({marks})", row)
            events.append((event, symbol))
        for symbol, (_, updated, _, horizon) in stored.items():
            if symbol in called:
                continue
            after = int(np.datetime64(updated, "ns").astype(np.int64)) + 10**9 - 1  # `updated` is to the second
            time_ns = bars.get(symbol, np.zeros(0, np.int64))
            n_since = int(((time_ns > after) & (time_ns <= scanned.until_ns)).sum())
            gone = (symbol in scanned.stale or symbol not in bars) and after < scanned.since_ns
            if gone or n_since >= horizon:
                database.execute("delete from active_signals where symbol = ?", (symbol,))
                events.append(("EXPIRED", symbol))
    return events


def _add_missing_columns(database: sqlite3.Connection) -> None:
    """Add the columns that a file of an older version lacks; those that only it has stay, and are null from now on."""
    there = {row[1] for row in database.execute("pragma table_info(active_signals)")}
    for name in FIELDS:
        if name not in there:
            database.execute(f"alter table active_signals add column {name} real")
