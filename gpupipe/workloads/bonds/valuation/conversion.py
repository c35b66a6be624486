"""Columns of any kind (numpy, CuPy, pandas, polars, Arrow, lists, scalars) as arrays of numbers, days and texts."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gpupipe.runtime.errors import UserError

NO_DAY = np.iinfo(np.int64).min  # NaT as datetime64[D]
UNKNOWN, ABSENT = -1, -2  # a text that is not known, or a number of coupons that is none; and one that is missing
FIRST_DAY, LAST_DAY, LAST_MATURITY = (
    int(np.datetime64(day, "D").astype(np.int64)) for day in ("1800-01-01", "2300-01-01", "9999-12-31")
)
_KINDS_OF_INTEGERS = (  # by size, what integers outside of all dates look like, and how they become dates
    (10**16, "nanoseconds", "column.view('datetime64[ns]')"),
    (10**13, "microseconds", "column.view('datetime64[us]')"),
    (10**11, "milliseconds", "column.view('datetime64[ms]')"),
    (10**8, "seconds", "column.view('datetime64[s]')"),
    (10**7, "dates as YYYYMMDD", "pandas.to_datetime(column.astype(str)).to_numpy()"),
)


def reader_of(table: Any) -> tuple[Callable[[str], Any], list[str]]:
    """How to get a column of a table by name, and the names of its columns. Raises UserError for what is no table."""
    if isinstance(table, Mapping):
        return lambda name: plain(table[name]), list(table)
    if _library(table) == "pandas" and hasattr(table, "columns"):
        return lambda name: _pandas(table[name]), list(table.columns)
    if hasattr(table, "__arrow_c_stream__") or hasattr(table, "column_names"):
        import pyarrow as pa

        read = table if isinstance(table, (pa.Table, pa.RecordBatch)) else pa.table(table)
        return lambda name: _arrow(read.column(name)), list(read.schema.names)
    raise UserError(
        f"a {type(table).__name__} is no table of bonds; give a mapping of arrays, or a pyarrow, pandas or polars table"
    )


def _library(value: Any) -> str:
    return type(value).__module__.split(".")[0]


def plain(column: Any) -> Any:
    """A series of pandas, polars or Arrow as numpy (texts of Arrow's stay), and a masked array without its mask, as
    `without_mask`. Anything else stays.
    """  # fmt: skip
    if isinstance(column, np.ma.MaskedArray):
        return without_mask(column)
    if not hasattr(column, "dtype") and not hasattr(column, "type"):
        return column
    if _library(column) == "pandas":
        return _pandas(column)
    if _library(column) == "polars":
        return _arrow(column.to_arrow())
    return _arrow(column) if _library(column) == "pyarrow" else column


def without_mask(column: Any) -> np.ndarray:
    """A masked array without its mask: masked values become NaN, NaT, or None of texts."""
    kind, masked = column.dtype.kind, np.ma.getmaskarray(column)
    if kind in "iuf":
        filled = column.data.astype(np.float64)
        filled[masked] = np.nan
    elif kind == "M":
        filled = column.data.copy()
        filled[masked] = np.datetime64("NaT")
    else:
        filled = column.data.astype(object)
        filled[masked] = None
    return filled


def _pandas(series: Any) -> Any:
    import pyarrow as pa

    if series.dtype.kind in "biufM" and isinstance(series.dtype, np.dtype):
        return series.to_numpy()
    try:
        return _arrow(pa.array(series, from_pandas=True))
    except (pa.ArrowException, TypeError, ValueError):
        return series.to_numpy()


def _arrow(column: Any) -> Any:
    """An Arrow column as numpy: dates as datetime64, those of a zone on its clock; nulls as NaN or NaT; texts stay."""
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) == "string_view":
        return column
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        import pyarrow.compute as pc

        if getattr(kind, "tz", None):
            column = pc.local_timestamp(column)
        seconds = column.cast(pa.timestamp("s"), safe=False).cast(pa.int64()).fill_null(NO_DAY)
        return seconds.to_numpy(**_copying(seconds)).astype("datetime64[s]")
    return column.to_numpy(**_copying(column))


def _copying(column: Any) -> dict[str, bool]:
    """The option by which an Array may be copied into numpy; a ChunkedArray always may."""
    import pyarrow as pa

    return {"zero_copy_only": False} if isinstance(column, pa.Array) else {}


def numbers_of(name: str, column: Any) -> Any:
    """A column of numbers, of its type, of 1 dimension, or of none for a scalar."""
    array = column if hasattr(column, "dtype") else np.asarray(column)
    if array.dtype.kind == "O":
        array = _numbers_of_items(name, array)
    if array.dtype.kind not in "iuf" or array.ndim > 1:
        fix = "; convert texts with column.astype(float)" if array.dtype.kind == "U" else ""
        raise UserError(f"column {name!r} is {_shown(array)}; expected numbers, one a bond{fix}")
    return array


def _numbers_of_items(name: str, array: np.ndarray) -> np.ndarray:
    """Objects as float64: numbers, decimals, and None or a missing value of pandas for NaN."""
    items = array.reshape(-1).tolist()
    items = [None if type(item).__name__ == "NAType" else item for item in items]
    for row, item in enumerate(items):
        if not (item is None or isinstance(item, (int, float, decimal.Decimal, np.number))):
            held = f"holds a {type(item).__name__} in row {row}"
            raise UserError(f"column {name!r} {held}; expected numbers, None where one is missing")
    numbers = [np.nan if item is None else float(item) for item in items]
    return np.array(numbers, np.float64).reshape(array.shape)


def counts_of(name: str, column: Any, xp: Any) -> Any:
    """A column of whole numbers as int64: UNKNOWN for broken ones, ABSENT for NaN."""
    array = numbers_of(name, column)
    if array.dtype.kind == "f":
        whole = xp.isfinite(array) & (array == xp.floor(array)) & (abs(array) < 2**53)
        array = xp.where(whole, array, xp.where(xp.isnan(array), ABSENT, UNKNOWN))
    return array.astype(np.int64, copy=False)


def _shown(array: Any) -> str:
    """The type and dimensions of an array, for messages."""
    return f"{array.dtype} of {array.ndim} dimensions"


def days_of(name: str, column: Any) -> Any:
    """Dates as int64 days since 1970-01-01, NO_DAY for NaT; datetime64 in days and int64 without a copy.

    Of a time with a zone, the date on that zone's clock counts.
    Raises UserError for another type, and for days outside 1800 to 2300 (a maturity: to 9999).
    """
    array = column if hasattr(column, "dtype") else np.asarray(column)
    if array.dtype.kind == "O":
        array = _days_of_items(name, array)
    if array.ndim > 1 or array.dtype.kind not in "Mi":
        fix = "; convert texts with column.astype('datetime64[D]')" if array.dtype.kind == "U" else ""
        raise UserError(
            f"column {name!r} is {_shown(array)}; expected dates, as datetime64[D] or as int64 days since 1970-01-01"
            + fix
        )
    if array.dtype.kind == "i":
        days = array.astype(np.int64, copy=False)
    else:
        days = array.astype("datetime64[D]", copy=False).view(np.int64)
    _check_days(name, days, are_integers=array.dtype.kind == "i")
    return days


def _days_of_items(name: str, array: np.ndarray) -> np.ndarray:
    """Objects as datetime64[D]: dates, times (on the clock of their zone), datetime64 or None."""
    items = array.reshape(-1).tolist()
    for row, item in enumerate(items):
        if not (item is None or isinstance(item, (datetime.date, np.datetime64))):
            held = f"holds a {type(item).__name__} in row {row}"
            raise UserError(f"column {name!r} {held}; expected dates: datetime64, datetime.date or None")
    # NaT of pandas differs from itself; a time becomes its date before numpy would turn it to UTC
    dates = [item.date() if isinstance(item, datetime.datetime) and item == item else item for item in items]
    days = [np.datetime64(item, "D") if item is not None and item == item else NO_DAY for item in dates]
    return np.array(days, "datetime64[D]").reshape(array.shape)


def _check_days(name: str, days: Any, are_integers: bool) -> None:
    """Raise UserError for days that can be no dates of bonds."""
    last = LAST_MATURITY if name == "maturity" else LAST_DAY
    outside = (days != NO_DAY) & ((days < FIRST_DAY) | (days > last))
    if not bool(outside.any()):
        return
    if np.ndim(days):
        days = days[outside]
    value, limits = int(days.reshape(-1)[0]), f"1800 to {'9999' if name == 'maturity' else '2300'}"
    if not are_integers:
        raise UserError(
            f"column {name!r} has the date {np.datetime64(value, 'D')}; expected dates from {limits}, or NaT"
        )
    size = abs(value)
    for least, kind, fix in _KINDS_OF_INTEGERS:
        if size >= least:
            raise UserError(
                f"column {name!r} holds {value}, which looks like {kind}; expected int64 days since 1970-01-01, or "
                f"datetime64: convert it with {fix}"
            )
    raise UserError(f"column {name!r} holds {value}; expected int64 days since 1970-01-01, of dates from {limits}")


def texts_of(name: str, column: Any, known: Sequence[str]) -> Any:
    """int8: the numbers of texts in the list of those known, UNKNOWN for others, ABSENT for missing ones; numbers stay.

    Raises UserError for another type.
    """
    if isinstance(column, str):
        return _number_of(column, known)
    if getattr(getattr(column, "dtype", None), "kind", "") in ("i", "u"):
        inside = (column >= 0) & (column < len(known))
        return (inside * (column + 1) - 1).astype(np.int8)
    import pyarrow as pa

    try:
        texts = column if isinstance(column, (pa.Array, pa.ChunkedArray)) else pa.array(column, pa.string())
    except (pa.ArrowException, TypeError):
        kind, items = getattr(column, "dtype", type(column).__name__), np.atleast_1d(np.asarray(column, object))
        others = [type(item).__name__ for item in items.reshape(-1).tolist() if not isinstance(item, str | None)]
        held = f" that holds a {others[0]}" if others and str(kind) in ("object", "list", "tuple") else ""
        raise UserError(f"column {name!r} is {kind}{held}; expected texts: {', '.join(known)}") from None
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    if not pa.types.is_dictionary(texts.type):
        texts = texts.dictionary_encode()
    numbers = np.array([*(_number_of(text, known) for text in texts.dictionary.to_pylist()), ABSENT], np.int8)
    return numbers[texts.indices.fill_null(len(numbers) - 1).to_numpy(zero_copy_only=False).astype(np.int64)]


def _number_of(text: str | None, known: Sequence[str]) -> np.int8:
    """The number of a text in the list of those known."""
    lowered = ("" if text is None else text).strip().lower()
    if not lowered:
        return np.int8(ABSENT)
    return np.int8(known.index(lowered) if lowered in known else UNKNOWN)
