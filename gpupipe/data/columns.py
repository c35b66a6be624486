"""Columns as people write them: their names, and their values as the arrays of a Panel (on the host)."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.data.errors import DataError

if TYPE_CHECKING:
    import pyarrow

# What each column may be called, compared without case, blanks and punctuation; the first one present wins.
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

NOT_KNOWN = np.iinfo(np.int64).min  # a time that is null or could not be read
_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
# What could be read in two ways is refused, not guessed and not set aside row by row, where more than this share of a
# column's texts are so: a few of them are broken rows.
_MEANT = 0.01
_WITH_COMMA = r"^\s*[+-]?[0-9][0-9.' ]*(,[0-9]+)+(\.[0-9]*)?\s*$"  # 1,5 1.501,5 1,501.5
_DAY_OR_MONTH_FIRST = r"^[0-9]{1,2}[/. -][0-9]{1,2}[/. -][0-9]{2,4}([T ,].*)?$"
_NUMBER = r"^\s*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$"


def find(names: Sequence[Any], required: Iterable[str], where: str) -> dict[str, str]:
    """Which of `names` is which column: `{meaning: name}`, for all meanings of SPELLINGS that occur.

    Raises DataError when a required one is missing (it says which, and how they may be spelt), when a name stands
    there twice, or when a date column stands beside a column called time: one of them alone would make all bars of
    a day collide.
    """
    plain: dict[str, str] = {}
    for name in names:
        plain.setdefault(re.sub(r"[\W_]+", "", str(name)).lower(), name)
    found = {}
    for meaning, spellings in SPELLINGS.items():
        present = [plain[spelling] for spelling in spellings if spelling in plain]
        if present:
            found[meaning] = present[0]
    if "time" in plain and "date" in plain:
        both = f"{plain['date']!r} and {plain['time']!r}"
        raise DataError(f"{where}: columns {both} both give the time; join them into one")
    for name in found.values():
        if list(names).count(name) > 1:
            raise DataError(f"{where}: column {name!r} stands there {list(names).count(name)} times")
    missing = [meaning for meaning in required if meaning not in found]
    if missing:
        understood = "; ".join(f"{meaning} as {', '.join(SPELLINGS[meaning])}" for meaning in missing)
        shown = ", ".join(repr(str(name)) for name in list(names)[:20]) or "none"
        raise DataError(f"{where}: no column for {', '.join(missing)}; found {shown}; understood: {understood}")
    return found


def codes(column: pyarrow.ChunkedArray, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Texts (or whole numbers) as `(code int32 (n,), names sorted)`; null and blank texts are -1.

    Blanks around a name are cut off. Raises DataError for any other type.
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
    mapping, names = tidy(encoded.dictionary.to_pylist())
    index = encoded.indices
    index = (index.fill_null(len(mapping) - 1) if index.null_count else index).to_numpy(zero_copy_only=False)
    if not encoded.indices.null_count and np.array_equal(mapping[:-1], np.arange(len(names))):
        return index.astype(np.int32, copy=False), names  # the dictionary is sorted and tidy: its numbers are ours
    return mapping[index], names


def tidy(raw: Sequence[Any]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Names as they came to names without blanks around them, sorted: `(new code of each int32 (n + 1,), names)`.

    None and blank names are -1, and so is the last entry, which stands for null.
    """
    stripped = [None if name is None else str(name).strip() or None for name in raw]
    names = tuple(sorted({name for name in stripped if name is not None}))
    position = {name: k for k, name in enumerate(names)}
    return np.array([-1 if name is None else position[name] for name in stripped] + [-1], np.int32), names


def floats(column: pyarrow.ChunkedArray, where: str, dtype: Any = np.float32) -> np.ndarray:
    """Numbers as `dtype` (n,), rounded to nearest; null, and text that is not a plain decimal number, is NaN.

    Text is parsed as a decimal number and nothing else ("1,5", "0x10" and "1+1" are NaN). A number too large for
    `dtype` is infinite. Raises DataError for a type that holds no numbers, and where the texts are written with commas.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if _is_text(kind):
        text = column.cast(pa.string())
        _refuse(
            text, _WITH_COMMA, f"{where}: numbers are written with commas, as {{}}: write them as 1501.5 (in pandas, "
            "read_csv(..., decimal=',', thousands='.') and to_csv)"
        )  # fmt: skip
        is_number = pc.match_substring_regex(text, _NUMBER)
        column = pc.utf8_trim_whitespace(pc.if_else(is_number, text, None)).cast(pa.float64())
    elif pa.types.is_null(kind) or pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise DataError(f"{where} has type {kind}, expected numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        return column.to_numpy(zero_copy_only=False).astype(dtype, copy=False)


def times(column: pyarrow.ChunkedArray, where: str) -> np.ndarray:
    """Times as UTC nanoseconds since 1970, int64 (n,); NOT_KNOWN where null, unreadable or outside 1678..2261.

    Dates and timestamps of any unit and zone; ISO 8601 text (yyyy/mm/dd too); numbers: yyyymmdd if all of the
    column lies in 19000101..21001231, else seconds, milliseconds, microseconds or nanoseconds since 1970, told
    apart by the largest magnitude (below 1e11, 1e14, 1e17, or above). A time without a zone is UTC. Raises
    DataError for a type that holds no times, and for dates as 03/02/2024, which may be of February or of March.
    """
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if _is_text(kind):
        return _times_of_text(column, where)
    if pa.types.is_timestamp(kind):
        return _scaled(_whole(column.cast(pa.int64())), _NS[kind.unit])
    if pa.types.is_date32(kind):
        days = column.cast(pa.int32())
        whole = _whole(days) if days.null_count else days.to_numpy(zero_copy_only=False)
        return _scaled(whole, 86_400 * 10**9)
    if pa.types.is_date64(kind):
        return _scaled(_whole(column.cast(pa.int64())), 10**6)
    if pa.types.is_integer(kind):
        return _times_of_numbers(_whole(column))
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return _times_of_floats(floats(column, where, np.float64))
    raise DataError(f"{where} has type {kind}, expected dates, timestamps, ISO text, yyyymmdd or seconds since 1970")


def _refuse(text: pyarrow.Array, pattern: str, sentence: str) -> None:
    """DataError, `sentence` with the first such text, where more than the share _MEANT of the texts match."""
    import pyarrow.compute as pc

    found = pc.fill_null(pc.match_substring_regex(text, pattern), False)
    n_found = pc.sum(found).as_py() or 0
    if n_found > _MEANT * (len(text) - text.null_count):
        raise DataError(sentence.format(repr(text.filter(found)[0].as_py())))


def as_text(table: pyarrow.Table) -> pyarrow.Table:
    """Every column as text, as it was read: what is quarantined may not be a number."""
    import pyarrow as pa

    def text(column: pyarrow.ChunkedArray) -> pyarrow.Array:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        try:
            return column.cast(pa.string())
        except pa.ArrowException:  # a type that Arrow has no text for, or a time before year 1
            return pa.array([None if value is None else repr(value) for value in column.to_pylist()], pa.string())

    return pa.table({name: text(table[name]) for name in table.column_names})


def constant(value: str | None, n_rows: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """`codes` of a column that holds one text in all of its rows (a partition folder, the name of a file)."""
    known = value is not None and bool(value.strip())
    return np.full(n_rows, 0 if known else -1, np.int32), (str(value).strip(),) if known else ()


def joined(parts: Sequence[tuple[np.ndarray, tuple[str, ...]]]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Coded columns of several tables as one, with one sorted list of names."""
    if len(parts) == 1:
        return parts[0]
    mappings, names = joint_names([own for _, own in parts])
    mapped = [mapping[code] for (code, _), mapping in zip(parts, mappings, strict=True)]
    return np.concatenate(mapped) if mapped else np.zeros(0, np.int32), names


def joint_names(parts: Sequence[tuple[str, ...]]) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """`(for each list of names the new codes int32 (n + 1,), -1 the last, which stands for null; all names sorted)`."""
    names = tuple(sorted({name for own in parts for name in own}))
    position: Mapping[str, int] = {name: k for k, name in enumerate(names)}
    return [np.array([position[name] for name in own] + [-1], np.int32) for own in parts], names


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _whole(column: pyarrow.ChunkedArray) -> np.ndarray:
    """A column of whole numbers as int64 with NOT_KNOWN for null and for what int64 cannot hold."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_uint64(column.type):
        column = pc.if_else(pc.less_equal(column, np.iinfo(np.int64).max), column, None)
    column = column.cast(pa.int64())
    return (column.fill_null(int(NOT_KNOWN)) if column.null_count else column).to_numpy(zero_copy_only=False)


def _scaled(values: np.ndarray, factor: int) -> np.ndarray:
    """`values * factor`, NOT_KNOWN where that is not known or does not fit."""
    if factor == 1:
        return values
    limit = np.iinfo(np.int64).max // factor
    if values.size and values.min() >= -limit and values.max() <= limit:
        return np.multiply(values, factor, dtype=np.int64)
    fits = (values >= -limit) & (values <= limit)
    return np.where(fits, np.where(fits, values, 0) * np.int64(factor), NOT_KNOWN)


def _times_of_numbers(values: np.ndarray) -> np.ndarray:
    known = values != NOT_KNOWN
    if not known.any():
        return values
    lowest, highest = int(values[known].min()), int(values[known].max())
    if lowest >= 19_000_101 and highest <= 21_001_231:
        year, month, day = values // 10_000, values // 100 % 100, values % 100
        proper = known & (month >= 1) & (month <= 12) & (day >= 1)
        months = (np.where(proper, year, 1970) - 1970) * 12 + np.where(proper, month, 1) - 1
        first = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
        after = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
        days = first + day - 1
        return _scaled(np.where(proper & (days < after), days, NOT_KNOWN), 86_400 * 10**9)
    return _scaled(values, _unit(max(-lowest, highest)))


def _times_of_floats(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values) & (np.abs(values) < 2.0**63)
    whole = np.where(known, values, 0.0)
    if bool((whole == np.floor(whole)).all()):
        return _times_of_numbers(np.where(known, whole, float(NOT_KNOWN)).astype(np.int64))
    unit = _unit(float(np.abs(whole).max()))
    fits = known & (np.abs(whole) * unit < 2.0**62)
    values = np.where(fits, whole, 0.0)
    floor = np.floor(values)  # the whole part apart: nanoseconds since 1970 do not fit float64
    return np.where(fits, floor.astype(np.int64) * unit + np.rint((values - floor) * unit).astype(np.int64), NOT_KNOWN)


def _unit(largest: float) -> int:
    """Nanoseconds of the unit in which times up to `largest` are counted; 1e11 s is the year 5138, 1e11 ms is 1973."""
    for limit, unit in ((1e11, "s"), (1e14, "ms"), (1e17, "us")):
        if largest < limit:
            return _NS[unit]
    return _NS["ns"]


def _times_of_text(column: pyarrow.ChunkedArray, where: str) -> np.ndarray:
    """Each different text is parsed once: the bars of one day share theirs."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if len(column) == 0:
        return np.zeros(0, np.int64)
    encoded = pc.dictionary_encode(column.cast(pa.string())).combine_chunks()
    text = pc.utf8_trim_whitespace(encoded.dictionary)
    _refuse(
        text, _DAY_OR_MONTH_FIRST, f"{where}: dates as {{}} have the day or the month first: write them as 2024-01-31 "
        "(in pandas, to_datetime(..., dayfirst=True) or dayfirst=False, and to_csv)"
    )  # fmt: skip
    if len(text) and pc.all(pc.match_substring_regex(text, r"^-?[0-9]{1,18}$")).as_py():
        values = _times_of_numbers(_whole(pa.chunked_array([text.cast(pa.int64())])))
    else:
        values = _iso_times(text)
    index = encoded.indices
    return np.append(values, NOT_KNOWN)[
        (index.fill_null(len(values)) if index.null_count else index).to_numpy(zero_copy_only=False)
    ]


def _iso_times(text: pyarrow.Array) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pc.replace_substring_regex(text, r"^([0-9]{4})/([0-9]{2})/([0-9]{2})", r"\1-\2-\3")
    for zone in (None, "UTC"):
        try:
            return _whole(pa.chunked_array([text.cast(pa.timestamp("ns", zone)).cast(pa.int64())]))
        except pa.ArrowInvalid:  # at least one text is of another form: with a zone, or one by one
            continue
    return np.array([_iso_time(value) for value in text.to_pylist()], np.int64)


def _iso_time(text: str | None) -> int:
    try:
        moment = datetime.datetime.fromisoformat(text or "")
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        since = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    except (ValueError, OverflowError):
        return int(NOT_KNOWN)
    time_ns = (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000
    return time_ns if abs(time_ns) < 2**63 else int(NOT_KNOWN)
