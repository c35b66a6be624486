"""Read an SQLite query into Arrow columns with ADBC: several times faster than through Python's tuples.

The driver infers one type for each column and silently turns a number among texts into text, which `sqlite_file` must
not do. This module returns a result only if that cannot have happened.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import adbc_driver_manager
    import pyarrow

_ROWS_AT_ONCE = 1 << 16


class UnsuitableError(Exception):
    """The reason why ADBC cannot read these rows exactly, so that they must be read value by value."""


def read(
    address: str, expressions: Sequence[str], may_be_text: Sequence[bool], rest: str, parameters: Sequence[str]
) -> pyarrow.Table:
    """Return the table of `SELECT expressions rest`, one column for each expression, from one read transaction.

    address: an SQLite URI with mode=ro.  may_be_text: for each expression, whether texts are expected; the query then
    checks the type of every value.  parameters: values of the placeholders in `rest`.

    Columns are int64 (whole numbers), float64 (numbers) or text, with nulls. Raises UnsuitableError if ADBC is not
    installed, if a column mixes text with other types or holds bytes, if a text is not UTF-8, or if the driver fails.
    """
    if any(importlib.util.find_spec(name) is None for name in ("adbc_driver_sqlite", "adbc_driver_manager")):
        raise UnsuitableError("adbc-driver-sqlite is not installed")
    import adbc_driver_manager as adbc  # not its dbapi, which imports pandas and polars if they are installed
    import adbc_driver_sqlite
    import pyarrow as pa

    texts = [expression for expression, is_text in zip(expressions, may_be_text, strict=True) if is_text]
    not_text = " OR ".join(f"typeof({expression}) <> 'text' AND {expression} IS NOT NULL" for expression in texts)
    query = f"SELECT {', '.join(expressions)}, CASE WHEN {not_text or '0'} THEN 1 END {rest}"
    try:
        with adbc_driver_sqlite.connect(address) as database, adbc.AdbcConnection(database) as connection:
            _rows(connection, "PRAGMA trusted_schema = OFF")
            if _rows(connection, "PRAGMA trusted_schema")[0].to_pylist() != [0]:
                raise UnsuitableError("ADBC did not switch trusted_schema off")
            table = _rows(connection, query, parameters)
            table.validate(full=True)  # the driver does not check that texts are UTF-8
    except (adbc.Error, OSError, pa.ArrowException) as error:
        raise UnsuitableError(f"ADBC: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from error
    for column, is_text in zip(table.columns[:-1], may_be_text, strict=True):
        if not (column.type in (pa.int64(), pa.float64()) or (column.type == pa.string() and is_text)):
            raise UnsuitableError("the values of a column differ in type")
    if table.columns[-1].null_count < table.num_rows:
        raise UnsuitableError("the values of a column differ in type")
    return table.select(range(len(expressions)))


def _rows(connection: adbc_driver_manager.AdbcConnection, query: str, parameters: Sequence[str] = ()) -> pyarrow.Table:
    """Fetch all rows of one statement; in autocommit mode one statement is one transaction."""
    import adbc_driver_manager as adbc
    import adbc_driver_sqlite
    import pyarrow as pa

    with adbc.AdbcStatement(connection) as statement:
        statement.set_options(**{adbc_driver_sqlite.StatementOptions.BATCH_ROWS.value: str(_ROWS_AT_ONCE)})
        statement.set_sql_query(query)
        if parameters:
            statement.bind(pa.record_batch([pa.array([value], pa.string()) for value in parameters], names=parameters))
        stream, _ = statement.execute_query()
        with pa.RecordBatchReader.from_stream(stream) as reader:
            return reader.read_all()
