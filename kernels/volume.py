"""Volume: against its own past, and with the direction of price."""

from __future__ import annotations

import math

import numpy as np

from .compile import inline
from .momentum import typical_price
from .series import INFINITY, ZERO, is_bar, per_symbol, put, sign


@inline
def is_volume(x):
    """Whether x is finite and not negative; anything else counts as not known."""
    return x >= ZERO and x < INFINITY


@per_symbol
def volume_statistics(i, volume, offsets, periods, columns, out):
    """Volume against its past.

    0: mean of n_short bars / mean of n_long bars        1: std / mean of n_long bars (population std)

    Periods: n_short <= n_long.
    NaN:     where one of the n_long volumes is unknown. All zero: 0 is 1 and 1 is 0.
    Source:  ratio of two means; coefficient of variation.
    """
    n_sets = periods.shape[0]
    symbol, s = i // n_sets, i % n_sets
    n_short, n_long = periods[s, 0], periods[s, 1]
    run = 0
    for row in range(offsets[symbol], offsets[symbol + 1]):
        run = run + 1 if is_volume(volume[row]) else 0
        if run < n_long:
            continue
        short = np.float64(0)
        for j in range(row - n_short + 1, row + 1):
            short += np.float64(volume[j])
        mean = short
        for j in range(row - n_long + 1, row - n_short + 1):
            mean += np.float64(volume[j])
        mean /= n_long
        put(out, row, columns[s, 0], short / n_short / mean if mean > 0 else np.float64(1))
        if columns[s, 1] >= 0:
            square = np.float64(0)
            for j in range(row - n_long + 1, row + 1):
                square += (np.float64(volume[j]) - mean) ** 2
            put(out, row, columns[s, 1], math.sqrt(square / n_long) / mean if mean > 0 else np.float64(0))


@per_symbol
def money_flow(i, high, low, close, volume, offsets, periods, columns, out):
    """Volume with the direction of price, over n bars.

    0: MFI, 100 * rising / (rising + falling) of typical price * volume, by the typical price's change
    1: Chaikin money flow, sum(((close - low) - (high - close)) / (high - low) * volume) / sum(volume)
    2: OBV slope, sum(sign(close - close before) * volume) / sum(volume)

    Periods: n.
    NaN:     where one of the n bars is unknown; 0 and 2 also where the bar before them is.
             Nothing flowed: 0 is 50 (TA-Lib: 0), 1 and 2 are 0. A bar without range adds 0 to 1.
    Source:  TA-Lib MFI, AD, OBV.
    """
    n_sets = periods.shape[0]
    symbol, s = i // n_sets, i % n_sets
    n = periods[s, 0]
    run = 0
    for row in range(offsets[symbol], offsets[symbol + 1]):
        run = run + 1 if is_bar(high, low, close, row) and is_volume(volume[row]) else 0
        if run < n:
            continue
        total = np.float64(0)
        rising = np.float64(0)
        falling = np.float64(0)
        chaikin = np.float64(0)
        balance = np.float64(0)
        for j in range(row - n + 1, row + 1):
            traded = np.float64(volume[j])
            total += traded
            span = np.float64(high[j]) - np.float64(low[j])
            if columns[s, 1] >= 0 and span > 0:
                chaikin += (2 * np.float64(close[j]) - np.float64(high[j]) - np.float64(low[j])) / span * traded
            if run > n:
                typical = typical_price(high, low, close, j)
                before = typical_price(high, low, close, j - 1)
                rising += typical * traded if typical > before else np.float64(0)
                falling += typical * traded if typical < before else np.float64(0)
                balance += sign(np.float64(close[j]) - np.float64(close[j - 1])) * traded
        put(out, row, columns[s, 1], chaikin / total if total > 0 else np.float64(0))
        if run > n:
            flow = rising + falling
            put(out, row, columns[s, 0], 100 * rising / flow if flow > 0 else np.float64(50))
            put(out, row, columns[s, 2], balance / total if total > 0 else np.float64(0))
