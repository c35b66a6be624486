"""meta_learner: softmax regression on the other estimators' out-of-fold predictions, pulled to their plain average."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.config import Section
from gpupipe.estimators import arithmetic, onnx_graph
from gpupipe.estimators.boosting import tree_model
from gpupipe.estimators.contract import NPZ, EstimatorSettings
from gpupipe.estimators.linear import softmax_regression
from gpupipe.estimators.linear.softmax_regression import RegressionRows, Weights
from gpupipe.estimators.onnx_graph import OnnxGraph
from gpupipe.estimators.stacking.contract import StackingEstimator
from gpupipe.estimators.three_classes import CLASS_COUNT, LOWER, MIDDLE, UPPER
from gpupipe.runtime.device import Device
from gpupipe.runtime.placement import SAME_BITS

LARGEST_LOG_ODDS = 15.0
AGAINST_MIDDLE = np.zeros((CLASS_COUNT, 2), np.float32)  # lower - middle, upper - middle
AGAINST_MIDDLE[(LOWER, UPPER), (0, 1)], AGAINST_MIDDLE[MIDDLE] = 1, -1


@dataclass(frozen=True)
class Meta:
    """Softmax regression on out-of-fold log-odds, pulled to the families' plain average.

    inputs "probabilities": multinomial logistic regression on the three probabilities of each family, pulled to 0.

        >>> Meta().l2, Meta(inputs="margins").problem()
        (200.0, ('inputs', 'log_odds or probabilities'))
    """

    inputs: str = "log_odds"
    l2: float = 200.0
    sector_l2: float = 2000.0
    max_iterations: int = 100

    def problem(self) -> tuple[str, str] | None:
        """The field that cannot be used, and what is expected of it."""
        known = self.inputs in ("log_odds", "probabilities")
        return None if known else ("inputs", "log_odds or probabilities")


@dataclass(frozen=True)
class MetaModel:
    """Probabilities of one target from those of `families`.

    inputs: "log_odds", with coefficients (2 * n_families, 3), or "probabilities" (3 * n_families, 3); intercept (3,).

        >>> from gpupipe.runtime.device import pick
        >>> model = MetaModel(("xgb_joint", "linear"), average(2))
        >>> model.predict([np.float32([[0.2, 0.5, 0.3]]), np.float32([[0.3, 0.5, 0.2]])], pick("cpu")).round(3)
        array([[0.247, 0.505, 0.247]], dtype=float32)
    """

    families: tuple[str, ...]
    weights: Weights
    inputs: str = "log_odds"
    scope: str = "sector"

    def predict(self, probabilities: Sequence[Any], device: Device) -> Any:
        """float32 (n_rows, 3), of each family's probabilities float32 (n_rows, 3), in the order of `families`."""
        margin = self.weights.margin_of_rows(columns(self.inputs, probabilities, device), device)
        return tree_model.to_probability(margin, "softmax", np.ones(CLASS_COUNT, np.float32), device)

    def files(self) -> dict[str, bytes]:
        """One `.npz` file, numpy arrays without objects."""
        buffer = io.BytesIO()
        np.savez(buffer, coefficients=self.weights.coefficients, intercept=self.weights.intercept)
        return {".npz": buffer.getvalue()}

    def describe(self) -> dict[str, Any]:
        """What `from_files` needs in addition to the file."""
        return {"kind": "meta", "families": list(self.families), "inputs": self.inputs}

    @classmethod
    def from_files(cls, files: dict[str, bytes], description: dict[str, Any]) -> MetaModel:
        """The model again."""
        with np.load(io.BytesIO(files[".npz"]), allow_pickle=False) as saved:
            weights = Weights(saved["coefficients"], saved["intercept"])
        return cls(tuple(description["families"]), weights, description.get("inputs", "log_odds"))


def columns(inputs: str, probabilities: Sequence[Any], device: Device) -> Any:
    """What is learned from: float32 (n_rows, 2 * n_families) of log-odds, or (n_rows, 3 * n_families)."""
    if inputs == "probabilities":
        return device.xp.ascontiguousarray(device.xp.concatenate(list(probabilities), axis=1))
    return log_odds(probabilities, device)


def log_odds(probabilities: Sequence[Any], device: Device) -> Any:
    """float32 (n_rows, 2 * n_families): of the lower against the middle class, then of the upper, for each family."""
    xp = device.xp
    odds = []
    for probability in probabilities:
        log = arithmetic.log(xp.maximum(probability, np.float32(tree_model.SMALLEST_PROBABILITY)), device)
        odds += [log[:, LOWER] - log[:, MIDDLE], log[:, UPPER] - log[:, MIDDLE]]
    return xp.clip(xp.stack(odds, axis=1), -LARGEST_LOG_ODDS, LARGEST_LOG_ODDS).astype(xp.float32)


def _centre(inputs: str, n_families: int) -> Weights:
    if inputs == "probabilities":
        return Weights(np.zeros((CLASS_COUNT * n_families, CLASS_COUNT)), np.zeros(CLASS_COUNT))
    return average(n_families)


def average(n_families: int) -> Weights:
    """The weights that average the families' log-odds: where learning starts, and where it stays without evidence."""
    coefficients = np.zeros((2 * n_families, CLASS_COUNT))
    coefficients[0::2, LOWER] = coefficients[1::2, UPPER] = 1.0 / n_families
    return Weights(coefficients, np.zeros(CLASS_COUNT))


class MetaLearner(StackingEstimator):
    """Combines the other estimators of a group, pulled to weights that all groups share.

    >>> from gpupipe.estimators import registry
    >>> from gpupipe.runtime.device import pick
    >>> from gpupipe.workloads import equity
    >>> predictions = {"energy": np.float32([[[[0.2, 0.5, 0.3]]], [[[0.3, 0.5, 0.2]]]])}  # of two families, one row
    >>> settings = registry.readable(equity.make("fast"), "meta_learner")
    >>> y = {"energy": np.int8([[2]])}
    >>> models = MetaLearner().fit_stack(("xgb_joint", "linear"), predictions, y, settings, pick("cpu"))
    >>> models["energy"][0].weights.coefficients.round(2).tolist()
    [[0.5, 0.0, -0.0], [0.0, 0.0, 0.5], [0.5, 0.0, -0.0], [0.0, 0.0, 0.5]]
    """

    name = "meta_learner"
    short_name = "meta"
    sections = {"meta": Section(Meta)}
    judged = True
    chart_style = ("m2", "diamond", (6, 2))
    first_cost_us = (3.0, 3.0)
    on_host = SAME_BITS
    kernels = (
        "elementary.logarithms", "linear.linear_margin", "softmax.softmax_gradient", "softmax.softmax_log_loss",
        "softmax.softmax_probability",
    )  # fmt: skip
    model_kinds = ("meta",)
    file_forms = NPZ

    def fit_stack(
        self,
        families: tuple[str, ...],
        predictions: Mapping[str, Any],
        y: Mapping[str, Any],
        settings: EstimatorSettings,
        device: Device,
    ) -> dict[str, list[MetaModel]]:
        """One model for each group and target, from out-of-fold probabilities; all targets are one batch.

        Pooled over all groups first; each group's weights are then pulled to the pooled ones, and are these where a
        group has no rows.
        """
        section: Meta = settings.meta
        groups = tuple(predictions)
        with_rows = [group for group in groups if y[group].shape[0]]
        n_targets = next(iter(y.values())).shape[1]
        ones = np.ones((n_targets, CLASS_COUNT), np.float32)

        def inputs(group: str) -> Any:
            group_predictions = predictions[group]
            by_target = [[family[:, k] for family in group_predictions] for k in range(n_targets)]
            return device.xp.stack([columns(section.inputs, probabilities, device) for probabilities in by_target])

        Z = {group: inputs(group) for group in groups}
        pooled = softmax_regression.together([_centre(section.inputs, len(families))] * n_targets)
        if with_rows:
            rows = RegressionRows([Z[group] for group in with_rows], [y[group] for group in with_rows], ones)
            free_intercept = 0.0 if section.inputs == "probabilities" else None
            pooled = softmax_regression.fit(rows, pooled, section.l2, section.max_iterations, device, free_intercept)
        models = {}
        for group in groups:
            weights = pooled
            if len(groups) > 1 and group in with_rows:
                rows = RegressionRows([Z[group]], [y[group]], ones)
                weights = softmax_regression.fit(rows, pooled, section.sector_l2, section.max_iterations, device)
            parts = [softmax_regression.target_columns(weights, k) for k in range(n_targets)]
            models[group] = [MetaModel(families, part, section.inputs) for part in parts]
        return models

    def load(self, files: dict[str, bytes], description: dict[str, Any], boosters: dict[bytes, Any]) -> MetaModel:
        """A saved model again."""
        return MetaModel.from_files(files, description)

    def to_onnx(self, model: MetaModel, graph: OnnxGraph) -> str:
        """The softmax of the products of the other estimators' predictions, which become a part of the graph."""
        inputs = [graph.prediction_of(family) for family in model.families]
        if model.inputs == "log_odds":
            smallest = np.float32(tree_model.SMALLEST_PROBABILITY)
            logs = [graph.add("Log", [graph.add("Max", [probability, smallest])]) for probability in inputs]
            inputs = [graph.add("MatMul", [log, AGAINST_MIDDLE]) for log in logs]
        columns = graph.add("Concat", inputs, axis=1)
        if model.inputs == "log_odds":
            largest = np.float32(LARGEST_LOG_ODDS)
            columns = graph.add("Clip", [columns, -largest, largest])
        margin = onnx_graph.linear(graph, columns, model.weights.coefficients, model.weights.intercept)
        return onnx_graph.softmax(graph, margin, np.ones(CLASS_COUNT, np.float32))

    def fit_bytes(self, shape: Any, settings: Any, sparing: bool) -> float:
        """The inputs of all groups, and what a step over the largest group makes."""
        n_families = len(settings.training.models) - 1
        inputs = 4.0 * shape.fit * shape.n_targets * 3 * n_families
        step = shape.fit * shape.largest * shape.n_targets * (12 * n_families + 60)
        return inputs + shape.fit * shape.n_targets * 9 + step
