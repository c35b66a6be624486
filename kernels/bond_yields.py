"""Price, yield, duration and convexity of bonds: in closed form from `bond_terms`, or over the flows of `bond_flows`.

With u = yield / (100 * frequency) and v = 1 / (1 + u), the first of n flows is discounted by v^LEAD (by Treasury's
convention by 1 / (1 + u LEAD)), each later one by v more. Sums of v^j, j v^j and j^2 v^j over j < n are built by
doubling: those of the first 2m flows follow from those of the first m. That takes products and sums of positive numbers
only, so no digit is lost near u = 0, and no branch.

The arithmetic is float64. A GPU may contract a * b + c, and its exp and log differ by a unit in the last place: prices
agree within 1e-11.
"""

from __future__ import annotations

import math

import numpy as np

from .bonds import (
    ACCRUED,
    FIRST,
    LATER,
    LEAD,
    NOT_CONVERGED,
    RANGE,
    REDEMPTION,
    SCALE,
    TREASURY,
    VALUED,
)
from .compile import inline, kernel

BITS = 7  # of the number of flows: LONGEST = 2^7 - 1
MOST_STEPS = 100  # of the search for a yield
CLOSE = np.float64(1e-9)  # a step of the search below it is the last: the next would be below 1e-16
LEAST_U, MOST_U = np.float64(-0.9), np.float64(9.0)  # yields a period, as fractions, that are valued
LEAST_RATE, MOST_RATE = np.float64(math.log(0.1)), np.float64(math.log(10.0))  # log(1 + u) of these
_HUNDRED, _ONE, _TWO, _ZERO = np.float64(100.0), np.float64(1.0), np.float64(2.0), np.float64(0.0)
_LN2 = np.float64(math.log(2.0))
_ODD = tuple(np.float64(2.0 / (2 * k + 1)) for k in range(12))
(_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8, _L9, _L10, _L11) = _ODD
(_E2, _E3, _E4, _E5, _E6, _E7, _E8, _E9, _E10) = (np.float64(1.0 / math.factorial(k)) for k in range(2, 11))
_PART = np.float64(1.0 / 64.0)


@inline
def log_growth(u):
    """log(1 + u) within 2e-16 for 1 + u from 0.1 to 11, without a branch."""
    m, shift = _ONE + u, _ZERO
    high = m > np.float64(2.83)
    m, shift = m * (np.float64(0.25) if high else _ONE), _TWO * _LN2 if high else _ZERO
    high = m > np.float64(1.415)
    m, shift = m * (np.float64(0.5) if high else _ONE), shift + (_LN2 if high else _ZERO)
    low = m < np.float64(0.354)
    m, shift = m * (np.float64(4.0) if low else _ONE), shift - (_TWO * _LN2 if low else _ZERO)
    low = m < np.float64(0.707)
    m, shift = m * (_TWO if low else _ONE), shift - (_LN2 if low else _ZERO)
    s = (m - _ONE) / (m + _ONE)
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
    total = total * x + _ONE
    total = total * x + _ONE
    total = total * total
    total = total * total
    total = total * total
    total = total * total
    total = total * total
    return total * total


@inline
def geometric(v, n):
    """The sum of v^j over 0 <= j < n, and v^n; n below 2^BITS."""
    total, power = _ZERO, _ONE  # of the flows so far
    block, growth = _ONE, v  # of the next 1, 2, 4, ... flows
    for bit in range(BITS):
        taken = ((n >> bit) & 1) != 0
        total = total + power * (block if taken else _ZERO)
        power = power * (growth if taken else _ONE)
        block = block + growth * block
        growth = growth * growth
    return total, power


@inline
def geometric_moments(v, n):
    """The sums of v^j, j v^j and j^2 v^j over 0 <= j < n, and v^n; n below 2^BITS."""
    t0, t1, t2, power, count = _ZERO, _ZERO, _ZERO, _ONE, _ZERO
    b0, b1, b2, growth, size = _ONE, _ZERO, _ZERO, v, _ONE
    for bit in range(BITS):
        taken = ((n >> bit) & 1) != 0
        shifted1 = b1 + count * b0
        shifted2 = b2 + count * (b1 + shifted1)
        weight = power if taken else _ZERO
        t0 = t0 + weight * b0
        t1 = t1 + weight * shifted1
        t2 = t2 + weight * shifted2
        power = power * (growth if taken else _ONE)
        count = count + (size if taken else _ZERO)
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
    f = scale / _HUNDRED
    macaulay = first / (value * f)
    growth = _ONE + u
    modified = macaulay / growth
    convexity = (first + second) / (value * growth * growth * f * f)
    return macaulay, modified, convexity, modified * value * np.float64(1e-4)


@kernel(types=("f8[:,:]", "i8[:]", "f8[:]", "i8", "f8[:]", "f8[:]"), double_precision=True, brief=True)
def price_closed(i, terms, n_flows, rate, convention, clean, dirty):
    """The price of bond i from its yield, in closed form.

        dirty = v^LEAD (FIRST + LATER (v + ... + v^(n - 1)) + 100 v^(n - 1)),  clean = dirty - ACCRUED

    Reads:   row i alone.
    Inputs:  terms float64 (n_bonds, N_TERMS) and n_flows int64, of `bond_terms`, below 2^BITS flows; rate float64, the
             yield in percent a year; convention int64, of kernels/bonds.py.
    Outputs: clean, dirty float64 (n_bonds,), percent of par.
    NaN:     NaN terms or yield give NaN, and so does a yield outside LEAST_U to MOST_U. A bond whose flows have to be
             written out gets a number without meaning.
    Source:  Fabozzi, Handbook of Fixed Income Securities, chapter 5.
    """
    u = yield_of_period(rate[i], terms[i, SCALE])
    v = _ONE / (_ONE + u)
    lead = terms[i, LEAD]
    if convention == TREASURY:
        discount = _ONE / (_ONE + u * lead)
    else:
        discount = exponential(-lead * log_growth(u))
    total, power = geometric(v, n_flows[i])
    value = discount * (terms[i, FIRST] + terms[i, LATER] * (total - _ONE) + REDEMPTION * (power * (_ONE + u)))
    clean[i] = value - terms[i, ACCRUED]
    dirty[i] = value


@inline
def closed_sums(terms, i, n, u, discount, convention):
    """The value of a bond in closed form, and the sums of c e v^e and c e^2 v^e over its flows.

    discount: v^LEAD, of TREASURY ignored. There the sums are what takes their place in the derivatives: (1 + u) times
    the first by u, negative, and (1 + u)^2 times the second less that.
    """
    v = _ONE / (_ONE + u)
    t0, t1, t2, power = geometric_moments(v, n)
    lead, later, last = terms[i, LEAD], terms[i, LATER], np.float64(n - 1)
    squared_lead = lead * lead
    if convention == TREASURY:
        discount = _ONE / (_ONE + u * lead)
        lead = lead * (_ONE + u) * discount
        squared_lead = lead * (_TWO * lead - _ONE)
    redeemed = REDEMPTION * (power * (_ONE + u))
    value = discount * (terms[i, FIRST] + later * (t0 - _ONE) + redeemed)
    beyond = discount * (later * t1 + redeemed * last)
    squared = discount * (later * t2 + redeemed * last * last)
    return value, lead * value + beyond, squared_lead * value + _TWO * lead * beyond + squared


@kernel(
    types=("f8[:,:]", "i8[:]", "f8[:]", "i8", "f8[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:]"),
    double_precision=True, brief=True,
)  # fmt: skip
def measure_closed(i, terms, n_flows, rate, convention, clean, dirty, macaulay, modified, convexity, dv01):
    """Price, durations, convexity and DV01 of bond i from its yield, in closed form.

        macaulay = sum t c v^e / dirty,  modified = macaulay / (1 + u) = -(d dirty / dy) / dirty,
        convexity = (d^2 dirty / dy^2) / dirty,  dv01 = modified dirty / 10,000

    where t is in years, and y the yield as a fraction.

    Reads:   row i alone.
    Inputs:  as `price_closed`.
    Outputs: clean, dirty, and dv01, the fall of the price when the yield rises by 0.01 percent, float64 (n_bonds,),
             percent of par; macaulay, modified in years; convexity in years squared.
    NaN:     as `price_closed`.
    Source:  QuantLib 1.44, CashFlows::duration and convexity.
    """
    u = yield_of_period(rate[i], terms[i, SCALE])
    discount = exponential(-terms[i, LEAD] * log_growth(u))
    value, first, second = closed_sums(terms, i, n_flows[i], u, discount, convention)
    clean[i] = value - terms[i, ACCRUED]
    dirty[i] = value
    macaulay[i], modified[i], convexity[i], dv01[i] = measures(value, first, second, u, terms[i, SCALE])


@inline
def next_rate(a, value, first, price, low, high):
    """The next rate of the search, its bounds, and whether the step was the last.

    The logarithm of the price is nearly a line in a = log(1 + u), of slope -first / value. Its step is taken by the
    first term of the logarithm's series in (value - price) / (value + price), which stays bounded far from the root.
    A step that leaves the bounds goes to their middle instead.
    """
    low, high = (a if value > price else low), (high if value > price else a)
    step = _TWO * (value - price) / (value + price) * value / first
    ahead = a + step
    inside = (ahead >= low) & (ahead <= high)
    done = inside & (abs(step) < CLOSE)
    return ahead if inside else (low + high) * np.float64(0.5), low, high, done


@kernel(types=("f8[:,:]", "i8[:]", "b1[:]", "f8[:]", "i8", "f8[:]", "i1[:]"), double_precision=True, brief=True)
def yield_closed(i, terms, n_flows, by_flows, dirty, convention, rate, status):
    """The yield of bond i from its dirty price, in closed form: Newton's method on the logarithm of the price, guarded.

    It starts at the current yield plus the price's way to 100 by maturity, and keeps bounds on log(1 + u) from
    LEAST_RATE to MOST_RATE; it ends after a step below CLOSE, whose error is below 1e-16.

    Reads:   row i alone.
    Inputs:  as `price_closed`; by_flows bool (n_bonds,), rows to leave to `yield_flows`; dirty float64, percent of par.
    Outputs: rate float64 (n_bonds,), percent a year; status int8, NOT_CONVERGED where no yield in the bounds has the
             price, RANGE where the price is not positive. Both are written only where status was VALUED.
    NaN:     the yield of a bond with a status, or whose price is NaN.
    Source:  Press et al., Numerical Recipes, section 9.4 (Newton with bisection).
    """
    if by_flows[i]:
        return
    rate[i] = np.nan
    price, n = dirty[i], n_flows[i]
    if status[i] != VALUED or price != price:
        return
    if price <= _ZERO:
        status[i] = RANGE
        return
    periods = terms[i, LEAD] + np.float64(n - 1)
    pull = (REDEMPTION - price) / max(periods, np.float64(0.1))
    u = _TWO * (terms[i, LATER] + pull) / (REDEMPTION + price)
    u = min(max(u, np.float64(-0.5)), np.float64(2.0))
    a, low, high, done, steps = math.log(_ONE + u), LEAST_RATE, MOST_RATE, False, 0
    while not done and steps < MOST_STEPS:
        value, first, _ = closed_sums(terms, i, n, math.exp(a) - _ONE, math.exp(-terms[i, LEAD] * a), convention)
        a, low, high, done = next_rate(a, value, first, price, low, high)
        steps += 1
    if done:
        rate[i] = math.expm1(a) * terms[i, SCALE]
    else:
        status[i] = NOT_CONVERGED


@inline
def flow_sums(begin, end, exponent, amount, exit, a):
    """The sums of c v^e, c e v^e and c e^2 v^e over flows, and the row in which the bond ends.

    Where it may end in several rows, it ends in that of the smallest value.
    """
    paid, paid1, paid2 = _ZERO, _ZERO, _ZERO
    value, first, second, last = np.float64(np.inf), _ZERO, _ZERO, np.int64(-1)
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
    Outputs: row b of those of `measure_closed`; last int64 (n,), the row of the flow with which the bond ends.
    NaN:     a bond without flows, or whose yield is NaN; last is then -1.
    Source:  as `measure_closed`.
    """
    b = bonds[i]
    u = yield_of_period(rate[b], terms[b, SCALE])
    a = math.log1p(u)
    value, first, second, last[i] = flow_sums(offsets[i], offsets[i + 1], exponent, amount, exit, a)
    if last[i] < 0 or a != a:
        value, last[i] = np.float64(np.nan), -1
    clean[b] = value - terms[b, ACCRUED]
    dirty[b] = value
    macaulay[b], modified[b], convexity[b], dv01[b] = measures(value, first, second, u, terms[b, SCALE])


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
    a = math.log1p(yield_of_period(rate[b], terms[b, SCALE]))
    paid, value = _ZERO, np.float64(np.nan)
    for row in range(offsets[i], offsets[i + 1]):
        discount = math.exp(-exponent[row] * a)
        paid += amount[row] * discount
        ended = paid + exit[row] * discount
        if ended == ended and not value <= ended:
            value = ended
    clean[b] = value - terms[b, ACCRUED]
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
    if price <= _ZERO:
        status[b] = RANGE
        return
    a, low, high, done, steps = _ZERO, LEAST_RATE, MOST_RATE, False, 0
    while not done and steps < MOST_STEPS:
        value, first, _, _ = flow_sums(offsets[i], offsets[i + 1], exponent, amount, exit, a)
        a, low, high, done = next_rate(a, value, first, price, low, high)
        steps += 1
    if done:
        rate[b] = a
    else:
        status[b] = NOT_CONVERGED
