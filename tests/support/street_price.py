"""A plain street formula for tests of the market of bonds: prices of yields, and yields of prices by bisection.

Years are days / 365.25, which is near enough to test how tables are made; `gpupipe.bonds` has the conventions.
"""

import numpy as np

MOST_PERIODS = 480


def price_of_yield(table):
    """Clean prices of a table with the columns of `schema.bond_table` and `yield`."""
    return _price(table, table["yield"])


def yield_of_price(table, clean):
    """The yields, percent, that give clean prices."""
    low, high = np.full(len(clean), -4.9), np.full(len(clean), 200.0)
    for _ in range(60):
        middle = (low + high) / 2
        above = _price(table, middle) > clean
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (low + high) / 2


def _price(table, yields):
    frequency = np.maximum(table["frequency"], 1).astype(np.float64)
    periods = (table["maturity"] - table["settlement"]).astype(np.float64) / 365.25 * frequency
    n_coupons = np.ceil(periods)
    first = periods - (n_coupons - 1)
    coupon = table["coupon"] / frequency
    discount = 1 / (1 + yields / 100 / frequency)
    dirty = 100 * discount**periods
    for k in range(min(MOST_PERIODS, int(n_coupons.max(initial=0)))):
        dirty = dirty + np.where(k < n_coupons, coupon * discount ** (first + k), 0.0)
    return dirty - coupon * (1 - first)
