"""A small problem for estimators, and how training fits them: on all groups, then on each."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from gpupipe.config import Config
from gpupipe.dataset.feature_rows import FeatureRows
from gpupipe.dataset.row_view import RowView
from gpupipe.estimators import columns, registry
from gpupipe.estimators.contract import Estimator
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.runtime.device import pick
from gpupipe.workloads import equity
from tests.support.tiny import fold_of, planted

CPU = pick("cpu")
# Optional families that boost trees; each has the name of its package.
BOOSTERS = tuple(name for name in registry.optional() if registry.estimator(name).extra == "boosters")
OPTIONAL = [
    pytest.param(name, marks=pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed"))
    for name in BOOSTERS
]
both = pytest.mark.skipif(
    any(find_spec(name) is None for name in BOOSTERS), reason="lightgbm and catboost are not both there"
)
FAMILIES = [*(name for name in equity.DEFAULT_MODELS if name != "meta_learner"), *OPTIONAL]
SETTINGS = equity.make("fast", settings=[
    "joint.rounds=40", "joint_sector.rounds=8", "hist.rounds=40", "leafwise.rounds=40", "forest.trees=20",
    "forest.sector_trees=10", "forest.subsample=0.5", "linear.l2=300", "linear.sector_l2=1000", "lightgbm.rounds=40",
    "catboost.rounds=40",
])  # fmt: skip


@functools.cache
def world(
    class_weight: str = "none",
    sectors: tuple[str, ...] = ("a", "b", "c"),
    base: tuple[float, ...] = (-1.2, 0.0, -1.2),
) -> tuple[TrainingSet, dict[str, RowView], dict[str, np.ndarray]]:
    """(training set, test rows of each sector, their true probabilities); sector c's signal is twice as strong."""
    shift = {"a": 0.0, "b": 0.0, "c": 1.2}
    fit = {s: planted(1500, k, shift[s], base=base)[0] for k, s in enumerate(sectors)}
    validation = {s: planted(700, 10 + k, shift[s], base=base)[0] for k, s in enumerate(sectors)}
    tests = {s: planted(1500, 20 + k, shift[s], base=base) for k, s in enumerate(sectors)}
    training_set = fold_of(fit, validation, class_weight)
    return training_set, {s: rows for s, (rows, _) in tests.items()}, {s: truth for s, (_, truth) in tests.items()}


def fit_pool(
    name: str, training_set: TrainingSet, settings: Config, frozen: Any = None, estimator: Estimator | None = None
) -> list[Any]:
    """The pooled models. frozen: the final fit's; estimator: one that starts from earlier models, if it does."""
    fitted = estimator or registry.estimator(name)
    return columns.fit_pool(fitted, training_set, registry.readable(settings, name), frozen)


def fit_group(
    name: str,
    training_set: TrainingSet,
    group: str,
    settings: Config,
    pooled: Sequence[Any],
    frozen: Any = None,
    estimator: Estimator | None = None,
) -> list[Any]:
    """The models of one group; see `fit_pool`."""
    fitted = estimator or registry.estimator(name)
    return columns.fit_group(fitted, training_set, group, registry.readable(settings, name), pooled, frozen)


def fit_all(
    name: str, training_set: TrainingSet, settings: Config, frozen: Any = None, estimator: Estimator | None = None
) -> tuple[list[Any], dict[str, list[Any]]]:
    """(pooled models, models by group); frozen: the final fit's, such a pair."""
    pooled_choices, choices = frozen or (None, {})
    pooled = fit_pool(name, training_set, settings, pooled_choices, estimator)
    return pooled, {
        group: fit_group(name, training_set, group, settings, pooled, choices.get(group), estimator)
        for group in training_set.groups
    }


@functools.cache
def fitted(name: str) -> tuple[list[Any], dict[str, list[Any]]]:
    """`fit_all` on the training set of `world`."""
    return fit_all(name, world()[0], SETTINGS)


def predict(name: str, models: Sequence[Any], X: Any) -> Any:
    """Predictions (n_rows, n_models, n_outputs) of models of one estimator and group, from all columns."""
    return columns.predict(registry.estimator(name), models, FeatureRows.of_matrix(X))


def predict_model(name: str, model: Any, X: Any) -> Any:
    """Predictions (n_rows, n_outputs) of one model."""
    return predict(name, [model], X)[:, 0]


def log_loss(probability: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The mean of each label, float64 (n_labels,)."""
    chosen = np.take_along_axis(probability, y.astype(np.int64)[:, :, None], axis=2)[:, :, 0]
    return -np.log(chosen.astype(np.float64)).mean(axis=0)


def as_bytes(models: Sequence[Any]) -> list[Any]:
    """What is published of each model, to compare."""
    return [model and (model.describe(), model.files()) for model in models]
