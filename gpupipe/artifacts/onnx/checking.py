"""Whether an ONNX file predicts what its model predicts: rows on which the two would differ first, and by how much."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from gpupipe.artifacts.onnx.graphs import INPUT, OUTPUT, split_selection
from gpupipe.estimators import registry
from gpupipe.estimators.ensemble import TreeReader

CHECK_ROWS = 512
LARGEST = 1e30
MISSING = 0.05  # share of the values of rows to check on


def check_rows(
    models: Iterable[tuple[str, Any]], n_features: int, reader: TreeReader, n_rows: int = CHECK_ROWS
) -> np.ndarray:
    """Rows float32 (n_rows, n_features), drawn from the values that models compare with: the same for equal models.

    models: estimator and model.
    A third of a column's values are splits of trees, each in turn; a third are the float32 next to a split, above or
    below; and a third are some way off. A column without splits is normal, with the mean and scale of a linear model.
    Some values are NaN, and so is all of the first row.
    """
    rng = np.random.default_rng(0)
    splits: list[list[np.ndarray]] = [[] for _ in range(n_features)]
    mean, scale = np.zeros(n_features, np.float32), np.ones(n_features, np.float32)
    for family, model in models:
        inner, chosen = split_selection(model)
        columns = np.arange(n_features) if chosen is None else chosen
        critical = registry.estimator(family).critical_values(inner, reader)
        if critical.mean is not None and critical.scale is not None:
            mean[columns], scale[columns] = critical.mean, critical.scale
        for features, values in critical.splits:
            _gather(splits, columns[features], values)
    X = (mean + scale * rng.normal(size=(n_rows, n_features))).astype(np.float32)
    for k, parts in enumerate(splits):
        if parts:
            X[:, k] = _around(np.unique(np.concatenate(parts)), n_rows, rng)
    X[rng.random(X.shape) < MISSING] = np.nan
    X[0] = np.nan
    return X


def check_windows(
    models: Iterable[tuple[str, Any]], n_features: int, reader: TreeReader, length: int, n_rows: int = CHECK_ROWS
) -> np.ndarray:
    """Windows float32 (n_rows, length, n_features) over rows like those of `check_rows`, each one row further on."""
    rows = check_rows(models, n_features, reader, n_rows + length - 1)
    return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(rows, length, axis=0).transpose(0, 2, 1))


def _gather(splits: list[list[np.ndarray]], columns: np.ndarray, values: np.ndarray) -> None:
    """Add the splits of an ensemble to the lists of their columns."""
    near = np.abs(values) < LARGEST  # CatBoost and LightGBM have splits that only tell NaN from numbers
    columns, values = columns[near], values[near]
    for k in np.unique(columns):
        splits[k].append(np.unique(values[columns == k]))


def _around(values: np.ndarray, n_rows: int, rng: np.random.Generator) -> np.ndarray:
    """float32 (n_rows,): at, next to and between some values, ascending."""
    at = values[rng.permutation(np.arange(n_rows) % len(values))]
    side = np.where(rng.random(n_rows) < 0.5, np.float32(-np.inf), np.float32(np.inf))
    width = min(float(values[-1] - values[0]) or 1.0, 1000.0)
    off = at + width / 10 * rng.normal(size=n_rows)
    kind = rng.integers(0, 3, n_rows)
    return np.select([kind == 0, kind == 1], [at, np.nextafter(at, side)], off).astype(np.float32)


def scored(content: bytes, X: np.ndarray) -> np.ndarray:
    """The predictions of onnxruntime on the CPU: float32 (n_rows, n_outputs).

    X: float32 (n_rows, n_features), or windows (n_rows, length, n_features), of which a model of rows reads the last
        bar, and one of shorter windows the last bars.
    """
    session = session_of(content)
    [taken] = session.get_inputs()
    if X.ndim == 3:
        X = X[:, -1] if taken.name == INPUT else X[:, -taken.shape[1] :]
    return session.run([OUTPUT], {taken.name: np.ascontiguousarray(X)})[0]


def session_of(content: bytes) -> Any:
    """An onnxruntime session on the CPU, with one thread."""
    # From 1.29 on it reports names and hashes of the models that it loads, unless it is told not to.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def largest_difference(content: bytes, X: np.ndarray, expected: np.ndarray) -> float:
    """The largest absolute difference of a prediction; infinite if either is NaN."""
    difference = np.abs(scored(content, X).astype(np.float64) - expected)
    return float(np.where(np.isnan(difference), np.inf, difference).max(initial=0.0))
