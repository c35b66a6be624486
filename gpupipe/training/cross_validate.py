"""Walk-forward and combinatorial purged cross-validation: train at several places in time, and score each fold."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.artifacts import out_of_sample_store
from gpupipe.artifacts.summary import Skipped
from gpupipe.cross_validation.fold_times import FoldTimes
from gpupipe.cross_validation.folds import Folds
from gpupipe.cross_validation.split import Split, split
from gpupipe.data.panel import Panel
from gpupipe.data.report import time_text
from gpupipe.dataset.dataset import Dataset
from gpupipe.evaluation import block_bootstrap, touch_direction
from gpupipe.evaluation.block_bootstrap import EVENTS, PRIOR
from gpupipe.evaluation.losses import losses_of
from gpupipe.runtime.errors import UserError
from gpupipe.runtime.task_graph import in_parallel
from gpupipe.training import out_of_sample
from gpupipe.training.context import TrainingContext
from gpupipe.training.fold_summaries import BlockLoss, FoldScores, cpcv_summary, walk_forward_summary, with_intervals
from gpupipe.training.groups import GroupModels, train
from gpupipe.training.recipe import Recipe
from gpupipe.training.score import Baselines, reference_predictions


def title(times: FoldTimes) -> str:
    """The name of a fold for people: "origin 2", "cpcv 05", or "single split"."""
    return times.name.replace("origin", "origin ").replace("cpcv", "cpcv ") or "single split"


Keep = Callable[[TrainingContext, Sequence[GroupModels]], Any]


def train_folds(
    workload: Recipe,
    context: TrainingContext,
    published: TrainingContext,
    folds: Folds,
    stage: Callable[[str], None],
    keep: Keep = lambda context, trained: None,
) -> tuple[list[FoldScores], Published]:
    """Train and score every evaluation fold, whose models are released once they are scored, and the published fold.

    published: the context of the published fold, which may have a warm start.
    keep: what else is kept of an origin of the walk-forward (`FoldScores.kept`).
    The folds are trained in turn, or several at once where one fold alone does not have enough work for all jobs.
    A killed run resumes from the cached results of these folds, as it does for the published fold.
    Raises UserError, naming the fold, where no label of the fold can be trained.
    """
    at_once = min(context.folds_in_time_at_once, 1 + len(folds.evaluation_folds))
    if at_once > 1:
        jobs = max(1, context.jobs // at_once)
        context, published = (dataclasses.replace(each, jobs=jobs, beside=at_once) for each in (context, published))

    def train_published() -> Published:
        stage(f"training, {title(folds.published)}" if folds.evaluation_folds else "training")
        return Published(*train(published))

    calls: list[Callable[[], Any]] = [
        functools.partial(_evaluate, workload, context, folds, times, stage, keep) for times in folds.evaluation_folds
    ]
    calls.append(train_published)
    if at_once == 1:
        *scored, last = [call() for call in calls]
        return scored, last
    from threadpoolctl import threadpool_limits

    # Around all of them: each sets this limit back to what it found, while others are still at work.
    with threadpool_limits(1, "blas"):
        *scored, last = in_parallel(calls, at_once)
    return scored, last


def _evaluate(
    workload: Recipe,
    context: TrainingContext,
    folds: Folds,
    times: FoldTimes,
    stage: Callable[[str], None],
    keep: Keep,
) -> FoldScores:
    """Train and score one evaluation fold."""
    stage(f"training, {title(times)}")
    splits = {group: split(dataset, times) for group, dataset in context.datasets.items()}
    fold_context = dataclasses.replace(context, splits=splits, times=times)
    try:
        trained, skipped = train(fold_context)
    except UserError as error:
        fix = "fewer origins or a larger split.train" if times.name.startswith("origin") else "fewer groups"
        raise UserError(f"{title(times)}: {error}; {fix} would give it more") from None
    fold_context = fold_context.on_host
    scores = score_fold(workload, fold_context, times, trained, skipped)
    is_origin = times in folds.walk_forward
    predictions = out_of_sample.fold_predictions(fold_context, times, trained) if is_origin else []
    return dataclasses.replace(scores, predictions=predictions, kept=keep(fold_context, trained) if is_origin else None)


def survey(context: TrainingContext, folds: Folds) -> None:
    """Look up the cached results that the evaluation folds would need; nothing is trained."""
    for times in folds.evaluation_folds:
        splits = {group: split(dataset, times) for group, dataset in context.datasets.items()}
        train(dataclasses.replace(context, splits=splits, times=times))


def score_fold(
    workload: Recipe,
    context: TrainingContext,
    times: FoldTimes,
    trained: list[GroupModels],
    skipped: Sequence[Skipped],
) -> FoldScores:
    """The losses of a fold's models and baselines on its test rows, by block."""
    baselines = Baselines.learn(workload, context, [models.group for models in trained])
    block_losses: list[BlockLoss] = []
    by_time = {}
    for models in trained:
        dataset, test = context.datasets[models.group], context.splits[models.group].test
        y, time_ns = context.device.to_host(dataset.y), context.device.to_host(dataset.time_ns)[test]
        baseline_predictions = baselines.predict(dataset, test)
        blocks = [np.flatnonzero((time_ns >= block.start) & (time_ns < block.stop)) for block in times.test]
        for position, label in enumerate(models.labels):
            k = dataset.target.names.index(label)
            predictions = {name: models.test[name][:, position] for name in models.models}
            predictions |= {name: prediction[:, k] for name, prediction in baseline_predictions.items()}
            reference = reference_predictions(dataset, k, context.splits[models.group].train, test)
            prior = losses_of(dataset.target, reference, y[test, k])
            row_losses = {
                name: losses_of(dataset.target, prediction, y[test, k]) for name, prediction in predictions.items()
            }
            columns = {PRIOR: prior, **row_losses}
            has_classes = dataset.target.kind == "classes"
            if has_classes:
                columns[EVENTS] = block_bootstrap.events_of(y[test, k])
            touch = touch_direction.by_model(dataset.target, label, {PRIOR: reference, **predictions}, y[test, k])
            by_time[label, models.group] = block_bootstrap.by_time(
                time_ns, {(label, name): column for name, column in columns.items()}, touch
            )
            block_losses += [
                BlockLoss(
                    times.name, b, models.group, label, name, len(rows), float(lost[rows].sum()),
                    float(prior[rows].sum()), frozenset(y[test[rows], k].tolist()) if has_classes else None,
                    _sum(touch.get((label, name)), rows), _sum(touch.get((label, PRIOR)), rows),
                )
                for name, lost in row_losses.items()
                for b, rows in enumerate(blocks)
                if len(rows)
            ]  # fmt: skip
    left_out = [dataclasses.asdict(skip) for skip in skipped]
    description = {**describe(times, context.datasets, context.splits), "skipped": left_out}
    return FoldScores(description, block_losses, by_time)


def _sum(column: np.ndarray | None, rows: np.ndarray) -> float | None:
    return None if column is None else float(column[rows].sum())


def describe(times_of_fold: FoldTimes, datasets: Mapping[str, Dataset], splits: Mapping[str, Split]) -> dict[str, Any]:
    """Number of rows and first and last date of each part of a fold; the test part has dates for each block."""

    def times(part: str) -> np.ndarray:
        return np.concatenate([d.device.to_host(d.time_ns)[getattr(splits[s], part)] for s, d in datasets.items()])

    part_times = {part: times(part) for part in ("train", "validation", "test")}
    dates = {part: _ends(part_times[part]) for part in ("train", "validation")}
    test = part_times["test"]
    return {
        "name": title(times_of_fold),
        "rows": {part: len(time_ns) for part, time_ns in part_times.items()},
        **dates,
        "test": [_ends(test[(test >= block.start) & (test < block.stop)]) for block in times_of_fold.test],
    }


def _ends(time_ns: np.ndarray) -> list[str]:
    return [time_text(int(time_ns.min())), time_text(int(time_ns.max()))] if len(time_ns) else []


def plan(folds: Folds, datasets: Mapping[str, Dataset]) -> dict[str, Any]:
    """Rows and dates of the folds of "walk_forward" and "cpcv", where the settings ask for them."""

    def described(several: Sequence[FoldTimes]) -> list[dict[str, Any]]:
        return [describe(times, datasets, {g: split(d, times) for g, d in datasets.items()}) for times in several]

    asked = {"walk_forward": folds.walk_forward, "cpcv": folds.cpcv}
    return {name: described(several) for name, several in asked.items() if several}


@dataclass(frozen=True)
class Published:
    """The models of the published fold, which is the last origin of a walk-forward.

    >>> published = Published([], [Skipped("energy", "label_1d_10pct", "5 rows to train on")])
    >>> published.skipped[0].sector, len(published.trained)
    ('energy', 0)
    """

    trained: list[GroupModels]
    skipped: Sequence[Skipped]


def summarise(
    workload: Recipe,
    context: TrainingContext,
    folds: Folds,
    evaluated: Sequence[FoldScores],
    published: Published,
) -> dict[str, Any]:
    """The sections "walk_forward" and "cpcv" of a summary, where the settings ask for them.

    evaluated: the scores from `train_folds`.
    """
    crossed, origins = evaluated[: len(folds.cpcv)], evaluated[len(folds.cpcv) :]
    summary = {}
    if folds.walk_forward:
        last = score_fold(workload, context, folds.published, published.trained, published.skipped)
        settings, tables = context.settings, workload.reference_tables
        walked = walk_forward_summary([*origins, last], tables)
        longest = max(workload.target(settings).horizon_rows)
        summary["walk_forward"] = with_intervals(walked, [*origins, last], longest, settings.seed, tables)
    if folds.cpcv:
        summary["cpcv"] = cpcv_summary(crossed, *context.settings.split.cpcv)
    return summary


def publish(
    context: TrainingContext, panel: Panel, folds: Folds, evaluated: Sequence[FoldScores], trained: list[GroupModels]
) -> dict[str, dict[str, Any]]:
    """Write the out-of-sample predictions of a walk-forward; returns manifest entries, empty without a walk-forward.

    evaluated: the scores from `train_folds`.  trained: models of the published fold.
    """
    if not folds.walk_forward:
        return {}
    predictions = [scores.predictions for scores in evaluated[len(folds.cpcv) :]]
    predictions.append(out_of_sample.fold_predictions(context, folds.published, trained))
    return out_of_sample_store.publish(context.store, panel, folds.walk_forward, predictions, context.run_key)
