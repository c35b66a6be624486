"""Bars that never leave the device: cuDF reads or holds them, and their columns are CuPy arrays.

Only plainly typed columns go this way (numbers; dates or timestamps; text), of a Parquet file, a bar store or a frame:
what has to be parsed value by value, and all else, goes through the host, and `DataReport.reader` says so.
"""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpupipe.data import bar_store, columns, sources
from gpupipe.data import bars as bars_of
from gpupipe.data.bars import Bars
from gpupipe.data.sources import Part
from gpupipe.runtime.device import Device


def is_frame(source: Any) -> bool:
    """Whether it is a cuDF object; imports nothing."""
    return type(source).__module__.split(".")[0] == "cudf"


def why_host() -> str:
    """Why data on a CUDA device came by way of the host."""
    if importlib.util.find_spec("cudf") is None:
        return "cudf is not installed"
    return "cuDF reads single Parquet files, bar stores and frames with plainly typed columns"


def of_path(path: pathlib.Path, wanted: Sequence[str] | None = None) -> list[Part]:
    """A Parquet file or a bar store read by cuDF; empty for the host to read: no cuDF, another kind, or not so plain.

    wanted: sectors, or None for all; of a store only their files are read (`sources.of_sectors`). A store is one Part
    for each sector, whose files cuDF reads at once. Raises DataError where a file of the store is gone.
    """
    if importlib.util.find_spec("cudf") is None:
        return []
    if path.is_dir():
        manifest = bar_store.manifest_of(path)
        by_sector: dict[str, list[pathlib.Path]] = {}
        for file in sources.of_sectors(manifest.files, wanted) if manifest is not None else ():
            by_sector.setdefault(file.sector, []).append(bar_store.located(path, file))
        parts = [_read(files, {"sector": sector}) for sector, files in by_sector.items()]
    else:
        parts = [_read([path], {})] if path.is_file() and sources.kind_of(path) == "parquet" else []
    return [part for part in parts if part is not None] if None not in parts else []


def _read(files: Sequence[pathlib.Path], constants: dict[str, str | None]) -> Part | None:
    """Files of the same columns, one after the other, as one Part; None if one of these is not plain."""
    import pyarrow.parquet as pq

    schema = pq.read_schema(files[0])
    found = columns.find(schema.names, columns.REQUIRED[1:], str(files[0]))
    if "symbol" not in found or "timeframe" in found or not all(_plain(schema.field(found[m]).type, m) for m in found):
        return None
    import cudf

    frame = cudf.read_parquet(
        [str(file) for file in files], columns=list(found.values()), use_pandas_metadata=False,
        # A folder's name is no column here, and makes no read of its own: what it says is among the constants.
        dataset_kwargs={"format": "parquet", "partitioning": None},
    )  # fmt: skip
    return Part(frame, found, str(files[0] if len(files) == 1 else files[0].parent), constants, reader="cuDF")


def _plain(kind: Any, meaning: str) -> bool:
    import pyarrow as pa

    if meaning == "time":
        return pa.types.is_date32(kind) or (pa.types.is_timestamp(kind) and kind.tz in (None, "UTC"))
    if meaning in ("symbol", "sector"):
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        return pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def of_frame(frame: Any) -> Part:
    """A cuDF DataFrame as a Part; one with other than plain columns is copied to the host. Raises DataError."""
    found = columns.find(list(frame.columns), columns.REQUIRED, "cudf DataFrame")
    frame = frame[list(found.values())]
    plain = all(_plain(field.type, m) for m in found for field in [frame.head(0).to_arrow().field(found[m])])
    return Part(frame if plain and "timeframe" not in found else frame.to_arrow(), found, "cudf DataFrame")


def bars(parts: Sequence[Part], sector_map: Mapping[str, str], device: Device) -> Bars:
    """The Bars of cuDF frames: values stay on the device, only the different symbols and sectors come to the host.

    A bar outside 1678..2261 has an unknown time, as on the host. Raises DataError as `bars.of_parts` does.
    """
    xp = device.xp

    def whole(arrays: Sequence[Any]) -> Any:
        return arrays[0] if len(arrays) == 1 else xp.concatenate(arrays)

    symbol, names = _joined([_codes(part.table[part.found["symbol"]], device) for part in parts], device)
    pairs = xp.unique(symbol)
    raw: tuple[str, ...] = ()
    sector = xp.full(pairs.size, -1, xp.int32)
    if any("sector" in part.found or "sector" in part.constants for part in parts):
        code, raw = _joined([_sectors(part, device) for part in parts], device)
        different = xp.unique(symbol.astype(xp.int64) * (len(raw) + 1) + code + 1)
        pairs, sector = different // (len(raw) + 1), different % (len(raw) + 1) - 1
    return Bars(
        symbol=symbol,
        names=names,
        time_ns=whole([_times(part.table[part.found["time"]], device) for part in parts]),
        sector_of=bars_of.sector_of_names(names, device.to_host(pairs), device.to_host(sector), raw, sector_map),
        **{
            name: whole([part.table[part.found[name]].astype("float32").to_cupy(na_value=np.nan) for part in parts])
            for name in (*bars_of.PRICES, "volume")
        },
    )


def _sectors(part: Part, device: Device) -> tuple[Any, tuple[str, ...]]:
    """As `_codes`, of a column or of the one sector of all rows."""
    if "sector" in part.found:
        return _codes(part.table[part.found["sector"]], device)
    _, names = columns.constant(part.constants.get("sector"), 0)
    return device.xp.full(len(part.table), 0 if names else -1, device.xp.int32), names


def _joined(parts: Sequence[tuple[Any, tuple[str, ...]]], device: Device) -> tuple[Any, tuple[str, ...]]:
    """As `columns.joined`, of codes on the device."""
    if len(parts) == 1:
        return parts[0]
    mappings, names = columns.joint_names([names for _, names in parts])
    return device.xp.concatenate([
        device.asarray(mapping)[code] for (code, _), mapping in zip(parts, mappings, strict=True)
    ]), names  # fmt: skip


def _codes(series: Any, device: Device) -> tuple[Any, tuple[str, ...]]:
    """As `columns.codes`: cuDF numbers the different texts, the host tidies the few of them."""
    code, unique = series.astype("str").factorize()
    mapping, names = columns.tidy(unique.to_arrow().to_pylist())
    return device.asarray(mapping)[code], names  # null is -1: the last entry of the mapping


def _times(series: Any, device: Device) -> Any:
    xp = device.xp
    if not isinstance(series.dtype, np.dtype):  # with a zone
        series = series.dt.tz_convert(None)
    seconds = series.astype("datetime64[s]").astype("int64").to_cupy(na_value=columns.NOT_KNOWN)
    time_ns = series.astype("datetime64[ns]").astype("int64").to_cupy(na_value=columns.NOT_KNOWN)
    return xp.where(xp.abs(seconds) < 2**63 // 10**9, time_ns, columns.NOT_KNOWN)
