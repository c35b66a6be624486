"""Estimators fitted as training fits them: on all groups, then on each, with models that take all columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpupipe.config import Config
from gpupipe.estimators import columns, registry
from gpupipe.estimators.contract import Estimator
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.runtime.device import pick

CPU = pick("cpu")


def fit_pool(
    name: str, training_set: TrainingSet, settings: Config, frozen: Any = None, fitted: Estimator | None = None
) -> list[Any]:
    """The pooled models. frozen: the final ones; fitted: the estimator, where it is another than the registry's."""
    estimator = fitted or registry.estimator(name)
    return columns.fit_pool(estimator, training_set, registry.readable(settings, name), frozen)


def fit_group(
    name: str,
    training_set: TrainingSet,
    group: str,
    settings: Config,
    pooled: Sequence[Any],
    frozen: Any = None,
    fitted: Estimator | None = None,
) -> list[Any]:
    """The models of one group; see `fit_pool`."""
    estimator = fitted or registry.estimator(name)
    return columns.fit_group(estimator, training_set, group, registry.readable(settings, name), pooled, frozen)


def fit_all(
    name: str, training_set: TrainingSet, settings: Config, frozen: Any = None, fitted: Estimator | None = None
) -> tuple[list[Any], dict[str, list[Any]]]:
    """(pooled models, models by group); frozen: the final fit's, such a pair."""
    pooled_choices, choices = frozen or (None, {})
    pooled = fit_pool(name, training_set, settings, pooled_choices, fitted)
    return pooled, {
        group: fit_group(name, training_set, group, settings, pooled, choices.get(group), fitted)
        for group in training_set.groups
    }


def predict(name: str, models: Sequence[Any], X: Any) -> Any:
    """Predictions (n_rows, n_models, n_outputs) of models of one estimator and group, of all columns."""
    return columns.predict(registry.estimator(name), models, X, CPU)


def predict_model(name: str, model: Any, X: Any) -> Any:
    """Predictions (n_rows, n_outputs) of one model."""
    return predict(name, [model], X)[:, 0]
