"""Sums in a fixed order: the same bits on any number of threads, on a CPU and on a GPU."""

from __future__ import annotations

import math

import numpy as np

from .compile import kernel

ROWS_OF_BLOCK = 500  # rows that are added up one after the other
SUM, COUNT = 0, 1  # of `sums`


@kernel(types=("f4[:,:]", "f8[:,:,:]"), double_precision=True, brief=64)
def column_sums(i, values, sums):
    """Sum and number of the known values of a column over a block of rows, where i = block * n_columns + column.

    A block has ROWS_OF_BLOCK rows, the last one what is left. Sums are float64, in the order of the rows.

    Reads:   the rows of the block.
    Inputs:  values float32 (n_rows, n_columns).
    Outputs: sums float64 (2, n_blocks, n_columns): SUM, and COUNT of the values that are not NaN.
    NaN:     left out.
    """
    n_columns = values.shape[1]
    block = i // n_columns
    j = i - block * n_columns
    total, count = np.float64(0.0), np.int64(0)
    for row in range(block * ROWS_OF_BLOCK, min(values.shape[0], (block + 1) * ROWS_OF_BLOCK)):
        value = values[row, j]
        if value == value:
            total += np.float64(value)
            count += 1
    sums[SUM, block, j], sums[COUNT, block, j] = total, np.float64(count)


@kernel(types=("f4[:,:]", "f4[:,:]", "f4[:]"), brief=True)
def derivative_norm(i, gradient, hessian, norm):
    """The root of the sum of squares of all derivatives of row i, added up column by column.

    Reads:   row i alone.
    Inputs:  gradient, hessian float32 (n_rows, n_outputs).
    Outputs: norm float32 (n_rows,).
    NaN:     a derivative that is NaN makes the norm of its row NaN.
    """
    total = np.float32(0.0)
    for k in range(gradient.shape[1]):
        total += gradient[i, k] * gradient[i, k] + hessian[i, k] * hessian[i, k]
    norm[i] = np.float32(math.sqrt(total))
