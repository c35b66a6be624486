"""A file or frame of any columns as a table: for columns from outside, and for positions."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gpupipe.data import csv_file, sources
from gpupipe.data.errors import DataError
from gpupipe.data.report import counted

if TYPE_CHECKING:
    import pyarrow


def read_table(
    source: Any, malformed: list[str] | None = None, nulls: Sequence[str] | None = None
) -> tuple[pyarrow.Table, str]:
    """The whole table of a file or frame, and its name in messages.

    source: a Parquet, CSV(.gz) or Arrow file, or a frame of pandas, polars or pyarrow. Columns of a CSV file are texts.
    malformed: a list that gets a description of each row of a CSV file that has another number of fields than its
        header; the table leaves these rows out. None: such a row is an error.
    nulls: the texts of a CSV file that are no value; None: those of pyarrow, such as NA and null.
    Raises DataError for a file that cannot be read, has no rows, or names a column twice.

        >>> import pyarrow as pa
        >>> table, where = read_table(pa.table({"time": [1, 2]}))
        >>> table.num_rows, where
        (2, 'pyarrow Table')
    """
    import pyarrow as pa

    if not isinstance(source, (str, os.PathLike)):
        where = f"{type(source).__module__.split('.')[0]} {type(source).__name__}"
        if type(source).__module__.split(".")[0] == "pandas":
            timed = hasattr(source.index, "tz")  # an index of times
            frame = source.rename_axis(source.index.name or "time").reset_index() if timed else source
            return pa.Table.from_pandas(frame, preserve_index=False), where
        if not isinstance(source, pa.Table) and not hasattr(source, "__arrow_c_stream__"):
            raise DataError(f"cannot read a {where}; expected a path or a pandas, polars or pyarrow frame")
        return pa.table(source), where
    path = pathlib.Path(source).expanduser()
    kind = sources.file_kind(path)
    readers: dict[str, Callable[[pathlib.Path], pyarrow.Table]]
    readers = {"parquet": _parquet, "csv": functools.partial(_csv, malformed=malformed, nulls=nulls), "arrow": _arrow}
    if kind not in readers:
        raise DataError(f"{path}: expected Parquet, CSV or Arrow")
    try:
        table = readers[kind](path)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot be read as {sources.TITLES[kind]} ({problem})") from error
    if repeated := _repeated(table.column_names):
        raise DataError(f"{path}: column {repeated[0]!r} occurs twice")
    if not table.num_rows:
        raise DataError(f"{path}: the file holds no rows ({counted(0, 'row')})")
    return table, str(path)


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if list(names).count(name) > 1})


def _parquet(path: pathlib.Path) -> pyarrow.Table:
    import pyarrow.parquet as pq

    table = pq.read_table(path, page_checksum_verification=True, partitioning=None)
    table.validate(full=True)  # numbers in a damaged page must not point outside its dictionary
    return table


def _csv(path: pathlib.Path, malformed: list[str] | None, nulls: Sequence[str] | None) -> pyarrow.Table:
    """All columns as texts, so that a later row never changes how an earlier one is read."""
    import pyarrow as pa
    from pyarrow import csv

    names, delimiter = csv_file.header(path)
    types = dict.fromkeys(names, pa.string())
    options = csv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=nulls)
    handler = None
    if malformed is not None:
        csv_file.check_utf8(path)  # pyarrow's invalid_row_handler must not meet other text
        handler = csv_file.skipping(malformed)
    parse_options = csv.ParseOptions(delimiter=delimiter, invalid_row_handler=handler)
    return csv.read_csv(path, parse_options=parse_options, convert_options=options)


def _arrow(path: pathlib.Path) -> pyarrow.Table:
    import pyarrow as pa

    with pa.OSFile(str(path)) as stream:
        open_ = pa.ipc.open_file if stream.read(6) == b"ARROW1" else pa.ipc.open_stream
        stream.seek(0)
        table = open_(stream).read_all()
    table.validate(full=True)
    return table
