"""Windows: batches over several feature matrices equal RowView's windows, scaled, and take little memory."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="batches are Torch's tensors; torch is not installed")

from gpupipe.dataset.feature_rows import FeatureRows  # noqa: E402
from gpupipe.dataset.row_view import RowView  # noqa: E402
from gpupipe.estimators.torch.scaler import WindowScaler, fit_scaler  # noqa: E402
from gpupipe.estimators.torch.windows import Windows  # noqa: E402
from tests.support.matrices import dataset_of  # noqa: E402


def views(seed=0) -> list[FeatureRows]:
    """Rows in random order of three matrices, of 200 rows, 1 row and 90 rows, with missing values."""
    rng = np.random.default_rng(seed)
    parts = []
    for offsets, rows in ([0, 50, 51, 200], 70), ([0, 1], 1), ([0, 90], 40):
        X = rng.normal(size=(offsets[-1], 5)).astype(np.float32)
        X[rng.random(X.shape) < 0.1] = np.nan
        parts.append(RowView(dataset_of(X, offsets), rng.permutation(offsets[-1])[:rows]).features)
    return parts


def expected(parts, length, scaler, positions) -> np.ndarray:
    """The windows of RowView, scaled by numpy."""
    return scaler.scaled(np.concatenate([view.windows(length) for view in parts]))[positions]


@pytest.mark.parametrize("length", [1, 7, 60])
@pytest.mark.parametrize("columns", [None, [4, 1]], ids=str)
def test_a_batch_equals_the_windows_of_the_views_scaled_by_numpy(columns, length):
    parts = views()
    if columns is not None:
        parts = [view.take_columns(np.array(columns)) for view in parts]
    scaler = fit_scaler(parts, clip=1.5)
    windows = Windows(parts, length, scaler)
    assert windows.n == 111
    positions = np.random.default_rng(1).permutation(windows.n)
    batch = windows.batch(positions)
    assert batch.dtype == torch.float32 and batch.is_contiguous()
    np.testing.assert_array_equal(batch.numpy(), expected(parts, length, scaler, positions))
    again = windows.batch(torch.from_numpy(positions[:9]))
    np.testing.assert_array_equal(again.numpy(), expected(parts, length, scaler, positions[:9]))


def test_the_buffer_is_the_threads_own():
    parts = views()
    windows = Windows(parts, 3, fit_scaler(parts))
    first, buffers = windows.batch(np.arange(20)), []
    assert windows.batch(np.arange(10)).data_ptr() == first.data_ptr()
    thread = threading.Thread(target=lambda: buffers.append(windows.batch(np.arange(20)).data_ptr()))
    thread.start()
    thread.join()
    assert buffers != [first.data_ptr()]


def test_gather_writes_to_a_given_tensor():
    parts = views()
    windows = Windows(parts, 3, fit_scaler(parts))
    out = torch.empty(4, 3, 5)
    windows.gather(np.arange(4), out)
    np.testing.assert_array_equal(out.numpy(), windows.batch(np.arange(4)).numpy())
    np.testing.assert_array_equal(windows.part(slice(0, 4)).numpy(), out.numpy())
    with pytest.raises(ValueError, match="expected"):
        windows.gather(np.arange(4), torch.empty(4, 2, 5))


def test_no_rows_and_one_row():
    one = views()[1]
    windows = Windows([one, one.take(np.array([], np.int64))], 4, fit_scaler([one]))
    assert windows.n == 1 and windows.batch(np.array([], np.int64)).shape == (0, 4, 5)
    assert not windows.batch(np.array([0])).any()  # a column of one row has no spread


def test_what_does_not_fit_together_is_refused():
    parts = views()
    with pytest.raises(ValueError, match="the scaler 2"):
        Windows(parts, 3, WindowScaler(*np.float32([[0, 0], [1, 1], [-1, -1], [1, 1]])))
    with pytest.raises(ValueError, match="length of 1 or more"):
        Windows(parts, 0, fit_scaler(parts))
    with pytest.raises(ValueError, match="0 parts"):
        Windows([], 3, fit_scaler(parts))


GATHER_AN_EPOCH = """
import numpy as np
import torch
from gpupipe.dataset.row_view import RowView
from gpupipe.estimators.torch.scaler import fit_scaler
from gpupipe.estimators.torch.windows import Windows
from tests.support.matrices import dataset_of

def held(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))

def epoch(X, step_rows):
    view = RowView(dataset_of(X), np.arange(len(X))).features
    windows = Windows([view], 120, fit_scaler([view]))
    order = np.random.default_rng(0).permutation(windows.n)
    total = sum(float(windows.batch(order[k : k + step_rows])[0, 0, 0]) for k in range(0, windows.n, step_rows))
    assert np.isfinite(total)
    return X.nbytes, step_rows * 120 * X.shape[1] * 4

epoch(np.ones((300, 64), np.float32), 8)  # compiles the kernel, loads what is loaded late
before = held("VmRSS")
matrix, buffers = epoch(np.random.default_rng(0).random((200_000, 64), np.float32), 1024)
print(held("VmHWM") - before, matrix, buffers)
"""


def test_an_epoch_holds_no_more_than_the_matrix_and_a_batch():
    """Length 120, a matrix of 200,000 x 64: copies of all windows would take 120 times the matrix."""
    done = subprocess.run([sys.executable, "-c", GATHER_AN_EPOCH], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    peak, matrix, buffers = map(int, done.stdout.split())
    assert matrix == 200_000 * 64 * 4
    assert peak < 1.3 * matrix + buffers, f"{peak / 1e6:.0f} MB held, of which {matrix / 1e6:.0f} MB are the matrix"
