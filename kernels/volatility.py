"""Volatility: true range, return statistics, range estimators, Bollinger bands."""

from __future__ import annotations

import math

import numpy as np

from .compile import inline
from .series import is_bar, is_price, per_symbol, put, true_range

LEAST_NATR = 1e-4  # percent; below it the logarithm is that of this
SMALLEST_VARIANCE = 1e-15  # of returns: below what one step of a float32 price makes, so there was no move


@per_symbol
def average_true_range(i, high, low, close, offsets, periods, columns, out):
    """True range over n bars.

    0: NATR, 100 * ATR / close, Wilder's average seeded with the mean of n true ranges        1: ln(max(NATR, 1e-4))
    With f = true range / close before, of the last n bars:
    2: f / mean(f)        3: std(f) / mean(f), the variation of the volatility (population std)

    Periods: n.
    NaN:     an unknown bar starts the average anew. Without any range 2 is 1 and 3 is 0.
    Source:  TA-Lib NATR.
    """
    n_sets = periods.shape[0]
    symbol, s = i // n_sets, i % n_sets
    n = periods[s, 0]
    run = 0
    average = np.float64(0)
    for row in range(offsets[symbol], offsets[symbol + 1]):
        if not is_bar(high, low, close, row):
            run = 0
            continue
        run += 1
        if run == 1:
            average = np.float64(0)
            continue
        span = true_range(high, low, close, row)
        if run <= n + 1:
            average += span
            if run == n + 1:
                average /= n
        else:
            average = (average * (n - 1) + span) / n
        if run <= n:
            continue
        natr = 100 * average / np.float64(close[row])
        put(out, row, columns[s, 0], natr)
        put(out, row, columns[s, 1], math.log(max(natr, LEAST_NATR)))
        if columns[s, 2] >= 0 or columns[s, 3] >= 0:
            mean = np.float64(0)
            for j in range(row - n + 1, row + 1):
                mean += true_range(high, low, close, j) / np.float64(close[j - 1]) / n
            square = np.float64(0)
            for j in range(row - n + 1, row + 1):
                square += (true_range(high, low, close, j) / np.float64(close[j - 1]) - mean) ** 2 / n
            last = span / np.float64(close[row - 1])
            put(out, row, columns[s, 2], last / mean if mean > 0 else np.float64(1))
            put(out, row, columns[s, 3], math.sqrt(square) / mean if mean > 0 else np.float64(0))


@inline
def put_moments(x, row, n, columns, s, out):
    """Outputs 3 to 5 of return_statistics for the n values to row."""
    mean = np.float64(0)
    for j in range(row - n + 1, row + 1):
        mean += np.float64(x[j])
    mean /= n
    second = np.float64(0)
    third = np.float64(0)
    fourth = np.float64(0)
    lagged = np.float64(0)
    before = np.float64(0)
    for j in range(row - n + 1, row + 1):
        d = np.float64(x[j]) - mean
        second += d * d / n
        third += d * d * d / n
        fourth += d * d * d * d / n
        lagged += d * before / n
        before = d
    moved = second > SMALLEST_VARIANCE
    put(out, row, columns[s, 3], third / (second * math.sqrt(second)) if moved else np.float64(0))
    put(out, row, columns[s, 4], fourth / (second * second) - 3 if moved else np.float64(0))
    put(out, row, columns[s, 5], lagged / second if moved else np.float64(0))


@per_symbol
def return_statistics(i, x, offsets, periods, columns, out):
    """Statistics of n returns x.

    0: sqrt(mean(x^2)), realised volatility a bar        1: sqrt(mean(min(x, 0)^2)), the downside part
    2: max |x|        3: skewness        4: excess kurtosis        5: autocorrelation at lag 1 (population moments)

    Periods: n.
    NaN:     where one of the n returns is. Without any variance 3, 4 and 5 are 0.
    Source:  Cont (2001), Empirical properties of asset returns.
    """
    n_sets = periods.shape[0]
    symbol, s = i // n_sets, i % n_sets
    n = periods[s, 0]
    run = 0
    n_moves = 0  # an exact count: when it is 0 the sums are set to 0, and no rounding of old moves stays in them
    square = np.float64(0)
    down_square = np.float64(0)
    largest = offsets[symbol]
    for row in range(offsets[symbol], offsets[symbol + 1]):
        value = np.float64(x[row])
        if math.isnan(value):
            run = 0
            continue
        if run == 0 or n_moves == 0:
            square = np.float64(0)
            down_square = np.float64(0)
        if run == 0:
            n_moves = 0
        run += 1
        n_moves += value != 0
        square += value * value
        down_square += min(value, np.float64(0)) ** 2
        if run > n:
            old = np.float64(x[row - n])
            n_moves -= old != 0
            square -= old * old
            down_square -= min(old, np.float64(0)) ** 2
        first = row - min(run, n) + 1
        if largest < first:
            largest = first
            for j in range(first + 1, row):
                if abs(x[j]) > abs(x[largest]):
                    largest = j
        if abs(x[row]) >= abs(x[largest]):
            largest = row
        if run >= n:
            put(out, row, columns[s, 0], math.sqrt(max(square, np.float64(0)) / n) if n_moves else np.float64(0))
            put(out, row, columns[s, 1], math.sqrt(max(down_square, np.float64(0)) / n) if n_moves else np.float64(0))
            put(out, row, columns[s, 2], abs(np.float64(x[largest])))
            if columns[s, 3] >= 0 or columns[s, 4] >= 0 or columns[s, 5] >= 0:
                put_moments(x, row, n, columns, s, out)


@per_symbol
def volatility_ratio(i, x, offsets, periods, columns, out):
    """0: sqrt(mean(x^2) of n_short / mean(x^2) of n_long) of returns x.

    Periods: n_short <= n_long.
    NaN:     where one of the n_long returns is. Without any move it is 1.
    Source:  ratio of two realised volatilities.
    """
    n_sets = periods.shape[0]
    symbol, s = i // n_sets, i % n_sets
    n_short, n_long = periods[s, 0], periods[s, 1]
    run = 0
    for row in range(offsets[symbol], offsets[symbol + 1]):
        run = run + 1 if x[row] == x[row] else 0
        if run < n_long:
            continue
        short = np.float64(0)
        for j in range(row - n_short + 1, row + 1):
            short += np.float64(x[j]) * np.float64(x[j])
        long = short
        for j in range(row - n_long + 1, row - n_short + 1):
            long += np.float64(x[j]) * np.float64(x[j])
        put(out, row, columns[s, 0], math.sqrt(short / n_short / (long / n_long)) if long > 0 else np.float64(1))


@per_symbol
def range_volatility(i, open, high, low, close, offsets, periods, columns, out):
    """Volatility a bar from n bars' open, high, low and close: u, d, c = ln(high, low, close / open), g = ln(open / close before).

    0: Parkinson, sqrt(mean((u - d)^2) / (4 ln 2))
    1: Garman-Klass, sqrt(mean((u - d)^2 / 2 - (2 ln 2 - 1) c^2))
    2: Rogers-Satchell, sqrt(mean(u (u - c) + d (d - c)))
    3: Yang-Zhang, sqrt(var(g) + k var(c) + (1 - k) RS^2), k = 0.34 / (1.34 + (n + 1) / (n - 1)), var with n - 1

    Periods: n >= 2.
    NaN:     where one of the n bars is unknown; Yang-Zhang also where the close before them is. A negative mean is 0.
    Source:  Parkinson (1980), Garman and Klass (1980), Rogers and Satchell (1991), Yang and Zhang (2000).
    """  # noqa: E501
    n_sets = periods.shape[0]
    symbol, s = i // n_sets, i % n_sets
    n = periods[s, 0]
    run = 0
    n_moves = 0
    span2 = np.float64(0)
    body = np.float64(0)
    body2 = np.float64(0)
    satchell = np.float64(0)
    gap = np.float64(0)
    gap2 = np.float64(0)
    for row in range(offsets[symbol], offsets[symbol + 1]):
        run = run + 1 if is_bar(high, low, close, row) and is_price(open[row]) else 0
        if run == 0:
            n_moves = 0
        if n_moves == 0:  # an exact count: no rounding of old moves stays in the sums
            span2 = np.float64(0)
            body = np.float64(0)
            body2 = np.float64(0)
            satchell = np.float64(0)
            gap = np.float64(0)
            gap2 = np.float64(0)
        for side in range(min(run, 1) + (run > n)):  # the bar that comes, then the bar that leaves
            bar = row - side * n
            weight = np.float64(1 - 2 * side)
            u = math.log(np.float64(high[bar]) / np.float64(open[bar]))
            d = math.log(np.float64(low[bar]) / np.float64(open[bar]))
            c = math.log(np.float64(close[bar]) / np.float64(open[bar]))
            g = math.log(np.float64(open[bar]) / np.float64(close[bar - 1])) if run - side * n > 1 else np.float64(0)
            n_moves += (1 - 2 * side) * (u > d or g != 0)
            span2 += weight * (u - d) ** 2
            body += weight * c
            body2 += weight * c * c
            satchell += weight * (u * (u - c) + d * (d - c))
            gap += weight * g
            gap2 += weight * g * g
        if run < n:
            continue
        moved = np.float64(n_moves > 0)
        klass = span2 / 2 - (2 * math.log(2.0) - 1) * body2
        put(out, row, columns[s, 0], moved * math.sqrt(max(span2, 0.0) / (4 * math.log(2.0)) / n))
        put(out, row, columns[s, 1], moved * math.sqrt(max(klass, 0.0) / n))
        put(out, row, columns[s, 2], moved * math.sqrt(max(satchell, 0.0) / n))
        if run > n:
            k = 0.34 / (1.34 + (n + 1) / (n - 1))
            variance = (gap2 - gap * gap / n + k * (body2 - body * body / n)) / (n - 1) + (1 - k) * satchell / n
            put(out, row, columns[s, 3], moved * math.sqrt(max(variance, 0.0)))


@per_symbol
def bollinger(i, close, offsets, periods, columns, out):
    """Bollinger bands, mean -+ 2 population std of n closes.

    0: %b, (close - lower) / (upper - lower)        1: width, (upper - lower) / mean

    Periods: n.
    NaN:     where one of the n closes is unknown. Without any deviation %b is 0.5.
    Source:  TA-Lib BBANDS, STDDEV.
    """
    n_sets = periods.shape[0]
    symbol, s = i // n_sets, i % n_sets
    n = periods[s, 0]
    run = 0
    for row in range(offsets[symbol], offsets[symbol + 1]):
        run = run + 1 if is_price(close[row]) else 0
        if run < n:
            continue
        mean = np.float64(0)
        for j in range(row - n + 1, row + 1):
            mean += np.float64(close[j])
        mean /= n
        square = np.float64(0)
        for j in range(row - n + 1, row + 1):
            square += (np.float64(close[j]) - mean) ** 2
        deviation = math.sqrt(square / n)
        place = (np.float64(close[row]) - mean) / (4 * deviation) + 0.5 if deviation > 0 else np.float64(0.5)
        put(out, row, columns[s, 0], place)
        put(out, row, columns[s, 1], 4 * deviation / mean)
