"""Softmax regression of all labels at once, with weights pulled to given ones; the products run where the data is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.estimators.training_set import alone, whole
from gpupipe.kernels.linear import linear_margin
from gpupipe.kernels.softmax import softmax_gradient, softmax_log_loss
from gpupipe.runtime.device import Device
from gpupipe.targets.classes import N_CLASSES


@dataclass(frozen=True)
class Weights:
    """coefficients: float64 (n_inputs, 3 * n_labels).  intercept: float64 (3 * n_labels,)."""

    coefficients: np.ndarray
    intercept: np.ndarray

    def margin(self, Z: Any, device: Device) -> Any:
        """float32 (n_rows, 3 * n_labels): Z @ coefficients + intercept; Z as in `fit`.

        For fitting: the last bits of a row depend on how many rows there are.
        """
        xp = device.xp
        product = _times(Z, device.asarray(self.coefficients.astype(np.float32)), xp)
        return xp.ascontiguousarray(product + device.asarray(self.intercept.astype(np.float32)))

    def margin_of_rows(self, Z: Any, device: Device) -> Any:
        """The same of Z float32 (n_rows, n_inputs), for predicting: a row's bits are its own."""
        xp, asarray = device.xp, device.asarray
        found = xp.empty((Z.shape[0], len(self.intercept)), dtype=xp.float32)
        coefficients, intercept = (asarray(w.astype(np.float32)) for w in (self.coefficients, self.intercept))
        linear_margin(Z.shape[0], Z, xp.ascontiguousarray(coefficients), intercept, found)
        return found


def fit(
    Z: Sequence[Any], y: Sequence[Any], class_weight: np.ndarray, centre: Weights, l2: float | np.ndarray,
    max_iterations: int, device: Device, intercept_l2: float | None = None, row_weight: Sequence[Any | None] = (),
    total: Callable[[np.ndarray], np.ndarray] = alone,
) -> Weights:  # fmt: skip
    """Minimise sum(w * log-loss) + l2 / 2 * |weights - centre|^2 of every label with scipy's L-BFGS-B.

    Columns are correlated, and L-BFGS alone needs hundreds of steps: it searches in coordinates in which the second
    derivatives, taken at the labels' class shares, are the identity (one Cholesky factor for each output).

    l2: the penalty, one for all labels or float64 (n_labels,).
    intercept_l2: the penalty of the intercept's distance, if it is another than l2.

    Z: blocks of rows, float32 (n, n_inputs) or what `whole` makes into one each time; or (n_labels, n, n_inputs) where
        each label has inputs of its own.
    y: int8 (n, n_labels) blocks, -1 for not known.
    class_weight: float32 (n_labels, 3).  row_weight: float32 (n, n_labels) blocks, or None where rows count alike.
    total: as of Fold, where other processes have blocks of their own; the same steps are taken by all of them.
    The weights, a few thousand numbers, and one matrix of products are all that crosses the bus.
    """
    from scipy.optimize import minimize

    xp = device.xp
    n_rows, shape = int(total(np.array([sum(labels.shape[0] for labels in y)]))[0]), centre.coefficients.shape
    on_device = device.asarray(class_weight)
    longest = max(labels.shape[0] for labels in y)
    derivatives = [xp.empty((longest, shape[1]), xp.float32) for _ in range(2)]
    losses = xp.empty((longest, shape[1] // N_CLASSES), xp.float32)
    own = list(row_weight) or [None] * len(Z)
    weights_of_rows = [_row_weight(labels, on_device, one, xp) for labels, one in zip(y, own, strict=True)]
    middle, own_part = _stacked(centre), 1 / total(np.ones(1))[0]
    of_label = np.broadcast_to(np.asarray(l2, dtype=np.float64), (shape[1] // N_CLASSES,))
    penalty = np.tile(np.repeat(of_label, N_CLASSES), (shape[0] + 1, 1))
    if intercept_l2 is not None:
        penalty[-1] = intercept_l2
    back = _inverse_roots(Z, y, weights_of_rows, penalty, device, total)

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        away = np.einsum("kij,jk->ik", back, flat.reshape(shape[0] + 1, shape[1]))
        weights = _unstacked(middle + away)
        value, slope = 0.0, own_part * penalty * away
        for block, labels, weight, one in zip(map(whole, Z), y, weights_of_rows, own, strict=True):
            gradient, hessian, loss = (one[: labels.shape[0]] for one in (*derivatives, losses))
            margin = weights.margin(block, device)
            softmax_log_loss(labels.shape[0], margin, labels, loss)
            softmax_gradient(labels.shape[0], margin, labels, on_device, gradient, hessian)
            if one is not None:
                gradient *= xp.repeat(one, N_CLASSES, axis=1)
            value += float(xp.where(labels >= 0, loss * weight, 0).sum(dtype=xp.float64))
            slope[:-1] += device.to_host(_turned(block, gradient, xp)).astype(np.float64)
            slope[-1] += device.to_host(gradient.sum(axis=0, dtype=xp.float64))
        (value, *_), slope = np.split(total(np.append(value, slope)), [1])
        turned = np.einsum("kij,ik->jk", back, slope.reshape(away.shape))
        return (value + 0.5 * float((penalty * away**2).sum())) / n_rows, turned.ravel() / n_rows

    found = minimize(
        value_and_gradient, np.zeros(middle.size), jac=True, method="L-BFGS-B",
        # Products are float32: below this relative change of the loss there is only rounding.
        options={"maxiter": max_iterations, "ftol": 1e-7, "gtol": 1e-7},
    )  # fmt: skip
    return _unstacked(middle + np.einsum("kij,jk->ik", back, found.x.reshape(middle.shape)))


def _inverse_roots(
    Z: Sequence[Any], y: Sequence[Any], weights_of_rows: Sequence[Any], penalty: np.ndarray, device: Device,
    total: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:  # fmt: skip
    """B, float64 (n_outputs, n, n), n = n_inputs + 1, with B B' = (p (1 - p) [Z 1]'[Z 1] + penalty)^-1 for each output.

    p: the share of the output's class among the known rows, by weight.  penalty: float64 (n, n_outputs).
    """
    from scipy.linalg import solve_triangular

    xp, n_labels = device.xp, y[0].shape[1]
    shared = Z[0].ndim == 2
    by_label = [total(_products((block if shared else block[k] for block in map(whole, Z)), device))
                for k in range(1 if shared else n_labels)]  # fmt: skip
    roots = []
    for k in range(n_labels):
        products = by_label[0 if shared else k]
        n = len(products)
        mass = total(np.array([
            sum(float(xp.where(labels[:, k] == c, weight[:, k], 0).sum(dtype=xp.float64))
                for labels, weight in zip(y, weights_of_rows, strict=True))
            for c in range(N_CLASSES)
        ]))  # fmt: skip
        share = (mass + 0.5) / (mass + 0.5).sum()
        for c, p in enumerate(share):
            scale = p * (1 - p) * mass.sum() / max(products[-1, -1], 1.0)
            matrix = scale * products + np.diag(penalty[:, N_CLASSES * k + c])
            matrix[np.diag_indices(n)] += 1e-6 * max(np.trace(matrix) / n, 1e-12)  # a column may repeat another
            roots.append(solve_triangular(np.linalg.cholesky(matrix), np.eye(n), lower=True).T)
    return np.stack(roots)


def _products(Z: Iterable[Any], device: Device) -> np.ndarray:
    """[Z 1]'[Z 1], float64, of blocks (n, n_inputs)."""
    products: Any = 0
    for block in Z:
        own = np.empty((block.shape[1] + 1, block.shape[1] + 1))
        sums = device.to_host(block.sum(axis=0, dtype=device.xp.float64))
        own[:-1, :-1] = device.to_host(block.T @ block).astype(np.float64)
        own[-1, :-1] = own[:-1, -1] = sums
        own[-1, -1] = block.shape[0]
        products = products + own
    return products


def _times(Z: Any, coefficients: Any, xp: Any) -> Any:
    """Z @ coefficients (n_inputs, 3 * n_labels), float32 (n, 3 * n_labels); one batch where labels have own inputs."""
    if Z.ndim == 2:
        return Z @ coefficients
    by_label = xp.ascontiguousarray(coefficients.reshape(Z.shape[2], Z.shape[0], N_CLASSES).transpose(1, 0, 2))
    return xp.matmul(Z, by_label).transpose(1, 0, 2).reshape(Z.shape[1], -1)


def _turned(Z: Any, gradient: Any, xp: Any) -> Any:
    """Z' @ gradient (n, 3 * n_labels) as float32 (n_inputs, 3 * n_labels), in one batch as `_times`."""
    if Z.ndim == 2:
        return Z.T @ gradient
    by_label = xp.ascontiguousarray(gradient.reshape(Z.shape[1], Z.shape[0], N_CLASSES).transpose(1, 0, 2))
    return xp.matmul(Z.transpose(0, 2, 1), by_label).transpose(1, 0, 2).reshape(Z.shape[2], -1)


def _stacked(weights: Weights) -> np.ndarray:
    """float64 (n_inputs + 1, 3 * n_labels): coefficients, and below them the intercept."""
    return np.vstack([weights.coefficients, weights.intercept])


def _unstacked(array: np.ndarray) -> Weights:
    return Weights(array[:-1], array[-1])


def _row_weight(labels: Any, class_weight: Any, own: Any | None, xp: Any) -> Any:
    """float32 (n, n_labels): the weight of each row: of its class, times its own."""
    classes = xp.maximum(labels, 0).astype(xp.int64)
    weight = xp.stack([class_weight[k][classes[:, k]] for k in range(labels.shape[1])], axis=1)
    return weight if own is None else weight * own


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
