"""The CPU compiler: how many threads a loop takes, where compiled loops are kept."""

from __future__ import annotations

import os
import pathlib
import threading

import numba
import numpy as np
import pytest
from numba.core import caching

from gpupipe.kernels import compile as compiler
from gpupipe.kernels import notice
from gpupipe.kernels.compile import Kernel, kernel


@kernel(types=("f4[:]", "f4[:]"))
def halved(i, x, y):
    """y = x / 2."""
    y[i] = x[i] * np.float32(0.5)


THRESHOLD = np.float32(0)


@kernel(types=("f4[:]",))
def raised(i, x):
    """x = THRESHOLD."""
    x[i] = THRESHOLD


@pytest.fixture
def fresh():
    """A kernel that nothing has compiled yet."""
    return Kernel(halved.body, types=halved.types)


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


def test_a_call_waits_for_no_thread_that_others_keep_busy(monkeypatch):
    monkeypatch.setattr(compiler, "n_threads", lambda: 2)
    compiler._pool.cache_clear()
    release, entered = threading.Event(), threading.Semaphore(0)

    def occupy():
        entered.release()
        release.wait(60)

    try:
        busy = [compiler._pool().submit(occupy) for _ in range(2)]
        for _ in busy:
            assert entered.acquire(timeout=60)
        x, y = np.arange(100, dtype=np.float32), np.zeros(100, np.float32)
        halved(100, x, y)
        assert np.array_equal(y, x / 2) and not any(one.done() for one in busy)
    finally:
        release.set()
        compiler._pool().shutdown()
        compiler._pool.cache_clear()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of the user, and none in the environment."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return tmp_path


def refused(*_):
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("place", ["NUMBA_CACHE_DIR", "beside the source", "the user's cache"])
def test_a_loop_is_kept_where_a_folder_can_be_written_and_found_there(place, cache, monkeypatch):
    """In an environment that only root may write to, compiled loops are in the user's cache."""
    folder = pathlib.Path(__file__).parent / "__pycache__"
    if place == "NUMBA_CACHE_DIR":
        monkeypatch.setattr(numba.config, "CACHE_DIR", str(cache / "given"))
        folder = cache / "given"
    elif place == "the user's cache":
        monkeypatch.setattr(caching.InTreeCacheLocator, "ensure_cache_path", refused)
        folder = cache / "user/numba"
    threshold = np.float32(os.getpid() % 2**22 * 4 + {"NUMBA_CACHE_DIR": 1, "beside the source": 2}.get(place, 3))

    def of_this_process() -> Kernel:
        """Its constant is the process's, so that no other run of this test has compiled it."""
        monkeypatch.setitem(globals(), "THRESHOLD", threshold)
        return Kernel(raised.body, types=raised.types)

    told: list[str] = []
    monkeypatch.setattr(notice, "compiling", told.append)
    first = of_this_process()
    assert first.kept is False
    _ = first.cpu
    assert told == ["test_compile.raised"]
    again = of_this_process()
    assert again.kept is True and (notice.made[-1].name, notice.made[-1].loaded) == ("test_compile.raised", False)
    x = np.zeros(3, np.float32)
    again(3, x)
    assert x.tolist() == [threshold] * 3 and notice.made[-1].loaded and len(told) == 1
    files = [file for file in folder.rglob("test_compile.raised_*.nb?") if str(again._loop[0].__name__) in file.name]
    assert len(files) == 2
    for file in files:
        file.unlink()


def test_where_no_folder_can_be_written_nothing_is_kept(cache, monkeypatch):
    for locator in (caching.InTreeCacheLocator, caching.UserWideCacheLocator):
        monkeypatch.setattr(locator, "ensure_cache_path", refused)
    item = Kernel(halved.body, types=halved.types)
    assert item.kept is None
    y = np.zeros(2, np.float32)
    item(2, np.array([1, 3], np.float32), y)
    assert y.tolist() == [0.5, 1.5] and not notice.made[-1].loaded
