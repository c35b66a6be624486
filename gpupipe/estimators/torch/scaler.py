"""WindowScaler: what columns are shifted and divided by, from fitted rows alone, before a network reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.dataset.feature_rows import FeatureRows

BLOCK_ROWS = 1 << 12  # rows that are copied at once: float64 copies of them fit into a core's cache
NAMES = ("offset", "scale", "low", "high")
MINMAX_LOW, MINMAX_HIGH = -1.0, 2.0  # where the fitted rows span 0 to 1


@dataclass(frozen=True, eq=False)
class WindowScaler:
    """A column's value becomes clip((value - offset) / scale, low, high), and NaN 0.

    offset, scale, low, high: float32 (n_columns,), finite; scale > 0, low <= high. A column whose low and high are 0 is
        0 everywhere.

    Raises ValueError when a shape, dtype or value is not as above.

        >>> scaler = WindowScaler(np.float32([2, 5]), np.float32([2, 1]), np.float32([-4, 0]), np.float32([4, 0]))
        >>> scaler.scaled(np.float32([[4, 7], [100, np.inf], [np.nan, 6]])).tolist()
        [[1.0, 0.0], [4.0, 0.0], [0.0, 0.0]]
        >>> WindowScaler.from_dict(scaler.as_dict()).as_dict() == scaler.as_dict()
        True
    """

    offset: np.ndarray
    scale: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __post_init__(self) -> None:
        for name in NAMES:
            array = getattr(self, name)
            if array.dtype != np.float32 or array.shape != (len(self.offset),):
                raise ValueError(f"{name} is {array.dtype} {array.shape}, expected float32 ({len(self.offset)},)")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} holds values that are not finite")
        if not ((self.scale > 0).all() and (self.low <= self.high).all()):
            raise ValueError("expected a scale > 0 and low <= high for each column")

    @property
    def n_columns(self) -> int:
        """Columns that it scales."""
        return len(self.offset)

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """float32 (..., n_columns) scaled by numpy, with the bits that kernels/windows.py gives."""
        with np.errstate(over="ignore", invalid="ignore"):
            z = (values - self.offset) / self.scale
        z = np.clip(z, self.low, self.high)
        return np.where(np.isnan(z), np.float32(0), z)

    def as_dict(self) -> dict[str, Any]:
        """In the types of JSON; `from_dict` gives the same bits again."""
        return {name: getattr(self, name).tolist() for name in NAMES}

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> WindowScaler:
        """What `as_dict` described; ValueError where it is no such description."""
        try:
            return cls(*(np.array(description[name], np.float64).astype(np.float32) for name in NAMES))
        except (KeyError, TypeError) as error:
            raise ValueError(f"no description of a scaler: {error!r}") from None


def fit_scaler(views: Sequence[FeatureRows], scaling: str = "standard", clip: float = 4.0) -> WindowScaler:
    """The scaler of the columns of some rows; of several views, their rows count together.

    scaling: "standard": mean 0 and deviation 1, clipped at +-clip.  "minmax": the rows span 0 to 1; others are clipped
        at -1 and 2, and clip is not read.

    Only the given rows are read, not the rows before them in their windows. Values that are NaN or infinite are
    ignored. A column that is constant, or of which no value is finite, becomes 0 everywhere. Sums are float64, of
    blocks of rows, so that no copy of all rows is made. ValueError for another scaling, for no view, and for views with
    different numbers of columns.
    """
    if scaling not in ("standard", "minmax"):
        raise ValueError(f"scaling {scaling!r} is unknown; expected standard or minmax")
    widths = {_n_columns(view) for view in views}
    if len(widths) != 1:
        raise ValueError(f"expected rows of one number of columns, got {sorted(widths) or 'no rows'}")
    n_columns = widths.pop()
    low, high = np.full(n_columns, np.inf), np.full(n_columns, -np.inf)
    count, total = np.zeros(n_columns), np.zeros(n_columns)
    for xp, block, finite, to_host in _blocks(views):
        low = np.minimum(low, to_host(xp.where(finite, block, xp.inf).min(axis=0)))
        high = np.maximum(high, to_host(xp.where(finite, block, -xp.inf).max(axis=0)))
        count += to_host(finite.sum(axis=0))
        total += to_host(xp.where(finite, block, 0).sum(axis=0, dtype=xp.float64))
    varies = high > low
    if scaling == "minmax":
        offset, spread, limits = low, np.where(varies, high - np.where(varies, low, 0), 0), (MINMAX_LOW, MINMAX_HIGH)
    else:
        offset = total / np.maximum(count, 1)
        spread, limits = np.sqrt(_squares(views, offset) / np.maximum(count, 1)), (-clip, clip)
    scale = spread.astype(np.float32)
    known = varies & (scale > 0)
    columns = (np.where(known, offset, 0), np.where(known, scale, 1), *(np.where(known, limit, 0) for limit in limits))
    return WindowScaler(*(column.astype(np.float32) for column in columns))


def _n_columns(view: FeatureRows) -> int:
    return int(view.values.shape[1]) if view.columns is None else len(view.columns)


def _blocks(views: Sequence[FeatureRows]) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Array module, float32 (some thousand rows, n_columns), which values are finite, and the way to the host."""
    for view in views:
        xp, matrix = view.device.xp, view.values
        for start in range(0, view.n, BLOCK_ROWS):
            block = matrix[view.rows[start : start + BLOCK_ROWS]]
            block = block if view.columns is None else xp.take(block, view.columns, axis=1)
            yield xp, block, xp.isfinite(block), view.device.to_host


def _squares(views: Sequence[FeatureRows], mean: np.ndarray) -> np.ndarray:
    """float64 (n_columns,): sums of squared distances from the means."""
    total = np.zeros(len(mean))
    for xp, block, finite, to_host in _blocks(views):
        distance = xp.where(finite, block - xp.asarray(mean), 0)
        total += to_host((distance * distance).sum(axis=0))
    return total
