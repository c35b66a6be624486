"""Arithmetic that the kernels of bonds share: logarithm and power without branches, sums of powers, measures of risk.

Sums of v^j, j v^j and j^2 v^j over j < n are built by doubling: those of the first 2m flows follow from those of the
first m. That takes products and sums of positive numbers only, so no digit is lost near v = 1, and no branch: loops
over bonds become vector instructions.
"""

from __future__ import annotations

import math

import numpy as np

from .compile import inline

BITS = 7  # of the number of flows: LONGEST = 2^7 - 1
MOST_STEPS = 100  # of the search for a yield
CLOSE = np.float64(1e-8)  # a step of the search below it is the last: the next would be below 1e-14
LEAST_U, MOST_U = np.float64(-0.9), np.float64(9.0)  # yields a period, as fractions, that are valued
LEAST_RATE, MOST_RATE = np.float64(math.log(0.1)), np.float64(math.log(10.0))  # log(1 + u) of these
HUNDRED, ONE, TWO, ZERO = np.float64(100.0), np.float64(1.0), np.float64(2.0), np.float64(0.0)
_LN2 = np.float64(math.log(2.0))
_ODD = tuple(np.float64(2.0 / (2 * k + 1)) for k in range(12))
(_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8, _L9, _L10, _L11) = _ODD
(_E2, _E3, _E4, _E5, _E6, _E7, _E8, _E9, _E10) = (np.float64(1.0 / math.factorial(k)) for k in range(2, 11))
_PART, _PART_OF_FAR = np.float64(1.0 / 64.0), np.float64(1.0 / 4096.0)
NEAR, FARTHEST = np.float64(16.0), np.float64(708.0)


@inline
def log_growth(u):
    """log(1 + u) within 2e-16 for 1 + u from 0.1 to 11, without a branch."""
    m, shift = ONE + u, ZERO
    high = m > np.float64(2.83)
    m, shift = m * (np.float64(0.25) if high else ONE), TWO * _LN2 if high else ZERO
    high = m > np.float64(1.415)
    m, shift = m * (np.float64(0.5) if high else ONE), shift + (_LN2 if high else ZERO)
    low = m < np.float64(0.354)
    m, shift = m * (np.float64(4.0) if low else ONE), shift - (TWO * _LN2 if low else ZERO)
    low = m < np.float64(0.707)
    m, shift = m * (TWO if low else ONE), shift - (_LN2 if low else ZERO)
    s = (m - ONE) / (m + ONE)
    q = s * s
    total = _L11 * q + _L10
    total = total * q + _L9
    total = total * q + _L8
    total = total * q + _L7
    total = total * q + _L6
    total = total * q + _L5
    total = total * q + _L4
    total = total * q + _L3
    total = total * q + _L2
    total = total * q + _L1
    return s * (total * q + _L0) + shift


@inline
def series_of_exp(x):
    """exp(64 x), the 64th power of a series at x: within 1e-14 of itself for |64 x| < 10, within 1e-12 below 16."""
    total = _E10 * x + _E9
    total = total * x + _E8
    total = total * x + _E7
    total = total * x + _E6
    total = total * x + _E5
    total = total * x + _E4
    total = total * x + _E3
    total = total * x + _E2
    total = total * x + ONE
    total = total * x + ONE
    total = total * total
    total = total * total
    total = total * total
    total = total * total
    total = total * total
    return total * total


@inline
def exponential(x):
    """exp(x) without a branch: within 1e-14 of itself for |x| < 10, within 1e-12 up to FARTHEST, and no farther.

    Beyond FARTHEST it is that of FARTHEST, where float64 ends. From NEAR on the series is at x / 4,096, and its power
    is squared six times more.
    """
    x = FARTHEST if x > FARTHEST else x
    x = -FARTHEST if x < -FARTHEST else x
    far = abs(x) >= NEAR
    total = series_of_exp(x * (_PART_OF_FAR if far else _PART))
    total = total * (total if far else ONE)
    total = total * (total if far else ONE)
    total = total * (total if far else ONE)
    total = total * (total if far else ONE)
    total = total * (total if far else ONE)
    return total * (total if far else ONE)


@inline
def near_exponential(x):
    """exp(x) for |x| < NEAR, with the bits of `exponential`; from -256 to -NEAR within 1e-15."""
    return series_of_exp(x * _PART)


@inline
def geometric(v, n):
    """The sum of v^j over 0 <= j < n, and v^n; n below 2^BITS.

    Bit by bit of n, from the highest: the number of flows m becomes 2m, and 2m + 1 where the bit is set.
    """
    odd = ((n >> (BITS - 1)) & 1) != 0
    t0, power = (ONE if odd else ZERO), (v if odd else ONE)
    for k in range(1, BITS):
        odd = ((n >> (BITS - 1 - k)) & 1) != 0
        t0 = t0 + power * t0
        power = power * power
        t0 = t0 + (power if odd else ZERO)
        power = power * (v if odd else ONE)
    return t0, power


@inline
def geometric_slope(v, n):
    """The sums of v^j and j v^j over 0 <= j < n, and v^n, as `geometric`."""
    odd = ((n >> (BITS - 1)) & 1) != 0
    t0, t1, power = (ONE if odd else ZERO), ZERO, (v if odd else ONE)
    m = t0
    for k in range(1, BITS):
        odd = ((n >> (BITS - 1 - k)) & 1) != 0
        t1 = t1 + power * (t1 + m * t0)
        t0 = t0 + power * t0
        power, m = power * power, m + m
        added = power if odd else ZERO
        t0 = t0 + added
        t1 = t1 + added * m
        power, m = power * (v if odd else ONE), m + (ONE if odd else ZERO)
    return t0, t1, power


@inline
def geometric_moments(v, n):
    """The sums of v^j, j v^j and j^2 v^j over 0 <= j < n, and v^n, as `geometric`."""
    odd = ((n >> (BITS - 1)) & 1) != 0
    t0, power = (ONE if odd else ZERO), (v if odd else ONE)
    odd = ((n >> (BITS - 2)) & 1) != 0
    t1, m = power * t0, t0 + t0  # of two flows or none: the sums of j v^j and of j^2 v^j are equal
    t0, power = t0 + t1, power * power
    added = power if odd else ZERO
    t0 = t0 + added
    added = added * m
    t1, t2 = t1 + added, t1 + added * m
    power, m = power * (v if odd else ONE), m + (ONE if odd else ZERO)
    for k in range(2, BITS):
        odd = ((n >> (BITS - 1 - k)) & 1) != 0
        later = t1 + m * t0
        t2 = t2 + power * (t2 + m * (t1 + later))
        t1 = t1 + power * later
        t0 = t0 + power * t0
        power, m = power * power, m + m
        added = power if odd else ZERO
        t0 = t0 + added
        added = added * m
        t1 = t1 + added
        t2 = t2 + added * m
        power, m = power * (v if odd else ONE), m + (ONE if odd else ZERO)
    return t0, t1, t2, power


@inline
def yield_of_period(rate, period):
    """The yield of one period as a fraction, or NaN from LEAST_U down and MOST_U up; period: PERIOD of the terms."""
    u = rate * period
    return u if (u > LEAST_U) & (u < MOST_U) else np.float64(np.nan)


@inline
def measures(value, first, second, v, period):
    """Macaulay and modified duration, in years, and convexity, from sums of c e v^e and c e^2 v^e."""
    years, share = HUNDRED * period, ONE / value
    macaulay = first * share * years
    modified, step = macaulay * v, v * years
    return macaulay, modified, (first + second) * share * step * step


@inline
def next_rate(a, value, first, price, low, high):
    """The next rate of the search, its bounds, and whether the step was the last.

    The logarithm of the price is nearly a line in a = log(1 + u), of slope -first / value. Its step is taken by the
    first term of the logarithm's series in (value - price) / (value + price), which stays bounded far from the root.
    A step that leaves the bounds goes to their middle instead.
    """
    low, high = (a if value > price else low), (high if value > price else a)
    step = TWO * (value - price) / (value + price) * value / first
    ahead = a + step
    inside = (ahead >= low) & (ahead <= high)
    done = inside & (abs(step) < CLOSE)
    return ahead if inside else (low + high) * np.float64(0.5), low, high, done
