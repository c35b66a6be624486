"""Binned matrices: XGBoost's bins of a training set, made once and shared by every family of trees."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import pathlib
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.dataset.row_view import LazyRows, RowView, in_few_arrays, take_columns, whole
from gpupipe.estimators.boosting.device_memory import use_driver_pool
from gpupipe.estimators.boosting.sampling import cut
from gpupipe.estimators.boosting.tree_model import Grower
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.runtime import memory
from gpupipe.runtime.device import Device, device_of, pick

CUT_ROWS = 100_000  # rows that cut points are found on: the share of rows below one has a standard error of 0.16 %
FIRST_ROWS = 4096  # columns whose bins are equal on these rows are compared on all
_numbers = itertools.count()  # names of files in a cache


@dataclass(frozen=True)
class Sample:
    """Rows that a tree is fitted on.

    blocks: blocks of the fitted rows.  bins: the bins of all of them, in one matrix.
    parts: X of the blocks, float32 (n, n_features) each, in as few arrays as hold them.
    counted: bool (n_rows,), which rows of the blocks a tree sees, on their device; None for all. The other rows have a
        gradient and a Hessian of 0: they take part in no sum, whatever the limits and penalties of a tree are.

    >>> from gpupipe.dataset.dataset import Dataset
    >>> from gpupipe.targets.target import Target
    >>> rows, all_true = np.arange(4), np.ones(4, bool)
    >>> dataset = Dataset(
    ...     "energy", np.zeros((4, 1), np.float32), ("x",), np.zeros((4, 1), np.float32),
    ...     Target(("next",), "value", (1,)), rows, rows + 1, all_true, all_true, np.array([0, 4]))
    >>> view = RowView(dataset, np.array([3, 0, 1]))
    >>> blocks = (view.slice(0, 2), view.slice(2, 3))
    >>> sample = Sample(blocks, quantile_matrix([view.X], max_bin=64, threads=1), (view.X,))
    >>> [block.n for block in sample.blocks], sample.bins.num_row()
    ([2, 1], 3)
    >>> dataclasses.replace(sample, counted=np.array([True, False, True])).zero_elsewhere(np.ones((3, 1))).tolist()
    [[1.0], [0.0], [1.0]]
    """

    blocks: tuple[RowView, ...]
    bins: Any
    parts: tuple[Any, ...]
    counted: Any = None

    def zero_elsewhere(self, derivative: Any) -> Any:
        """A derivative (n_rows, n_outputs) of all rows of the blocks, with 0 in those that are not counted."""
        if self.counted is None:
            return derivative
        return device_of(derivative).xp.where(self.counted[:, None], derivative, derivative.dtype.type(0))

    def boost(self, grower: Grower, k: int, gradient: Any, hessian: Any) -> None:
        """Add round k to a booster, fitted on this sample; gradient, hessian: of all rows of the blocks."""
        grower.boost(self.bins, k, self.zero_elsewhere(gradient), self.zero_elsewhere(hessian))


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

        They are the same share of every group's rows. Built once, also for the training set's copies on other devices;
        every other matrix refers to it, and so has the same bins.
        """
        with self._lock:
            if self._cut_points is None:
                source = self.training_set.source
                found = binned(source).cut_points if source else self._find_cut_points()
                self._cut_points = found
            return self._cut_points

    def samples(self, share: float, group: str | None = None) -> list[Sample]:
        """The fitted rows, of all groups or of one, as samples of about `share` of them each, cut at random.

        Up to 1/2, 1 / share is rounded to the next number of samples, which hold every row once: trees that take them
        in turn see `share` of the rows each, and it costs them `share` of the time, where XGBoost's own subsample costs
        as much as all rows. Larger shares leave each of 1 / (1 - share) parts out in turn (`cut`): n samples whose bins
        are n - 1 copies of those of all rows, 4 for 0.8. Made once, and shared by all families.

        Where boosters need one matrix (`one_matrix`), samples are rows that count in one matrix of all rows. The trees
        are the same, as the order of the counted rows is.
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
                shares_one = one_matrix(self.training_set.device) and key != (*cut(1.0), group)
                make = self._mark if shares_one else self._cut
                samples = self._samples[key] = make(*key)
            return samples

    def draw(self, sample: Sample, taken: np.ndarray, threads: int) -> Sample:
        """Some rows of a sample of `samples(1.0)`. taken: bool (n_rows,), on the host."""
        device, blocks, first = self.training_set.device, [], 0
        if one_matrix(device):
            return dataclasses.replace(sample, counted=device.asarray(taken))
        for rows in sample.blocks:
            blocks.append(rows.take(device.asarray(np.flatnonzero(taken[first : first + rows.n]))))
            first += rows.n
        return self._sample(blocks, threads)

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
        """Samples that each have a matrix of their own."""
        groups = self._groups(group)
        threads = self.training_set.threads if group is None else 1
        if n_samples == 1:
            return [self._sample(groups, threads)]
        return [
            self._sample(
                [
                    rows.slice(begin, end)
                    for rows in groups
                    for begin, end in _spans(rows.n, k, n_samples, left_out)
                    if end > begin or not left_out
                ],
                threads,
            )
            for k in range(n_samples)
        ]

    def _mark(self, n_samples: int, left_out: bool, group: str | None) -> list[Sample]:
        """Samples of the matrix of all rows: the same rows as those of `_cut`, marked."""
        (whole_sample,), groups = self.samples(1.0, group), self._groups(group)
        first = np.cumsum([0, *(rows.n for rows in groups)])
        samples = []
        for k in range(n_samples):
            counted = np.zeros(first[-1], bool)
            for rows, start in zip(groups, first, strict=False):
                for begin, end in _spans(rows.n, k, n_samples, left_out):
                    counted[start + begin : start + end] = True
            samples.append(dataclasses.replace(whole_sample, counted=self.training_set.device.asarray(counted)))
        return samples

    def _groups(self, group: str | None) -> list[RowView]:
        return [rows for name, rows in self.training_set.fit.items() if group in (None, name)]

    def _sample(self, blocks: Sequence[RowView], threads: int) -> Sample:
        parts = tuple(in_few_arrays(blocks))
        # A matrix in a file is made, and read, of one part at a time: then a part is one group's rows.
        pages = parts if self.training_set.cache is None else [rows.X for rows in blocks]
        return Sample(tuple(blocks), self.matrix(pages, threads), parts)

    def _find_cut_points(self) -> Any:
        training_set, groups = self.training_set, list(self.training_set.fit.values())
        one = next(rows for rows in groups if rows.n).slice(0, 1)
        if not training_set.ml.use_quantile_dmatrix:
            return plain_matrix([one.X], training_set.threads)
        share = min(1.0, CUT_ROWS / training_set.total(np.array([float(sum(rows.n for rows in groups))]))[0])
        drawn = [_on_host(rows.slice(0, math.ceil(share * rows.n))) for rows in groups]
        pooled = quantile_matrix(drawn, training_set.max_bin, training_set.threads, None, training_set.cache)
        # These bins are released: boosters are fitted on samples of all rows, which know the cuts by this one row.
        return quantile_matrix([_on_host(one)], training_set.max_bin, training_set.threads, pooled, training_set.cache)


def _on_host(rows: RowView) -> Any:
    """X of some rows on the host, where XGBoost's sketch finds other cut points than on a GPU; lazy where it was."""
    return rows.X if rows.device.kind == "cpu" else whole(rows.on(pick("cpu")).X)


def one_matrix(device: Device) -> bool:
    """Whether all rounds of a booster are fitted on one matrix: on CUDA; see `Grower`.

    On the CPU a matrix for each sample is faster: rows that do not count cost as much as others.
    """
    return device.kind == "cuda"


def _spans(n_rows: int, k: int, n_samples: int, left_out: bool) -> list[tuple[int, int]]:
    """Where the rows of sample k of a group begin and end."""
    first, last = n_rows * k // n_samples, n_rows * (k + 1) // n_samples
    return [(0, first), (last, n_rows)] if left_out else [(first, last)]


class _TargetSubsetBins:
    """The bins of a training set that has some targets of another: the parent's, with the rows of these targets."""

    def __init__(self, parent: BinnedMatrix, targets: tuple[int, ...]) -> None:
        self._parent, self._targets = parent, targets
        self.draw = parent.draw

    @property
    def cut_points(self) -> Any:
        return self._parent.cut_points

    def samples(self, share: float, group: str | None = None) -> list[Sample]:
        samples = self._parent.samples(share, group)
        blocks = {id(sample.blocks): sample.blocks for sample in samples}  # those of one matrix have the same
        chosen = {key: tuple(rows.of_targets(self._targets) for rows in some) for key, some in blocks.items()}
        return [dataclasses.replace(sample, blocks=chosen[id(sample.blocks)]) for sample in samples]


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
    chosen = device.to_host(take_columns(whole(X), device.asarray(np.array(columns, dtype=np.int64))))
    for k, values in zip(columns, chosen.T, strict=True):
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
    device = device_of(copied[0])
    use_driver_pool(device.kind)
    return xgboost.DMatrix(device.xp.concatenate(copied), nthread=threads)


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

    use_driver_pool(device_of(parts[0].values if isinstance(parts[0], LazyRows) else parts[0]).kind)
    kind = xgboost.ExtMemQuantileDMatrix if cache else xgboost.QuantileDMatrix
    return kind(Blocks(), max_bin=max_bin, nthread=threads, ref=ref)
