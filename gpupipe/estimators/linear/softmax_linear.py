"""linear: softmax regression on scaled columns, all labels in one product, sector weights pulled to the pooled ones."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.config import Config, Section
from gpupipe.dataset.feature_rows import FeatureRows
from gpupipe.dataset.row_view import BLOCK_ROWS, whole
from gpupipe.estimators import onnx_graph
from gpupipe.estimators.boosting import tree_model
from gpupipe.estimators.contract import NPZ, Estimator, EstimatorSettings, Range, SearchSpace, Shape
from gpupipe.estimators.linear import softmax_regression
from gpupipe.estimators.linear.softmax_regression import RegressionRows, Weights
from gpupipe.estimators.onnx_graph import CriticalValues, OnnxGraph
from gpupipe.estimators.three_classes import CLASS_COUNT
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.evaluation.paired_test import clearly_better
from gpupipe.kernels.linear import scaled_margin
from gpupipe.kernels.softmax import softmax_log_loss
from gpupipe.runtime.device import Device
from gpupipe.runtime.placement import SAME_BITS, Size, Work


@dataclass(frozen=True)
class Linear:
    """Softmax regression; penalties are rows of pseudo-evidence on standardised columns for each nat of entropy.

    The entropy is that of a target's classes: rare events have little, and so a small penalty.

        >>> Linear(max_iterations=12).l2, Linear().sector_l2
        (28000.0, 8000.0)
    """

    l2: float = 28_000.0
    sector_l2: float = 8_000.0  # pulls a group's weights to the pooled ones
    max_iterations: int = 30
    clip: float = 4.0  # standardised columns are clipped at this many standard deviations


@dataclass(frozen=True)
class Scaler:
    """Columns to zero mean and unit variance, clipped; a missing value becomes 0 and raises its column's flag.

    mean, scale: float32 (n_features,) of the fitted rows.  flagged: int64, columns that had a missing value there.

        >>> from gpupipe.runtime.device import pick
        >>> scaler = Scaler(np.float32([1, 5]), np.float32([2, 1]), flagged=np.array([1]), clip=4.0)
        >>> scaler.n_inputs, scaler.transform(np.float32([[3, np.nan], [99, 5]]), pick("cpu")).tolist()
        (3, [[1.0, 0.0, 1.0], [4.0, 0.0, 0.0]])
    """

    mean: np.ndarray
    scale: np.ndarray
    flagged: np.ndarray
    clip: float

    @property
    def n_inputs(self) -> int:
        """Number of columns it makes."""
        return len(self.mean) + len(self.flagged)

    def transform(self, X: Any, device: Device) -> Any:
        """float32 (n_rows, n_features + n_flagged)."""
        xp, n = device.xp, X.shape[1]
        mean, scale, flagged = (device.asarray(values) for values in (self.mean, self.scale, self.flagged))
        Z = xp.empty((X.shape[0], self.n_inputs), dtype=xp.float32)
        for first in range(0, X.shape[0], BLOCK_ROWS):  # temporary arrays are as large as the block, or larger
            rows = slice(first, first + BLOCK_ROWS)
            scaled = (whole(X[rows]) - mean) / scale
            missing = xp.isnan(scaled)
            Z[rows, :n] = xp.where(missing, 0, xp.clip(scaled, -self.clip, self.clip))
            Z[rows, n:] = missing[:, flagged]
        return Z

    def margin(self, X: Any, weights: Weights, device: Device) -> Any:
        """float32 (n_rows, 3 * n_targets), of transform(X) without making it; a row's bits depend on that row alone."""
        flag = np.full(len(self.mean), -1, dtype=np.int64)
        flag[self.flagged] = len(self.mean) + np.arange(len(self.flagged))
        xp, asarray = device.xp, device.asarray
        margin = xp.empty((X.shape[0], len(weights.intercept)), dtype=xp.float32)
        scaled_margin(
            X.shape[0], xp.ascontiguousarray(X), asarray(self.mean), asarray(self.scale), np.float32(self.clip),
            asarray(flag), asarray(np.ascontiguousarray(weights.coefficients, dtype=np.float32)),
            asarray(weights.intercept.astype(np.float32)), margin,
        )  # fmt: skip
        return margin


@dataclass(frozen=True)
class Unscaled:
    """Columns that are scaled each time that they are read, where memory is short. X: see RowView.

    >>> from gpupipe.runtime.device import pick
    >>> scaler = Scaler(np.float32([1, 5]), np.float32([2, 1]), flagged=np.array([1]), clip=4.0)
    >>> Unscaled(scaler, np.float32([[3, np.nan]]), pick("cpu")).whole().tolist()
    [[1.0, 0.0, 1.0]]
    """

    scaler: Scaler
    X: Any
    device: Device
    ndim = 2

    def whole(self) -> Any:
        """float32 (n_rows, n_inputs)."""
        return self.scaler.transform(self.X, self.device)


@dataclass(frozen=True)
class LinearModel:
    """Probabilities of one target. weights: coefficients (n_inputs, 3), intercept (3,). scope: "pool" or "sector".

    >>> from gpupipe.runtime.device import pick
    >>> scaler = Scaler(np.zeros(1, np.float32), np.ones(1, np.float32), np.array([], int), clip=4.0)
    >>> weights = Weights(np.array([[-1.0, 0.0, 1.0]]), np.zeros(3))
    >>> model = LinearModel(scaler, weights, np.ones(3, np.float32), "pool")
    >>> predict_linear([model], np.float32([[0], [1]]), pick("cpu"))[:, 0].round(2)
    array([[0.33, 0.33, 0.33],
           [0.09, 0.24, 0.67]], dtype=float32)
    """

    scaler: Scaler
    weights: Weights
    class_weight: np.ndarray
    scope: str

    def files(self) -> dict[str, bytes]:
        """One `.npz` file, numpy arrays without objects."""
        buffer = io.BytesIO()
        np.savez(
            buffer, coefficients=self.weights.coefficients, intercept=self.weights.intercept, mean=self.scaler.mean,
            scale=self.scaler.scale, flagged=self.scaler.flagged, clip=np.float64(self.scaler.clip),
            class_weight=self.class_weight,
        )  # fmt: skip
        return {".npz": buffer.getvalue()}

    def describe(self) -> dict[str, Any]:
        """What `from_files` needs in addition to the file."""
        return {"kind": "linear", "scope": self.scope}

    @classmethod
    def from_files(cls, files: dict[str, bytes], description: dict[str, Any]) -> LinearModel:
        """The model again."""
        with np.load(io.BytesIO(files[".npz"]), allow_pickle=False) as saved:
            scaler = Scaler(saved["mean"], saved["scale"], saved["flagged"], float(saved["clip"]))
            return cls(
                scaler, Weights(saved["coefficients"], saved["intercept"]), saved["class_weight"], description["scope"]
            )


def predict_linear(models: Sequence[LinearModel], X: Any, device: Device) -> Any:
    """float32 (n_rows, n_models, 3): all models that share a scaler's values are one product."""
    xp = device.xp
    out = xp.empty((X.shape[0], len(models), CLASS_COUNT), dtype=xp.float32)
    by_scaler: dict[bytes, list[int]] = {}
    for k, model in enumerate(models):
        by_scaler.setdefault(model.scaler.mean.tobytes() + model.scaler.scale.tobytes(), []).append(k)
    for numbers in by_scaler.values():
        alike = [models[k] for k in numbers]
        margin = alike[0].scaler.margin(X, softmax_regression.together([model.weights for model in alike]), device)
        class_weight = np.concatenate([model.class_weight for model in alike])
        probability = tree_model.to_probability(margin, "softmax", class_weight, device)
        out[:, numbers] = probability.reshape(-1, len(alike), CLASS_COUNT)
    return out


class SoftmaxLinear(Estimator):
    """Softmax regression on scaled columns, pooled over groups, and a group's weights pulled to the pooled ones.

    >>> linear = SoftmaxLinear()
    >>> linear.sections["linear"].start("fast").max_iterations, linear.search.ranges(None)["l2"].low
    (12, 10.0)
    """

    name = "linear"
    sections = {"linear": Section(Linear, {"fast": Linear(max_iterations=12), "quality": Linear(max_iterations=100)})}
    search = SearchSpace("linear", lambda values: {"l2": Range(10.0, 1_000_000.0, log=True)}, pooled=True)
    chart_style = ("m6", "cross", (1, 3))
    first_cost_us = (7.0, 7.0)
    on_host = SAME_BITS
    kernels = (
        "linear.scaled_margin", "softmax.softmax_gradient", "softmax.softmax_log_loss", "softmax.softmax_probability",
    )  # fmt: skip
    model_kinds = ("linear",)
    file_forms = NPZ

    def fit_pool(
        self, training_set: TrainingSet, settings: EstimatorSettings, frozen_choices: Sequence[LinearModel] | None
    ) -> list[LinearModel]:
        """Scale by the fitted rows of all groups and fit all targets together: a model for each."""
        return self.search_pool(training_set, settings.linear)

    def search_pool(self, training_set: TrainingSet, section: Linear, *_: Any) -> list[LinearModel]:
        """The pooled models for these settings, which a search varies."""
        device = training_set.device
        blocks = list(training_set.fit.values())
        scaler = scaler_of([rows.X for rows in blocks], section.clip, device, training_set.total)
        intercept = np.log(training_set.shares() * training_set.weights()).ravel()
        centre = Weights(np.zeros((scaler.n_inputs, CLASS_COUNT * training_set.n_targets)), intercept)
        Z: list[Any] = [Unscaled(scaler, rows.X, device) for rows in blocks]
        if not training_set.saves_memory:
            Z = [block.whole() for block in Z]
        rows = RegressionRows(
            Z, [rows.y for rows in blocks], training_set.weights(), [rows.weight for rows in blocks], training_set.total
        )
        weights = softmax_regression.fit(
            rows, centre, section.l2 * entropy(training_set), section.max_iterations, device
        )
        return _models(training_set, scaler, weights, training_set.pool_scope)

    def fit_group(
        self,
        training_set: TrainingSet,
        group: str,
        settings: EstimatorSettings,
        pooled: Sequence[LinearModel],
        frozen_choices: Sequence[LinearModel] | None,
    ) -> list[LinearModel]:
        """One model for each target: the pooled one, or the group's own where that clearly helps on validation."""
        use_group = [model.scope == "sector" for model in frozen_choices] if frozen_choices else None
        if len(training_set.groups) == 1 or (use_group is not None and not any(use_group)):
            return list(pooled)
        linear, rows, scaler = settings.linear, training_set.fit[group], pooled[0].scaler
        centre = softmax_regression.together([model.weights for model in pooled])
        Z = [scaler.transform(rows.X, training_set.device)]
        weights = softmax_regression.fit(
            RegressionRows(Z, [rows.y], training_set.weights(), [rows.weight]),
            centre,
            linear.sector_l2 * entropy(training_set),
            linear.max_iterations,
            training_set.device,
        )
        group_models = _models(training_set, scaler, weights, "sector")
        if use_group is None:
            use_group = _worthwhile(training_set, group, centre, weights, scaler)
        return [
            group_model if use else shared
            for group_model, shared, use in zip(group_models, pooled, use_group, strict=True)
        ]

    def predict(self, models: Sequence[LinearModel], rows: FeatureRows) -> Any:
        """Probabilities float32 (n_rows, n_models, 3)."""
        return predict_linear(models, rows.X, rows.device)

    def load(self, files: dict[str, bytes], description: dict[str, Any], boosters: dict[bytes, Any]) -> LinearModel:
        """A saved model again."""
        return LinearModel.from_files(files, description)

    def to_onnx(self, model: LinearModel, graph: OnnxGraph) -> str:
        """Scale, clip, flag missing values, and take the softmax of the products."""
        inputs = scaled_columns(graph, model.scaler)
        margin = onnx_graph.linear(graph, inputs, model.weights.coefficients, model.weights.intercept)
        return onnx_graph.softmax(graph, margin, model.class_weight)

    def critical_values(self, model: LinearModel, reader: Any) -> CriticalValues:
        """The scales of the columns."""
        return CriticalValues(mean=model.scaler.mean, scale=model.scaler.scale)

    def work(self, size: Size, settings: Config, pooled: bool) -> Work:
        """Iterations over all columns and classes."""
        values = size.rows * size.columns * CLASS_COUNT * size.targets
        return Work("regression", settings.linear.max_iterations, values)

    def fit_bytes(self, shape: Shape, settings: Config, sparing: bool) -> float:
        """Scaled columns of all groups, or of one, and what a step over the largest group makes."""
        scaled = 4.0 * shape.fit * (shape.n_features + shape.late_columns) + shape.fit * 8 * shape.n_targets
        if sparing:
            scaled *= shape.largest
        step = shape.fit * shape.largest * 12 * shape.n_targets * 4
        return scaled + step + BLOCK_ROWS * 16 * shape.n_features


def scaled_columns(graph: OnnxGraph, scaler: Scaler) -> str:
    """The name of the columns of `Scaler.transform` in a graph, float32 (n_rows, n_inputs)."""
    scaled = graph.add("Div", [graph.add("Sub", [graph.columns(), scaler.mean[None]]), scaler.scale[None]])
    missing = graph.add("IsNaN", [scaled])
    clipped = graph.add("Clip", [scaled, np.float32(-scaler.clip), np.float32(scaler.clip)])
    inputs = graph.add("Where", [missing, np.float32(0), clipped])
    if not len(scaler.flagged):
        return inputs
    flags = graph.add("Cast", [missing], to=onnx_graph.FLOAT)
    flags = graph.add("Gather", [flags, scaler.flagged], axis=1)
    return graph.add("Concat", [inputs, flags], axis=1)


def entropy(training_set: TrainingSet) -> np.ndarray:
    """float64 (n_targets,), nats, of the fitted rows' class shares, by class weight: a row's loss by the prior alone.

    Penalties are in units of this entropy. The information that a row has about a target's coefficients is about
    proportional to it, so that all targets are pulled to the centre by the same share of their information, as by a
    g-prior (Zellner 1986): one penalty for all pulls targets with rare events too far, and frequent ones not enough.
    """
    mass = training_set.shares() * training_set.weights()
    share = mass / mass.sum(axis=1, keepdims=True)
    return -(share * np.log(share)).sum(axis=1)


def _models(training_set: TrainingSet, scaler: Scaler, weights: Weights, scope: str) -> list[LinearModel]:
    return [
        LinearModel(scaler, softmax_regression.target_columns(weights, k), training_set.weights()[k], scope)
        for k in range(training_set.n_targets)
    ]


def _worthwhile(
    training_set: TrainingSet, group: str, pooled: Weights, group_weights: Weights, scaler: Scaler
) -> list[bool]:
    rows, device, xp = training_set.validation[group], training_set.device, training_set.device.xp
    Z = scaler.transform(rows.X, device)
    losses = []
    for weights in (group_weights, pooled):
        margin = weights.margin(Z, device) - device.asarray(np.log(training_set.weights().ravel()))
        loss = xp.empty(rows.y.shape, dtype=xp.float32)
        softmax_log_loss(rows.n, margin, rows.y, loss)
        losses.append(device.to_host(loss))
    time_ns = device.to_host(rows.time_ns)
    return [clearly_better(losses[0][:, k], losses[1][:, k], time_ns) for k in range(training_set.n_targets)]


def scaler_of(parts: list[Any], clip: float, device: Device, total: Callable[[np.ndarray], np.ndarray]) -> Scaler:
    """Means and standard deviations over blocks of rows, missing values left out; total: see TrainingSet."""
    xp = device.xp

    def summed(blocks: Any) -> Any:
        return device.asarray(total(device.to_host(sum(blocks))))

    counts = summed((~xp.isnan(X)).sum(axis=0) for X in map(whole, parts))
    n_rows = int(total(np.array([sum(X.shape[0] for X in parts)]))[0])
    mean = summed(xp.nansum(X, axis=0, dtype=xp.float64) for X in map(whole, parts)) / xp.maximum(counts, 1)
    squares = summed(xp.nansum((X - mean.astype(xp.float32)) ** 2, axis=0, dtype=xp.float64) for X in map(whole, parts))
    scale = xp.sqrt(squares / xp.maximum(counts, 1))
    scale = xp.where(scale > 0, scale, 1.0)  # a constant column becomes zeros
    flagged = np.flatnonzero(device.to_host(counts) < n_rows)
    return Scaler(
        device.to_host(mean).astype(np.float32),
        device.to_host(scale).astype(np.float32),
        flagged.astype(np.int64),
        clip,
    )
