"""Rolling windows and recursive averages of a series, built from element-wise operations and lags.

A window of n bars is built from windows of n / 2 bars, so that windows of different lengths share their parts and the
cost of a row grows with log n. A window is NaN until it is full, and where one of its values is NaN.
Every function raises ValueError for a window or period that is not a whole number of at least 1.
"""

from __future__ import annotations

import functools
import math

from gpupipe.features.series import Series, as_series, binary, change, check_at_least, fill, lag, node, sqrt, where
from gpupipe.kernels import operations

_UNKNOWN = as_series(math.nan)


def total(x: Series, n: int) -> Series:
    """Sum of the last n values.

    It adds two sums of half the window: no value outlives its window, as it would in a running sum, and rounding errors
    do not grow with the length of the series.
    """
    check_at_least(n, 1, "window")
    if n == 1:
        return x
    if n % 2:
        return total(x, n - 1) + lag(x, n - 1)
    return total(x, n // 2) + lag(total(x, n // 2), n // 2)


def mean(x: Series, n: int) -> Series:
    """Mean of the last n values (TA-Lib SMA)."""
    return total(x, n) / n


def highest(x: Series, n: int) -> Series:
    """Highest of the last n values (TA-Lib MAX)."""
    return _extreme(operations.MAXIMUM, x, n)


def lowest(x: Series, n: int) -> Series:
    """Lowest of the last n values (TA-Lib MIN)."""
    return _extreme(operations.MINIMUM, x, n)


def _extreme(code: int, x: Series, n: int) -> Series:
    check_at_least(n, 1, "window")
    if n == 1:
        return x
    half = 1 << (n - 1).bit_length() - 1  # two windows of this length cover n; an extreme may count a bar twice
    part = _extreme(code, x, half)
    return binary(code, part, lag(part, n - half))


def bars_since_highest(x: Series, n: int, oldest: bool = False) -> Series:
    """Bars since the highest of the last n values, 0 to n - 1; of ties the newest, or the oldest."""
    return _bars_since(operations.MAXIMUM, x, n, oldest)


def bars_since_lowest(x: Series, n: int, oldest: bool = False) -> Series:
    """Bars since the lowest of the last n values, 0 to n - 1; of ties the newest, or the oldest."""
    return _bars_since(operations.MINIMUM, x, n, oldest)


@functools.cache
def _bars_since(code: int, x: Series, n: int, oldest: bool) -> Series:
    """Bars since the extreme, taken from whichever of the two windows of `_extreme` holds it."""
    check_at_least(n, 1, "window")
    if n == 1:
        return 0.0 * x
    half = 1 << (n - 1).bit_length() - 1
    extreme, bars, offset = _extreme(code, x, half), _bars_since(code, x, half, oldest), n - half
    earlier_extreme, earlier_bars = lag(extreme, offset), lag(bars, offset) + float(offset)
    if code == operations.MAXIMUM:
        in_later_window = extreme > earlier_extreme if oldest else extreme >= earlier_extreme
    else:
        in_later_window = extreme < earlier_extreme if oldest else extreme <= earlier_extreme
    return where(in_later_window, bars, earlier_bars)


def absolute_deviation(x: Series, n: int) -> Series:
    """Mean absolute deviation of the last n values from their mean."""
    return node(operations.ABSOLUTE_DEVIATION, (x, mean(x, n)), n) / n


def central_moment(x: Series, n: int, power: int) -> Series:
    """Population central moment of the last n values; ValueError unless power is 2, 3 or 4."""
    if power not in (2, 3, 4):
        raise ValueError(f"power is {power}, expected 2, 3 or 4")
    check_at_least(n, 1, "window")
    return (_sum_of_products(x, x, n) if power == 2 else _sum_of_powers(x, n, power)) / n


def deviation(x: Series, n: int) -> Series:
    """Population standard deviation of the last n values (TA-Lib STDDEV)."""
    return sqrt(central_moment(x, n, 2))


def comoment(x: Series, y: Series, n: int) -> Series:
    """Population covariance of the last n values of x and y."""
    check_at_least(n, 1, "window")
    return _sum_of_products(x, y, n) / n


@functools.cache
def _sum_of_products(x: Series, y: Series, n: int) -> Series:
    """Sum over the last n values of (x - mean of x) * (y - mean of y).

    The sum of a window is the sums of its two halves plus a term for the distance between their means. Nothing is
    subtracted from a large number, so nothing cancels. Source: Chan, Golub and LeVeque (1983).
    """
    if n == 1:
        return 0.0 * (x * y)
    if n % 2:
        between = (_distance_of_oldest(x, n) * _distance_of_oldest(y, n)) / (n * (n - 1.0))
        return _sum_of_products(x, y, n - 1) + between
    half = n // 2
    between = change(total(x, half), half) * change(total(y, half), half) / n
    return _sum_of_products(x, y, half) + lag(_sum_of_products(x, y, half), half) + between


def _distance_of_oldest(x: Series, n: int) -> Series:
    """(n - 1) * (mean of the last n - 1 values - the value before them)."""
    return total(x, n - 1) - (n - 1.0) * lag(x, n - 1)


@functools.cache
def _sum_of_powers(x: Series, n: int, power: int) -> Series:
    """Sum over the last n values of (x - mean)^power, power 3 or 4, from two halves. Source: Pebay (2008)."""
    if n == 1:
        return 0.0 * x
    if n % 2:
        m, d = n - 1.0, _distance_of_oldest(x, n) / (1.0 - n)  # d: the oldest value less the mean of the others
        second = _sum_of_products(x, x, n - 1)
        third = _sum_of_powers(x, n - 1, 3)
        if power == 3:
            return third + d * (d * d * (m * (m - 1) / n**2) - 3.0 / n * second)
        between = d * d * (d * d * (m * (m * m - m + 1) / n**3) + 6.0 / n**2 * second) - 4.0 / n * (d * third)
        return _sum_of_powers(x, n - 1, 4) + between
    half = n // 2
    d = change(total(x, half), half) / half
    second = _sum_of_products(x, x, half)
    third = _sum_of_powers(x, half, 3)
    if power == 3:
        return third + lag(third, half) + 1.5 * (d * change(second, half))
    fourth = _sum_of_powers(x, half, 4)
    between = d * (d * (d * d * (half / 8.0) + 1.5 * (second + lag(second, half))) + 2.0 * change(third, half))
    return fourth + lag(fourth, half) + between


def rank(x: Series, n: int) -> Series:
    """Rank of the newest among the last n values, as a share of n: 1 / n to 1, ties take their mean rank."""
    return node(operations.RANK, (x,), n)


def quantile(x: Series, n: int, q: float) -> Series:
    """The q-quantile of the last n values, linear between order statistics; ValueError unless 0 <= q <= 1."""
    if not 0 <= q <= 1:
        raise ValueError(f"q is {q}, expected 0 to 1")
    return node(operations.QUANTILE, (x,), n, float(q))


def weighted_total(x: Series, n: int) -> Series:
    """Sum over the last n values of value * age, the age in bars from 0 (newest) to n - 1."""
    check_at_least(n, 1, "window")
    if n == 1:
        return 0.0 * x
    if n % 2:
        return weighted_total(x, n - 1) + (n - 1.0) * lag(x, n - 1)
    half = n // 2
    return weighted_total(x, half) + lag(weighted_total(x, half) + float(half) * total(x, half), half)


def ema(x: Series, n: int, skip: int = 0) -> Series:
    """Exponential moving average with weight 2 / (n + 1) on the new value (TA-Lib EMA).

    It starts as the mean of n values, after the first `skip` values. A NaN restarts it.
    """
    check_at_least(n, 1, "period")
    return node(operations.MOVING, (x,), n, 1.0 - 2.0 / (n + 1.0), skip)


def wilder(x: Series, n: int) -> Series:
    """Wilder's moving average, weight 1 / n on the new value; it starts as the mean of n values. A NaN restarts it."""
    check_at_least(n, 1, "period")
    return node(operations.MOVING, (x,), n, 1.0 - 1.0 / n)


def wilder_total(x: Series, n: int) -> Series:
    """Wilder's sum, (1 - 1 / n) * previous sum + x; it starts as the sum of n - 1 values. A NaN restarts it."""
    check_at_least(n, 1, "period")
    return node(operations.DECAYING, (x,), n, 1.0 - 1.0 / n)


def total_since(x: Series, starts: Series) -> Series:
    """Sum of x since the last bar in which `starts` is not 0, that bar included; a NaN of either restarts it, too.

    Before any start it is the sum since the symbol's first bar. It is a running sum: rounding errors last until the
    next start.
    """
    earlier = where(starts, _UNKNOWN, lag(x, 1))  # Wilder's sum of period 1 and decay 1 adds up, and restarts after NaN
    return x + fill(node(operations.DECAYING, (earlier,), 1, 1.0), 0.0)
