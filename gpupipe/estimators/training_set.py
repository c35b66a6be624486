"""TrainingSet: the rows that one fit may see, by group, shared by every estimator that is fitted on them."""

from __future__ import annotations

import dataclasses
import pathlib
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe import config
from gpupipe.dataset.row_view import RowView, gathered_on, of_columns
from gpupipe.runtime.device import Device
from gpupipe.targets.target import Target


def this_process_only(numbers: np.ndarray) -> np.ndarray:
    """The sum over all processes that hold rows of a training set, where this one holds them all."""
    return numbers


def with_mean_weight_1(
    fit: Mapping[str, RowView],
    device: Device,
    n_classes: int,
    total: Callable[[np.ndarray], np.ndarray] = this_process_only,
) -> dict[str, RowView]:
    """The rows with weights, where they have some, whose mean over all groups is 1 for each class of each target.

    Penalties and smallest leaves, which are counted in rows, then mean the same with and without weights, and so do
    probabilities: else rows of a class that is decided early weigh more, and the class would seem more frequent.

    total: see `TrainingSet`.
    """
    from gpupipe.estimators.arithmetic import known_sums

    if any(rows.weight is None for rows in fit.values()):
        return dict(fit)
    xp = device.xp
    scaled = {group: rows.weight.copy() for group, rows in fit.items()}
    for c in range(n_classes):
        is_member = {group: rows.y == c for group, rows in fit.items()}
        members = (xp.where(mask, scaled[group], np.float32(np.nan)) for group, mask in is_member.items())
        mass, counts = total(np.sum([known_sums(weights, device) for weights in members], axis=0))
        mean = device.asarray(np.where(mass > 0, mass / np.maximum(counts, 1), 1.0).astype(np.float32))
        scaled = {group: xp.where(mask, scaled[group] / mean, scaled[group]) for group, mask in is_member.items()}
    return {group: rows.with_weight(scaled[group]) for group, rows in fit.items()}


@dataclass(frozen=True)
class TrainingSet:
    """The rows that one fit may see.

    name: "final", or "part1", "part2", ... for the out-of-fold fits.
    fit: rows to fit, by group, in pooled order; those of a group in random order (`shuffled`), so that every slice of
        them is a sample.
    validation: rows that choose rounds, by group; empty in out-of-fold fits, which take the choices of the final fit.
    target: the columns of y that are fitted.
    class_weight: "none", or "balanced": each class weighs the inverse of its share in the fitted rows.
    threads: of a pooled fit; the fit of a group has one, so that the number of jobs changes no result.
    cache: a folder for bins, in the place of memory; None keeps them in memory.
    sparing: whether to keep one set of samples at a time, the one asked for last.
    columns: int64, the columns of the feature matrix that X holds; None if it holds all.
    parent: the training set that this one has some targets of (`of_targets`), and their positions; else None. Bins and
        samples are the parent's.
    total(numbers): their sum over all processes that each hold some of the groups, fit the pooled stages together and
        make the same calls in the same order; the numbers themselves where this process holds all groups.
    counts_everywhere: fitted rows by class, like `counts`, of the groups of all these processes; None where this one
        holds all.

        >>> from gpupipe.dataset.dataset import Dataset
        >>> from gpupipe.runtime.device import pick
        >>> target = Target(("label_1d",), "classes", (1,), ("sell", "hold", "buy"))
        >>> rows, all_true = np.arange(4), np.ones(4, bool)
        >>> dataset = Dataset(
        ...     "energy", np.zeros((4, 2), np.float32), ("a", "b"), np.int8([[0], [2], [2], [1]]), target,
        ...     rows, rows + 1, warm=all_true, usable=all_true, offsets=np.array([0, 4]))
        >>> training_set = TrainingSet(
        ...     "final", {"energy": RowView(dataset, rows)}, {}, target, pick("cpu"), max_bin=64, class_weight="none",
        ...     threads=1, seed=1)
        >>> training_set.counts["energy"].tolist(), training_set.shares().round(2).tolist()
        ([[1, 1, 2]], [[0.27, 0.27, 0.45]])
        >>> training_set.on(pick("cpu")) is training_set
        True
    """

    name: str
    fit: Mapping[str, RowView]
    validation: Mapping[str, RowView]
    target: Target
    device: Device
    max_bin: int
    class_weight: str
    threads: int
    seed: int
    ml: config.Ml = field(default_factory=config.Ml)
    cache: pathlib.Path | None = None
    sparing: bool = False
    columns: np.ndarray | None = None
    parent: tuple[TrainingSet, tuple[int, ...]] | None = field(default=None, repr=False, compare=False)
    total: Callable[[np.ndarray], np.ndarray] = field(default=this_process_only, repr=False, compare=False)
    counts_everywhere: Mapping[str, np.ndarray] | None = field(default=None, repr=False, compare=False)
    _memory_is_short: threading.Event = field(default_factory=threading.Event, init=False, repr=False, compare=False)
    _lock: Any = field(default_factory=threading.RLock, init=False, repr=False, compare=False)
    _shared: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def saves_memory(self) -> bool:
        """Whether it is `sparing`, or memory ran short since it was made."""
        parent = self.parent[0].saves_memory if self.parent else False
        return self.sparing or self._memory_is_short.is_set() or parent

    def release(self) -> None:
        """Save memory from now on: release what estimators share (they make it again) and keep less of it."""
        with self._lock:
            self._memory_is_short.set()
            shared = list(self._shared.values())
        for value in shared:
            if hasattr(value, "release"):
                value.release()

    def shared(self, name: str, make: Callable[[], Any]) -> Any:
        """What estimators share of this training set, such as its bins: made once, by whoever asks first."""
        with self._lock:
            if name not in self._shared:
                self._shared[name] = make()
            return self._shared[name]

    @property
    def groups(self) -> tuple[str, ...]:
        """The pooled groups, in their order, with those that other processes hold."""
        return tuple(self.fit if self.counts_everywhere is None else self.counts_everywhere)

    @property
    def pool_scope(self) -> str:
        """The scope of a model fitted on all rows: "pool", or "sector" where there is only one group."""
        return "pool" if len(self.groups) > 1 else "sector"

    @property
    def n_targets(self) -> int:
        """Number of columns of y."""
        return len(self.target.names)

    @property
    def n_columns(self) -> int:
        """Number of columns of X."""
        return int(next(iter(self.fit.values())).X.shape[1])

    @property
    def counts(self) -> Mapping[str, np.ndarray]:
        """Fitted rows by class: int64 (n_targets, n_classes) for each group."""
        if self.counts_everywhere is not None:
            return self.counts_everywhere
        counts: Mapping[str, np.ndarray] = self.shared("counts", self._count)  # once, however many threads ask
        return counts

    def _count(self) -> Mapping[str, np.ndarray]:
        n_classes = self.target.n_classes
        counts = {}
        for group, rows in self.fit.items():
            y = self.device.to_host(rows.y)
            counts[group] = np.stack(
                [np.bincount(column[column >= 0], minlength=n_classes) for column in y.T.astype(np.int64)]
            )
        return counts

    def shares(self, groups: Sequence[str] | None = None) -> np.ndarray:
        """Class shares of the fitted rows, float64 (n_targets, n_classes), of all groups or of some; never exactly 0.

        One pseudo-row spread like the pool (which has half a row of each class) keeps the logarithm finite.
        """
        pooled: np.ndarray = np.sum(list(self.counts.values()), axis=0) + 0.5
        pooled = pooled / pooled.sum(axis=1, keepdims=True)
        if groups is None:
            return pooled
        counted: np.ndarray = np.sum([self.counts[group] for group in groups], axis=0) + pooled
        shares: np.ndarray = counted / counted.sum(axis=1, keepdims=True)
        return shares

    def weights(self, groups: Sequence[str] | None = None) -> np.ndarray:
        """Weight of each class, float32 (n_targets, n_classes); ones unless class_weight is "balanced".

        Values have no classes: (n_targets, 0).
        """
        n_classes = self.target.n_classes
        if self.class_weight == "none" or not n_classes:
            return np.ones((self.n_targets, n_classes), dtype=np.float32)
        return (1.0 / (n_classes * self.shares(groups))).astype(np.float32)

    def of_targets(self, targets: Sequence[int]) -> TrainingSet:
        """This training set with some of its targets, by position: the same rows, and the same bins."""
        if tuple(targets) == tuple(range(self.n_targets)):
            return self
        counts = self.counts_everywhere
        return dataclasses.replace(
            self,
            fit={group: rows.of_targets(targets) for group, rows in self.fit.items()},
            validation={group: rows.of_targets(targets) for group, rows in self.validation.items()},
            target=self.target.take(targets),
            parent=(self, tuple(targets)),
            counts_everywhere=counts and {group: counted[list(targets)] for group, counted in counts.items()},
        )

    @property
    def source(self) -> TrainingSet | None:
        """The training set on another device that this one is a copy of (`on`), while it is there."""
        reference: weakref.ref[TrainingSet] | None = self.__dict__.get("_source")
        return None if reference is None else reference()

    def on(self, device: Device) -> TrainingSet:
        """The same rows, targets and columns on a device: itself where it is there, else a copy, made once.

        Rows are gathered from copies of the datasets (`Dataset.on`). The copy has bins and samples of its own.
        """
        if device.kind == self.device.kind:
            return self
        if self.source is not None and self.source.device.kind == device.kind:
            return self.source
        if self.parent:
            parent, targets = self.parent
            return parent.on(device).of_targets(targets)

        def make() -> TrainingSet:
            fit, validation = (
                dict(zip(views, gathered_on(list(views.values()), device), strict=True))
                for views in (self.fit, self.validation)
            )
            return dataclasses.replace(self, fit=fit, validation=validation, device=device, sparing=self.saves_memory)

        copied: TrainingSet = self.shared(f"on {device.kind}", make)
        copied.__dict__["_source"] = weakref.ref(self)
        return copied

    def of_columns(self, columns: np.ndarray) -> TrainingSet:
        """This training set with some of its columns, by position."""
        return dataclasses.replace(
            self,
            fit=dict(zip(self.fit, of_columns(list(self.fit.values()), columns), strict=True)),
            validation=dict(zip(self.validation, of_columns(list(self.validation.values()), columns), strict=True)),
            columns=columns if self.columns is None else self.columns[columns],
        )


def tile(bias: np.ndarray, rows: RowView) -> Any:
    """`bias` (n_outputs,) repeated for every row, on the device: where the margins of a booster start."""
    return rows.device.xp.tile(rows.device.asarray(bias), (rows.n, 1))
