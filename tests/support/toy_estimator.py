"""The shortest estimator of classes: their shares among the rows with the same sign of one feature.

With the line of `PLACE` in `gpupipe.estimators.registry.ESTIMATORS`, `--models toy_signs` trains it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.config import Section
from gpupipe.dataset.feature_rows import FeatureRows
from gpupipe.dataset.row_view import RowView
from gpupipe.estimators.contract import Estimator, EstimatorSettings
from gpupipe.estimators.training_set import TrainingSet

PLACE = "tests.support.toy_estimator:SignShares"
N_CELLS = 3  # below zero, zero or above, missing


@dataclass(frozen=True)
class SignSettings:
    """Which column is looked at, and how many rows with the shares of all groups a group's rows are added to."""

    column: int = 0
    pseudo_rows: float = 100.0


@dataclass(frozen=True)
class SignModel:
    """shares: float64 (3, n_classes), of the classes in each cell of the column."""

    column: int
    shares: np.ndarray
    scope: str

    def files(self) -> dict[str, bytes]:
        """The shares as JSON."""
        return {".signs.json": json.dumps(self.shares.tolist()).encode()}

    def describe(self) -> dict[str, Any]:
        """The kind, which names the estimator that loads it, and the column."""
        return {"kind": "toy_signs", "scope": self.scope, "column": self.column}


class SignShares(Estimator):
    """Class shares by the sign of one column, those of a group drawn towards those of all groups."""

    name = "toy_signs"
    short_name = "signs"
    sections = {"toy_signs": Section(SignSettings, presets={"quality": SignSettings(pseudo_rows=1000.0)})}
    model_kinds = ("toy_signs",)
    chart_style = ("m7", "wedge", (2, 1))

    def fit_pool(
        self, training_set: TrainingSet, settings: EstimatorSettings, frozen_choices: Sequence[Any] | None
    ) -> list[SignModel]:
        """A model for each target, of the rows of all groups."""
        column, n_classes = settings.toy_signs.column, training_set.target.n_classes
        counts = sum(_counts(rows, column, n_classes) for rows in training_set.fit.values()) + 0.5
        return [SignModel(column, _shares(cells), training_set.pool_scope) for cells in counts]

    def fit_group(
        self,
        training_set: TrainingSet,
        group: str,
        settings: EstimatorSettings,
        pooled: Sequence[SignModel],
        frozen_choices: Sequence[Any] | None,
    ) -> list[SignModel]:
        """A model for each target, of the group's rows and of `pseudo_rows` with the pooled shares in each cell."""
        section = settings.toy_signs
        counts = _counts(training_set.fit[group], section.column, training_set.target.n_classes)
        return [
            SignModel(section.column, _shares(cells + section.pseudo_rows * model.shares), "sector")
            for cells, model in zip(counts, pooled, strict=True)
        ]

    def predict(self, models: Sequence[SignModel], rows: FeatureRows) -> Any:
        """Probabilities float32 (n_rows, n_models, n_classes)."""
        X, device = rows.X, rows.device
        return device.xp.stack(
            [
                device.asarray(model.shares.astype(np.float32))[_cells(X[:, model.column], device.xp)]
                for model in models
            ],
            axis=1,
        )

    def load(self, files: dict[str, bytes], description: dict[str, Any], boosters: dict[bytes, Any]) -> SignModel:
        """The model again."""
        return SignModel(description["column"], np.array(json.loads(files[".signs.json"])), description["scope"])


def _cells(values: Any, xp: Any) -> Any:
    """int64 (n,): the cell of each value."""
    return xp.where(xp.isnan(values), 2, values >= 0)


def _counts(rows: RowView, column: int, n_classes: int) -> np.ndarray:
    """float64 (n_targets, 3, n_classes): known rows in each cell and class."""
    X, y = rows.device.to_host(rows.X[:, column]), rows.device.to_host(rows.y)
    cells = _cells(X, np)[:, None] * n_classes + y
    counts = [np.bincount(cells[known, k], minlength=N_CELLS * n_classes) for k, known in enumerate((y >= 0).T)]
    return np.stack(counts).reshape(-1, N_CELLS, n_classes).astype(np.float64)


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / counts.sum(axis=-1, keepdims=True)
