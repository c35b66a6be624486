"""Recognise columns by name and convert their values to the host arrays of a Panel."""

from __future__ import annotations

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
    "utc_offset_s": ("utcoffsets",),
    "timeframe": ("timeframe", "interval", "barsize", "resolution"),
}
REQUIRED = ("symbol", "time", "open", "high", "low", "close", "volume")
_SEVERAL = ("time", "volume")  # meanings of which all columns are read

# A column is refused if more than this share of its texts is ambiguous. Guessing could be wrong for all of them, and
# quarantining would lose most rows. A smaller share is a few broken rows.
_AMBIGUOUS_SHARE = 0.01
_WITH_COMMA = r"^\s*[+-]?[0-9][0-9.' ]*(,[0-9]+)+(\.[0-9]*)?\s*$"  # 1,5 1.501,5 1,501.5
_NUMBER = r"^\s*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$"


def spelling(name: Any) -> str:
    """A column's name as SPELLINGS has it: lower case, without blanks and punctuation.

    >>> spelling("<Trade_Date>")
    'tradedate'
    """
    return re.sub(r"[\W_]+", "", str(name)).lower()


def find(
    names: Sequence[Any], required: Iterable[str], where: str, spellings: Mapping[str, Sequence[str]] = SPELLINGS
) -> dict[str, str]:
    """Match column names to meanings: `{meaning: name}` for every meaning that occurs in `names`.

    spellings: `{meaning: accepted names, as `spelling` writes them}`; the first one that is present wins.

    Further columns of a time or a volume get the meanings "time 2", "time 3", "volume 2" and so on, in the order of
    SPELLINGS: which of them is the bar's is decided by their values (`bar_columns`).

    Raises DataError if a required meaning has no column (the message lists the accepted spellings), or if a column
    name occurs twice.

    >>> find(["Ticker", "Trade Date", "PX_LAST", "note"], ("symbol", "close"), "example")
    {'symbol': 'Ticker', 'time': 'Trade Date', 'close': 'PX_LAST'}
    """
    by_spelling: dict[str, str] = {}
    for name in names:
        by_spelling.setdefault(spelling(name), name)
    matches, further = {}, {}
    for meaning, accepted in spellings.items():
        present = [by_spelling[name] for name in accepted if name in by_spelling]
        if present:
            matches[meaning] = present[0]
        if meaning in _SEVERAL:
            further.update({f"{meaning} {k}": name for k, name in enumerate(present[1:], start=2)})
    matches |= further
    for name in matches.values():
        if list(names).count(name) > 1:
            raise DataError(f"{where}: column {name!r} occurs {list(names).count(name)} times")
    missing = [meaning for meaning in required if meaning not in matches]
    if missing:
        known_names = "; ".join(f"{meaning} as {', '.join(spellings[meaning])}" for meaning in missing)
        shown = ", ".join(repr(str(name)) for name in list(names)[:20]) or "none"
        if "time" in matches and len({"open", "high", "low", "close"} & matches.keys()) < 2 < len(names):
            known_names += (
                "; if the columns are symbols with one price each, that is not enough: give one row for each symbol "
                "and time, or columns of two levels, prices and symbols"
            )
        raise DataError(f"{where}: no column for {', '.join(missing)}; found {shown}; accepted names: {known_names}")
    return matches


def of_meaning(matches: Mapping[str, str], meaning: str) -> list[str]:
    """All columns with a meaning, in the order of SPELLINGS.

    >>> of_meaning(find(["Date", "Time", "Vol"], ("time",), "example"), "time")
    ['Time', 'Date']
    """
    return [name for key, name in matches.items() if key.partition(" ")[0] == meaning]


def encode_names(column: pyarrow.ChunkedArray, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Dictionary-encode texts (or whole numbers): `(code int32 (n,), sorted names)`; null and blank texts get -1.

    Blanks around a name are removed. Raises DataError for any other type.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    value_type = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (is_text(value_type) or pa.types.is_integer(value_type) or pa.types.is_null(value_type)):
        raise DataError(f"{where} has type {column.type}, expected text")
    if len(column) == 0 or pa.types.is_null(value_type):
        return np.full(len(column), -1, np.int32), ()
    if pa.types.is_dictionary(column.type) and any(chunk.dictionary.null_count for chunk in column.chunks):
        column = decoded(column)  # Arrow cannot unify dictionaries that hold a null
    if pa.types.is_dictionary(column.type):
        encoded = column.unify_dictionaries().combine_chunks()
    else:
        encoded = pc.dictionary_encode(column.cast(pa.string()) if is_text(value_type) else column).combine_chunks()
    mapping, names = clean_names(encoded.dictionary.to_pylist())
    index = encoded.indices
    index = (index.fill_null(len(mapping) - 1) if index.null_count else index).to_numpy(zero_copy_only=False)
    if not encoded.indices.null_count and np.array_equal(mapping[:-1], np.arange(len(names))):
        return index.astype(np.int32, copy=False), names  # the dictionary is sorted and clean: keep its codes
    return mapping[index], names


def require_utf8(column: pyarrow.ChunkedArray, where: str) -> None:
    """Raise DataError for texts that are not UTF-8: a damaged file, or one whose writer did not check its texts."""
    import pyarrow as pa

    for chunk in column.chunks:
        text = chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk
        if is_text(text.type):
            try:
                text.validate(full=True)
            except pa.ArrowInvalid:
                raise DataError(f"{where} holds a text that is not UTF-8: write the file again, or repair it") from None


def shown(value: pyarrow.Scalar) -> str:
    """A value for people; a time that Python cannot hold as the number that it is."""
    try:
        return str(value.as_py())
    except (OverflowError, ValueError):
        return str(value.value)


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

    column = decoded(column)
    kind = column.type
    if is_text(kind):
        text = column.cast(pa.string())
        message = f"{where}: numbers are written with commas, as {{}}: write them as 1501.5 (in pandas, "
        refuse_ambiguous(text, _WITH_COMMA, message + "read_csv(..., decimal=',', thousands='.') and to_csv)")
        is_number = pc.match_substring_regex(text, _NUMBER)
        column = pc.utf8_trim_whitespace(pc.if_else(is_number, text, None)).cast(pa.float64())
    elif pa.types.is_null(kind) or pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise DataError(f"{where} has type {kind}, expected numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        return column.to_numpy(zero_copy_only=False).astype(dtype, copy=False)


def refuse_ambiguous(text: pyarrow.Array, pattern: str, message: str) -> None:
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
        column = decoded(column)
        try:
            return column.cast(pa.string())
        except pa.ArrowException:  # a type that Arrow has no text for, or a time before year 1
            return pa.array([shown(value) if value.is_valid else None for value in column], pa.string())

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


def decoded(column: pyarrow.ChunkedArray) -> pyarrow.ChunkedArray:
    """The values of a dictionary-encoded column; any other column as it is."""
    import pyarrow as pa

    kind = column.type
    if not pa.types.is_dictionary(kind):
        return column
    if pa.types.is_string_view(kind.value_type):  # Arrow cannot decode these
        column = column.cast(pa.dictionary(kind.index_type, pa.string()))
    return column.cast(column.type.value_type)


def without_views(table: pyarrow.Table) -> pyarrow.Table:
    """The table with plain texts for views of texts, as polars has them: Arrow takes no rows of these."""
    import pyarrow as pa

    for k, field in enumerate(table.schema):
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_string_view(kind):
            column = decoded(table.column(k)).cast(pa.large_string())
            table = table.set_column(k, field.name, column)
    return table


def is_text(kind: Any) -> bool:
    """Whether an Arrow type holds texts."""
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
