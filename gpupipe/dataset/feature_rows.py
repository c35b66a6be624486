"""FeatureRows: some rows of a feature matrix, with the rows before them; what models predict from."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpupipe.runtime.device import Device, device_of


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """Some rows of a feature matrix, in any order, gathered on its device when they are read.

    values: float32 (n_rows, n_features), C order, the matrix.
    rows: int64 (n,), row numbers, on the matrix's device.
    offsets: int64 (n_symbols + 1,): symbol k is the rows offsets[k]:offsets[k+1]; windows never cross symbols.
    columns: int64, numbers of the columns that count; None for all.

        >>> matrix = np.float32([[0], [1], [2], [3]])
        >>> rows = FeatureRows(matrix, np.array([3, 0]), np.array([0, 2, 4]))
        >>> rows.X.tolist(), rows.windows(2)[:, :, 0].tolist()
        ([[3.0], [0.0]], [[2.0, 3.0], [nan, 0.0]])
    """

    values: Any
    rows: Any
    offsets: Any
    columns: Any = None

    @classmethod
    def of_matrix(cls, X: Any) -> FeatureRows:
        """All rows of a matrix (n, n_features), each the only row of its symbol, so that it has no row before it."""
        xp = device_of(X).xp
        rows = cls(X, xp.arange(len(X)), xp.arange(len(X) + 1))
        rows.__dict__["X"] = X  # without a copy
        return rows

    @classmethod
    def of_windows(cls, windows: Any) -> FeatureRows:
        """The last rows of windows (n, length, n_features), each a symbol of its own."""
        n, length, n_features = windows.shape
        xp = device_of(windows).xp
        ends = length * xp.arange(n + 1)
        return cls(windows.reshape(n * length, n_features), ends[1:] - 1, ends)

    @functools.cached_property
    def device(self) -> Device:
        """The device of the matrix."""
        return device_of(self.values)

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.rows)

    @functools.cached_property
    def X(self) -> Any:
        """float32 (n, n_columns), a copy of the rows."""
        gathered = self.values[self.rows]
        return gathered if self.columns is None else self.device.xp.take(gathered, self.columns, axis=1)

    def windows(self, length: int) -> Any:
        """Features of each row and the rows before it, float32 (n, length, n_columns), oldest first.

        Rows before the symbol's first are NaN. Copied anew at each call: ask for a batch of rows at a time.
        """
        xp = self.device.xp
        rows = xp.asarray(self.rows)[:, None] + xp.arange(1 - length, 1)
        missing = rows < self.first_of_symbol[:, None]
        windows = self.values[xp.where(missing, 0, rows)]
        if self.columns is not None:
            windows = xp.take(windows, self.columns, axis=2)
        windows[missing] = np.nan
        return windows

    @functools.cached_property
    def first_of_symbol(self) -> Any:
        """int64 (n,): the first row of each row's symbol."""
        xp, offsets = self.device.xp, self.offsets
        if len(offsets) == 2:  # a single symbol: nothing has to be searched
            return xp.zeros(len(self.rows), dtype=offsets.dtype)
        return offsets[xp.searchsorted(offsets, xp.asarray(self.rows), side="right") - 1]

    def take(self, at: Any) -> FeatureRows:
        """The rows at the positions `at`, int64."""
        return replace(self, rows=self.rows[at])

    def take_columns(self, columns: Any) -> FeatureRows:
        """The same rows with some of the columns, by their position in these, on the device or the host."""
        on_device = self.device.asarray(columns)
        return replace(self, columns=on_device if self.columns is None else self.columns[on_device])

    def context(self, lookback_rows: int) -> np.ndarray:
        """int64, ascending, on the host: the rows, and `lookback_rows` rows of the same symbol before each of them."""
        rows = self.device.to_host(self.rows)
        first = np.maximum(rows - lookback_rows, self.device.to_host(self.first_of_symbol))
        # Marks where spans begin and end, in place of all their rows: these can be a hundred times as many.
        n_rows = len(self.values)
        opened = np.bincount(first, minlength=n_rows + 1) - np.bincount(rows + 1, minlength=n_rows + 1)
        return np.flatnonzero(np.cumsum(opened[:n_rows]) > 0)
