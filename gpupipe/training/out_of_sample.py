"""Predictions of a walk-forward fold for its test window, in the form of the out-of-sample store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpupipe.artifacts.out_of_sample_store import Said
from gpupipe.cross_validation.fold_times import FoldTimes
from gpupipe.dataset.dataset import Dataset
from gpupipe.dataset.row_view import RowView
from gpupipe.estimators import columns, registry
from gpupipe.evaluation.scorers import scorer_of
from gpupipe.training.context import TrainingContext
from gpupipe.training.groups import GroupModels, predict_stack


def of_fold(context: TrainingContext, times: FoldTimes, trained: Sequence[GroupModels]) -> list[Said]:
    """Predictions of a fold's models for all rows of its test window, rows without known labels included.

    Probabilities of the first and the last class are kept, with the cutoffs that validation chose.
    """
    to_host = context.device.to_host
    learned_until = max(
        int(to_host(context.datasets[models.group].end_time_ns)[rows].max())
        for models in trained
        for rows in (context.splits[models.group].train, context.splits[models.group].validation)
    )
    windows = []
    for models in trained:
        dataset, split = context.datasets[models.group], context.splits[models.group]
        time, y = to_host(dataset.time_ns), to_host(dataset.y)
        inside = np.zeros(len(time), bool)
        for block in times.test:
            inside |= (time >= block.start) & (time < block.stop)
        rows = np.flatnonzero(inside & to_host(dataset.warm))
        unknown = np.setdiff1d(rows, split.test, assume_unique=True)
        later = _predict(context, models, dataset, unknown)
        position, values, cutoffs = np.searchsorted(rows, split.test), [], []
        scorer, outer = scorer_of(dataset.target), [0, dataset.target.n_classes - 1]
        keys = [(k, name) for k in _by_horizon(dataset, models.labels) for name in models.models]
        for k, name in keys:
            both = np.empty((len(rows), 2), np.float32)
            both[position] = models.test[name][:, k][:, outer]
            both[np.searchsorted(rows, unknown)] = later[name][:, k][:, outer]
            column = dataset.target.names.index(models.labels[k])
            chosen = scorer.cutoffs(models.validation[name][:, k], y[split.validation, column])
            values.append(both)
            cutoffs.append((chosen["buy"], chosen["sell"]))
        names = tuple((name, *_label(dataset, models.labels[k])) for k, name in keys)
        windows.append(Said(models.group, rows, names, np.stack(values, axis=1), tuple(cutoffs), learned_until))
    return windows


def _predict(
    context: TrainingContext, models: GroupModels, dataset: Dataset, rows: np.ndarray
) -> dict[str, np.ndarray]:
    """Predictions of each estimator, float32 (n_rows, n_targets, n_outputs) on the host, computed as in training."""
    from threadpoolctl import threadpool_limits

    if not len(rows):
        shape = (0, len(models.labels), dataset.target.n_outputs)
        return {name: np.empty(shape, np.float32) for name in models.models}
    view = RowView(dataset, rows)
    predictions: dict[str, np.ndarray] = {}
    with threadpool_limits(1, "blas"):
        for name, fitted in models.models.items():
            if name == context.stacking:
                predictions[name] = predict_stack(fitted, predictions, context.device)
            else:
                predicted: Any = columns.predict_view(registry.estimator(name), fitted, view)
                predictions[name] = context.device.to_host(predicted)
    return predictions


def _label(dataset: Dataset, label: str) -> tuple[int, float]:
    parameters = dataset.target.parameters[dataset.target.names.index(label)]
    return int(parameters["horizon"]), float(parameters["threshold"])


def _by_horizon(dataset: Dataset, labels: Sequence[str]) -> list[int]:
    return sorted(range(len(labels)), key=lambda k: _label(dataset, labels[k]))
