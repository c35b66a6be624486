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
_PART = np.float64(1.0 / 64.0)


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
def exponential(x):
    """exp(x) within 1e-14 of itself for |x| < 10, without a branch: the 64th power of a series at x / 64."""
    x = x * _PART
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
def geometric(v, n):
    """The sum of v^j over 0 <= j < n, and v^n; n below 2^BITS."""
    total, power = ZERO, ONE  # of the flows so far
    block, growth = ONE, v  # of the next 1, 2, 4, ... flows
    for bit in range(BITS):
        taken = ((n >> bit) & 1) != 0
        total = total + power * (block if taken else ZERO)
        power = power * (growth if taken else ONE)
        block = block + growth * block
        growth = growth * growth
    return total, power


@inline
def geometric_slope(v, n):
    """The sums of v^j and j v^j over 0 <= j < n, and v^n; n below 2^BITS."""
    t0, t1, power, count = ZERO, ZERO, ONE, ZERO
    b0, b1, growth, size = ONE, ZERO, v, ONE
    for bit in range(BITS):
        taken = ((n >> bit) & 1) != 0
        weight = power if taken else ZERO
        t0 = t0 + weight * b0
        t1 = t1 + weight * (b1 + count * b0)
        power = power * (growth if taken else ONE)
        count = count + (size if taken else ZERO)
        b1 = b1 + growth * (b1 + size * b0)
        b0 = b0 + growth * b0
        growth, size = growth * growth, size + size
    return t0, t1, power


@inline
def geometric_moments(v, n):
    """The sums of v^j, j v^j and j^2 v^j over 0 <= j < n, and v^n; n below 2^BITS."""
    t0, t1, t2, power, count = ZERO, ZERO, ZERO, ONE, ZERO
    b0, b1, b2, growth, size = ONE, ZERO, ZERO, v, ONE
    for bit in range(BITS):
        taken = ((n >> bit) & 1) != 0
        shifted1 = b1 + count * b0
        shifted2 = b2 + count * (b1 + shifted1)
        weight = power if taken else ZERO
        t0 = t0 + weight * b0
        t1 = t1 + weight * shifted1
        t2 = t2 + weight * shifted2
        power = power * (growth if taken else ONE)
        count = count + (size if taken else ZERO)
        doubled1 = b1 + size * b0
        b2 = b2 + growth * (b2 + size * (b1 + doubled1))
        b1 = b1 + growth * doubled1
        b0 = b0 + growth * b0
        growth, size = growth * growth, size + size
    return t0, t1, t2, power


@inline
def yield_of_period(rate, scale):
    """The yield of one period as a fraction, or NaN from LEAST_U down and MOST_U up."""
    u = rate / scale
    return u if (u > LEAST_U) & (u < MOST_U) else np.float64(np.nan)


@inline
def measures(value, first, second, u, scale):
    """Macaulay and modified duration and convexity, in years, and DV01, from sums of c e v^e and c e^2 v^e."""
    f = scale / HUNDRED
    macaulay = first / (value * f)
    growth = ONE + u
    modified = macaulay / growth
    convexity = (first + second) / (value * growth * growth * f * f)
    return macaulay, modified, convexity, modified * value * np.float64(1e-4)


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
