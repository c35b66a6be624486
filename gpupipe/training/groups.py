"""Train all estimators, targets and groups of a run as resumable tasks: pool first, then groups, then the stack."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from gpupipe.artifacts.summary import Skipped
from gpupipe.config import Config
from gpupipe.cross_validation.split import Split
from gpupipe.dataset.dataset import copied
from gpupipe.dataset.row_view import RowView, digest_of_arrays
from gpupipe.estimators import registry
from gpupipe.estimators.contract import EstimatorSettings, Model
from gpupipe.estimators.stacking.contract import StackedModel, StackingEstimator
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.evaluation.expected_return import ExpectedReturn
from gpupipe.runtime import libraries, memory, run_log
from gpupipe.runtime.device import Device
from gpupipe.runtime.errors import UserError
from gpupipe.runtime.placement import CPU
from gpupipe.runtime.task_graph import FoldSlot, Task, run_graph
from gpupipe.store.cache import Request
from gpupipe.targets.target import Target
from gpupipe.training import expected_return
from gpupipe.training.cache_keys import base_parts, load_models, save_models
from gpupipe.training.context import TrainingContext
from gpupipe.training.fitted_stage import FittedStage
from gpupipe.training.fold_data import FoldId, make_training_set
from gpupipe.training.fold_tasks import FoldTasks


@dataclass(frozen=True)
class GroupModels:
    """The models of one group, with their predictions of validation and test rows.

    labels: names of the trained targets, in order.  models: for each estimator, a model for each target.
    validation, test: for each estimator float32 (n_rows, n_targets, n_outputs), for the rows of the split.
    seconds: duration of the group stages of each estimator.
    expected_returns: of the trades of each label and estimator; empty where nothing is traded.

        >>> predictions = {"linear": np.full((500, 2, 3), 1 / 3, np.float32)}
        >>> models = GroupModels(
        ...     "energy", ("label_1d_5pct", "label_5d_5pct"), {"linear": ["model 1", "model 2"]},
        ...     validation=predictions, test=predictions, seconds={"linear": 0.4})
        >>> models.test["linear"][:, models.labels.index("label_5d_5pct")].shape
        (500, 3)
    """

    group: str
    labels: tuple[str, ...]
    models: dict[str, list[Model]]
    validation: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    seconds: dict[str, float]
    expected_returns: Mapping[tuple[str, str], ExpectedReturn] = field(default_factory=dict)


def pools(settings: Config, groups: Sequence[str]) -> list[tuple[str, ...]]:
    """The pools of groups: all groups in one pool, or each group alone.

    >>> from gpupipe.workloads.equity import EQUITY
    >>> pools(EQUITY.settings("fast"), ["energy", "utilities"])
    [('energy', 'utilities')]
    """
    return [tuple(groups)] if settings.training.pool == "all" else [(group,) for group in groups]


def count_tasks(settings: Config, n_groups: int) -> int:
    """Number of tasks that the progress bar counts.

    For each base estimator and each fit (final and out-of-fold): a pooled stage for each pool and a stage for each
    group. And a stacking task for each pool.
    """
    stacking = registry.stacking(settings.training.models)
    n_estimators = len(settings.training.models) - (stacking is not None)
    n_pools = 1 if settings.training.pool == "all" else n_groups
    parts = settings.split.parts - (settings.split.stacking == "forward")
    folds = 1 + parts if stacking else 1
    return n_estimators * folds * (n_pools + n_groups) + (n_pools if stacking else 0)


def train(context: TrainingContext) -> tuple[list[GroupModels], list[Skipped]]:
    """Train every pool of groups in one graph of tasks; raises UserError if no label can be trained."""
    from threadpoolctl import threadpool_limits

    if not context.results.lookup_only:
        libraries.load()
    enough, skipped = groups_with_enough(context)
    all_pools: list[_Pool] = []
    tasks: list[Task] = []
    order = itertools.count()
    opened: list[Task] = []
    for groups in pools(context.settings, enough):
        kept, missing = _targets_with_enough(context, groups)
        skipped += missing
        if kept:
            pool = _Pool(context, groups, kept)
            all_pools.append(pool)
            tasks += pool.tasks(order, opened)
    n_workers = context.workers.n_workers if context.workers else 1
    # One BLAS thread: with more, the last bits of sums, and so the models, depend on the machine and on --jobs.
    with threadpool_limits(1, "blas"):
        run_graph(tasks, context.costs, context.jobs, context.folds_at_once, n_workers)
    if context.results.lookup_only:
        return [], skipped
    trained = [models for pool in all_pools for models in pool.trained()]
    if not trained:
        raise UserError("no label can be trained: " + "; ".join(dict.fromkeys(s.reason for s in skipped)))
    return trained, skipped


def groups_with_enough(context: TrainingContext) -> tuple[list[str], list[Skipped]]:
    """Groups with at least training.min_rows rows, and the skipped groups; raises UserError if all are skipped."""
    skipped: list[Skipped] = []
    enough = []
    minimum = context.settings.training.min_rows
    for group, split in context.splits.items():
        smallest = min(len(split.train) // 4, len(split.validation), len(split.test))
        if smallest < minimum:
            skipped.append(Skipped(group, "", _too_short(split, minimum)))
        else:
            enough.append(group)
    if not enough:
        raise UserError("no group has enough rows to train: " + "; ".join(f"{s.sector}: {s.reason}" for s in skipped))
    return enough, skipped


def _too_short(split: Split, minimum: int) -> str:
    return (
        f"{len(split.train):,} training, {len(split.validation):,} validation and {len(split.test):,} test rows; "
        f"training.min_rows = {minimum} requires {4 * minimum:,}, {minimum:,} and {minimum:,}"
    )


class _Pool:
    """All estimators on one pool of groups: the final fold, the out-of-fold folds, then the stacking estimator."""

    def __init__(self, context: TrainingContext, groups: tuple[str, ...], kept: Sequence[int]) -> None:
        self.context, self.groups, self.kept = context, groups, tuple(kept)
        self.names, self.stacking = context.base_models, context.stacking
        self.target = context.datasets[groups[0]].target.take(kept)
        self.final = self._final()
        self.out_of_fold = self._out_of_fold() if self.stacking else []
        self.stacked: Mapping[str, Sequence[StackedModel]] = {}
        self.stacking_s = 0.0

    def _final(self) -> FoldTasks:
        context = self.context
        earlier = {name: context.earlier(name, self.groups, self.target.names) for name in self.names}
        starting = {name: models for name, models in earlier.items() if models}
        return FoldTasks(context, FoldId(context.times, self.groups, None, self.kept), self.names, None, starting)

    def _out_of_fold(self) -> list[FoldTasks]:
        """A fold for each block of the training part: models of the other blocks predict it, with frozen choices."""
        context = self.context
        folds: list[FoldTasks] = []
        for part in range(len(context.splits[self.groups[0]].cross_fit)):
            fitted = {group: context.splits[group].cross_fit[part][0] for group in self.groups}
            # A group whose data begin late may have no other block to be fitted on.
            able = tuple(g for g in self.groups if len(fitted[g]) >= context.settings.training.min_rows)
            for _ in range(len(self.names) * (len(self.groups) - len(able) + (not able))):
                context.advance(f"part{part + 1}: too few rows")
            if able:
                fold = FoldId(context.times, able, part, self.kept)
                folds.append(FoldTasks(context, fold, self.names, self.final))
        return folds

    def tasks(self, order: Iterator[int], opened: list[Task]) -> list[Task]:
        """The pool's part of the graph.

        order: yields the next slot number; a slot is the memory of one fold (`FoldSlot`).
        opened: the tasks that opened earlier slots, the newest last; new ones are appended. Slots are opened in turn,
            so that a fold is prepared while the previous fold is trained.
        """
        tasks: list[Task] = []
        shared = self.context.settings.training.pool == "all"
        for fold in (self.final, *self.out_of_fold):
            fold_tasks = fold.tasks(FoldSlot(next(order), fold.close, shared), opened[-1:])
            opened.append(fold_tasks[0])
            tasks += fold_tasks
        if self.stacking:
            n_rows = sum(len(rows) for rows in self._predicted().values())
            tasks.append(Task("stack", n_rows, self._stack, tuple(tasks), FoldSlot(next(order), shared=shared)))
        return tasks

    def _predicted(self) -> dict[str, np.ndarray]:
        """Row numbers with out-of-fold predictions for each group, in the order of stacking."""
        splits, nothing = self.context.splits, np.empty(0, np.int64)
        return {
            group: np.concatenate(
                [
                    nothing,
                    *(f.fold.predicted(splits, group)["oof"] for f in self.out_of_fold if group in f.fold.groups),
                ]
            )
            for group in self.groups
        }

    def trained(self) -> list[GroupModels]:
        """The models and predictions of each group, after all tasks are done."""
        trained = []
        for group in self.groups:
            stages = {name: cast(FittedStage, self.final.by_group[name][group]) for name in self.names}
            models = {name: stage.models for name, stage in stages.items()}
            seconds = {name: stage.seconds for name, stage in stages.items()}
            predictions = {
                part: {name: stage.predictions[part] for name, stage in stages.items()}
                for part in ("validation", "test")
            }
            if self.stacking:
                models[self.stacking] = list(self.stacked[group])
                seconds[self.stacking] = self.stacking_s / len(self.groups)
                for by_name in predictions.values():
                    by_name[self.stacking] = predict_stack(self.stacked[group], by_name, self.stacking_device)
            trained.append(
                GroupModels(group, self.target.names, models, predictions["validation"], predictions["test"], seconds)
            )
        learned = self._expected_returns(trained)
        return [replace(models, expected_returns=learned) for models in trained]

    def _expected_returns(self, trained: Sequence[GroupModels]) -> dict[tuple[str, str], ExpectedReturn]:
        """Learned from out-of-fold and validation rows.

        The stacking estimator was fitted on the same out-of-fold predictions, with a few weights for all their rows.
        """
        context, began = self.context, time.perf_counter()
        validation = {models.group: models.validation for models in trained}
        out_of_fold = self._predicted()
        rows = {group: np.concatenate([out_of_fold[group], context.splits[group].validation]) for group in self.groups}
        families = [*self.names, *([self.stacking] if self.stacking else [])]
        of_base: dict[str, dict[str, np.ndarray]] = {name: {} for name in self.names}

        def predictions(family: str, group: str) -> np.ndarray:
            if family == self.stacking:
                by_name = {name: of_base[name][group] for name in self.names}
                first = predict_stack(self.stacked[group], by_name, self.stacking_device)
            else:
                first = of_base[family][group] = out_of_fold_of(self.out_of_fold, family, group, self.target)
            return np.concatenate([first, validation[group][family]])

        learned = expected_return.learn(context.on_host, self.target, self.kept, rows, predictions, families)
        context.spent("expected returns", time.perf_counter() - began)
        return learned

    @property
    def stacking_device(self) -> Device:
        """Where the stacking estimator is fitted and predicts."""
        return self.context.device_of(cast(str, self.stacking))

    def _stack(self, worker: int) -> None:
        """Fit the stacking estimator on the out-of-fold predictions."""
        context, stacking, device = self.context, cast(str, self.stacking), self.stacking_device
        name = f"{'+'.join(self.groups)}/{context.times.name}/{stacking}"
        stages = [s for fold in self.out_of_fold for by_group in fold.by_group.values() for s in by_group.values()]
        if any(stage is None or "oof" not in stage.prediction_digests for stage in stages):
            context.results.count_waiting("stack", name)
            return
        predicted = self._predicted()
        y = {group: targets_on(device, context, group, rows, self.kept) for group, rows in predicted.items()}
        estimator = cast(StackingEstimator, registry.estimator(stacking))
        settings = EstimatorSettings(context.settings, estimator)
        parts = {
            **base_parts(stacking, device),
            "families": self.names,
            "sectors": list(self.groups),
            "predictions": [
                [g, [cast(FittedStage, fold.by_group[n][g]).prediction_digests["oof"] for n in self.names]]
                for fold in self.out_of_fold for g in fold.fold.groups
            ],
            "labels": digest_of_arrays(device.to_host(y[group]) for group in self.groups),
            "settings": settings.values(None, None),
        }  # fmt: skip
        began = time.perf_counter()

        def make() -> Mapping[str, Sequence[StackedModel]]:
            memory.give_back()
            predictions = _OutOfFold(self.groups, self.names, self.out_of_fold, self.target, device)
            return estimator.fit_stack(tuple(self.names), predictions, y, settings, device)

        def load(record: dict[str, Any]) -> Mapping[str, Sequence[StackedModel]]:
            models, n = load_models(context.store, record["models"], {}), len(self.kept)
            return {group: models[n * k : n * (k + 1)] for k, group in enumerate(self.groups)}

        def save(models: Mapping[str, Sequence[StackedModel]]) -> dict[str, Any]:
            return {"models": save_models(context.store, [m for group in self.groups for m in models[group]])}

        result = context.results.cached("stack", Request(name, parts), make, save, load)
        if context.results.lookup_only or result is None:
            return
        self.stacked, self.stacking_s = result.value, result.seconds
        context.spent(stacking, self.stacking_s)
        run_log.event(
            "unit", stage=stacking, unit=name, seconds=time.perf_counter() - began,
            rows=sum(map(len, predicted.values())), reused=result.reused, device=device.kind,
        )  # fmt: skip
        context.advance(stacking)


def out_of_fold_of(folds: Sequence[FoldTasks], name: str, group: str, target: Target) -> np.ndarray:
    """float32 (n_rows, n_targets, n_outputs): an estimator's predictions of a group, fold after fold."""
    nothing = np.empty((0, len(target.names), target.n_outputs), np.float32)
    stages = [fold.by_group[name][group] for fold in folds if group in fold.fold.groups]
    return np.concatenate([nothing, *(cast(FittedStage, stage).predictions["oof"] for stage in stages)])


def targets_on(device: Device, context: TrainingContext, group: str, rows: np.ndarray, targets: tuple[int, ...]) -> Any:
    """The targets with these positions of some rows of a group, on a device; X may be on workers, and is not read."""
    dataset = (context.on_host if device.kind == CPU else context).datasets[group]
    return copied(RowView(dataset, rows, targets).y, dataset.device, device)


@dataclass(frozen=True)
class _OutOfFold(Mapping[str, Any]):
    """Out-of-fold predictions of each group, float32 (n_estimators, n_rows, n_targets, n_outputs), in row order.

    Arrays are concatenated when they are read, because all together need as much memory as the features.
    """

    groups: Sequence[str]
    names: Sequence[str]
    folds: Sequence[FoldTasks]
    target: Any
    device: Device

    def __getitem__(self, group: str) -> Any:
        by_estimator = [out_of_fold_of(self.folds, name, group, self.target) for name in self.names]
        return self.device.asarray(np.stack(by_estimator))

    def __iter__(self) -> Iterator[str]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)


def final_training_set(
    context: TrainingContext, groups: tuple[str, ...]
) -> tuple[TrainingSet | None, list[int], list[Skipped]]:
    """The training set of a pool's final fold, the numbers of its targets, and the targets with too few positives.

    The training set is None where all targets have too few.
    """
    kept, skipped = _targets_with_enough(context, groups)
    if not kept:
        return None, kept, skipped
    return make_training_set(context, FoldId(context.times, groups, None, tuple(kept))), kept, skipped


def _targets_with_enough(context: TrainingContext, groups: tuple[str, ...]) -> tuple[list[int], list[Skipped]]:
    """Targets whose first and last class each have training.min_positives rows in the pool; and the skipped targets.

    Targets that are not classes are all kept.
    """
    target = context.datasets[groups[0]].target
    if target.kind != "classes":
        return list(range(len(target.names))), []
    minimum, on_host = context.settings.training.min_positives, context.on_host
    y = np.concatenate([on_host.device.to_host(on_host.datasets[g].y)[context.splits[g].train] for g in groups])
    kept, skipped = [], []
    first, last = 0, target.n_classes - 1
    for k, name in enumerate(target.names):
        lower, upper = int((y[:, k] == first).sum()), int((y[:, k] == last).sum())
        if min(lower, upper) >= minimum:
            kept.append(k)
            continue
        where = "all sectors together" if len(groups) > 1 else groups[0]
        low_word, high_word = target.class_names[first], target.class_names[last]
        reason = (
            f"{where}: {upper} {high_word} and {lower} {low_word} rows to train on; "
            f"training.min_positives = {minimum} of each"
        )
        skipped += [Skipped(group, name, reason) for group in groups]
    return kept, skipped


def predict_stack(stacked: Sequence[Model], predictions: Mapping[str, np.ndarray], device: Device) -> np.ndarray:
    """Predictions of stacking models, float32 (n_rows, n_targets, n_outputs) on the host, from the base predictions."""
    columns = []
    for k, model in enumerate(cast(Sequence[StackedModel], stacked)):
        inputs = [device.asarray(predictions[name][:, k]) for name in model.families]
        columns.append(device.to_host(model.predict(inputs, device)))
    return np.stack(columns, axis=1)
