"""XGBoost's pool of device memory is asked for once in each thread, on CUDA, and of builds that have it."""

from __future__ import annotations

import threading

import pytest
import xgboost

from gpupipe.estimators.boosting import device_memory


@pytest.fixture
def asked(monkeypatch):
    """What XGBoost's settings of a thread are set to, in order."""
    settings = []
    monkeypatch.setattr(xgboost, "set_config", lambda **given: settings.append((threading.get_ident(), given)))
    monkeypatch.setattr(xgboost, "build_info", lambda: {"USE_CUDA": True, "USE_RMM": False})
    monkeypatch.setattr(device_memory, "_thread", threading.local())
    return settings


def test_once_in_each_thread(asked):
    threads = [threading.Thread(target=device_memory.use_driver_pool, args=("cuda",)) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    for _ in range(2):
        device_memory.use_driver_pool("cuda")
    assert [given for _, given in asked] == 3 * [{"use_cuda_async_pool": True}]
    assert asked[-1][0] == threading.get_ident()


def test_not_on_a_cpu(asked):
    device_memory.use_driver_pool("cpu")
    assert not asked


@pytest.mark.parametrize("build", [{"USE_CUDA": True, "USE_RMM": True}, {"USE_CUDA": False}], ids=["rmm", "cpu"])
def test_not_of_a_build_that_refuses_it(asked, monkeypatch, build):
    monkeypatch.setattr(xgboost, "build_info", lambda: build)
    device_memory.use_driver_pool("cuda")
    assert not asked


def test_the_installed_build_knows_the_setting():
    assert "use_cuda_async_pool" in xgboost.get_config()
