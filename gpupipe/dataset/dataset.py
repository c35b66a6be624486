"""Dataset: the features and targets of one group, row-aligned; no row is dropped, only marked."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gpupipe.data.panel import Panel, check_columns
from gpupipe.dataset.window_marks import WindowMarks
from gpupipe.features.matrix import Features, warm_up_of
from gpupipe.runtime.device import Device, device_of
from gpupipe.targets.target import Target

# A row may be used once the features of up to this many bars are warm; longer windows may be missing on it.
WARM_BARS = 61
NEVER = 2**63 - 1
MIRROR = "copies of the data"  # the stage under which bytes of `Dataset.on` are counted
_mirroring = threading.Lock()
_digesting = threading.Lock()  # a digest is computed once, however many folds ask for it


@dataclass(frozen=True)
class Dataset:
    """Features and targets of one group of symbols, such as a sector.

    group: its name.
    X: float32 (n_rows, n_features), C order; NaN is missing.  names: of its columns.
    y: (n_rows, n_targets), int8 classes with -1 for not known, or float32 values with NaN; see `Target`.
    time_ns: int64 (n_rows,), UTC nanoseconds: when the row was known.
    end_time_ns: int64 (n_rows,), time of the last row that any of the row's targets depends on; 2**63 - 1 where a
        target is not known. Purging by it is right for all targets at once, so that they share their rows.
    warm: bool (n_rows,): the columns that need at most 61 bars are all there.
    usable: bool (n_rows,): warm, and all targets known.
    offsets: int64 (n_symbols + 1,): symbol k is the rows offsets[k]:offsets[k+1]; windows never cross symbols.
    weight: float32 (n_rows, n_targets), the weight of a row when a target is fitted; None where all weigh alike.
    extra: further columns (n_rows,) by name; the workload's recipe chooses them, its baselines and measures read them.
    windows: which rows have all the rows before them that an estimator of the run reads; None where none looks back.
        The other rows are neither warm nor usable.
    lookback_rows: how many rows before a row that is; folds are purged by it too.

    Raises ValueError when a shape, dtype or device is not as above.

        >>> import numpy as np
        >>> from gpupipe.targets.target import Target
        >>> data = Dataset(
        ...     "energy", np.zeros((3, 2), np.float32), ("a", "b"), np.array([[1], [0], [-1]], np.int8),
        ...     Target(("up",), "classes", (1,), ("down", "up")), np.arange(3), np.array([1, 2, NEVER]),
        ...     np.ones(3, bool), np.array([True, True, False]), np.array([0, 3]))
        >>> data.n_rows, data.n_targets, data.on(data.device) is data
        (3, 1, True)
    """

    group: str
    X: Any
    names: tuple[str, ...]
    y: Any
    target: Target
    time_ns: Any
    end_time_ns: Any
    warm: Any
    usable: Any
    offsets: Any
    weight: Any = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    windows: WindowMarks | None = None
    lookback_rows: int = 0

    def __post_init__(self) -> None:
        dtypes = {
            "X": "float32", "y": self.target.y_dtype, "time_ns": "int64", "end_time_ns": "int64", "warm": "bool",
            "usable": "bool", "offsets": "int64",
        }  # fmt: skip
        check_columns({name: getattr(self, name) for name in dtypes}, dtypes)
        shapes = {"X": (len(self.names),), "y": (len(self.target.names),)}
        rows = {name: getattr(self, name) for name in dtypes if name != "offsets"} | dict(self.extra)
        for name, column in rows.items():
            expected = (self.X.shape[0], *shapes.get(name, ()))
            if column.shape != expected:
                raise ValueError(f"{name} has shape {column.shape}, expected {expected}")
        if self.weight is not None and self.weight.shape != self.y.shape:
            raise ValueError(f"weight has shape {self.weight.shape}, expected {self.y.shape}")

    @functools.cached_property
    def device(self) -> Device:
        """The device its arrays live on."""
        return device_of(self.X)

    @property
    def row_digests(self) -> np.ndarray:
        """int32 (n_rows, 4), on the host: 128 bits of the features of each row, the same on every device.

        Cache keys are made of them. They are of the values, not of what these were computed from: a row keeps its
        digest when later bars are appended or other symbols change, whatever a feature reads. Computed once, where X
        is, so that 16 bytes of a row are copied to be hashed, and not the row.
        """
        with _digesting:
            if "_row_digests" not in self.__dict__:
                self.__dict__["_row_digests"] = _digest_rows(self.X)
            digests: np.ndarray = self.__dict__["_row_digests"]
            return digests

    def on(self, device: Device) -> Dataset:
        """This dataset on a device: itself where it is there, else a copy, made once, by who asks first."""
        if device.kind == self.device.kind:
            return self
        with _mirroring:
            source: weakref.ref[Dataset] | None = self.__dict__.get("_source")
            if source is not None and (original := source()) is not None and original.device.kind == device.kind:
                return original
            mirrors: dict[str, Dataset] = self.__dict__.setdefault("_mirrors", {})
            if device.kind not in mirrors:
                with self.device.stage(MIRROR, self.group):
                    mirrors[device.kind] = self._copied(device)
                if "_row_digests" in self.__dict__:
                    mirrors[device.kind].__dict__["_row_digests"] = self.__dict__["_row_digests"]
                mirrors[device.kind].__dict__["_source"] = weakref.ref(self)
            return mirrors[device.kind]

    def _copied(self, device: Device) -> Dataset:
        names = ["y", "time_ns", "end_time_ns", "warm", "usable", "offsets"]
        if self.weight is not None:
            names.append("weight")
        arrays = [getattr(self, name) for name in names]
        complete = [] if self.windows is None else [self.windows.complete]
        move = self.device.to_hosts if device.kind == "cpu" else device.asarrays
        moved = iter(move([*arrays, *self.extra.values(), *complete]))
        changes = dict(zip(names, moved, strict=False))
        extra = dict(zip(self.extra, moved, strict=False))
        windows = self.windows and replace(self.windows, complete=next(moved))
        X = copied(self.X, self.device, device)  # alone: packed with the others it would be held twice
        return replace(self, X=X, extra=extra, windows=windows, **changes)

    @property
    def n_rows(self) -> int:
        """Number of rows, usable or not."""
        return int(self.X.shape[0])

    @property
    def n_targets(self) -> int:
        """Number of columns of y."""
        return len(self.target.names)


def share_digests(datasets: Sequence[Dataset], X: Any) -> None:
    """Compute the row digests of several datasets together; X: the array whose rows are theirs, one after another."""
    digests, end = _digest_rows(X), 0
    for dataset in datasets:
        begin, end = end, end + dataset.n_rows
        dataset.__dict__["_row_digests"] = digests[begin:end]


def _digest_rows(X: Any) -> np.ndarray:
    """int32 (n_rows, 4), on the host: the digests of float32 (n_rows, n_columns)."""
    from gpupipe.kernels.digests import WORDS, digest_factors, row_digest

    device, (n_rows, n_columns) = device_of(X), X.shape
    digests = device.xp.empty((n_rows, WORDS), dtype=np.int32)
    row_digest(n_rows, X.view(np.int32), device.asarray(digest_factors(n_columns)), digests)
    return device.to_host(digests)


def copied(array: Any, source: Device, device: Device) -> Any:
    """An array of a device on another; the bytes are counted by the one that is no CPU."""
    return source.to_host(array) if device.kind == "cpu" else device.asarray(array)


def warm_rows(features: Features, rows: Any = slice(None)) -> Any:
    """bool (n_rows,), or of `rows` alone: the columns that need at most 61 bars are all there."""
    values = features.values[rows]
    warm = features.panel.device.xp.ones(values.shape[0], dtype=bool)
    for k, name in enumerate(features.names):  # column by column: a mask of the whole matrix would be large
        if warm_up_of(name) <= WARM_BARS:
            warm &= ~features.panel.device.xp.isnan(values[:, k])
    return warm


def warm_by_bars(panel: Panel, warm_bars: int) -> Any:
    """bool (n_rows,): `warm_bars` bars before the row, and the row itself, have all prices.

    An estimate of `warm_rows` from the bars alone: features of bars with gaps may be known on more rows.
    """
    xp, rows = panel.device.xp, panel.device.xp.arange(panel.n_rows)
    known = xp.ones(panel.n_rows, dtype=bool)
    for column in (panel.open, panel.high, panel.low, panel.close):
        known &= xp.isfinite(column) & (column > 0)
    # On the host: CuPy has no running maximum.
    unknown = np.maximum.accumulate(panel.device.to_host(xp.where(known, -1, rows)))
    first = panel.offsets[:-1][panel.symbol_of_row]
    last_unknown = xp.maximum(panel.device.asarray(unknown), first - 1)
    return rows - last_unknown > warm_bars
