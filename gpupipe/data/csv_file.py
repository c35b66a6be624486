"""Read CSV files, plain or gzipped: typed if every value has its column's type, else as text, so no row is lost."""

from __future__ import annotations

import codecs
import csv
import gzip
import pathlib
import re
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gpupipe.data import columns
from gpupipe.data.errors import DataError

if TYPE_CHECKING:
    import pyarrow

_HEADER_BYTES = 1 << 16
_OFFSET = re.compile(rb"[T ][0-9]{2}(?::?[0-9]{2}){0,2}(?:[.,][0-9]+)? ?[+-][01][0-9](?::?[0-9]{2})?(?=[\"',;|\t\r\n])")
_MALFORMED_SHOWN = 200  # characters of a malformed row that the report keeps


def header(path: pathlib.Path) -> tuple[list[str], str]:
    """Read the first line: `(column names, delimiter)`; of comma, semicolon, tab and bar the most frequent one.

    Raises DataError if the file is empty or its first line is not text.
    """
    try:
        with _open(path) as stream:
            line = stream.readline(_HEADER_BYTES).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(f"{path}: not a CSV text in UTF-8 ({error})") from error
    if "\0" in line:
        raise DataError(f"{path}: not a CSV text: its first line holds binary zeros")
    line = line.strip("\r\n")
    if not line.strip():
        raise DataError(f"{path}: the first line is empty; expected the names of the columns")
    delimiter = max(",;\t|", key=line.count)
    try:
        names = next(csv.reader([line], delimiter=delimiter))
    except csv.Error as error:
        raise DataError(f"{path}: the first line cannot be read as CSV ({error})") from error
    return names, delimiter


def read(path: pathlib.Path, required: Iterable[str]) -> tuple[pyarrow.Table, dict[str, str], tuple[str, ...]]:
    """Read the needed columns: `(table, matches, malformed)`.

    matches: `{meaning: column name}`, see `columns.find`.  malformed: a description of each row that has another
    number of fields than the header; the table leaves these rows out.

    Symbols, sectors and timeframes are always read as text ("NA" and "TRUE" are symbols), and prices as float64. If
    some value does not have its column's type, all columns are read again as text, to be parsed row by row later.
    Raises DataError for a file that is not CSV.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names, delimiter = header(path)
    matches = columns.find(names, required, str(path))
    needed = list(matches.values())
    malformed: list[str] = []

    def skip(row: Any) -> str:
        text = row.text[:_MALFORMED_SHOWN]
        malformed.append(f"{row.actual_columns} fields instead of {row.expected_columns}: {text}")
        return "skip"

    label_type, label_meanings = pa.dictionary(pa.int32(), pa.string()), ("symbol", "sector", "timeframe")
    labels = {matches[m]: label_type for m in label_meanings if m in matches}
    number_meanings = ("open", "high", "low", "close", "volume", "adj_close")
    numbers = {name: pa.float64() for m in number_meanings for name in columns.of_meaning(matches, m)}
    typed, text = {**labels, **numbers}, dict.fromkeys(needed, pa.string())
    if "time" in matches and _has_zone(path):  # read as a time, it would be UTC and its offset lost
        typed |= dict.fromkeys(columns.of_meaning(matches, "time"), label_type)
    problem: Exception | None = None
    for types, handler in ((typed, None), (typed, skip), (text, skip)):
        malformed.clear()
        if problem is not None:  # pyarrow's invalid_row_handler must not meet text that is not UTF-8
            _check_utf8(path)
        try:
            table = arrow_csv.read_csv(
                path,
                read_options=arrow_csv.ReadOptions(column_names=names, skip_rows=1),
                parse_options=arrow_csv.ParseOptions(delimiter=delimiter, invalid_row_handler=handler),
                convert_options=arrow_csv.ConvertOptions(include_columns=needed, column_types=types),
            )
            return table, matches, tuple(sorted(malformed))
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            problem = error
    raise DataError(f"{path}: cannot be read as CSV ({_first_line(problem)})") from problem


def _has_zone(path: pathlib.Path) -> bool:
    """Whether a field in the first lines ends in an offset from UTC such as -04:00, +0900 or +00.

    An offset of zero counts: London has it in winter only.
    """
    with _open(path) as stream:
        return _OFFSET.search(stream.read(_HEADER_BYTES)) is not None


def _open(path: pathlib.Path) -> Any:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")


def _check_utf8(path: pathlib.Path) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with _open(path) as stream:
            while block := stream.read(1 << 20):
                decoder.decode(block)
            decoder.decode(b"", final=True)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(f"{path}: not a CSV text in UTF-8 ({_first_line(error)})") from error


def _first_line(error: BaseException | None) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
