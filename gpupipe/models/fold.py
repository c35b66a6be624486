"""Fold: the rows that one round of fitting uses, gathered once and shared by every family."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe.dataset import Dataset
from gpupipe.device import Device

N_CLASSES = 3
SELL, HOLD, BUY = 0, 1, 2


@dataclass(frozen=True)
class Rows:
    """One sector's rows, on the device: X float32 (n, n_features), y int8 (n, n_labels), time_ns int64 (n,)."""

    X: Any
    y: Any
    time_ns: Any

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.X.shape[0])

    def tile(self, bias: np.ndarray, device: Device) -> Any:
        """`bias` (n_outputs,) repeated for every row: where a booster's margins begin."""
        return device.xp.tile(device.asarray(bias), (self.n, 1))


def gather(dataset: Dataset, rows: np.ndarray, labels: Sequence[int] | None = None) -> Rows:
    """Copy `rows` (row numbers) of a dataset together, on its device; of y, only the columns `labels` if given."""
    at = dataset.device.asarray(rows)
    y = dataset.y[at] if labels is None else dataset.device.xp.ascontiguousarray(dataset.y[at][:, list(labels)])
    return Rows(dataset.X[at], y, dataset.time_ns[at])


@dataclass(frozen=True)
class Fold:
    """What one round of fitting may see.

    name: "final", or "part1", "part2", ... for the out-of-fold rounds.
    fit: rows to fit, by sector, in the order that the pooled matrix has them.
    validation: rows that choose rounds, by sector; empty in out-of-fold rounds, which take the final's choices.
    class_weight: "none", or "balanced": each class weighs the inverse of its share in the fitted rows.
    threads: for a pooled fit; a sector's fit has one, so that the number of jobs changes no result.
    """

    name: str
    fit: Mapping[str, Rows]
    validation: Mapping[str, Rows]
    label_names: tuple[str, ...]
    device: Device
    max_bin: int
    class_weight: str
    threads: int
    seed: int
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def sectors(self) -> tuple[str, ...]:
        """The sectors, in pooled order."""
        return tuple(self.fit)

    @property
    def scope(self) -> str:
        """What a model fitted on all rows of this fold is: "pool", or "sector" where there is only one sector."""
        return "pool" if len(self.fit) > 1 else "sector"

    @property
    def n_labels(self) -> int:
        """Number of labels."""
        return len(self.label_names)

    @functools.cached_property
    def counts(self) -> dict[str, np.ndarray]:
        """Fitted rows by class: int64 (n_labels, 3) for each sector."""
        counted = {}
        for sector, rows in self.fit.items():
            y = self.device.to_host(rows.y)
            counted[sector] = np.stack(
                [np.bincount(column[column >= 0], minlength=N_CLASSES) for column in y.T.astype(np.int64)]
            )
        return counted

    def shares(self, sectors: Sequence[str] | None = None) -> np.ndarray:
        """Class shares of the fitted rows, float64 (n_labels, 3), of all sectors or of some; never exactly 0.

        One pseudo-row spread as the pool (which has half a row of each class) keeps the logarithm finite.
        """
        pooled = np.sum(list(self.counts.values()), axis=0) + 0.5
        pooled = pooled / pooled.sum(axis=1, keepdims=True)
        if sectors is None:
            return pooled
        counted = np.sum([self.counts[sector] for sector in sectors], axis=0) + pooled
        return counted / counted.sum(axis=1, keepdims=True)

    def weights(self, sectors: Sequence[str] | None = None) -> np.ndarray:
        """Weight of each class, float32 (n_labels, 3); ones unless class_weight is "balanced"."""
        if self.class_weight == "none":
            return np.ones((self.n_labels, N_CLASSES), dtype=np.float32)
        return (1.0 / (N_CLASSES * self.shares(sectors))).astype(np.float32)

    def bins(self, sector: str | None = None) -> Any:
        """Quantile bins of the fitted rows: an unweighted xgboost.QuantileDMatrix without labels.

        The pooled one (sector None) is built once and shared; a sector's has the same cut points and belongs to
        the caller, who sets one label at a time on it.
        """
        if sector is None:
            with self._lock:
                return self._pooled_bins
        return quantile_matrix([self.fit[sector].X], self.max_bin, 1, ref=self.bins())

    def validation_bins(self, sector: str, bins: Any) -> Any:
        """The sector's validation rows, in the bins of the matrix that a booster is fitted on."""
        return quantile_matrix([self.validation[sector].X], self.max_bin, 1, ref=bins)

    @functools.cached_property
    def _pooled_bins(self) -> Any:
        return quantile_matrix([rows.X for rows in self.fit.values()], self.max_bin, self.threads)


def clear_labels(matrix: Any) -> None:
    """Take label, weights and starting margins off a shared matrix, so that the next booster finds none."""
    nothing = np.empty(0, dtype=np.float32)
    matrix.set_info(label=nothing, weight=nothing, base_margin=nothing)


def quantile_matrix(parts: Sequence[Any], max_bin: int, threads: int, ref: Any = None) -> Any:
    """A QuantileDMatrix of row blocks (numpy or CuPy, float32), which are never put together as floats."""
    import xgboost

    class Blocks(xgboost.DataIter):
        def __init__(self) -> None:
            self.position = 0
            super().__init__()

        def next(self, input_data: Any) -> bool:
            if self.position == len(parts):
                return False
            input_data(data=parts[self.position])
            self.position += 1
            return True

        def reset(self) -> None:
            self.position = 0

    return xgboost.QuantileDMatrix(Blocks(), max_bin=max_bin, nthread=threads, ref=ref)
