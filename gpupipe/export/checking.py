"""Whether an ONNX file says what its model says: rows that are hard to agree on, and the largest difference."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from gpupipe.export.ensembles import Ensemble
from gpupipe.export.graphs import INPUT, OUTPUT, Ensembles
from gpupipe.models.columns import Picked
from gpupipe.models.hosted import HostedModel
from gpupipe.models.linear import LinearModel
from gpupipe.models.trees import TreeModel

MADE_ROWS = 512
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
    seen: set[int] = set()
    for model in models:
        columns = model.columns if isinstance(model, Picked) else np.arange(n_features)
        inner = model.model if isinstance(model, Picked) else model
        if isinstance(inner, LinearModel):
            mean[columns], scale[columns] = inner.scaler.mean, inner.scaler.scale
        elif isinstance(inner, TreeModel | HostedModel):
            for ensemble in ensembles.of(inner):
                _gather(splits, ensemble, columns, seen)
    X = (mean + scale * rng.normal(size=(n_rows, n_features))).astype(np.float32)
    for k, parts in enumerate(splits):
        if parts:
            X[:, k] = _around(np.unique(np.concatenate(parts)), n_rows, rng)
    X[rng.random(X.shape) < MISSING] = np.nan
    X[0] = np.nan
    return X


def _gather(splits: list[list[np.ndarray]], ensemble: Ensemble, columns: np.ndarray, seen: set[int]) -> None:
    feature, value = ensemble.splits_of()
    base = ensemble.split.base
    key = id(ensemble.split if base is None else base)
    if key in seen:  # another label's part of the same booster
        return
    seen.add(key)
    order = np.argsort(feature, kind="stable")
    found, begin = np.unique(feature[order], return_index=True)
    for k, values in zip(found, np.split(value[order], begin[1:]), strict=True):
        splits[columns[k]].append(values[np.isfinite(values)])


def _around(values: np.ndarray, n_rows: int, rng: np.random.Generator) -> np.ndarray:
    """float32 (n_rows,): at, next to and between some values."""
    if not len(values):
        return np.zeros(n_rows, np.float32)
    at = values[rng.permutation(np.arange(n_rows) % len(values))]
    side = np.where(rng.random(n_rows) < 0.5, np.float32(-np.inf), np.float32(np.inf))
    limit = np.float32(1e30)  # CatBoost's lowest border is the lowest float32
    width = float(np.diff(np.clip(values, -limit, limit)[[0, -1]])[0]) or 1.0
    off = np.clip(at, -limit, limit) + min(width, 1e3) * rng.normal(size=n_rows) / 10
    kind = rng.integers(0, 3, n_rows)
    with np.errstate(over="ignore"):
        near = np.clip(np.nextafter(at, side), np.finfo(np.float32).min, np.finfo(np.float32).max)
    return np.select([kind == 0, kind == 1], [at, near], off).astype(np.float32)


def scored(content: bytes, X: np.ndarray) -> np.ndarray:
    """What onnxruntime says, on the CPU: float32 (n_rows, 3)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run([OUTPUT], {INPUT: X})[0]


def largest_difference(content: bytes, X: np.ndarray, expected: np.ndarray) -> float:
    """The largest absolute difference of a probability; infinite if one of the two is not known."""
    difference = np.abs(scored(content, X).astype(np.float64) - expected)
    return float(np.where(np.isnan(difference), np.inf, difference).max(initial=0.0))
