"""Whether an ONNX file says what its model says: rows that are hard to agree on, and the largest difference."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from gpupipe.artifacts.onnx.ensembles import Ensemble
from gpupipe.artifacts.onnx.graphs import INPUT, OUTPUT, Ensembles
from gpupipe.estimators.boosting.hosted import HostedModel
from gpupipe.estimators.boosting.tree_model import TreeModel
from gpupipe.estimators.columns import OfColumns
from gpupipe.estimators.linear.softmax_linear import LinearModel

MADE_ROWS = 512
LARGEST = 1e30
MISSING = 0.05  # share of the values of made-up rows


def made_rows(models: Iterable[Any], n_features: int, ensembles: Ensembles, n_rows: int = MADE_ROWS) -> np.ndarray:
    """Rows float32 (n_rows, n_features) drawn from what the models compare with: the same of the same models.

    Of each column a third of the values are the trees' splits themselves, going round them, a third the float32 next
    to one, above or below, and a third some way off; a column without splits is normal, as wide as a linear model's
    scaling says. A share of values is NaN, and so is all of the first row.
    """
    rng = np.random.default_rng(0)
    splits: list[list[np.ndarray]] = [[] for _ in range(n_features)]
    mean, scale = np.zeros(n_features, np.float32), np.ones(n_features, np.float32)
    for model in models:
        columns = model.columns if isinstance(model, OfColumns) else np.arange(n_features)
        inner = model.model if isinstance(model, OfColumns) else model
        if isinstance(inner, LinearModel):
            mean[columns], scale[columns] = inner.scaler.mean, inner.scaler.scale
        elif isinstance(inner, TreeModel | HostedModel):
            for ensemble in ensembles.of(inner):
                _gather(splits, ensemble, columns)
    X = (mean + scale * rng.normal(size=(n_rows, n_features))).astype(np.float32)
    for k, parts in enumerate(splits):
        if parts:
            X[:, k] = _around(np.unique(np.concatenate(parts)), n_rows, rng)
    X[rng.random(X.shape) < MISSING] = np.nan
    X[0] = np.nan
    return X


def _gather(splits: list[list[np.ndarray]], ensemble: Ensemble, columns: np.ndarray) -> None:
    """Add an ensemble's splits to those of the columns that they are of."""
    feature, value = ensemble.splits_of()
    near = np.abs(value) < LARGEST  # CatBoost and LightGBM have splits that only tell NaN from numbers
    feature, value = feature[near], value[near]
    for k in np.unique(feature):
        splits[columns[k]].append(np.unique(value[feature == k]))


def _around(values: np.ndarray, n_rows: int, rng: np.random.Generator) -> np.ndarray:
    """float32 (n_rows,): at, next to and between some values, ascending."""
    at = values[rng.permutation(np.arange(n_rows) % len(values))]
    side = np.where(rng.random(n_rows) < 0.5, np.float32(-np.inf), np.float32(np.inf))
    width = min(float(values[-1] - values[0]) or 1.0, 1000.0)
    off = at + width / 10 * rng.normal(size=n_rows)
    kind = rng.integers(0, 3, n_rows)
    return np.select([kind == 0, kind == 1], [at, np.nextafter(at, side)], off).astype(np.float32)


def scored(content: bytes, X: np.ndarray) -> np.ndarray:
    """What onnxruntime says, on the CPU: float32 (n_rows, 3)."""
    # From 1.29 on it tells its makers, by default, names and hashes of the models it loads, from a thread of its own.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run([OUTPUT], {INPUT: X})[0]


def largest_difference(content: bytes, X: np.ndarray, expected: np.ndarray) -> float:
    """The largest absolute difference of a probability; infinite if one of the two is not known."""
    difference = np.abs(scored(content, X).astype(np.float64) - expected)
    return float(np.where(np.isnan(difference), np.inf, difference).max(initial=0.0))
