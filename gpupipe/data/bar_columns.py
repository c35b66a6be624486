"""Decide by their values which of several columns give the time and the volume of a bar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.data import columns, text_times, time_column
from gpupipe.data.errors import DataError, printable
from gpupipe.data.number_times import UNITS
from gpupipe.data.panel import NS_PER_DAY
from gpupipe.data.time_choice import Candidate, are_moments, better, is_daily, is_one_a_day, note_on
from gpupipe.data.time_column import Times
from gpupipe.data.time_limits import UNKNOWN_TIME

if TYPE_CHECKING:
    import pyarrow

    from gpupipe.data.sources import RawTable

_CLOCK_SPELLINGS = ("time", "bartime", "opentime", "t")  # beside a column of dates, their digits are times of day
_VAGUE_SPELLINGS = ("day", "t", "ts")  # such a column need not be a time
_LAST_HHMM = 2_400
_LAST_HOUR = 24  # up to here, whole numbers may be hours or minutes
_WRITE_CLOCK = "write times of day as 09:30:00"
_HAS_CLOCK = r"(?i):|[0-9]\s*[ap]\.?m\.?\s*$"
_HAS_DATE = r"(?i)[0-9][-/.\s]+[0-9]{1,2}[-/.\s]+[0-9]|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|[年月日]"
_MOST = 0.5
_SECOND_NS = 10**9


def read_times(table: RawTable, symbol: np.ndarray) -> tuple[Times, tuple[str, ...]]:
    """The times of the bars of a table, and notes on how they were found.

    symbol: int32 (n,), a code for each row.  Of several columns:

    - A date and a time of day (09:30, 09:30:00, 930, 93000, 2400) in columns of their own are joined, on the clock of
      the date's zone if it has one.
    - Columns with the same dates: the one that has times of day counts. But of daily bars the date counts if the times
      of day are as many as the moments of requests. If several bars of a date have other times in either column, one
      must be the wall clock of the other, which gives a zone.
    - A time that is not known in the column that counts is taken from another one with the same dates.
    - Columns with different dates: the one that has one row a symbol and date counts, if the other can be no time of
      these bars: it has fewer than half as many dates, or goes back while the bars go on. Such is the time of a
      download. Of intraday bars the column with times of day counts, if its dates are within three days of the others.

    Raises DataError if no column holds times, if columns differ and nothing tells which one is the bar's, or if whole
    numbers beside a date may be hours or minutes.
    """
    names = columns.of_meaning(table.columns, "time")
    if len(names) == 1:
        return time_column.parse(table.table[names[0]], _label(table, names[0])), ()
    candidates, notes = _candidates(table, names, symbol)
    best = candidates[0]
    for other in candidates[1:]:
        best, note = better(best, other, symbol, table.origin)
        notes += (note,) if note else ()
    return best.times, notes


def read_volume(table: RawTable, dtype: Any = np.float32) -> tuple[np.ndarray, tuple[str, ...]]:
    """The volumes of a table, (n,) of a dtype, and a note if they are not from the column of the first spelling.

    A column in which no volume is above zero gives way to another one with volumes.
    """
    names = columns.of_meaning(table.columns, "volume")
    first = columns.floats(table.table[names[0]], _label(table, names[0]), dtype)
    if len(names) == 1 or bool((first > 0).any()):
        return first, ()
    for name in names[1:]:
        volume = columns.floats(table.table[name], _label(table, name), dtype)
        if bool((volume > 0).any()):
            return volume, (f"column {names[0]!r} holds no volume above zero: {name!r} was taken",)
    return first, ()


def _label(table: RawTable, name: str) -> str:
    return f"{table.origin}: column {name!r}"


def _candidates(table: RawTable, names: list[str], symbol: np.ndarray) -> tuple[list[Candidate], tuple[str, ...]]:
    """`(the columns that hold times, a date and a time of day joined; notes on those that hold none)`."""
    clocks = {name: clock for name in names if (clock := _times_of_day(table.table[name])) is not None}
    parsed: dict[str, Candidate] = {}
    problems: dict[str, DataError] = {}
    dated = [name for name in names if name not in clocks] or names[:1]
    for name in sorted(dated, key=lambda name: columns.spelling(name) in _CLOCK_SPELLINGS):  # columns of dates first
        try:
            parsed[name] = _readable(table, name)
        except DataError as error:
            problems[name] = error
    dates = next((name for name, item in parsed.items() if not item.has_clock and item.known.any()), None)
    unclear: set[str] = set()
    if dates is not None and not clocks:
        clocks, unclear = _digit_clocks(table, names, dates, parsed, symbol)
    for name, problem in problems.items():
        is_vague = columns.spelling(name) in _VAGUE_SPELLINGS and parsed
        if name not in clocks and name not in unclear and not is_vague:
            raise _no_clock(table, name, dates) or problem
    candidates = {
        name: item for name, item in parsed.items() if item.known.any() and name not in clocks and name not in unclear
    }
    if not candidates:  # all are null
        return [next(iter(parsed.values()))], ()
    unused = [name for name in names if name not in candidates and (name not in clocks or dates is None)]
    notes = tuple(printable(f"column {name!r} holds no times, and was not used") for name in unused)
    if clocks and dates is not None:
        clock_name, clock = next(iter(clocks.items()))
        date = candidates.pop(dates)
        zone = getattr(table.table[dates].type, "tz", None)
        times = _joined(date.times, clock, zone)
        joined = Candidate(f"{dates!r} and {clock_name!r}", times, times.local_ns is not None)
        if are_moments(joined, date, symbol):
            joined, notes = date, (*notes, note_on(date, f"{clock_name!r} has too many times of day for daily bars"))
        return [joined, *candidates.values()], notes
    return list(candidates.values()), notes


def _readable(table: RawTable, name: str) -> Candidate:
    """The times of a column. Raises DataError if most of its values are no times; nulls do not count."""
    column = table.table[name]
    times = time_column.parse(column, _label(table, name))
    candidate = Candidate(repr(name), times, _gives_zone(column, times))
    present = column.is_valid().to_numpy()
    unread = np.flatnonzero(present & ~candidate.known)
    if len(unread) > _MOST * present.sum():
        shown = columns.shown(column[int(unread[0])])
        raise DataError(f"{_label(table, name)}: {shown!r} is not understood as a time: write it as 2024-01-31")
    return candidate


def _gives_zone(column: pyarrow.ChunkedArray, times: Times) -> bool:
    """Whether the instants are known: a zone or an offset is given, or the numbers are counted since 1970 in UTC."""
    if times.local_ns is not None or getattr(column.type, "tz", None) is not None:
        return True
    known = np.flatnonzero(times.time_ns != UNKNOWN_TIME)
    if not len(known):
        return False
    text = columns.shown(column[int(known[0])]).strip()
    try:
        number = float(text)
    except ValueError:
        return text.upper().endswith(("Z", "UTC", "GMT", "+00:00", "+0000", "+00"))
    time_ns = float(times.time_ns[known[0]])
    return any(abs(number * unit_ns - time_ns) < _SECOND_NS for unit_ns in UNITS.values())


def _no_clock(table: RawTable, name: str, dates: str | None) -> DataError | None:
    """The error for a column of times of day that cannot be read; None if it is not one, or if its texts hold dates."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if dates is None or columns.spelling(name) not in _CLOCK_SPELLINGS:
        return None
    text = columns.as_text(table.table.select([name])).column(0).drop_null().combine_chunks()
    if not len(text) or pc.any(pc.match_substring_regex(text, _HAS_DATE)).as_py():
        return None
    unread = np.flatnonzero(text_times.times_of_day(text.cast(pa.string())) == UNKNOWN_TIME)
    shown = text[int(unread[0])].as_py() if len(unread) else text[0].as_py()
    return DataError(
        f"{_label(table, name)}: {shown!r} beside the dates of {dates!r} is no time of day: {_WRITE_CLOCK}"
    )


def _times_of_day(column: pyarrow.ChunkedArray) -> np.ndarray | None:
    """Nanoseconds since midnight, UNKNOWN_TIME where unknown; None for a column that is no time of day for sure."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = columns.decoded(column)
    if pa.types.is_time(column.type):
        values = column.cast(pa.time64("ns")).cast(pa.int64())
        return values.fill_null(UNKNOWN_TIME).to_numpy(zero_copy_only=False)
    if not columns.is_text(column.type) or column.null_count == len(column):
        return None
    encoded = pc.dictionary_encode(column.cast(pa.string())).combine_chunks()
    if not pc.any(pc.match_substring_regex(encoded.dictionary, _HAS_CLOCK)).as_py():
        return None
    times = np.append(text_times.times_of_day(encoded.dictionary), UNKNOWN_TIME)
    clock = times[encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)]
    n_unread = int((clock == UNKNOWN_TIME).sum()) - column.null_count
    return clock if n_unread < _MOST * (len(clock) - column.null_count) else None


def _digit_clocks(
    table: RawTable, names: list[str], dates: str, parsed: dict[str, Candidate], symbol: np.ndarray
) -> tuple[dict[str, np.ndarray], set[str]]:
    """`({name: nanoseconds since midnight}, columns not used)` of columns named time whose digits are HHMM or HHMMSS.

    2400 is the end of its date. Raises DataError for whole numbers up to 24, which may be hours or minutes; beside
    daily bars, or a column with full times, they are not used.
    """
    clocks, unclear = {}, set()
    for name in names:
        if name == dates or columns.spelling(name) not in _CLOCK_SPELLINGS:
            continue
        try:
            values = columns.floats(table.table[name], _label(table, name), np.float64)
        except DataError:
            continue
        known = np.isfinite(values)
        digits = np.where(known, values, 0)
        if _may_be_hours(table.table[name], digits):
            if not any(item.has_clock for item in parsed.values()) and not is_daily(parsed[dates], symbol):
                raise DataError(
                    f"{_label(table, name)}: whole numbers such as {digits.max():.0f} beside the dates of {dates!r} "
                    f"may be hours or minutes: {_WRITE_CLOCK}"
                )
            unclear.add(name)
            continue
        if digits.max(initial=0) <= _LAST_HHMM:
            digits = digits * 100
        hour, minute, second = digits // 10_000, digits // 100 % 100, digits % 100
        valid = (digits >= 0) & (digits % 1 == 0) & (hour < 24) & (minute < 60) & (second < 60)
        valid |= digits == 240_000
        if known.any() and valid.all():
            clock = (hour * 3_600 + minute * 60 + second).astype(np.int64) * 10**9
            if clock.max() == NS_PER_DAY and is_one_a_day(parsed[dates], symbol):
                clock = np.minimum(clock, NS_PER_DAY - 1)  # the end of a session is no other date
            clocks[name] = np.where(known, clock, UNKNOWN_TIME)
    return clocks, unclear


def _may_be_hours(column: pyarrow.ChunkedArray, values: np.ndarray) -> bool:
    """Whether values are whole numbers from 0 to 24, not all zero, and not written with leading zeros as 0009."""
    import pyarrow.compute as pc

    if not 0 < values.max(initial=0) <= _LAST_HOUR or values.min() < 0 or (values % 1).any():
        return False
    kind = getattr(column.type, "value_type", column.type)
    return (
        not columns.is_text(kind) or pc.max(pc.utf8_length(pc.utf8_trim_whitespace(column.cast("string")))).as_py() < 3
    )


def _joined(dates: Times, clock: np.ndarray, zone: str | None) -> Times:
    """Dates and times of day, on the clock of the dates. zone: its name, where the column has one for all rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    known = (dates.time_ns != UNKNOWN_TIME) & (clock != UNKNOWN_TIME)
    local_ns = np.where(known, dates.clock_ns + np.where(known, clock, 0), UNKNOWN_TIME)
    if dates.local_ns is None:
        return Times(local_ns)
    time_ns = np.where(known, local_ns - (dates.local_ns - dates.time_ns), UNKNOWN_TIME)
    if zone is not None:  # the offset at midnight is another one on days when clocks change
        local = pa.array(local_ns, pa.timestamp("ns"), mask=~known)
        try:
            utc = pc.assume_timezone(local, zone, ambiguous="earliest", nonexistent="earliest")
            time_ns = utc.cast(pa.int64()).fill_null(UNKNOWN_TIME).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:  # a fixed offset such as -05:00
            pass
    return Times(time_ns, local_ns)
