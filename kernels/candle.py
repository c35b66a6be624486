"""The shape of the last bar, and its place in the calendar."""

from __future__ import annotations

import numpy as np

from .compile import kernel
from .series import INFINITY, ZERO, is_bar, is_price, put

NS_PER_HOUR = np.int64(3_600_000_000_000)


@kernel(types=(*("f4[:]",) * 4, "i8[:]", "i8[:,:]", "i8[:,:]", "f4[:,:]"))
def candle(i, open, high, low, close, offsets, periods, columns, out):
    """The bar's body and shadows.

    0: (close - open) / (high - low)
    1: (high - max(open, close)) / (high - low)        2: (min(open, close) - low) / (high - low)
    3: (high - low) / close        4: close / open - 1        5: open / close before - 1

    Reads:   the row, and the close before it; i is the symbol. Arguments as in series.per_symbol, one set.
    NaN:     where the bar is unknown; 5 also where the close before it is. Without any range 0, 1 and 2 are 0.
    Source:  TA-Lib candle settings (real body, shadows).
    """
    for row in range(offsets[i], offsets[i + 1]):
        if not (is_bar(high, low, close, row) and is_price(open[row])):
            continue
        span = high[row] - low[row]
        divisor = span if span > ZERO else INFINITY
        put(out, row, columns[0, 0], (close[row] - open[row]) / divisor)
        put(out, row, columns[0, 1], (high[row] - max(open[row], close[row])) / divisor)
        put(out, row, columns[0, 2], (min(open[row], close[row]) - low[row]) / divisor)
        put(out, row, columns[0, 3], span / close[row])
        put(out, row, columns[0, 4], close[row] / open[row] - np.float32(1))
        if row > offsets[i] and is_price(close[row - 1]):
            put(out, row, columns[0, 5], open[row] / close[row - 1] - np.float32(1))


@kernel(types=("i8[:]", "i8[:]", "i8[:,:]", "i8[:,:]", "f4[:,:]"))
def calendar(i, time_ns, offsets, periods, columns, out):
    """When the bar is, in UTC.

    0: day of the week, 0 Monday to 6 Sunday        1: days since the symbol's bar before

    Reads:   rows t - 1 and t; i is the symbol. Arguments as in series.per_symbol, one set.
    NaN:     1 in a symbol's first row.
    Source:  days since 1970-01-01, a Thursday.
    """
    for row in range(offsets[i], offsets[i + 1]):
        weekday = (time_ns[row] // (np.int64(24) * NS_PER_HOUR) + np.int64(3)) % np.int64(7)
        put(out, row, columns[0, 0], np.float32(weekday))
        if row > offsets[i]:
            minutes = (time_ns[row] - time_ns[row - 1]) // (NS_PER_HOUR // np.int64(60))
            put(out, row, columns[0, 1], np.float32(minutes) / np.float32(1440))
