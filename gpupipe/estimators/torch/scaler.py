"""WindowScaler: what columns are shifted and divided by, from fitted rows alone, before a network reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.dataset.feature_rows import FeatureRows
from gpupipe.kernels.windows import column_moments

BLOCK_ROWS = 1 << 10  # rows whose sums are taken together
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
    ignored. A column that is constant, or of which no value is finite, becomes 0 everywhere. Sums are float64, and no
    row is copied. ValueError for another scaling, for no view, and for views with
    different numbers of columns.
    """
    if scaling not in ("standard", "minmax"):
        raise ValueError(f"scaling {scaling!r} is unknown; expected standard or minmax")
    widths = {_n_columns(view) for view in views}
    if len(widths) != 1:
        raise ValueError(f"expected rows of one number of columns, got {sorted(widths) or 'no rows'}")
    moments = _moments(views, np.zeros(widths.pop()))
    low, high, count = moments.low, moments.high, np.maximum(moments.count, 1)
    varies = high > low
    if scaling == "minmax":
        offset, spread, limits = low, np.where(varies, high - np.where(varies, low, 0), 0), (MINMAX_LOW, MINMAX_HIGH)
    else:
        offset = moments.total / count
        spread, limits = np.sqrt(_moments(views, offset).squares / count), (-clip, clip)
    scale = spread.astype(np.float32)
    known = varies & (scale > 0)
    columns = (np.where(known, offset, 0), np.where(known, scale, 1), *(np.where(known, limit, 0) for limit in limits))
    return WindowScaler(*(column.astype(np.float32) for column in columns))


def _n_columns(view: FeatureRows) -> int:
    return int(view.values.shape[1]) if view.columns is None else len(view.columns)


@dataclass(frozen=True)
class _Moments:
    """Of the finite values of each column, float64 (n_columns,): see `kernels.windows.column_moments`."""

    low: np.ndarray
    high: np.ndarray
    count: np.ndarray
    total: np.ndarray
    squares: np.ndarray


def _moments(views: Sequence[FeatureRows], centre: np.ndarray) -> _Moments:
    """Moments of the columns of some rows, about `centre`, float64 (n_columns,)."""
    n = len(centre)
    low, high = np.full(n, np.inf), np.full(n, -np.inf)
    sums = np.zeros((3, n))
    for view in views:
        if not view.n:
            continue
        device, xp = view.device, view.device.xp
        n_blocks = -(-view.n // BLOCK_ROWS)
        shape = (n_blocks, n)
        outputs = [xp.empty(shape, kind) for kind in (xp.float32, xp.float32, xp.int64, xp.float64, xp.float64)]
        columns = xp.arange(n) if view.columns is None else xp.ascontiguousarray(view.columns, dtype=xp.int64)
        rows = xp.ascontiguousarray(view.rows, dtype=xp.int64)
        column_moments(n_blocks * n, view.values, rows, columns, device.asarray(centre), *outputs)
        of_view = [device.to_host(output) for output in outputs]
        low, high = np.minimum(low, of_view[0].min(axis=0)), np.maximum(high, of_view[1].max(axis=0))
        sums += [blocks.sum(axis=0) for blocks in of_view[2:]]
    return _Moments(low, high, *sums)
