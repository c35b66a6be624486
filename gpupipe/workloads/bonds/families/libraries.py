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


class _Keeper:
    """The limit of the process, kept by a thread of its own.

    threadpoolctl lets one thread alone, the first, set the threads of an OpenBLAS that all threads share, and ignores
    others while that one lives. A limit that is set in a step and lifted in another one would thus stay, and a step
    could be without one.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._thread, self._leave = threading.Thread(), threading.Event()

    def enter(self) -> None:
        """Limit the process, if no other thread is inside."""
        with self._lock:
            if not self._inside:
                kept, self._leave = threading.Event(), threading.Event()
                self._thread = threading.Thread(target=self._keep, args=(kept, self._leave), daemon=True)
                self._thread.start()
                try:
                    kept.wait()
                except BaseException:  # Ctrl-C
                    self._leave.set()
                    raise
            self._inside += 1

    def leave(self) -> None:
        """Lift the limit, if no other thread is inside."""
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._leave.set()
                self._thread.join()

    @staticmethod
    def _keep(kept: threading.Event, leave: threading.Event) -> None:
        import threadpoolctl

        try:
            # A caller may hold a limit, around this one, and with it the right to set others.
            take = getattr(threadpoolctl.OpenBLASController, "clear_controlling_thread", None)
            if take is not None:
                take(force=True)
            with threadpoolctl.threadpool_limits(1, "blas"):
                kept.set()
                leave.wait()
        finally:
            kept.set()


_keeper = _Keeper()
_of_thread = threading.local()  # depth: how many times the thread is inside


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within it, BLAS has one thread in all of the process, or sums, and so models, depend on the number of cores.

    The last thread that leaves lifts the limit: a step that ends would else lift it for another that still runs.
    """
    from threadpoolctl import threadpool_limits

    _of_thread.depth = getattr(_of_thread, "depth", 0) + 1
    try:
        if _of_thread.depth > 1:
            yield
            return
        _keeper.enter()
        try:
            with threadpool_limits(1, "blas"):  # a BLAS on OpenMP has a limit for each thread
                yield
        finally:
            _keeper.leave()
    finally:
        _of_thread.depth -= 1


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
    # Import statements, as cache keys hold the versions of what these name.
    if device == "cuda":
        import cuml  # noqa: F401

        arguments = cuml_arguments(name, arguments)
    else:
        import sklearn  # noqa: F401
    module, cls = CLASSES[name]
    library = "cuml" if device == "cuda" else "sklearn"
    return getattr(importlib.import_module(f"{library}.{module}"), cls)(**arguments)
