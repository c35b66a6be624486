"""A ridge regression on standardised columns: scikit-learn's on a CPU, cuML's on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gpupipe.store.content_store import pack_arrays, unpack_arrays
from gpupipe.workloads.bonds.families.contract import Family, FitRows, Model, Report, mean_squared
from gpupipe.workloads.bonds.families.libraries import estimator, one_blas_thread
from gpupipe.workloads.bonds.families.standard import scales_of, standardised
from gpupipe.workloads.bonds.settings import LinearSettings


class LinearModel(Model):
    """Weights of standardised columns. weight float64 (n_columns,); intercept float64 (1,); scales as `scales_of`."""

    kind: ClassVar = "linear"

    def __init__(self, arrays: Mapping[str, np.ndarray], found: Mapping[str, Any]) -> None:
        self.arrays, self.found = dict(arrays), dict(found)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """See `Model`."""
        arrays = self.arrays
        # Sums by einsum, so that the last bits of a row's prediction do not depend on the number of rows.
        total = np.einsum("nc,c->n", standardised(X, arrays).astype(np.float64), arrays["weight"])
        return (total + arrays["intercept"][0]).astype(np.float32)

    def files(self) -> dict[str, bytes]:
        """See `Model`."""
        return {".linear.npz": pack_arrays(self.arrays)}

    def about(self) -> dict[str, Any]:
        """See `Model`."""
        return dict(self.found)

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> LinearModel:
        """See `Model`."""
        return cls(unpack_arrays(files[".linear.npz"]), {})


class Linear(Family):
    """The family."""

    name: ClassVar = "linear"
    model: ClassVar = LinearModel

    def space(self, trial: Any) -> dict[str, Any]:
        """See `Family`."""
        return {"l2": trial.suggest_float("l2", 1e-3, 10.0, log=True)}

    def fit(self, rows: FitRows, settings: LinearSettings, report: Report | None = None) -> LinearModel:
        """See `Family`. It is solved at once, so that nothing stops early."""
        scales = scales_of(rows.X)
        ridge = estimator("ridge", rows.device, alpha=settings.l2 * len(rows.X))
        with one_blas_thread():
            ridge.fit(standardised(rows.X, scales).astype(np.float64), rows.y.astype(np.float64))
        weight = np.asarray(ridge.coef_, np.float64).ravel()
        arrays = {**scales, "weight": weight, "intercept": np.asarray(ridge.intercept_, np.float64).reshape(1)}
        loss = mean_squared(LinearModel(arrays, {}).predict(rows.validation_x), rows.validation_y)
        if report is not None:
            report(1, loss)
        return LinearModel(arrays, {"validation_losses": [loss]})
