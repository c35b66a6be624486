"""Modules `cuml`: cuML's classes by their recorded signatures, computed by scikit-learn."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import types
from typing import Any

import numpy as np

from tests.support.stand_in import counting, recorded
from tests.support.stand_in.counting import COUNTS
from tests.support.stand_in.device_array import ndarray

CLASSES = {
    "ensemble": ("RandomForestRegressor", "RandomForestClassifier"), "cluster": ("KMeans",), "decomposition": ("PCA",),
    "linear_model": ("Ridge", "LogisticRegression"),
}  # fmt: skip
# Arguments of cuML that scikit-learn has not.
_OF_CUML = ("n_streams", "output_type", "verbose", "n_bins", "max_batch_size")


class Estimator:
    """An estimator of cuML's, fitted by scikit-learn. path: its dotted name in cuML."""

    path = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        recorded.check(self.path, args, kwargs)
        COUNTS.add(counting.NOTES, self.path)
        folder, cls = self.path.split(".")[1:]
        kind = getattr(importlib.import_module(f"sklearn.{folder}"), cls)
        self._fitted = kind(*args, **{name: value for name, value in kwargs.items() if name not in _OF_CUML})

    def fit(self, X: Any, y: Any = None) -> Estimator:
        """Fit it to rows, on the host or on the device."""
        X, y = map(_host, (X, y))
        if isinstance(share := getattr(self._fitted, "max_samples", None), float):
            self._fitted.max_samples = max(1, int(share * len(X)))  # cuML rounds down
        self._fitted.fit(X) if y is None else self._fitted.fit(X, y)
        return self

    def fit_predict(self, X: Any) -> Any:
        """Fit it to rows, and the clusters of these."""
        return self._fitted.fit_predict(_host(X))

    def predict_proba(self, X: Any) -> Any:
        """The probability of each class, on the device where the rows are there."""
        probability = self._fitted.predict_proba(_host(X)).astype(np.float32)
        return ndarray(probability) if isinstance(X, ndarray) else probability

    def as_sklearn(self) -> Any:
        """scikit-learn's estimator of the same model."""
        return self._fitted

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_fitted", "estimators_"):  # cuML's forests have no list of trees
            raise AttributeError(f"{self.path} has no {name!r}")
        return getattr(self._fitted, name)


def _host(array: Any) -> Any:
    return array.host if isinstance(array, ndarray) else array


def install() -> None:
    """Make `import cuml` give the stand-in."""
    top = _module("cuml")
    top.__version__ = recorded.version("cuml-cu13")  # type: ignore[attr-defined]
    for folder, classes in CLASSES.items():
        inner = _module(f"cuml.{folder}")
        for cls in classes:
            path = f"cuml.{folder}.{cls}"
            setattr(inner, cls, type(cls, (Estimator,), {"path": path, "__module__": inner.__name__}))
        setattr(top, folder, inner)


def _module(name: str) -> types.ModuleType:
    made = types.ModuleType(name)
    made.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    made.__path__ = []
    sys.modules[name] = made
    return made
