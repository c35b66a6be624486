"""A multilayer perceptron by scikit-learn, one epoch at a time, stopped by validation."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gpupipe.store.content_store import pack_arrays, unpack_arrays
from gpupipe.workloads.bonds.families.contract import Family, FitRows, Model, Report, mean_squared
from gpupipe.workloads.bonds.families.libraries import one_blas_thread
from gpupipe.workloads.bonds.families.standard import scales_of, standardised
from gpupipe.workloads.bonds.settings import NetworkSettings

ROWS_AT_ONCE = 192  # of a product of matrices; a multiple of the rows that any BLAS takes in one step


def outputs(X: np.ndarray, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """float64 (n,): the last layer's output, of inputs float64 (n, n_columns) and the layers weight_0, bias_0, ...

    BLAS adds products in an order that depends on the number of rows. Every product here is of ROWS_AT_ONCE rows, the
    last ones filled up by zeros, so that the last bits of a row's output depend on that row alone. Sums by einsum, as
    of the ridge regression, would take three times as long.
    """
    n_layers = sum(name.startswith("weight_") for name in arrays)
    found, block = np.empty(len(X)), np.zeros((ROWS_AT_ONCE, X.shape[1]))
    with one_blas_thread():
        for begin in range(0, len(X), ROWS_AT_ONCE):
            part = X[begin : begin + ROWS_AT_ONCE]
            block[: len(part)], block[len(part) :] = part, 0.0
            hidden = block
            for k in range(n_layers):
                hidden = hidden @ arrays[f"weight_{k}"] + arrays[f"bias_{k}"]
                if k < n_layers - 1:
                    np.maximum(hidden, 0.0, out=hidden)
            found[begin : begin + len(part)] = hidden[: len(part), 0]
    return found


class NetworkModel(Model):
    """Layers of weights; inputs and output are standardised by training rows."""

    kind: ClassVar = "network"

    def __init__(self, arrays: Mapping[str, np.ndarray], found: Mapping[str, Any]) -> None:
        self.arrays, self.found = dict(arrays), dict(found)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """See `Model`."""
        arrays = self.arrays
        total = outputs(standardised(X, arrays).astype(np.float64), arrays)
        return (total * arrays["y_scale"][0] + arrays["y_mean"][0]).astype(np.float32)

    def files(self) -> dict[str, bytes]:
        """See `Model`."""
        return {".network.npz": pack_arrays(self.arrays)}

    def about(self) -> dict[str, Any]:
        """See `Model`."""
        return dict(self.found)

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> NetworkModel:
        """See `Model`."""
        return cls(unpack_arrays(files[".network.npz"]), {})


class Network(Family):
    """The family."""

    name: ClassVar = "network"
    model: ClassVar = NetworkModel

    def space(self, trial: Any) -> dict[str, Any]:
        """See `Family`."""
        return {
            "width": trial.suggest_int("width", 8, 64, log=True),
            "layers": trial.suggest_int("layers", 1, 3),
            "learning_rate": trial.suggest_float("learning_rate", 2e-4, 5e-3, log=True),
            "l2": trial.suggest_float("l2", 1e-5, 1.0, log=True),
        }

    def fit(self, rows: FitRows, settings: NetworkSettings, report: Report | None = None) -> NetworkModel:
        """See `Family`."""
        from sklearn.neural_network import MLPRegressor

        mean, deviation = np.mean(rows.y, dtype=np.float64), np.std(rows.y, dtype=np.float64)
        scales = {**scales_of(rows.X), "y_mean": np.array([mean]), "y_scale": np.array([deviation or 1.0])}
        X = standardised(rows.X, scales)
        y = (rows.y - scales["y_mean"][0]) / scales["y_scale"][0]
        network = MLPRegressor(
            hidden_layer_sizes=(settings.width,) * settings.layers, alpha=settings.l2,
            batch_size=min(settings.batch, len(X)), learning_rate_init=settings.learning_rate,
            random_state=np.random.RandomState(rows.seed),  # an integer would shuffle alike in every epoch
        )  # fmt: skip
        losses: list[float] = []
        best = NetworkModel(scales, {})
        for epoch in range(settings.epochs):
            with one_blas_thread():
                network.partial_fit(X, y)
            weights = {f"weight_{k}": w for k, w in enumerate(network.coefs_)}
            weights |= {f"bias_{k}": b for k, b in enumerate(network.intercepts_)}
            model = NetworkModel({**scales, **copy.deepcopy(weights)}, {})
            losses.append(mean_squared(model.predict(rows.validation_x), rows.validation_y))
            if epoch == int(np.argmin(losses)):
                best = model
            if report is not None:
                report(epoch + 1, losses[-1])
            if epoch - int(np.argmin(losses)) >= settings.patience:
                break
        return NetworkModel(best.arrays, {"epochs": int(np.argmin(losses)) + 1, "validation_losses": losses})
