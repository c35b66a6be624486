"""Positions from a file: time, position and, where the data hold several, symbol become a path over the bars."""

from __future__ import annotations

import itertools
import os
import pathlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.backtest.position_trades import SIDES, PositionPath
from gpupipe.data import columns
from gpupipe.data.errors import DataError
from gpupipe.data.panel import NS_PER_DAY, Panel
from gpupipe.data.report import counted, time_text
from gpupipe.data.symbol_choice import symbol_named
from gpupipe.data.table_file import read_table
from gpupipe.data.time_column import parse
from gpupipe.data.time_limits import UNKNOWN_TIME

if TYPE_CHECKING:
    import pyarrow

COLUMN = "position"
_STEP_NS, _MOST_STEPS = 900 * 10**9, 56  # quarters of an hour, and how many of them zones differ by: 14 hours


@dataclass(frozen=True)
class PositionRows:
    """A path from a file.

    path: over the bars of the file's symbols, from its first time to its last.  rows: of the file.
    kept: bars between them without a row, which keep the position of the row before.

        >>> import pyarrow as pa
        >>> from gpupipe.data import simulate
        >>> panel = simulate(n_symbols=1, n_bars=5)
        >>> times = pa.array(panel.time_ns[[0, 2, 4]]).cast(pa.timestamp("ns"))
        >>> found = read_positions(pa.table({"time": times, "position": [1, -1, 0]}), panel)
        >>> found.path.positions.tolist(), found.kept
        ([[1, 1, -1, -1, 0]], 2)
    """

    path: PositionPath
    rows: int
    kept: int


@dataclass(frozen=True)
class _Rows:
    """Rows of a file. time_ns: int64, of its bars.  symbol: int64, of the panel.  value: int8.  where: its name."""

    time_ns: np.ndarray
    symbol: np.ndarray
    value: np.ndarray
    where: str = field(repr=False)


def read_positions(source: Any, panel: Panel) -> PositionRows:
    """Read positions for the bars of a panel.

    source: a Parquet, CSV(.gz) or Arrow file, or a frame, with a column for the time, a column `position` of -1
        (short), 0 (flat) and 1 (long), decided when the bar of that time ended, and a column for the symbol, which may
        be left out where the panel holds one. Names of columns and times are read as those of bars are.

    A bar without a row keeps the position of the symbol's row before it; before its first row a symbol is flat. The
    path goes from the first time of the file to its last; the position of its last bar is not filled, as there is no
    next bar.

    Raises DataError for a file that cannot be read, a time that is unknown or of no bar (with the time zone that the
    times may have), two rows of one symbol and time, another position, a symbol that the panel lacks, and a file
    without any time among the bars.
    """
    table, where = read_table(source)
    rows = _rows(table, where, panel)
    kept = np.unique(rows.symbol)
    row = _row_of(rows, panel)
    return _path(rows, row, kept, panel, source)


def _rows(table: pyarrow.Table, where: str, panel: Panel) -> _Rows:
    """The rows of a table, each value checked by itself."""
    matches = columns.find(table.column_names, ("time",), where)
    named = [name for name in table.column_names if columns.spelling(name) == COLUMN]
    if len(named) != 1:
        shown = ", ".join(map(repr, table.column_names[:10]))
        raise DataError(f"{where}: expected one column {COLUMN!r} of -1, 0 and 1, found columns {shown}")
    position = columns.floats(table[named[0]], f"{where}: column {named[0]!r}", np.float64)
    wrong = np.flatnonzero(~np.isin(position, SIDES))
    if len(wrong):
        first = columns.shown(table[named[0]][int(wrong[0])])
        raise DataError(
            f"{where}: {counted(len(wrong), 'position')} other than -1 (short), 0 (flat) and 1 (long); the first is "
            f"{first} in row {wrong[0] + 1}"
        )
    time_ns = _times(table[matches["time"]], f"{where}: column {matches['time']!r}", panel)
    return _Rows(time_ns, _symbols(table, matches.get("symbol"), where, panel), position.astype(np.int8), where)


def _times(column: pyarrow.ChunkedArray, where: str, panel: Panel) -> np.ndarray:
    """int64 (n,): times as the panel's bars have them; of daily bars, dates on the clock that the column gives."""
    times = parse(column, where)
    unknown = np.flatnonzero(times.time_ns == UNKNOWN_TIME)
    if len(unknown):
        first = columns.shown(columns.decoded(column)[int(unknown[0])])
        raise DataError(f"{where}: {counted(len(unknown), 'time')} cannot be read; the first is {first}")
    if len(times.other_unit):
        raise DataError(f"{where}: numbers of two units ({times.units}); write times as 2024-01-31 09:30")
    dates = not bool((panel.time_ns % NS_PER_DAY).any()) and not (times.clock_ns % NS_PER_DAY).any()
    return times.clock_ns if dates else times.time_ns


def _symbols(table: pyarrow.Table, column: str | None, where: str, panel: Panel) -> np.ndarray:
    """int64 (n,): the panel's number of each row's symbol."""
    if column is None:
        if panel.n_symbols > 1:
            raise DataError(f"{where}: no column symbol, and the data hold {counted(panel.n_symbols, 'symbol')}")
        return np.zeros(table.num_rows, np.int64)
    code, names = columns.encode_names(table[column], f"{where}: column {column!r}")
    if (code < 0).any():
        raise DataError(f"{where}: row {int(np.argmax(code < 0)) + 1} has no symbol")
    try:
        numbers = [panel.symbols.index(symbol_named(name, panel.symbols)) for name in names]
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    return np.array(numbers, np.int64)[code]


def _row_of(rows: _Rows, panel: Panel) -> np.ndarray:
    """int64 (n,): the panel's row of each row of the file; DataError where there is none, or two for one."""
    time_ns, offsets = panel.device.to_host(panel.time_ns), panel.device.to_host(panel.offsets)
    row = _found(time_ns, offsets, rows.symbol, rows.time_ns)
    missing = np.flatnonzero(row < 0)
    if len(missing) == len(row):
        first, last = (time_text(t) for t in (rows.time_ns.min(), rows.time_ns.max()))
        bars = " to ".join(time_text(int(t)) for t in (time_ns.min(), time_ns.max()))
        if rows.time_ns.max() < time_ns.min() or rows.time_ns.min() > time_ns.max():
            raise DataError(f"{rows.where}: no overlap: positions from {first} to {last}, bars from {bars}")
    if len(missing):
        symbol, at = panel.symbols[rows.symbol[missing[0]]], time_text(rows.time_ns[missing[0]])
        raise DataError(
            f"{rows.where}: {len(missing):,} of {len(row):,} times are of no bar; the first is {at} of {symbol}"
            f"{_zone_sentence(rows, panel, offsets, time_ns, len(missing))}"
        )
    order = np.argsort(row, kind="stable")
    twice = np.flatnonzero(row[order][1:] == row[order][:-1])
    if len(twice):
        at = order[twice[0]]
        raise DataError(
            f"{rows.where}: {counted(len(twice), 'row')} repeat the symbol and time of another one; the first is "
            f"{time_text(rows.time_ns[at])} of {panel.symbols[rows.symbol[at]]}"
        )
    return row


def _found(bar_ns: np.ndarray, offsets: np.ndarray, symbol: np.ndarray, time_ns: np.ndarray) -> np.ndarray:
    """int64 (n,): the row of the bar of each symbol and time, -1 where there is none.  bar_ns: rising in a symbol."""
    row = np.full(len(time_ns), -1, np.int64)
    for k, (begin, end) in enumerate(itertools.pairwise(offsets.tolist())):
        of_symbol = np.flatnonzero(symbol == k)
        if not len(of_symbol) or begin == end:
            continue
        at = np.minimum(begin + np.searchsorted(bar_ns[begin:end], time_ns[of_symbol]), end - 1)
        row[of_symbol] = np.where(bar_ns[at] == time_ns[of_symbol], at, -1)
    return row


def _zone_sentence(rows: _Rows, panel: Panel, offsets: np.ndarray, bar_ns: np.ndarray, n_missing: int) -> str:
    """The end of the sentence on times of no bar: the shift under which nearly all are bars', or "" without one."""
    few = n_missing // 10

    def missing(time_ns: np.ndarray) -> int:
        return int((_found(bar_ns, offsets, rows.symbol, time_ns) < 0).sum())

    if panel.local_ns is not None:
        clock = panel.device.to_host(panel.local_ns)
        if int((~np.isin(rows.time_ns, clock)).sum()) <= few:
            return "; they are on the wall clock of the exchange: write them with its offset from UTC, or in UTC"
    for step in sorted(range(-_MOST_STEPS, _MOST_STEPS + 1), key=abs):
        if step and missing(rows.time_ns + step * _STEP_NS) <= few:
            hours = abs(step) * _STEP_NS / 3.6e12
            way = "later" if step > 0 else "earlier"
            return f"; {hours:g} hours {way} they would be: are they in another time zone? The bars are in UTC"
    return ""


def _path(rows: _Rows, row: np.ndarray, symbols: np.ndarray, panel: Panel, source: Any) -> PositionRows:
    """The path over the bars of some symbols, numbers of the panel's, from the first time of the file to the last."""
    to_host = panel.device.to_host
    since, until = int(rows.time_ns.min()), int(rows.time_ns.max()) + 1
    time_ns, offsets = to_host(panel.time_ns), to_host(panel.offsets)
    position, given = np.zeros(panel.n_rows, np.int8), np.zeros(panel.n_rows, bool)
    position[row], given[row] = rows.value, True
    inside = (time_ns >= since) & (time_ns < until)
    n_kept = 0
    for symbol in symbols:
        bars = slice(offsets[symbol], offsets[symbol + 1])
        last = np.maximum.accumulate(np.where(given[bars], np.arange(offsets[symbol], offsets[symbol + 1]), -1))
        position[bars] = np.where(last >= 0, position[last], 0)
        n_kept += int((~given[bars] & inside[bars] & (last >= 0)).sum())
    keep = np.isin(np.arange(panel.n_symbols), symbols)
    chosen = position[np.repeat(keep, np.diff(offsets))]
    named = isinstance(source, (str, os.PathLike))
    where = pathlib.Path(source).name if named else rows.where
    name = where.partition(".")[0] if named else COLUMN
    chosen_bars = panel.where(keep.tolist())
    path = PositionPath(panel.device.asarray(chosen[None]), (name,), chosen_bars, since, until, where)
    return PositionRows(path, len(row), n_kept)
