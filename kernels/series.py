"""What the feature kernels share: the form of their arguments, and the small functions that they inline."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import numpy as np

from .compile import Kernel, inline, kernel

# Typed, or comparing a float32 with them would be done in float64.
ZERO = np.float32(0)
INFINITY = np.float32(np.inf)
LARGEST = np.float32(3.4e38)
MAX_OUTPUTS = 8  # a kernel numbers its outputs 0 to 7


def per_symbol(body: Callable[..., None]) -> Kernel:
    """Decorator: a kernel of `body(i, inputs..., offsets, periods, columns, out)`: i is a symbol and a set of periods.

    i is symbol * n_sets + set: a thread walks one symbol's rows once, for one set of periods.
    Inputs:  float32 (n_rows,) each, offsets int64 (n_symbols + 1,) as in Panel; periods int64 (n_sets, n_periods);
             columns int64 (n_sets, MAX_OUTPUTS), the column of `out` for each output, -1 if it is not wanted.
    Outputs: out float32 (n_rows, n_features), NaN on entry; only known values of wanted outputs are written.
    Reads:   rows offsets[symbol] to the row written, never later ones: that is what makes it a feature.
    Sums are float64: a window of 200 prices loses no digit that float32 can hold.
    """
    n_inputs = len(inspect.signature(body).parameters) - 5
    types = (*("f4[:]",) * n_inputs, "i8[:]", "i8[:,:]", "i8[:,:]", "f4[:,:]")
    return kernel(types=types, double_precision=True)(body)


@inline
def is_price(x):
    """Whether x is finite and positive; anything else counts as not known."""
    return x > ZERO and x < INFINITY


@inline
def is_bar(high, low, close, row):
    """Whether the high, low and close of the row are known."""
    return is_price(high[row]) and is_price(low[row]) and is_price(close[row])


@inline
def put(out, row, column, value):
    """Write a wanted output; one that float32 cannot hold stays NaN, never infinite."""
    if column >= 0 and abs(value) < LARGEST:
        out[row, column] = np.float32(value)


@inline
def true_range(high, low, close, row):
    """max(high, close before) - min(low, close before), in price; the row before must be of the same symbol."""
    before = np.float64(close[row - 1])
    return max(np.float64(high[row]), before) - min(np.float64(low[row]), before)


@inline
def row_of_highest(x, first, row, found):
    """The newest row of the highest x in first..row, `found` being that of the window that ended one row before."""
    if found < first:
        found = first
        for j in range(first + 1, row):
            if x[j] >= x[found]:
                found = j
    return row if x[row] >= x[found] else found


@inline
def row_of_lowest(x, first, row, found):
    """The newest row of the lowest x in first..row, `found` being that of the window that ended one row before."""
    if found < first:
        found = first
        for j in range(first + 1, row):
            if x[j] <= x[found]:
                found = j
    return row if x[row] <= x[found] else found


@inline
def sign(x):
    """-1, 0 or 1."""
    return np.float64(x > 0) - np.float64(x < 0)


@kernel(types=("f4[:]", "f4[:]", "i8[:]", "f4[:]", "f4[:]"), double_precision=True)
def returns(i, open, close, offsets, log_return, log_gap):
    """Logarithms of price ratios of symbol i, read by the kernels that need many of them.

    log_return[t] = ln(close[t] / close[t - 1])        log_gap[t] = ln(open[t] / close[t - 1])

    Reads:   rows t - 1 and t.
    Inputs:  open, close float32 (n_rows,); offsets int64 (n_symbols + 1,).
    Outputs: log_return, log_gap float32 (n_rows,), every row written.
    NaN:     the first row of a symbol, and where a price is not finite and positive.
    """
    for row in range(offsets[i], offsets[i + 1]):
        log_return[row] = np.float32(math.nan)
        log_gap[row] = np.float32(math.nan)
        if row > offsets[i] and is_price(close[row - 1]):
            before = np.float64(close[row - 1])
            if is_price(close[row]):
                log_return[row] = np.float32(math.log(np.float64(close[row]) / before))
            if is_price(open[row]):
                log_gap[row] = np.float32(math.log(np.float64(open[row]) / before))
