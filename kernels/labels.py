"""Label kernel: take-profit and draw-down barriers of all horizons and thresholds in one pass over the future."""

from __future__ import annotations

import numpy as np

from .compile import kernel

SELL, HOLD, BUY, UNKNOWN = 0, 1, 2, -1


@kernel(
    types=(
        "f4[:]", "f4[:]", "f4[:]", "i8[:]", "i4[:]", "i8[:]", "i8[:]", "f4[:]", "f4[:]", "i8", "i8", "i8",
        "i1[:,:]", "f4[:,:]", "f4[:,:]", "f4[:,:]", "i8[:,:]",
    )
)  # fmt: skip
def tp_dd(
    i, high, low, close, position, symbol, offsets, horizons, up, down, calendar, first_touch, ambiguous,
    y, tp, dd, forward_return, exit_row,
):  # fmt: skip
    """Label row i by the barriers that the highs and lows of its window reach.

    The window of horizon h is the rows j > i of the same symbol with position[j] - position[i] <= h. In it

        max_high, min_low = max(high[j]), min(low[j])
        tp = max_high / close[i] - 1        dd = min_low / close[i] - 1

    and, with column k * n_thresholds + m for horizon k and threshold m,

        first_touch = 0:  BUY if max_high >= close[i] * up[m], else SELL if min_low <= close[i] * down[m], else HOLD
        first_touch = 1:  the first row that reaches one of the two prices decides; a row that reaches both
                          gives `ambiguous`; no such row is HOLD

    One float32 product, the rest comparisons, a division and a subtraction: no compiler can contract them, so
    CPU and GPU agree bit for bit. The running extremes go on from the smallest horizon to the largest.

    Reads:   high, low, close[i : end of the symbol], the future of row i. A label, never a feature.
    Inputs:  high, low, close float32 (n_rows,), price; position int64 (n_rows,), rising within a symbol: the row
             number, or the day number if `calendar`; symbol int32 (n_rows,), the symbol of the row; offsets int64
             (n_symbols + 1,); horizons int64 (n_horizons,), rising, in units of position; up, down float32
             (n_thresholds,), the factors 1 + t and 1 - t; calendar, first_touch int64, 0 or 1; ambiguous int64,
             a label.
    Outputs: y int8 (n_rows, n_horizons * n_thresholds); tp, dd, forward_return float32 (n_rows, n_horizons);
             exit_row int64 (n_rows, n_horizons), the last row of the window, i itself where the window is empty.
    NaN:     y is UNKNOWN and the floats NaN where close[i], or a high, low or close of the window, is NaN, where
             close[i] <= 0, and (not calendar) where the symbol has fewer rows left than the horizon.
             An empty calendar window is HOLD with NaN floats.
    """
    stop = offsets[symbol[i] + 1]
    entry = close[i]
    n_thresholds = up.shape[0]
    max_high = np.float32(-np.inf)
    min_low = np.float32(np.inf)
    known = entry > np.float32(0.0)  # false of NaN
    j = i
    for k in range(horizons.shape[0]):
        for m in range(n_thresholds):
            column = k * n_thresholds + m
            y[i, column] = y[i, column - n_thresholds] if k > 0 else HOLD
        while j + 1 < stop and position[j + 1] - position[i] <= horizons[k]:
            j += 1
            known = known and high[j] == high[j] and low[j] == low[j] and close[j] == close[j]
            for m in range(n_thresholds):
                # Under "first touch" a row decides if no earlier row of the window has reached either price.
                if first_touch != 0 and max_high < entry * up[m] and min_low > entry * down[m]:
                    buys, sells = high[j] >= entry * up[m], low[j] <= entry * down[m]
                    if buys or sells:
                        y[i, k * n_thresholds + m] = ambiguous if buys and sells else BUY if buys else SELL
            max_high = high[j] if high[j] > max_high else max_high
            min_low = low[j] if low[j] < min_low else min_low
        known = known and (calendar != 0 or position[j] - position[i] == horizons[k])
        for m in range(n_thresholds):
            if not known:
                y[i, k * n_thresholds + m] = UNKNOWN
            elif first_touch == 0:
                buys, sells = max_high >= entry * up[m], min_low <= entry * down[m]
                y[i, k * n_thresholds + m] = BUY if buys else SELL if sells else HOLD
        measured = known and j > i
        tp[i, k] = max_high / entry - np.float32(1.0) if measured else np.float32(np.nan)
        dd[i, k] = min_low / entry - np.float32(1.0) if measured else np.float32(np.nan)
        forward_return[i, k] = close[j] / entry - np.float32(1.0) if measured else np.float32(np.nan)
        exit_row[i, k] = j
