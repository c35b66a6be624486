"""Curves for bonds: discounts from par or zero rates, flows discounted by them, and key-rate durations.

A curve is held as the logarithms of its discounts at nodes, with straight lines in time between them, from 0 at time 0;
after the last node the zero rate stays. Time is in years of 365.25 days from settlement.
"""

from __future__ import annotations

import numpy as np

from .bonds import REDEMPTION
from .compile import inline, kernel
from .elementary import exp_64, log_64

DAYS_OF_YEAR = np.float64(365.25)
KEY_SHIFT = np.float64(0.01)  # percent: rates of a key are moved by it up and down
_ONE, _ZERO, _HALF, _HUNDRED = np.float64(1.0), np.float64(0.0), np.float64(0.5), np.float64(100.0)


@inline
def rate_at(tenors, rates, i, time):
    """The rate of curve i at a time: on a line between the known tenors around it, or that of the nearest one."""
    below, above = np.int64(-1), np.int64(-1)
    for k in range(tenors.shape[0]):
        if rates[i, k] == rates[i, k]:
            if tenors[k] <= time:
                below = np.int64(k)
            elif above < 0:
                above = np.int64(k)
    if below < 0 and above < 0:
        return np.float64(np.nan)
    if below < 0 or above < 0:
        return rates[i, max(below, above)]
    share = (time - tenors[below]) / (tenors[above] - tenors[below])
    return rates[i, below] + share * (rates[i, above] - rates[i, below])


@kernel(types=("f8[:]", "f8[:,:]", "f8[:]", "f8[:,:]"), double_precision=True)
def zero_nodes(i, tenors, rates, times, log_discount):
    """Logarithms of the discounts of curve i from zero rates: -time * rate / 100.

    Inputs:  tenors float64 (n_tenors,), years, rising; rates float64 (n_curves, n_tenors), zero rates in percent a
             year, compounded continuously; times float64 (n_nodes,), years, rising.
    Outputs: log_discount float64 (n_curves, n_nodes).
    NaN:     a tenor whose rate is NaN is left out; a curve without any rate is NaN.
    """
    for k in range(times.shape[0]):
        log_discount[i, k] = -times[k] * rate_at(tenors, rates, i, times[k]) / _HUNDRED


@kernel(types=("f8[:]", "f8[:,:]", "f8[:]", "f8[:,:]"), double_precision=True)
def par_nodes(i, tenors, rates, times, log_discount):
    """Logarithms of the discounts of curve i from par rates with two coupons a year, bootstrapped.

    Up to half a year, 1 / (1 + y t). At t = 1, 1.5, ... the price of a bond with the par rate as its coupon is 100:

        discount(t) = (1 - y / 2 * sum of the discounts at the half-years before t) / (1 + y / 2)

    Par rates lie on lines between the tenors.

    Inputs:  as `zero_nodes`, with par rates in percent a year; times: any up to 0.5, then 0.5, 1, 1.5, ...
    Outputs: as `zero_nodes`.
    NaN:     as `zero_nodes`; and from the first discount on that would be 0 or less.
    Source:  Fabozzi, Handbook of Fixed Income Securities, on bootstrapping.
    """
    paid = _ZERO
    for k in range(times.shape[0]):
        y = rate_at(tenors, rates, i, times[k]) / _HUNDRED
        if times[k] <= _HALF:
            discount = _ONE / (_ONE + y * times[k])
        else:
            discount = (_ONE - y * _HALF * paid) / (_ONE + y * _HALF)
        if times[k] >= _HALF:
            paid += discount
        log_discount[i, k] = log_64(discount) if discount > _ZERO else np.float64(np.nan)


@inline
def log_discount_at(times, log_discount, i, time, k):
    """The logarithm of the discount of curve i at a time, and the node after it; k: a node at or before that one."""
    last = times.shape[0] - 1
    while k < last and times[k] < time:
        k += 1
    if times[k] < time:
        return log_discount[i, last] * time / times[last], k
    if k == 0:
        return log_discount[i, 0] * time / times[0], k
    share = (time - times[k - 1]) / (times[k] - times[k - 1])
    return log_discount[i, k - 1] + share * (log_discount[i, k] - log_discount[i, k - 1]), k


@kernel(
    types=("i8[:]", "i8[:]", "i8[:]", "i8[:]", "b1[:]", "i8[:]", "f8[:]", "f8[:,:]", "f8[:]", "f8[:]",
           "f8[:]", "f8[:]", "f8[:]"),
    double_precision=True, brief=64,
)  # fmt: skip
def discount_flows(
    i, bonds, offsets, date, settlement, floating, curve, times, log_discount, amount, exit,
    years, discounted_amount, discounted_exit,
):  # fmt: skip
    """Discount the flows of bond b = bonds[i] by its curve; the coupons of a floating bond are projected from it.

    To each flow of a floating bond after the first, 100 (discount of the flow before / discount - 1) is added.

    Reads:   the flows of the bond, and row b.
    Inputs:  bonds, offsets, date int64 and exit, of `bond_flows`; settlement int64, floating bool and curve int64
             (n_bonds,), the row of log_discount or -1; times float64 (n_nodes,), log_discount (n_curves, n_nodes).
    State:   amount float64 (offsets[n],), of `bond_flows`: the coupons, to which the projected rate is added.
    Outputs: years float64 (offsets[n],), from settlement; discounted_amount and discounted_exit, float64, times the
             discount.
    NaN:     without a curve, discounts and projected coupons.
    """
    b = bonds[i]
    before, k = _ZERO, np.int64(0)
    for row in range(offsets[i], offsets[i + 1]):
        years[row] = (date[row] - settlement[b]) / DAYS_OF_YEAR
        here = np.float64(np.nan)
        if curve[b] >= 0:
            here, k = log_discount_at(times, log_discount, curve[b], years[row], k)
        if floating[b] and row > offsets[i]:
            amount[row] += REDEMPTION * (exp_64(before - here) - _ONE)
        discount = exp_64(here)
        discounted_amount[row] = amount[row] * discount
        discounted_exit[row] = exit[row] * discount
        before = here


@kernel(types=("i8[:]", "i8[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:]", "i8[:]"), double_precision=True, brief=64)
def price_on_curve(i, bonds, offsets, years, discounted_amount, discounted_exit, spread, dirty, last):
    """The dirty price of bond b = bonds[i] on its curve, at a spread over the zero rates.

    A bond that can be called is worth the least of its ends.

    Reads:   the flows of the bond, and row b.
    Inputs:  bonds, offsets, years, discounted_amount and discounted_exit of `discount_flows`; spread float64
             (n_bonds,), a fraction a year, compounded continuously.
    Outputs: row b of dirty float64 (n_bonds,), percent of par; last int64 (n,), the row of the last flow, or -1.
    NaN:     without a curve or flows.
    """
    b = bonds[i]
    value, last[i], best = np.float64(np.nan), np.int64(-1), np.float64(np.inf)
    paid = _ZERO
    for row in range(offsets[i], offsets[i + 1]):
        growth = exp_64(-spread[b] * years[row])
        paid += discounted_amount[row] * growth
        ended = paid + discounted_exit[row] * growth
        if ended < best:
            value, best, last[i] = ended, ended, row
    dirty[b] = value


@inline
def value_on_curve(begin, stop, years, amount, exit, floating, times, log_discount, c, spread):
    """The value of flows, the last of which is the row before `stop`, on curve c; `amount` as of `bond_flows`."""
    value, before, k = _ZERO, _ZERO, np.int64(0)
    for row in range(begin, stop):
        here, k = log_discount_at(times, log_discount, c, years[row], k)
        paid = amount[row]
        if floating and row > begin:
            paid += REDEMPTION * (exp_64(before - here) - _ONE)
        if row == stop - 1:
            paid += exit[row]
        value += paid * exp_64(here - spread * years[row])
        before = here
    return value


@kernel(
    types=("i8[:]", "i8[:]", "f8[:]", "f8[:]", "f8[:]", "b1[:]", "i8[:]", "i8[:]", "f8[:]", "f8[:]", "f8[:,:]", "i8",
           "f8[:,:]", "f8[:]"),
    double_precision=True, brief=64,
)  # fmt: skip
def key_rates(
    i, bonds, offsets, years, amount, exit, floating, curve, last, spread, times, log_discount, n_curves,
    duration, total,
):  # fmt: skip
    """Key-rate durations of bond b = bonds[i]: how its price on its curve answers to the rate of each tenor alone.

        (price with the rate KEY_SHIFT lower - price with it KEY_SHIFT higher) / (2 KEY_SHIFT / 100 price)

    The spread to the curve is kept, and a bond that can be called ends where `last` says.

    Reads:   the flows of the bond, and row b.
    Inputs:  bonds, offsets int64, amount and exit, of `bond_flows`; years, curve as in `discount_flows`; last as in
             `price_on_curve`; spread float64 (n_bonds,), a fraction a year, continuous; log_discount float64
             ((1 + 2 n_tenors) n_curves, n_nodes): of the curves, then for each tenor with its rate higher and lower.
    Outputs: row b of duration float64 (n_bonds, n_tenors), years, and of total float64 (n_bonds,), their sum in the
             order of the tenors.
    NaN:     without a curve; of a tenor without a rate 0.
    Source:  Ho (1992), Key rate durations.
    """
    b = bonds[i]
    c, s, begin, stop = curve[b], spread[b], offsets[i], last[i] + 1
    known = c >= 0 and stop > 0
    price = np.float64(np.nan)
    if known:
        price = value_on_curve(begin, stop, years, amount, exit, floating[b], times, log_discount, c, s)
    added = _ZERO
    for k in range(duration.shape[1]):
        change = np.float64(np.nan)
        if known:
            up, down = c + (1 + 2 * k) * n_curves, c + (2 + 2 * k) * n_curves
            change = value_on_curve(begin, stop, years, amount, exit, floating[b], times, log_discount, down, s)
            change -= value_on_curve(begin, stop, years, amount, exit, floating[b], times, log_discount, up, s)
        duration[b, k] = change * _HUNDRED / (np.float64(2.0) * KEY_SHIFT * price)
        added += duration[b, k]
    total[b] = added
