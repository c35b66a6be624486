"""The contract of an estimator that learns from the other estimators' out-of-fold predictions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gpupipe.dataset.feature_rows import FeatureRows
from gpupipe.estimators.contract import Estimator, EstimatorSettings, Model
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.runtime.device import Device


class StackedModel(Model, Protocol):
    """A fitted model that predicts from the predictions of other estimators.

    families: names of these estimators, in the order in which `predict` takes their predictions.

        >>> import numpy as np
        >>> from gpupipe.estimators.linear.softmax_regression import Weights
        >>> from gpupipe.estimators.stacking.meta_learner import MetaModel
        >>> from gpupipe.runtime.device import pick
        >>> model: StackedModel = MetaModel(("linear",), Weights(np.zeros((2, 3)), np.zeros(3)))
        >>> model.predict([np.full((1, 3), 1 / 3, np.float32)], pick("cpu")).round(3).tolist()
        [[0.3330000042915344, 0.3330000042915344, 0.3330000042915344]]
    """

    @property
    def families(self) -> tuple[str, ...]:
        """Names of the estimators whose predictions it reads."""
        ...

    def predict(self, probabilities: Sequence[Any], device: Device) -> Any:
        """Predictions float32 (n_rows, n_outputs), from those of each estimator."""
        ...


class StackingEstimator(Estimator):
    """An estimator that is fitted on predictions instead of rows; its models have `predict(predictions, device)`.

    >>> from gpupipe.estimators import registry
    >>> [(item.name, item.stacks) for item in registry.estimators() if isinstance(item, StackingEstimator)]
    [('meta_learner', True)]
    """

    stacks = True

    @abstractmethod
    def fit_stack(
        self,
        families: tuple[str, ...],
        predictions: Mapping[str, Any],
        y: Mapping[str, Any],
        settings: EstimatorSettings,
        device: Device,
    ) -> Mapping[str, Sequence[StackedModel]]:
        """Models for each group and target.

        families: names of the other estimators, in the order of the predictions.
        predictions: for each group float32 (n_families, n_rows, n_targets, n_outputs), out of fold.
        y: for each group (n_rows, n_targets).
        """

    def fit_pool(
        self, training_set: TrainingSet, settings: EstimatorSettings, frozen_choices: Sequence[Any] | None
    ) -> Sequence[Model]:
        """Not for this kind of estimator."""
        raise TypeError(f"{self.name} is fitted on predictions: call fit_stack")

    def fit_group(
        self,
        training_set: TrainingSet,
        group: str,
        settings: EstimatorSettings,
        pooled: Sequence[Any],
        frozen_choices: Sequence[Any] | None,
    ) -> Sequence[Model]:
        """Not for this kind of estimator."""
        raise TypeError(f"{self.name} is fitted on predictions: call fit_stack")

    def predict(self, models: Sequence[Any], rows: FeatureRows) -> Any:
        """Not for this kind of estimator."""
        raise TypeError(f"{self.name} predicts from predictions: call its models' predict")
