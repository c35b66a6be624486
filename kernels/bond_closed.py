"""Bonds in closed form from `bond_terms`: price, duration and convexity from a yield, and the yield from a price.

With u = yield / (100 * frequency) and v = 1 / (1 + u), the first of n flows is discounted by v^LEAD (by Treasury's
convention by 1 / (1 + u LEAD)), each later one by v more:

    dirty = v^LEAD (FIRST + LATER (v + ... + v^(n - 1)) + 100 v^(n - 1)),  clean = dirty - ACCRUED

An item of a kernel is a block of `at_once` bonds, whose loop becomes vector instructions: about a thousand on a CPU, 1
on a GPU. A call has as many items as there are blocks, the last of which may be shorter; no bit depends on at_once.
"""

from __future__ import annotations

import numpy as np

from .bond_math import (
    CLOSE,
    LEAST_RATE,
    LEAST_U,
    MOST_RATE,
    MOST_STEPS,
    MOST_U,
    ONE,
    TWO,
    ZERO,
    geometric,
    geometric_moments,
    geometric_slope,
    log_growth,
    measures,
    near_exponential,
    next_rate,
    yield_of_period,
)
from .bonds import ACCRUED, FIRST, LATER, LEAD, NOT_CONVERGED, PERIOD, RANGE, REDEMPTION, TREASURY, VALUED
from .compile import inline, kernel
from .elementary import expm1_64, log_64
from .ordering import clipped, larger

STEPS_AT_ONCE = 4  # of the search for yields, for all bonds of a block; few bonds need more
_HALF, _THIRD, _QUARTER = np.float64(0.5), np.float64(1.0 / 3.0), np.float64(0.25)


@inline
def discount_until_first(lead, u, convention):
    """The discount of the first flow, LEAD periods ahead, at most FAR_LEAD of kernels/bonds.py."""
    if convention == TREASURY:
        return ONE / (ONE + u * lead)
    return near_exponential(-lead * log_growth(u))


@inline
def slope_of_lead(lead, u, convention):
    """LEAD, or what takes its place in the first derivative by Treasury's convention."""
    if convention == TREASURY:
        return lead * (ONE + u) / (ONE + u * lead)
    return lead


@kernel(types=("i8", "f8[:,:]", "i8[:]", "f8[:]", "i8", "f8[:]", "f8[:]"), double_precision=True, brief=8)
def price_closed(i, at_once, terms, n_flows, rate, convention, clean, dirty):
    """The prices of the bonds of block i from their yields.

    Reads:   the bonds [i * at_once, (i + 1) * at_once).
    Inputs:  at_once int64, bonds of a block; terms float64 (N_TERMS, n_bonds) and n_flows int64, of `bond_terms`, below
             2^BITS flows; rate float64, the yield in percent a year; convention int64, of kernels/bonds.py.
    Outputs: clean, dirty float64 (n_bonds,), percent of par.
    NaN:     NaN terms or yield give NaN, and so does a yield outside LEAST_U to MOST_U. A bond whose flows have to be
             written out gets a number without meaning.
    Source:  Fabozzi, Handbook of Fixed Income Securities, chapter 5.
    """
    begin = i * at_once
    end = min(begin + at_once, rate.shape[0])
    leads, firsts, laters = terms[LEAD, begin:end], terms[FIRST, begin:end], terms[LATER, begin:end]
    accrued, periods = terms[ACCRUED, begin:end], terms[PERIOD, begin:end]
    counts, rates = n_flows[begin:end], rate[begin:end]
    cleans, dirties = clean[begin:end], dirty[begin:end]
    for j in range(end - begin):
        u = yield_of_period(rates[j], periods[j])
        v = ONE / (ONE + u)
        discount = discount_until_first(leads[j], u, convention)
        total, power = geometric(v, counts[j])
        value = discount * (firsts[j] + laters[j] * (total - ONE) + REDEMPTION * (power * (ONE + u)))
        cleans[j] = value - accrued[j]
        dirties[j] = value


@kernel(
    types=("i8", "f8[:,:]", "i8[:]", "f8[:]", "i8", "f8[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:]"),
    double_precision=True, brief=8,
)  # fmt: skip
def measure_closed(i, at_once, terms, n_flows, rate, convention, clean, dirty, macaulay, modified, convexity):
    """Prices, durations and convexity of the bonds of block i from their yields.

        macaulay = sum t c v^e / dirty,  modified = macaulay / (1 + u) = -(d dirty / dy) / dirty,
        convexity = (d^2 dirty / dy^2) / dirty

    where t is in years, and y the yield as a fraction. By Treasury's convention macaulay is modified (1 + u).

    Reads:   the bonds [i * at_once, (i + 1) * at_once).
    Inputs:  as `price_closed`.
    Outputs: clean, dirty float64 (n_bonds,), percent of par; macaulay, modified in years; convexity in years squared.
    NaN:     as `price_closed`.
    Source:  QuantLib 1.44, CashFlows::duration and convexity.
    """
    begin = i * at_once
    end = min(begin + at_once, rate.shape[0])
    leads, firsts, laters = terms[LEAD, begin:end], terms[FIRST, begin:end], terms[LATER, begin:end]
    accrued, periods = terms[ACCRUED, begin:end], terms[PERIOD, begin:end]
    counts, rates = n_flows[begin:end], rate[begin:end]
    cleans, dirties, macaulays = clean[begin:end], dirty[begin:end], macaulay[begin:end]
    modifieds, convexities = modified[begin:end], convexity[begin:end]
    for j in range(end - begin):
        u = yield_of_period(rates[j], periods[j])
        v = ONE / (ONE + u)
        discount = discount_until_first(leads[j], u, convention)
        t0, t1, t2, power = geometric_moments(v, counts[j])
        later, last = laters[j], np.float64(counts[j] - 1)
        redeemed = REDEMPTION * (power * (ONE + u))
        value = discount * (firsts[j] + later * (t0 - ONE) + redeemed)
        beyond = discount * (later * t1 + redeemed * last)
        squared = discount * (later * t2 + redeemed * last * last)
        lead = slope_of_lead(leads[j], u, convention)
        squared_lead = lead * (TWO * lead - ONE) if convention == TREASURY else lead * lead
        first, second = lead * value + beyond, squared_lead * value + TWO * lead * beyond + squared
        cleans[j] = value - accrued[j]
        dirties[j] = value
        macaulays[j], modifieds[j], convexities[j] = measures(value, first, second, v, periods[j])


@inline
def value_and_slope(lead, first, later, n, u, convention):
    """The value of a bond, and minus its derivative by log(1 + u)."""
    t0, t1, power = geometric_slope(ONE / (ONE + u), n)
    discount = discount_until_first(lead, u, convention)
    redeemed = REDEMPTION * (power * (ONE + u))
    value = discount * (first + later * (t0 - ONE) + redeemed)
    beyond = discount * (later * t1 + redeemed * np.float64(n - 1))
    return value, slope_of_lead(lead, u, convention) * value + beyond


@inline
def first_guess(lead, later, n, price):
    """The current yield of a period, and the price's way to 100 by maturity."""
    periods = larger(lead + np.float64(n - 1), np.float64(0.1))
    u = TWO * (later + (REDEMPTION - price) / periods) / (REDEMPTION + price)
    return clipped(u, np.float64(-0.5), TWO)


@inline
def searched(lead, first, later, n, price, convention):
    """The yield of a period by Newton's method within bounds, as a fraction, and whether one has the price."""
    a, low, high, done, steps = log_64(ONE + first_guess(lead, later, n, price)), LEAST_RATE, MOST_RATE, False, 0
    while not done and steps < MOST_STEPS:
        value, slope = value_and_slope(lead, first, later, n, expm1_64(a), convention)
        a, low, high, done = next_rate(a, value, slope, price, low, high)
        steps += 1
    return expm1_64(a), done


@kernel(
    types=("i8", "f8[:,:]", "i8[:]", "b1[:]", "f8[:]", "i8", "f8[:]", "f8[:]", "i1[:]"),
    double_precision=True, brief=8,
)  # fmt: skip
def yield_closed(i, at_once, terms, n_flows, by_flows, dirty, convention, step, rate, status):
    """The yields of the bonds of block i from their dirty prices: Newton's method on the logarithm of the price.

    It starts at the current yield plus the price's way to 100 by maturity, and takes STEPS_AT_ONCE steps for all bonds
    together. Where the last of these is not below CLOSE, the search begins again, with bounds on log(1 + u) from
    LEAST_RATE to MOST_RATE, bisection where a step leaves them, and at most MOST_STEPS steps.

    Reads:   the bonds [i * at_once, (i + 1) * at_once).
    Inputs:  as `price_closed`; by_flows bool (n_bonds,), bonds to leave to `rate_of_flows`; dirty float64, percent of
             par.
    Outputs: step float64 (n_bonds,), the last of the steps taken together, as log(1 + u); rate float64, percent a
             year; status int8, NOT_CONVERGED where no yield in the bounds has the price, RANGE where the price is not
             positive, written only where it was VALUED and not by_flows.
    NaN:     the yield of a bond with a status, or whose price is NaN.
    Source:  Press et al., Numerical Recipes, section 9.4 (Newton with bisection).
    """
    begin = i * at_once
    end = min(begin + at_once, dirty.shape[0])
    leads, firsts, laters = terms[LEAD, begin:end], terms[FIRST, begin:end], terms[LATER, begin:end]
    counts, prices = n_flows[begin:end], dirty[begin:end]
    steps, rates = step[begin:end], rate[begin:end]
    for j in range(end - begin):
        rates[j] = first_guess(leads[j], laters[j], counts[j], prices[j])
    for _ in range(STEPS_AT_ONCE):
        for j in range(end - begin):
            u = rates[j]
            value, slope = value_and_slope(leads[j], firsts[j], laters[j], counts[j], u, convention)
            s = TWO * (value - prices[j]) / (value + prices[j]) * value / slope
            s = clipped(s, -_HALF, _HALF)
            steps[j] = s
            # exp(s) - 1, exact where s is small, as it is in the end
            u = u + (ONE + u) * s * (ONE + s * _HALF * (ONE + s * _THIRD * (ONE + s * _QUARTER)))
            rates[j] = clipped(u, LEAST_U, MOST_U)
    for k in range(begin, end):
        if by_flows[k]:
            continue
        u, price = rate[k], dirty[k]
        rate[k] = np.nan
        if status[k] != VALUED or price != price:
            continue
        if price <= ZERO:
            status[k] = RANGE
            continue
        done = (abs(step[k]) < CLOSE) & (u > LEAST_U) & (u < MOST_U)
        if not done:
            u, done = searched(terms[LEAD, k], terms[FIRST, k], terms[LATER, k], n_flows[k], price, convention)
        if done:
            rate[k] = u / terms[PERIOD, k]
        else:
            status[k] = NOT_CONVERGED
