"""Predictions of a walk-forward fold for its test window, in the form of the out-of-sample store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpupipe.artifacts.out_of_sample_store import FoldPredictions, ModelKey
from gpupipe.cross_validation.fold_times import FoldTimes
from gpupipe.dataset.dataset import Dataset
from gpupipe.dataset.row_view import RowView
from gpupipe.estimators import columns, registry
from gpupipe.evaluation.expected_return import ExpectedReturn
from gpupipe.evaluation.scorers import scorer_of
from gpupipe.targets.target import Target
from gpupipe.training.context import TrainingContext
from gpupipe.training.groups import GroupModels, predict_stack
from gpupipe.training.placement import stage_name


def fold_predictions(
    context: TrainingContext, times: FoldTimes, trained: Sequence[GroupModels]
) -> list[FoldPredictions]:
    """Predictions of a fold's models for all rows of its test window, rows without known labels included.

    Kept are the probabilities of the first and the last class, or the predicted value, with the cutoffs that
    validation chose.
    """
    to_host = context.device.to_host
    learned_until_ns = max(
        int(to_host(context.datasets[models.group].end_time_ns)[rows].max())
        for models in trained
        for rows in (context.splits[models.group].train, context.splits[models.group].validation)
    )
    return [_group_predictions(context, times, models, learned_until_ns) for models in trained]


def _group_predictions(
    context: TrainingContext, times: FoldTimes, models: GroupModels, learned_until_ns: int
) -> FoldPredictions:
    """Predictions of the models of one group."""
    to_host = context.device.to_host
    dataset, split = context.datasets[models.group], context.splits[models.group]
    target, scorer = dataset.target, scorer_of(dataset.target)
    time_ns, y = to_host(dataset.time_ns), to_host(dataset.y)
    in_window = np.zeros(len(time_ns), bool)
    for block in times.test:
        in_window |= (time_ns >= block.start) & (time_ns < block.stop)
    rows = np.flatnonzero(in_window & to_host(dataset.warm))
    unlabelled = np.setdiff1d(rows, split.test, assume_unique=True)
    late = _predict(context, models, dataset, unlabelled)
    stored, outputs = _stored_outputs(target)
    keys: list[ModelKey] = []
    values: list[np.ndarray] = []
    cutoffs: list[tuple[float, ...]] = []
    expected_returns: list[ExpectedReturn | None] = []
    for k in sorted(range(len(models.labels)), key=lambda k: _parameters(target, models.labels[k])):
        label = models.labels[k]
        column = target.names.index(label)
        for name in models.models:
            prediction = np.empty((len(rows), len(stored)), np.float32)
            prediction[np.searchsorted(rows, split.test)] = models.test[name][:, k][:, stored]
            prediction[np.searchsorted(rows, unlabelled)] = late[name][:, k][:, stored]
            by_side = scorer.cutoffs(models.validation[name][:, k], y[split.validation, column])
            keys.append(ModelKey(name, label, _parameters(target, label)))
            values.append(prediction)
            cutoffs.append(tuple(by_side.values()))
            expected_returns.append(models.expected_returns.get((label, name)))
    return FoldPredictions(
        group=models.group,
        rows=rows,
        models=tuple(keys),
        outputs=outputs,
        values=np.stack(values, axis=1),
        cutoffs=tuple(cutoffs),
        expected_returns=tuple(expected_returns),
        learned_until_ns=learned_until_ns,
    )


def _stored_outputs(target: Target) -> tuple[list[int], tuple[str, ...]]:
    """Positions among a model's outputs of those that are stored, and their names: the outer classes, or the value."""
    if target.kind != "classes":
        return [0], ("",)
    outer = [0, target.n_classes - 1]
    return outer, tuple(target.class_names[c].lower() for c in outer)


def _parameters(target: Target, label: str) -> tuple[Any, ...]:
    """The values of the parameters that define a column of y."""
    return tuple(target.parameters[target.names.index(label)].values()) if target.parameters else ()


def _predict(
    context: TrainingContext, models: GroupModels, dataset: Dataset, rows: np.ndarray
) -> dict[str, np.ndarray]:
    """Predictions of each estimator, float32 (n_rows, n_targets, n_outputs) on the host, computed as in training."""
    from threadpoolctl import threadpool_limits

    if not len(rows):
        shape = (0, len(models.labels), dataset.target.n_outputs)
        return {name: np.empty(shape, np.float32) for name in models.models}
    predictions: dict[str, np.ndarray] = {}
    with threadpool_limits(1, "blas"):
        for name, fitted in models.models.items():
            if name == context.stacking:
                predictions[name] = predict_stack(fitted, predictions, context.device_of(name))
            else:
                estimator = registry.estimator(name)
                device = context.device_of(stage_name(estimator, models.group))
                predicted: Any = columns.predict(estimator, fitted, RowView(dataset.on(device), rows).features)
                predictions[name] = device.to_host(predicted)
    return predictions
