"""FoldTasks: all estimators on one fold as tasks; a stage with unchanged inputs is loaded from the store."""

from __future__ import annotations

import functools
import shutil
import time
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.estimators import columns, registry
from gpupipe.estimators.contract import Estimator, EstimatorSettings, Model
from gpupipe.estimators.earlier import EarlierModels
from gpupipe.estimators.fit_context import FitContext
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.runtime import run_log
from gpupipe.runtime.device import Device
from gpupipe.runtime.placement import CUDA
from gpupipe.runtime.task_graph import FoldSlot, Task
from gpupipe.store.cache import Request, load_array, save_array
from gpupipe.store.content_store import KEY_LENGTH, sha256_of
from gpupipe.training import fold_data
from gpupipe.training.cache_keys import (
    GroupDigests,
    Inputs,
    base_parts,
    blocks_of,
    load_models,
    save_models,
)
from gpupipe.training.fitted_stage import FittedStage, models_of
from gpupipe.training.fold_data import FoldId, Stage, digests_of_predicted, make_training_set, share_groups
from gpupipe.training.placement import stage_name

if TYPE_CHECKING:
    from gpupipe.training.context import TrainingContext


@dataclass(frozen=True)
class _Opened:
    """A prepared fold: its training set (None where worker processes fit), and digests of the inputs of its stages."""

    training_set: TrainingSet | None
    inputs: Inputs
    predicted: dict[str, dict[str, str]]


class FoldTasks:
    """All estimators on one fold: the pooled stage of each estimator, then its group stages.

    Stages of different estimators run beside each other.
    final: the tasks of the final fold, whose frozen choices an out-of-fold fold takes; None for the final fold.
    earlier: models of an earlier run, by estimator that starts from them.
    pooled, by_group: fitted stages by estimator; None where a dry run has no cached result.

        >>> from gpupipe.data import simulate
        >>> from gpupipe.training.context import TrainingContext
        >>> from gpupipe.training.prepare import outline
        >>> from gpupipe.workloads.equity import EQUITY
        >>> panel, settings = simulate(n_symbols=3, n_bars=400), EQUITY.settings("fast")
        >>> prepared = outline(EQUITY, panel, settings)
        >>> times = prepared.folds.published
        >>> context = TrainingContext(
        ...     prepared.datasets, prepared.splits, times, settings, None, "ab12", panel.device, jobs=1)
        >>> fold = FoldTasks(context, FoldId(times, panel.groups, None, (0, 1)), ["xgb_hist", "linear"])
        >>> len(fold.tasks(FoldSlot(0), []))  # 2 preparations, and each estimator on the pool and on 3 sectors
        10
    """

    def __init__(
        self,
        context: TrainingContext,
        fold: FoldId,
        names: Sequence[str],
        final: FoldTasks | None = None,
        earlier: Mapping[str, EarlierModels] = types.MappingProxyType({}),
    ) -> None:
        self.context, self.fold, self.final, self.earlier = context, fold, final, earlier
        estimators = registry.estimators(names)
        self.estimators = [
            item.starting_from(earlier[item.name]) if item.name in earlier else item for item in estimators
        ]
        self.pooled: dict[str, FittedStage | None] = {}
        self.by_group: dict[str, dict[str, FittedStage | None]] = {name: {} for name in names}
        self._targets = context.datasets[fold.groups[0]].target.take(fold.targets)
        self._n_fit = {group: len(fitted) for group, (fitted, _) in fold.rows(context.splits).items()}
        self._name = f"{'+'.join(fold.groups)}/{fold.name}"
        self._open: _Opened | None = None
        self._tasks: dict[tuple[str, str | None], Task] = {}

    def tasks(self, slot: FoldSlot, after: Sequence[Task]) -> list[Task]:
        """The tasks of the fold, each after the tasks that it needs.

        after: tasks that end before the fold's rows are gathered.
        """
        n_pool = sum(self._n_fit.values())
        opening = Task("prepare", n_pool, self._prepare, tuple(after), slot, opens=True)
        with_bins = [estimator.name for estimator in self.estimators if estimator.uses_bins]
        choices = [self.final._tasks[name, None] for name in with_bins] if self.final else []
        binning = Task("bins", n_pool, self._bin, (opening, *choices), slot, ahead=True)
        tasks = [opening, binning]
        for estimator in self.estimators:
            needs: tuple[Task, ...] = (binning if estimator.uses_bins else opening,)
            for group in (None, *self.fold.groups):
                choices = [self.final._tasks[estimator.name, group]] if self.final else []
                n_rows = n_pool if group is None else self._n_fit[group]
                work = functools.partial(self._work, estimator, group)
                # GPU fits take turns with the others where a plan fits one at a time, and where workers have GPUs.
                turns = self.context.plan.sparing or self.context.workers is not None
                placed = bool(self.context.placement.stages) and not turns
                beside = placed and self._device(estimator, group).kind == CUDA
                task = Task(cost_kind(estimator, group), n_rows, work, (*needs, *choices), slot, on_device=beside)
                self._tasks[estimator.name, group] = task
                tasks.append(task)
                if group is None:
                    needs = (task,)
        return tasks

    def close(self) -> None:
        """Release the rows and their bins."""
        self._open = None
        if self.context.workers:
            self.context.workers.close(self.fold)

    def _prepare(self, worker: int) -> None:
        """Gather the rows, and compute their digests."""
        began, context, training_set, selected = time.perf_counter(), self.context, None, None
        if sharded := context.workers.sharded_rows if context.workers else None:
            digests = sharded.inputs(self.fold)
            context.spent("gather", time.perf_counter() - began)
        else:
            training_set = make_training_set(context, self.fold)
            selected = training_set.columns
            context.spent("gather", time.perf_counter() - began)
            if context.workers and not context.results.lookup_only:
                context.workers.open(self.fold, worker)
            hashing = time.perf_counter()
            lookback = registry.lookback(context.settings).rows
            digests = {
                group: (
                    GroupDigests.of(training_set, group, lookback),
                    digests_of_predicted(context, self.fold, group),
                )
                for group in self.fold.groups
            }
            context.spent("hashing", time.perf_counter() - hashing)
        n_rows = {group: dataset.n_rows for group, dataset in context.datasets.items()}
        n_spread = context.settings.training.spread
        shares = share_groups(n_rows, n_spread) if n_spread else []
        spread = [
            process_groups
            for share in shares
            if (process_groups := [group for group in share if group in self.fold.groups])
        ]
        rows = {group: rows_of_group for group, (rows_of_group, _) in digests.items()}
        inputs = Inputs.of(rows, context.settings, selected, spread)
        predicted = {group: parts for group, (_, parts) in digests.items()}
        self._open = _Opened(None if context.workers else training_set, inputs, predicted)
        self._log_preparation("prepare", began)

    def _bin(self, worker: int) -> None:
        """Compute the bins that tree estimators share, where a stage of these estimators is not cached."""
        began, training_set = time.perf_counter(), self._opened.training_set
        if training_set is None or self.context.results.lookup_only:
            return
        needed = [estimator for estimator in self.estimators if estimator.uses_bins and self._is_new(estimator)]
        if needed:
            for estimator in needed:
                columns.make_shared([estimator], training_set, self.context.settings, self._device(estimator, None))
            self.context.spent("bins", time.perf_counter() - began)
            self._log_preparation("bins", began)

    def _is_new(self, estimator: Estimator) -> bool:
        """Whether a pooled model of an estimator is missing in the store."""
        final = self.final.pooled[estimator.name] if self.final else None
        wanted = (self._request_for(estimator, None, block, None, final) for block in self._blocks(estimator))
        return any(not self.context.results.is_there(result) for result in wanted)

    def _log_preparation(self, stage: str, began: float) -> None:
        elapsed_s, n_rows = time.perf_counter() - began, sum(self._n_fit.values())
        self.context.costs.observe(stage, n_rows, elapsed_s)
        if not self.context.results.lookup_only:
            run_log.event(
                "prepared", stage=stage, unit=f"{self._name}/{stage}", seconds=elapsed_s, rows=n_rows,
                device=self.context.device.kind,
            )  # fmt: skip

    def _device(self, estimator: Estimator, group: str | None) -> Device:
        """Where an estimator's stage is fitted, and its models of a group predict."""
        return self.context.device_of(stage_name(estimator, group))

    @property
    def _opened(self) -> _Opened:
        assert self._open is not None, "the tasks of a fold come after its rows"
        return self._open

    def _work(self, estimator: Estimator, group: str | None, worker: int) -> None:
        """Load or fit an estimator's stage of a group, or its pooled stage, and its predictions."""
        began = time.perf_counter()
        pooled = None if group is None else self.pooled[estimator.name]
        final = None
        if self.final:
            by_group = self.final.by_group[estimator.name]
            final = self.final.pooled[estimator.name] if group is None else by_group[group]
        stage = self._fit(estimator, group, pooled, final, worker)
        name = f"{self._name}/{estimator.name}/{group or 'pool'}"
        if group is None:
            self.pooled[estimator.name] = stage
        else:
            stage = self.by_group[estimator.name][group] = self._with_predictions(estimator, group, name, stage, worker)
        n_rows = sum(self._n_fit.values()) if group is None else self._n_fit[group]
        context = self.context
        if stage:
            context.costs.observe(cost_kind(estimator, group), n_rows, stage.seconds)
            context.spent(estimator.name, stage.seconds)
        if stage and not context.results.lookup_only:
            kept = stage.objects | set(stage.prediction_digests.values())
            run_log.event(
                "unit", stage=estimator.name, unit=name, seconds=time.perf_counter() - began, rows=n_rows,
                reused=stage.reused, bytes=sum(map(context.store.size, kept)),
                device=self._device(estimator, group).kind,
                worker=context.workers.worker_of(group, worker) if context.workers else None,
            )  # fmt: skip
        context.advance(name)

    def _blocks(self, estimator: Estimator) -> list[list[int]]:
        """Positions of the targets in each cached result."""
        everything = list(range(len(self._targets.names)))
        # An estimator that starts from earlier models needs the models of all targets.
        if estimator.earlier:
            return [everything]
        return blocks_of(estimator, everything, self.context.settings)

    def _fit(
        self,
        estimator: Estimator,
        group: str | None,
        pooled: FittedStage | None,
        final: FittedStage | None,
        worker: int,
    ) -> FittedStage | None:
        """The models of a stage: load those in the store, and fit all others together."""
        context, blocks = self.context, self._blocks(estimator)
        name = f"{self._name}/{estimator.name}/{group or 'pool'}"
        if (group is not None and pooled is None) or (self.final is not None and final is None):
            for block in blocks:  # only looked up, and an input is missing
                context.results.count_waiting("model", self._block_name(name, block))
            return None
        boosters: dict[bytes, Any] = {}
        requests = [self._request_for(estimator, group, block, pooled, final) for block in blocks]
        key = sha256_of([request.key for request in requests])[:KEY_LENGTH]
        checkpoints = context.store.checkpoints(key)
        progress = FitContext(checkpoints, key, lambda text: context.detail(f"{name}: {text}"))

        def make(missing: list[int]) -> list[list[Any]]:
            targets = sorted(k for number in missing for k in blocks[number])
            with context.device.stage(estimator.name, name):
                models = self._make(estimator.within(progress), group, targets, pooled, final, worker)
            by_target = dict(zip(targets, models, strict=True))
            return [[by_target[k] for k in blocks[number]] for number in missing]

        results = context.results.cached_together(
            "model",
            requests,
            make,
            lambda models: {"models": save_models(context.store, models)},
            lambda record: load_models(context.store, record["models"], boosters),
        )
        if results is not None:
            shutil.rmtree(checkpoints, ignore_errors=True)  # all is saved
        return None if results is None else FittedStage.of_blocks(blocks, results)

    def _make(
        self,
        estimator: Estimator,
        group: str | None,
        targets: Sequence[int],
        pooled: FittedStage | None,
        final: FittedStage | None,
        worker: int,
    ) -> list[Any]:
        stage, context = Stage(group, tuple(targets)), self.context
        pooled_models, choices = models_of(pooled, targets), models_of(final, targets)
        if context.workers:
            return context.workers.fit(self.fold, estimator, stage, pooled_models, choices, worker)
        training_set = self._opened.training_set
        assert training_set is not None
        call = functools.partial(
            fold_data.fit,
            estimator,
            training_set,
            stage,
            context.settings,
            pooled_models,
            choices,
            self._device(estimator, group),
        )
        name = f"{self._name}/{estimator.name}/{group or 'pool'}"
        return context.turns.run(call, training_set.release, name)

    def _block_name(self, name: str, block: Sequence[int]) -> str:
        names = self._targets.names
        return name if len(block) == len(names) else f"{name}/{names[block[0]]}"

    def _request_for(
        self,
        estimator: Estimator,
        group: str | None,
        block: Sequence[int],
        pooled: FittedStage | None,
        final: FittedStage | None,
    ) -> Request:
        """The request for a block of models: its name, and the parts of its cache key."""
        inputs, settings = self._opened.inputs, EstimatorSettings(self.context.settings, estimator)
        values = dict(inputs.fixed)
        for k in block:
            for name, value in settings.values(group, self._targets.names[k]).items():
                # Where settings differ between targets, each value is listed with the target's position in the block.
                same = values.setdefault(name, value) == value
                values |= {} if same else {f"{name} of label {block.index(k)}": value}
        parts = {
            **base_parts(estimator.name, self._device(estimator, group)),
            "family": estimator.name,
            "stage": group or "pool",
            "data": inputs.rows,
            "labels": [inputs.targets[k] for k in block],
            "settings": values,
            "pooled models": pooled and [pooled.digests[k] for k in block],
            "models of the final fold": final and [final.digests[k] for k in block],
            "what it starts from": estimator.earlier.digest if estimator.earlier else "",
        }
        name = f"{self._name}/{estimator.name}/{group or 'pool'}"
        return Request(self._block_name(name, block), parts)

    def _with_predictions(
        self, estimator: Estimator, group: str, name: str, stage: FittedStage | None, worker: int
    ) -> FittedStage | None:
        """Add the predictions of each part to a stage, float32 (n_rows, n_targets, n_outputs)."""
        context, predictions, digests = self.context, dict[str, np.ndarray](), dict[str, str]()
        seconds, reused = (stage.seconds, stage.reused) if stage else (0.0, False)
        for part, rows in self._opened.predicted[group].items():
            part_name = f"{name}/{part}"
            if stage is None:
                context.results.count_waiting("prediction", part_name)
                continue
            parts = {
                **base_parts(estimator.name, self._device(estimator, group)), "family": estimator.name,
                "models": list(stage.digests),
                "data": rows,
            }  # fmt: skip
            result = context.results.cached(
                "prediction",
                Request(part_name, parts),
                functools.partial(self._predict, estimator, group, part, part_name, stage.models, worker),
                lambda array: {"arrays": {"said": save_array(context.store, array)}},
                lambda record: load_array(context.store, record["arrays"]["said"]),
            )
            if result is None:
                continue
            if result.value is not None:
                predictions[part] = result.value
            digests[part] = result.record["arrays"]["said"]
            seconds, reused = seconds + result.seconds, reused and result.reused
        if stage is None:
            return None
        return FittedStage(stage.models, stage.digests, seconds, predictions, digests, stage.objects, reused)

    def _predict(
        self, estimator: Estimator, group: str, part: str, name: str, models: Sequence[Model], worker: int
    ) -> np.ndarray:
        with self.context.device.stage(estimator.name, name):
            if self.context.workers:
                return self.context.workers.predict(self.fold, estimator.name, group, part, models, worker)
            device = self._device(estimator, group)
            return fold_data.predict(estimator, self.context, self.fold, group, part, models, device)


def cost_kind(estimator: Estimator, group: str | None) -> str:
    """The name under which the cost of a stage is recorded: "linear pool" for the pooled stage, else "linear"."""
    return f"{estimator.name} pool" if group is None else estimator.name


def first_costs(names: Sequence[str]) -> dict[str, float]:
    """Assumed costs of the estimators' stages at the start of a run, in microseconds for each row."""
    costs = {}
    for estimator in registry.estimators(names):
        costs[cost_kind(estimator, None)], costs[estimator.name] = estimator.first_cost_us
    return costs
