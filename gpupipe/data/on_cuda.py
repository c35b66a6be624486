"""Read bars on the device: cuDF reads or holds the columns, and they become CuPy arrays without a copy to the host.

This covers Parquet files, bar stores and cuDF frames with plainly typed columns (numbers; dates or timestamps; text).
Columns that must be parsed value by value, and all other sources, are read on the host; `DataReport.reader` says so.
"""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpupipe.data import bar_store, column_levels, columns, sources
from gpupipe.data.bars import PRICES, Bars
from gpupipe.data.sources import RawTable
from gpupipe.data.symbol_sectors import case_findings, sector_fields
from gpupipe.data.time_limits import UNKNOWN_TIME
from gpupipe.runtime.device import Device


def is_frame(source: Any) -> bool:
    """Whether a source is a cuDF object; imports nothing."""
    return type(source).__module__.split(".")[0] == "cudf"


def host_reason() -> str:
    """The reason why data for a CUDA device were read on the host."""
    if importlib.util.find_spec("cudf") is None:
        return "cudf is not installed"
    return "cuDF reads single Parquet files, bar stores and frames with plainly typed columns"


def read_path(path: pathlib.Path, requested: Sequence[str] | None = None) -> list[RawTable]:
    """Read a Parquet file or a bar store with cuDF; the empty list if the host must read it.

    The host must read it without cuDF, if the path is of another kind, or if a column is not plainly typed.

    requested: sectors, or None for all; only their files of a store are read (`sources.files_of_sectors`). A store
    gives one RawTable for each sector, whose files cuDF reads at once. Raises DataError for a missing file of a store.
    """
    if importlib.util.find_spec("cudf") is None:
        return []
    if path.is_dir():
        manifest = bar_store.read_manifest(path)
        by_sector: dict[str, list[pathlib.Path]] = {}
        for file in sources.files_of_sectors(manifest.files, requested) if manifest is not None else ():
            by_sector.setdefault(file.sector, []).append(bar_store.locate(path, file))
        tables = [_read(files, {"sector": sector}) for sector, files in by_sector.items()]
    else:
        tables = [_read([path], {})] if path.is_file() and sources.file_kind(path) == "parquet" else []
    return [table for table in tables if table is not None] if None not in tables else []


def _read(files: Sequence[pathlib.Path], constants: dict[str, str | None]) -> RawTable | None:
    """Read files with equal columns into one RawTable, in order; None if a column is not plainly typed."""
    import pyarrow.parquet as pq

    metadata, *others = (pq.read_metadata(file) for file in files)
    schema = metadata.schema.to_arrow_schema()
    if any(other.schema.to_arrow_schema().names != schema.names for other in others):
        return None  # some files of a store have a column utc_offset_s
    if column_levels.of_names(schema.names, str(files[0])) is not None:
        return None
    matches = columns.find(schema.names, columns.REQUIRED[1:], str(files[0]))
    if "symbol" not in matches or _must_be_decided(matches):
        return None
    if any(metadata.schema.column(k).physical_type == "INT96" for k in range(len(metadata.schema))):
        return None  # its nanoseconds wrap beyond 1678..2261; the host reads microseconds
    if not all(_is_plain(schema.field(name).type, meaning) for meaning, name in matches.items()):
        return None
    import cudf

    frame = cudf.read_parquet(
        [str(file) for file in files],
        columns=list(matches.values()),
        use_pandas_metadata=False,
        # With partitioning, cuDF would read each folder separately and add its name as a column; `constants` has it.
        dataset_kwargs={"format": "parquet", "partitioning": None},
    )
    return RawTable(frame, matches, str(files[0] if len(files) == 1 else files[0].parent), constants, reader="cuDF")


def _must_be_decided(matches: Mapping[str, str]) -> bool:
    """Whether the host must choose a timeframe, or one of several columns with the same meaning."""
    return "timeframe" in matches or any(len(columns.of_meaning(matches, m)) > 1 for m in ("time", "volume"))


def _is_plain(kind: Any, meaning: str) -> bool:
    """Whether a column of this Arrow type needs no parsing value by value."""
    import pyarrow as pa

    if meaning == "time":
        return pa.types.is_date32(kind) or (pa.types.is_timestamp(kind) and kind.tz in (None, "UTC"))
    if meaning in ("symbol", "sector"):
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        return pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def from_frame(frame: Any) -> RawTable:
    """Wrap a cuDF DataFrame; with columns that are not plainly typed, it is copied to the host. Raises DataError."""
    matches = columns.find(list(frame.columns), columns.REQUIRED, "cudf DataFrame")
    frame = frame[list(matches.values())]
    schema = frame.head(0).to_arrow().schema
    plain = all(_is_plain(schema.field(name).type, meaning) for meaning, name in matches.items())
    return RawTable(frame if plain and not _must_be_decided(matches) else frame.to_arrow(), matches, "cudf DataFrame")


def to_bars(tables: Sequence[RawTable], sector_map: Mapping[str, str], device: Device) -> Bars:
    """Convert cuDF frames to Bars: values stay on the device, only the distinct symbols and sectors go to the host.

    A time outside 1678..2261 is unknown, as on the host. Raises DataError as `bars.from_tables` does.
    """
    xp = device.xp

    def concatenate(arrays: Sequence[Any]) -> Any:
        return arrays[0] if len(arrays) == 1 else xp.concatenate(arrays)

    symbol, names = _concatenate_codes([_encode_names(table.column("symbol"), device) for table in tables], device)
    pair_symbol = xp.unique(symbol)
    raw_sectors: tuple[str, ...] = ()
    pair_sector = xp.full(pair_symbol.size, -1, xp.int32)
    if any("sector" in table.columns or "sector" in table.constants for table in tables):
        code, raw_sectors = _concatenate_codes([_encode_sectors(table, device) for table in tables], device)
        base = len(raw_sectors) + 1
        pairs = xp.unique(symbol.astype(xp.int64) * base + code + 1)
        pair_symbol, pair_sector = pairs // base, pairs % base - 1
    host_pairs = device.to_host(pair_symbol), device.to_host(pair_sector)
    time_ns = concatenate([_times(table.column("time"), device) for table in tables])
    local_ns = None
    if any("utc_offset_s" in table.columns for table in tables):
        offset_ns = concatenate([_offset_ns(table, device) for table in tables])
        local_ns = xp.where(time_ns == UNKNOWN_TIME, time_ns, time_ns + offset_ns)
    return Bars(
        symbol=symbol,
        names=names,
        time_ns=time_ns,
        local_ns=local_ns,
        **sector_fields(names, *host_pairs, raw_sectors, sector_map),
        findings=case_findings(symbol, names),
        **{
            name: concatenate([table.column(name).astype("float32").to_cupy(na_value=np.nan) for table in tables])
            for name in (*PRICES, "volume")
        },
    )


def _offset_ns(table: RawTable, device: Device) -> Any:
    """int64 (n,): how far the exchange's clock is ahead of UTC; 0 if the table does not say."""
    if "utc_offset_s" not in table.columns:
        return device.xp.zeros(len(table), device.xp.int64)
    return table.column("utc_offset_s").astype("int64").to_cupy(na_value=0) * 10**9


def _encode_sectors(table: RawTable, device: Device) -> tuple[Any, tuple[str, ...]]:
    """`_encode_names` of the sector column, or of the constant sector of all rows."""
    if "sector" in table.columns:
        return _encode_names(table.column("sector"), device)
    _, names = columns.encode_constant(table.constants.get("sector"), 0)
    return device.xp.full(len(table), 0 if names else -1, device.xp.int32), names


def _concatenate_codes(encoded: Sequence[tuple[Any, tuple[str, ...]]], device: Device) -> tuple[Any, tuple[str, ...]]:
    """`columns.concatenate_codes` for codes on the device."""
    if len(encoded) == 1:
        return encoded[0]
    mappings, names = columns.merge_names([names for _, names in encoded])
    mapped = [device.asarray(mapping)[code] for (code, _), mapping in zip(encoded, mappings, strict=True)]
    return device.xp.concatenate(mapped), names


def _encode_names(series: Any, device: Device) -> tuple[Any, tuple[str, ...]]:
    """`columns.encode_names` for a cuDF series: cuDF factorizes, the host cleans the few distinct texts."""
    code, unique = series.astype("str").factorize()
    mapping, names = columns.clean_names(unique.to_arrow().to_pylist())
    return device.asarray(mapping)[code], names  # null has code -1, the last entry of the mapping


def _times(series: Any, device: Device) -> Any:
    xp = device.xp
    if not isinstance(series.dtype, np.dtype):  # with a zone
        series = series.dt.tz_convert(None)
    seconds = series.astype("datetime64[s]").astype("int64").to_cupy(na_value=UNKNOWN_TIME)
    time_ns = series.astype("datetime64[ns]").astype("int64").to_cupy(na_value=UNKNOWN_TIME)
    return xp.where(xp.abs(seconds) < 2**63 // 10**9, time_ns, UNKNOWN_TIME)
