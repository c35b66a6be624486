"""Rows: the bars of a store or of an arrival on the host, as one table sorted by symbol and time."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from gpupipe.data.panel import COLUMNS, Panel

NEW = -1  # the part of a row that is in no file yet


@dataclass(frozen=True)
class Rows:
    """Bars sorted by symbol, then time, without two of the same symbol and time.

    names: symbols, sorted.  sector: of each name.  symbol: int32 (n,), position in `names`.  time_ns: int64 (n,), UTC.
    values: float32 (n, 5), open, high, low, close, volume (NaN: not known).  part: int32 (n,), position of the file
    that the row is in among those of the manifest, or NEW.
    """

    names: tuple[str, ...]
    sector: tuple[str, ...]
    symbol: np.ndarray
    time_ns: np.ndarray
    values: np.ndarray
    part: np.ndarray

    @property
    def n_rows(self) -> int:
        """Number of bars."""
        return len(self.symbol)

    @property
    def edges(self) -> np.ndarray:
        """int64 (n_names + 1,): the rows of name k are edges[k]:edges[k+1]."""
        return np.searchsorted(self.symbol, np.arange(len(self.names) + 1))

    def take(self, rows: np.ndarray) -> Rows:
        """These rows (numbers or a mask, in order); all names stay."""
        arrays = {name: getattr(self, name)[rows] for name in ("symbol", "time_ns", "values", "part")}
        return dataclasses.replace(self, **arrays)

    def renamed(self, names: tuple[str, ...], sector: tuple[str, ...]) -> Rows:
        """The same rows with `names`, sorted, of which its own are a part."""
        place = {name: k for k, name in enumerate(names)}
        code = np.array([place[name] for name in self.names], np.int32)
        return dataclasses.replace(self, names=names, sector=sector, symbol=code[self.symbol])


def empty() -> Rows:
    """No rows of no symbols."""
    return Rows((), (), np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros((0, 5), np.float32),
                np.zeros(0, np.int32))  # fmt: skip


def of_panel(panel: Panel) -> Rows:
    """The rows of a Panel that is on the host, all of them NEW."""
    values = np.stack([getattr(panel, name) for name in COLUMNS], axis=1)
    part = np.full(panel.n_rows, NEW, np.int32)
    return Rows(panel.symbols, panel.sector, panel.symbol_of_row, panel.time_ns, values, part)


def keys(first: Rows, second: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Two int64 arrays that say the symbol and time of each row; sorted, and equal where both are. Same names."""
    times = np.unique(np.concatenate([first.time_ns, second.time_ns]))
    return tuple(
        rows.symbol.astype(np.int64) * len(times) + np.searchsorted(times, rows.time_ns) for rows in (first, second)
    )  # type: ignore[return-value]
