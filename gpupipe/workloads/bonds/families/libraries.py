"""The one table of estimators that have a twin: scikit-learn's on a CPU, cuML's on a GPU."""

from __future__ import annotations

import importlib
from typing import Any

CLASSES = {
    "forest": ("ensemble", "RandomForestRegressor"),
    "kmeans": ("cluster", "KMeans"),
    "pca": ("decomposition", "PCA"),
    "ridge": ("linear_model", "Ridge"),
}
# Arguments that one of both does not take.
_CPU_ONLY = {"forest": ("n_jobs", "warm_start"), "kmeans": (), "pca": (), "ridge": ()}
_CUDA_ONLY = {"forest": {"n_streams": 1}}  # one stream, or trees depend on which is done first


def estimator(name: str, device: str, **arguments: Any) -> Any:
    """The estimator of a name of `CLASSES`, unfitted.

    >>> type(estimator("ridge", "cpu", alpha=1.0)).__module__.partition(".")[0]
    'sklearn'
    """
    module, cls = CLASSES[name]
    library = "cuml" if device == "cuda" else "sklearn"
    if device == "cuda":
        arguments = {key: value for key, value in arguments.items() if key not in _CPU_ONLY[name]}
        arguments |= _CUDA_ONLY.get(name, {})
    return getattr(importlib.import_module(f"{library}.{module}"), cls)(**arguments)
