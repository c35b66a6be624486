"""The one table of estimators that have a twin: scikit-learn's on a CPU, cuML's on a GPU."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from gpupipe.runtime.errors import UserError

CLASSES = {
    "forest": ("ensemble", "RandomForestRegressor"),
    "kmeans": ("cluster", "KMeans"),
    "pca": ("decomposition", "PCA"),
    "ridge": ("linear_model", "Ridge"),
}
# Arguments that one of both does not take.
_CPU_ONLY = {"forest": ("n_jobs", "warm_start"), "kmeans": (), "pca": (), "ridge": ()}
_CUDA_ONLY = {"forest": {"n_streams": 1}}  # one stream, or trees depend on which is done first

_lock = threading.Lock()
_limits: list[Any] = []  # an entry for each thread inside `one_blas_thread`; the first, which leaves last, is the limit


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within it, BLAS has one thread in all of the process, or sums, and so models, depend on the number of cores.

    The limit of threadpoolctl counts for the process: a step that ended would lift it for another that still runs. Here
    the last thread that leaves lifts it.
    """
    from threadpoolctl import threadpool_limits

    with _lock:
        _limits.append(None if _limits else threadpool_limits(1, "blas"))
    try:
        yield
    finally:
        with _lock:
            limit = _limits.pop()
            if not _limits:
                limit.restore_original_limits()


def require(device: str) -> None:
    """UserError where the library of a device is not installed. scikit-learn never stands in for cuML unasked."""
    if device == "cuda" and importlib.util.find_spec("cuml") is None:
        raise UserError(
            "bonds need cuML on a GPU, and it is not installed: pip install -e '.[cuda13]' (or '.[cuda12]'), or take "
            "scikit-learn by --device cpu"
        )


def cuml_arguments(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of scikit-learn's estimator of a name as cuML's takes them.

    >>> cuml_arguments("forest", {"max_depth": 6, "n_jobs": 2})
    {'max_depth': 6, 'n_streams': 1}
    """
    return {key: value for key, value in arguments.items() if key not in _CPU_ONLY[name]} | _CUDA_ONLY.get(name, {})


def estimator(name: str, device: str, **arguments: Any) -> Any:
    """The estimator of a name of `CLASSES`, unfitted. arguments: as scikit-learn's takes them.

    >>> type(estimator("ridge", "cpu", alpha=1.0)).__module__.partition(".")[0]
    'sklearn'
    """
    module, cls = CLASSES[name]
    library = "sklearn"
    if device == "cuda":
        library, arguments = "cuml", cuml_arguments(name, arguments)
    return getattr(importlib.import_module(f"{library}.{module}"), cls)(**arguments)
