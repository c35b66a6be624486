"""The estimator of the toy workload: ridge regression of a value on the columns, fitted for each group alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gpupipe.config import Section
from gpupipe.dataset.feature_rows import FeatureRows
from gpupipe.estimators.contract import Estimator, EstimatorSettings
from gpupipe.estimators.training_set import TrainingSet


@dataclass(frozen=True)
class LineSettings:
    """The penalty on slopes, in rows."""

    l2: float = 1.0


@dataclass(frozen=True)
class LineModel:
    """weights: float64 (1 + n_columns,), the intercept first."""

    weights: np.ndarray
    scope: str = "sector"

    def files(self) -> dict[str, bytes]:
        """The weights as JSON."""
        return {".line.json": json.dumps(self.weights.tolist()).encode()}

    def describe(self) -> dict[str, Any]:
        """The kind, which names the estimator that loads it."""
        return {"kind": "toy_line", "scope": self.scope}


class Line(Estimator):
    """Ridge regression."""

    name: ClassVar = "toy_line"
    sections: ClassVar = {"toy_line": Section(LineSettings)}
    kinds: ClassVar = ("value",)
    model_kinds: ClassVar = ("toy_line",)

    def fit_pool(
        self, training_set: TrainingSet, settings: EstimatorSettings, frozen_choices: Sequence[Any] | None
    ) -> list[Any]:
        """None: every group is fitted alone."""
        return [None] * training_set.n_targets

    def fit_group(
        self,
        training_set: TrainingSet,
        group: str,
        settings: EstimatorSettings,
        pooled: Sequence[Any],
        frozen_choices: Sequence[Any] | None,
    ) -> list[Any]:
        """A model for each target."""
        rows = training_set.fit[group]
        X = np.column_stack([np.ones(rows.n), rows.X]).astype(np.float64)
        penalty = settings.toy_line.l2 * np.diag([0.0, *np.ones(X.shape[1] - 1)])
        weights = np.linalg.solve(X.T @ X + penalty, X.T @ rows.y)
        return [LineModel(weights[:, k]) for k in range(training_set.n_targets)]

    def predict(self, models: Sequence[Any], rows: FeatureRows) -> Any:
        """Values, float32 (n_rows, n_models, 1)."""
        weights = np.stack([model.weights for model in models], axis=1)
        return (weights[0] + rows.X @ weights[1:]).astype(np.float32)[:, :, None]

    def load(self, files: dict[str, bytes], description: dict[str, Any], boosters: dict[bytes, Any]) -> LineModel:
        """The model again."""
        return LineModel(np.array(json.loads(files[".line.json"])), description["scope"])
