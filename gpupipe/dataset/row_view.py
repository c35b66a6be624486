"""RowView: some rows of a Dataset, gathered on its device when they are read; every estimator takes them."""

from __future__ import annotations

import functools
import hashlib
import itertools
import pathlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpupipe.dataset.dataset import Dataset, copied
from gpupipe.dataset.feature_rows import FeatureRows
from gpupipe.runtime import memory
from gpupipe.runtime.device import Device, device_of

BLOCK_ROWS = 1 << 15  # rows that are copied at once where rows are lazy
HOST_ROWS = "_host_rows"  # of a view, where its row numbers came from there: they need not be brought back
PART_OF = "_part_of"  # of a view whose X is a part of an array: the array, and the view's first row there


@dataclass(frozen=True)
class LazyRows:
    """Rows of a feature matrix that are copied only when `whole` is called: float32 (n, n_columns).

    values: float32 (n_rows, n_features), the matrix.  rows: int64 (n,), row numbers.  columns: int64, or None for all.

        >>> lazy = LazyRows(np.arange(12, dtype=np.float32).reshape(4, 3), np.array([3, 0]), np.array([2]))
        >>> lazy.shape, lazy.whole().tolist()
        ((2, 1), [[11.0], [2.0]])
    """

    values: Any
    rows: Any
    columns: Any = None

    @property
    def shape(self) -> tuple[int, int]:
        """Of the copied rows."""
        return len(self.rows), self.values.shape[1] if self.columns is None else len(self.columns)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> LazyRows:
        """Some of the rows, by a slice or by their numbers."""
        return LazyRows(self.values, self.rows[rows], self.columns)

    def take_columns(self, columns: Any) -> LazyRows:
        """The same rows of some of the columns, by number."""
        return LazyRows(self.values, self.rows, columns if self.columns is None else self.columns[columns])

    def whole(self) -> Any:
        """A copy of the rows, on the device."""
        copied = self.values[self.rows]
        return copied if self.columns is None else device_of(copied).xp.take(copied, self.columns, axis=1)


def whole(X: Any) -> Any:
    """X itself, or the matrix that lazy rows stand for, copied now."""
    return X.whole() if hasattr(X, "whole") else X


def take_columns(X: Any, columns: Any) -> Any:
    """Some columns of X, by number; a copy, unless X is lazy."""
    # numpy's X[:, columns] lies column after column in memory, and kernels read rows.
    return X.take_columns(columns) if isinstance(X, LazyRows) else device_of(X).xp.take(X, columns, axis=1)


def in_blocks(X: Any) -> Iterator[Any]:
    """X itself; or lazy rows, some thousand at a time."""
    if not isinstance(X, LazyRows):
        yield X
        return
    for first in range(0, len(X), BLOCK_ROWS):
        yield X[first : first + BLOCK_ROWS].whole()


@dataclass(frozen=True)
class Storage:
    """Where the gathered features of a view are kept.

    cache: a folder for files, where the device is the CPU; None keeps them in memory.
    lazy: without such a folder, copy rows each time that they are read.

        >>> Storage(lazy=True), Storage(pathlib.Path("OUT/cache")).cache.name
        (Storage(cache=None, lazy=True), 'cache')
    """

    cache: pathlib.Path | None = None
    lazy: bool = False


IN_MEMORY = Storage()


@dataclass(frozen=True, eq=False)
class RowView:
    """Some rows of a Dataset, in any order: what is fitted, validated or predicted.

    rows: int64 (n,), row numbers, on the dataset's device.
    targets: numbers of the columns of y that count; None for all.
    columns: int64, numbers of the columns of X that count; None for all.
    storage: where X is kept once it is gathered.

    Arrays are gathered on first use, on the dataset's device, and then kept. `features` looks back: it gathers the rows
    before each row straight from the dataset, so nothing is copied for estimators that do not ask.

        >>> from gpupipe.targets.target import Target
        >>> dataset = Dataset(
        ...     "energy", np.float32([[0], [1], [2], [3]]), ("x",), np.int8([[0], [1], [1], [0]]),
        ...     Target(("up",), "classes", (1,), ("down", "up")), np.array([0, 1, 0, 1]), np.array([1, 2, 1, 2]),
        ...     np.ones(4, bool), np.ones(4, bool), offsets=np.array([0, 2, 4]))
        >>> view = RowView(dataset, np.array([3, 0]))
        >>> view.X.tolist(), view.y.tolist()
        ([[3.0], [0.0]], [[0], [0]])
        >>> view.features.windows(2)[:, :, 0].tolist()
        [[2.0, 3.0], [nan, 0.0]]
    """

    dataset: Dataset
    rows: Any
    targets: tuple[int, ...] | None = None
    columns: Any = None
    storage: Storage = IN_MEMORY

    def __post_init__(self) -> None:
        if isinstance(self.rows, np.ndarray):
            if len(self.rows) and not 0 <= self.rows.min() <= self.rows.max() < self.dataset.n_rows:
                raise IndexError(f"row numbers outside of 0 to {self.dataset.n_rows - 1}")
            self.__dict__[HOST_ROWS] = self.rows
        object.__setattr__(self, "rows", self.dataset.device.asarray(self.rows))

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.rows)

    @property
    def row_numbers(self) -> np.ndarray:
        """int64 (n,), `rows` on the host."""
        numbers: np.ndarray | None = self.__dict__.get(HOST_ROWS)
        return self.device.to_host(self.rows) if numbers is None else numbers

    @property
    def device(self) -> Device:
        """The device of the dataset."""
        return self.dataset.device

    @property
    def n_targets(self) -> int:
        """Number of columns of y."""
        return self.dataset.n_targets if self.targets is None else len(self.targets)

    @functools.cached_property
    def X(self) -> Any:
        """Features, float32 (n, n_columns), C order; `LazyRows` where the storage is lazy."""
        gathered = _gathered([self])
        return LazyRows(self.dataset.X, self.rows, self.columns) if gathered is None else gathered

    @functools.cached_property
    def y(self) -> Any:
        """Targets (n, n_targets), as in Dataset."""
        return self._chosen(self.dataset.y)

    @functools.cached_property
    def weight(self) -> Any:
        """float32 (n, n_targets), what a row weighs when a target is fitted; None where all weigh alike."""
        return None if self.dataset.weight is None else self._chosen(self.dataset.weight)

    @functools.cached_property
    def time_ns(self) -> Any:
        """int64 (n,)."""
        return self.dataset.time_ns[self.rows]

    def extra(self, name: str) -> Any:
        """One of the dataset's extra columns, (n,)."""
        return self.dataset.extra[name][self.rows]

    @functools.cached_property
    def features(self) -> FeatureRows:
        """The rows of the feature matrix alone, without copies: what models predict from."""
        return FeatureRows(self.dataset.X, self.rows, self.dataset.offsets, self.columns)

    @property
    def prices(self) -> dict[str, Any]:
        """Open, high, low and close of the rows, (n,) each; ValueError where the recipe of the dataset kept none."""
        names = ("open", "high", "low", "close")
        if missing := [name for name in names if name not in self.dataset.extra]:
            raise ValueError(f"the dataset has no {', '.join(missing)}: let its recipe put them into `extra`")
        return {name: self.extra(name) for name in names}

    def slice(self, first: int, last: int) -> RowView:
        """Rows first to last - 1; arrays are views of this view's."""
        view = self._derived(replace(self, rows=self.rows[first:last]), lambda array: array[first:last])
        if HOST_ROWS in self.__dict__:
            view.__dict__[HOST_ROWS] = self.__dict__[HOST_ROWS][first:last]
        return view

    def take(self, at: Any) -> RowView:
        """Copies of the rows at the positions `at`, int64, on the device."""
        return self._derived(replace(self, rows=self.rows[at]), lambda array: array[at])

    def of_targets(self, targets: Sequence[int]) -> RowView:
        """The same rows with some of the columns of y, by their position in this view; X is shared."""
        at = list(targets)
        numbers = tuple(at if self.targets is None else (self.targets[k] for k in at))
        view = replace(self, targets=numbers)
        some = {}
        for name in ("y", "weight"):
            array = getattr(self, name)
            some[name] = None if array is None else device_of(array).xp.ascontiguousarray(array[:, at])
        kept = {name: self.__dict__[name] for name in (PART_OF,) if name in self.__dict__}
        view.__dict__.update(some, X=self.X, time_ns=self.time_ns, **kept)
        return view

    def of_columns(self, columns: np.ndarray) -> RowView:
        """The same rows with some of the columns of X, by their position in this view."""
        return of_columns([self], columns)[0]

    def on(self, device: Device) -> RowView:
        """The same rows on a device, gathered there from the dataset's copy (`Dataset.on`); itself where it is there.

        Weights that replaced the dataset's are copied.
        """
        return self if device.kind == self.device.kind else gathered_on([self], device)[0]

    def with_weight(self, weight: Any) -> RowView:
        """The same rows with other weights, float32 (n, n_targets)."""
        view = replace(self)
        kept = ("X", PART_OF, "y", "time_ns")
        view.__dict__.update({name: self.__dict__[name] for name in kept if name in self.__dict__})
        view.__dict__["weight"] = weight
        return view

    def digest(self, lookback_rows: int = 0) -> str:
        """SHA-256 of the features and times of the rows, and of the `lookback_rows` rows before each of them.

        Features count by `Dataset.row_digests`, with the numbers of the view's columns.
        """
        rows, time_ns = self.row_numbers, self.device.to_host(self.time_ns)
        columns = None if self.columns is None else self.device.to_host(self.columns).tolist()
        parts = [str(columns), digest_of_arrays([self.dataset.row_digests[rows], time_ns])]
        if lookback_rows:
            parts.append(f"{lookback_rows} {digest_of_context(self, lookback_rows)}")
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    def target_digests(self) -> list[str]:
        """SHA-256 of each column of y, with the weights of its rows."""
        arrays = [self.device.to_host(array) for array in (self.y, self.weight) if array is not None]
        return [digest_of_arrays(array[:, k] for array in arrays) for k in range(self.n_targets)]

    def _chosen(self, column: Any) -> Any:
        rows = column[self.rows]
        return rows if self.targets is None else device_of(column).xp.ascontiguousarray(rows[:, list(self.targets)])

    def _derived(self, view: RowView, select: Callable[[Any], Any]) -> RowView:
        """A view whose arrays are parts of this view's, selected now."""
        for name in ("X", "y", "weight", "time_ns"):
            array = getattr(self, name)
            view.__dict__[name] = None if array is None else select(array)
        return view


def gather_together(views: Sequence[RowView]) -> None:
    """Gather the features of several views, of the same columns and storage, into one array, unless it is lazy.

    X of each view is a part of the array: a kernel may take the rows of all of them in one call (`in_few_arrays`).
    """
    assert all(view.storage == views[0].storage for view in views)
    if views and (joined := _gathered(views)) is not None:
        _give(views, joined)


def _give(views: Sequence[RowView], joined: Any) -> None:
    """Let X of each view be its part of an array."""
    first = 0
    for view in views:
        view.__dict__.update({"X": joined[first : first + view.n], PART_OF: (joined, first)})
        first += view.n


def in_few_arrays(views: Sequence[RowView]) -> list[Any]:
    """X of several views: in one array, without a copy, where they are all the parts of one, in order; else one each.

    >>> from gpupipe.targets.target import Target
    >>> marks, target = np.ones(4, bool), Target(("up",), "classes", (1,), ("down", "up"))
    >>> dataset = Dataset(
    ...     "energy", np.zeros((4, 1), np.float32), ("x",), np.zeros((4, 1), np.int8), target, np.arange(4),
    ...     np.arange(1, 5), marks, marks, np.array([0, 4]))
    >>> views = [RowView(dataset, np.array(rows)) for rows in ([3, 0], [1])]
    >>> gather_together(views)
    >>> [len(X) for X in in_few_arrays(views)], [len(X) for X in in_few_arrays(views[:1])]
    ([3], [2])
    """
    parts: list[tuple[Any, int]] = [view.__dict__.get(PART_OF, (None, 0)) for view in views]
    ends = [0, *itertools.accumulate(view.n for view in views)]
    joined = parts[0][0] if parts else None
    in_order = all(array is joined and first == end for (array, first), end in zip(parts, ends, strict=False))
    return [joined] if joined is not None and in_order and len(joined) == ends[-1] else [view.X for view in views]


def of_columns(views: Sequence[RowView], columns: np.ndarray) -> list[RowView]:
    """The same rows with some of the columns of X, by their position in the views; in one array, if X was."""
    chosen = []
    for view in views:
        on_device = view.device.asarray(columns)
        some = replace(view, columns=on_device if view.columns is None else view.columns[on_device])
        some.__dict__.update(y=view.y, weight=view.weight, time_ns=view.time_ns)
        chosen.append(some)
    arrays = [take_columns(X, views[0].device.asarray(columns)) for X in in_few_arrays(views)] if views else []
    if len(arrays) == 1 and not isinstance(arrays[0], LazyRows):
        _give(chosen, arrays[0])
    else:
        for view, X in zip(chosen, arrays, strict=True):
            view.__dict__["X"] = X
    return chosen


def divided(rows: Any, lengths: Iterable[int]) -> list[Any]:
    """Views of the rows of several parts of these lengths, which follow each other.

    >>> [part.tolist() for part in divided(np.arange(3), [2, 1])]
    [[0, 1], [2]]
    """
    ends = [0, *itertools.accumulate(lengths)]
    return [rows[first:last] for first, last in itertools.pairwise(ends)]


def _gathered(views: Sequence[RowView]) -> Any:
    """The rows of some views, one after another, where their storage keeps them; None if it is lazy."""
    device, storage, columns = views[0].device, views[0].storage, views[0].columns
    n_columns = views[0].dataset.X.shape[1] if columns is None else len(columns)
    shape = (sum(view.n for view in views), n_columns)
    if storage.cache is not None and device.kind == "cpu":
        whole = memory.matrix(shape, storage.cache)
    elif storage.lazy:
        return None
    else:
        whole = device.xp.empty(shape, dtype=np.float32)
    # numpy copies `out` once more unless it need not raise; CuPy does not raise.
    unchecked = {"mode": "clip"} if device.kind == "cpu" else {}
    for view, part in zip(views, divided(whole, [view.n for view in views]), strict=True):
        if view.columns is None:
            device.xp.take(view.dataset.X, view.rows, axis=0, out=part, **unchecked)
        else:
            device.xp.take(view.dataset.X[view.rows], view.columns, axis=1, out=part, **unchecked)
    return whole


def gathered_on(views: Sequence[RowView], device: Device) -> list[RowView]:
    """The same rows on another device, gathered there now, in this thread, X in one array; see `RowView.on`."""
    there = []
    for view in views:
        columns = None if view.columns is None else copied(view.columns, view.device, device)
        moved = replace(view, dataset=view.dataset.on(device), rows=view.row_numbers, columns=columns)
        if (weight := view.__dict__.get("weight")) is not None:
            moved.__dict__["weight"] = copied(weight, view.device, device)
        there.append(moved)
    gather_together(there)
    for moved in there:
        for name in ("X", "y", "weight", "time_ns"):
            getattr(moved, name)
    return there


def shuffled(rows: np.ndarray, seed: int, group: str) -> np.ndarray:
    """Row numbers in random order, the same again for a seed and a group, whatever other groups there are."""
    return np.random.default_rng([seed, zlib.crc32(group.encode())]).permutation(rows)


def digest_of_features(dataset: Dataset, rows: np.ndarray) -> str:
    """SHA-256 of the feature matrix's rows with these numbers, by `Dataset.row_digests`."""
    return digest_of_arrays([dataset.row_digests[rows]])


def digest_of_context(view: RowView, lookback_rows: int) -> str:
    """SHA-256 of the feature matrix's rows that windows of these rows hold, and of which rows they are."""
    context = view.features.context(lookback_rows)
    where = np.searchsorted(context, view.row_numbers)
    return digest_of_arrays([where, view.dataset.row_digests[context]])


def digest_of_arrays(arrays: Any) -> str:
    """SHA-256 of arrays, their types and shapes, in order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"\n{array.dtype} {array.shape}\n".encode())
        digest.update(array_bytes(array))
    return digest.hexdigest()


def array_bytes(array: np.ndarray) -> Any:
    """The bytes of an array, in C order, without a copy where it is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
