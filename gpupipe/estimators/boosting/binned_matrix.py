"""Binned matrices: XGBoost's bins of a training set, made once and shared by every family of trees."""

from __future__ import annotations

import contextlib
import itertools
import math
import pathlib
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.dataset.row_view import RowView, whole
from gpupipe.estimators.boosting.sampling import cut
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.runtime import memory
from gpupipe.runtime.device import Device, device_of

CUT_ROWS = 100_000  # rows that cut points are found on: the share of rows below one has a standard error of 0.16 %
FIRST_ROWS = 4096  # columns whose bins are equal on these rows are compared on all
_numbers = itertools.count()  # names of files in a cache


@dataclass(frozen=True)
class Sample:
    """Rows that a tree is fitted on: blocks of the fitted rows, and the bins of all of them in one matrix.

    >>> from gpupipe.dataset.dataset import Dataset
    >>> from gpupipe.targets.target import Target
    >>> rows, all_true = np.arange(4), np.ones(4, bool)
    >>> dataset = Dataset(
    ...     "energy", np.zeros((4, 1), np.float32), ("x",), np.zeros((4, 1), np.float32),
    ...     Target(("next",), "value", (1,)), rows, rows + 1, all_true, all_true, np.array([0, 4]))
    >>> view = RowView(dataset, np.array([3, 0, 1]))
    >>> sample = Sample((view.slice(0, 2), view.slice(2, 3)), quantile_matrix([view.X], max_bin=64, threads=1))
    >>> [block.n for block in sample.blocks], sample.bins.num_row()
    ([2, 1], 3)
    """

    blocks: tuple[RowView, ...]
    bins: Any


class BinnedMatrix:
    """The bins of one training set.

    Use `binned(training_set)`, which makes one and keeps it with the training set.

        >>> from gpupipe.dataset.dataset import Dataset
        >>> from gpupipe.runtime.device import pick
        >>> from gpupipe.targets.target import Target
        >>> target, rows, all_true = Target(("next",), "value", (1,)), np.arange(40), np.ones(40, bool)
        >>> dataset = Dataset(
        ...     "energy", np.arange(40, dtype=np.float32)[:, None], ("x",), np.zeros((40, 1), np.float32), target,
        ...     rows, rows + 1, all_true, all_true, np.array([0, 40]))
        >>> fit = {"energy": RowView(dataset, rows)}
        >>> training_set = TrainingSet("final", fit, {}, target, pick("cpu"), 8, "none", threads=1, seed=1)
        >>> [sample.bins.num_row() for sample in binned(training_set).samples(0.25)]
        [10, 10, 10, 10]
        >>> [len(cuts) for cuts in cuts_of(binned(training_set).cut_points)]  # between 8 bins
        [7]
    """

    def __init__(self, training_set: TrainingSet) -> None:
        # Not a strong reference: a set that holds itself would stay in memory until Python looks for cycles.
        self.training_set = weakref.proxy(training_set)
        self._lock = threading.RLock()
        self._making: dict[Any, threading.Lock] = {}
        self._samples: dict[Any, list[Sample]] = {}
        self._cut_points: Any = None

    def release(self) -> None:
        """Release all bins but the cut points: they are made again when they are asked for."""
        with self._lock:
            self._samples.clear()

    @property
    def cut_points(self) -> Any:
        """An xgboost.QuantileDMatrix of one row, with cut points found on CUT_ROWS of the fitted rows.

        They are the same share of every group's rows. Built once; every other matrix of the training set refers to it,
        and so has the same bins.
        """
        with self._lock:
            if self._cut_points is None:
                self._cut_points = self._find_cut_points()
            return self._cut_points

    def samples(self, share: float, group: str | None = None) -> list[Sample]:
        """The fitted rows, of all groups or of one, as samples of about `share` of them each, cut at random.

        Up to 1/2, 1 / share is rounded to the next number of samples, which hold every row once: trees that take them
        in turn see `share` of the rows each, and it costs them `share` of the time, where XGBoost's own subsample costs
        as much as all rows. Larger shares leave each of 1 / (1 - share) parts out in turn (`cut`): n samples whose bins
        are n - 1 copies of those of all rows, 4 for 0.8. Made once, and shared by all families.
        """
        key = (*cut(share), group)
        _ = self.cut_points
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            samples = self._samples.get(key)
            if samples is None:
                if self.training_set.saves_memory:
                    self._samples.clear()
                samples = self._samples[key] = self._cut(*key)
            return samples

    def matrix(self, parts: Sequence[Any], threads: int) -> Any:
        """Row blocks, float32 (n, n_features) each, in one matrix with the bins of this training set."""
        training_set = self.training_set
        if not training_set.ml.use_quantile_dmatrix:
            return plain_matrix(parts, threads)
        reference = self.cut_points
        # A matrix in a file is read by one thread at a time, also as the reference of another.
        with self._lock if training_set.cache is not None else contextlib.nullcontext():
            return quantile_matrix(parts, training_set.max_bin, threads, reference, training_set.cache)

    def _cut(self, n_samples: int, left_out: bool, group: str | None) -> list[Sample]:
        training_set = self.training_set
        parts = list(training_set.fit.values()) if group is None else [training_set.fit[group]]
        samples = []
        for k in range(n_samples):
            blocks: list[RowView] = []
            for rows in parts:
                first, last = rows.n * k // n_samples, rows.n * (k + 1) // n_samples
                ends = [(0, first), (last, rows.n)] if left_out else [(first, last)]
                blocks += [rows.slice(begin, end) for begin, end in ends if end > begin or not left_out]
            threads = training_set.threads if group is None else 1
            samples.append(Sample(tuple(blocks), self.matrix([rows.X for rows in blocks], threads)))
        return samples

    def _find_cut_points(self) -> Any:
        training_set = self.training_set
        parts = [rows.X for rows in training_set.fit.values()]
        first = next(part[:1] for part in parts if len(part))
        if not training_set.ml.use_quantile_dmatrix:
            return plain_matrix([first], training_set.threads)
        share = min(1.0, CUT_ROWS / training_set.total(np.array([float(sum(map(len, parts)))]))[0])
        drawn = [part[: math.ceil(share * len(part))] for part in parts]
        pooled = quantile_matrix(drawn, training_set.max_bin, training_set.threads, None, training_set.cache)
        # These bins are released: boosters are fitted on samples of all rows, which know the cuts by this one row.
        return quantile_matrix([first], training_set.max_bin, training_set.threads, pooled, training_set.cache)


class _TargetSubsetBins:
    """The bins of a training set that has some targets of another: the parent's, with the rows of these targets."""

    def __init__(self, parent: BinnedMatrix, targets: tuple[int, ...]) -> None:
        self._parent, self._targets = parent, targets
        self.matrix = parent.matrix

    @property
    def cut_points(self) -> Any:
        return self._parent.cut_points

    def samples(self, share: float, group: str | None = None) -> list[Sample]:
        return [
            Sample(tuple(rows.of_targets(self._targets) for rows in sample.blocks), sample.bins)
            for sample in self._parent.samples(share, group)
        ]


def binned(training_set: TrainingSet) -> BinnedMatrix | _TargetSubsetBins:
    """The bins of a training set."""
    if training_set.parent:
        parent, targets = training_set.parent
        shared = binned(parent)
        assert isinstance(shared, BinnedMatrix), "targets are taken of a whole training set"
        return _TargetSubsetBins(shared, targets)
    return training_set.shared("bins", lambda: BinnedMatrix(training_set))


def without_twins(training_set: TrainingSet) -> TrainingSet:
    """The training set that trees see: without columns whose bins repeat another's. Itself where there are none."""
    if training_set.parent:
        parent, targets = training_set.parent
        seen = without_twins(parent)
        return training_set if seen is parent else seen.of_targets(targets)
    if not training_set.ml.use_quantile_dmatrix:
        return training_set  # the bins are not known before a booster makes them

    def make() -> TrainingSet | None:
        kept = distinct_columns(training_set)
        # None, not the set itself: one that holds itself would stay in memory until Python looks for cycles.
        return None if len(kept) == training_set.n_columns else training_set.of_columns(kept)

    _ = binned(training_set).cut_points
    return training_set.shared("without twins", make) or training_set


def distinct_columns(training_set: TrainingSet) -> np.ndarray:
    """The first of several columns whose bins are equal in every fitted row of all groups; int64, ascending.

    Trees cannot tell such twins apart, and pay for each of them.
    """
    cuts = cuts_of(binned(training_set).cut_points)
    first = next(iter(training_set.fit.values())).slice(0, FIRST_ROWS)
    groups: dict[bytes, list[int]] = {}
    for k, codes in enumerate(_codes(first.X, range(len(cuts)), cuts, training_set.device)):
        groups.setdefault(codes.tobytes(), []).append(k)
    alike = [k for columns in groups.values() if len(columns) > 1 for k in columns]
    all_codes: dict[int, list[bytes]] = {k: [] for k in alike}
    for rows in training_set.fit.values():
        for k, codes in zip(alike, _codes(rows.X, alike, cuts, training_set.device), strict=True):
            all_codes[k].append(codes.tobytes())
    seen: dict[bytes, int] = {}
    first_alike = np.arange(len(cuts))
    for k in alike:
        first_alike[k] = seen.setdefault(b"".join(all_codes[k]), k)
    # Twins in the rows of every process that holds some.
    different = training_set.total((first_alike[:, None] != first_alike).astype(np.int64))
    return np.flatnonzero(np.argmax(different == 0, axis=1) == np.arange(len(cuts)))


def _codes(X: Any, columns: Sequence[int], cuts: Sequence[np.ndarray], device: Device) -> list[np.ndarray]:
    """Bins of some columns, int16 (n_rows,) each, -1 where missing."""
    bins = []
    X = whole(X)
    for k in columns:
        values = device.to_host(X[:, k])
        codes = np.searchsorted(cuts[k], values, side="right").astype(np.int16)
        bins.append(np.where(np.isnan(values), np.int16(-1), codes))
    return bins


def cuts_of(matrix: Any) -> list[np.ndarray]:
    """The cuts of an xgboost.QuantileDMatrix between the bins of each column, float32, for `gpupipe.compute_bins`."""
    pointers, values = matrix.get_quantile_cut()
    # The first value of a column is below all of its values and the last above them.
    return [values[a + 1 : b - 1] for a, b in itertools.pairwise(pointers)]


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

        def next(self, input_data: Callable[..., Any]) -> bool:
            if self.position == len(parts):
                return False
            input_data(data=whole(parts[self.position]))
            self.position += 1
            return True

        def reset(self) -> None:
            self.position = 0

    kind = xgboost.ExtMemQuantileDMatrix if cache else xgboost.QuantileDMatrix
    return kind(Blocks(), max_bin=max_bin, nthread=threads, ref=ref)
