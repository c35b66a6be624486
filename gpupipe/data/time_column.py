"""Convert time columns of any kind to UTC nanoseconds, and to the wall clock of their time zone."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpupipe.data.columns import floats, is_text, refuse_ambiguous
from gpupipe.data.errors import DataError

if TYPE_CHECKING:
    import pyarrow

UNKNOWN_TIME = np.iinfo(np.int64).min  # a time that is null or could not be parsed
_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_UTC = ("UTC", "utc", "Z", "+00:00", "Etc/UTC")
_DAY_OR_MONTH_FIRST = r"^[0-9]{1,2}[/. -][0-9]{1,2}[/. -][0-9]{2,4}([T ,].*)?$"


@dataclass(frozen=True)
class Times:
    """The times of a column.

    time_ns: int64 (n,), UTC nanoseconds since 1970; UNKNOWN_TIME if null, unreadable or outside 1678..2261.
    local_ns: int64 (n,), the same moments on the wall clock of the zone that the column gives; None if it gives none,
    or UTC.

    >>> Times(np.int64([5 * 3_600 * 10**9]), np.int64([0])).local_ns  # midnight in New York
    array([0])
    """

    time_ns: np.ndarray
    local_ns: np.ndarray | None = None


def parse(column: pyarrow.ChunkedArray, where: str) -> Times:
    """Convert the times of a column, (n,).

    Accepted: dates, timestamps of any unit and zone, ISO 8601 text (yyyy/mm/dd too), and numbers. Numbers are yyyymmdd
    if the whole column is in 19000101..21001231. Otherwise they count seconds, milliseconds, microseconds or
    nanoseconds since 1970; the largest magnitude decides (below 1e11, 1e14, 1e17, or above). A time without a zone
    is UTC.

    Raises DataError for a type that holds no times, and for dates such as 03/02/2024, in which month and day cannot
    be told apart.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if is_text(kind):
        return _times_from_text(column, where)
    if pa.types.is_timestamp(kind):
        time_ns = _multiplied(_int64_values(column.cast(pa.int64())), _NS[kind.unit])
        if kind.tz in (None, *_UTC):
            return Times(time_ns)
        local = pc.local_timestamp(column).cast(pa.int64())
        return _with_clock(time_ns, _multiplied(_int64_values(local), _NS[kind.unit]))
    if pa.types.is_date32(kind):
        days = column.cast(pa.int32())
        values = _int64_values(days) if days.null_count else days.to_numpy(zero_copy_only=False)
        return Times(_multiplied(values, 86_400 * 10**9))
    if pa.types.is_date64(kind):
        return Times(_multiplied(_int64_values(column.cast(pa.int64())), 10**6))
    if pa.types.is_integer(kind):
        return Times(_times_from_integers(_int64_values(column)))
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return Times(_times_from_floats(floats(column, where, np.float64)))
    raise DataError(f"{where} has type {kind}, expected dates, timestamps, ISO text, yyyymmdd or seconds since 1970")


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
    return (column.fill_null(int(UNKNOWN_TIME)) if column.null_count else column).to_numpy(zero_copy_only=False)


def _multiplied(values: np.ndarray, factor: int) -> np.ndarray:
    """`values * factor` in int64; UNKNOWN_TIME where the value is unknown or the product overflows."""
    if factor == 1:
        return values
    limit = np.iinfo(np.int64).max // factor
    if values.size and values.min() >= -limit and values.max() <= limit:
        return np.multiply(values, factor, dtype=np.int64)
    fits = (values >= -limit) & (values <= limit)
    return np.where(fits, np.where(fits, values, 0) * np.int64(factor), UNKNOWN_TIME)


def _times_from_integers(values: np.ndarray) -> np.ndarray:
    known = values != UNKNOWN_TIME
    if not known.any():
        return values
    lowest, highest = int(values[known].min()), int(values[known].max())
    if lowest >= 19_000_101 and highest <= 21_001_231:
        year, month, day = values // 10_000, values // 100 % 100, values % 100
        valid = known & (month >= 1) & (month <= 12) & (day >= 1)
        months = (np.where(valid, year, 1970) - 1970) * 12 + np.where(valid, month, 1) - 1
        month_start = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
        next_month = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
        days = month_start + day - 1
        return _multiplied(np.where(valid & (days < next_month), days, UNKNOWN_TIME), 86_400 * 10**9)
    return _multiplied(values, _unit_ns(max(-lowest, highest)))


def _times_from_floats(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values) & (np.abs(values) < 2.0**63)
    finite = np.where(known, values, 0.0)
    if bool((finite == np.floor(finite)).all()):
        return _times_from_integers(np.where(known, finite, float(UNKNOWN_TIME)).astype(np.int64))
    unit_ns = _unit_ns(float(np.abs(finite).max()))
    fits = known & (np.abs(finite) * unit_ns < 2.0**62)
    values = np.where(fits, finite, 0.0)
    floor = np.floor(values)  # whole part and fraction separately: float64 cannot hold nanoseconds since 1970
    time_ns = floor.astype(np.int64) * unit_ns + np.rint((values - floor) * unit_ns).astype(np.int64)
    return np.where(fits, time_ns, UNKNOWN_TIME)


def _unit_ns(largest: float) -> int:
    """The unit, in nanoseconds, of times up to `largest`; 1e11 s is the year 5138, 1e11 ms is 1973."""
    for limit, unit in ((1e11, "s"), (1e14, "ms"), (1e17, "us")):
        if largest < limit:
            return _NS[unit]
    return _NS["ns"]


def _times_from_text(column: pyarrow.ChunkedArray, where: str) -> Times:
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
    if len(text) and pc.all(pc.match_substring_regex(text, r"^-?[0-9]{1,18}$")).as_py():
        parsed = Times(_times_from_integers(_int64_values(pa.chunked_array([text.cast(pa.int64())]))))
    else:
        parsed = _iso_times(text)
    index = encoded.indices
    index = (index.fill_null(len(text)) if index.null_count else index).to_numpy(zero_copy_only=False)
    time_ns = np.append(parsed.time_ns, UNKNOWN_TIME)[index]
    if parsed.local_ns is None:
        return Times(time_ns)
    return Times(time_ns, np.append(parsed.local_ns, UNKNOWN_TIME)[index])


def _iso_times(text: pyarrow.Array) -> Times:
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pc.replace_substring_regex(text, r"^([0-9]{4})/([0-9]{2})/([0-9]{2})", r"\1-\2-\3")
    for zone in (None, "UTC"):
        try:
            time_ns = _int64_values(pa.chunked_array([text.cast(pa.timestamp("ns", zone)).cast(pa.int64())]))
        except pa.ArrowInvalid:  # at least one text has another form: try a zone, then parse text by text
            continue
        return Times(time_ns) if zone is None else _with_clock(time_ns, time_ns + _offset_ns(text))
    moments = np.array([_iso_time(value) for value in text.to_pylist()], np.int64).reshape(-1, 2)
    return _with_clock(moments[:, 0], moments[:, 1])


def _offset_ns(text: pyarrow.Array) -> np.ndarray:
    """The offset from UTC of ISO texts that end in Z or an offset such as -04:00, -0400 or -04."""
    import pyarrow.compute as pc

    parts = pc.extract_regex(text, r"(?P<sign>[+-])(?P<hours>[0-9]{2}):?(?P<minutes>[0-9]{2})?$")
    sign, hours, minutes = (pc.struct_field(parts, name).to_numpy(zero_copy_only=False) for name in range(3))
    seconds = [
        0 if mark is None else (-1 if mark == "-" else 1) * (3600 * int(hour) + 60 * int(minute or 0))
        for mark, hour, minute in zip(sign, hours, minutes, strict=True)
    ]
    return np.array(seconds, np.int64) * 10**9


def _iso_time(text: str | None) -> tuple[int, int]:
    """`(UTC, wall clock)` of an ISO text."""
    try:
        moment = datetime.datetime.fromisoformat(text or "")
        offset = moment.utcoffset() or datetime.timedelta(0)
        since = moment.replace(tzinfo=None) - offset - datetime.datetime(1970, 1, 1)
    except (ValueError, OverflowError):
        return int(UNKNOWN_TIME), int(UNKNOWN_TIME)
    time_ns = (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000
    if abs(time_ns) >= 2**63 - 10**14:
        return int(UNKNOWN_TIME), int(UNKNOWN_TIME)
    return time_ns, time_ns + (offset.days * 86_400 + offset.seconds) * 10**9
