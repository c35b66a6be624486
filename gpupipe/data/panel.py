"""Panel: the bars of many symbols as columns, sorted by symbol and then time, on one device."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.runtime.device import Device, device_of

if TYPE_CHECKING:
    import pyarrow

PRICES = ("open", "high", "low", "close")
COLUMNS = (*PRICES, "volume")
_DTYPES = {**dict.fromkeys(COLUMNS, "float32"), "time_ns": "int64", "offsets": "int64"}


@dataclass(frozen=True)
class Panel:
    """Bars of many symbols.

    open, high, low, close, volume: float32 (n_rows,). Prices in the symbol's currency, volume in units
        traded. NaN is allowed and means not known.
    time_ns: int64 (n_rows,), UTC nanoseconds since 1970; strictly increasing within a symbol.
    offsets: int64 (n_symbols + 1,); symbol k is the rows offsets[k]:offsets[k+1], never padded.
    symbols: names, sorted, without duplicates.  sector: the sector of each symbol.

    All arrays are on one device (numpy or CuPy), and hand themselves over by DLPack or
    __cuda_array_interface__ without a copy. Treat them as immutable.

    Raises ValueError when a shape, dtype, device or the order of rows is not as above.
    """

    open: Any
    high: Any
    low: Any
    close: Any
    volume: Any
    time_ns: Any
    offsets: Any
    symbols: tuple[str, ...]
    sector: tuple[str, ...]

    def __post_init__(self) -> None:
        check_columns({name: getattr(self, name) for name in _DTYPES}, _DTYPES)
        n_rows = self.close.shape[0]
        for name in (*COLUMNS, "time_ns"):
            if getattr(self, name).shape != (n_rows,):
                raise ValueError(f"column {name!r} has shape {getattr(self, name).shape}, expected ({n_rows},)")
        if self.offsets.shape != (len(self.symbols) + 1,):
            raise ValueError(f"offsets has shape {self.offsets.shape}, expected ({len(self.symbols) + 1},)")
        if len(self.sector) != len(self.symbols):
            raise ValueError(f"{len(self.sector)} sectors for {len(self.symbols)} symbols")
        if list(self.symbols) != sorted(set(self.symbols)):
            raise ValueError("symbols must be sorted and without duplicates")
        offsets = self.device.to_host(self.offsets)
        if offsets[0] != 0 or offsets[-1] != n_rows or bool((offsets[1:] < offsets[:-1]).any()):
            raise ValueError(f"offsets must rise from 0 to n_rows = {n_rows}")
        backwards = self.time_ns[1:] <= self.time_ns[:-1]
        backwards[offsets[1:-1][(offsets[1:-1] > 0) & (offsets[1:-1] < n_rows)] - 1] = False
        if bool(backwards.any()):
            raise ValueError("time_ns must be strictly increasing within each symbol; read() sorts and merges")

    @functools.cached_property
    def device(self) -> Device:
        """The device its arrays live on."""
        return device_of(self.close)

    @property
    def n_rows(self) -> int:
        """Number of bars."""
        return int(self.close.shape[0])

    @property
    def n_symbols(self) -> int:
        """Number of symbols."""
        return len(self.symbols)

    @property
    def sectors(self) -> tuple[str, ...]:
        """The sectors that occur, sorted."""
        return tuple(sorted(set(self.sector)))

    @functools.cached_property
    def sector_of_symbol(self) -> np.ndarray:
        """int64 (n_symbols,), on the host: the position in `sectors` of each symbol's sector."""
        place = {name: k for k, name in enumerate(self.sectors)}
        return np.array([place[name] for name in self.sector], dtype=np.int64)

    @functools.cached_property
    def symbol_of_row(self) -> Any:
        """int32 (n_rows,): the position in `symbols` of each row's symbol."""
        xp = self.device.xp
        rows = xp.arange(self.n_rows, dtype=xp.int64)
        return (xp.searchsorted(self.offsets, rows, side="right") - 1).astype(xp.int32)

    def where(self, keep: Sequence[bool]) -> Panel:
        """The panel of the symbols for which `keep` (n_symbols,) is true; raises ValueError if none is left."""
        chosen = np.flatnonzero(np.asarray(keep, dtype=bool))
        if chosen.size == 0:
            raise ValueError("no symbol is left")
        offsets = self.device.to_host(self.offsets)
        rows = np.concatenate([np.arange(offsets[k], offsets[k + 1]) for k in chosen])
        lengths = (offsets[1:] - offsets[:-1])[chosen]
        rows = self.device.asarray(rows)
        return Panel(
            **{name: getattr(self, name)[rows] for name in (*COLUMNS, "time_ns")},
            offsets=self.device.asarray(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)),
            symbols=tuple(self.symbols[k] for k in chosen),
            sector=tuple(self.sector[k] for k in chosen),
        )

    def until(self, time_ns: int) -> Panel:
        """The bars up to and at a time, int64 UTC ns; symbols without any are left out. ValueError if none is left."""
        keep = self.device.to_host(self.time_ns) <= time_ns
        offsets = self.device.to_host(self.offsets)
        lengths = np.add.reduceat(keep.astype(np.int64), offsets[:-1]) if len(keep) else np.zeros(0, np.int64)
        there = np.flatnonzero(lengths)
        if there.size == 0:
            raise ValueError("no bar is left")
        rows = self.device.asarray(np.flatnonzero(keep))
        return Panel(
            **{name: getattr(self, name)[rows] for name in (*COLUMNS, "time_ns")},
            offsets=self.device.asarray(np.concatenate([[0], np.cumsum(lengths[there])]).astype(np.int64)),
            symbols=tuple(self.symbols[k] for k in there),
            sector=tuple(self.sector[k] for k in there),
        )

    def of_sector(self, sector: str) -> Panel:
        """The panel of one sector's symbols."""
        if sector not in self.sector:
            raise ValueError(f"no symbol of sector {sector!r}; the panel has {', '.join(self.sectors)}")
        return self.where([name == sector for name in self.sector])

    def to(self, device: Device) -> Panel:
        """The same panel on `device`; itself if it is there already."""
        if device.kind == self.device.kind:
            return self
        arrays = {name: device.asarray(getattr(self, name)) for name in _DTYPES}
        return dataclasses.replace(self, **arrays)

    def to_arrow(self) -> pyarrow.Table:
        """A table with columns symbol (dictionary), time (timestamp[ns, UTC]), sector (dictionary), then the bars."""
        return row_table(self, {name: getattr(self, name) for name in COLUMNS}, with_sector=True)


def row_table(panel: Panel, columns: dict[str, Any], *, with_sector: bool = False) -> pyarrow.Table:
    """An Arrow table of the panel's symbol and time columns followed by `columns`, each (n_rows,)."""
    import pyarrow as pa

    to_host = panel.device.to_host
    code = to_host(panel.symbol_of_row)
    arrays = {
        "symbol": pa.DictionaryArray.from_arrays(pa.array(code), pa.array(list(panel.symbols), pa.string())),
        "time": pa.array(to_host(panel.time_ns)).cast(pa.timestamp("ns", "UTC")),
    }
    if with_sector:
        arrays["sector"] = pa.DictionaryArray.from_arrays(
            pa.array(panel.sector_of_symbol[code].astype(np.int32)), pa.array(list(panel.sectors), pa.string())
        )
    return pa.table({**arrays, **{name: pa.array(to_host(column)) for name, column in columns.items()}})


def check_columns(arrays: dict[str, Any], dtypes: dict[str, str]) -> None:
    """Raise ValueError unless every array has its dtype and all live on one device."""
    for name, array in arrays.items():
        if not hasattr(array, "dtype"):
            raise ValueError(f"column {name!r} is a {type(array).__name__}, expected a numpy or CuPy array")
        if str(array.dtype) != dtypes[name]:
            raise ValueError(f"column {name!r} has dtype {array.dtype}, expected {dtypes[name]}")
    if len({hasattr(array, "__cuda_array_interface__") for array in arrays.values()}) > 1:
        raise ValueError("columns are on different devices; move them with Device.asarray first")
