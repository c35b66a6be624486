"""CSV files, plain or gzipped: typed where every value has the type, as text where not, so no row is lost unseen."""

from __future__ import annotations

import csv
import gzip
import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gpupipe.data import columns
from gpupipe.data.errors import DataError

if TYPE_CHECKING:
    import pyarrow

_HEADER_BYTES = 1 << 16
_MALFORMED_SHOWN = 200  # characters of a row that could not be read


def header(path: pathlib.Path) -> tuple[list[str], str]:
    """The column names and the delimiter (comma, semicolon, tab or bar: the most frequent in the first line).

    Raises DataError when the file is empty or its first line is not text.
    """
    opener: Any = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as stream:
            line = stream.readline(_HEADER_BYTES).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError, ValueError) as error:
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
    """`(table, found, malformed)`: the needed columns, which is which (`columns.find`), and rows of another width.

    Symbols, sectors and timeframes are read as text whatever they look like ("NA" and "TRUE" are symbols), prices
    as float64. If some value does not have its column's type, all columns are read again as text and parsed row
    by row later. Raises DataError for a file that is not CSV.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names, delimiter = header(path)
    found = columns.find(names, required, str(path))
    needed = [found[meaning] for meaning in found]
    malformed: list[str] = []

    def skip(row: Any) -> str:
        text = row.text[:_MALFORMED_SHOWN]
        malformed.append(f"{row.actual_columns} fields instead of {row.expected_columns}: {text}")
        return "skip"

    texts = {found[m]: pa.dictionary(pa.int32(), pa.string()) for m in ("symbol", "sector", "timeframe") if m in found}
    numbers = {found[m]: pa.float64() for m in ("open", "high", "low", "close", "volume", "adj_close") if m in found}
    try:
        for types in ({**texts, **numbers}, dict.fromkeys(needed, pa.string())):
            malformed.clear()
            try:
                table = arrow_csv.read_csv(
                    path,
                    read_options=arrow_csv.ReadOptions(column_names=names, skip_rows=1),
                    parse_options=arrow_csv.ParseOptions(delimiter=delimiter, invalid_row_handler=skip),
                    convert_options=arrow_csv.ConvertOptions(include_columns=needed, column_types=types),
                )
                return table, found, tuple(sorted(malformed))
            except pa.ArrowInvalid as error:
                problem = error
        raise DataError(f"{path}: cannot be read as CSV ({_first_line(problem)})") from problem
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as CSV ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
