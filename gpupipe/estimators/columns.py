"""Fitting and predicting with some of the columns: those selected, and for trees without twins."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.dataset.feature_rows import FeatureRows
from gpupipe.estimators.boosting import binned_matrix, gradient_boosting
from gpupipe.estimators.boosting.gradient_boosting import Objective, Stopping, target_scale
from gpupipe.estimators.boosting.settings import Booster
from gpupipe.estimators.contract import Estimator, EstimatorSettings, Model
from gpupipe.estimators.training_set import TrainingSet, tile
from gpupipe.runtime.device import Device, pick

log = logging.getLogger("gpupipe")

QUICK = Booster(rounds=50, learning_rate=0.1, depth=4, min_child_weight=50.0, l2=50.0)


@dataclass(frozen=True)
class ColumnSubsetModel:
    """A model of some columns, which takes the whole feature matrix and picks them. columns: int64, ascending.

    >>> from gpupipe.estimators.boosting.tree_model import TreeModel
    >>> model = TreeModel((), np.zeros(3, np.float32), "softmax", np.ones(3, np.float32), "pool")
    >>> subset_model = ColumnSubsetModel(np.array([0, 4]), model)
    >>> subset_model.scope, subset_model.describe()["columns"]
    ('pool', [0, 4])
    """

    columns: np.ndarray
    model: Any

    @property
    def scope(self) -> str:
        """The model's."""
        return self.model.scope

    def files(self) -> dict[str, bytes]:
        """The model's."""
        return self.model.files()

    def describe(self) -> dict[str, Any]:
        """The model's, and the numbers of its columns."""
        return {**self.model.describe(), "columns": self.columns.tolist()}


def seen_by(estimator: Estimator, training_set: TrainingSet, device: Device | None = None) -> TrainingSet:
    """The training set that an estimator is fitted on: for trees without columns whose bins repeat another's.

    device: where it is fitted; the training set's if None. The columns are the same on every device: those of trees are
        chosen on the host's copy of the rows.
    """
    if device is None:
        return binned_matrix.without_twins(training_set) if estimator.uses_bins else training_set
    if not estimator.uses_bins:
        return training_set.on(device)
    return binned_matrix.without_twins(training_set.on(pick("cpu"))).on(device)


def fit_pool(
    estimator: Estimator,
    training_set: TrainingSet,
    settings: EstimatorSettings,
    frozen_choices: Sequence[Model | None] | None,
    device: Device | None = None,
) -> list[Any]:
    """The pooled models of an estimator, which take the whole feature matrix.  device: see `seen_by`."""
    seen = seen_by(estimator, training_set, device)
    earlier = estimator.earlier
    if earlier and not earlier.has_columns(seen.columns):
        log.warning(
            "%s is trained from nothing: it is fitted on other columns than the earlier run's (%s of them, there "
            "%s), as other ones are selected or repeat others in these data; nothing needs to be mended",
            estimator.name,
            *("all" if columns is None else len(columns) for columns in (seen.columns, earlier.columns)),
        )
    models = _starting(estimator, seen).fit_pool(seen, settings, unwrap(frozen_choices))
    return wrap(models, seen.columns)


def fit_group(
    estimator: Estimator,
    training_set: TrainingSet,
    group: str,
    settings: EstimatorSettings,
    pooled: Sequence[Model | None],
    frozen_choices: Sequence[Model | None] | None,
    device: Device | None = None,
) -> list[Any]:
    """The models of a group, which take the whole feature matrix.  device: see `seen_by`."""
    seen = seen_by(estimator, training_set, device)
    models = _starting(estimator, seen).fit_group(seen, group, settings, unwrap(pooled) or [], unwrap(frozen_choices))
    return wrap(models, seen.columns)


def _starting(estimator: Estimator, seen: TrainingSet) -> Estimator:
    """The estimator; without its earlier models where these were fitted on other columns."""
    if estimator.earlier is None or estimator.earlier.has_columns(seen.columns):
        return estimator
    return estimator.from_nothing()


def predict(estimator: Estimator, models: Sequence[Model | None], rows: FeatureRows) -> Any:
    """Predictions float32 (n_rows, n_models, n_outputs) of models of one estimator and group.

    rows: with all columns of the feature matrix.
    """
    columns = [model.columns for model in models if isinstance(model, ColumnSubsetModel)]
    if not columns:
        return estimator.predict(models, rows)
    # Models of one estimator and group come from one training set, and so have the same columns.
    assert len(columns) == len(models) and all((other == columns[0]).all() for other in columns)
    return estimator.predict(unwrap(models) or [], rows.take_columns(columns[0]))


def make_shared(
    estimators: Sequence[Estimator], training_set: TrainingSet, settings: Any, device: Device | None = None
) -> None:
    """Make what pooled fits of these estimators share of a training set, so that they find it: bins, twins, samples.

    device: see `seen_by`.
    """
    for estimator in estimators:
        if not estimator.uses_bins:
            continue
        seen = seen_by(estimator, training_set, device)
        bins = binned_matrix.binned(seen)
        _ = bins.cut_points
        if estimator.pooled_sample and not training_set.ml.gradient_sampling:  # which draws rows anew
            bins.samples(getattr(settings, estimator.pooled_sample).subsample)


def top_columns(training_set: TrainingSet, n: int) -> np.ndarray:
    """The n columns with the largest total gain in fifty shallow trees of all targets and groups, int64, ascending.

    Only fitted rows are used: neither validation nor, in an out-of-fold fit, the part that is predicted.
    Columns that no tree uses are left out, so there may be fewer than n.
    """
    bias = np.log(training_set.shares()).astype(np.float32).ravel()
    n_targets = training_set.n_targets
    objective = Objective(
        range(n_targets), lambda rows: tile(bias, rows), training_set.weights(), target_scale(training_set)
    )
    boosted = gradient_boosting.boost(training_set, None, objective, QUICK, Stopping(0, [QUICK.rounds] * n_targets))
    scores = boosted.booster.get_score(importance_type="total_gain")
    gains = np.zeros(training_set.n_columns)
    for name, score in scores.items():
        gains[int(name.removeprefix("f"))] = score
    best = np.argsort(-gains, kind="stable")[:n]
    return np.sort(best[gains[best] > 0])


def wrap(models: Sequence[Model | None], columns: np.ndarray | None) -> list[Any]:
    """Models that were fitted on these columns only, so that they pick them; as they are where it was all."""
    if columns is None:
        return list(models)
    return [None if model is None else ColumnSubsetModel(columns, model) for model in models]


def unwrap(models: Sequence[Model | None] | None) -> list[Any] | None:
    """The inverse of `wrap`; None stays None."""
    if models is None:
        return None
    return [model.model if isinstance(model, ColumnSubsetModel) else model for model in models]
