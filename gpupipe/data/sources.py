"""Read files and folders; each file becomes a RawTable."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import gzip
import os
import pathlib
import re
import urllib.parse
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpupipe.data import bar_store, column_levels, columns, csv_file, file_symbols, sectors, sqlite_file
from gpupipe.data.bar_store import PartFile
from gpupipe.data.errors import DataError, printable
from gpupipe.data.report import Finding

if TYPE_CHECKING:
    import pyarrow

_SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".csv.gz": "csv",
    ".tsv.gz": "csv",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".sqlite": "sqlite",
    ".sqlite3": "sqlite",
    ".db": "sqlite",
}
TITLES = {"parquet": "Parquet", "csv": "CSV", "arrow": "Arrow", "sqlite": "SQLite", "frame": "frame"}
_TEXT_ENDINGS = tuple(ending for ending, kind in _SUFFIXES.items() if kind == "csv")
_EMPTY_BYTES = 256  # a larger file is not looked into
_AGAIN = "download the file again, or remove it"
_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<!doctype|<html|<head|<body|<\?xml|<error|\{\s*\"|\[\s*[\[{])", re.IGNORECASE
)
NO_ROWS, NO_BARS = "file holds no rows", "symbol has no bars"  # kinds of findings
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class RawTable:
    """One table as it was read.

    table: the needed columns under their original names: a pyarrow.Table, or a cuDF DataFrame on the device.
    columns: `{meaning: column name}`, see `columns.find`.  origin: the file, or the type of a frame.
    constants: `{meaning: value of all rows}` from a Hive folder or the file's name; None is null.
    malformed: a description of each row that could not be split into fields.  reader: the library that read it.
    path_names: where the file's name is the symbol, the names of its folders and its own, without ending; else empty.
    notes: sentences on how it was read.  without_bars: symbols that the file names and has no bar of.

    >>> import pyarrow
    >>> prices = pyarrow.table({"Ticker": ["A", "B"], "PX_LAST": [1.5, 2.5]})
    >>> table = RawTable(prices, {"symbol": "Ticker", "close": "PX_LAST"}, "prices.csv", {"sector": "energy"})
    >>> len(table), table.column("close").to_pylist()
    (2, [1.5, 2.5])
    """

    table: Any
    columns: dict[str, str]
    origin: str
    constants: dict[str, str | None] = field(default_factory=dict)
    malformed: tuple[str, ...] = ()
    reader: str = "pyarrow"
    path_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    without_bars: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.table)

    def column(self, meaning: str) -> Any:
        """The column with a meaning, such as "close"."""
        return self.table[self.columns[meaning]]


def _kind_of_name(path: pathlib.Path) -> str:
    kind = next((kind for suffix, kind in _SUFFIXES.items() if path.name.lower().endswith(suffix)), None)
    if kind is None:
        raise DataError(f"{path}: expected a name that ends in {', '.join(_SUFFIXES)}")
    return kind


def file_kind(path: pathlib.Path) -> str:
    """Return the kind that a file's name implies; DataError for an unknown suffix or first bytes of another kind."""
    lower = path.name.lower()
    kind = _kind_of_name(path)
    try:
        with path.open("rb") as stream:
            start = stream.read(4096)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror})") from error
    content = _content_kind(start)
    gzipped = lower.endswith(".gz")
    if not start:
        raise DataError(f"{path}: the file is empty")
    if content != ("gzip" if gzipped else kind):
        expected = f"gzipped {TITLES[kind]}" if gzipped else TITLES[kind]
        raise DataError(f"{path}: named like {expected}, but it holds {TITLES.get(content, content)}")
    return kind


def _is_empty(path: pathlib.Path) -> bool:
    """Whether a file has no content: no bytes, or a text without a letter or digit, as pandas writes an empty frame."""
    try:
        size = path.stat().st_size
        if not 0 < size <= _EMPTY_BYTES or not path.name.lower().endswith(_TEXT_ENDINGS):
            return size == 0
        start = path.read_bytes()
        start = gzip.decompress(start) if path.name.lower().endswith(".gz") else start
    except (OSError, EOFError, zlib.error):  # `file_kind` and the readers say what is wrong
        return False
    return not re.search(rb"[0-9A-Za-z<>\0\x80-\xff]", start.removeprefix(codecs.BOM_UTF8))


def _content_kind(start: bytes) -> str:
    """The kind of a file by its first bytes; a kind that is not read is described in words."""
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow"
    if start.startswith(b"SQLite format 3\0"):
        return "sqlite"
    if start.startswith(b"\x1f\x8b"):
        return "gzip"
    if start.startswith(b"FEA1"):
        return "Feather version 1 (write it again with pyarrow.feather.write_feather)"
    if start.startswith(b"PK\x03\x04"):
        return "a ZIP archive: unpack it"
    if _PAGE.match(start):
        return f"a web page or a server's answer, such as a message of an error: {_AGAIN}"
    if b"\0" in start:
        return "binary data of no known kind"
    return "csv"


def read_path(
    path: pathlib.Path, timeframe: str | None, requested: Sequence[str] | None = None
) -> tuple[str, list[RawTable]]:
    """Read a file or all files of a folder: `(kind, tables)`.

    The files of a folder must be of one kind; Hive folders `key=value` become constants. Files and folders whose names
    start with "." or "_" are skipped. An empty file gives a table without rows, unless all are empty. Of a bar store,
    only the files that its manifest names are read, and of these only the ones of the requested sectors (None: all).
    Raises DataError.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if not path.is_dir():
        kind = file_kind(path)
        return kind, [read_file(path, kind, timeframe, {})]
    if (manifest := bar_store.read_manifest(path)) is not None:
        if not manifest.files:
            raise DataError(f"{path}: the bar store is empty; gpupipe ingest fills it")
        return "parquet", [
            read_file(bar_store.locate(path, file), "parquet", timeframe, {"sector": file.sector})
            for file in files_of_sectors(manifest.files, requested)
        ]
    files = list_files(path)
    empty = set(filter(_is_empty, files))
    if len(empty) == len(files):
        raise DataError(f"{path}: all files of the folder are empty ({files[0].name})")
    kinds = {_kind_of_name(file) if file in empty else file_kind(file): file for file in files}
    if len(kinds) > 1:
        listed = " and ".join(f"{TITLES[kind]} ({file.name})" for kind, file in sorted(kinds.items()))
        raise DataError(f"{path}: the folder mixes {listed}; name one file, or keep one kind in it")
    (kind,) = kinds
    tables, root = [], path.resolve().name
    for file in files:
        relative = file.relative_to(path)
        folders = (root, *(name for name in relative.parts[:-1] if "=" not in name))
        constants = _partition(relative)
        read = _no_rows(file, constants) if file in empty else read_file(file, kind, timeframe, constants, folders)
        tables.append(read)
    return kind, tables


def findings(tables: Sequence[RawTable]) -> tuple[Finding, ...]:
    """What the tables of one source lack: files among others without a row, and symbols without a bar."""
    found = []
    files = [table for table in tables if not len(table) and not table.without_bars]
    if files and len(tables) > 1:
        symbols = sum("symbol" not in table.columns or not table.columns for table in files)
        names = " and ".join(pathlib.Path(table.origin).name for table in files[:2])
        listed = names + (f" and {len(files) - 2} more" if len(files) > 2 else "")
        found.append(Finding(NO_ROWS, "skipped", 0, symbols, printable(listed)))
    without = list(dict.fromkeys(symbol for table in tables for symbol in table.without_bars))
    if without:
        found.append(Finding(NO_BARS, "skipped", 0, len(without), printable(without[0])))
    return tuple(found)


def _no_rows(path: pathlib.Path, constants: dict[str, str | None]) -> RawTable:
    """The table of a file without content."""
    import pyarrow as pa

    names = [name for name in columns.REQUIRED if name != "symbol"]
    table = pa.table({name: pa.array([], pa.string()) for name in names})
    return RawTable(table, dict(zip(names, names, strict=True)), str(path), {"symbol": None, **constants})


def files_of_sectors(files: Sequence[PartFile], requested: Sequence[str] | None) -> list[PartFile]:
    """Select a store's files of the requested sectors.

    All files are returned if a requested sector has none: `bars.select_sectors` then reports it with the nearest name.
    """
    if requested is None:
        return list(files)
    try:
        chosen = sectors.choose(requested, {file.sector for file in files})
    except DataError:
        return list(files)
    return [file for file in files if file.sector in chosen]


def list_files(path: pathlib.Path) -> list[pathlib.Path]:
    """List a folder's readable files in order; `[path]` if it is no folder. DataError if the folder has none."""
    if not path.is_dir():
        return [path]
    files = []
    for folder, below, names in os.walk(path):
        below[:] = sorted(name for name in below if not name.startswith((".", "_")))
        files += [pathlib.Path(folder, name) for name in sorted(names) if not name.startswith((".", "_"))]
    files = [file for file in files if any(file.name.lower().endswith(suffix) for suffix in _SUFFIXES)]
    if not files:
        raise DataError(f"{path}: the folder holds no file that ends in {', '.join(_SUFFIXES)}")
    return files


@contextlib.contextmanager
def require_unchanged(path: pathlib.Path) -> Iterator[None]:
    """Raise DataError if a file is changed, added or removed while the block reads it.

    Compared are device, inode, size, mtime and ctime; no program can set the ctime. If reading fails and a file has
    changed, the change is reported as the cause.

    Two exceptions. Rows committed to an SQLite file with a write-ahead log go to the log and do not count: one query
    sees one state of the table. A bar store is not compared, because its manifest is replaced atomically.
    """
    before = _file_states(path)
    problem: DataError | None = None
    try:
        yield
    except DataError as error:
        problem = error
    after = _file_states(path)
    if changed := sorted(file for file in before.keys() | after.keys() if before.get(file) != after.get(file)):
        raise DataError(
            f"{changed[0]}: changed while it was read: give the command again once nothing writes it"
        ) from problem
    if problem is not None:
        raise problem


def _file_states(path: pathlib.Path) -> dict[pathlib.Path, tuple[int, ...]]:
    states: dict[pathlib.Path, tuple[int, ...]] = {}
    try:
        files = [] if path.is_dir() and bar_store.read_manifest(path) is not None else list_files(path)
    except DataError:  # `read_path` raises it again
        files = []
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            status = file.stat()
            states[file] = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return states


def _partition(relative: pathlib.Path) -> dict[str, str | None]:
    """`{meaning: value}` from the Hive folders of a relative path."""
    values: dict[str, str | None] = {}
    for folder in relative.parts[:-1]:
        key, separator, value = folder.partition("=")
        if separator:
            values[key] = None if value == _HIVE_NULL else urllib.parse.unquote(value)
    return {meaning: values[key] for meaning, key in columns.find(list(values), (), str(relative)).items()}


def read_file(
    path: pathlib.Path,
    kind: str,
    timeframe: str | None,
    constants: dict[str, str | None],
    folders: Sequence[str] = (),
) -> RawTable:
    """Read one file; without a symbol column, its name without the ending is the symbol. Raises DataError.

    folders: names of the folders that the file is in, Hive folders left out; see `file_symbols.resolve`.
    """
    table = _read_file(path, kind, timeframe)
    if kind == "sqlite":
        return table
    name = file_symbols.symbol_of(path.name, tuple(_SUFFIXES))
    named = "symbol" not in table.columns and "symbol" not in constants
    path_names = (*folders, name) if named else ()
    return dataclasses.replace(table, constants={"symbol": name, **constants}, path_names=path_names)


def _read_file(path: pathlib.Path, kind: str, timeframe: str | None) -> RawTable:
    required = [name for name in columns.REQUIRED if name != "symbol"]
    if kind == "csv":
        layout = csv_file.layout(path)
        try:
            table, matches, malformed = csv_file.read(path, required, layout)
        except csv_file.GZIP_ERRORS as error:
            raise csv_file.not_text(path, error) from error
        without: tuple[str, ...] = ()
        if layout.levels is not None:
            table, matches, without = column_levels.to_rows(table, layout.levels)
        return RawTable(table, matches, str(path), malformed=malformed, notes=layout.notes, without_bars=without)
    if kind == "sqlite":
        table, matches, reader = sqlite_file.read(path, timeframe)
        return RawTable(table, matches, str(path), reader=reader)
    table, levels = _read_arrow(path, kind, _parquet if kind == "parquet" else _arrow, required)
    if isinstance(levels, column_levels.Levels):
        table, matches, without = column_levels.to_rows(table, levels)
        return RawTable(table, matches, str(path), notes=(column_levels.NOTE,), without_bars=without)
    return RawTable(table, levels, str(path))


def _read_arrow(path: pathlib.Path, kind: str, reader: Callable[..., Any], required: list[str]) -> Any:
    """Call a reader and turn any error of its library into one DataError."""
    import pyarrow as pa

    try:
        return reader(path, required)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot be read as {TITLES[kind]} ({problem})") from error


def _parquet(path: pathlib.Path, required: list[str]) -> tuple[pyarrow.Table, Any]:
    """`(table, matches)`, or the Levels of columns that pandas named by tuples."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        schema, metadata = file.schema_arrow, file.metadata
        if (levels := column_levels.of_names(schema.names, str(path))) is not None:
            table = file.read(columns=[schema.names[k] for k in levels.positions])
            table.validate(full=True)  # numbers in a damaged page must not point outside its dictionary
            return _by_position(table, levels), levels
    matches = columns.find(schema.names, required, str(path))
    text = [
        matches[meaning]
        for meaning in ("symbol", "sector", "timeframe")
        if meaning in matches and (pa.types.is_string(schema.field(matches[meaning]).type))
    ]
    # Dictionaries keep each name once instead of once a row. Page checksums, where a file has them, are verified.
    # Nanoseconds of INT96, the type of times in older files, would wrap beyond 1678..2261; microseconds do not.
    options = {"page_checksum_verification": True, "coerce_int96_timestamp_unit": "us"}
    with pq.ParquetFile(path, read_dictionary=text, metadata=metadata, **options) as file:
        table = file.read(columns=list(matches.values()))
    table.validate(full=True)
    return table, matches


def _by_position(table: pyarrow.Table, levels: column_levels.Levels) -> pyarrow.Table:
    return table.rename_columns([str(k) for k in levels.positions])


def _arrow(path: pathlib.Path, required: list[str]) -> tuple[pyarrow.Table, Any]:
    """As `_parquet`."""
    import pyarrow as pa

    # Not memory-mapped: if the file were truncated while its pages are in use, SIGBUS would kill the process.
    with pa.OSFile(str(path)) as stream:
        open_ = pa.ipc.open_file if stream.read(6) == b"ARROW1" else pa.ipc.open_stream
        stream.seek(0)
        schema = open_(stream).schema
        levels = column_levels.of_names(schema.names, str(path))
        matches = {} if levels else columns.find(schema.names, required, str(path))
        fields = levels.positions if levels else sorted(schema.get_field_index(name) for name in matches.values())
        stream.seek(0)
        table = open_(stream, options=pa.ipc.IpcReadOptions(included_fields=fields)).read_all()
    table = _by_position(table, levels) if levels else table.select(list(matches.values()))
    table.validate(full=True)  # offsets in a damaged file must not point outside its buffers
    return table, levels or matches
