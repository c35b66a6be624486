"""Trend: moving averages, MACD, directional movement, and how far and how long ago the extremes are."""

from __future__ import annotations

import numpy as np

from .series import is_bar, is_price, per_symbol, put, row_of_highest, row_of_lowest, true_range


@per_symbol
def moving_average(i, close, offsets, periods, columns, out):
    """Close over its moving averages of n bars, less 1.

    0: close / SMA(n) - 1        1: close / EMA(n) - 1, EMA += 2 / (n + 1) * (close - EMA), seeded with the first SMA(n)

    Periods: n.
    NaN:     an unknown close leaves the sum after n bars; the EMA starts anew after it, as after a symbol's start.
    Source:  TA-Lib SMA, EMA.
    """
    n_sets = periods.shape[0]
    symbol, s = i // n_sets, i % n_sets
    n = periods[s, 0]
    run = 0
    total = np.float64(0)
    average = np.float64(0)
    for row in range(offsets[symbol], offsets[symbol + 1]):
        if not is_price(close[row]):
            run = 0
            total = np.float64(0)
            continue
        price = np.float64(close[row])
        run += 1
        total += price
        if run > n:
            total -= np.float64(close[row - n])
            average += np.float64(2) / (n + 1) * (price - average)
        elif run == n:
            average = total / n
        if run >= n:
            put(out, row, columns[s, 0], price / (total / n) - 1)
            put(out, row, columns[s, 1], price / average - 1)


@per_symbol
def macd(i, close, offsets, periods, columns, out):
    """Moving average convergence and divergence, over the close.

    line = EMA(fast) - EMA(slow), signal = EMA of the line; both price EMAs start on the bar on which the slow one can.
    0: line / close        1: signal / close        2: (line - signal) / close

    Periods: fast, slow, signal; fast <= slow.
    NaN:     an unknown close starts everything anew.
    Source:  TA-Lib MACD.
    """
    n_sets = periods.shape[0]
    symbol, s = i // n_sets, i % n_sets
    n_fast, n_slow, n_signal = periods[s, 0], periods[s, 1], periods[s, 2]
    run = 0
    fast = np.float64(0)
    slow = np.float64(0)
    signal = np.float64(0)
    for row in range(offsets[symbol], offsets[symbol + 1]):
        if not is_price(close[row]):
            run = 0
            continue
        if run == 0:
            fast = np.float64(0)
            slow = np.float64(0)
            signal = np.float64(0)
        price = np.float64(close[row])
        run += 1
        if run <= n_slow:
            slow += price
            if run > n_slow - n_fast:
                fast += price
            if run == n_slow:
                slow /= n_slow
                fast /= n_fast
        else:
            slow += np.float64(2) / (n_slow + 1) * (price - slow)
            fast += np.float64(2) / (n_fast + 1) * (price - fast)
        n_lines = run - n_slow + 1
        line = fast - slow
        if n_lines > n_signal:
            signal += np.float64(2) / (n_signal + 1) * (line - signal)
        elif n_lines >= 1:
            signal += line / n_signal
        if n_lines >= n_signal:
            put(out, row, columns[s, 0], line / price)
            put(out, row, columns[s, 1], signal / price)
            put(out, row, columns[s, 2], (line - signal) / price)


@per_symbol
def directional(i, high, low, close, offsets, periods, columns, out):
    """Wilder's directional movement of n bars.

    0: ADX        1: +DI        2: -DI, all 0 to 100, smoothed by x - x / n + new; ADX starts with the mean of n DX.

    Periods: n.
    NaN:     an unknown bar starts everything anew. No range: DI are 0, ADX stays.
    Source:  TA-Lib ADX, PLUS_DI, MINUS_DI.
    """
    n_sets = periods.shape[0]
    symbol, s = i // n_sets, i % n_sets
    n = periods[s, 0]
    run = 0
    plus = np.float64(0)
    minus = np.float64(0)
    span = np.float64(0)
    adx = np.float64(0)
    for row in range(offsets[symbol], offsets[symbol + 1]):
        if not is_bar(high, low, close, row):
            run = 0
            continue
        run += 1
        if run == 1:
            plus = np.float64(0)
            minus = np.float64(0)
            span = np.float64(0)
            adx = np.float64(0)
            continue
        if run > n:
            plus -= plus / n
            minus -= minus / n
            span -= span / n
        up = np.float64(high[row]) - np.float64(high[row - 1])
        down = np.float64(low[row - 1]) - np.float64(low[row])
        if up > 0 and up > down:
            plus += up
        if down > 0 and down > up:
            minus += down
        span += true_range(high, low, close, row)
        if run <= n:
            continue
        if plus + minus > 0:
            dx = 100 * abs(plus - minus) / (plus + minus)
            adx = adx + dx / n if run <= 2 * n else (adx * (n - 1) + dx) / n
        if run >= 2 * n:
            put(out, row, columns[s, 0], adx)
        put(out, row, columns[s, 1], 100 * plus / span if span > 0 else np.float64(0))
        put(out, row, columns[s, 2], 100 * minus / span if span > 0 else np.float64(0))


@per_symbol
def extremes(i, high, low, close, offsets, periods, columns, out):
    """Distance to, and bars since, the highest high and the lowest low of the last n bars, the newest of equal ones.

    0: close / highest - 1               1: close / lowest - 1
    2: bars since the highest            3: bars since the lowest
    4: 100 * (1 - bars since the highest / (n - 1))        5: the same of the lowest: Aroon of n - 1

    Periods: n >= 2.
    NaN:     where one of the n bars is unknown.
    Source:  TA-Lib MAX, MIN, AROON.
    """
    n_sets = periods.shape[0]
    symbol, s = i // n_sets, i % n_sets
    n = periods[s, 0]
    run = 0
    highest = offsets[symbol]
    lowest = offsets[symbol]
    for row in range(offsets[symbol], offsets[symbol + 1]):
        if not is_bar(high, low, close, row):
            run = 0
            continue
        run += 1
        first = row - min(run, n) + 1
        highest = row_of_highest(high, first, row, highest)
        lowest = row_of_lowest(low, first, row, lowest)
        if run >= n:
            price = np.float64(close[row])
            put(out, row, columns[s, 0], price / np.float64(high[highest]) - 1)
            put(out, row, columns[s, 1], price / np.float64(low[lowest]) - 1)
            put(out, row, columns[s, 2], np.float64(row - highest))
            put(out, row, columns[s, 3], np.float64(row - lowest))
            put(out, row, columns[s, 4], 100 * (1 - np.float64(row - highest) / (n - 1)))
            put(out, row, columns[s, 5], 100 * (1 - np.float64(row - lowest) / (n - 1)))
