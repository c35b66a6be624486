"""The price of a barrier, in one place: labels and backtest compare highs and lows with it."""

from __future__ import annotations

import numpy as np

from .compile import inline, kernel

LARGEST = np.float64(2.0**24)  # from here on float32 leaves out whole numbers
ONE, NEXT = np.float64(1.0), np.float64(0.6 * 2.0**-23)  # NEXT: relative, to the next float32 and to no other
# A product of a decimal and a factor, both rounded to float64, is off by less than 2**-51. Moved towards the price by
# more than that, a barrier that is itself a decimal is never put beyond it.
TOWARDS = np.float64(2.0**-46)


# The selections below have no branches, so that compilers make vector instructions of them.
@inline
def ticks_per_unit(price):
    """10 ** digits: as many digits after the point as float32 keeps apart up to a price; 4 below 1,024."""
    scale = np.float64(1e7)
    scale = np.float64(1e6) if price >= 1.0 else scale
    scale = np.float64(1e5) if price >= 16.0 else scale
    scale = np.float64(1e4) if price >= 128.0 else scale
    scale = np.float64(1e3) if price >= 1024.0 else scale
    scale = np.float64(1e2) if price >= 16384.0 else scale
    scale = np.float64(1e1) if price >= 131072.0 else scale
    return np.float64(1e0) if price >= 1048576.0 else scale


@inline
def tick_of(price):
    """1 / ticks_per_unit, rounded to float64: a product with it costs less than a division."""
    tick = np.float64(1e-7)
    tick = np.float64(1e-6) if price >= 1.0 else tick
    tick = np.float64(1e-5) if price >= 16.0 else tick
    tick = np.float64(1e-4) if price >= 128.0 else tick
    tick = np.float64(1e-3) if price >= 1024.0 else tick
    tick = np.float64(1e-2) if price >= 16384.0 else tick
    tick = np.float64(1e-1) if price >= 131072.0 else tick
    return np.float64(1e0) if price >= 1048576.0 else tick


@inline
def decimal_of(price):
    """The decimal, as float64, of which a float32 price is the rounding; the price itself if there is none."""
    exact = np.float64(price)
    inside = (exact > 0.0) & (exact < LARGEST)
    bounded = exact if inside else ONE  # an integer holds its ticks
    tick = tick_of(bounded)
    ticks = np.float64(np.int32(bounded * ticks_per_unit(bounded)))
    below, above = ticks * tick, (ticks + ONE) * tick
    decimal = above if np.float32(above) == price else exact
    decimal = below if np.float32(below) == price else decimal
    return decimal if inside else exact


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
    exact_ticks = bounded * ticks_per_unit(bounded)
    ticks = np.float64(np.int32(exact_ticks))
    below = (ticks if ticks < exact_ticks else ticks - ONE) * tick_of(bounded)  # the last decimal short of B
    barrier, short = np.float32(target), np.float32(below)
    beyond = np.float32(np.float64(short) * (ONE + NEXT))
    chosen = beyond if barrier == short else barrier
    return chosen if inside else barrier


@inline
def barrier_below(price, factor):
    """The largest float32 that reaches price * factor in decimals, for lows; factor is 1 - t: see barrier_above."""
    target = decimal_of(price) * (factor * (ONE + TOWARDS))
    inside = (target > 0.0) & (target < LARGEST)
    bounded = target if inside else ONE
    ticks = np.float64(np.int32(bounded * ticks_per_unit(bounded)))
    above = (ticks + ONE) * tick_of(bounded)
    barrier, short = np.float32(target), np.float32(above)
    beyond = np.float32(np.float64(short) * (ONE - NEXT))
    chosen = beyond if barrier == short else barrier
    return chosen if inside else barrier


@kernel(types=("f4[:]", "f8", "f4[:]", "f4[:]"), double_precision=True)
def barrier_prices(i, price, threshold, above, below):
    """The barriers of price i: see `barrier_above` and `barrier_below`.

    Inputs:  price float32 (n,); threshold float64, t.
    Outputs: above, below float32 (n,), NaN where the price is.
    """
    above[i] = barrier_above(price[i], ONE + threshold)
    below[i] = barrier_below(price[i], ONE - threshold)
