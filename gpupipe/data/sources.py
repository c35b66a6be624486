"""Read files, folders and frames; each becomes one or more RawTables."""

from __future__ import annotations

import contextlib
import os
import pathlib
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpupipe.data import bar_store, columns, csv_file, sqlite_file
from gpupipe.data.bar_store import PartFile
from gpupipe.data.errors import DataError

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
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class RawTable:
    """One table as it was read.

    table: the needed columns under their original names: a pyarrow.Table, or a cuDF DataFrame on the device.
    columns: `{meaning: column name}`, see `columns.find`.  origin: the file, or the type of a frame.
    constants: `{meaning: value of all rows}` from a Hive folder or the file's name; None is null.
    malformed: a description of each row that could not be split into fields.  reader: the library that read it.

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

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.table)

    def column(self, meaning: str) -> Any:
        """The column with a meaning, such as "close"."""
        return self.table[self.columns[meaning]]


def file_kind(path: pathlib.Path) -> str:
    """Return the kind that a file's name implies; DataError for an unknown suffix or first bytes of another kind."""
    lower = path.name.lower()
    kind = next((kind for suffix, kind in _SUFFIXES.items() if lower.endswith(suffix)), None)
    if kind is None:
        raise DataError(f"{path}: expected a name that ends in {', '.join(_SUFFIXES)}")
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
    if b"\0" in start:
        return "binary data of no known kind"
    return "csv"


def read_path(
    path: pathlib.Path, timeframe: str | None, requested: Sequence[str] | None = None
) -> tuple[str, list[RawTable]]:
    """Read a file or all files of a folder: `(kind, tables)`.

    The files of a folder must be of one kind; Hive folders `key=value` become constants. Files and folders whose names
    start with "." or "_" are skipped. Of a bar store, only the files that its manifest names are read, and of these
    only the ones of the requested sectors (None: all). Raises DataError.
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
    kinds = {file_kind(file): file for file in files}
    if len(kinds) > 1:
        listed = " and ".join(f"{TITLES[kind]} ({file.name})" for kind, file in sorted(kinds.items()))
        raise DataError(f"{path}: the folder mixes {listed}; name one file, or keep one kind in it")
    (kind,) = kinds
    return kind, [read_file(file, kind, timeframe, _partition(file.relative_to(path))) for file in files]


def files_of_sectors(files: Sequence[PartFile], requested: Sequence[str] | None) -> list[PartFile]:
    """Select a store's files of the requested sectors.

    All files are returned if a requested sector has none: `bars.select_sectors` then reports it with the nearest name.
    """
    if requested is None or not set(requested) <= {file.sector for file in files}:
        return list(files)
    return [file for file in files if file.sector in requested]


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


def read_file(path: pathlib.Path, kind: str, timeframe: str | None, constants: dict[str, str | None]) -> RawTable:
    """Read one file; without a symbol column, its name up to the first dot is the symbol. Raises DataError."""
    constants = {"symbol": path.name.split(".")[0], **constants}
    required = [name for name in columns.REQUIRED if name != "symbol"]
    if kind == "csv":
        table, matches, malformed = csv_file.read(path, required)
        return RawTable(table, matches, str(path), constants, malformed)
    if kind == "sqlite":
        table, matches, reader = sqlite_file.read(path, timeframe)
        return RawTable(table, matches, str(path), reader=reader)
    table, matches = _read_arrow(path, kind, _parquet if kind == "parquet" else _arrow, required)
    return RawTable(table, matches, str(path), constants)


def _read_arrow(path: pathlib.Path, kind: str, reader: Callable[..., Any], required: list[str]) -> Any:
    """Call a reader and turn any error of its library into one DataError."""
    import pyarrow as pa

    try:
        return reader(path, required)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot be read as {TITLES[kind]} ({problem})") from error


def _parquet(path: pathlib.Path, required: list[str]) -> tuple[pyarrow.Table, dict[str, str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        schema, metadata = file.schema_arrow, file.metadata
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
        return file.read(columns=list(matches.values())), matches


def _arrow(path: pathlib.Path, required: list[str]) -> tuple[pyarrow.Table, dict[str, str]]:
    import pyarrow as pa

    # Not memory-mapped: if the file were truncated while its pages are in use, SIGBUS would kill the process.
    with pa.OSFile(str(path)) as stream:
        open_ = pa.ipc.open_file if stream.read(6) == b"ARROW1" else pa.ipc.open_stream
        stream.seek(0)
        schema = open_(stream).schema
        matches = columns.find(schema.names, required, str(path))
        fields = sorted(schema.get_field_index(name) for name in matches.values())
        stream.seek(0)
        table = open_(stream, options=pa.ipc.IpcReadOptions(included_fields=fields)).read_all()
    table = table.select(list(matches.values()))
    table.validate(full=True)  # offsets in a damaged file must not point outside its buffers
    return table, matches


def from_frame(frame: Any) -> RawTable:
    """Convert a pandas, polars or pyarrow frame, or any object with an Arrow stream. Raises DataError."""
    where = f"{type(frame).__module__.split('.')[0]} {type(frame).__name__}"
    table, matches = frame_columns(frame, columns.REQUIRED, where)
    return RawTable(table, matches, where)


def frame_columns(frame: Any, required: Iterable[str], where: str) -> tuple[pyarrow.Table, dict[str, str]]:
    """Convert a frame's needed columns: `(table, {meaning: column name})`. Raises DataError."""
    import pyarrow as pa

    try:
        if type(frame).__module__.split(".")[0] == "pandas":
            return _pandas_columns(frame, required, where)
        if not isinstance(frame, (pa.Table, pa.RecordBatch)) and not hasattr(frame, "__arrow_c_stream__"):
            expected = "a path, a pandas, polars, pyarrow or cuDF frame, 'demo' or 'simulated'"
            raise DataError(f"cannot read a {where}; expected {expected}")
        frame = pa.table(frame)
        matches = columns.find(frame.column_names, required, where)
        return frame.select(list(matches.values())), matches
    except (pa.ArrowException, UnicodeEncodeError, OverflowError) as error:
        raise DataError(f"{where}: cannot be read ({str(error).splitlines()[0]})") from error


def _pandas_columns(frame: Any, required: Iterable[str], where: str) -> tuple[pyarrow.Table, dict[str, str]]:
    """Columns and named index levels; an unnamed DatetimeIndex is the time. A column of mixed types becomes text."""
    import pandas as pd
    import pyarrow as pa

    if not isinstance(frame, pd.DataFrame):
        raise DataError(f"cannot read a {where}; expected a pandas DataFrame")
    if frame.columns.nlevels > 1:
        raise DataError(f"{where}: its columns have {frame.columns.nlevels} levels; stack the symbols into rows first")
    if isinstance(frame.index, pd.DatetimeIndex) and frame.index.name is None:
        frame = frame.rename_axis("time")
    named = [name for name in frame.index.names if name is not None and name not in frame.columns]
    index = {str(name): frame.index.get_level_values(name) for name in named}
    names = [*index, *map(str, frame.columns)]
    matches = columns.find(names, required, where)
    frame = frame.set_axis(names[len(index) :], axis=1)
    table = pa.table({name: _to_arrow(index[name] if name in index else frame[name]) for name in matches.values()})
    return table, matches


def _to_arrow(values: Any) -> pyarrow.ChunkedArray:
    import pandas as pd
    import pyarrow as pa

    try:
        array = pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        missing = [pd.api.types.is_scalar(value) and pd.isna(value) for value in values.tolist()]
        texts = [None if is_missing else str(value) for is_missing, value in zip(missing, values.tolist(), strict=True)]
        array = pa.array(texts, pa.string())
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])
