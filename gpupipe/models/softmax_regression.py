"""Softmax regression of all labels at once, with weights pulled to given ones; the products run where the data is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.device import Device
from gpupipe.kernels.softmax import softmax_gradient, softmax_log_loss
from gpupipe.models.fold import N_CLASSES


@dataclass(frozen=True)
class Weights:
    """coefficients: float64 (n_inputs, 3 * n_labels).  intercept: float64 (3 * n_labels,)."""

    coefficients: np.ndarray
    intercept: np.ndarray

    def margin(self, Z: Any, device: Device) -> Any:
        """float32 (n_rows, 3 * n_labels): Z @ coefficients + intercept."""
        xp = device.xp
        product = Z @ device.asarray(self.coefficients.astype(np.float32))
        return xp.ascontiguousarray(product + device.asarray(self.intercept.astype(np.float32)))


def fit(
    Z: Sequence[Any], y: Sequence[Any], class_weight: np.ndarray, centre: Weights, l2: float, max_iterations: int,
    device: Device, intercept_l2: float | None = None,
) -> Weights:  # fmt: skip
    """Minimise sum(w * log-loss) + l2 / 2 * |weights - centre|^2 with scipy's L-BFGS-B.

    intercept_l2: the penalty of the intercept's distance, if it is another than l2.

    Z: float32 (n, n_inputs) blocks of rows; y: int8 (n, n_labels) blocks, -1 for not known.
    class_weight: float32 (n_labels, 3). The weights, a few thousand numbers, are all that crosses the bus.
    """
    from scipy.optimize import minimize

    xp = device.xp
    n_rows = sum(block.shape[0] for block in Z)
    shape = centre.coefficients.shape
    on_device = device.asarray(class_weight)
    buffers = [(xp.empty((b.shape[0], shape[1]), xp.float32), xp.empty((b.shape[0], shape[1]), xp.float32)) for b in Z]
    losses = [xp.empty(labels.shape, xp.float32) for labels in y]
    row_weight = [_row_weight(labels, on_device, xp) for labels in y]
    middle = np.concatenate([centre.coefficients.ravel(), centre.intercept])
    penalty = np.full(middle.shape, l2)
    penalty[shape[0] * shape[1] :] = l2 if intercept_l2 is None else intercept_l2

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = _unpack(flat, shape)
        value, slope = 0.0, np.zeros_like(flat)
        for block, labels, weight, loss, (gradient, hessian) in zip(
            Z, y, row_weight, losses, buffers, strict=True
        ):
            margin = weights.margin(block, device)
            softmax_log_loss(block.shape[0], margin, labels, loss)
            softmax_gradient(block.shape[0], margin, labels, on_device, gradient, hessian)
            value += float(xp.where(labels >= 0, loss * weight, 0).sum(dtype=xp.float64))
            slope[: shape[0] * shape[1]] += device.to_host(block.T @ gradient).astype(np.float64).ravel()
            slope[shape[0] * shape[1] :] += device.to_host(gradient.sum(axis=0, dtype=xp.float64))
        away = flat - middle
        return (value + 0.5 * float(penalty @ away**2)) / n_rows, (slope + penalty * away) / n_rows

    found = minimize(
        value_and_gradient, middle, jac=True, method="L-BFGS-B",
        # Products are float32: below this relative change of the loss there is only rounding.
        options={"maxiter": max_iterations, "ftol": 1e-7, "gtol": 1e-7},
    )  # fmt: skip
    return _unpack(found.x, shape)


def _unpack(flat: np.ndarray, shape: tuple[int, int]) -> Weights:
    n_coefficients = shape[0] * shape[1]
    return Weights(flat[:n_coefficients].reshape(shape), flat[n_coefficients:])


def _row_weight(labels: Any, class_weight: Any, xp: Any) -> Any:
    """float32 (n, n_labels): the weight of each row's class."""
    classes = xp.maximum(labels, 0).astype(xp.int64)
    return xp.stack([class_weight[k][classes[:, k]] for k in range(labels.shape[1])], axis=1)


def label_columns(weights: Weights, label: int) -> Weights:
    """The part of one label."""
    columns = slice(N_CLASSES * label, N_CLASSES * (label + 1))
    return Weights(weights.coefficients[:, columns], weights.intercept[columns])


def together(parts: Sequence[Weights]) -> Weights:
    """The weights of single labels side by side: the inverse of `label_columns`."""
    return Weights(
        np.concatenate([part.coefficients for part in parts], axis=1),
        np.concatenate([part.intercept for part in parts]),
    )
