"""Read CSV files, plain or gzipped: typed if every value has its column's type, else as text, so no row is lost."""

from __future__ import annotations

import codecs
import csv
import gzip
import pathlib
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpupipe.data import column_levels, columns
from gpupipe.data.errors import DataError

if TYPE_CHECKING:
    import pyarrow

_HEADER_BYTES = 1 << 16
_LINE_BYTES = 1 << 22  # a line with the names of the columns of thousands of symbols
_CLOCK = rb"[T ][0-9]{2}(?::?[0-9]{2}){0,2}(?:[.,][0-9]+)? ?"
_FIELD_ENDS = rb"(?=[\"',;|\t\r\n])"
_OFFSET = re.compile(_CLOCK + rb"[+-][01][0-9](?::?[0-9]{2})?" + _FIELD_ENDS)
_ZONE = re.compile(_CLOCK + rb"(?:Z|[+-][01][0-9](?::?[0-9]{2})?)" + _FIELD_ENDS)
_MALFORMED_SHOWN = 200  # characters of a malformed row that the report keeps
_KLINE_NAMES = (
    "open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count",
    "taker_buy_volume", "taker_buy_quote_volume", "ignore",
)  # fmt: skip
_KLINE_NOTE = "files without names of columns were read as Binance klines (open_time, open, high, low, close, volume)"
GZIP_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile)
_AGAIN = "download the file again, or remove it"


@dataclass(frozen=True)
class Layout:
    """How a CSV file begins.

    names: of the columns; their positions as texts if they have two levels.  delimiter: between them.
    n_lines: lines before the first row.  levels: see `column_levels`; None for columns with one name.
    notes: sentences for the report.

    >>> Layout(("date", "close"), ",").n_lines
    1
    """

    names: tuple[str, ...]
    delimiter: str
    n_lines: int = 1
    levels: column_levels.Levels | None = None
    notes: tuple[str, ...] = ()


def layout(path: pathlib.Path) -> Layout:
    """Read the first lines of a file of bars.

    Columns of two levels, as yfinance writes them, are recognised, and the klines of Binance, which have no line of
    names. Raises DataError as `header` does.
    """
    lines = _lines(path, 3)
    delimiter, rows = _split(path, lines)
    found = column_levels.of_lines(rows, str(path))
    if found is not None:
        names = tuple(map(str, range(len(rows[0]))))
        return Layout(names, delimiter, found[1], found[0], (column_levels.NOTE,))
    if _is_kline(rows[0]):
        return Layout(_KLINE_NAMES, delimiter, 0, notes=(_KLINE_NOTE,))
    return Layout(tuple(rows[0]), delimiter)


def header(path: pathlib.Path) -> tuple[list[str], str]:
    """Read the first line: `(column names, delimiter)`; of comma, semicolon, tab and bar the most frequent one.

    Raises DataError if the file is empty or its first line is not text.
    """
    delimiter, rows = _split(path, _lines(path, 1))
    return rows[0], delimiter


def _plain_layout(path: pathlib.Path) -> Layout:
    names, delimiter = header(path)
    return Layout(tuple(names), delimiter)


def _lines(path: pathlib.Path, count: int) -> list[str]:
    try:
        with _open(path) as stream:
            raw = [stream.readline(_LINE_BYTES) for _ in range(count)]
        lines = [raw[0].decode("utf-8-sig"), *(line.decode("utf-8", "replace") for line in raw[1:])]
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise not_text(path, error) from error
    return [line.strip("\r\n") for line in lines]


def _split(path: pathlib.Path, lines: Sequence[str]) -> tuple[str, list[list[str]]]:
    """`(delimiter, the fields of each line)`; lines after the first that are no CSV are left out."""
    line = lines[0]
    if "\0" in line:
        raise DataError(f"{path}: not a CSV text: its first line holds binary zeros")
    if not line.strip():
        raise DataError(f"{path}: the first line is empty; expected the names of the columns")
    delimiter = max(",;\t|", key=line.count)
    try:
        rows = [next(csv.reader([line], delimiter=delimiter))]
    except csv.Error as error:
        raise DataError(f"{path}: the first line cannot be read as CSV ({error})") from error
    for later in lines[1:]:
        try:
            rows.append(next(csv.reader([later], delimiter=delimiter), []))
        except csv.Error:
            break
    return delimiter, rows


def _is_kline(row: Sequence[str]) -> bool:
    """Whether a line is a kline of Binance: twelve numbers, of which two are the times of a bar, with valid prices."""
    try:
        values = [float(cell) for cell in row]
    except ValueError:
        return False
    if len(values) != len(_KLINE_NAMES):
        return False
    begin, open_, high, low, close, volume, end = values[:7]
    units = [unit for unit in (1e3, 1e6) if 1.4e9 * unit <= begin < end < 1e11 * unit]  # ms, and us since 2025
    return bool(units) and 0 < low <= min(open_, close) <= max(open_, close) <= high and volume >= 0


def _match(path: pathlib.Path, names: Sequence[str], required: Iterable[str]) -> dict[str, str]:
    """`columns.find`, with another message for a file whose first line is a row."""
    try:
        return columns.find(names, required, str(path))
    except DataError as error:
        n_numbers = sum(re.fullmatch(r"\s*[+-]?[0-9.]+\s*", name) is not None for name in names)
        if n_numbers < 4 or n_numbers < len(names) - 2:
            raise
        shown = ",".join(names)[:80]
        raise DataError(
            f"{path}: the first line holds values, not the names of the columns ({shown}); write a first line such as "
            "date,open,high,low,close,volume"
        ) from error


def read(
    path: pathlib.Path, required: Iterable[str], beginning: Layout | None = None
) -> tuple[pyarrow.Table, dict[str, str], tuple[str, ...]]:
    """Read the needed columns: `(table, matches, malformed)`.

    beginning: of `layout`; None for a file whose first line names the columns. Columns of two levels are read under
    their positions and have no matches but the time, see `column_levels.to_rows`.

    matches: `{meaning: column name}`, see `columns.find`.  malformed: a description of each row that has another
    number of fields than the header; the table leaves these rows out.

    Symbols, sectors and timeframes are always read as text ("NA" and "TRUE" are symbols), and prices as float64. If
    some value does not have its column's type, all columns are read again as text, to be parsed row by row later.
    Raises DataError for a file that is not CSV.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    begins = beginning or _plain_layout(path)
    levels = begins.levels
    matches = {"time": str(levels.time)} if levels else _match(path, begins.names, required)
    needed = [str(k) for k in levels.positions] if levels else list(matches.values())
    malformed: list[str] = []
    skip = skipping(malformed)
    label_type, label_meanings = pa.dictionary(pa.int32(), pa.string()), ("symbol", "sector", "timeframe")
    labels = {matches[m]: label_type for m in label_meanings if m in matches}
    number_meanings = ("open", "high", "low", "close", "volume", "adj_close")
    named = [name for meaning in number_meanings for name in columns.of_meaning(matches, meaning)]
    numbers = dict.fromkeys(levels.value_names if levels else named, pa.float64())
    typed, text = {**labels, **numbers}, dict.fromkeys(needed, pa.string())
    times = columns.of_meaning(matches, "time")
    zoned = _zoned(path, begins, times)  # read as times, their texts would be UTC and an offset lost
    typed |= {name: label_type if has_offset else pa.string() for name, has_offset in zoned.items()}
    problem: Exception | None = None
    attempts = [(typed, None), (typed, skip), (text, skip)]
    while attempts:
        types, handler = attempts.pop(0)
        malformed.clear()
        if problem is not None:  # pyarrow's invalid_row_handler must not meet text that is not UTF-8
            check_utf8(path)
        try:
            table = arrow_csv.read_csv(
                path,
                read_options=arrow_csv.ReadOptions(column_names=begins.names, skip_rows=begins.n_lines),
                parse_options=arrow_csv.ParseOptions(delimiter=begins.delimiter, invalid_row_handler=handler),
                convert_options=arrow_csv.ConvertOptions(include_columns=needed, column_types=types),
            )
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            problem = error
            continue
        late = [name for name in times if getattr(table[name].type, "tz", None) is not None]
        if late:  # a zone, and none among the first rows
            attempts = [(types | dict.fromkeys(late, pa.string()), handler)]
            continue
        for k, name in enumerate(table.column_names):
            if types is not text and name in times and types.get(name) == pa.string():
                table = table.set_column(k, name, _utc_times(table[name]))
        return table, matches, tuple(sorted(malformed))
    raise DataError(f"{path}: cannot be read as CSV ({_first_line(problem)})") from problem


def _zoned(path: pathlib.Path, begins: Layout, times: Sequence[str]) -> dict[str, bool]:
    """The columns of times whose first texts end in Z or in an offset such as -04:00, +0900 or +00.

    `{column: whether some text has an offset}`. An offset of zero counts: London has it in winter only.
    """
    if not times:
        return {}
    with _open(path) as stream:
        for _ in range(begins.n_lines):
            stream.readline(_LINE_BYTES)
        start: bytes = stream.read(_HEADER_BYTES)
    if not _ZONE.search(start):
        return {}
    rows = [line.split(begins.delimiter.encode()) for line in start.splitlines()]
    zoned = {}
    for name in times:
        position = begins.names.index(name)
        cells = b"\n".join(row[position].strip(b'"') for row in rows if len(row) > position) + b"\n"
        if _ZONE.search(cells):
            zoned[name] = _OFFSET.search(cells) is not None
    return zoned or dict.fromkeys(times, _OFFSET.search(start) is not None)  # a quoted text may hold a delimiter


def _utc_times(text: pyarrow.ChunkedArray) -> pyarrow.ChunkedArray:
    """Times of texts that all end in Z. If some do not, the texts: they may have an offset, which a time would lose.

    Blank texts and those that stand for a missing value become null.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv as arrow_csv

    if not pc.all(pc.ends_with(text, "Z")).as_py():
        text = pc.if_else(pc.is_in(text, pa.array(arrow_csv.ConvertOptions().null_values)), None, text)
        if not pc.all(pc.ends_with(text, "Z")).as_py():
            return text
    try:
        return text.cast(pa.timestamp("ns", "UTC"))
    except pa.ArrowInvalid:  # `text_times` knows more forms
        return text


def _open(path: pathlib.Path) -> Any:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")


def skipping(malformed: list[str]) -> Callable[[Any], str]:
    """A handler for pyarrow's reader that leaves out rows with too many or too few fields, and describes them."""

    def skip(row: Any) -> str:
        text = row.text[:_MALFORMED_SHOWN]
        malformed.append(f"{row.actual_columns} fields instead of {row.expected_columns}: {text}")
        return "skip"

    return skip


def check_utf8(path: pathlib.Path) -> None:
    """Raise DataError for a file that is not text in UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with _open(path) as stream:
            while block := stream.read(1 << 20):
                decoder.decode(block)
            decoder.decode(b"", final=True)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise not_text(path, error) from error


def not_text(path: pathlib.Path, error: BaseException) -> DataError:
    """The DataError for a file that cannot be read as text."""
    if isinstance(error, GZIP_ERRORS):
        return DataError(f"{path}: not a CSV text: its gzip data are cut or damaged ({_first_line(error)}): {_AGAIN}")
    return DataError(f"{path}: not a CSV text in UTF-8 ({_first_line(error)})")


def _first_line(error: BaseException | None) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
