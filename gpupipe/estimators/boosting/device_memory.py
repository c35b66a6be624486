"""XGBoost's memory on a GPU: from the pool of CUDA's driver, in every thread that fits or predicts there."""

from __future__ import annotations

import threading

_thread = threading.local()  # pool_is_set: whether this thread has been here


def use_driver_pool(kind: str) -> None:
    """Let XGBoost allocate from the driver's own pool in the calling thread, on CUDA, where its build can.

    kind: of the device, "cpu" or "cuda".

    Without it each matrix and each round waits for cudaMalloc and cudaFree, which stop the whole device. The setting
    `use_cuda_async_pool` (XGBoost 3.2 and later) holds for one thread, as all of XGBoost's global settings do. Builds
    with RMM refuse it: they allocate from RMM's pool.

        >>> use_driver_pool("cpu")  # nothing to do
    """
    if kind != "cuda" or getattr(_thread, "pool_is_set", False):
        return
    import xgboost

    build = xgboost.build_info()
    if build.get("USE_CUDA") and not build.get("USE_RMM"):
        xgboost.set_config(use_cuda_async_pool=True)
    _thread.pool_is_set = True
