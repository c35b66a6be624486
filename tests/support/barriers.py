"""Barrier prices in numpy, for the references of tests; the decimal arithmetic itself is in tests/targets."""

from __future__ import annotations

import numpy as np

# digits after the point that float32 keeps apart below a price
DIGITS = ((0, 2**24), (1, 1048576), (2, 131072), (3, 16384), (4, 1024), (5, 128), (6, 16), (7, 1))


def barriers_of(price, t):
    """(upper, lower), float32 (n,): of prices float32 (n,) and t, a float or float64 (n,)."""
    exact = np.asarray(price, np.float32).astype(np.float64)
    decimal = exact.copy()
    for digits, below in DIGITS:
        nearest = np.rint(exact * 10.0**digits) / 10.0**digits
        decimal = np.where((exact < below) & (nearest.astype(np.float32) == price), nearest, decimal)
    return tuple(_rounded(decimal * (1 + sign * t), sign) for sign in (1, -1))


def _rounded(target, sign):
    barrier = (target * (1 - sign * 2.0**-46)).astype(np.float32)  # in a tie the float32 towards the price
    scale = np.ones_like(target)
    for digits, below in DIGITS:
        scale[target < below] = 10.0**digits
    ticks = target * scale
    ticks = np.where(np.abs(ticks - np.rint(ticks)) < 1e-6, np.rint(ticks), ticks)
    short = (np.ceil(sign * ticks) - 1) * sign / scale
    rounds_short = (short.astype(np.float32) == barrier) & (target > 0) & (target < 2**24)
    return np.where(rounds_short, np.nextafter(barrier, np.float32(sign * np.inf)), barrier)
