"""Losses of predictions by row, and the reference of gains, for any kind of target."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpupipe.targets.target import Target

SMALLEST_PROBABILITY = 1e-12


def log_loss(probability: np.ndarray, y: np.ndarray) -> np.ndarray:
    """float64 (n,), nats: minus the log of the probability of the observed class; NaN where y is -1.

    probability: float (n, n_classes).  y: int (n,).
    """
    known = y >= 0
    chosen = probability[np.arange(len(y)), np.where(known, y, 0).astype(np.int64)].astype(np.float64)
    return np.where(known, -np.log(np.maximum(chosen, SMALLEST_PROBABILITY)), np.nan)


def squared_error(prediction: np.ndarray, y: np.ndarray) -> np.ndarray:
    """float64 (n,): (prediction - y)^2; NaN where y is NaN.

    prediction: float (n, 1).  y: float (n,).
    """
    return (prediction[:, 0].astype(np.float64) - y.astype(np.float64)) ** 2


LOSSES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "log_loss": log_loss,
    "squared_error": squared_error,
}


def losses_of(target: Target, prediction: np.ndarray, y: np.ndarray) -> np.ndarray:
    """float64 (n,): the target's loss of one column's predictions (n, n_outputs) and values (n,)."""
    return LOSSES[target.loss](prediction, y)


def class_prior(y: np.ndarray, n_classes: int) -> np.ndarray:
    """float64 (n_classes,): class shares of training rows, half a row of each class added; -1 is left out."""
    counts = np.bincount(y[y >= 0], minlength=n_classes) + 0.5
    return counts / counts.sum()


def reference_of(target: Target, training_y: np.ndarray, n_rows: int, last_value: np.ndarray | None) -> np.ndarray:
    """Predictions of the reference for `n_rows` rows, float64 (n_rows, n_outputs).

    training_y: (n,), the column of y on the training rows.  last_value: float (n_rows,), for reference "last_value".
    """
    if target.reference == "class_prior":
        prior = class_prior(training_y, target.n_classes)
        return np.broadcast_to(prior, (n_rows, len(prior)))
    if target.reference == "last_value":
        if last_value is None:
            raise ValueError("reference 'last_value' needs the extra column 'last_value' of the dataset")
        return last_value.astype(np.float64)[:, None]
    raise ValueError(f"reference is {target.reference!r}, expected class_prior or last_value")


def gain(loss: float, reference_loss: float) -> float:
    """1 - loss / reference_loss, the share of the reference's loss that a model saves; NaN where that loss is 0.

    >>> gain(0.8, 1.0).__round__(3)
    0.2
    """
    return 1.0 - loss / reference_loss if reference_loss else float("nan")
