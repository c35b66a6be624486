"""Convert a time column of any type to UTC nanoseconds, and to the wall clock of its time zone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gpupipe.data.columns import decoded, floats, is_text, refuse_ambiguous, shown
from gpupipe.data.errors import DataError
from gpupipe.data.number_times import NumberTimes, multiplied, times_of_numbers
from gpupipe.data.panel import NS_PER_DAY
from gpupipe.data.text_times import TIME_OF_DAY, times_of_texts
from gpupipe.data.time_limits import UNKNOWN_TIME

if TYPE_CHECKING:
    import pyarrow

_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_UTC = ("UTC", "utc", "Z", "+00:00", "Etc/UTC")
_DAY_OR_MONTH_FIRST = r"^[0-9]{1,2}[/. -][0-9]{1,2}[/. -][0-9]{2,4}([T ,].*)?$"
_FAR_DAYS, _LEAST_DIGITS = 731, 5  # of a few numbers among dates
_NUMBER = r"^[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?$"


@dataclass(frozen=True)
class Times:
    """The times of a column.

    time_ns: int64 (n,), UTC nanoseconds since 1970; UNKNOWN_TIME if null, unreadable or outside 1678..2261.
    local_ns: int64 (n,), the same moments on the wall clock of the zone that the column gives; None if it gives none,
    or UTC.  other_unit: int64, rows of numbers in another unit than most; units: the names of these units.

    >>> Times(np.int64([5 * 3_600 * 10**9]), np.int64([0])).local_ns  # midnight in New York
    array([0])
    """

    time_ns: np.ndarray
    local_ns: np.ndarray | None = None
    other_unit: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    units: str = ""

    @property
    def clock_ns(self) -> np.ndarray:
        """int64 (n,): the wall clock if there is one, else UTC."""
        return self.time_ns if self.local_ns is None else self.local_ns


def parse(column: pyarrow.ChunkedArray, where: str, latest: int | None = None) -> Times:
    """Convert the times of a column, (n,).

    Accepted: dates, timestamps of any unit and zone, numbers (`number_times.times_of_numbers`), and texts: digits of
    the same kinds, ISO 8601 with or without leading zeros, and dates with the name of a month
    (`text_times.times_of_texts`). A time without a zone is UTC.

    latest: the latest time that a number can be, UTC ns since 1970; None: tomorrow, as of bars.

    Raises DataError for a type that holds no times, for numbers whose meaning is not sure, for times of day without a
    date, and for dates such as 03/02/2024, in which month and day cannot be told apart.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    column = decoded(column)
    kind = column.type
    if is_text(kind):
        return _times_from_text(column, where, latest)
    if pa.types.is_timestamp(kind):
        time_ns = multiplied(_int64_values(column.cast(pa.int64())), _NS[kind.unit])
        if kind.tz in (None, *_UTC):
            return Times(time_ns)
        try:
            local = pc.local_timestamp(column).cast(pa.int64())
        except pa.ArrowInvalid:
            fix = "convert it to UTC, or to a zone such as America/New_York or +09:00"
            raise DataError(f"{where} has the time zone {kind.tz!r}, which is not known: {fix}") from None
        return _with_clock(time_ns, multiplied(_int64_values(local), _NS[kind.unit]))
    if pa.types.is_date32(kind):
        days = column.cast(pa.int32())
        values = _int64_values(days) if days.null_count else days.to_numpy(zero_copy_only=False)
        return Times(multiplied(values, NS_PER_DAY))
    if pa.types.is_date64(kind):
        return Times(multiplied(_int64_values(column.cast(pa.int64())), 10**6))
    if pa.types.is_time(kind):
        raise DataError(_no_date(where, shown(column.drop_null()[0]) if column.null_count < len(column) else kind))
    if pa.types.is_integer(kind):
        return _of_numbers(times_of_numbers(_int64_values(column), where, latest))
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return _of_numbers(times_of_numbers(floats(column, where, np.float64), where, latest))
    raise DataError(f"{where} has type {kind}, expected dates, timestamps, ISO text, yyyymmdd or seconds since 1970")


def _no_date(where: str, example: object) -> str:
    return f"{where} holds times of day, as {str(example)!r}, without a date: add a column of dates, named date"


def _of_numbers(numbers: NumberTimes) -> Times:
    return Times(numbers.time_ns, None, numbers.other_unit, numbers.units)


def _with_clock(time_ns: np.ndarray, local_ns: np.ndarray) -> Times:
    """Times and their wall clock; without the clock if it is UTC everywhere."""
    known = (time_ns != UNKNOWN_TIME) & (local_ns != UNKNOWN_TIME)
    if np.array_equal(time_ns[known], local_ns[known]):
        return Times(time_ns)
    return Times(time_ns, np.where(known, local_ns, time_ns))


def _int64_values(column: pyarrow.ChunkedArray) -> np.ndarray:
    """Whole numbers as int64; UNKNOWN_TIME for null and for values that int64 cannot hold."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_uint64(column.type):
        column = pc.if_else(pc.less_equal(column, np.iinfo(np.int64).max), column, None)
    column = column.cast(pa.int64())
    return (column.fill_null(UNKNOWN_TIME) if column.null_count else column).to_numpy(zero_copy_only=False)


def _times_from_text(column: pyarrow.ChunkedArray, where: str, latest: int | None) -> Times:
    """Parse each distinct text once: all bars of a day have the same one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if len(column) == 0:
        return Times(np.zeros(0, np.int64))
    encoded = pc.dictionary_encode(column.cast(pa.string())).combine_chunks()
    text = pc.utf8_trim_whitespace(encoded.dictionary)
    message = f"{where}: dates as {{}} have the day or the month first: write them as 2024-01-31 (in pandas, "
    fix = "to_datetime(..., dayfirst=True) or dayfirst=False, and to_csv)"
    refuse_ambiguous(text, _DAY_OR_MONTH_FIRST, message + fix)
    index = encoded.indices
    index = (index.fill_null(len(text)) if index.null_count else index).to_numpy(zero_copy_only=False)
    is_number = pc.match_substring_regex(text, _NUMBER).to_numpy(zero_copy_only=False)
    if not is_number.any():
        time_ns, clock_ns = times_of_texts(text)
        _refuse_times_of_day(text, time_ns, where)
        parsed = _with_clock(time_ns, clock_ns)
        time_ns = np.append(parsed.time_ns, UNKNOWN_TIME)[index]
        return Times(time_ns, None if parsed.local_ns is None else np.append(clock_ns, UNKNOWN_TIME)[index])
    return _mixed_texts(text, is_number, index, where, latest)


def _mixed_texts(
    text: pyarrow.Array, is_number: np.ndarray, index: np.ndarray, where: str, latest: int | None
) -> Times:
    """Times of texts some of which are numbers. text: the distinct ones.  index: of each row; the length if null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = np.flatnonzero(np.append(is_number, False)[index])
    digits = text.filter(pa.array(is_number))
    values = _values_of_digits(digits)
    position = np.cumsum(is_number) - 1
    try:
        numbers = times_of_numbers(values[position[index[rows]]], where, latest)
    except DataError:
        if len(rows) > len(index) / 2:
            raise
        numbers = NumberTimes(np.full(len(rows), UNKNOWN_TIME), np.zeros(0, np.int64))
    utc, clock = times_of_texts(pc.if_else(pa.array(is_number), None, text))
    time_ns, clock_ns = np.append(utc, UNKNOWN_TIME)[index], np.append(clock, UNKNOWN_TIME)[index]
    dated = time_ns[time_ns != UNKNOWN_TIME]
    if len(dated) >= len(rows) > 0:
        near = _near(numbers.time_ns, digits.take(pa.array(position[index[rows]])), dated)
        numbers = dataclasses.replace(numbers, time_ns=near)
    time_ns[rows] = clock_ns[rows] = numbers.time_ns
    with_clock = _with_clock(time_ns, clock_ns)
    return Times(with_clock.time_ns, with_clock.local_ns, rows[numbers.other_unit], numbers.units)


def _near(time_ns: np.ndarray, digits: pyarrow.Array, dated_ns: np.ndarray) -> np.ndarray:
    """The times of a few numbers, UNKNOWN_TIME where the dates of the other rows speak against them.

    A number of less than 5 digits is a date that was cut off, such as 2021. So may be one that is read as a time more
    than two years from all dates, and from all numbers that are nearer to them; but 19870104 says its year itself.
    """
    import pyarrow.compute as pc

    sizes = pc.utf8_length(digits).to_numpy(zero_copy_only=False)
    starts = pc.utf8_slice_codeunits(digits, 0, 4).to_numpy(zero_copy_only=False).astype(str)
    says_year = (sizes >= 8) & (starts == time_ns.astype("datetime64[ns]").astype("datetime64[Y]").astype(str))
    times = np.unique(np.concatenate([time_ns, dated_ns]) // NS_PER_DAY)
    group = np.cumsum(np.diff(times, prepend=times[:1]) > _FAR_DAYS)
    is_near = np.isin(group, group[np.searchsorted(times, np.unique(dated_ns // NS_PER_DAY))])
    near = is_near[np.searchsorted(times, time_ns // NS_PER_DAY)] & (sizes >= _LEAST_DIGITS)
    return np.where(near | says_year, time_ns, UNKNOWN_TIME)


def _values_of_digits(digits: pyarrow.Array) -> np.ndarray:
    """Numbers in text as int64 if int64 holds all of them, else as float64."""
    import pyarrow as pa

    try:
        return digits.cast(pa.int64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        return digits.cast(pa.float64()).to_numpy(zero_copy_only=False)


def _refuse_times_of_day(text: pyarrow.Array, time_ns: np.ndarray, where: str) -> None:
    """Raise DataError if no text has a date and all of them are times of day."""
    import pyarrow.compute as pc

    if (time_ns == UNKNOWN_TIME).all() and text.null_count < len(text):
        known = text.drop_null()
        if pc.all(pc.match_substring_regex(known, TIME_OF_DAY)).as_py():
            raise DataError(_no_date(where, known[0].as_py()))
