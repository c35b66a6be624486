"""Device: several arrays in one copy over the bus, in both directions; what is said where CUDA cannot be used."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from gpupipe.cli import doctor, guard
from gpupipe.kernels.gpu_code import MissingCodeError
from gpupipe.runtime import device as devices
from gpupipe.runtime.device import DeviceError, pick, why_no_cuda


def crossed(device) -> tuple[int, int]:
    """Bytes to the device and to the host, so far."""
    copies = device.ledger.as_dict()
    return sum(copies["to_device"].values()), sum(copies["to_host"].values())


def test_arrays_that_are_copied_together_are_what_they_were(device):
    arrays = [
        np.arange(5, dtype=np.int8), np.arange(12, dtype=np.float32).reshape(4, 3), np.array([True, False, True]),
        np.zeros((0, 3), np.float64), np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
        np.float32([np.nan, -0.0]),
    ]  # fmt: skip
    before = crossed(device)
    there = device.asarrays(arrays)
    strided = there[1][:, 1:]
    back = device.to_hosts([*there, strided])
    for array, again in zip([*arrays, arrays[1][:, 1:]], back, strict=True):
        assert isinstance(again, np.ndarray) and again.dtype == array.dtype
        np.testing.assert_array_equal(again, array)
    assert np.signbit(back[5][1])
    n_bytes = 16 + 48 + 16 + 0 + 48 + 16  # each begins at a multiple of 16 bytes
    expected = (n_bytes, n_bytes + 32) if device.kind == "cuda" else (0, 0)
    assert tuple(np.subtract(crossed(device), before)) == expected


BROKEN = """
raise ImportError('''
Failed to import CuPy: libnvrtc.so.13 cannot be opened
many more lines'''.strip())
"""


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A package of a name that is installed and cannot be imported; no device was picked before."""

    def install(name, content=BROKEN):
        (tmp_path / f"{name}.py").write_text(content)
        installed.append(name)
        sys.modules.pop(name, None)

    installed, before = [], dict(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(devices, "_devices", {})
    yield install
    for name in installed:
        sys.modules.pop(name, None)
        if name in before:
            sys.modules[name] = before[name]


def test_a_cupy_that_cannot_be_imported_is_said_in_a_line(broken):
    broken("cupy")
    expected = "cupy is installed but cannot be imported (ImportError: Failed to import CuPy: libnvrtc.so.13"
    assert why_no_cuda().startswith(expected)
    assert "\n" not in why_no_cuda()
    assert pick("auto").kind == "cpu" and expected in pick("auto").reason
    with pytest.raises(DeviceError, match="install it again"):
        pick("cuda")
    assert [f.status for f in doctor.examine() if f.name == "auto"] == ["ok"]


def test_an_rmm_that_cannot_be_imported_is_said_with_both_ways_out(broken):
    broken("cupy", "")
    broken("rmm")
    with pytest.raises(DeviceError, match=r"rmm is installed but cannot .* do without: --set ml\.use_rmm=false"):
        pick("cuda")


def test_a_kernel_without_code_is_a_line_and_no_traceback(capsys):
    def job():
        raise MissingCodeError("12 kernels have no code")

    assert guard.guarded(job, "OUT") == guard.USER_ERROR
    assert capsys.readouterr().err == "gpupipe: 12 kernels have no code\n"
