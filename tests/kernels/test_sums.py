"""Sums in a fixed order: equal to those of Python's floats in that order, with unknown values left out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpupipe.kernels.sums import COUNT, ROWS_OF_BLOCK, SUM, column_sums, derivative_norm


@pytest.mark.parametrize("n_rows", [0, 1, ROWS_OF_BLOCK, ROWS_OF_BLOCK + 1, 3 * ROWS_OF_BLOCK - 7])
def test_column_sums_add_the_rows_of_a_block_in_order(n_rows):
    rng = np.random.default_rng(1)
    values = rng.normal(0, 1e3, (n_rows, 3)).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    n_blocks = -(-n_rows // ROWS_OF_BLOCK)
    sums = np.full((2, n_blocks, 3), np.nan)
    column_sums(n_blocks * 3, values, sums)
    for block in range(n_blocks):
        for j in range(3):
            total, count = 0.0, 0
            for value in values[block * ROWS_OF_BLOCK : (block + 1) * ROWS_OF_BLOCK, j].tolist():
                if not math.isnan(value):
                    total, count = total + value, count + 1
            assert (sums[SUM, block, j], sums[COUNT, block, j]) == (total, count)


def test_the_norm_of_derivatives():
    rng = np.random.default_rng(2)
    gradient, hessian = rng.normal(size=(2, 50, 12)).astype(np.float32)
    gradient[3, 4] = np.nan
    norm = np.empty(50, np.float32)
    derivative_norm(50, gradient, hessian, norm)
    np.testing.assert_allclose(norm, np.sqrt((gradient**2 + hessian**2).sum(axis=1)), rtol=1e-6)
    assert np.isnan(norm[3]) and not np.isnan(np.delete(norm, 3)).any()
