"""What can be read: files and folders by kind, and frames; each becomes one or more Parts."""

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
class Part:
    """One table as it was read.

    table: the needed columns under their own names (pyarrow.Table, or a cuDF DataFrame that stays on the device).
    found: meaning -> name of the column.  constants: meaning -> the one value of all rows (a hive folder, the
    file's name), None where it is null.  origin: the file.  malformed: what was wrong with rows that are no rows.
    reader: what read it.
    """

    table: Any
    found: dict[str, str]
    origin: str
    constants: dict[str, str | None] = field(default_factory=dict)
    malformed: tuple[str, ...] = ()
    reader: str = "pyarrow"


def kind_of(path: pathlib.Path) -> str:
    """The kind that the file's name says; DataError if the name says nothing or its first bytes say otherwise."""
    lower = path.name.lower()
    kind = next((kind for suffix, kind in _SUFFIXES.items() if lower.endswith(suffix)), None)
    if kind is None:
        raise DataError(f"{path}: expected a name that ends in {', '.join(_SUFFIXES)}")
    try:
        with path.open("rb") as stream:
            start = stream.read(4096)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror})") from error
    looks_like = _looks_like(start)
    gzipped = lower.endswith(".gz")
    if not start:
        raise DataError(f"{path}: the file is empty")
    if looks_like != ("gzip" if gzipped else kind):
        said = f"gzipped {TITLES[kind]}" if gzipped else TITLES[kind]
        raise DataError(f"{path}: named like {said}, but it holds {TITLES.get(looks_like, looks_like)}")
    return kind


def _looks_like(start: bytes) -> str:
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


def of_path(
    path: pathlib.Path, timeframe: str | None, wanted: Sequence[str] | None = None
) -> tuple[str, list[Part]]:  # fmt: skip
    """`(kind, parts)` of a file, or of all files of a folder (one kind; hive `key=value` folders become columns).

    Files and folders whose names start with "." or "_" are passed over; of a bar store (`bar_store`) the files that
    its manifest names are read, and no other; of these, where sectors are `wanted`, theirs alone. Raises DataError.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if not path.is_dir():
        kind = kind_of(path)
        return kind, [of_file(path, kind, timeframe, {})]
    if (stored := bar_store.manifest_of(path)) is not None:
        if not stored.files:
            raise DataError(f"{path}: the bar store is empty; gpupipe ingest fills it")
        return "parquet", [
            of_file(bar_store.located(path, file), "parquet", timeframe, {"sector": file.sector})
            for file in of_sectors(stored.files, wanted)
        ]
    files = files_of(path)
    kinds = {kind_of(file): file for file in files}
    if len(kinds) > 1:
        listed = " and ".join(f"{TITLES[kind]} ({file.name})" for kind, file in sorted(kinds.items()))
        raise DataError(f"{path}: the folder mixes {listed}; name one file, or keep one kind in it")
    (kind,) = kinds
    return kind, [of_file(file, kind, timeframe, _partition(file.relative_to(path))) for file in files]


def of_sectors(files: Sequence[PartFile], wanted: Sequence[str] | None) -> list[PartFile]:
    """A store's files of the wanted sectors; all of them where one is not there, which is said once they are read."""
    if wanted is None or not set(wanted) <= {file.sector for file in files}:
        return list(files)
    return [file for file in files if file.sector in wanted]


def files_of(path: pathlib.Path) -> list[pathlib.Path]:
    """The files that are read of a folder, in order; the path itself where it is none. DataError if there are none."""
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
def unchanging(path: pathlib.Path) -> Iterator[None]:
    """What is read inside is read from files that nobody writes: DataError if one is another afterwards than before.

    Told by which file it is, its size, and the times of its last write and of its last change of any kind, which no
    program sets. Of an SQLite file with a write-ahead log, rows that are committed meanwhile lie in the log: they do
    not count, as one query sees one state of the table. What could not be read because it changed is told as that. A
    bar store is left to its manifest, which is swapped whole.
    """
    before = _looks_of(path)
    problem: DataError | None = None
    try:
        yield
    except DataError as error:
        problem = error
    after = _looks_of(path)
    if changed := sorted(file for file in before.keys() | after.keys() if before.get(file) != after.get(file)):
        raise DataError(
            f"{changed[0]}: changed while it was read: give the command again once nothing writes it"
        ) from problem
    if problem is not None:
        raise problem


def _looks_of(path: pathlib.Path) -> dict[pathlib.Path, tuple[int, ...]]:
    looks: dict[pathlib.Path, tuple[int, ...]] = {}
    try:
        files = [] if path.is_dir() and bar_store.manifest_of(path) is not None else files_of(path)
    except DataError:  # said where it is opened
        files = []
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            status = file.stat()
            looks[file] = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return looks


def _partition(relative: pathlib.Path) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for folder in relative.parts[:-1]:
        key, separator, value = folder.partition("=")
        if separator:
            found[key] = None if value == _HIVE_NULL else urllib.parse.unquote(value)
    return {meaning: found[key] for meaning, key in columns.find(list(found), (), str(relative)).items()}


def of_file(path: pathlib.Path, kind: str, timeframe: str | None, constants: dict[str, str | None]) -> Part:
    """One file; without a symbol column the file's name (up to its first dot) is the symbol. Raises DataError."""
    constants = {"symbol": path.name.split(".")[0], **constants}
    required = [name for name in columns.REQUIRED if name != "symbol"]
    if kind == "csv":
        table, found, malformed = csv_file.read(path, required)
        return Part(table, found, str(path), constants, malformed)
    if kind == "sqlite":
        table, found, reader = sqlite_file.read(path, timeframe)
        return Part(table, found, str(path), reader=reader)
    table, found = _guarded(path, kind, _parquet if kind == "parquet" else _arrow, required)
    return Part(table, found, str(path), constants)


def _guarded(path: pathlib.Path, kind: str, reader: Callable[..., Any], required: list[str]) -> Any:
    """What is wrong with a file becomes one DataError, whatever its library calls it."""
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
    found = columns.find(schema.names, required, str(path))
    text = [
        found[meaning]
        for meaning in ("symbol", "sector", "timeframe")
        if meaning in found and (pa.types.is_string(schema.field(found[meaning]).type))
    ]
    # A name is stored once, not once a row; pages that carry a checksum are held to it.
    with pq.ParquetFile(path, read_dictionary=text, metadata=metadata, page_checksum_verification=True) as file:
        return file.read(columns=list(found.values())), found


def _arrow(path: pathlib.Path, required: list[str]) -> tuple[pyarrow.Table, dict[str, str]]:
    import pyarrow as pa

    # Not mapped: a file that is cut while its pages are in use would end the process (SIGBUS).
    with pa.OSFile(str(path)) as stream:
        open_ = pa.ipc.open_file if stream.read(6) == b"ARROW1" else pa.ipc.open_stream
        stream.seek(0)
        schema = open_(stream).schema
        found = columns.find(schema.names, required, str(path))
        wanted = sorted(schema.get_field_index(name) for name in found.values())
        stream.seek(0)
        table = open_(stream, options=pa.ipc.IpcReadOptions(included_fields=wanted)).read_all()
    table = table.select(list(found.values()))
    table.validate(full=True)  # a damaged file must not lead outside of its own memory
    return table, found


def of_frame(frame: Any) -> Part:
    """A pandas, polars or pyarrow frame, or anything with an Arrow stream, as bars. Raises DataError."""
    where = f"{type(frame).__module__.split('.')[0]} {type(frame).__name__}"
    table, found = table_of_frame(frame, columns.REQUIRED, where)
    return Part(table, found, where)


def table_of_frame(frame: Any, required: Iterable[str], where: str) -> tuple[pyarrow.Table, dict[str, str]]:
    """`(the needed columns, which is which)` of a frame. Raises DataError."""
    import pyarrow as pa

    try:
        if type(frame).__module__.split(".")[0] == "pandas":
            return _of_pandas(frame, required, where)
        if not isinstance(frame, (pa.Table, pa.RecordBatch)) and not hasattr(frame, "__arrow_c_stream__"):
            expected = "a path, a pandas, polars, pyarrow or cuDF frame, 'demo' or 'simulated'"
            raise DataError(f"cannot read a {where}; expected {expected}")
        frame = pa.table(frame)
        found = columns.find(frame.column_names, required, where)
        return frame.select(list(found.values())), found
    except (pa.ArrowException, UnicodeEncodeError, OverflowError) as error:
        raise DataError(f"{where}: cannot be read ({str(error).splitlines()[0]})") from error


def _of_pandas(frame: Any, required: Iterable[str], where: str) -> tuple[pyarrow.Table, dict[str, str]]:
    """Columns, and the index where it is more than row numbers; a mixed column comes as text."""
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
    found = columns.find(names, required, where)
    frame = frame.set_axis(names[len(index) :], axis=1)
    table = pa.table({name: _of_values(index[name] if name in index else frame[name]) for name in found.values()})
    return table, found


def _of_values(values: Any) -> pyarrow.ChunkedArray:
    import pandas as pd
    import pyarrow as pa

    try:
        array = pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        missing = [pd.api.types.is_scalar(value) and pd.isna(value) for value in values.tolist()]
        texts = [None if gone else str(value) for gone, value in zip(missing, values.tolist(), strict=True)]
        array = pa.array(texts, pa.string())
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])
