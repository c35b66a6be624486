"""Bars: the rows of all tables as arrays before validation, and the selection of timeframe and sectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.data import adjust, bar_columns, columns, file_symbols
from gpupipe.data.errors import DataError, printable
from gpupipe.data.report import Finding, time_text
from gpupipe.data.sources import RawTable
from gpupipe.data.symbol_sectors import case_findings, sector_fields
from gpupipe.data.time_column import Times
from gpupipe.data.time_limits import UNKNOWN_TIME
from gpupipe.runtime.device import device_of

PRICES = ("open", "high", "low", "close")
_LARGEST_OFFSET_S = 15 * 3_600  # of a time zone from UTC


@dataclass(frozen=True)
class Bars:
    """Rows in the order of reading, on one device, not yet validated.

    symbol: int32 (n,), position in `names`, or -1 if unknown.  names: symbols, sorted.  time_ns: int64 (n,), UTC
    nanoseconds since 1970, `time_column.UNKNOWN_TIME` if unknown.  open, high, low, close, volume: float32 (n,), NaN if
    unknown.  sectors: the sector of each name, "" if it has none.  row: int64 (n,), row number among all rows read, or
    None if that is 0, 1, 2, ...  local_ns: int64 (n,), the times on the exchange's wall clock, or None if that is UTC.
    slugs: of `sectors.distinct`, for the names that the data give.
    notes, findings: tuples of texts and of Finding, on how the columns, symbols and sectors were read.

    >>> prices = {name: np.float32([10, 11, 20]) for name in ("open", "high", "low", "close", "volume")}
    >>> day_ns = 86_400 * 10**9
    >>> bars = Bars(np.int32([0, 0, 1]), ("A", "B"), np.array([0, 1, 0]) * day_ns, **prices, sectors=("energy", ""))
    >>> bars.take(bars.symbol == 1).close
    array([20.], dtype=float32)
    """

    symbol: Any
    names: tuple[str, ...]
    time_ns: Any
    open: Any
    high: Any
    low: Any
    close: Any
    volume: Any
    sectors: tuple[str, ...]
    row: Any = None
    local_ns: Any = None
    slugs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    def take(self, keep: Any) -> Bars:
        """Return the rows where `keep`, bool (n,), is true."""
        rows = device_of(keep).xp.flatnonzero(keep)
        return self.reordered(rows)

    def reordered(self, rows: Any) -> Bars:
        """Return the rows with these numbers, int64 (n,), in that order."""
        arrays = {name: getattr(self, name)[rows] for name in ("symbol", "time_ns", *PRICES, "volume")}
        return dataclasses.replace(
            self,
            **arrays,
            row=rows if self.row is None else self.row[rows],
            local_ns=None if self.local_ns is None else self.local_ns[rows],
        )


def from_tables(
    tables: Sequence[RawTable], sector_map: Mapping[str, str] | None, timeframe: str | None, *, adjusted: bool
) -> Bars:
    """Concatenate all tables on the host and resolve the sector of each symbol.

    sector_map: `{symbol: sector}`, has precedence over a sector column.  timeframe: which bars to select; None if the
    data hold one timeframe only.  adjusted: scale prices by adj_close / close, and volumes by its splits (`adjust`).

    Raises DataError for several timeframes and no choice, a timeframe that the data do not hold, two sectors of one
    symbol, and a missing adj_close.
    """
    collected: dict[str, list[np.ndarray]] = {"time_ns": []}
    for table in tables:
        for meaning in table.columns:
            columns.require_utf8(table.column(meaning), _label(table, meaning))
    codes = [_codes(table, "symbol") for table in tables]
    read = [bar_columns.read_times(table, code) for table, (code, _) in zip(tables, codes, strict=True)]
    parsed = [_with_clock(table, table_times) for table, (table_times, _) in zip(tables, read, strict=True)]
    tables, named = file_symbols.resolve(tables, parsed, {name.strip() for name in sector_map or {}})
    codes = [_codes(table, "symbol") if table.path_names else code for table, code in zip(tables, codes, strict=True)]
    notes = [*named.notes, *(note for _, found in read for note in found)]
    for table, table_times in zip(tables, parsed, strict=True):
        collected["time_ns"].append(table_times.time_ns)
        if any(others.local_ns is not None for others in parsed):
            collected.setdefault("local_ns", []).append(table_times.clock_ns)
        values, found = _values(table, adjusted=adjusted)
        notes += found
        for name, array in values.items():
            collected.setdefault(name, []).append(array)
    symbol, names = columns.concatenate_codes(codes)
    arrays: dict[str, Any] = {
        name: parts[0] if len(parts) == 1 else np.concatenate(parts) for name, parts in collected.items()
    }
    if adjusted:
        arrays |= _adjusted(tables, symbol, names, arrays)
        notes += arrays.pop("notes")
    sectors = _symbol_sectors(tables, symbol, names, sector_map)
    notes += sectors.pop("notes")
    bars = Bars(symbol=symbol, names=names, **sectors, **arrays, notes=tuple(dict.fromkeys(notes)))
    findings = (*named.findings, *case_findings(symbol, names), *_other_units(bars, parsed))
    bars = dataclasses.replace(bars, findings=findings)
    return _select_timeframe(bars, tables, timeframe)


def _other_units(bars: Bars, parsed: Sequence[Times]) -> tuple[Finding, ...]:
    """Findings on times in another unit than most of their column. parsed: the times of each table, in order."""
    rows: dict[str, list[np.ndarray]] = {}
    start = 0
    for times in parsed:
        if len(times.other_unit):
            rows.setdefault(times.units, []).append(times.other_unit + start)
        start += len(times.time_ns)
    return tuple(_other_unit(bars, units, np.concatenate(parts)) for units, parts in rows.items())


def _other_unit(bars: Bars, units: str, rows: np.ndarray) -> Finding:
    symbol = bars.symbol[rows]
    name = bars.names[symbol[0]] if symbol[0] >= 0 else "?"
    example = printable(f"{name} {time_text(int(bars.time_ns[rows[0]]))}")
    return Finding(f"times in {units}", "repaired", len(rows), len(np.unique(symbol[symbol >= 0])), example)


def _with_clock(table: RawTable, times: Times) -> Times:
    """The times, with the clock of a column utc_offset_s, as the files of a bar store have it."""
    if "utc_offset_s" not in table.columns:
        return times
    offset_s = columns.floats(table.column("utc_offset_s"), _label(table, "utc_offset_s"), np.float64)
    known = (np.abs(offset_s) <= _LARGEST_OFFSET_S) & (times.time_ns != UNKNOWN_TIME)
    local_ns = times.time_ns + np.where(known, offset_s, 0).astype(np.int64) * 10**9
    return dataclasses.replace(times, local_ns=local_ns)


def _label(table: RawTable, meaning: str) -> str:
    return f"{table.origin}: column {table.columns[meaning]!r}"


def _codes(table: RawTable, meaning: str) -> tuple[np.ndarray, tuple[str, ...]]:
    if meaning in table.columns:
        return columns.encode_names(table.column(meaning), _label(table, meaning))
    return columns.encode_constant(table.constants.get(meaning), len(table))


def _any_has(tables: Sequence[RawTable], meaning: str) -> bool:
    """Whether any table has the meaning as a column or as a constant."""
    return any(meaning in table.columns or table.constants.get(meaning) is not None for table in tables)


def _values(table: RawTable, *, adjusted: bool) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """`(prices and volume, notes)`: float32, or float64 and with adj_close if they are still to be adjusted."""
    if adjusted and "adj_close" not in table.columns:
        raise DataError(f"{table.origin}: adjusted prices were requested, but there is no column for adj_close")
    dtype, names = (np.float64, (*PRICES, "adj_close")) if adjusted else (np.float32, PRICES)
    values = {name: columns.floats(table.column(name), _label(table, name), dtype) for name in names}
    volume, notes = bar_columns.read_volume(table, dtype)
    return {**values, "volume": volume}, notes


def _adjusted(
    tables: Sequence[RawTable], symbol: np.ndarray, names: tuple[str, ...], arrays: dict[str, Any]
) -> dict[str, Any]:
    """The fields of Bars that `adjust.adjust` changes; removes adj_close from the arrays."""
    series, of_series = symbol.astype(np.int64), names
    if _any_has(tables, "timeframe"):
        code, timeframes = columns.concatenate_codes([_codes(table, "timeframe") for table in tables])
        series = np.where(symbol < 0, -1, series * (len(timeframes) + 1) + code + 1)
        of_series = tuple(name for name in names for _ in range(len(timeframes) + 1))
    adjusted = adjust.adjust(series, arrays["time_ns"], arrays, of_series)
    del arrays["adj_close"]
    return {name: getattr(adjusted, name) for name in (*PRICES, "volume", "notes")}


def _select_timeframe(bars: Bars, tables: Sequence[RawTable], timeframe: str | None) -> Bars:
    if not _any_has(tables, "timeframe") and (timeframe is None or _most_are_apart(bars, timeframe)):
        return bars
    code, names = columns.concatenate_codes([_codes(table, "timeframe") for table in tables])
    n_rows = np.bincount(code + 1, minlength=len(names) + 1)[1:]
    present = [name for name, n in zip(names, n_rows, strict=True) if n]
    if timeframe is None:
        if len(present) > 1:
            raise DataError(f"the data have bars of {', '.join(present)}; choose one with timeframe=...")
        return bars
    if timeframe not in present:
        raise DataError(f"no bars of timeframe {timeframe!r}; the data have {', '.join(present) or 'no timeframes'}")
    selected = code == names.index(timeframe)
    return bars if selected.all() else bars.take(selected)


def _most_are_apart(bars: Bars, timeframe: str) -> bool:
    """Whether most successive bars of a symbol are as far apart as a text such as 1h or 15m says."""
    length_ns = file_symbols.length_of(timeframe)
    known = (bars.symbol >= 0) & (bars.time_ns != UNKNOWN_TIME)
    symbol, time_ns = bars.symbol[known], bars.time_ns[known]
    order = np.lexsort((time_ns, symbol))
    steps = np.diff(time_ns[order])[np.diff(symbol[order]) == 0]
    return length_ns is not None and 2 * int((steps == length_ns).sum()) > len(steps)


def _symbol_sectors(
    tables: Sequence[RawTable], symbol: np.ndarray, names: tuple[str, ...], sector_map: Mapping[str, str] | None
) -> dict[str, Any]:
    """`sector_fields` of all tables."""
    if not _any_has(tables, "sector"):
        symbol = symbol[:0]
        return sector_fields(names, symbol, symbol, (), sector_map)
    code, raw_names = columns.concatenate_codes([_codes(table, "sector") for table in tables])
    first = np.ones(len(symbol), bool)  # first row of each run of equal symbol and sector
    first[1:] = (symbol[1:] != symbol[:-1]) | (code[1:] != code[:-1])
    return sector_fields(names, symbol[first], code[first], raw_names, sector_map)
