"""Label kernels: take-profit and draw-down barriers of all horizons and thresholds in one pass over the future."""

from __future__ import annotations

import numpy as np

from .barriers import barrier_above, barrier_below
from .compile import barrier, cooperative, inline, kernel, lane, n_lanes

LOWER_CLASS, MIDDLE_CLASS, UPPER_CLASS, UNKNOWN = 0, 1, 2, -1  # values of y: a barrier, or neither; -1: not known
NEITHER, UPPER, LOWER, BOTH = 0, 1, 2, 3  # the barrier reached first
TILE_ROWS = 1024  # windows of this many rows stay in the L1 cache
NEVER = np.float32(3e38)  # bars until the touch, for a barrier that is not reached
PENDING = np.float32(-1.0)  # reached, but the number of bars is not computed yet
NEAR = 8  # bars ahead that are compared one by one, for all rows together
PEAK, TROUGH, FINAL, LENGTH, SURE, KNOWN, BARRIERS = range(7)  # rows of scratch after the levels


@inline
def mark_unknown(y, first, last, begin, stop, column, n_columns):
    """Write UNKNOWN to n_columns columns from `column` on, in those rows of [begin, stop) that are in the tile."""
    for row in range(max(first, begin), min(last, stop)):
        for k in range(column, column + n_columns):
            y[k, row] = UNKNOWN


@inline
def symbol_at(offsets, row):
    """The symbol of a row, by binary search."""
    low, high = 0, offsets.shape[0] - 1
    while high - low > 1:
        middle = (low + high) // 2
        if offsets[middle] <= row:
            low = middle
        else:
            high = middle
    return low


@cooperative(
    types=("f4[:,:,:]", "f4[:]", "f4[:]", "f4[:]", "i8[:]", "i8[:]", "f8[:]", "f8[:]", "i1[:,:]"),
    double_precision=True,
)
def barrier_labels(i, scratch, high, low, close, offsets, horizons, up, down, y):
    """The y of label_cube under "take_profit_first" over bars, for tile i of TILE_ROWS rows.

    Extremes of 2, 4, 8, ... rows are computed from those of half as many rows, and two overlapping ones cover any
    window. The cost of a row grows with the logarithm of the longest horizon, and every step compares whole vectors.
    These steps ignore NaN and the ends of symbols; the affected labels are overwritten by UNKNOWN afterwards.

    Reads:   high, low, close of the rows of the tile and horizons[-1] after it, the future. A label, never a feature.
    Inputs:  scratch float32 (n_workers, 4 + 2 * n_thresholds, TILE_ROWS + horizons[-1]); the others as in label_cube.
    Outputs: y int8 (n_horizons * n_thresholds, n_rows); the rows of a label are contiguous, so that stores are vectors.
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
        for t in range(lane(), rows, n_lanes()):  # one barrier a loop: LLVM leaves a loop of both without vectors
            top[t] = barrier_above(entries[t], rise)
        for t in range(lane(), rows, n_lanes()):
            bottom[t] = barrier_below(entries[t], fall)
    highest, lowest = scratch[0], scratch[1]  # over the `size` rows that start at each row
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
        # Rows whose window ends inside the tile's reach; the others are the last of their symbol, and UNKNOWN.
        n_whole = max(0, min(rows, wide - horizons[k]))
        late = 1 + horizons[k] - size
        early_high, early_low = highest[1 : n_whole + 1], lowest[1 : n_whole + 1]
        late_high, late_low = highest[late : n_whole + late], lowest[late : n_whole + late]
        for m in range(n_thresholds):
            top, bottom, label = scratch[4 + 2 * m], scratch[5 + 2 * m], y[k * n_thresholds + m, first:last]
            for t in range(lane(), n_whole, n_lanes()):
                reached = early_high[t] if early_high[t] > late_high[t] else late_high[t]
                fell_to = early_low[t] if early_low[t] < late_low[t] else late_low[t]
                lower_or_middle = np.int8(LOWER_CLASS) if fell_to <= bottom[t] else np.int8(MIDDLE_CLASS)
                label[t] = np.int8(UPPER_CLASS) if reached >= top[t] else lower_or_middle
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


@kernel(types=("i8[:]", "i4[:]", "i8[:]", "i8[:]", "i8[:,:]"))
def calendar_ends(i, day, symbol, offsets, horizons, exit_row):
    """The last row of row i's calendar window for each horizon: rows j > i of its symbol with day[j] - day[i] <= h.

    Inputs:  day int64 (n_rows,), rising within a symbol; symbol int32 (n_rows,), the symbol of the row; offsets int64
             (n_symbols + 1,); horizons int64 (n_horizons,), days.
    Outputs: exit_row int64 (n_horizons, n_rows), i itself where the window is empty.
    """
    for k in range(horizons.shape[0]):
        inside, outside = i, offsets[symbol[i] + 1]
        while outside - inside > 1:
            middle = (inside + outside) // 2
            if day[middle] - day[i] <= horizons[k]:
                inside = middle
            else:
                outside = middle
        exit_row[k, i] = inside


@inline
def load_extremes(scratch, highs, lows, closes):
    """Load highs to row 0 and negated lows to row 1, NaN as -NEVER; return the number of the lane's bars with a NaN."""
    tops, bottoms = scratch[0], scratch[1]
    n_unknown = np.int32(0)
    for t in range(lane(), highs.shape[0], n_lanes()):
        high, low, close = highs[t], lows[t], closes[t]
        tops[t] = high if high == high else -NEVER
        bottoms[t] = -low if low == low else -NEVER
        n_unknown += np.int32(1) if (high != high) | (low != low) | (close != close) else np.int32(0)
    return n_unknown


@inline
def rows_left(left, exit_row, offsets, horizons, first, calendar):
    """Write how many rows of its symbol follow each row; if not `calendar`, also the last row of each window."""
    symbol, end = symbol_at(offsets, first), first + left.shape[0]
    while symbol < offsets.shape[0] - 1 and offsets[symbol] < end:
        last = offsets[symbol + 1] - 1
        begin, stop = max(offsets[symbol], first), min(last + 1, end)
        of_symbol, after = left[begin - first : stop - first], last - begin
        for t in range(lane(), of_symbol.shape[0], n_lanes()):
            of_symbol[t] = np.float32(after - t)
        if calendar == 0:
            for k in range(horizons.shape[0]):
                ends, whole = exit_row[k, begin:stop], begin + horizons[k]
                for t in range(lane(), ends.shape[0], n_lanes()):
                    ends[t] = whole + t if whole + t < last else last
        symbol += 1


@inline
def stop_at_unknown(left, highs, lows, closes):
    """Lower `left` to the number of consecutive known rows after each row."""
    if lane() == 0:
        run = np.float32(highs.shape[0])
        for t in range(highs.shape[0] - 1, -1, -1):
            if t < left.shape[0] and run < left[t]:
                left[t] = run
            known = highs[t] == highs[t] and lows[t] == lows[t] and closes[t] == closes[t]
            run = run + np.float32(1.0) if known else np.float32(0.0)


@inline
def descend(scratch, side, n_levels, begin, stop, price):
    """The first row in [begin, stop) that reaches a price, by descending the table of extremes; `stop` if none does."""
    row = begin
    for level in range(n_levels - 1, -1, -1):
        size = 1 << level
        if row + size <= stop and scratch[2 * level + side, row] < price:
            row += size
    return row if row < stop and scratch[side, row] >= price else stop


@inline
def first_reached(scratch, side, n_levels, after, price, rows, wide, longest):
    """Write the bars until each row's price is reached, within the longest horizon; NEVER where it is not."""
    near = min(NEAR, longest)
    for t in range(lane(), rows, n_lanes()):
        after[t] = NEVER
    bars = scratch[side]
    for j in range(near, 0, -1):
        later, at = bars[j:wide], np.float32(j)
        for t in range(lane(), min(rows, wide - j), n_lanes()):
            after[t] = at if later[t] >= price[t] else after[t]
    if longest > near:
        n_whole = max(0, min(rows, wide - longest))  # rows whose longest window is inside the table
        late = 1 + longest - (1 << n_levels - 1)
        stretch = scratch[2 * (n_levels - 1) + side]
        early, later = stretch[1 : n_whole + 1], stretch[late : n_whole + late]
        for t in range(lane(), n_whole, n_lanes()):
            highest = early[t] if early[t] > later[t] else later[t]
            after[t] = PENDING if (after[t] == NEVER) & (highest >= price[t]) else after[t]
        for t in range(lane(), rows, n_lanes()):
            if after[t] == PENDING or (t >= n_whole and after[t] == NEVER):
                stop = min(wide, t + 1 + longest)
                row = descend(scratch, side, n_levels, min(t + 1 + near, stop), stop, price[t])
                after[t] = np.float32(row - t) if row < stop else NEVER


@inline
def window_extremes(scratch, of_window, side, n_levels, n_bars, calendar, length, rows, wide):
    """Write the extreme of each row's window, from two overlapping stretches of a power of two that cover it."""
    if calendar == 0:
        level = 0
        while 2 << level <= n_bars:
            level += 1
        late = 1 + n_bars - (1 << level)
        stretch = scratch[2 * level + side]
        early, later = stretch[1:wide], stretch[late:wide]
        for t in range(lane(), min(rows, wide - n_bars), n_lanes()):
            of_window[t] = early[t] if early[t] > later[t] else later[t]
    else:
        for t in range(lane(), rows, n_lanes()):
            n, level = int(length[t]), 0
            while 2 << level <= n:
                level += 1
            if n > 0:
                a, b = scratch[2 * level + side, t + 1], scratch[2 * level + side, t + 1 + n - (1 << level)]
                of_window[t] = a if a > b else b


@inline
def classes(prices, length, known, by_first_touch, ambiguous, y, touch, touch_bars):
    """Write y, touch and touch_bars of one horizon and threshold; prices: upper, lower, and the bars until each."""
    rises, falls = prices[2], prices[3]
    for t in range(lane(), y.shape[0], n_lanes()):
        soonest = rises[t] if rises[t] < falls[t] else falls[t]
        reached = soonest <= length[t]
        first = np.int8(BOTH) if rises[t] == falls[t] else (np.int8(UPPER) if rises[t] < falls[t] else np.int8(LOWER))
        barrier_reached = first if reached else np.int8(NEITHER)
        touch[t] = barrier_reached if (known[t] > 0) & (rises[t] > 0) else np.int8(UNKNOWN)
    for t in range(lane(), y.shape[0], n_lanes()):
        soonest = rises[t] if rises[t] < falls[t] else falls[t]
        reached = (soonest <= length[t]) & (known[t] > 0) & (rises[t] > 0)
        touch_bars[t] = np.int16(soonest if reached else np.float32(0.0))
    if by_first_touch == 0:
        for t in range(lane(), y.shape[0], n_lanes()):
            lower_or_middle = np.int8(LOWER_CLASS) if falls[t] <= length[t] else np.int8(MIDDLE_CLASS)
            label = np.int8(UPPER_CLASS) if rises[t] <= length[t] else lower_or_middle
            y[t] = label if (known[t] > 0) & (rises[t] > 0) else np.int8(UNKNOWN)
    else:
        both = np.int8(ambiguous)
        for t in range(lane(), y.shape[0], n_lanes()):
            code = touch[t]
            label = both if code == BOTH else (np.int8(LOWER_CLASS) if code == LOWER else np.int8(MIDDLE_CLASS))
            label = np.int8(UPPER_CLASS) if code == UPPER else label
            y[t] = label if code != UNKNOWN else np.int8(UNKNOWN)


@inline
def decided_after(prices, ends, first, by_first_touch, entries, decided_bars):
    """Write decided_bars of one horizon and threshold; prices as in classes, ends: the last row of each window."""
    rises, falls = prices[2], prices[3]
    for t in range(lane(), decided_bars.shape[0], n_lanes()):
        soonest = falls[t] if (by_first_touch != 0) & (falls[t] < rises[t]) else rises[t]
        whole = np.float32(ends[t] - first - t)
        bars = soonest if soonest < whole else whole
        decided_bars[t] = np.int16(bars if (entries[t] > 0) & (rises[t] > 0) else np.float32(0.0))


@inline
def left_at(prices, length, known, both_is_up, entries, final, realised_return):
    """Write realised_return of one horizon and threshold; prices as in classes."""
    upper, lower, rises, falls = prices[0], prices[1], prices[2], prices[3]
    for t in range(lane(), realised_return.shape[0], n_lanes()):
        rose = (rises[t] < falls[t]) | (both_is_up & (rises[t] == falls[t]))
        soonest = rises[t] if rises[t] < falls[t] else falls[t]
        price = upper[t] if rose else -lower[t]
        price = price if soonest <= length[t] else final[t]
        measured = (known[t] > 0) & (rises[t] > 0) & (length[t] > 0)
        realised_return[t] = price / entries[t] - np.float32(1.0) if measured else np.float32(np.nan)


@cooperative(
    types=(
        "f4[:,:,:]", "f4[:]", "f4[:]", "f4[:]", "i8[:]", "i8[:]", "i8", "i8[:,:]", "f8[:]", "f8[:]", "f4[:,:]", "i8",
        "i8", "i8", "i1[:,:]", "i1[:,:]", "i2[:,:]", "i2[:,:]", "f4[:,:]", "f4[:,:]", "f4[:,:]", "f4[:,:]",
    ),
    double_precision=True,
)  # fmt: skip
def label_cube(
    i, scratch, high, low, close, offsets, horizons, longest, exit_row, up, down, scaled, calendar, by_first_touch,
    ambiguous, y, touch, touch_bars, decided_bars, realised_return, tp, dd, forward_return,
):  # fmt: skip
    """All label columns of tile i, TILE_ROWS rows, for all horizons and thresholds.

    The window of horizon k and row i is the rows i + 1 to exit_row[k, i]. Over the window

        max_high, min_low = max(high[j]), min(low[j])
        tp = max_high / close[i] - 1        dd = min_low / close[i] - 1

    For each threshold, the upper barrier is reached in the first row with high >= barrier_above(close[i], up), the
    lower one in the first row with low <= barrier_below(close[i], down). In column k * n_thresholds + m, for horizon k
    and threshold m, y is

        take_profit_first:  UPPER_CLASS if the upper barrier is reached, else LOWER_CLASS if the lower barrier is, else
                            MIDDLE_CLASS
        first_touch:        the barrier reached first decides; both in one row is `ambiguous`; neither is MIDDLE_CLASS

    The arithmetic is that of the barriers, in which no sum follows a product, comparisons, a division and a
    subtraction. No compiler can contract them, so CPU and GPU agree bit for bit. Lows are stored negated, so that one
    piece of code serves both barriers.

    Cost of a row: the touch is searched once for all horizons, in the first NEAR bars one by one, then by descending
    the extremes of 2, 4, 8, ... rows. It grows with the logarithm of the longest horizon.

    Reads:   high, low, close of the rows of the tile and `longest` after it, the future. A label, never a feature.
    Inputs:  scratch float32 (n_workers, 2 * (1 + log2 of longest) + BARRIERS + 4 * n_thresholds, TILE_ROWS + longest);
             high, low, close float32 (n_rows,), price; offsets int64 (n_symbols + 1,); horizons int64 (n_horizons,),
             rising; longest int64, rows of the longest window; up, down float64 (n_fixed,), the factors 1 + t and
             1 - t; scaled float32 (n_scaled, n_rows), more thresholds, with a fraction t that differs by row; calendar,
             by_first_touch int64, 0 or 1; ambiguous int64, a class; only with UPPER_CLASS does realised_return take
             the upper barrier for both in one row.
    Outputs: exit_row int64 (n_horizons, n_rows), the symbol's last row where it ends first; if `calendar` an input,
             from calendar_ends.
             Shape (n_horizons * n_thresholds, n_rows): y int8; touch int8 (NEITHER, UPPER, LOWER, BOTH in the first
             row that reaches a barrier, or UNKNOWN); touch_bars int16 (rows until the touch, 0 without one);
             decided_bars int16 (rows until no later row can change y: until the touch under first_touch, until the
             upper barrier is reached under take_profit_first, else until the window ends; also where a later NaN or the
             end of the history makes y UNKNOWN; 0 where the window is empty, close[i] is <= 0 or NaN, or a scaled
             threshold is unknown); realised_return float32 (exit at the barrier reached first, at the lower one if both
             are, else at the window's last close).
             Shape (n_horizons, n_rows): tp, dd, forward_return float32.
    NaN:     y and touch are UNKNOWN and the floats NaN where close[i], or a high, low or close of the window, is NaN,
             where close[i] <= 0, where a scaled threshold is NaN or <= 0, and (not calendar) where the symbol has fewer
             rows left than the horizon. An empty calendar window is MIDDLE_CLASS with NaN floats.
    Source:  sparse table of range extremes (Bender and Farach-Colton, 2000); Lopez de Prado (2018), section 3.4.
    """
    first = i * TILE_ROWS
    last = min(first + TILE_ROWS, close.shape[0])
    wide = min(last + longest, close.shape[0]) - first
    rows = last - first
    n_fixed, n_thresholds = up.shape[0], up.shape[0] + scaled.shape[0]
    n_levels = 1
    while 1 << n_levels <= longest:
        n_levels += 1
    more = 2 * n_levels
    peak, trough, final = scratch[more + PEAK], scratch[more + TROUGH], scratch[more + FINAL]
    length, sure, known = scratch[more + LENGTH], scratch[more + SURE], scratch[more + KNOWN]
    entries, closes = close[first:last], close[first : first + wide]

    highs, lows = high[first : first + wide], low[first : first + wide]
    if lane() == 0:
        known[0] = np.float32(0.0)
    barrier()  # every lane must have left the block's tile before, whose extremes are overwritten now
    if load_extremes(scratch, highs, lows, closes) > 0:
        known[0] = np.float32(1.0)  # a flag for the other lanes
    rows_left(sure[0:rows], exit_row, offsets, horizons, first, calendar)
    barrier()
    if known[0] > 0:
        stop_at_unknown(sure[0:rows], highs, lows, closes)
    barrier()  # every lane must have read known[0] before `known` is written again
    for level in range(1, n_levels):
        half = 1 << level - 1
        for side in range(2):
            below, stretch = scratch[2 * level - 2 + side], scratch[2 * level + side]
            later = below[half:wide]
            for t in range(lane(), wide - 2 * half + 1, n_lanes()):
                stretch[t] = below[t] if below[t] > later[t] else later[t]
        barrier()

    for m in range(n_thresholds):
        prices = more + BARRIERS + 4 * m
        upper, lower = scratch[prices], scratch[prices + 1]
        if m < n_fixed:
            rise, fall = up[m], down[m]
            for t in range(lane(), rows, n_lanes()):
                upper[t] = barrier_above(entries[t], rise)
                lower[t] = -barrier_below(entries[t], fall)
        else:
            fraction = scaled[m - n_fixed, first:last]
            for t in range(lane(), rows, n_lanes()):
                upper[t] = barrier_above(entries[t], np.float64(1.0) + np.float64(fraction[t]))
                lower[t] = -barrier_below(entries[t], np.float64(1.0) - np.float64(fraction[t]))
        first_reached(scratch, 0, n_levels, scratch[prices + 2], upper, rows, wide, longest)
        first_reached(scratch, 1, n_levels, scratch[prices + 3], lower, rows, wide, longest)
        if m >= n_fixed:
            fraction, rises = scaled[m - n_fixed, first:last], scratch[prices + 2]
            for t in range(lane(), rows, n_lanes()):
                rises[t] = rises[t] if fraction[t] > 0 else -NEVER  # without a threshold the label is unknown

    for k in range(horizons.shape[0]):  # without a barrier: what a lane writes from here on, it alone reads
        ends = exit_row[k, first:last]
        for t in range(lane(), rows, n_lanes()):
            length[t] = np.float32(horizons[k])
        if calendar != 0:
            for t in range(lane(), rows, n_lanes()):
                length[t] = np.float32(ends[t] - first - t)
                final[t] = closes[ends[t] - first]
        else:
            later_closes = closes[min(horizons[k], wide) :]
            for t in range(lane(), min(rows, wide - horizons[k]), n_lanes()):
                final[t] = later_closes[t]
        window_extremes(scratch, peak, 0, n_levels, horizons[k], calendar, length, rows, wide)
        window_extremes(scratch, trough, 1, n_levels, horizons[k], calendar, length, rows, wide)
        highest, lowest, returned = tp[k, first:last], dd[k, first:last], forward_return[k, first:last]
        for t in range(lane(), rows, n_lanes()):
            known[t] = np.float32(1.0) if (entries[t] > 0) & (sure[t] >= length[t]) else np.float32(0.0)
            measured = (known[t] > 0) & (length[t] > 0)
            highest[t] = peak[t] / entries[t] - np.float32(1.0) if measured else np.float32(np.nan)
            lowest[t] = -trough[t] / entries[t] - np.float32(1.0) if measured else np.float32(np.nan)
            returned[t] = final[t] / entries[t] - np.float32(1.0) if measured else np.float32(np.nan)
        for m in range(n_thresholds):
            column = k * n_thresholds + m
            classes(
                scratch[more + BARRIERS + 4 * m :], length, known, by_first_touch, ambiguous, y[column, first:last],
                touch[column, first:last], touch_bars[column, first:last],
            )  # fmt: skip
            decided_after(
                scratch[more + BARRIERS + 4 * m :], ends, first, by_first_touch, entries,
                decided_bars[column, first:last],
            )  # fmt: skip
            left_at(
                scratch[more + BARRIERS + 4 * m :], length, known, ambiguous == UPPER_CLASS, entries, final,
                realised_return[column, first:last],
            )  # fmt: skip


@kernel(types=("i8[:]", "i2[:,:]", "f8[:,:]", "f4[:,:]"), double_precision=True)
def average_uniqueness(i, offsets, decided_bars, passed, weight):
    """Mean of 1 / (windows that hold the bar) over the bars of each row's window; i is symbol * n_labels + label.

    A row's window is the decided_bars rows after it. Whether a window holds a bar is known before the bar, so a weight
    depends on nothing after its window.

    Reads:   decided_bars of rows before the end of the row's window.
    Inputs:  offsets int64 (n_symbols + 1,); decided_bars int16 (n_labels, n_rows), 0 for a row that does not count.
    Outputs: passed float64 (n_labels, n_rows), scratch: the running sum of 1 / (windows that hold the bar) over the
             symbol's bars; weight float32 (n_labels, n_rows), NaN where decided_bars is 0.
    Source:  Lopez de Prado (2018), Advances in Financial Machine Learning, snippets 4.1 and 4.2.
    """
    n_labels = decided_bars.shape[0]
    symbol, k = i // n_labels, i % n_labels
    begin, end = offsets[symbol], offsets[symbol + 1]
    for row in range(begin, end):
        passed[k, row] = np.float64(0)
    for row in range(begin, end):  # windows that open at a bar less those that ended at the previous one
        bars = decided_bars[k, row]
        if bars > 0:
            passed[k, row + 1] += np.float64(1)
            if row + bars + 1 < end:
                passed[k, row + bars + 1] -= np.float64(1)
    holding, total = np.float64(0), np.float64(0)
    for row in range(begin, end):
        holding += passed[k, row]
        total += np.float64(1) / holding if holding > 0 else np.float64(0)
        passed[k, row] = total
    for row in range(begin, end):
        bars = decided_bars[k, row]
        mean = (passed[k, row + bars] - passed[k, row]) / np.float64(bars) if bars > 0 else np.float64(np.nan)
        weight[k, row] = np.float32(mean)
