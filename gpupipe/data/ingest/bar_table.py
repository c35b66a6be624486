"""BarTable: the bars of a store or of a source on the host, sorted by symbol and time."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from gpupipe.data.panel import BARS, Panel

_KEYS = ("symbol", "time_ns")
NEW = -1  # the `file` of a row that is in no file yet


@dataclass(frozen=True)
class BarTable:
    """Bars sorted by symbol, then time, without two bars of the same symbol and time.

    names: symbols, sorted.  sectors: one for each name.  symbol: int32 (n,), position in `names`.  time_ns: int64
    (n,), UTC nanoseconds since 1970.  values: float32 (n, 5), open, high, low, close and volume; NaN is unknown.
    file: int32 (n,), position of the row's file in the manifest, or NEW.  local_ns: int64 (n,), the times on the
    exchange's wall clock, of intraday bars whose source gives a time zone; None: the clock is UTC.

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
    local_ns: np.ndarray | None = None

    @property
    def clock_ns(self) -> np.ndarray:
        """int64 (n,): the times on the exchange's wall clock; UTC where that is not known."""
        return self.time_ns if self.local_ns is None else self.local_ns

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
        return dataclasses.replace(self, **arrays, local_ns=None if self.local_ns is None else self.local_ns[rows])

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
    return BarTable(panel.symbols, panel.sector, panel.symbol_of_row, panel.time_ns, values, file, panel.local_ns)


def concatenate(first: BarTable, second: BarTable) -> tuple[BarTable, np.ndarray]:
    """`(the rows of both tables, sorted by symbol and time; the position of each row in first + second)`.

    The names must be equal, as `with_names` makes them.
    """
    symbol, time_ns = (np.concatenate([getattr(table, name) for table in (first, second)]) for name in _KEYS)
    order = np.lexsort((time_ns, symbol))
    local_ns = None
    if first.local_ns is not None or second.local_ns is not None:
        local_ns = np.concatenate([first.clock_ns, second.clock_ns])[order]
    values, file = np.concatenate([first.values, second.values]), np.concatenate([first.file, second.file])
    bars = BarTable(first.names, first.sectors, symbol[order], time_ns[order], values[order], file[order], local_ns)
    return bars, order


def keys(first: BarTable, second: BarTable) -> tuple[np.ndarray, np.ndarray]:
    """Encode symbol and time of each row as one int64: sorted, and equal if both are equal. The names must be equal."""
    times = np.unique(np.concatenate([first.time_ns, second.time_ns]))

    def key(table: BarTable) -> np.ndarray:
        return table.symbol.astype(np.int64) * len(times) + np.searchsorted(times, table.time_ns)

    return key(first), key(second)


def overlap(first: BarTable, second: BarTable) -> tuple[np.ndarray, np.ndarray]:
    """`(rows of first, rows of second)` of the bars of the same symbol and time, int64 (n,) each."""
    if not first.n_rows or not second.n_rows:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    near = (first.time_ns >= second.time_ns.min()) & (first.time_ns <= second.time_ns.max())
    rows = np.flatnonzero(near)  # of a large store only the last days are compared with a night
    names = tuple(sorted({*first.names, *second.names}))
    first_key, second_key = keys(*(table.with_names(names, ("",) * len(names)) for table in (first.take(rows), second)))
    _, first_rows, second_rows = np.intersect1d(first_key, second_key, assume_unique=True, return_indices=True)
    return rows[first_rows], second_rows
