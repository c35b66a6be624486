"""Windows of a feature matrix: the rows before each row, gathered, scaled and clipped in one pass."""

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
