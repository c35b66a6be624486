"""The compilers: what launching a kernel warns of, how many threads a loop takes, where compiled loops are kept."""

from __future__ import annotations

import warnings

import numba
import numpy as np
import pytest

from gpupipe.kernels import compile as compiler
from gpupipe.kernels.compile import Kernel, kernel


@kernel(types=("f4[:]", "f4[:]"))
def halved(i, x, y):
    """y = x / 2."""
    y[i] = x[i] * np.float32(0.5)


@pytest.fixture
def fresh():
    """A kernel that nothing has compiled yet."""
    return Kernel(halved.body, types=halved.types)


def test_a_small_grid_is_no_warning(fresh, monkeypatch):
    monkeypatch.delenv("NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS", raising=False)
    monkeypatch.setattr(numba.config, "CUDA_LOW_OCCUPANCY_WARNINGS", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _ = fresh.cuda[1, 128]  # the grid is judged here, before a driver is needed
    assert numba.config.CUDA_LOW_OCCUPANCY_WARNINGS == 0


def test_a_small_grid_is_a_warning_where_the_user_asks_for_it(fresh, monkeypatch):
    monkeypatch.setenv("NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS", "1")
    monkeypatch.setattr(numba.config, "CUDA_LOW_OCCUPANCY_WARNINGS", 1)
    with pytest.warns(Warning, match="Grid size 1 will likely result in GPU under-utilization"):
        _ = fresh.cuda[1, 128]


@pytest.mark.parametrize(("cores", "asked", "expected"), [(2, 16, 2), (16, 3, 3), (1, 16, 1)])
def test_a_loop_takes_a_thread_for_each_core_to_use(cores, asked, expected, monkeypatch):
    """Numba counts the cores of the affinity; a container's quota may allow fewer."""
    monkeypatch.setattr(compiler, "_cores", lambda: cores)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", asked)
    compiler._pool.cache_clear()
    try:
        assert compiler.n_threads() == expected == compiler._pool()._max_workers
    finally:
        compiler._pool.cache_clear()
