"""Softmax regression of all targets at once, with weights pulled to given ones; the products run where the data is."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.dataset.row_view import whole
from gpupipe.estimators.three_classes import CLASS_COUNT
from gpupipe.estimators.training_set import this_process_only
from gpupipe.kernels.linear import linear_margin
from gpupipe.kernels.softmax import softmax_gradient, softmax_log_loss
from gpupipe.runtime.device import Device


@dataclass(frozen=True)
class Weights:
    """coefficients: float64 (n_inputs, 3 * n_targets).  intercept: float64 (3 * n_targets,).

    >>> from gpupipe.runtime.device import pick
    >>> weights = Weights(np.array([[-1.0, 0.0, 1.0]]), np.array([0.0, 0.5, 0.0]))
    >>> weights.margin(np.float32([[0], [2]]), pick("cpu")).tolist()
    [[0.0, 0.5, 0.0], [-2.0, 0.5, 2.0]]
    """

    coefficients: np.ndarray
    intercept: np.ndarray

    def margin(self, Z: Any, device: Device) -> Any:
        """float32 (n_rows, 3 * n_targets): Z @ coefficients + intercept; Z as in `fit`.

        For fitting: the last bits of a row depend on how many rows there are.
        """
        return _margin(Z, *self.on(device), device.xp)

    def on(self, device: Device) -> tuple[Any, Any]:
        """Coefficients and intercept as float32 on the device."""
        parts = [self.coefficients.astype(np.float32), self.intercept.astype(np.float32)]
        coefficients, intercept = device.asarrays(parts)
        return coefficients, intercept

    def margin_of_rows(self, Z: Any, device: Device) -> Any:
        """The same for Z float32 (n_rows, n_inputs), for predictions: the bits of a row depend on that row alone.

        Any number of outputs.
        """
        xp, n_outputs = device.xp, len(self.intercept)
        # The kernel computes three outputs at a time, and would write beyond the end of others.
        padding = (0, -n_outputs % CLASS_COUNT)
        coefficients = device.asarray(np.pad(self.coefficients.astype(np.float32), ((0, 0), padding)))
        intercept = device.asarray(np.pad(self.intercept.astype(np.float32), padding))
        margin = xp.empty((Z.shape[0], n_outputs + padding[1]), dtype=xp.float32)
        linear_margin(Z.shape[0], Z, xp.ascontiguousarray(coefficients), intercept, margin)
        return margin if not padding[1] else xp.ascontiguousarray(margin[:, :n_outputs])


@dataclass(frozen=True)
class RegressionRows:
    """Blocks of rows that are fitted together.

    Z: float32 (n, n_inputs) each, or what `whole` makes into one each time; or (n_targets, n, n_inputs) where each
        target has inputs of its own.
    y: int8 (n, n_targets) each, -1 for not known.
    class_weight: float32 (n_targets, 3).
    row_weight: float32 (n, n_targets) each, or None where rows weigh alike; () for None each.
    total: see TrainingSet, where other processes have blocks of their own; all of them take the same steps.

        >>> from gpupipe.runtime.device import pick
        >>> Z, y = np.zeros((4, 1), np.float32), np.int8([[0], [1], [1], [2]])
        >>> rows = RegressionRows([Z], [y], class_weight=np.ones((1, 3), np.float32))
        >>> fitted = fit(rows, Weights(np.zeros((1, 3)), np.zeros(3)), l2=0.01, max_iterations=50, device=pick("cpu"))
        >>> (np.exp(fitted.intercept) / np.exp(fitted.intercept).sum()).round(2).tolist()
        [0.25, 0.5, 0.25]
    """

    Z: Sequence[Any]
    y: Sequence[Any]
    class_weight: np.ndarray
    row_weight: Sequence[Any | None] = ()
    total: Callable[[np.ndarray], np.ndarray] = this_process_only


def fit(
    rows: RegressionRows,
    centre: Weights,
    l2: float | np.ndarray,
    max_iterations: int,
    device: Device,
    intercept_l2: float | None = None,
) -> Weights:
    """Minimise sum(w * log-loss) + l2 / 2 * |weights - centre|^2 of every target with scipy's L-BFGS-B.

    Columns are correlated, and L-BFGS alone needs hundreds of steps: it searches in coordinates in which the second
    derivatives, taken at the targets' class shares, are the identity (one Cholesky factor for each output).

    l2: the penalty, one for all targets or float64 (n_targets,).
    intercept_l2: the penalty of the intercept's distance, if it is another than l2.
    The weights, a few thousand numbers, and one matrix of products are all that crosses the bus.
    """
    from scipy.optimize import minimize

    xp, Z, y, total = device.xp, rows.Z, rows.y, rows.total
    n_rows, shape = int(total(np.array([sum(labels.shape[0] for labels in y)]))[0]), centre.coefficients.shape
    on_device = device.asarray(rows.class_weight)
    longest = max(labels.shape[0] for labels in y)
    derivatives = [xp.empty((longest, shape[1]), xp.float32) for _ in range(2)]
    losses = xp.empty((longest, shape[1] // CLASS_COUNT), xp.float32)
    row_weight = list(rows.row_weight) or [None] * len(Z)
    weights_of_rows = [_row_weight(labels, on_device, weight, xp) for labels, weight in zip(y, row_weight, strict=True)]
    middle, share_of_process = _stacked(centre), 1 / total(np.ones(1))[0]
    by_target = np.broadcast_to(np.asarray(l2, dtype=np.float64), (shape[1] // CLASS_COUNT,))
    penalty = np.tile(np.repeat(by_target, CLASS_COUNT), (shape[0] + 1, 1))
    if intercept_l2 is not None:
        penalty[-1] = intercept_l2
    back = _inverse_roots(rows, weights_of_rows, penalty, device)

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        away = np.einsum("kij,jk->ik", back, flat.reshape(shape[0] + 1, shape[1]))
        coefficients, intercept = _unstacked(middle + away).on(device)
        value, slope = xp.zeros(1), device.asarray(share_of_process * penalty * away)
        for block, labels, weight, weight_of_row in zip(map(whole, Z), y, weights_of_rows, row_weight, strict=True):
            gradient, hessian, loss = (buffer[: labels.shape[0]] for buffer in (*derivatives, losses))
            margin = _margin(block, coefficients, intercept, xp)
            softmax_log_loss(labels.shape[0], margin, labels, loss)
            softmax_gradient(labels.shape[0], margin, labels, on_device, gradient, hessian)
            if weight_of_row is not None:
                gradient *= xp.repeat(weight_of_row, CLASS_COUNT, axis=1)
            value += xp.where(labels >= 0, loss * weight, 0).sum(dtype=xp.float64)
            slope[:-1] += _turned(block, gradient, xp)
            slope[-1] += gradient.sum(axis=0, dtype=xp.float64)
        sums = device.to_host(xp.concatenate([value, slope.reshape(-1)]))  # the one time that the device is waited for
        (loss_of_all, *_), slope_of_all = np.split(total(sums), [1])
        turned = np.einsum("kij,ik->jk", back, slope_of_all.reshape(away.shape))
        return (loss_of_all + 0.5 * float((penalty * away**2).sum())) / n_rows, turned.ravel() / n_rows

    optimum = minimize(
        value_and_gradient, np.zeros(middle.size), jac=True, method="L-BFGS-B",
        # Products are float32: below this relative change of the loss there is only rounding.
        options={"maxiter": max_iterations, "ftol": 1e-7, "gtol": 1e-7},
    )  # fmt: skip
    return _unstacked(middle + np.einsum("kij,jk->ik", back, optimum.x.reshape(middle.shape)))


def _inverse_roots(
    rows: RegressionRows, weights_of_rows: Sequence[Any], penalty: np.ndarray, device: Device
) -> np.ndarray:
    """B, float64 (n_outputs, n, n), n = n_inputs + 1, with B B' = (p (1 - p) [Z 1]'[Z 1] + penalty)^-1 for each output.

    p: the share of the output's class among the known rows, by weight.  penalty: float64 (n, n_outputs).
    """
    from scipy.linalg import solve_triangular

    xp, Z, y, total, n_targets = device.xp, rows.Z, rows.y, rows.total, rows.y[0].shape[1]
    shared = Z[0].ndim == 2
    by_label = [total(_products((block if shared else block[k] for block in map(whole, Z)), device))
                for k in range(1 if shared else n_targets)]  # fmt: skip
    masses = xp.zeros((n_targets, CLASS_COUNT))
    for labels, weight in zip(y, weights_of_rows, strict=True):
        for k, c in itertools.product(range(n_targets), range(CLASS_COUNT)):
            masses[k, c] += xp.where(labels[:, k] == c, weight[:, k], 0).sum(dtype=xp.float64)
    roots = []
    for k, mass_here in enumerate(device.to_host(masses)):
        products, mass = by_label[0 if shared else k], total(mass_here)
        n = len(products)
        share = (mass + 0.5) / (mass + 0.5).sum()
        for c, p in enumerate(share):
            scale = p * (1 - p) * mass.sum() / max(products[-1, -1], 1.0)
            matrix = scale * products + np.diag(penalty[:, CLASS_COUNT * k + c])
            matrix[np.diag_indices(n)] += 1e-6 * max(np.trace(matrix) / n, 1e-12)  # a column may repeat another
            roots.append(solve_triangular(np.linalg.cholesky(matrix), np.eye(n), lower=True).T)
    return np.stack(roots)


def _products(Z: Iterable[Any], device: Device) -> np.ndarray:
    """[Z 1]'[Z 1], float64, of blocks (n, n_inputs)."""
    added: Any = 0
    n_rows = 0
    for block in Z:
        sums = block.sum(axis=0, dtype=device.xp.float64)
        added = added + device.xp.concatenate([block.T @ block, sums[None]])  # float64, as the sums are
        n_rows += block.shape[0]
    inputs, sums = np.split(device.to_host(added), [-1])
    return np.block([[inputs, sums.T], [sums, np.float64(n_rows)]])


def _margin(Z: Any, coefficients: Any, intercept: Any, xp: Any) -> Any:
    return xp.ascontiguousarray(_times(Z, coefficients, xp) + intercept)


def _times(Z: Any, coefficients: Any, xp: Any) -> Any:
    """Z @ coefficients (n_inputs, 3 * n_targets), float32 (n, 3 * n_targets); a batch where targets have own inputs."""
    if Z.ndim == 2:
        return Z @ coefficients
    by_label = xp.ascontiguousarray(coefficients.reshape(Z.shape[2], Z.shape[0], CLASS_COUNT).transpose(1, 0, 2))
    return xp.matmul(Z, by_label).transpose(1, 0, 2).reshape(Z.shape[1], -1)


def _turned(Z: Any, gradient: Any, xp: Any) -> Any:
    """Z' @ gradient (n, 3 * n_targets) as float32 (n_inputs, 3 * n_targets), in one batch as `_times`."""
    if Z.ndim == 2:
        return Z.T @ gradient
    by_label = xp.ascontiguousarray(gradient.reshape(Z.shape[1], Z.shape[0], CLASS_COUNT).transpose(1, 0, 2))
    return xp.matmul(Z.transpose(0, 2, 1), by_label).transpose(1, 0, 2).reshape(Z.shape[2], -1)


def _stacked(weights: Weights) -> np.ndarray:
    """float64 (n_inputs + 1, 3 * n_targets): coefficients, and below them the intercept."""
    return np.vstack([weights.coefficients, weights.intercept])


def _unstacked(array: np.ndarray) -> Weights:
    return Weights(array[:-1], array[-1])


def _row_weight(labels: Any, class_weight: Any, row_weight: Any | None, xp: Any) -> Any:
    """float32 (n, n_targets): the weight of each row: its class weight times its row weight."""
    classes = xp.maximum(labels, 0).astype(xp.int64)
    weight = xp.stack([class_weight[k][classes[:, k]] for k in range(labels.shape[1])], axis=1)
    return weight if row_weight is None else weight * row_weight


def target_columns(weights: Weights, target: int) -> Weights:
    """The part of one target."""
    columns = slice(CLASS_COUNT * target, CLASS_COUNT * (target + 1))
    return Weights(weights.coefficients[:, columns], weights.intercept[columns])


def together(parts: Sequence[Weights]) -> Weights:
    """The weights of single targets side by side: the inverse of `target_columns`."""
    return Weights(
        np.concatenate([part.coefficients for part in parts], axis=1),
        np.concatenate([part.intercept for part in parts]),
    )
