"""Recognise columns by name and convert their values to the host arrays of a Panel."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.data.errors import DataError

if TYPE_CHECKING:
    import pyarrow

# Accepted column names, compared without case, blanks and punctuation; the first one that is present wins.
SPELLINGS = {
    "symbol": ("symbol", "ticker", "sym", "tickersymbol", "instrument", "asset", "name"),
    "time": (
        "time",
        "timens",
        "timestamp",
        "datetime",
        "date",
        "tradedate",
        "tradingdate",
        "day",
        "bartime",
        "opentime",
        "ts",
        "t",
    ),
    "open": ("open", "openprice", "priceopen", "pxopen", "o"),
    "high": ("high", "highprice", "pricehigh", "pxhigh", "h"),
    "low": ("low", "lowprice", "pricelow", "pxlow", "l"),
    "close": ("close", "closeprice", "priceclose", "pxclose", "pxlast", "last", "c"),
    "volume": ("volume", "vol", "v", "tickvolume", "tickvol", "totalvolume", "pxvolume"),
    "adj_close": ("adjclose", "adjustedclose", "closeadj", "closeadjusted", "adjcloseprice"),
    "sector": ("sector", "gicssector", "sectorname"),
    "timeframe": ("timeframe", "interval", "barsize", "resolution"),
}
REQUIRED = ("symbol", "time", "open", "high", "low", "close", "volume")

UNKNOWN_TIME = np.iinfo(np.int64).min  # a time that is null or could not be parsed
_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
# A column is refused if more than this share of its texts is ambiguous. Guessing could be wrong for all of them, and
# quarantining would lose most rows. A smaller share is a few broken rows.
_AMBIGUOUS_SHARE = 0.01
_WITH_COMMA = r"^\s*[+-]?[0-9][0-9.' ]*(,[0-9]+)+(\.[0-9]*)?\s*$"  # 1,5 1.501,5 1,501.5
_DAY_OR_MONTH_FIRST = r"^[0-9]{1,2}[/. -][0-9]{1,2}[/. -][0-9]{2,4}([T ,].*)?$"
_NUMBER = r"^\s*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$"


def find(names: Sequence[Any], required: Iterable[str], where: str) -> dict[str, str]:
    """Match column names to meanings: `{meaning: name}` for every meaning of SPELLINGS that occurs in `names`.

    Raises DataError if a required meaning has no column (the message lists the accepted spellings), or if a column
    name occurs twice. It also raises DataError if there are both a date and a time column: with only one of them, bars
    of the same day would get the same time.

    >>> find(["Ticker", "Trade Date", "PX_LAST", "note"], ("symbol", "close"), "example")
    {'symbol': 'Ticker', 'time': 'Trade Date', 'close': 'PX_LAST'}
    """
    by_spelling: dict[str, str] = {}
    for name in names:
        by_spelling.setdefault(re.sub(r"[\W_]+", "", str(name)).lower(), name)
    matches = {}
    for meaning, spellings in SPELLINGS.items():
        present = [by_spelling[spelling] for spelling in spellings if spelling in by_spelling]
        if present:
            matches[meaning] = present[0]
    if "time" in by_spelling and "date" in by_spelling:
        both = f"{by_spelling['date']!r} and {by_spelling['time']!r}"
        raise DataError(f"{where}: columns {both} both give the time; join them into one")
    for name in matches.values():
        if list(names).count(name) > 1:
            raise DataError(f"{where}: column {name!r} occurs {list(names).count(name)} times")
    missing = [meaning for meaning in required if meaning not in matches]
    if missing:
        accepted = "; ".join(f"{meaning} as {', '.join(SPELLINGS[meaning])}" for meaning in missing)
        shown = ", ".join(repr(str(name)) for name in list(names)[:20]) or "none"
        raise DataError(f"{where}: no column for {', '.join(missing)}; found {shown}; accepted names: {accepted}")
    return matches


def encode_names(column: pyarrow.ChunkedArray, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Dictionary-encode texts (or whole numbers): `(code int32 (n,), sorted names)`; null and blank texts get -1.

    Blanks around a name are removed. Raises DataError for any other type.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    value_type = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (_is_text(value_type) or pa.types.is_integer(value_type) or pa.types.is_null(value_type)):
        raise DataError(f"{where} has type {column.type}, expected text")
    if len(column) == 0 or pa.types.is_null(value_type):
        return np.full(len(column), -1, np.int32), ()
    if pa.types.is_dictionary(column.type) and any(chunk.dictionary.null_count for chunk in column.chunks):
        column = column.cast(value_type)  # Arrow cannot unify dictionaries that hold a null
    if pa.types.is_dictionary(column.type):
        encoded = column.unify_dictionaries().combine_chunks()
    else:
        encoded = pc.dictionary_encode(column.cast(pa.string()) if _is_text(value_type) else column).combine_chunks()
    mapping, names = clean_names(encoded.dictionary.to_pylist())
    index = encoded.indices
    index = (index.fill_null(len(mapping) - 1) if index.null_count else index).to_numpy(zero_copy_only=False)
    if not encoded.indices.null_count and np.array_equal(mapping[:-1], np.arange(len(names))):
        return index.astype(np.int32, copy=False), names  # the dictionary is sorted and clean: keep its codes
    return mapping[index], names


def clean_names(raw: Sequence[Any]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Strip and sort raw names: `(new code of each raw name, int32 (n + 1,); sorted names)`.

    None and blank names get -1. The last entry, for null, is -1 too.

    >>> clean_names(["B ", "A", " "])
    (array([ 1,  0, -1, -1], dtype=int32), ('A', 'B'))
    """
    stripped = [None if name is None else str(name).strip() or None for name in raw]
    names = tuple(sorted({name for name in stripped if name is not None}))
    position = {name: k for k, name in enumerate(names)}
    return np.array([-1 if name is None else position[name] for name in stripped] + [-1], np.int32), names


def floats(column: pyarrow.ChunkedArray, where: str, dtype: Any = np.float32) -> np.ndarray:
    """Convert numbers to `dtype` (n,), rounded to nearest; null, and text that is no plain decimal number, is NaN.

    Text is parsed as a decimal number only: "1,5", "0x10" and "1+1" are NaN. A number too large for `dtype` becomes
    infinite. Raises DataError for a type that holds no numbers, and for texts written with commas.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if _is_text(kind):
        text = column.cast(pa.string())
        message = f"{where}: numbers are written with commas, as {{}}: write them as 1501.5 (in pandas, "
        _refuse_ambiguous(text, _WITH_COMMA, message + "read_csv(..., decimal=',', thousands='.') and to_csv)")
        is_number = pc.match_substring_regex(text, _NUMBER)
        column = pc.utf8_trim_whitespace(pc.if_else(is_number, text, None)).cast(pa.float64())
    elif pa.types.is_null(kind) or pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise DataError(f"{where} has type {kind}, expected numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        return column.to_numpy(zero_copy_only=False).astype(dtype, copy=False)


def times(column: pyarrow.ChunkedArray, where: str) -> np.ndarray:
    """Convert times to UTC nanoseconds since 1970, int64 (n,); UNKNOWN_TIME if null, unreadable or outside 1678..2261.

    Accepted: dates, timestamps of any unit and zone, ISO 8601 text (yyyy/mm/dd too), and numbers. Numbers are yyyymmdd
    if the whole column is in 19000101..21001231. Otherwise they count seconds, milliseconds, microseconds or
    nanoseconds since 1970; the largest magnitude decides (below 1e11, 1e14, 1e17, or above). A time without a zone
    is UTC.

    Raises DataError for a type that holds no times, and for dates such as 03/02/2024, in which month and day cannot
    be told apart.
    """
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if _is_text(kind):
        return _times_from_text(column, where)
    if pa.types.is_timestamp(kind):
        return _multiplied(_int64_values(column.cast(pa.int64())), _NS[kind.unit])
    if pa.types.is_date32(kind):
        days = column.cast(pa.int32())
        values = _int64_values(days) if days.null_count else days.to_numpy(zero_copy_only=False)
        return _multiplied(values, 86_400 * 10**9)
    if pa.types.is_date64(kind):
        return _multiplied(_int64_values(column.cast(pa.int64())), 10**6)
    if pa.types.is_integer(kind):
        return _times_from_integers(_int64_values(column))
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return _times_from_floats(floats(column, where, np.float64))
    raise DataError(f"{where} has type {kind}, expected dates, timestamps, ISO text, yyyymmdd or seconds since 1970")


def _refuse_ambiguous(text: pyarrow.Array, pattern: str, message: str) -> None:
    """Raise DataError if more than _AMBIGUOUS_SHARE of the texts match; `message` is formatted with the first match."""
    import pyarrow.compute as pc

    matches = pc.fill_null(pc.match_substring_regex(text, pattern), False)
    n_matches = pc.sum(matches).as_py() or 0
    if n_matches > _AMBIGUOUS_SHARE * (len(text) - text.null_count):
        raise DataError(message.format(repr(text.filter(matches)[0].as_py())))


def as_text(table: pyarrow.Table) -> pyarrow.Table:
    """Convert every column to text: a quarantined value need not be a number."""
    import pyarrow as pa

    def text(column: pyarrow.ChunkedArray) -> pyarrow.Array:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        try:
            return column.cast(pa.string())
        except pa.ArrowException:  # a type that Arrow has no text for, or a time before year 1
            return pa.array([None if value is None else repr(value) for value in column.to_pylist()], pa.string())

    return pa.table({name: text(table[name]) for name in table.column_names})


def encode_constant(value: str | None, n_rows: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """The result of `encode_names` for a column with the same text in every row, such as a file's name."""
    known = value is not None and bool(value.strip())
    return np.full(n_rows, 0 if known else -1, np.int32), (str(value).strip(),) if known else ()


def concatenate_codes(columns: Sequence[tuple[np.ndarray, tuple[str, ...]]]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Concatenate encoded columns of several tables, with one sorted list of names."""
    if len(columns) == 1:
        return columns[0]
    mappings, names = merge_names([column_names for _, column_names in columns])
    mapped = [mapping[code] for (code, _), mapping in zip(columns, mappings, strict=True)]
    return np.concatenate(mapped) if mapped else np.zeros(0, np.int32), names


def merge_names(lists: Sequence[tuple[str, ...]]) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Merge sorted lists of names: `(new codes of each list, int32 (n + 1,), the last -1 for null; all names sorted)`.

    >>> merge_names([("A", "C"), ("B",)])
    ([array([ 0,  2, -1], dtype=int32), array([ 1, -1], dtype=int32)], ('A', 'B', 'C'))
    """
    merged = tuple(sorted({name for names in lists for name in names}))
    position: Mapping[str, int] = {name: k for k, name in enumerate(merged)}
    return [np.array([position[name] for name in names] + [-1], np.int32) for names in lists], merged


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


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


def _times_from_text(column: pyarrow.ChunkedArray, where: str) -> np.ndarray:
    """Parse each distinct text once: all bars of a day have the same one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if len(column) == 0:
        return np.zeros(0, np.int64)
    encoded = pc.dictionary_encode(column.cast(pa.string())).combine_chunks()
    text = pc.utf8_trim_whitespace(encoded.dictionary)
    message = f"{where}: dates as {{}} have the day or the month first: write them as 2024-01-31 (in pandas, "
    fix = "to_datetime(..., dayfirst=True) or dayfirst=False, and to_csv)"
    _refuse_ambiguous(text, _DAY_OR_MONTH_FIRST, message + fix)
    if len(text) and pc.all(pc.match_substring_regex(text, r"^-?[0-9]{1,18}$")).as_py():
        values = _times_from_integers(_int64_values(pa.chunked_array([text.cast(pa.int64())])))
    else:
        values = _iso_times(text)
    index = encoded.indices
    return np.append(values, UNKNOWN_TIME)[
        (index.fill_null(len(values)) if index.null_count else index).to_numpy(zero_copy_only=False)
    ]


def _iso_times(text: pyarrow.Array) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pc.replace_substring_regex(text, r"^([0-9]{4})/([0-9]{2})/([0-9]{2})", r"\1-\2-\3")
    for zone in (None, "UTC"):
        try:
            return _int64_values(pa.chunked_array([text.cast(pa.timestamp("ns", zone)).cast(pa.int64())]))
        except pa.ArrowInvalid:  # at least one text has another form: try a zone, then parse text by text
            continue
    return np.array([_iso_time(value) for value in text.to_pylist()], np.int64)


def _iso_time(text: str | None) -> int:
    try:
        moment = datetime.datetime.fromisoformat(text or "")
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        since = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    except (ValueError, OverflowError):
        return int(UNKNOWN_TIME)
    time_ns = (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000
    return time_ns if abs(time_ns) < 2**63 else int(UNKNOWN_TIME)
