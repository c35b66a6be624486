"""Fold: the rows that one round of fitting uses, gathered once and shared by every family."""

from __future__ import annotations

import functools
import threading
import zlib
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

    def slice(self, first: int, last: int) -> Rows:
        """Rows first to last - 1, without a copy."""
        return Rows(self.X[first:last], self.y[first:last], self.time_ns[first:last])

    def tile(self, bias: np.ndarray, device: Device) -> Any:
        """`bias` (n_outputs,) repeated for every row: where a booster's margins begin."""
        return device.xp.tile(device.asarray(bias), (self.n, 1))


@dataclass(frozen=True)
class Sample:
    """Rows that a tree is fitted on: blocks of a fold's fitted rows, and the bins of all of them in one matrix."""

    blocks: tuple[Rows, ...]
    bins: Any


def gather(dataset: Dataset, rows: np.ndarray, labels: Sequence[int] | None = None) -> Rows:
    """Copy `rows` (row numbers) of a dataset together, on its device; of y, only the columns `labels` if given."""
    at = dataset.device.asarray(rows)
    y = dataset.y[at] if labels is None else dataset.device.xp.ascontiguousarray(dataset.y[at][:, list(labels)])
    return Rows(dataset.X[at], y, dataset.time_ns[at])


def shuffled(rows: np.ndarray, seed: int, sector: str) -> np.ndarray:
    """Row numbers in random order, the same again for a seed and a sector, whatever other sectors there are."""
    return np.random.default_rng([seed, zlib.crc32(sector.encode())]).permutation(rows)


@dataclass(frozen=True)
class Fold:
    """What one round of fitting may see.

    name: "final", or "part1", "part2", ... for the out-of-fold rounds.
    fit: rows to fit, by sector, in the order that the pooled matrix has them; those of a sector in random order
        (`shuffled`), so that every slice of them is a sample.
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
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    _making: dict[Any, threading.Lock] = field(default_factory=dict, init=False, repr=False, compare=False)
    _samples: dict[Any, list[Sample]] = field(default_factory=dict, init=False, repr=False, compare=False)

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

    def bins(self) -> Any:
        """Quantile bins of the fitted rows of all sectors: an xgboost.QuantileDMatrix without labels or weights.

        Built once; every other matrix of the fold has its cut points.
        """
        with self._lock:
            return self._pooled_bins

    def samples(self, share: float, sector: str | None = None) -> list[Sample]:
        """The fitted rows, of all sectors or of one, cut at random into samples of about `share` of them each.

        1 / share is rounded to the next number of samples, which hold every row once: trees that take them in turn
        see `share` of the rows each, and it costs them `share` of the time, where XGBoost's own subsample costs as
        much as all rows. Made once, and shared by all families.
        """
        key = (max(1, round(1 / share)), sector)
        self.bins()
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            if key not in self._samples:
                self._samples[key] = self._cut(*key)
            return self._samples[key]

    def _cut(self, n_samples: int, sector: str | None) -> list[Sample]:
        parts = list(self.fit.values()) if sector is None else [self.fit[sector]]
        if n_samples == 1 and sector is None:
            return [Sample(tuple(parts), self.bins())]
        samples = []
        for k in range(n_samples):
            blocks = tuple(rows.slice(rows.n * k // n_samples, rows.n * (k + 1) // n_samples) for rows in parts)
            threads = self.threads if sector is None else 1
            bins = quantile_matrix([rows.X for rows in blocks], self.max_bin, threads, ref=self.bins())
            samples.append(Sample(blocks, bins))
        return samples

    @functools.cached_property
    def _pooled_bins(self) -> Any:
        return quantile_matrix([rows.X for rows in self.fit.values()], self.max_bin, self.threads)


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
