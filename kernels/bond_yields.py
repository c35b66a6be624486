"""Price, yield, duration and convexity of bonds over the flows that `bond_flows` wrote.

They are for bonds whose periods or coupons differ, whose coupons float, or that can be called; the others are valued in
closed form (kernels/bond_closed.py). A GPU's exp and log differ by a unit in the last place: prices agree within 1e-11.
"""

from __future__ import annotations

import math

import numpy as np

from .bond_math import LEAST_RATE, MOST_RATE, MOST_STEPS, ZERO, measures, next_rate, yield_of_period
from .bonds import ACCRUED, NOT_CONVERGED, RANGE, SCALE, VALUED
from .compile import inline, kernel


@inline
def flow_sums(begin, end, exponent, amount, exit, a):
    """The sums of c v^e, c e v^e and c e^2 v^e over flows, and the row in which the bond ends.

    Where it may end in several rows, it ends in that of the smallest value.
    """
    paid, paid1, paid2 = ZERO, ZERO, ZERO
    value, first, second, last = np.float64(np.inf), ZERO, ZERO, np.int64(-1)
    for row in range(begin, end):
        e = exponent[row]
        discount = math.exp(-e * a)
        flow = amount[row] * discount
        paid, paid1, paid2 = paid + flow, paid1 + e * flow, paid2 + e * e * flow
        if exit[row] == exit[row]:
            flow = exit[row] * discount
            if paid + flow < value or last < 0:
                value, first, second = paid + flow, paid1 + e * flow, paid2 + e * e * flow
                last = np.int64(row)
    return value, first, second, last


@kernel(
    types=("i8[:]", "i8[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:,:]", "f8[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:]",
           "f8[:]", "i8[:]"),
    double_precision=True, brief=64,
)  # fmt: skip
def measure_flows(
    i, bonds, offsets, exponent, amount, exit, terms, rate, clean, dirty, macaulay, modified, convexity, dv01, last,
):  # fmt: skip
    """Price, durations, convexity and DV01 of bond b = bonds[i] from its yield, over its flows.

    A bond that can be called is valued at the end at which it is worth least: of a yield to worst, the price.

    Reads:   the flows of the bond, and row b.
    Inputs:  bonds int64 (n,), offsets int64 (n + 1,), exponent, amount, exit float64 (offsets[n],), of `bond_flows`;
             terms and rate as in `measure_closed`.
    Outputs: row b of those of `measure_closed` in kernels/bond_closed.py; last int64 (n,), the row of the flow with
             which the bond ends.
    NaN:     a bond without flows, or whose yield is NaN; last is then -1.
    Source:  as `measure_closed` in kernels/bond_closed.py.
    """
    b = bonds[i]
    u = yield_of_period(rate[b], terms[SCALE, b])
    a = math.log1p(u)
    value, first, second, last[i] = flow_sums(offsets[i], offsets[i + 1], exponent, amount, exit, a)
    if last[i] < 0 or a != a:
        value, last[i] = np.float64(np.nan), -1
    clean[b] = value - terms[ACCRUED, b]
    dirty[b] = value
    macaulay[b], modified[b], convexity[b], dv01[b] = measures(value, first, second, u, terms[SCALE, b])


@kernel(
    types=("i8[:]", "i8[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:,:]", "f8[:]", "f8[:]", "f8[:]"),
    double_precision=True, brief=64,
)  # fmt: skip
def price_flows(i, bonds, offsets, exponent, amount, exit, terms, rate, clean, dirty):
    """The price of bond b = bonds[i] from its yield, over its flows; the rest as in `measure_flows`.

    Outputs: row b of clean and dirty float64 (n_bonds,), percent of par.
    NaN:     as `measure_flows`.
    """
    b = bonds[i]
    a = math.log1p(yield_of_period(rate[b], terms[SCALE, b]))
    paid, value = ZERO, np.float64(np.nan)
    for row in range(offsets[i], offsets[i + 1]):
        discount = math.exp(-exponent[row] * a)
        paid += amount[row] * discount
        ended = paid + exit[row] * discount
        if ended == ended and not value <= ended:
            value = ended
    clean[b] = value - terms[ACCRUED, b]
    dirty[b] = value


@kernel(types=("i8[:]", "i8[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:]", "i1[:]"), double_precision=True, brief=64)
def rate_of_flows(i, bonds, offsets, exponent, amount, exit, dirty, rate, status):
    """The rate a of bond b = bonds[i] at which its flows times exp(-a exponent) are worth its dirty price.

    Of flows by `bond_flows` a is log(1 + u), and of a bond that can be called that of the yield to worst; of flows
    times the discounts of a curve, with years for exponents, it is the spread to the curve.

    Reads:   the flows of the bond, and row b.
    Inputs:  as `measure_flows`; dirty float64 (n_bonds,), percent of par.
    Outputs: row b of rate float64 (n_bonds,), and of status int8, as in `yield_closed`.
    NaN:     as `yield_closed`, and a bond without flows.
    Source:  as `yield_closed`.
    """
    b = bonds[i]
    rate[b] = np.nan
    price = dirty[b]
    if status[b] != VALUED or price != price or offsets[i + 1] == offsets[i]:
        return
    if price <= ZERO:
        status[b] = RANGE
        return
    a, low, high, done, steps = ZERO, LEAST_RATE, MOST_RATE, False, 0
    while not done and steps < MOST_STEPS:
        value, first, _, _ = flow_sums(offsets[i], offsets[i + 1], exponent, amount, exit, a)
        a, low, high, done = next_rate(a, value, first, price, low, high)
        steps += 1
    if done:
        rate[b] = a
    else:
        status[b] = NOT_CONVERGED
