"""`install`: put the stand-in in the place of the CUDA libraries, for the whole process."""

from __future__ import annotations

import importlib.util
import sys


def install(exact: bool = False, checked: bool = False) -> None:
    """Replace cupy, rmm and cuml, and change XGBoost and Torch, in this process; call it before gpupipe takes a device.

    exact: results of CuPy are numpy's to the last bit (see `rounding`).  checked: kernels are run with checks of races,
    bounds and memory that nobody wrote; RefusedError for the first fault.
    RuntimeError if one of the libraries has been imported.
    """
    loaded = {"cupy", "rmm", "cuml", "cudf"} & sys.modules.keys()
    if loaded:
        raise RuntimeError(f"{', '.join(sorted(loaded))} have been imported: install the stand-in before them")
    import numba.cuda  # noqa: F401  it looks for CuPy

    from tests.support.stand_in import cuml_like, cupy_like, kernels, rmm_like, rounding, xgboost_cuda

    rounding.EXACT.on = exact
    kernels.CHECKED.on = checked
    cupy_like.install()
    rmm_like.install()
    cuml_like.install()
    xgboost_cuda.install()
    if importlib.util.find_spec("torch") is not None:
        from tests.support.stand_in import torch_like

        torch_like.install()
