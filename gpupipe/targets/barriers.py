"""Prices of barriers, which labels, backtest and benchmarks share: those of decimal arithmetic, as float32.

Prices are decimals (4.30), but a Panel holds float32 (4.30000019...). The barrier 10 % above a close of 4.30 is 4.73.
The float32 product of 4.3 and 1.1 is a step above the float32 of 4.73, so that a limit-up to the cent would be missed.
So a barrier price is computed from the decimal of which the close is the rounding:

    B = decimal(close) * (1 + t), in float64
    barrier = B rounded to float32 (in a tie towards the close), or the next float32 away from the close, where B would
              be rounded to a decimal short of B

A high that is a decimal then reaches the barrier (high >= barrier) exactly if it reaches B in decimal arithmetic, where
float32 keeps the decimals apart:

    both prices below         1     16    128  1,024  16,384  131,072
    digits after the point    7      6      5      4       3        2

for every t of at most five digits (0.05, 0.0125). A price that is no such decimal is taken as it is, and the barrier is
then close * (1 + t) within two steps of float32. tests/targets/test_barriers.py enumerates the decimals.

One float32 product, whatever its factor, cannot do this: the last high of four digits short of a barrier may lie 1e-6
below it, at 1,000 a relative 1e-9, but the roundings of close, high and product come to 1.8e-7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpupipe.runtime.device import Device, device_of


def factors(device: Device, thresholds: Sequence[float]) -> tuple[Any, Any]:
    """1 + t and 1 - t of each threshold, float64 (n_thresholds,) on the device, as the kernels take them."""
    up, down = (np.array([1.0 + sign * t for t in thresholds], np.float64) for sign in (1, -1))
    return device.asarray(up), device.asarray(down)


def barrier_prices(prices: Any, threshold: float) -> tuple[Any, Any]:
    """The prices of the upper and of the lower barrier: float32 (n,) each, on the device of the prices.

    prices: float32 (n,), contiguous; NaN gives NaN.  threshold: t, a fraction inside (0, 1).
    Raises ValueError for another threshold, dtype or shape.

    >>> up, down = barrier_prices(np.float32([4.30, 0.80]), 0.10)
    >>> up == np.float32([4.73, 0.88]), np.float32(4.30) * np.float32(1.1) <= np.float32(4.73)
    (array([ True,  True]), np.False_)
    """
    from gpupipe.kernels import barriers  # imported late: it loads numba

    if not 0.0 < threshold < 1.0:
        raise ValueError(f"threshold {threshold!r}: expected a fraction inside (0, 1), such as 0.05")
    xp = device_of(prices).xp
    up, down = xp.empty(len(prices), xp.float32), xp.empty(len(prices), xp.float32)
    barriers.barrier_prices(len(prices), prices, np.float64(threshold), up, down)
    return up, down
