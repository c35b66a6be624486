"""Windows of a feature matrix: equal to a plain gathering and numpy's arithmetic, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from gpupipe.kernels.windows import scaled_windows

N_ROWS, N_FEATURES = 40, 6
FIRSTS = np.array([0, 11, 12, 25])  # first rows of four symbols, one of them of a single row


def matrix(seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 3, (N_ROWS, N_FEATURES)).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    values[3, 1], values[20, 2] = np.inf, -np.inf
    return values


def naive(values, rows, first, columns, offset, scale, low, high, length) -> np.ndarray:
    """The same windows, one bar after the other."""
    windows = np.zeros((len(rows), length, len(offset)), np.float32)
    for w, (row, start) in enumerate(zip(rows, first, strict=True)):
        for b in range(length):
            r = row - length + 1 + b
            if r >= start:
                with np.errstate(invalid="ignore"):
                    z = (values[r][columns] - offset) / scale
                windows[w, b] = np.where(np.isnan(z), 0, np.clip(z, low, high))
    return windows


def gather(values, rows, first, columns, offset, scale, low, high, length) -> np.ndarray:
    windows = np.full((len(rows), length, len(offset)), np.nan, np.float32)
    scaled_windows(
        len(rows) * length, values, rows, first, np.int64(0), np.arange(len(rows)), columns, offset, scale, low, high,
        windows,
    )  # fmt: skip
    return windows


@pytest.mark.parametrize("length", [1, 3, 60])
@pytest.mark.parametrize("columns", [np.empty(0, np.int64), np.array([5, 0, 0]), np.array([2])], ids=len)
def test_windows_equal_a_plain_gathering(columns, length):
    rng = np.random.default_rng(1)
    values, rows = matrix(), rng.permutation(N_ROWS)[:30]
    first = FIRSTS[np.searchsorted(FIRSTS, rows, side="right") - 1]
    n_columns = len(columns) or N_FEATURES
    drawn = rng.uniform([0, 0.5, -1, 1], [1, 2, -0.5, 2], (n_columns, 4)).astype(np.float32)
    offset, scale, low, high = np.ascontiguousarray(drawn.T)
    low[0] = high[0] = 0
    got = gather(values, rows, first, columns, offset, scale, low, high, length)
    numbers = columns if len(columns) else np.arange(N_FEATURES)
    np.testing.assert_array_equal(got, naive(values, rows, first, numbers, offset, scale, low, high, length))
    assert (got >= low).all() and (got <= high).all() and not got[:, :, 0].any()


def test_windows_of_another_matrix_are_left_as_they_are():
    values, rows, none = matrix(), np.array([30, 31]), np.empty(0, np.int64)
    ones = np.ones(N_FEATURES, np.float32)
    windows = np.full((4, 2, N_FEATURES), 7, np.float32)
    positions = np.array([4, 5, 3, 6])  # rows[0] is position 4
    scaled_windows(8, values, rows, np.array([25, 25]), np.int64(4), positions, none, ones, ones, -ones, ones, windows)
    assert (windows[2:] == 7).all() and (windows[:2] != 7).all()


def test_no_windows_write_nothing():
    none, ones = np.empty(0, np.int64), np.ones(N_FEATURES, np.float32)
    empty = np.empty((0, 5, N_FEATURES), np.float32)
    scaled_windows(0, matrix(), none, none, np.int64(0), none, none, ones, ones, -ones, ones, empty)


def test_another_dtype_is_refused():
    with pytest.raises(ValueError, match="values is float64"):
        gather(matrix().astype(float), *[np.zeros(1, np.int64)] * 3, *[np.ones(1, np.float32)] * 4, 1)
