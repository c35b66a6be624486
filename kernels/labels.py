"""Label kernel: take-profit and draw-down barriers of all horizons and thresholds in one pass over the future."""

from __future__ import annotations

import numpy as np

from .compile import barrier, cooperative, inline, kernel, lane, n_lanes

SELL, HOLD, BUY, UNKNOWN = 0, 1, 2, -1
TILE_ROWS = 1024  # of barrier_labels: its windows stay in the first cache


@inline
def mark_unknown(y, first, last, begin, stop, column, n_columns):
    """UNKNOWN in `n_columns` columns from `column` on, of those of the rows begin to stop - 1 that are in the tile."""
    for row in range(max(first, begin), min(last, stop)):
        for k in range(column, column + n_columns):
            y[k, row] = UNKNOWN


@inline
def symbol_at(offsets, row):
    """The symbol that holds a row."""
    low, high = 0, offsets.shape[0] - 1
    while high - low > 1:
        middle = (low + high) // 2
        if offsets[middle] <= row:
            low = middle
        else:
            high = middle
    return low


@cooperative(types=("f4[:,:,:]", "f4[:]", "f4[:]", "f4[:]", "i8[:]", "i8[:]", "f4[:]", "f4[:]", "i1[:,:]"))
def barrier_labels(i, scratch, high, low, close, offsets, horizons, up, down, y):
    """What tp_dd says of y under "take_profit_first" over bars, and nothing else: tile i of TILE_ROWS rows.

    Extremes of 2, 4, 8, ... rows come from those of half as many, and any window is two of these that overlap: the cost
    of a row grows with the logarithm of the longest horizon, and every step is one comparison of whole vectors. That
    takes no notice of what is not known, nor of where symbols end; what it says there is overwritten by UNKNOWN.

    Reads:   high, low, close of the rows of the tile and horizons[-1] after it, the future. A label, never a feature.
    Inputs:  scratch float32 (n_workers, 4 + 2 * n_thresholds, >= TILE_ROWS + horizons[-1]); the others as in tp_dd.
    Outputs: y int8 (n_horizons * n_thresholds, n_rows): labels beside each other would be stored one by one.
    NaN:     y is UNKNOWN where close[i], or a high, low or close of the window, is NaN, where close[i] <= 0, and where
             the symbol has fewer rows left than the horizon.
    Source:  sparse table of range extremes (Bender and Farach-Colton, 2000).
    """
    first = i * TILE_ROWS
    last = min(first + TILE_ROWS, close.shape[0])
    n_thresholds, longest = up.shape[0], horizons[-1]
    reach = min(last + longest, close.shape[0])
    rows, wide = last - first, reach - first
    entries = close[first:last]
    for m in range(n_thresholds):
        top, bottom = scratch[4 + 2 * m], scratch[5 + 2 * m]
        rise, fall = up[m], down[m]
        for t in range(lane(), rows, n_lanes()):
            top[t] = entries[t] * rise
            bottom[t] = entries[t] * fall
    highest, lowest = scratch[0], scratch[1]  # of the `size` rows from each row on
    highs, lows, closes = high[first:reach], low[first:reach], close[first:reach]
    n_unknown = np.int32(0)
    for t in range(lane(), wide, n_lanes()):
        highest[t] = highs[t]
        lowest[t] = lows[t]
        not_a_price = (closes[t] != closes[t]) | (closes[t] <= np.float32(0.0))
        unknown = (highs[t] != highs[t]) | (lows[t] != lows[t]) | not_a_price
        n_unknown += np.int32(1) if unknown else np.int32(0)
    barrier()
    size, here = 1, 0
    for k in range(horizons.shape[0]):
        while 2 * size <= horizons[k] and 2 * size <= wide:
            here = 2 - here
            higher, lower = scratch[here], scratch[here + 1]
            next_highest, next_lowest = highest[size:], lowest[size:]
            for t in range(lane(), wide - 2 * size + 1, n_lanes()):
                higher[t] = highest[t] if highest[t] > next_highest[t] else next_highest[t]
                lower[t] = lowest[t] if lowest[t] < next_lowest[t] else next_lowest[t]
            highest, lowest = higher, lower
            size *= 2
            barrier()
        # Rows whose window ends in reach; the others are the last of their symbol, and UNKNOWN.
        n_whole = max(0, min(rows, wide - horizons[k]))
        late = 1 + horizons[k] - size
        early_high, early_low = highest[1 : n_whole + 1], lowest[1 : n_whole + 1]
        late_high, late_low = highest[late : n_whole + late], lowest[late : n_whole + late]
        for m in range(n_thresholds):
            top, bottom, label = scratch[4 + 2 * m], scratch[5 + 2 * m], y[k * n_thresholds + m, first:last]
            for t in range(lane(), n_whole, n_lanes()):
                reached = early_high[t] if early_high[t] > late_high[t] else late_high[t]
                fell_to = early_low[t] if early_low[t] < late_low[t] else late_low[t]
                sells = np.int8(SELL) if fell_to <= bottom[t] else np.int8(HOLD)
                label[t] = np.int8(BUY) if reached >= top[t] else sells
        barrier()
    if n_unknown > 0:
        for t in range(lane(), wide, n_lanes()):
            h, l, c = high[first + t], low[first + t], close[first + t]  # noqa: E741
            row = first + t
            if not c > np.float32(0.0):
                mark_unknown(y, first, last, row, row + 1, 0, y.shape[0])
            if h != h or l != l or c != c:
                for k in range(horizons.shape[0]):
                    mark_unknown(y, first, last, row - horizons[k], row, k * n_thresholds, n_thresholds)
    symbol = symbol_at(offsets, first) + lane()
    while symbol < offsets.shape[0] - 1 and offsets[symbol + 1] - longest < last:
        begin, stop = offsets[symbol], offsets[symbol + 1]
        for k in range(horizons.shape[0]):
            ended = max(begin, stop - horizons[k])
            mark_unknown(y, first, last, ended, stop, k * n_thresholds, n_thresholds)
        symbol += n_lanes()


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
