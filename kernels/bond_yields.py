"""Price, yield, duration and convexity of bonds over the flows that `bond_flows` wrote.

They are for bonds whose periods or coupons differ, whose coupons float, or that can be called; the others are valued in
closed form (kernels/bond_closed.py).

An item of a kernel is a block of `at_once` bonds, some 64 on a CPU and 1 on a GPU. The discounts of a bond are kept in
the rows of the block's first flows, so that on a CPU this memory stays in its caches. No bit depends on at_once.
"""

from __future__ import annotations

import numpy as np

from .bond_math import (
    LEAST_RATE,
    MOST_RATE,
    MOST_STEPS,
    NEAR,
    ONE,
    TWO,
    ZERO,
    exponential,
    measures,
    near_exponential,
    next_rate,
    yield_of_period,
)
from .bonds import ACCRUED, NOT_CONVERGED, PERIOD, RANGE, VALUED
from .compile import inline, kernel
from .elementary import expm1_64, log1p_64
from .ordering import clipped, larger

_HALF = np.float64(0.5)


@inline
def discounts_of(exponents, a, discounts):
    """exp(-a exponent) of the flows of a bond, of which the last has the largest exponent; loops by themselves, which
    become vector instructions.
    """  # fmt: skip
    n = exponents.shape[0]
    if n > 0 and abs(exponents[n - 1] * a) < NEAR:
        for j in range(n):
            discounts[j] = near_exponential(-exponents[j] * a)
    else:
        for j in range(n):
            discounts[j] = exponential(-exponents[j] * a)


@inline
def exit_at(exits, j, first_exit, first_value):
    """What a bond pays if it ends in row j, from first_exit on. The first is apart: most bonds have no other, and
    reading that of each bond from the long array would wait for memory.
    """  # fmt: skip
    return exits[j] if j > first_exit else first_value


@inline
def flow_value(exponents, amounts, exits, first_exit, first_value, a, discounts):
    """The sums of c v^e and c e v^e over the flows of a bond.

    Where it may end in several rows, from first_exit on, it ends in that of the smallest value.
    """
    discounts_of(exponents, a, discounts)
    paid, paid1, value, first, last = ZERO, ZERO, np.float64(np.inf), ZERO, -1
    for j in range(first_exit):
        flow = amounts[j] * discounts[j]
        paid, paid1 = paid + flow, paid1 + exponents[j] * flow
    for j in range(first_exit, exponents.shape[0]):
        flow = amounts[j] * discounts[j]
        paid, paid1 = paid + flow, paid1 + exponents[j] * flow
        at_end = exit_at(exits, j, first_exit, first_value)
        if at_end == at_end:
            flow = at_end * discounts[j]
            if paid + flow < value or last < 0:
                value, first, last = paid + flow, paid1 + exponents[j] * flow, j
    return value, first


@inline
def flow_sums(exponents, amounts, exits, first_exit, first_value, a, discounts):
    """The sums of c v^e, c e v^e and c e^2 v^e over the flows of a bond, and the row in which it ends, or -1."""
    discounts_of(exponents, a, discounts)
    paid, paid1, paid2 = ZERO, ZERO, ZERO
    value, first, second, last = np.float64(np.inf), ZERO, ZERO, np.int64(-1)
    for j in range(first_exit):
        e = exponents[j]
        flow = amounts[j] * discounts[j]
        paid, paid1, paid2 = paid + flow, paid1 + e * flow, paid2 + e * e * flow
    for j in range(first_exit, exponents.shape[0]):
        e = exponents[j]
        flow = amounts[j] * discounts[j]
        paid, paid1, paid2 = paid + flow, paid1 + e * flow, paid2 + e * e * flow
        at_end = exit_at(exits, j, first_exit, first_value)
        if at_end == at_end:
            flow = at_end * discounts[j]
            if paid + flow < value or last < 0:
                value, first, second = paid + flow, paid1 + e * flow, paid2 + e * e * flow
                last = np.int64(j)
    return value, first, second, last


@kernel(
    types=("i8", "i8[:]", "i8[:]", "i8[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:,:]", "f8[:]", "f8[:]", "f8[:]",
           "f8[:]", "f8[:]", "f8[:]", "f8[:]", "i8[:]"),
    double_precision=True,
)  # fmt: skip
def measure_flows(
    i, at_once, bonds, offsets, first_exit, first_value, exponent, amount, exit, terms, rate, discount, clean, dirty,
    macaulay, modified, convexity, last,
):  # fmt: skip
    """Price, durations and convexity of the bonds of block i from their yields, over their flows.

    A bond that can be called is valued at the end at which it is worth least: of a yield to worst, the price.

    Reads:   the flows of the bonds bonds[k], k from i * at_once to (i + 1) * at_once, and their rows.
    Inputs:  at_once int64, bonds of a block; bonds int64 (n,), offsets int64 (n + 1,), first_exit int64 (n,),
             exponent, amount, exit float64 (offsets[n],), of `bond_flows`; first_value float64 (n,), exit in the rows
             of first_exit; terms and rate as in `measure_closed`.
    Outputs: discount float64 (offsets[n],), scratch; rows bonds[k] of those of `measure_closed` in
             kernels/bond_closed.py; last int64 (n,), the row of the flow with which the bond ends.
    NaN:     a bond without flows, or whose yield is NaN; last is then -1.
    Source:  as `measure_closed` in kernels/bond_closed.py.
    """
    scratch = offsets[i * at_once]
    for k in range(i * at_once, min((i + 1) * at_once, bonds.shape[0])):
        b, begin, end = bonds[k], offsets[k], offsets[k + 1]
        u = yield_of_period(rate[b], terms[PERIOD, b])
        a = log1p_64(u)
        value, first, second, j = flow_sums(
            exponent[begin:end], amount[begin:end], exit[begin:end], first_exit[k] - begin, first_value[k], a,
            discount[scratch : scratch + end - begin],
        )  # fmt: skip
        last[k] = begin + j
        if j < 0 or a != a:
            value, last[k] = np.float64(np.nan), -1
        clean[b] = value - terms[ACCRUED, b]
        dirty[b] = value
        macaulay[b], modified[b], convexity[b] = measures(value, first, second, ONE / (ONE + u), terms[PERIOD, b])


@kernel(
    types=("i8", "i8[:]", "i8[:]", "i8[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:,:]", "f8[:]", "f8[:]", "f8[:]",
           "f8[:]"),
    double_precision=True,
)  # fmt: skip
def price_flows(
    i, at_once, bonds, offsets, first_exit, first_value, exponent, amount, exit, terms, rate, discount, clean, dirty
):  # fmt: skip
    """The prices of the bonds of block i from their yields, over their flows; the rest as in `measure_flows`.

    Outputs: discount float64 (offsets[n],), scratch; rows bonds[k] of clean and dirty float64 (n_bonds,), percent of
             par.
    NaN:     as `measure_flows`.
    """
    scratch = offsets[i * at_once]
    for k in range(i * at_once, min((i + 1) * at_once, bonds.shape[0])):
        b, begin, end = bonds[k], offsets[k], offsets[k + 1]
        a = log1p_64(yield_of_period(rate[b], terms[PERIOD, b]))
        value, _ = flow_value(
            exponent[begin:end], amount[begin:end], exit[begin:end], first_exit[k] - begin, first_value[k], a,
            discount[scratch : scratch + end - begin],
        )  # fmt: skip
        if begin == end or a != a:
            value = np.float64(np.nan)
        clean[b] = value - terms[ACCRUED, b]
        dirty[b] = value


@inline
def searched(exponents, amounts, exits, first_exit, first_value, price, start, discounts):
    """The rate at which flows have a price by Newton's method within bounds, and whether there is one."""
    a = start
    if start != start:
        last = exponents.shape[0] - 1
        at_end = exit_at(exits, last, first_exit, first_value)
        pull = (at_end - price) / larger(exponents[last], ONE)
        a = log1p_64(clipped(TWO * (amounts[last] + pull) / (at_end + price), -_HALF, TWO))
    low, high, done, steps = LEAST_RATE, MOST_RATE, False, 0
    while not done and steps < MOST_STEPS:
        value, first = flow_value(exponents, amounts, exits, first_exit, first_value, a, discounts)
        a, low, high, done = next_rate(a, value, first, price, low, high)
        steps += 1
    return a, done


@kernel(
    types=("i8", "i8[:]", "i8[:]", "i8[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:]", "f8", "f8[:]", "f8[:]",
           "i1[:]"),
    double_precision=True,
)  # fmt: skip
def rate_of_flows(
    i, at_once, bonds, offsets, first_exit, first_value, exponent, amount, exit, dirty, start, discount, rate, status
):  # fmt: skip
    """The rates a of the bonds of block i at which their flows times exp(-a exponent) are worth their dirty prices.

    Of flows by `bond_flows` a is log(1 + u), and of a bond that can be called that of the yield to worst; of flows
    times the discounts of a curve, with years for exponents, it is the spread to the curve.

    Reads:   as `measure_flows`.
    Inputs:  as `measure_flows`; dirty float64 (n_bonds,), percent of par; start float64, a where the search
             begins, or NaN for the current yield plus the price's way to its last end.
    Outputs: discount float64 (offsets[n],), scratch; rows bonds[k] of rate float64 (n_bonds,), and of status int8, as
             in `yield_closed`.
    NaN:     as `yield_closed`, and a bond without flows.
    Source:  as `yield_closed`.
    """
    scratch = offsets[i * at_once]
    for k in range(i * at_once, min((i + 1) * at_once, bonds.shape[0])):
        b, begin, end = bonds[k], offsets[k], offsets[k + 1]
        rate[b] = np.nan
        price = dirty[b]
        if status[b] != VALUED or price != price or begin == end:
            continue
        if price <= ZERO:
            status[b] = RANGE
            continue
        a, done = searched(
            exponent[begin:end], amount[begin:end], exit[begin:end], first_exit[k] - begin, first_value[k], price,
            start, discount[scratch : scratch + end - begin],
        )  # fmt: skip
        if done:
            rate[b] = a
        else:
            status[b] = NOT_CONVERGED


@kernel(types=("i8[:]", "f8[:,:]", "f8[:]"), double_precision=True, brief=1024)
def yield_of_rate(i, bonds, terms, rate):
    """The yield of bond b = bonds[i] in percent a year, from its rate a = log(1 + u) by `rate_of_flows`.

    Reads:   row b.
    Inputs:  bonds int64 (n,); terms float64 (N_TERMS, n_bonds), of `bond_terms`.
    State:   rate float64 (n_bonds,), of which row b becomes the yield.
    NaN:     stays.
    """
    b = bonds[i]
    rate[b] = expm1_64(rate[b]) / terms[PERIOD, b]
