"""The rows of a fit: gather, fit and predict them; this process and workers run the same functions."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gpupipe.config import Config
from gpupipe.cross_validation.fold_times import FoldTimes
from gpupipe.cross_validation.split import Split
from gpupipe.dataset.dataset import Dataset
from gpupipe.dataset.row_view import (
    RowView,
    Storage,
    digest_of_context,
    digest_of_features,
    gather_together,
    shuffled,
)
from gpupipe.estimators import columns, registry
from gpupipe.estimators.contract import Estimator, EstimatorSettings, Model
from gpupipe.estimators.training_set import TrainingSet, this_process_only, with_mean_weight_1
from gpupipe.runtime import memory
from gpupipe.runtime.device import Device, pick


class TrainingData(Protocol):
    """The inputs of `make_training_set`; a TrainingContext and a worker's run both provide them.

    >>> from gpupipe.runtime.device import pick
    >>> from gpupipe.training.context import TrainingContext
    >>> from gpupipe.workloads.equity import EQUITY
    >>> times = FoldTimes("", (), (), ())
    >>> data = TrainingContext({}, {}, times, EQUITY.settings("fast"), None, "ab12", pick("cpu"), jobs=4)
    >>> data.cache is None, data.plan.name, data.threads >= 1
    (True, 'as it is', True)
    """

    @property
    def datasets(self) -> Mapping[str, Dataset]:
        """The dataset of each group."""
        ...

    @property
    def splits(self) -> Mapping[str, Split]:
        """The split of each group."""
        ...

    @property
    def settings(self) -> Config:
        """The settings of the run."""
        ...

    @property
    def device(self) -> Device:
        """The device that holds the datasets."""
        ...

    @property
    def cache(self) -> pathlib.Path | None:
        """A folder for columns and bins; None where memory is sufficient."""
        ...

    @property
    def plan(self) -> memory.Plan:
        """The memory plan."""
        ...

    @property
    def threads(self) -> int:
        """Number of threads of a pooled fit, at least 1."""
        ...


@dataclass(frozen=True)
class FoldId:
    """Identifies the rows of one fit, together with the run's data; a worker needs nothing else.

    times: the fold in time.  groups: the groups that are pooled.
    part: number of the out-of-fold block that is left out; None in the final fit.
    targets: positions of the fitted targets in the dataset.

        >>> from gpupipe.cross_validation.fold_times import FoldTimes
        >>> FoldId(FoldTimes("origin1", (), (), ()), ("energy",), 0, (0, 1)).name
        'origin1-part1'
    """

    times: FoldTimes
    groups: tuple[str, ...]
    part: int | None
    targets: tuple[int, ...]

    @property
    def name(self) -> str:
        """ "final", "part1", "part2", ..., with the name of the fold in time before it, if it has one."""
        name = "final" if self.part is None else f"part{self.part + 1}"
        return f"{self.times.name}-{name}" if self.times.name else name

    def rows(self, splits: Mapping[str, Split]) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
        """For each group, the row numbers to fit, and the row numbers that choose the rounds (None: no such rows)."""
        if self.part is None:
            return {group: (splits[group].train, splits[group].validation) for group in self.groups}
        return {group: (splits[group].cross_fit[self.part][0], None) for group in self.groups}

    def predicted(self, splits: Mapping[str, Split], group: str) -> dict[str, np.ndarray]:
        """Row numbers that a group's models predict, by part: validation and test, or out of fold ("oof")."""
        split = splits[group]
        if self.part is None:
            return {"validation": split.validation, "test": split.test}
        return {"oof": split.cross_fit[self.part][1]}


def share_groups(n_rows: Mapping[str, int], n_processes: int) -> list[tuple[str, ...]]:
    """Distribute groups over processes: the largest group first, each to the process with the fewest rows.

    Processes without a group are left out; the groups of a process keep the order of n_rows.

        >>> share_groups({"energy": 50, "materials": 30, "utilities": 30}, 2)
        [('energy',), ('materials', 'utilities')]
    """
    rows_of_process = [0] * n_processes
    process_of: dict[str, int] = {}
    for group in sorted(n_rows, key=lambda group: -n_rows[group]):
        process_of[group] = int(np.argmin(rows_of_process))
        rows_of_process[process_of[group]] += n_rows[group]
    by_process = [tuple(group for group in n_rows if process_of[group] == k) for k in range(n_processes)]
    return [groups for groups in by_process if groups]


def make_training_set(
    data: TrainingData,
    fold: FoldId,
    total: Callable[[np.ndarray], np.ndarray] = this_process_only,
    all_groups: Sequence[str] = (),
) -> TrainingSet:
    """Gather the rows of a fit, the rows of each group in random order.

    total: the sum over processes, where other processes hold other groups of the fold; see TrainingSet.
    all_groups: the groups of all these processes.
    """
    settings, rows = data.settings, fold.rows(data.splits)
    memory.give_back()  # the memory of the previous fold
    fit = {group: shuffled(fitted, settings.seed, group) for group, (fitted, _) in rows.items()}
    validation = {group: numbers for group, (_, numbers) in rows.items() if numbers is not None}
    target = data.datasets[fold.groups[0]].target.take(fold.targets)
    training_set = TrainingSet(
        name=fold.name,
        fit=with_mean_weight_1(_gather(data, fold, fit), data.device, target.n_classes, total),
        validation=_gather(data, fold, validation),
        target=target,
        device=data.device,
        max_bin=settings.training.max_bin,
        class_weight=settings.training.class_weight,
        threads=data.threads,
        seed=settings.seed,
        ml=settings.ml,
        cache=data.cache,
        sparing=data.plan.sparing,
        total=total,
    )
    if all_groups:
        counts = np.zeros((len(all_groups), training_set.n_targets, target.n_classes), np.int64)
        for group, counts_of_group in training_set.counts.items():
            counts[all_groups.index(group)] = counts_of_group
        everywhere = dict(zip(all_groups, total(counts), strict=True))
        training_set = dataclasses.replace(training_set, counts_everywhere=everywhere)
    if (n := settings.ml.feature_selection_top_n) and n < training_set.n_columns:
        training_set = training_set.of_columns(columns.top_columns(training_set, n))
    return training_set


def _gather(data: TrainingData, fold: FoldId, numbers: Mapping[str, np.ndarray]) -> dict[str, RowView]:
    """The rows of each group with these numbers, gathered now, in this thread."""
    gathers = registry.reads_rows(data.settings)
    storage = Storage(data.cache if gathers else None, data.plan.late or not gathers)
    views = {
        group: RowView(data.datasets[group], rows, fold.targets, storage=storage) for group, rows in numbers.items()
    }
    gather_together(list(views.values()))
    for rows_of_group in views.values():
        for name in ("X", "y", "weight", "time_ns"):
            getattr(rows_of_group, name)
    return views


def digests_of_predicted(data: TrainingData, fold: FoldId, group: str) -> dict[str, str]:
    """The digest of X, and of the rows before it that estimators read, for each part that a group's models predict."""
    dataset, lookback = data.datasets[group], registry.lookback(data.settings).rows
    parts = fold.predicted(data.splits, group)
    if lookback:
        return {part: digest_of_context(RowView(dataset, rows), lookback) for part, rows in parts.items()}
    return {part: digest_of_features(dataset, rows) for part, rows in parts.items()}


@dataclass(frozen=True)
class Stage:
    """A unit of fitting: some targets of one estimator, for one group, or pooled over all groups.

    group: None for the pooled stage.  targets: positions in the training set.

        >>> pooled, stage = Stage(None, (0, 1)), Stage("energy", (0,))
        >>> len(pooled.targets), stage.group  # two targets on the pool; one target on a sector
        (2, 'energy')
    """

    group: str | None
    targets: tuple[int, ...]


def where(estimator: Estimator, device: Device) -> Device:
    """Where a worker with this device fits an estimator: on the CPU if it belongs there, as without workers."""
    return pick("cpu") if estimator.on_host else device


def fit(
    estimator: Estimator,
    training_set: TrainingSet,
    stage: Stage,
    settings: Config,
    pooled: Sequence[Model | None] | None,
    frozen_choices: Sequence[Model | None] | None,
    device: Device | None = None,
) -> list[Any]:
    """Fit the models of one stage. pooled, frozen_choices: for the same targets; see `Estimator`.

    device: where it is fitted; see `where` if None.
    """
    device = device or where(estimator, training_set.device)
    stage_rows, readable = training_set.of_targets(stage.targets), EstimatorSettings(settings, estimator)
    if stage.group is None:
        return columns.fit_pool(estimator, stage_rows, readable, frozen_choices, device)
    return columns.fit_group(estimator, stage_rows, stage.group, readable, pooled or [], frozen_choices, device)


def predict(
    estimator: Estimator,
    data: TrainingData,
    fold: FoldId,
    group: str,
    part: str,
    models: Sequence[Model],
    device: Device | None = None,
) -> np.ndarray:
    """Predictions of a group's models for one part, float32 (n_rows, n_targets, n_outputs), on the host.

    device: where they are computed; see `where` if None.
    """
    device = device or where(estimator, data.device)
    rows = RowView(data.datasets[group].on(device), fold.predicted(data.splits, group)[part])
    return device.to_host(columns.predict(estimator, models, rows.features))
