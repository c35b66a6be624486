"""Decide by their values which of several columns give the time and the volume of a bar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.data import columns, text_times, time_column
from gpupipe.data.errors import DataError, printable
from gpupipe.data.panel import NS_PER_DAY
from gpupipe.data.report import time_text
from gpupipe.data.time_column import Times
from gpupipe.data.time_limits import UNKNOWN_TIME

if TYPE_CHECKING:
    import pyarrow

    from gpupipe.data.sources import RawTable

_CLOCK_SPELLINGS = ("time", "bartime", "opentime", "t")  # beside a column of dates, their digits are times of day
_VAGUE_SPELLINGS = ("day", "t", "ts")  # such a column need not be a time
_LAST_HHMM = 2_359
_FEW = 0.01  # share of rows
_MOST = 0.5
_NEAR_DAYS = 3


@dataclass(frozen=True)
class _Candidate:
    """A column, or two joined ones, that may give the time of the bars."""

    words: str
    times: Times

    @property
    def known(self) -> np.ndarray:
        """bool (n,): where the time is known."""
        return self.times.time_ns != UNKNOWN_TIME

    @property
    def day(self) -> np.ndarray:
        """int64 (n,): the date on the clock of the column, in days since 1970."""
        return self.times.clock_ns // NS_PER_DAY

    @property
    def has_clock(self) -> bool:
        """Whether any time is not midnight."""
        return bool((self.times.clock_ns[self.known] % NS_PER_DAY).any())


def read_times(table: RawTable, symbol: np.ndarray) -> tuple[Times, tuple[str, ...]]:
    """The times of the bars of a table, and notes on how they were found.

    symbol: int32 (n,), a code for each row.  Of several columns:

    - A date and a time of day (09:30, 09:30:00, 930, 93000) in columns of their own are joined.
    - Columns with the same dates: the one that has times of day counts.
    - Columns with different dates: the one that has one row a symbol and date counts, if the other can be no time of
      these bars: it has fewer than half as many dates, or goes back while the bars go on. Such is the time of a
      download. Of intraday bars the column with times of day counts, if its dates are within three days of the others.

    Raises DataError if no column holds times, or if columns differ and nothing tells which one is the bar's.
    """
    names = columns.of_meaning(table.columns, "time")
    if len(names) == 1:
        return time_column.parse(table.table[names[0]], _label(table, names[0])), ()
    candidates, notes = _candidates(table, names)
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


def _candidates(table: RawTable, names: list[str]) -> tuple[list[_Candidate], tuple[str, ...]]:
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
    if dates is not None and not clocks:
        clocks = _digit_clocks(table, names, dates)
    for name, problem in problems.items():
        if name not in clocks and (columns.spelling(name) not in _VAGUE_SPELLINGS or not parsed):
            raise problem
    candidates = {name: item for name, item in parsed.items() if item.known.any() and name not in clocks}
    if not candidates:  # all are null
        return [next(iter(parsed.values()))], ()
    unused = [name for name in names if name not in candidates and (name not in clocks or dates is None)]
    notes = tuple(printable(f"column {name!r} holds no times, and was not used") for name in unused)
    if clocks and dates is not None:
        clock_name, clock = next(iter(clocks.items()))
        joined = _Candidate(f"{dates!r} and {clock_name!r}", _joined(candidates.pop(dates).times, clock))
        return [joined, *candidates.values()], notes
    return list(candidates.values()), notes


def _readable(table: RawTable, name: str) -> _Candidate:
    """The times of a column. Raises DataError if most of its values are no times; nulls do not count."""
    column = table.table[name]
    candidate = _Candidate(repr(name), time_column.parse(column, _label(table, name)))
    present = column.is_valid().to_numpy()
    unread = np.flatnonzero(present & ~candidate.known)
    if len(unread) > _MOST * present.sum():
        shown = columns.shown(column[int(unread[0])])
        raise DataError(f"{_label(table, name)}: {shown!r} is not understood as a time: write it as 2024-01-31")
    return candidate


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
    if not pc.any(pc.match_substring(encoded.dictionary, ":")).as_py():
        return None
    times = np.append(text_times.times_of_day(encoded.dictionary), UNKNOWN_TIME)
    clock = times[encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)]
    return clock if (clock == UNKNOWN_TIME).mean() < _MOST else None


def _digit_clocks(table: RawTable, names: list[str], dates: str) -> dict[str, np.ndarray]:
    """Columns named time whose digits are HHMM or HHMMSS: `{name: nanoseconds since midnight}`."""
    clocks = {}
    for name in names:
        if name == dates or columns.spelling(name) not in _CLOCK_SPELLINGS:
            continue
        try:
            values = columns.floats(table.table[name], _label(table, name), np.float64)
        except DataError:
            continue
        known = np.isfinite(values)
        digits = np.where(known, values, 0)
        if digits.max(initial=0) <= _LAST_HHMM:
            digits = digits * 100
        hour, minute, second = digits // 10_000, digits // 100 % 100, digits % 100
        valid = (digits >= 0) & (digits % 1 == 0) & (hour < 24) & (minute < 60) & (second < 60)
        if known.any() and valid.all():
            clock = (hour * 3_600 + minute * 60 + second).astype(np.int64) * 10**9
            clocks[name] = np.where(known, clock, UNKNOWN_TIME)
    return clocks


def _joined(dates: Times, clock: np.ndarray) -> Times:
    known = (dates.time_ns != UNKNOWN_TIME) & (clock != UNKNOWN_TIME)
    return Times(np.where(known, dates.clock_ns + np.where(known, clock, 0), UNKNOWN_TIME))


def _better(first: _Candidate, second: _Candidate, symbol: np.ndarray, origin: str) -> tuple[_Candidate, str]:
    """The candidate that gives the time of the bars, and a note if they differ; see `read_times`."""
    known = first.known & second.known
    differs = known & (first.day != second.day)
    if not differs.any():
        return (second if second.has_clock and not first.has_clock else first), ""
    both = ((first, second), (second, first))
    for bar, other in both:
        if _is_one_a_day(bar, symbol) and _is_unrelated(other, bar, symbol):
            return bar, _note(bar, other, int(differs.sum()))
    for bar, other in both:
        near = bool((np.abs(bar.day - other.day)[known] <= _NEAR_DAYS).all())
        if bar.has_clock and not other.has_clock and near and not _is_one_a_day(other, symbol):
            return bar, _note(bar, other, int(differs.sum()))
    row = int(np.flatnonzero(differs)[0])
    shown = " and ".join(time_text(int(candidate.times.time_ns[row])) for candidate, _ in both)
    raise DataError(
        f"{origin}: columns {first.words} and {second.words} both give a time, and their dates differ in "
        f"{int(differs.sum()):,} of {len(differs):,} rows (first {shown}): leave out the one that is not the bar's"
    )


def _note(bar: _Candidate, other: _Candidate, n_rows: int) -> str:
    text = f"column {bar.words} gives the time of the bars; {other.words} has other dates in {n_rows:,} rows"
    return printable(f"{text}, and was not used")


def _is_one_a_day(candidate: _Candidate, symbol: np.ndarray) -> bool:
    """Whether nearly every symbol and date has one row."""
    known = candidate.known
    pairs = np.unique(symbol[known].astype(np.int64) * 2**20 + candidate.day[known])  # days stay below 2**17
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
