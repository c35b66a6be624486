"""Price, yield, duration and convexity of bonds over the flows that `bond_flows` wrote.

They are for bonds whose periods or coupons differ, whose coupons float, or that can be called; the others are valued in
closed form (kernels/bond_closed.py). A GPU's exp and log differ by a unit in the last place: prices agree within 1e-11.
"""

from __future__ import annotations

import math

import numpy as np

from .bond_math import (
    LEAST_RATE,
    MOST_RATE,
    MOST_STEPS,
    ONE,
    TWO,
    ZERO,
    exponential,
    measures,
    next_rate,
    yield_of_period,
)
from .bonds import ACCRUED, NOT_CONVERGED, PERIOD, RANGE, VALUED
from .compile import inline, kernel

_HALF = np.float64(0.5)


@inline
def discounts_of(exponents, a, discounts):
    """exp(-a exponent) of the flows of a bond; a loop by itself, which becomes vector instructions."""
    for j in range(exponents.shape[0]):
        discounts[j] = exponential(-exponents[j] * a)


@inline
def flow_value(exponents, amounts, exits, a, discounts):
    """The sums of c v^e and c e v^e over the flows of a bond.

    Where it may end in several rows, it ends in that of the smallest value.
    """
    discounts_of(exponents, a, discounts)
    paid, paid1, value, first, last = ZERO, ZERO, np.float64(np.inf), ZERO, -1
    for j in range(exponents.shape[0]):
        flow = amounts[j] * discounts[j]
        paid, paid1 = paid + flow, paid1 + exponents[j] * flow
        if exits[j] == exits[j]:
            flow = exits[j] * discounts[j]
            if paid + flow < value or last < 0:
                value, first, last = paid + flow, paid1 + exponents[j] * flow, j
    return value, first


@inline
def flow_sums(exponents, amounts, exits, a, discounts):
    """The sums of c v^e, c e v^e and c e^2 v^e over the flows of a bond, and the row in which it ends, or -1."""
    discounts_of(exponents, a, discounts)
    paid, paid1, paid2 = ZERO, ZERO, ZERO
    value, first, second, last = np.float64(np.inf), ZERO, ZERO, np.int64(-1)
    for j in range(exponents.shape[0]):
        e = exponents[j]
        flow = amounts[j] * discounts[j]
        paid, paid1, paid2 = paid + flow, paid1 + e * flow, paid2 + e * e * flow
        if exits[j] == exits[j]:
            flow = exits[j] * discounts[j]
            if paid + flow < value or last < 0:
                value, first, second = paid + flow, paid1 + e * flow, paid2 + e * e * flow
                last = np.int64(j)
    return value, first, second, last


@kernel(
    types=("i8[:]", "i8[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:,:]", "f8[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:]",
           "f8[:]", "i8[:]"),
    double_precision=True, brief=64,
)  # fmt: skip
def measure_flows(
    i, bonds, offsets, exponent, amount, exit, terms, rate, discount, clean, dirty, macaulay, modified, convexity, last,
):  # fmt: skip
    """Price, durations and convexity of bond b = bonds[i] from its yield, over its flows.

    A bond that can be called is valued at the end at which it is worth least: of a yield to worst, the price.

    Reads:   the flows of the bond, and row b.
    Inputs:  bonds int64 (n,), offsets int64 (n + 1,), exponent, amount, exit float64 (offsets[n],), of `bond_flows`;
             terms and rate as in `measure_closed`.
    Outputs: discount float64 (offsets[n],), scratch; row b of those of `measure_closed` in kernels/bond_closed.py; last
             int64 (n,), the row of the flow with which the bond ends.
    NaN:     a bond without flows, or whose yield is NaN; last is then -1.
    Source:  as `measure_closed` in kernels/bond_closed.py.
    """
    b = bonds[i]
    u = yield_of_period(rate[b], terms[PERIOD, b])
    a = math.log1p(u)
    begin, end = offsets[i], offsets[i + 1]
    value, first, second, j = flow_sums(
        exponent[begin:end], amount[begin:end], exit[begin:end], a, discount[begin:end]
    )  # fmt: skip
    last[i] = begin + j
    if j < 0 or a != a:
        value, last[i] = np.float64(np.nan), -1
    clean[b] = value - terms[ACCRUED, b]
    dirty[b] = value
    macaulay[b], modified[b], convexity[b] = measures(value, first, second, ONE / (ONE + u), terms[PERIOD, b])


@kernel(
    types=("i8[:]", "i8[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:,:]", "f8[:]", "f8[:]", "f8[:]", "f8[:]"),
    double_precision=True, brief=64,
)  # fmt: skip
def price_flows(i, bonds, offsets, exponent, amount, exit, terms, rate, discount, clean, dirty):
    """The price of bond b = bonds[i] from its yield, over its flows; the rest as in `measure_flows`.

    Outputs: discount float64 (offsets[n],), scratch; row b of clean and dirty float64 (n_bonds,), percent of par.
    NaN:     as `measure_flows`.
    """
    b = bonds[i]
    a = math.log1p(yield_of_period(rate[b], terms[PERIOD, b]))
    begin, end = offsets[i], offsets[i + 1]
    value, _ = flow_value(exponent[begin:end], amount[begin:end], exit[begin:end], a, discount[begin:end])
    if begin == end or a != a:
        value = np.float64(np.nan)
    clean[b] = value - terms[ACCRUED, b]
    dirty[b] = value


@kernel(
    types=("i8[:]", "i8[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:]", "f8", "f8[:]", "f8[:]", "i1[:]"),
    double_precision=True, brief=64,
)  # fmt: skip
def rate_of_flows(i, bonds, offsets, exponent, amount, exit, dirty, start, discount, rate, status):
    """The rate a of bond b = bonds[i] at which its flows times exp(-a exponent) are worth its dirty price.

    Of flows by `bond_flows` a is log(1 + u), and of a bond that can be called that of the yield to worst; of flows
    times the discounts of a curve, with years for exponents, it is the spread to the curve.

    Reads:   the flows of the bond, and row b.
    Inputs:  as `measure_flows`; dirty float64 (n_bonds,), percent of par; start float64, a where the search
             begins, or NaN for the current yield plus the price's way to its last end.
    Outputs: discount float64 (offsets[n],), scratch; row b of rate float64 (n_bonds,), and of status int8, as in
             `yield_closed`.
    NaN:     as `yield_closed`, and a bond without flows.
    Source:  as `yield_closed`.
    """
    b = bonds[i]
    rate[b] = np.nan
    price, begin, end = dirty[b], offsets[i], offsets[i + 1]
    if status[b] != VALUED or price != price or begin == end:
        return
    if price <= ZERO:
        status[b] = RANGE
        return
    exponents, amounts, exits, discounts = exponent[begin:end], amount[begin:end], exit[begin:end], discount[begin:end]
    a = start
    if start != start:
        last = end - begin - 1
        pull = (exits[last] - price) / max(exponents[last], ONE)
        a = math.log1p(min(max(TWO * (amounts[last] + pull) / (exits[last] + price), -_HALF), TWO))
    low, high, done, steps = LEAST_RATE, MOST_RATE, False, 0
    while not done and steps < MOST_STEPS:
        value, first = flow_value(exponents, amounts, exits, a, discounts)
        a, low, high, done = next_rate(a, value, first, price, low, high)
        steps += 1
    if done:
        rate[b] = a
    else:
        status[b] = NOT_CONVERGED
