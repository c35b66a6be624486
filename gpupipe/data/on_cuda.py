"""Bars that never leave the device: cuDF reads or holds them, and their columns are CuPy arrays.

Only plainly typed columns go this way (numbers; dates or timestamps; text): what has to be parsed value by value,
and files other than Parquet, go through the host, and `DataReport.reader` says so.
"""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpupipe.data import bars as bars_of
from gpupipe.data import columns, sources
from gpupipe.data.bars import Bars
from gpupipe.data.sources import Part
from gpupipe.device import Device


def is_frame(source: Any) -> bool:
    """Whether it is a cuDF object; imports nothing."""
    return type(source).__module__.split(".")[0] == "cudf"


def why_host() -> str:
    """Why data on a CUDA device came by way of the host."""
    if importlib.util.find_spec("cudf") is None:
        return "cudf is not installed"
    return "cuDF reads single Parquet files and frames with plainly typed columns"


def of_path(path: pathlib.Path) -> Part | None:
    """A Parquet file read by cuDF, or None for the host to read: cuDF is missing, or the file is not so plain."""
    if importlib.util.find_spec("cudf") is None or not path.is_file() or sources.kind_of(path) != "parquet":
        return None
    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    found = columns.find(schema.names, columns.REQUIRED[1:], str(path))
    if "symbol" not in found or "timeframe" in found or not all(_plain(schema.field(found[m]).type, m) for m in found):
        return None
    import cudf

    frame = cudf.read_parquet(str(path), columns=list(found.values()), use_pandas_metadata=False)
    return Part(frame, found, str(path))


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


def bars(part: Part, sector_map: Mapping[str, str], device: Device) -> Bars:
    """The Bars of a cuDF frame: values stay on the device, only the different symbols and sectors come to the host.

    A bar outside 1678..2261 has an unknown time, as on the host. Raises DataError as `bars.of_parts` does.
    """
    xp = device.xp
    symbol, names = _codes(part.table[part.found["symbol"]], device)
    pairs = xp.unique(symbol)
    raw: tuple[str, ...] = ()
    sector = xp.full(pairs.size, -1, xp.int32)
    if "sector" in part.found:
        code, raw = _codes(part.table[part.found["sector"]], device)
        different = xp.unique(symbol.astype(xp.int64) * (len(raw) + 1) + code + 1)
        pairs, sector = different // (len(raw) + 1), different % (len(raw) + 1) - 1
    return Bars(
        symbol=symbol, names=names, time_ns=_times(part.table[part.found["time"]], device),
        sector_of=bars_of.sector_of_names(names, device.to_host(pairs), device.to_host(sector), raw, sector_map),
        **{
            name: part.table[part.found[name]].astype("float32").to_cupy(na_value=np.nan)
            for name in (*bars_of.PRICES, "volume")
        },
    )


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
