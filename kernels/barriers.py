"""The price of a barrier, in one place: labels and backtest compare highs and lows with it."""

from __future__ import annotations

import numpy as np

from .compile import inline, kernel

LARGEST = np.float64(2.0**24)  # from here on float32 leaves out whole numbers
ONE, NEXT = np.float64(1.0), np.float64(0.6 * 2.0**-23)  # NEXT: relative, to the next float32 and to no other
# A product of a decimal and a factor, both rounded to float64, is off by less than 2**-51. Moved towards the price by
# more than that, a barrier that is itself a decimal is never put beyond it.
TOWARDS = np.float64(2.0**-46)
FINEST, FINEST_PER_UNIT = np.float64(1e-7), np.float64(1e7)  # the finest step of decimals, below a price of 1


@inline
def steps_of(price):
    """10 ** k: the step of decimals that float32 keeps apart up to a price, in units of 1e-7; 1e-4 below 1,024.

    Products with truth values, not branches: compilers make vector instructions of them, and are done sooner.
    """
    above_1, above_16, above_128 = np.int32(price >= 1.0), np.int32(price >= 16.0), np.int32(price >= 128.0)
    above_1k, above_16k = np.int32(price >= 1024.0), np.int32(price >= 16384.0)
    above_131k, above_1m = np.int32(price >= 131072.0), np.int32(price >= 1048576.0)
    small = max(max(1, above_1 * 10), max(above_16 * 100, above_128 * 1000))
    large = max(max(above_1k * 10_000, above_16k * 100_000), max(above_131k * 1_000_000, above_1m * 10_000_000))
    return np.float64(np.int32(max(small, large)))  # type: ignore[arg-type]


@inline
def decimal_of(price):
    """The decimal, as float64, of which a float32 price is the rounding; the price itself if there is none."""
    exact = np.float64(price)
    inside = (exact > 0.0) & (exact < LARGEST)
    bounded = exact if inside else ONE  # an integer holds its ticks
    steps = steps_of(bounded)
    tick = steps * FINEST
    ticks = np.float64(np.int32(bounded * (FINEST_PER_UNIT / steps)))
    below, above = ticks * tick, (ticks + ONE) * tick
    decimal = above if np.float32(above) == price else exact
    return below if np.float32(below) == price else decimal


@inline
def barrier_above(price, factor):
    """The smallest float32 that reaches price * factor in decimals; factor is 1 + t.

    With B = decimal_of(price) * factor: B rounded to float32 (in a tie downwards), or the next float32 where B would be
    rounded to a decimal below B. So of two highs that are decimals of at most as many digits as float32 keeps apart at
    B, `>=` tells the one that reaches B from the one that does not.

    price float32; factor float64.  NaN: a NaN price gives NaN.
    """
    target = decimal_of(price) * (factor * (ONE - TOWARDS))
    inside = (target > 0.0) & (target < LARGEST)
    bounded = target if inside else ONE
    steps = steps_of(bounded)
    exact_ticks = bounded * (FINEST_PER_UNIT / steps)
    ticks = np.float64(np.int32(exact_ticks))
    below = (ticks if ticks < exact_ticks else ticks - ONE) * (steps * FINEST)  # the last decimal short of B
    barrier, short = np.float32(target), np.float32(below)
    return np.float32(np.float64(short) * (ONE + NEXT)) if barrier == short else barrier


@inline
def barrier_below(price, factor):
    """The largest float32 that reaches price * factor in decimals, for lows; factor is 1 - t: see barrier_above."""
    target = decimal_of(price) * (factor * (ONE + TOWARDS))
    inside = (target > 0.0) & (target < LARGEST)
    bounded = target if inside else ONE
    steps = steps_of(bounded)
    ticks = np.float64(np.int32(bounded * (FINEST_PER_UNIT / steps)))
    above = (ticks + ONE) * (steps * FINEST)  # the last decimal short of B, on its other side
    barrier, short = np.float32(target), np.float32(above)
    return np.float32(np.float64(short) * (ONE - NEXT)) if barrier == short else barrier


@kernel(types=("f4[:]", "f8", "f4[:]", "f4[:]"), double_precision=True)
def barrier_prices(i, price, threshold, above, below):
    """The barriers of price i: see `barrier_above` and `barrier_below`.

    Inputs:  price float32 (n,); threshold float64, t.
    Outputs: above, below float32 (n,), NaN where the price is.
    """
    above[i] = barrier_above(price[i], ONE + threshold)
    below[i] = barrier_below(price[i], ONE - threshold)
