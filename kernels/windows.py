"""Windows of a feature matrix, gathered, scaled and clipped in one pass; moments by which columns are scaled."""

from __future__ import annotations

import numpy as np

from .compile import inline, kernel


@inline
def scaled_and_clipped(value, offset, scale, low, high):
    """(value - offset) / scale, clipped to [low, high]; 0 for NaN."""
    z = (value - offset) / scale
    z = low if z < low else high if z > high else z
    return z if z == z else np.float32(0.0)


@kernel(
    types=(
        "f4[:,:]", "i8[:]", "i8[:]", "i8", "i8[:]", "i8[:]", "f4[:]", "f4[:]", "f4[:]", "f4[:]", "f4[:,:,:]"
    ),
    brief=True,
)  # fmt: skip
def scaled_windows(i, values, rows, first, start, positions, columns, offset, scale, low, high, windows):
    """Bar b of window w, where i = w * length + b: a row of the feature matrix, scaled, clipped, without NaN.

    With k = positions[w] - start, which numbers the rows of this matrix, and r = rows[k] - (length - 1) + b:

        windows[w, b, j] = clip((values[r, columns[j]] - offset[j]) / scale[j], low[j], high[j])

    and 0 for all columns where r < first[k]. A window whose k is none of this matrix's rows is left as it is: it is
    one of another matrix, whose call writes it.

    Reads:   values[rows[k] - length + 1 : rows[k] + 1], the row and its past, not beyond first[k].
    Inputs:  values float32 (n_rows, n_features); rows int64 (n,), row numbers; first int64 (n,), the first row of each
             row's symbol; start int64, the position of rows[0] among those of all matrices; positions int64
             (n_windows,); columns int64 (n_columns,), numbers of columns of values, or (0,) for all of them; offset,
             scale, low, high float32 (n_columns,), scale > 0.
    Outputs: windows float32 (n_windows, length, n_columns), oldest bar first.
    NaN:     0.
    """
    length = windows.shape[1]
    w = i // length
    b = i - w * length
    k = positions[w] - start
    if k >= 0 and k < rows.shape[0]:
        r = rows[k] - (length - 1) + b
        if r < first[k]:
            for j in range(windows.shape[2]):
                windows[w, b, j] = np.float32(0.0)
        elif columns.shape[0] == 0:  # without a column's number to look up, the loop becomes vector instructions
            for j in range(windows.shape[2]):
                windows[w, b, j] = scaled_and_clipped(values[r, j], offset[j], scale[j], low[j], high[j])
        else:
            for j in range(windows.shape[2]):
                windows[w, b, j] = scaled_and_clipped(values[r, columns[j]], offset[j], scale[j], low[j], high[j])


@kernel(
    types=("f4[:,:]", "i8[:]", "i8[:]", "f8[:]", "f4[:,:]", "f4[:,:]", "i8[:,:]", "f8[:,:]", "f8[:,:]"),
    double_precision=True,
)  # fmt: skip
def column_moments(i, values, rows, columns, centre, low, high, count, total, squares):
    """Moments of a column over a block of rows, where i = block * n_columns + column.

    Over the finite values x = values[r, columns[column]] of the rows r of the block: the smallest and the largest x,
    their number, and the sums of x - centre and of its square. Blocks have `ceil(n / n_blocks)` rows each, the last
    one what is left. Sums are float64, in the order of the rows, so that they are the same on any number of threads.

    Reads:   values[rows].
    Inputs:  values float32 (n_rows, n_features); rows int64 (n,), row numbers; columns int64 (n_columns,), numbers of
             columns of values; centre float64 (n_columns,).
    Outputs: low, high float32 (n_blocks, n_columns), +inf and -inf without a finite value; count int64, total, squares
             float64, likewise.
    NaN:     left out, like infinite values.
    """
    n_columns = columns.shape[0]
    block = i // n_columns
    j = i - block * n_columns
    size = (rows.shape[0] + low.shape[0] - 1) // low.shape[0]
    smallest, largest = np.float32(np.inf), np.float32(-np.inf)
    known, added, squared = 0, 0.0, 0.0
    for k in range(block * size, min(rows.shape[0], (block + 1) * size)):
        x = values[rows[k], columns[j]]
        if x - x == np.float32(0.0):  # neither NaN nor infinite
            smallest = x if x < smallest else smallest
            largest = x if x > largest else largest
            known += 1
            distance = np.float64(x) - centre[j]
            added += distance
            squared += distance * distance
    low[block, j], high[block, j], count[block, j] = smallest, largest, known
    total[block, j], squares[block, j] = added, squared
