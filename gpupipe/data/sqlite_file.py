"""Read SQLite files with a table `candles`, opened read-only; SQLite gives every value a type of its own.

Tables with one type per column are read by ADBC if it is installed, all others value by value.
"""

from __future__ import annotations

import contextlib
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
    """Read the rows of `candles` with this timeframe (None: all), in the table's order: `(table, matches, reader)`.

    A column whose values differ in type becomes text, as does any value that is neither number nor text; `columns`
    parses it.  matches: `{meaning: column name}`.  reader: "ADBC", or sqlite3 with the reason; the table is the same.

    Raises DataError if the file is no SQLite database or lacks the table or a required column.
    """
    address = f"file:{urllib.parse.quote(str(path.resolve()))}?mode=ro{_immutable(path)}"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            connection.execute("PRAGMA trusted_schema = OFF")
            names = [row[1] for row in connection.execute(f"PRAGMA table_info({TABLE})")]
            if not names:
                tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
                raise DataError(f"{path}: no table {TABLE!r}; the file has {', '.join(map(repr, tables)) or 'none'}")
            matches = columns.find(names, columns.REQUIRED, f"{path}, table {TABLE}")
            needed = list(matches.values())
            quoted, rest = [*map(_quoted, needed)], f"FROM {TABLE}"
            parameters: tuple[str, ...] = ()
            if timeframe is not None and "timeframe" in matches:
                rest, parameters = f"{rest} WHERE {_quoted(matches['timeframe'])} = ?", (timeframe,)
            try:
                table = sqlite_arrow.read(address, quoted, _texts(connection, quoted), rest, parameters)
                return table.rename_columns(needed), matches, "ADBC"
            except sqlite_arrow.UnsuitableError as unsuitable:
                reader = f"sqlite3 ({printable(str(unsuitable))})"
            cursor = connection.execute(f"SELECT {', '.join(quoted)} {rest}", parameters)
            return _fetch(cursor, needed), matches, reader
    except (sqlite3.Error, UnicodeError) as error:
        raise DataError(f"{path}: cannot be read as an SQLite file ({error})") from error


def _fetch(cursor: sqlite3.Cursor, names: list[str]) -> pyarrow.Table:
    """Fetch all rows value by value into columns with these names."""
    import pyarrow as pa

    chunks: list[list[pyarrow.Array]] = [[] for _ in names]
    while rows := cursor.fetchmany(_ROWS_AT_ONCE):
        for arrays, values in zip(chunks, zip(*rows, strict=True), strict=True):
            arrays.append(_array(values))
    return pa.table({name: _column(arrays) for name, arrays in zip(names, chunks, strict=True)})


def _immutable(path: pathlib.Path) -> str:
    """The URI option for a file in write-ahead mode without a log file: else SQLite would create one to read it.

    The file is then read without locks; `sources.require_unchanged` detects a write in the meantime.
    """
    with path.open("rb") as stream:
        write_ahead_mode = stream.read(20)[19:] == b"\2"  # the version that readers need; SQLite asks no more
    return "&immutable=1" if write_ahead_mode and not path.with_name(f"{path.name}-wal").exists() else ""


def _texts(connection: sqlite3.Connection, quoted: list[str]) -> list[bool]:
    """Whether each column is likely to hold texts: its first non-null value is no number."""
    first = ", ".join(f"(SELECT typeof({name}) FROM {TABLE} WHERE {name} IS NOT NULL LIMIT 1)" for name in quoted)
    return [kind in ("text", "blob") for kind in connection.execute(f"SELECT {first}").fetchone()]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _array(values: tuple[Any, ...]) -> pyarrow.Array:
    """Convert a chunk of values to one type: int64, else float64, else text."""
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
    """Convert all chunks to the widest of their types."""
    import pyarrow as pa

    kinds = {chunk.type for chunk in chunks if chunk.null_count < len(chunk)}
    for kind in (pa.string(), pa.float64(), pa.int64()):
        if kind in kinds:
            # safe=False: whole numbers beyond 2**53 are rounded, as `_array` does in a chunk that also holds a float.
            return pa.chunked_array([chunk.cast(kind, safe=False) for chunk in chunks], kind)
    return pa.chunked_array(chunks, pa.int64())
