"""Panel: columns of many symbols, sorted by symbol or group, then time, on one device."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.runtime.device import Device, device_of

if TYPE_CHECKING:
    import pyarrow

PRICES = ("open", "high", "low", "close")
BARS = (*PRICES, "volume")  # the columns of a panel of bars, float32 each
NS_PER_DAY = 86_400 * 10**9


@dataclass(frozen=True)
class Panel:
    """Rows of many symbols: bars, quotes, or whatever a workload's schema names.

    columns: arrays (n_rows,) by name. Panels of bars have `BARS`: open, high, low, close in the symbol's currency and
        volume in units traded, float32 each. NaN is allowed and means not known.
    time_ns: int64 (n_rows,), UTC nanoseconds since 1970; strictly increasing within a symbol. Of bars of a day or
        longer it is midnight UTC of the session date, wherever the exchange is (`gpupipe.data.session_dates`).
    offsets: int64 (n_symbols + 1,); symbol k is the rows offsets[k]:offsets[k+1], never padded.
    symbols: names, without duplicates; sorted, or group by group as `by_group` does, and sorted within a group.
    attributes: by name, one text for each symbol, such as its sector.
    group_by: the attribute whose values are the groups that models are trained for, or "symbol" for each symbol alone.
    local_ns: int64 (n_rows,), wall clock of the exchange in ns, of intraday bars whose source gives a time zone.
        None: the clock is UTC. `clock_ns` and `session_day` read it.

    All arrays are on one device (numpy or CuPy), and hand themselves over by DLPack or
    __cuda_array_interface__ without a copy. Treat them as immutable. Columns and attributes read as fields do:
    `panel.close`, `panel.sector`.

    Raises ValueError when a shape, dtype, device or the order of rows is not as above.

        >>> panel = Panel.of_bars(
        ...     **dict.fromkeys(BARS, np.full(3, 10, np.float32)), time_ns=np.array([0, 1, 0]),
        ...     offsets=np.array([0, 2, 3]), symbols=("A", "B"), sector=("energy", "utilities"))
        >>> panel.n_rows, panel.groups, panel.of_group("energy").symbols, panel.take(panel.time_ns == 0).n_rows
        (3, ('energy', 'utilities'), ('A',), 2)
    """

    columns: Mapping[str, Any]
    time_ns: Any
    offsets: Any
    symbols: tuple[str, ...]
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    group_by: str = "sector"
    local_ns: Any = None

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError("a panel needs a column")
        bars = {name: "float32" for name in BARS if name in self.columns}
        dtypes = {**bars, "time_ns": "int64", "local_ns": "int64", "offsets": "int64"}
        others = {name: str(getattr(column, "dtype", "")) for name, column in self.columns.items() if name not in bars}
        arrays = {**self.columns, "time_ns": self.time_ns, "offsets": self.offsets}
        if self.local_ns is not None:
            arrays["local_ns"] = self.local_ns
        check_columns(arrays, {**others, **dtypes})
        n_rows = self.n_rows
        for name in arrays.keys() - {"offsets"}:
            if arrays[name].shape != (n_rows,):
                raise ValueError(f"column {name!r} has shape {arrays[name].shape}, expected ({n_rows},)")
        if self.offsets.shape != (len(self.symbols) + 1,):
            raise ValueError(f"offsets has shape {self.offsets.shape}, expected ({len(self.symbols) + 1},)")
        for name, values in self.attributes.items():
            if len(values) != len(self.symbols):
                raise ValueError(f"{len(values)} values of {name!r} for {len(self.symbols)} symbols")
        if self.group_by != "symbol" and self.group_by not in self.attributes:
            raise ValueError(f"group_by is {self.group_by!r}, which is no attribute ({', '.join(self.attributes)})")
        symbols = list(self.symbols)
        if len(set(symbols)) < len(symbols) or symbols not in (sorted(symbols), self._symbols_by_group()):
            raise ValueError("symbols must be without duplicates, and sorted, or sorted within groups as by_group does")
        offsets = self.device.to_host(self.offsets)
        if offsets[0] != 0 or offsets[-1] != n_rows or bool((offsets[1:] < offsets[:-1]).any()):
            raise ValueError(f"offsets must rise from 0 to n_rows = {n_rows}")
        backwards = self.time_ns[1:] <= self.time_ns[:-1]
        last_rows = offsets[1:-1][(offsets[1:-1] > 0) & (offsets[1:-1] < n_rows)] - 1
        backwards[self.device.asarray(last_rows)] = False
        if bool(backwards.any()):
            raise ValueError("time_ns must be strictly increasing within each symbol; read() sorts and merges")

    @classmethod
    def of_bars(
        cls,
        *,
        time_ns: Any,
        offsets: Any,
        symbols: tuple[str, ...],
        sector: tuple[str, ...],
        local_ns: Any = None,
        **columns: Any,
    ) -> Panel:
        """A panel of bars whose symbols are grouped by sector; arrays as in the class.

        columns: the five of `BARS`, by name. Raises ValueError for fewer or others.
        """
        if set(columns) != set(BARS):
            raise ValueError(f"a panel of bars has columns {', '.join(BARS)}, not {', '.join(columns)}")
        ordered = {name: columns[name] for name in BARS}
        return cls(ordered, time_ns, offsets, symbols, {"sector": tuple(sector)}, local_ns=local_ns)

    def __getattr__(self, name: str) -> Any:
        # Only for names that are no field. `columns` itself is missing while a copy is being made.
        columns = self.__dict__.get("columns", {})
        if name in columns:
            return columns[name]
        if name in (attributes := self.__dict__.get("attributes", {})):
            return attributes[name]
        raise AttributeError(f"a Panel has no {name!r}; its columns are {', '.join(columns)}")

    @functools.cached_property
    def device(self) -> Device:
        """The device its arrays live on."""
        return device_of(next(iter(self.columns.values())))

    @property
    def n_rows(self) -> int:
        """Number of rows of all symbols."""
        return int(next(iter(self.columns.values())).shape[0])

    @property
    def n_symbols(self) -> int:
        """Number of symbols."""
        return len(self.symbols)

    @property
    def clock_ns(self) -> Any:
        """int64 (n_rows,): nanoseconds since 1970 on the exchange's wall clock; UTC where that is not known."""
        return self.time_ns if self.local_ns is None else self.local_ns

    @property
    def session_day(self) -> Any:
        """int64 (n_rows,): the session date, in days since 1970-01-01, that weekdays and calendar days go by."""
        return self.clock_ns // NS_PER_DAY

    @property
    def group(self) -> tuple[str, ...]:
        """The group of each symbol."""
        return self.symbols if self.group_by == "symbol" else self.attributes[self.group_by]

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that occur, sorted."""
        return tuple(sorted(set(self.group)))

    @property
    def sectors(self) -> tuple[str, ...]:
        """The sectors that occur, sorted, whatever the panel is grouped by; none without the attribute."""
        return tuple(sorted(set(self.attributes.get("sector", ()))))

    @functools.cached_property
    def group_of_symbol(self) -> np.ndarray:
        """int64 (n_symbols,), on the host: the position in `groups` of each symbol's group."""
        position = {name: k for k, name in enumerate(self.groups)}
        return np.array([position[name] for name in self.group], dtype=np.int64)

    @functools.cached_property
    def symbol_of_row(self) -> Any:
        """int32 (n_rows,): the position in `symbols` of each row's symbol."""
        xp = self.device.xp
        rows = xp.arange(self.n_rows, dtype=xp.int64)
        return (xp.searchsorted(self.offsets, rows, side="right") - 1).astype(xp.int32)

    def take(self, keep: Any, *, keep_empty: bool = False) -> Panel:
        """The panel of some rows, in their order; the one way to select rows.

        keep: bool (n_rows,), on the host or the panel's device.
        keep_empty: whether symbols without a row stay, with no rows; else they are left out.
        Raises ValueError if no symbol is left.
        """
        return self._taken(self.device.to_host(keep).astype(bool), None if keep_empty else "non-empty")

    def _taken(self, keep: np.ndarray, symbols: np.ndarray | str | None) -> Panel:
        """Rows by mask; of all symbols (None), of those with rows ("non-empty"), or of those with these numbers."""
        before = np.concatenate([[0], np.cumsum(keep, dtype=np.int64)])
        lengths = np.diff(before[self.device.to_host(self.offsets)])
        if symbols is None:
            symbols = np.arange(self.n_symbols)
        elif isinstance(symbols, str):
            symbols = np.flatnonzero(lengths)
        if symbols.size == 0:
            raise ValueError("no symbol is left")
        numbers = np.flatnonzero(keep)
        follow = len(numbers) and numbers[-1] - numbers[0] == len(numbers) - 1
        rows = slice(int(numbers[0]), int(numbers[-1]) + 1) if follow else self.device.asarray(numbers)
        return self._with_rows(rows, np.concatenate([[0], np.cumsum(lengths[symbols])]).astype(np.int64), symbols)

    def _with_rows(self, rows: Any, offsets: np.ndarray, symbols: np.ndarray) -> Panel:
        """The panel of these rows, which are those of the symbols with these numbers; a slice gives views."""
        return dataclasses.replace(
            self,
            columns={name: column[rows] for name, column in self.columns.items()},
            time_ns=self.time_ns[rows],
            local_ns=None if self.local_ns is None else self.local_ns[rows],
            offsets=self.device.asarray(offsets),
            symbols=tuple(self.symbols[k] for k in symbols),
            attributes={name: tuple(values[k] for k in symbols) for name, values in self.attributes.items()},
        )

    def where(self, keep: Sequence[bool]) -> Panel:
        """The panel of the symbols for which `keep` (n_symbols,) is true; raises ValueError if none is left."""
        keep_symbol = np.asarray(keep, dtype=bool)
        keep_row = np.repeat(keep_symbol, np.diff(self.device.to_host(self.offsets)))
        return self._taken(keep_row, np.flatnonzero(keep_symbol))

    def until(self, time_ns: int) -> Panel:
        """The rows up to and at a time, int64 UTC ns; symbols without any are left out. ValueError if none is left."""
        return self.take(self.time_ns <= time_ns)

    def of_group(self, group: str) -> Panel:
        """The panel of one group's symbols."""
        if group not in self.group:
            raise ValueError(f"no symbol of {self.group_by} {group!r}; the panel has {', '.join(self.groups)}")
        return self.where([name == group for name in self.group])

    def _symbols_by_group(self) -> list[str]:
        return [symbol for _, symbol in sorted(zip(self.group, self.symbols, strict=True))]

    def by_group(self) -> Panel:
        """The same rows with the groups one after another: what a kernel computes of it is a slice for each group."""
        symbols = self._symbols_by_group()
        if symbols == list(self.symbols):
            return self
        position = {symbol: k for k, symbol in enumerate(self.symbols)}
        order = np.array([position[symbol] for symbol in symbols], dtype=np.int64)
        before = self.device.to_host(self.offsets)
        begins, lengths = before[:-1][order], np.diff(before)[order]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        rows = self.device.asarray(np.arange(self.n_rows) + np.repeat(begins - offsets[:-1], lengths))
        return self._with_rows(rows, offsets, order)

    def slices_of_groups(self) -> dict[str, slice]:
        """The rows of each group, in the order of `groups`; ValueError unless groups follow each other (`by_group`)."""
        if list(self.symbols) != self._symbols_by_group():
            raise ValueError("the groups of this panel are not one after another; by_group() arranges them")
        first_symbol = np.searchsorted(self.group_of_symbol, np.arange(len(self.groups) + 1))
        first_row = self.device.to_host(self.offsets)[first_symbol].tolist()
        return {group: slice(*rows) for group, rows in zip(self.groups, itertools.pairwise(first_row), strict=True)}

    def replace(self, **changes: Any) -> Panel:
        """The same panel with other columns, attributes or fields, by name: replace(close=..., sector=...)."""
        fields = {item.name for item in dataclasses.fields(self)}
        columns = {name: array for name, array in changes.items() if name in self.columns}
        attributes = {name: tuple(values) for name, values in changes.items() if name in self.attributes}
        if unknown := set(changes) - fields - set(columns) - set(attributes):
            raise ValueError(f"a Panel has no {', '.join(sorted(unknown))}; its columns are {', '.join(self.columns)}")
        others = {name: value for name, value in changes.items() if name in fields}
        return dataclasses.replace(
            self, **{"columns": {**self.columns, **columns}, "attributes": {**self.attributes, **attributes}, **others}
        )

    def to(self, device: Device) -> Panel:
        """The same panel on `device`; itself if it is there already."""
        if device.kind == self.device.kind:
            return self
        move = self.device.to_host if device.kind == "cpu" else device.asarray  # the GPU's ledger counts both ways
        return dataclasses.replace(
            self,
            columns={name: move(column) for name, column in self.columns.items()},
            time_ns=move(self.time_ns),
            local_ns=None if self.local_ns is None else move(self.local_ns),
            offsets=move(self.offsets),
        )

    def to_arrow(self) -> pyarrow.Table:
        """A table with columns symbol (dictionary), time (timestamp[ns, UTC]), the group (dictionary), then others."""
        return row_table(self, dict(self.columns), with_group=True)


def row_table(panel: Panel, columns: dict[str, Any], *, with_group: bool = False) -> pyarrow.Table:
    """An Arrow table of the panel's symbol and time columns followed by `columns`, each (n_rows,)."""
    import pyarrow as pa

    to_host = panel.device.to_host
    code = to_host(panel.symbol_of_row)
    arrays = {
        "symbol": pa.DictionaryArray.from_arrays(pa.array(code), pa.array(list(panel.symbols), pa.string())),
        "time": pa.array(to_host(panel.time_ns)).cast(pa.timestamp("ns", "UTC")),
    }
    if with_group:
        arrays[panel.group_by] = pa.DictionaryArray.from_arrays(
            pa.array(panel.group_of_symbol[code].astype(np.int32)), pa.array(list(panel.groups), pa.string())
        )
    return pa.table({**arrays, **{name: pa.array(to_host(column)) for name, column in columns.items()}})


def check_columns(arrays: dict[str, Any], dtypes: dict[str, str]) -> None:
    """Raise ValueError unless every array has its dtype and all live on one device."""
    for name, array in arrays.items():
        if not hasattr(array, "dtype"):
            raise ValueError(f"column {name!r} is a {type(array).__name__}, expected a numpy or CuPy array")
        if array.dtype != dtypes[name]:
            raise ValueError(f"column {name!r} has dtype {array.dtype}, expected {dtypes[name]}")
    if len({hasattr(array, "__cuda_array_interface__") for array in arrays.values()}) > 1:
        raise ValueError("columns are on different devices; move them with Device.asarray first")
