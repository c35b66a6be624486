"""Read frames of pandas, polars and pyarrow into RawTables."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gpupipe.data import column_levels, columns
from gpupipe.data.errors import DataError
from gpupipe.data.sources import RawTable

if TYPE_CHECKING:
    import pyarrow


def from_frame(frame: Any) -> RawTable:
    """Convert a pandas, polars or pyarrow frame, or any object with an Arrow stream. Raises DataError."""
    where = f"{type(frame).__module__.split('.')[0]} {type(frame).__name__}"
    reshaped = from_levels(frame, where)
    if reshaped is not None:
        table, matches, without = reshaped
        return RawTable(table, matches, where, notes=(column_levels.NOTE,), without_bars=without)
    table, matches = frame_columns(frame, columns.REQUIRED, where)
    return RawTable(table, matches, where)


def from_levels(frame: Any, where: str) -> tuple[pyarrow.Table, dict[str, str], tuple[str, ...]] | None:
    """Reshape a frame whose columns have two levels, prices and symbols; see `column_levels.to_rows`.

    The levels are those of a pandas DataFrame, or names made of tuples in any frame. The time is the index, or a
    column. None for a frame without levels. Raises DataError for two levels of another kind.
    """
    import pyarrow as pa

    is_pandas = type(frame).__module__.split(".")[0] == "pandas"
    names = list(getattr(frame, "column_names" if isinstance(frame, pa.Table) else "columns", ()))
    timed = is_pandas and (frame.index.name is not None or hasattr(frame.index, "tz"))
    if is_pandas and getattr(frame.columns, "nlevels", 1) == 2:
        pairs = [("time", "")] * timed + [(str(top), str(bottom)) for top, bottom in names]
        levels = column_levels.find(pairs, where)
        if levels is None:
            shown = ", ".join(map(str, names[:3]))
            raise DataError(
                f"{where}: its columns have two levels, as {shown}; expected prices (open, high, low, close, volume) "
                "in one and symbols in the other, or one level and a column for the symbol"
            )
    else:
        levels = column_levels.of_names(["time"] * timed + [str(name) for name in names], where)
    if levels is None:
        return None
    try:
        if is_pandas:
            arrays = [*([frame.index] if timed else []), *(frame.iloc[:, k] for k in range(len(names)))]
            table = pa.table({str(k): _to_arrow(arrays[k]) for k in levels.positions})
        else:
            table = pa.table(frame)
            table = pa.table({str(k): table.column(k) for k in levels.positions})
    except (pa.ArrowException, UnicodeEncodeError, OverflowError) as error:
        raise DataError(f"{where}: cannot be read ({str(error).splitlines()[0]})") from error
    return column_levels.to_rows(table, levels)


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
        raise DataError(
            f"{where}: its columns have {frame.columns.nlevels} levels; give one row for each symbol and time"
        )
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
    """A pandas column or index as Arrow. Objects that Arrow cannot hold, or would change, become texts."""
    import pyarrow as pa

    try:
        array = pa.array(values, from_pandas=True)
    except (ValueError, TypeError, NotImplementedError, OverflowError):  # Arrow's, and those of a tzinfo
        array = _texts(values)
    else:
        kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
        objects = values.cat.categories if hasattr(values, "cat") else getattr(values, "categories", values)
        if pa.types.is_temporal(kind) and objects.dtype == object and _loses_clocks(objects, kind):
            array = _texts(values)
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])


def _texts(values: Any) -> pyarrow.Array:
    """Objects as texts, null where missing; those of datetimes are ISO 8601, with their offset from UTC."""
    import pandas as pd
    import pyarrow as pa

    missing = [pd.api.types.is_scalar(value) and pd.isna(value) for value in values.tolist()]
    texts = [None if is_missing else str(value) for is_missing, value in zip(missing, values.tolist(), strict=True)]
    return pa.array(texts, pa.string())


def _loses_clocks(objects: Any, kind: pyarrow.DataType) -> bool:
    """Whether Arrow takes the zone of the first object, or that it is a date without a clock, for all of them."""
    import pyarrow as pa

    known = objects.dropna()
    if pa.types.is_date(kind):
        return any(issubclass(cls, datetime.datetime) for cls in set(map(type, known)))
    zones = {id(zone): zone for zone in (getattr(value, "tzinfo", None) for value in known)}
    return len({zone if zone is None else str(zone) for zone in zones.values()}) > 1
