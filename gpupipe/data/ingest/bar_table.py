"""BarTable: the bars of a store or of a source on the host, sorted by symbol and time."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from gpupipe.data.panel import BARS, Panel

NEW = -1  # the `file` of a row that is in no file yet


@dataclass(frozen=True)
class BarTable:
    """Bars sorted by symbol, then time, without two bars of the same symbol and time.

    names: symbols, sorted.  sectors: one for each name.  symbol: int32 (n,), position in `names`.  time_ns: int64
    (n,), UTC nanoseconds since 1970.  values: float32 (n, 5), open, high, low, close and volume; NaN is unknown.
    file: int32 (n,), position of the row's file in the manifest, or NEW.

    >>> table = BarTable(
    ...     names=("A", "B"),
    ...     sectors=("energy", "utilities"),
    ...     symbol=np.int32([0, 0, 1]),
    ...     time_ns=np.int64([0, 1, 0]),
    ...     values=np.ones((3, 5), np.float32),
    ...     file=np.full(3, NEW, np.int32),
    ... )
    >>> table.n_rows, table.offsets.tolist()
    (3, [0, 2, 3])
    """

    names: tuple[str, ...]
    sectors: tuple[str, ...]
    symbol: np.ndarray
    time_ns: np.ndarray
    values: np.ndarray
    file: np.ndarray

    @property
    def n_rows(self) -> int:
        """Number of bars."""
        return len(self.symbol)

    @property
    def offsets(self) -> np.ndarray:
        """int64 (n_names + 1,): the rows of name k are offsets[k]:offsets[k+1]."""
        return np.searchsorted(self.symbol, np.arange(len(self.names) + 1))

    def take(self, rows: np.ndarray) -> BarTable:
        """Select rows by number, in order, or by a mask; all names stay."""
        arrays = {name: getattr(self, name)[rows] for name in ("symbol", "time_ns", "values", "file")}
        return dataclasses.replace(self, **arrays)

    def with_names(self, names: tuple[str, ...], sectors: tuple[str, ...]) -> BarTable:
        """Return the same rows with other `names`: sorted, and a superset of the current ones."""
        position = {name: k for k, name in enumerate(names)}
        code = np.array([position[name] for name in self.names], np.int32)
        return dataclasses.replace(self, names=names, sectors=sectors, symbol=code[self.symbol])

    def without_unused_names(self) -> BarTable:
        """Return the same rows; names without a row are removed."""
        used = np.unique(self.symbol)
        return dataclasses.replace(
            self,
            names=tuple(self.names[k] for k in used),
            sectors=tuple(self.sectors[k] for k in used),
            symbol=np.searchsorted(used, self.symbol).astype(np.int32),
        )


def empty() -> BarTable:
    """A table without rows or names."""
    no_codes = np.zeros(0, np.int32)
    return BarTable((), (), no_codes, np.zeros(0, np.int64), np.zeros((0, 5), np.float32), no_codes)


def from_panel(panel: Panel) -> BarTable:
    """Convert a Panel on the host; all rows are NEW."""
    values = np.stack([getattr(panel, name) for name in BARS], axis=1)
    file = np.full(panel.n_rows, NEW, np.int32)
    return BarTable(panel.symbols, panel.sector, panel.symbol_of_row, panel.time_ns, values, file)


def keys(first: BarTable, second: BarTable) -> tuple[np.ndarray, np.ndarray]:
    """Encode symbol and time of each row as one int64: sorted, and equal if both are equal. The names must be equal."""
    times = np.unique(np.concatenate([first.time_ns, second.time_ns]))

    def key(table: BarTable) -> np.ndarray:
        return table.symbol.astype(np.int64) * len(times) + np.searchsorted(times, table.time_ns)

    return key(first), key(second)
