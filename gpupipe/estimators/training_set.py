"""Fold: the rows that one round of fitting uses, gathered once and shared by every family."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
import pathlib
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe import config
from gpupipe.dataset.dataset import Dataset
from gpupipe.runtime import memory
from gpupipe.runtime.device import Device, device_of
from gpupipe.targets.classes import N_CLASSES

_numbers = itertools.count()  # names of files in a cache
BLOCK_ROWS = 1 << 15  # of rows that are copied together when they are read
CUT_ROWS = 100_000  # that cut points are found on: the share of rows below one has a standard error of 0.16 %


@dataclass(frozen=True)
class Late:
    """Rows of a feature matrix that nobody has copied together yet: float32 (n, n_columns) once `whole` is called.

    values: float32 (n_rows, n_features), the matrix.  at: int64 (n,), row numbers.  columns: int64, or None for all.
    """

    values: Any
    at: Any
    columns: Any = None

    @property
    def shape(self) -> tuple[int, int]:
        """Of the rows copied together."""
        return len(self.at), self.values.shape[1] if self.columns is None else len(self.columns)

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, rows: Any) -> Late:
        """Some of the rows, by a slice or by their numbers."""
        return Late(self.values, self.at[rows], self.columns)

    def only(self, columns: Any) -> Late:
        """The same rows of some of the columns, by number."""
        return Late(self.values, self.at, columns if self.columns is None else self.columns[columns])

    def whole(self) -> Any:
        """A copy of the rows, on the device."""
        found = self.values[self.at]
        return found if self.columns is None else device_of(found).xp.take(found, self.columns, axis=1)


def whole(X: Any) -> Any:
    """X itself, or the matrix that it stands for, made now."""
    return X.whole() if hasattr(X, "whole") else X


def only(X: Any, columns: Any) -> Any:
    """Some columns of X, by number; copied, if X is."""
    # numpy's X[:, columns] lies column after column in memory, and kernels read rows.
    return X.only(columns) if isinstance(X, Late) else device_of(X).xp.take(X, columns, axis=1)


def in_blocks(X: Any) -> Iterator[Any]:
    """X itself; or the rows that it stands for, some thousand at a time."""
    if not isinstance(X, Late):
        yield X
        return
    for first in range(0, len(X), BLOCK_ROWS):
        yield X[first : first + BLOCK_ROWS].whole()


def alone(numbers: np.ndarray) -> np.ndarray:
    """The sum over all processes that hold rows of a fold, where it is held by this one alone."""
    return numbers


@dataclass(frozen=True)
class Rows:
    """One sector's rows, on the device: X float32 (n, n_features), y int8 (n, n_labels), time_ns int64 (n,).

    X may be `Late` where memory is short: whoever reads it goes through `whole`, `only` or `in_blocks`.
    weight: float32 (n, n_labels), what a row counts in fitting a label; None where all count alike.
    """

    X: Any
    y: Any
    time_ns: Any
    weight: Any = None

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.X.shape[0])

    def slice(self, first: int, last: int) -> Rows:
        """Rows first to last - 1, without a copy."""
        weight = None if self.weight is None else self.weight[first:last]
        return Rows(self.X[first:last], self.y[first:last], self.time_ns[first:last], weight)

    def take(self, at: Any) -> Rows:
        """Copies of the rows with the numbers `at`, int64, on the device."""
        return Rows(self.X[at], self.y[at], self.time_ns[at], None if self.weight is None else self.weight[at])

    def of_labels(self, labels: Sequence[int]) -> Rows:
        """The same rows with some of the labels, by number; X is not copied."""
        at = list(labels)
        y, weight = (None if one is None else device_of(one).xp.ascontiguousarray(one[:, at]) for one in (
            self.y, self.weight
        ))  # fmt: skip
        return Rows(self.X, y, self.time_ns, weight)

    def tile(self, bias: np.ndarray, device: Device) -> Any:
        """`bias` (n_outputs,) repeated for every row: where a booster's margins begin."""
        return device.xp.tile(device.asarray(bias), (self.n, 1))


@dataclass(frozen=True)
class Sample:
    """Rows that a tree is fitted on: blocks of a fold's fitted rows, and the bins of all of them in one matrix."""

    blocks: tuple[Rows, ...]
    bins: Any


def gather(
    dataset: Dataset, rows: np.ndarray, labels: Sequence[int] | None = None, cache: pathlib.Path | None = None,
    late: bool = False,
) -> Rows:  # fmt: skip
    """Copy `rows` (row numbers) of a dataset together, on its device; of y, only the columns `labels` if given.

    cache: a folder in which X is kept in a file, where the device is the CPU.
    late: without such a folder, leave X where it is, to be copied in parts when it is read.
    """
    at = dataset.device.asarray(rows)

    weight = None if dataset.weight is None else _chosen(dataset.weight, at, labels)
    if cache is not None and dataset.device.kind == "cpu":
        X = np.take(dataset.X, at, axis=0, out=memory.matrix((len(at), dataset.X.shape[1]), cache), mode="clip")
    else:
        X = Late(dataset.X, at) if late else dataset.X[at]
    return Rows(X, _chosen(dataset.y, at, labels), dataset.time_ns[at], weight)


def labels_of(dataset: Dataset, rows: np.ndarray, labels: Sequence[int]) -> Any:
    """Some columns of y, int8 (n_rows, n_labels), of `rows` (row numbers)."""
    return _chosen(dataset.y, dataset.device.asarray(rows), labels)


def _chosen(column: Any, at: Any, labels: Sequence[int] | None) -> Any:
    return column[at] if labels is None else device_of(column).xp.ascontiguousarray(column[at][:, list(labels)])


def with_mean_weight_1(
    fit: Mapping[str, Rows], device: Device, total: Callable[[np.ndarray], np.ndarray] = alone
) -> dict[str, Rows]:  # fmt: skip
    """The rows with weights, where they have some, whose mean over all sectors is 1 for each class of each label.

    total: as of Fold.

    So that penalties and smallest leaves, which are in rows, mean the same with and without weights, and so do
    probabilities: rows of a class that is decided early weigh more, and it would seem more frequent than it is.
    """
    if any(rows.weight is None for rows in fit.values()):
        return dict(fit)
    xp = device.xp
    scaled = {s: rows.weight.copy() for s, rows in fit.items()}
    for c in range(N_CLASSES):
        of_class = {s: rows.y == c for s, rows in fit.items()}
        counts = sum(found.sum(axis=0) for found in of_class.values())
        mass = sum((scaled[s] * found).sum(axis=0, dtype=xp.float64) for s, found in of_class.items())
        counts, mass = (device.asarray(total(device.to_host(own))) for own in (counts, mass))
        mean = xp.where(mass > 0, mass / xp.maximum(counts, 1), 1.0).astype(xp.float32)
        scaled = {s: xp.where(found, scaled[s] / mean, scaled[s]) for s, found in of_class.items()}
    return {s: Rows(rows.X, rows.y, rows.time_ns, scaled[s]) for s, rows in fit.items()}


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
    cache: a folder that bins are kept in, instead of memory; None keeps them in memory.
    sparing: keep one set of samples at a time: the last that was asked for.
    columns: int64, which of the columns of the feature matrix X holds; None if it holds all.
    whole: the fold that this one has some labels of (`of_labels`), whose bins are its own, and which; else None.
    total(numbers): their sum over all processes that each hold some of the sectors, which fit the pooled stages
        together and make the same calls in the same order; the numbers themselves where this one holds all.
    everywhere: fitted rows by class, as `counts`, of the sectors of all these processes; None where this one holds all.
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
    ml: config.Ml = field(default_factory=config.Ml)
    cache: pathlib.Path | None = None
    sparing: bool = False
    columns: np.ndarray | None = None
    whole: tuple[Fold, tuple[int, ...]] | None = field(default=None, repr=False, compare=False)
    total: Callable[[np.ndarray], np.ndarray] = field(default=alone, repr=False, compare=False)
    everywhere: Mapping[str, np.ndarray] | None = field(default=None, repr=False, compare=False)
    _short: threading.Event = field(default_factory=threading.Event, init=False, repr=False, compare=False)
    _lock: Any = field(default_factory=threading.RLock, init=False, repr=False, compare=False)
    _making: dict[Any, threading.Lock] = field(default_factory=dict, init=False, repr=False, compare=False)
    _made: dict[str, Fold | None] = field(default_factory=dict, init=False, repr=False, compare=False)
    _samples: dict[Any, list[Sample]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def spares(self) -> bool:
        """Whether it is `sparing`, or memory was found to be short since it was made."""
        return self.sparing or self._short.is_set() or (self.whole is not None and self.whole[0].spares)

    def let_go(self) -> None:
        """Be sparing from now on, and let go of all bins but the cut points: they are made again."""
        with self._lock:
            self._short.set()
            self._samples.clear()
            twinless = self._made.get("twinless")
        if twinless:
            twinless.let_go()

    @property
    def sectors(self) -> tuple[str, ...]:
        """The sectors that are pooled, in their order: those of other processes too."""
        return tuple(self.fit if self.everywhere is None else self.everywhere)

    @property
    def scope(self) -> str:
        """What a model fitted on all rows of this fold is: "pool", or "sector" where there is only one sector."""
        return "pool" if len(self.sectors) > 1 else "sector"

    @property
    def n_labels(self) -> int:
        """Number of labels."""
        return len(self.label_names)

    @property
    def n_columns(self) -> int:
        """Number of columns of X."""
        return int(next(iter(self.fit.values())).X.shape[1])

    @functools.cached_property
    def counts(self) -> Mapping[str, np.ndarray]:
        """Fitted rows by class: int64 (n_labels, 3) for each sector."""
        if self.everywhere is not None:
            return self.everywhere
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

    def of_labels(self, labels: Sequence[int]) -> Fold:
        """This fold with some of its labels, by number: the same rows, and the same bins, which are made once."""
        if tuple(labels) == tuple(range(self.n_labels)):
            return self
        return dataclasses.replace(
            self, fit={s: rows.of_labels(labels) for s, rows in self.fit.items()},
            validation={s: rows.of_labels(labels) for s, rows in self.validation.items()},
            label_names=tuple(self.label_names[k] for k in labels), whole=(self, tuple(labels)),
            everywhere=self.everywhere and {s: counted[list(labels)] for s, counted in self.everywhere.items()},
        )  # fmt: skip

    def bins(self) -> Any:
        """The fold's cut points: an xgboost.QuantileDMatrix of one row, found on CUT_ROWS of the fitted rows.

        They are the same share of every sector's. Built once; every other matrix of the fold has its cuts, and so its
        bins.
        """
        if self.whole:
            return self.whole[0].bins()
        with self._lock:
            return self._cut_points

    def without_twins(
        self, distinct: Callable[[Fold], np.ndarray], only: Callable[[Fold, np.ndarray], Fold]
    ) -> Fold:  # fmt: skip
        """The fold with the columns distinct(self) alone, made by only(self, columns) once; self if these are all."""
        if self.whole:
            fold, labels = self.whole
            seen = fold.without_twins(distinct, only)
            return self if seen is fold else seen.of_labels(labels)
        if not self.ml.use_quantile_dmatrix:
            return self  # the bins are not known before a booster makes them
        self.bins()
        with self._lock:
            if "twinless" not in self._made:
                kept = distinct(self)
                # Not self: a fold that holds itself would stay in memory until Python looks for cycles.
                self._made["twinless"] = None if len(kept) == self.n_columns else only(self, kept)
            return self._made["twinless"] or self

    def samples(self, share: float, sector: str | None = None) -> list[Sample]:
        """The fitted rows, of all sectors or of one, as samples of about `share` of them each, cut at random.

        Up to 1/2, 1 / share is rounded to the next number of samples, which hold every row once: trees that take them
        in turn see `share` of the rows each, and it costs them `share` of the time, where XGBoost's own subsample costs
        as much as all rows. Larger shares leave each of 1 / (1 - share) parts out in turn (`config.cut`): n samples
        whose bins are n - 1 copies of those of all rows, 4 for 0.8. Made once, and shared by all families.
        """
        if self.whole:
            fold, labels = self.whole
            return [
                Sample(tuple(rows.of_labels(labels) for rows in sample.blocks), sample.bins)
                for sample in fold.samples(share, sector)
            ]
        key = (*config.cut(share), sector)
        self.bins()
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            found = self._samples.get(key)
            if found is None:
                if self.spares:
                    self._samples.clear()
                found = self._samples[key] = self._cut(*key)
            return found

    def _cut(self, n_samples: int, left_out: bool, sector: str | None) -> list[Sample]:
        parts = list(self.fit.values()) if sector is None else [self.fit[sector]]
        samples = []
        for k in range(n_samples):
            blocks: list[Rows] = []
            for rows in parts:
                first, last = rows.n * k // n_samples, rows.n * (k + 1) // n_samples
                ends = [(0, first), (last, rows.n)] if left_out else [(first, last)]
                blocks += [rows.slice(begin, end) for begin, end in ends if end > begin or not left_out]
            threads = self.threads if sector is None else 1
            samples.append(Sample(tuple(blocks), self.matrix([rows.X for rows in blocks], threads)))
        return samples

    def matrix(self, parts: Sequence[Any], threads: int) -> Any:
        """Row blocks, float32 (n, n_features) each, in one matrix with the bins of this fold."""
        if not self.ml.use_quantile_dmatrix:
            return plain_matrix(parts, threads)
        bins = self.bins()
        # A matrix in a file is read by one thread at a time, also as the reference of another.
        with self._lock if self.cache is not None else contextlib.nullcontext():
            return quantile_matrix(parts, self.max_bin, threads, bins, self.cache)

    @functools.cached_property
    def _cut_points(self) -> Any:
        parts = [rows.X for rows in self.fit.values()]
        first = next(part[:1] for part in parts if len(part))
        if not self.ml.use_quantile_dmatrix:
            return plain_matrix([first], self.threads)
        share = min(1.0, CUT_ROWS / self.total(np.array([float(sum(map(len, parts)))]))[0])
        drawn = [part[: math.ceil(share * len(part))] for part in parts]
        pooled = quantile_matrix(drawn, self.max_bin, self.threads, None, self.cache)
        # These bins are let go of: boosters are fitted on samples of all rows, which know the cuts by this one row.
        return quantile_matrix([first], self.max_bin, self.threads, pooled, self.cache)


def plain_matrix(parts: Sequence[Any], threads: int) -> Any:
    """An xgboost.DMatrix of row blocks: a float copy of all of them, binned again by the first booster it meets."""
    import xgboost

    copied = [whole(part) for part in parts]
    return xgboost.DMatrix(device_of(copied[0]).xp.concatenate(copied), nthread=threads)


def quantile_matrix(
    parts: Sequence[Any], max_bin: int, threads: int, ref: Any = None, cache: pathlib.Path | None = None
) -> Any:
    """A QuantileDMatrix of row blocks (numpy or CuPy, float32), which are never put together as floats.

    cache: a folder to keep its bins in, read again for each level of a tree (an ExtMemQuantileDMatrix). OSError where
        its disk has not the space for them.
    """
    import xgboost

    if cache is not None:  # XGBoost takes at most four bytes a value and eight a row, and aborts where it cannot write
        memory.require_space(sum((4 * part.shape[1] + 8) * len(part) for part in parts) + 2**16, cache)

    class Blocks(xgboost.DataIter):
        def __init__(self) -> None:
            self.position = 0
            if cache is not None:
                cache.mkdir(parents=True, exist_ok=True)
            super().__init__(str(cache / f"bins{next(_numbers)}") if cache else None)

        def next(self, input_data: Any) -> bool:
            if self.position == len(parts):
                return False
            input_data(data=whole(parts[self.position]))
            self.position += 1
            return True

        def reset(self) -> None:
            self.position = 0

    kind = xgboost.ExtMemQuantileDMatrix if cache else xgboost.QuantileDMatrix
    return kind(Blocks(), max_bin=max_bin, nthread=threads, ref=ref)
