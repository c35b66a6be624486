"""linear: softmax regression on scaled columns, all labels in one product, sector weights pulled to the pooled ones."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe import config
from gpupipe.estimators.boosting import tree_model
from gpupipe.estimators.linear import softmax_regression
from gpupipe.estimators.linear.softmax_regression import Weights
from gpupipe.estimators.training_set import BLOCK_ROWS, Fold, whole
from gpupipe.evaluation.paired_test import clearly_better
from gpupipe.kernels.linear import scaled_margin
from gpupipe.kernels.softmax import softmax_log_loss
from gpupipe.runtime.device import Device
from gpupipe.targets.classes import N_CLASSES


@dataclass(frozen=True)
class Scaler:
    """Columns to zero mean and unit variance, clipped; a missing value becomes 0 and raises its column's flag.

    mean, scale: float32 (n_features,) of the fitted rows.  flagged: int64, columns that had a missing value there.
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
        mean, scale, flagged = (device.asarray(one) for one in (self.mean, self.scale, self.flagged))
        Z = xp.empty((X.shape[0], self.n_inputs), dtype=xp.float32)
        for first in range(0, X.shape[0], BLOCK_ROWS):  # what is made on the way is as large as the block, and more
            rows = slice(first, first + BLOCK_ROWS)
            scaled = (whole(X[rows]) - mean) / scale
            missing = xp.isnan(scaled)
            Z[rows, :n] = xp.where(missing, 0, xp.clip(scaled, -self.clip, self.clip))
            Z[rows, n:] = missing[:, flagged]
        return Z

    def margin(self, X: Any, weights: Weights, device: Device) -> Any:
        """float32 (n_rows, 3 * n_labels): of transform(X), without making it; a row's bits are its own."""
        flag = np.full(len(self.mean), -1, dtype=np.int64)
        flag[self.flagged] = len(self.mean) + np.arange(len(self.flagged))
        xp, asarray = device.xp, device.asarray
        found = xp.empty((X.shape[0], len(weights.intercept)), dtype=xp.float32)
        scaled_margin(
            X.shape[0], xp.ascontiguousarray(X), asarray(self.mean), asarray(self.scale), np.float32(self.clip),
            asarray(flag), asarray(np.ascontiguousarray(weights.coefficients, dtype=np.float32)),
            asarray(weights.intercept.astype(np.float32)), found,
        )  # fmt: skip
        return found


@dataclass(frozen=True)
class Unscaled:
    """Scaled columns that are made each time that they are asked for, where memory is short. X as of Rows."""

    scaler: Scaler
    X: Any
    device: Device
    ndim = 2

    def whole(self) -> Any:
        """float32 (n_rows, n_inputs)."""
        return self.scaler.transform(self.X, self.device)


@dataclass(frozen=True)
class LinearModel:
    """Probabilities of one label. weights: coefficients (n_inputs, 3), intercept (3,). scope: "pool" or "sector"."""

    scaler: Scaler
    weights: Weights
    class_weight: np.ndarray
    scope: str

    def predict(self, X: Any, device: Device) -> Any:
        """float32 (n_rows, 3): probabilities of SELL, HOLD, BUY."""
        return predict_linear([self], X, device)[:, 0]

    def files(self) -> dict[str, bytes]:
        """What to write: `.npz`, numpy arrays without objects."""
        buffer = io.BytesIO()
        np.savez(
            buffer, coefficients=self.weights.coefficients, intercept=self.weights.intercept, mean=self.scaler.mean,
            scale=self.scaler.scale, flagged=self.scaler.flagged, clip=np.float64(self.scaler.clip),
            class_weight=self.class_weight,
        )  # fmt: skip
        return {".npz": buffer.getvalue()}

    def describe(self) -> dict[str, Any]:
        """What `from_files` needs beside the files."""
        return {"kind": "linear", "scope": self.scope}

    @classmethod
    def from_files(cls, files: dict[str, bytes], about: dict[str, Any]) -> LinearModel:
        """The model again."""
        with np.load(io.BytesIO(files[".npz"]), allow_pickle=False) as saved:
            scaler = Scaler(saved["mean"], saved["scale"], saved["flagged"], float(saved["clip"]))
            return cls(
                scaler, Weights(saved["coefficients"], saved["intercept"]), saved["class_weight"], about["scope"]
            )


def predict_linear(models: Sequence[LinearModel], X: Any, device: Device) -> Any:
    """float32 (n_rows, n_models, 3): all models that share a scaler's values are one product."""
    xp = device.xp
    out = xp.empty((X.shape[0], len(models), N_CLASSES), dtype=xp.float32)
    alike: dict[bytes, list[int]] = {}
    for k, model in enumerate(models):
        alike.setdefault(model.scaler.mean.tobytes() + model.scaler.scale.tobytes(), []).append(k)
    for numbers in alike.values():
        own = [models[k] for k in numbers]
        margin = own[0].scaler.margin(X, softmax_regression.together([model.weights for model in own]), device)
        class_weight = np.concatenate([model.class_weight for model in own])
        said = tree_model.to_probability(margin, "softmax", class_weight, device)
        out[:, numbers] = said.reshape(-1, len(own), N_CLASSES)
    return out


def fit_pool(fold: Fold, settings: config.Config) -> list[LinearModel]:
    """Scale by the fitted rows of all sectors and fit all labels together: a model for each."""
    scaler = _scaler([rows.X for rows in fold.fit.values()], settings.linear.clip, fold.device, fold.total)
    intercept = np.log(fold.shares() * fold.weights()).ravel()
    centre = Weights(np.zeros((scaler.n_inputs, N_CLASSES * fold.n_labels)), intercept)
    Z = [Unscaled(scaler, rows.X, fold.device) for rows in fold.fit.values()]
    if not fold.spares:
        Z = [block.whole() for block in Z]
    y = [rows.y for rows in fold.fit.values()]
    linear = settings.linear
    weights = softmax_regression.fit(
        Z, y, fold.weights(), centre, linear.l2 * entropy(fold), linear.max_iterations, fold.device,
        row_weight=[rows.weight for rows in fold.fit.values()], total=fold.total,
    )  # fmt: skip
    return _models(fold, scaler, weights, fold.scope)


def fit_sector(
    fold: Fold, sector: str, settings: config.Config, pooled: Sequence[LinearModel], like: Sequence[LinearModel] | None
) -> list[LinearModel]:
    """One model for each label: the pooled one, or the sector's own where that clearly helps on validation.

    like: models of the same kind, whose choice is taken; chosen on validation if None.
    """
    use_own = [model.scope == "sector" for model in like] if like else None
    if len(fold.sectors) == 1 or (use_own is not None and not any(use_own)):
        return list(pooled)
    linear, rows, scaler = settings.linear, fold.fit[sector], pooled[0].scaler
    centre = softmax_regression.together([model.weights for model in pooled])
    Z = [scaler.transform(rows.X, fold.device)]
    weights = softmax_regression.fit(
        Z, [rows.y], fold.weights(), centre, linear.sector_l2 * entropy(fold), linear.max_iterations, fold.device,
        row_weight=[rows.weight],
    )  # fmt: skip
    own = _models(fold, scaler, weights, "sector")
    if use_own is None:
        use_own = _worthwhile(fold, sector, centre, weights, scaler)
    return [o if use else p for o, p, use in zip(own, pooled, use_own, strict=True)]


def entropy(fold: Fold) -> np.ndarray:
    """float64 (n_labels,), nats: of the fitted rows' class shares, by class weight. A row's loss by the prior alone.

    Penalties are in units of it. What a row says of a label's coefficients is in proportion to it, about, so that all
    labels are pulled to the centre by the same share of what they know, as by a g-prior (Zellner 1986): one penalty for
    all pulls labels with rare events too far, and frequent ones not far enough.
    """
    mass = fold.shares() * fold.weights()
    share = mass / mass.sum(axis=1, keepdims=True)
    return -(share * np.log(share)).sum(axis=1)


def _models(fold: Fold, scaler: Scaler, weights: Weights, scope: str) -> list[LinearModel]:
    return [
        LinearModel(scaler, softmax_regression.label_columns(weights, k), fold.weights()[k], scope)
        for k in range(fold.n_labels)
    ]


def _worthwhile(fold: Fold, sector: str, pooled: Weights, own: Weights, scaler: Scaler) -> list[bool]:
    rows, xp = fold.validation[sector], fold.device.xp
    Z = scaler.transform(rows.X, fold.device)
    losses = []
    for weights in (own, pooled):
        margin = weights.margin(Z, fold.device) - xp.log(fold.device.asarray(fold.weights().ravel()))
        loss = xp.empty(rows.y.shape, dtype=xp.float32)
        softmax_log_loss(rows.n, margin, rows.y, loss)
        losses.append(fold.device.to_host(loss))
    time_ns = fold.device.to_host(rows.time_ns)
    return [clearly_better(losses[0][:, k], losses[1][:, k], time_ns) for k in range(fold.n_labels)]


def _scaler(parts: list[Any], clip: float, device: Device, total: Callable[[np.ndarray], np.ndarray]) -> Scaler:
    """Means and standard deviations over blocks of rows, missing values left out; total as of Fold."""
    xp = device.xp

    def summed(found: Any) -> Any:
        return device.asarray(total(device.to_host(sum(found))))

    counts = summed((~xp.isnan(X)).sum(axis=0) for X in map(whole, parts))
    n_rows = int(total(np.array([sum(X.shape[0] for X in parts)]))[0])
    mean = summed(xp.nansum(X, axis=0, dtype=xp.float64) for X in map(whole, parts)) / xp.maximum(counts, 1)
    squares = summed(
        xp.nansum((X - mean.astype(xp.float32)) ** 2, axis=0, dtype=xp.float64) for X in map(whole, parts)
    )  # fmt: skip
    scale = xp.sqrt(squares / xp.maximum(counts, 1))
    scale = xp.where(scale > 0, scale, 1.0)  # a constant column becomes zeros
    flagged = np.flatnonzero(device.to_host(counts) < n_rows)
    return Scaler(
        device.to_host(mean).astype(np.float32),
        device.to_host(scale).astype(np.float32),
        flagged.astype(np.int64),
        clip,
    )
