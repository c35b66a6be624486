"""SQLite files with a table `candles`, opened read-only; values are data, whatever type each row gave them.

Tables whose values keep to one type a column are read by ADBC, where it is installed; all others value by value.
"""

from __future__ import annotations

import pathlib
import sqlite3
import urllib.parse
from typing import TYPE_CHECKING, Any

from gpupipe.data import columns, sqlite_arrow
from gpupipe.data.errors import DataError, printable

if TYPE_CHECKING:
    import pyarrow

TABLE = "candles"
_ROWS_AT_ONCE = 100_000


def read(path: pathlib.Path, timeframe: str | None) -> tuple[pyarrow.Table, dict[str, str], str]:
    """`(table, found, reader)`: the rows of `candles` with this timeframe (None: of all), in the table's order.

    SQLite gives every value its own type. A column whose values differ in type comes as text, and so does what is
    neither number nor text; parsing is left to `columns`. reader: what read it, and why if it was not ADBC; the
    table is the same. Raises DataError when the file is not an SQLite database, or has no such table or columns.
    """
    import pyarrow as pa

    address = f"file:{urllib.parse.quote(str(path.resolve()))}?mode=ro{_at_rest(path)}"
    try:
        connection = sqlite3.connect(address, uri=True)
        try:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            connection.execute("PRAGMA trusted_schema = OFF")
            names = [row[1] for row in connection.execute(f"PRAGMA table_info({TABLE})")]
            if not names:
                tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
                raise DataError(f"{path}: no table {TABLE!r}; the file has {', '.join(map(repr, tables)) or 'none'}")
            found = columns.find(names, columns.REQUIRED, f"{path}, table {TABLE}")
            needed = list(found.values())
            quoted, rest = [*map(_quoted, needed)], f"FROM {TABLE}"
            parameters: tuple[str, ...] = ()
            if timeframe is not None and "timeframe" in found:
                rest, parameters = f"{rest} WHERE {_quoted(found['timeframe'])} = ?", (timeframe,)
            try:
                table = sqlite_arrow.read(address, quoted, _texts(connection, quoted), rest, parameters)
                return table.rename_columns(needed), found, "ADBC"
            except sqlite_arrow.UnsuitableError as unsuitable:
                reader = f"sqlite3 ({printable(str(unsuitable))})"
            cursor = connection.execute(f"SELECT {', '.join(quoted)} {rest}", parameters)
            chunks: list[list[pa.Array]] = [[] for _ in needed]
            while rows := cursor.fetchmany(_ROWS_AT_ONCE):
                for chunk, values in zip(chunks, zip(*rows, strict=True), strict=True):
                    chunk.append(_array(values))
        finally:
            connection.close()
    except (sqlite3.Error, UnicodeError) as error:
        raise DataError(f"{path}: cannot be read as an SQLite file ({error})") from error
    return pa.table({name: _column(chunk) for name, chunk in zip(needed, chunks, strict=True)}), found, reader


def _at_rest(path: pathlib.Path) -> str:
    """What to add to the address of a file with a write-ahead log that nobody has open: SQLite would make one to read.

    The file is then read without locks; that nobody wrote it meanwhile is seen by `sources.unchanging`.
    """
    with path.open("rb") as stream:
        has_log = stream.read(20)[18:20] == b"\2\2"
    return "&immutable=1" if has_log and not path.with_name(f"{path.name}-wal").exists() else ""


def _texts(connection: sqlite3.Connection, quoted: list[str]) -> list[bool]:
    """Whether each column is likely to hold texts: its first value that is not null is no number."""
    first = ", ".join(f"(SELECT typeof({name}) FROM {TABLE} WHERE {name} IS NOT NULL LIMIT 1)" for name in quoted)
    return [kind in ("text", "blob") for kind in connection.execute(f"SELECT {first}").fetchone()]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _array(values: tuple[Any, ...]) -> pyarrow.Array:
    """One type for a chunk of values: whole numbers, numbers, or text."""
    import pyarrow as pa

    kinds = set(map(type, values)) - {type(None)}
    if kinds <= {int}:
        return pa.array(values, pa.int64())
    if kinds <= {int, float}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array([None if value is None else _text(value) for value in values], pa.string())


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _column(chunks: list[pyarrow.Array]) -> pyarrow.ChunkedArray:
    import pyarrow as pa

    kinds = {chunk.type for chunk in chunks if chunk.null_count < len(chunk)}
    for kind in (pa.string(), pa.float64(), pa.int64()):
        if kind in kinds:
            # Whole numbers beyond 2**53 are rounded, as a float beside them in the same chunk would have them.
            return pa.chunked_array([chunk.cast(kind, safe=False) for chunk in chunks], kind)
    return pa.chunked_array(chunks, pa.int64())
