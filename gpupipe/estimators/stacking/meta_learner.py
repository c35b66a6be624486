"""meta_learner: softmax regression on what the other families say out of fold, pulled to their plain average."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe import config
from gpupipe.estimators.boosting import tree_model
from gpupipe.estimators.linear import softmax_regression
from gpupipe.estimators.linear.softmax_regression import Weights
from gpupipe.runtime.device import Device
from gpupipe.targets.classes import BUY, HOLD, N_CLASSES, SELL

LARGEST_LOG_ODDS = 15.0


@dataclass(frozen=True)
class MetaModel:
    """Probabilities of one label from those of `families`.

    inputs: "log_odds", with coefficients (2 * n_families, 3), or "probabilities" (3 * n_families, 3); intercept (3,).
    """

    families: tuple[str, ...]
    weights: Weights
    inputs: str = "log_odds"

    def predict(self, probabilities: Sequence[Any], device: Device) -> Any:
        """float32 (n_rows, 3), of each family's probabilities float32 (n_rows, 3), in the order of `families`."""
        margin = self.weights.margin_of_rows(columns(self.inputs, probabilities, device), device)
        return tree_model.to_probability(margin, "softmax", np.ones(N_CLASSES, np.float32), device)

    def files(self) -> dict[str, bytes]:
        """What to write: `.npz`, numpy arrays without objects."""
        buffer = io.BytesIO()
        np.savez(buffer, coefficients=self.weights.coefficients, intercept=self.weights.intercept)
        return {".npz": buffer.getvalue()}

    def describe(self) -> dict[str, Any]:
        """What `from_files` needs beside the files."""
        return {"kind": "meta", "families": list(self.families), "inputs": self.inputs}

    @classmethod
    def from_files(cls, files: dict[str, bytes], about: dict[str, Any]) -> MetaModel:
        """The model again."""
        with np.load(io.BytesIO(files[".npz"]), allow_pickle=False) as saved:
            weights = Weights(saved["coefficients"], saved["intercept"])
        return cls(tuple(about["families"]), weights, about.get("inputs", "log_odds"))


def columns(inputs: str, probabilities: Sequence[Any], device: Device) -> Any:
    """What is learned from: float32 (n_rows, 2 * n_families) of log-odds, or (n_rows, 3 * n_families)."""
    if inputs == "probabilities":
        return device.xp.ascontiguousarray(device.xp.concatenate(list(probabilities), axis=1))
    return log_odds(probabilities, device)


def log_odds(probabilities: Sequence[Any], device: Device) -> Any:
    """float32 (n_rows, 2 * n_families): of SELL against HOLD, then of BUY against HOLD, for each family."""
    xp = device.xp
    columns = []
    for probability in probabilities:
        log = xp.log(xp.maximum(probability, tree_model.SMALLEST_PROBABILITY))
        columns += [log[:, SELL] - log[:, HOLD], log[:, BUY] - log[:, HOLD]]
    return xp.clip(xp.stack(columns, axis=1), -LARGEST_LOG_ODDS, LARGEST_LOG_ODDS).astype(xp.float32)


def _centre(inputs: str, n_families: int) -> Weights:
    if inputs == "probabilities":
        return Weights(np.zeros((N_CLASSES * n_families, N_CLASSES)), np.zeros(N_CLASSES))
    return average(n_families)


def average(n_families: int) -> Weights:
    """The weights that average the families' log-odds: where learning starts, and where it stays without evidence."""
    coefficients = np.zeros((2 * n_families, N_CLASSES))
    coefficients[0::2, SELL] = coefficients[1::2, BUY] = 1.0 / n_families
    return Weights(coefficients, np.zeros(N_CLASSES))


def fit(
    families: tuple[str, ...], probabilities: Mapping[str, Any], y: dict[str, Any], settings: config.Meta,
    device: Device,
) -> dict[str, list[MetaModel]]:  # fmt: skip
    """One model for each sector and label, from out-of-fold probabilities; all labels are one batch.

    probabilities: for each sector float32 (n_families, n_rows, n_labels, 3); y: int8 (n_rows, n_labels).
    Pooled over all sectors first; each sector's weights are then pulled to the pooled ones, and are these where a
    sector has no rows.
    """
    sectors = tuple(probabilities)
    seen = [s for s in sectors if y[s].shape[0]]
    n_labels = next(iter(y.values())).shape[1]
    ones = np.ones((n_labels, N_CLASSES), np.float32)

    def inputs(sector: str) -> Any:
        of_sector = probabilities[sector]
        by_label = [[family[:, k] for family in of_sector] for k in range(n_labels)]
        return device.xp.stack([columns(settings.inputs, said, device) for said in by_label])

    Z = {s: inputs(s) for s in sectors}
    pooled = softmax_regression.together([_centre(settings.inputs, len(families))] * n_labels)
    if seen:
        pooled = softmax_regression.fit(
            [Z[s] for s in seen], [y[s] for s in seen], ones, pooled, settings.l2, settings.max_iterations, device,
            0.0 if settings.inputs == "probabilities" else None,
        )  # fmt: skip
    models = {}
    for s in sectors:
        own = pooled
        if len(sectors) > 1 and s in seen:
            own = softmax_regression.fit(
                [Z[s]], [y[s]], ones, pooled, settings.sector_l2, settings.max_iterations, device
            )
        parts = [softmax_regression.label_columns(own, k) for k in range(n_labels)]
        models[s] = [MetaModel(families, part, settings.inputs) for part in parts]
    return models
