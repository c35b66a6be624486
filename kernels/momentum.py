"""Momentum: rate of change, RSI, stochastics and Williams %R, CCI."""

from __future__ import annotations

import numpy as np

from .compile import inline
from .series import is_bar, is_price, per_symbol, put


@per_symbol
def rate_of_change(i, close, offsets, periods, columns, out):
    """0: 100 * (close / close n bars before - 1), percent.

    Periods: n.
    NaN:     where one of the two closes is unknown.
    Source:  TA-Lib ROC.
    """
    n_sets = periods.shape[0]
    symbol, s = i // n_sets, i % n_sets
    n = periods[s, 0]
    for row in range(offsets[symbol] + n, offsets[symbol + 1]):
        if is_price(close[row]) and is_price(close[row - n]):
            put(out, row, columns[s, 0], 100 * (np.float64(close[row]) / np.float64(close[row - n]) - 1))


@per_symbol
def relative_strength(i, close, offsets, periods, columns, out):
    """0: RSI, 100 * gain / (gain + loss): Wilder's averages of the n last rises and falls, seeded with their means.

    Periods: n.
    NaN:     an unknown close starts the averages anew. Without any move it is 50 (TA-Lib: 0).
    Source:  TA-Lib RSI.
    """
    n_sets = periods.shape[0]
    symbol, s = i // n_sets, i % n_sets
    n = periods[s, 0]
    run = 0
    gain = np.float64(0)
    loss = np.float64(0)
    for row in range(offsets[symbol], offsets[symbol + 1]):
        if not is_price(close[row]):
            run = 0
            continue
        run += 1
        if run == 1:
            gain = np.float64(0)
            loss = np.float64(0)
            continue
        change = np.float64(close[row]) - np.float64(close[row - 1])
        if run <= n + 1:
            gain += max(change, np.float64(0)) / n
            loss += max(-change, np.float64(0)) / n
        else:
            gain = (gain * (n - 1) + max(change, np.float64(0))) / n
            loss = (loss * (n - 1) + max(-change, np.float64(0))) / n
        if run > n:
            put(out, row, columns[s, 0], 100 * gain / (gain + loss) if gain + loss > 0 else np.float64(50))


@inline
def place_in_range(high, low, close, row, n):
    """100 * (close - lowest) / (highest - lowest) of the n bars to row; 50 without any range."""
    highest = high[row]
    lowest = low[row]
    for j in range(row - n + 1, row):
        highest = max(highest, high[j])
        lowest = min(lowest, low[j])
    span = np.float64(highest) - np.float64(lowest)
    return 100 * (np.float64(close[row]) - np.float64(lowest)) / span if span > 0 else np.float64(50)


@per_symbol
def stochastic(i, high, low, close, offsets, periods, columns, out):
    """Where the close lies in the range of the last n bars.

    raw = 100 * (close - lowest) / (highest - lowest)
    0: Williams %R, raw - 100        1: slow %K, SMA(raw, n_k)        2: slow %D, SMA(slow %K, n_d)

    Periods: n, n_k, n_d.
    NaN:     where a bar of the windows is unknown. Without any range raw is 50 (TA-Lib: 0, and 0 for %R).
    Source:  TA-Lib WILLR, STOCH.
    """
    n_sets = periods.shape[0]
    symbol, s = i // n_sets, i % n_sets
    n, n_k, n_d = periods[s, 0], periods[s, 1], periods[s, 2]
    run = 0
    for row in range(offsets[symbol], offsets[symbol + 1]):
        if not is_bar(high, low, close, row):
            run = 0
            continue
        run += 1
        n_raw = min(n_k + n_d - 1, run - n + 1)
        slow_k = np.float64(0)
        slow_d = np.float64(0)
        for lag in range(n_raw):
            raw = place_in_range(high, low, close, row - lag, n)
            if lag == 0:
                put(out, row, columns[s, 0], raw - 100)
            if lag < n_k:
                slow_k += raw / n_k
            # An average of averages: the number of the n_d values of %K that this raw value is part of.
            slow_d += raw * min(lag + 1, n_k, n_d, n_k + n_d - 1 - lag) / (n_k * n_d)
        if n_raw >= n_k:
            put(out, row, columns[s, 1], slow_k)
        if n_raw >= n_k + n_d - 1:
            put(out, row, columns[s, 2], slow_d)


@inline
def typical_price(high, low, close, row):
    """(high + low + close) / 3."""
    return (np.float64(high[row]) + np.float64(low[row]) + np.float64(close[row])) / 3


@per_symbol
def channel_index(i, high, low, close, offsets, periods, columns, out):
    """0: CCI, (typical - mean) / (0.015 * mean absolute deviation) of the typical price over n bars.

    Periods: n.
    NaN:     where one of the n bars is unknown. Without any deviation it is 0.
    Source:  TA-Lib CCI.
    """
    n_sets = periods.shape[0]
    symbol, s = i // n_sets, i % n_sets
    n = periods[s, 0]
    run = 0
    for row in range(offsets[symbol], offsets[symbol + 1]):
        run = run + 1 if is_bar(high, low, close, row) else 0
        if run < n:
            continue
        mean = np.float64(0)
        for j in range(row - n + 1, row + 1):
            mean += typical_price(high, low, close, j)
        mean /= n  # after the sum, which is exact: equal prices have no deviation at all
        deviation = np.float64(0)
        for j in range(row - n + 1, row + 1):
            deviation += abs(typical_price(high, low, close, j) - mean) / n
        excess = typical_price(high, low, close, row) - mean
        put(out, row, columns[s, 0], excess / (0.015 * deviation) if deviation > 0 else np.float64(0))
