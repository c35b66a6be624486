"""Decide by their values which of several columns give the time and the volume of a bar."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.data import columns, text_times, time_column
from gpupipe.data.errors import DataError, printable
from gpupipe.data.number_times import UNITS
from gpupipe.data.panel import NS_PER_DAY
from gpupipe.data.report import time_text
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
_FEW = 0.01  # share of rows
_MOST = 0.5
_NEAR_DAYS = 3
_SAMPLE_ROWS = 1 << 14
_STAMPS_PER_SYMBOL, _STAMPS_PER_ROW = 6, 0.1  # a daily bar has few times of day; more are the moments of requests
_ZONE_STEP_NS, _FARTHEST_ZONE_NS = 900 * 10**9, 14 * 3_600 * 10**9
_SECOND_NS = 10**9


@dataclass(frozen=True)
class _Candidate:
    """A column, or two joined ones, that may give the time of the bars. has_zone: its instants are known."""

    words: str
    times: Times
    has_zone: bool = False

    @functools.cached_property
    def known(self) -> np.ndarray:
        """bool (n,): where the time is known."""
        return self.times.time_ns != UNKNOWN_TIME

    @functools.cached_property
    def day(self) -> np.ndarray:
        """int64 (n,): the date on the clock of the column, in days since 1970."""
        return self.times.clock_ns // NS_PER_DAY

    @functools.cached_property
    def has_clock(self) -> bool:
        """Whether any time is not midnight."""
        return bool((self.times.clock_ns[self.known] % NS_PER_DAY).any())


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
        best, note = _better(best, other, symbol, table.origin)
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


def _candidates(table: RawTable, names: list[str], symbol: np.ndarray) -> tuple[list[_Candidate], tuple[str, ...]]:
    """`(the columns that hold times, a date and a time of day joined; notes on those that hold none)`."""
    clocks = {name: clock for name in names if (clock := _times_of_day(table.table[name])) is not None}
    parsed: dict[str, _Candidate] = {}
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
        joined = _Candidate(f"{dates!r} and {clock_name!r}", times, times.local_ns is not None)
        if _are_moments(joined, date, symbol):
            joined, notes = date, (*notes, _note(date, f"{clock_name!r} has too many times of day for daily bars"))
        return [joined, *candidates.values()], notes
    return list(candidates.values()), notes


def _readable(table: RawTable, name: str) -> _Candidate:
    """The times of a column. Raises DataError if most of its values are no times; nulls do not count."""
    column = table.table[name]
    times = time_column.parse(column, _label(table, name))
    candidate = _Candidate(repr(name), times, _gives_zone(column, times))
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
    table: RawTable, names: list[str], dates: str, parsed: dict[str, _Candidate], symbol: np.ndarray
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
            if not any(item.has_clock for item in parsed.values()) and not _is_daily(parsed[dates], symbol):
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
            if clock.max() == NS_PER_DAY and _is_one_a_day(parsed[dates], symbol):
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


def _better(first: _Candidate, second: _Candidate, symbol: np.ndarray, origin: str) -> tuple[_Candidate, str]:
    """The candidate that gives the time of the bars, and a note if they differ; see `read_times`."""
    known = first.known & second.known
    differs = known & (first.day != second.day)
    if not differs.any():
        return _of_same_dates(first, second, symbol, origin)
    other_dates = f"has other dates in {int(differs.sum()):,} rows"
    both = ((first, second), (second, first))
    for bar, other in both:
        if _is_one_a_day(bar, symbol) and _is_unrelated(other, bar, symbol):
            return bar, _note(bar, f"{other.words} {other_dates}")
    for bar, other in both:
        near = bool((np.abs(bar.day - other.day)[known] <= _NEAR_DAYS).all())
        if bar.has_clock and not other.has_clock and near and not _is_one_a_day(other, symbol):
            return bar, _note(bar, f"{other.words} {other_dates}")
    raise _undecided(first, second, differs, origin, "time, and their dates")


def _undecided(first: _Candidate, second: _Candidate, differs: np.ndarray, origin: str, what: str) -> DataError:
    row = int(np.flatnonzero(differs)[0])
    shown = " and ".join(time_text(int(candidate.times.time_ns[row])) for candidate in (first, second))
    return DataError(
        f"{origin}: columns {first.words} and {second.words} both give a {what} differ in "
        f"{int(differs.sum()):,} of {len(differs):,} rows (first {shown}): leave out the one that is not the bar's"
    )


def _of_same_dates(first: _Candidate, second: _Candidate, symbol: np.ndarray, origin: str) -> tuple[_Candidate, str]:
    """The result of `_better` for columns with the same dates."""
    bar, other = (second, first) if second.has_clock and not first.has_clock else (first, second)
    if _are_moments(bar, other, symbol):
        bar, other, note = other, bar, _note(other, f"{bar.words} has too many times of day for daily bars")
    elif bar.has_clock and other.has_clock:
        bar, other, note = _of_clocks(bar, other, symbol, origin)
    else:
        note = ""
    filled, rows = _filled(bar, other, symbol)
    if not rows:
        return bar, note
    from_other = f"column {other.words} gives the time of {rows:,} rows in which {bar.words} has none"
    return filled, printable(f"{note}; {from_other}" if note else from_other)


def _of_clocks(
    first: _Candidate, second: _Candidate, symbol: np.ndarray, origin: str
) -> tuple[_Candidate, _Candidate, str]:
    """`(the bar's, the other one, note)` of two columns with the same dates and with times of day."""
    known = first.known & second.known
    differs = known & (first.times.time_ns != second.times.time_ns)
    if not differs.any() or _is_daily(first, symbol):
        return first, second, ""
    both = ((first, second), (second, first))
    if (first.times.clock_ns == second.times.clock_ns)[known].all():  # one gives the zone, too
        return (*both[first.times.local_ns is None], "")
    gap = np.abs(first.times.time_ns - second.times.time_ns)[known]
    if gap.max() < _SECOND_NS:
        has_parts = bool((first.times.time_ns[known] % _SECOND_NS).any())
        return (*both[has_parts], "")
    for bar, other in both:
        if bar.has_zone and not other.has_zone and _is_wall_clock(other.times.time_ns[known], bar.times.time_ns[known]):
            return bar, other, _note(bar, f"{other.words} has the clock of another zone")
    raise _undecided(first, second, differs, origin, "time of day, and these")


def _is_wall_clock(clock_ns: np.ndarray, time_ns: np.ndarray) -> bool:
    """Whether times without a zone are instants on the clock of a zone, and not their bars' begin or end."""
    offsets = np.unique(clock_ns - time_ns)
    if (offsets % _ZONE_STEP_NS).any() or np.abs(offsets).max() > _FARTHEST_ZONE_NS:
        return False
    steps = np.diff(np.unique(time_ns))
    return len(offsets) > 1 or not len(steps) or abs(int(offsets[0])) != int(steps.min())


def _filled(bar: _Candidate, other: _Candidate, symbol: np.ndarray) -> tuple[_Candidate, int]:
    """`(the bar's times, with those of another column where they are not known; number of such rows)`.

    Only if at least as many rows have both, which are the same: the instants, or of daily bars the dates.
    """
    missing = ~bar.known & other.known
    known = bar.known & other.known
    if not missing.any() or missing.sum() > known.sum():
        return bar, 0
    time_ns, local_ns = other.times.time_ns, other.times.clock_ns
    same = bool((bar.times.time_ns == time_ns)[known].all()) and bar.has_clock == other.has_clock
    if not same or (bar.times.local_ns is None) != (other.times.local_ns is None):
        if not _is_daily(bar, symbol):
            return bar, 0
        time_ns = local_ns = other.day * NS_PER_DAY
    times = dataclasses.replace(
        bar.times,
        time_ns=np.where(missing, time_ns, bar.times.time_ns),
        local_ns=None if bar.times.local_ns is None else np.where(missing, local_ns, bar.times.local_ns),
    )
    return dataclasses.replace(bar, times=times), int(missing.sum())


def _are_moments(stamps: _Candidate, dates: _Candidate, symbol: np.ndarray) -> bool:
    """Whether times of day beside daily dates are too many for daily bars, as those of requests are."""
    if not stamps.has_clock:
        return False
    return all(
        _has_many_clocks(stamps, symbol, part)
        and not (dates.has_clock and _has_many_clocks(dates, symbol, part))
        and _is_one_a_day(dates, symbol, part)
        for part in (slice(0, _SAMPLE_ROWS), slice(None))
    ) and _is_daily(dates, symbol)


def _has_many_clocks(candidate: _Candidate, symbol: np.ndarray, part: slice) -> bool:
    """Whether there are more times of day than daily bars have."""
    known = candidate.known[part]
    code, clock = symbol[part][known].astype(np.int64), candidate.times.clock_ns[part][known] % NS_PER_DAY
    n_stamps = len(np.unique(code * NS_PER_DAY + clock))
    return n_stamps > max(_STAMPS_PER_SYMBOL * len(np.unique(code)), _STAMPS_PER_ROW * len(code))


def _is_daily(candidate: _Candidate, symbol: np.ndarray) -> bool:
    """Whether nearly every symbol and date has one row, and not every symbol has one row alone."""
    first_rows = slice(0, _SAMPLE_ROWS)
    if not all(_is_one_a_day(candidate, symbol, part) for part in (first_rows, slice(None))):
        return False
    return len(np.unique(symbol[candidate.known])) < int(candidate.known.sum())


def _note(bar: _Candidate, why: str) -> str:
    return printable(f"column {bar.words} gives the time of the bars; {why}, and was not used")


def _is_one_a_day(candidate: _Candidate, symbol: np.ndarray, part: slice = slice(None)) -> bool:
    """Whether nearly every symbol and date has one row."""
    known = candidate.known[part]
    code, day = symbol[part][known].astype(np.int64), candidate.day[part][known]
    pairs = np.unique(code * 2**20 + day)  # days stay below 2**17
    return bool(known.any()) and len(pairs) >= (1 - 5 * _FEW) * int(known.sum())


def _is_unrelated(other: _Candidate, bar: _Candidate, symbol: np.ndarray) -> bool:
    """Whether a column can be no time of bars: it has few dates, or goes back while the bars of a symbol go on."""
    known = bar.known & other.known
    day, day_of_other, code = bar.day[known], other.day[known], symbol[known]
    if len(np.unique(day_of_other)) < _MOST * len(np.unique(day)):
        return True
    order = np.lexsort((day, code))
    steps = np.diff(other.times.time_ns[known][order])[np.diff(code[order]) == 0]
    return bool(len(steps)) and float((steps < 0).mean()) > _FEW
