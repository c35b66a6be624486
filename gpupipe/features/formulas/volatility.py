"""Volatility: true range, moments of returns, range estimators, bands."""

from __future__ import annotations

import math

from gpupipe.features.expressions import (
    Bar,
    Series,
    central_moment,
    comoment,
    deviation,
    highest,
    lag,
    log,
    maximum,
    mean,
    minimum,
    sqrt,
    where,
    wilder,
)
from gpupipe.features.formulas.registry import feature
from gpupipe.features.formulas.returns import SMALLEST_VARIANCE, log_gap, log_return
from gpupipe.features.formulas.trend import true_range


def average_range(bar: Bar, n: int) -> Series:
    """NATR, in per cent: 100 * ATR(n) / close."""
    return 100.0 * wilder(true_range(bar), n) / bar.close


@feature("volatility", "TA-Lib NATR", [14])
def natr(bar: Bar, n: int) -> Series:
    """100 * ATR({n}) / close"""
    return average_range(bar, n)


@feature("volatility", "ln of TA-Lib NATR", [5, 20], extra=[14, 60])
def log_natr(bar: Bar, n: int) -> Series:
    """ln(max(100 * ATR({n}) / close, 1e-4))"""
    return log(maximum(average_range(bar, n), 1e-4))


def relative_range(bar: Bar) -> Series:
    """True range / previous close."""
    return true_range(bar) / lag(bar.close, 1)


@feature("volatility", "relative true range", [60])
def log_range(bar: Bar, n: int) -> Series:
    """ln(max(100 * mean of {n} true ranges over close[1], 1e-4))

    The long-period form of log_natr: Wilder's average over 60 bars depends on where the data starts, even after two
    years.
    """
    return log(maximum(100.0 * mean(relative_range(bar), n), 1e-4))


@feature("volatility", "coefficient of variation", [20, 60])
def vol_of_vol(bar: Bar, n: int) -> Series:
    """std / mean of {n} true ranges over close[1]; 0 without any range"""
    average = mean(relative_range(bar), n)
    return where(average > 0.0, deviation(relative_range(bar), n) / average, 0.0)


def realised(x: Series, n: int) -> Series:
    """Root mean square of the last n values."""
    return sqrt(mean(x * x, n))


@feature("volatility", "realised volatility", [5, 10, 20, 60, 120], extra=[250])
def volatility(bar: Bar, n: int) -> Series:
    """sqrt(mean of {n} r^2), r = ln(close / close[1])"""
    return realised(log_return(bar), n)


@feature("volatility", "semideviation", [20, 60])
def downside_volatility(bar: Bar, n: int) -> Series:
    """sqrt(mean of {n} min(r, 0)^2)"""
    return realised(minimum(log_return(bar), 0.0), n)


@feature("volatility", "Barndorff-Nielsen, Kinnebrock and Shephard (2010), realised semivariance", [20, 60])
def downside_share(bar: Bar, n: int) -> Series:
    """sum of {n} min(r, 0)^2 / sum of r^2; 0.5 without any move"""
    r = log_return(bar)
    square = mean(r * r, n)
    down = minimum(r, 0.0)
    return where(square > 0.0, mean(down * down, n) / square, 0.5)


@feature("volatility", "MAX effect, Bali, Cakici and Whitelaw (2011)", [5, 20, 60])
def max_abs_return(bar: Bar, n: int) -> Series:
    """max of {n} |r|"""
    return highest(abs(log_return(bar)), n)


@feature("volatility", "MAX effect, Bali, Cakici and Whitelaw (2011)", [20])
def max_return(bar: Bar, n: int) -> Series:
    """max of {n} r"""
    return highest(log_return(bar), n)


@feature("volatility", "population moments", [20, 60])
def skewness(bar: Bar, n: int) -> Series:
    """skewness of {n} r; 0 without any variance"""
    second = central_moment(log_return(bar), n, 2)
    third = central_moment(log_return(bar), n, 3)
    return where(second > SMALLEST_VARIANCE, third / (second * sqrt(second)), 0.0)


@feature("volatility", "population moments", [20, 60])
def kurtosis(bar: Bar, n: int) -> Series:
    """excess kurtosis of {n} r; 0 without any variance"""
    second = central_moment(log_return(bar), n, 2)
    return where(second > SMALLEST_VARIANCE, central_moment(log_return(bar), n, 4) / (second * second) - 3, 0.0)


@feature("volatility", "lag 1, population moments", [20, 60])
def autocorrelation(bar: Bar, n: int) -> Series:
    """autocorrelation of {n} r at lag 1, of the pairs within the window; 0 without any variance"""
    r = log_return(bar)
    second = central_moment(r, n, 2)
    m = mean(r, n)
    # Sum of (r - m)(r[1] - m) over the n - 1 pairs inside the window: r[1] of the oldest bar lies outside.
    pairs = mean(r * lag(r, 1), n - 1) * (n - 1)
    both = m * ((mean(r, n - 1) + lag(mean(r, n - 1), 1)) * (n - 1) - (n - 1) * m)
    return where(second > SMALLEST_VARIANCE, (pairs - both) / n / second, 0.0)


@feature("volatility", "ratio of realised volatilities", [(5, 20), (5, 60), (20, 60), (20, 120)])
def volatility_ratio(bar: Bar, short: int, long: int) -> Series:
    """volatility_{short} / volatility_{long}; 1 without any move"""
    r2 = log_return(bar) * log_return(bar)
    return where(mean(r2, long) > 0.0, sqrt(mean(r2, short) / mean(r2, long)), 1.0)


@feature("volatility", "realised volatility", [20])
def gap_volatility(bar: Bar, n: int) -> Series:
    """sqrt(mean of {n} g^2), g = ln(open / close[1])"""
    return realised(log_gap(bar), n)


@feature("volatility", "share of overnight variance", [20, 60])
def gap_share(bar: Bar, n: int) -> Series:
    """mean of {n} g^2 / (mean of g^2 + mean of ln(close / open)^2); 0.5 without any move"""
    gap, body = log_gap(bar) * log_gap(bar), log(bar.close / bar.open) * log(bar.close / bar.open)
    both = mean(gap + body, n)
    return where(both > 0.0, mean(gap, n) / both, 0.5)


@feature("volatility", "largest overnight move", [20, 60])
def max_abs_gap(bar: Bar, n: int) -> Series:
    """max of {n} |g|"""
    return highest(abs(log_gap(bar)), n)


def parts(bar: Bar) -> tuple[Series, Series, Series]:
    """ln of high / open, low / open and close / open."""
    return log(bar.high / bar.open), log(bar.low / bar.open), log(bar.close / bar.open)


@feature("volatility", "Parkinson (1980)", [20, 60])
def parkinson(bar: Bar, n: int) -> Series:
    """sqrt(mean of {n} ln(high / low)^2 / (4 ln 2))"""
    up, down, _ = parts(bar)
    return sqrt(mean((up - down) * (up - down), n) / (4 * math.log(2)))


@feature("volatility", "Garman and Klass (1980)", [20])
def garman_klass(bar: Bar, n: int) -> Series:
    """sqrt(mean of {n} ln(high / low)^2 / 2 - (2 ln 2 - 1) ln(close / open)^2), 0 if that is negative"""
    up, down, body = parts(bar)
    square = (up - down) * (up - down) * 0.5 - (2 * math.log(2) - 1) * (body * body)
    return sqrt(maximum(mean(square, n), 0.0))


def satchell(bar: Bar) -> Series:
    """Rogers and Satchell's variance of one bar."""
    up, down, body = parts(bar)
    return up * (up - body) + down * (down - body)


@feature("volatility", "Rogers and Satchell (1991)", [20])
def rogers_satchell(bar: Bar, n: int) -> Series:
    """sqrt(mean of {n} u (u - c) + d (d - c)), u d c = ln of high, low, close over open"""
    return sqrt(maximum(mean(satchell(bar), n), 0.0))


@feature("volatility", "Yang and Zhang (2000)", [20, 60])
def yang_zhang(bar: Bar, n: int) -> Series:
    """sqrt(var g + k var c + (1 - k) RS^2) of {n} bars, k = 0.34 / (1.34 + (n + 1) / (n - 1)), var with n - 1"""
    k = 0.34 / (1.34 + (n + 1) / (n - 1))
    unbiased = n / (n - 1)
    gap, body = central_moment(log_gap(bar), n, 2), central_moment(parts(bar)[2], n, 2)
    return sqrt(maximum(gap * unbiased + body * (k * unbiased) + mean(satchell(bar), n) * (1 - k), 0.0))


@feature("volatility", "TA-Lib BBANDS", [20, 50])
def bb_percent(bar: Bar, n: int) -> Series:
    """(close - lower) / (upper - lower), bands SMA {n} -+ 2 std; 0.5 without any deviation"""
    spread = deviation(bar.close, n)
    return where(spread > 0.0, (bar.close - mean(bar.close, n)) / (4.0 * spread) + 0.5, 0.5)


@feature("volatility", "TA-Lib BBANDS", [20, 50])
def bb_width(bar: Bar, n: int) -> Series:
    """(upper - lower) / SMA {n}, bands SMA {n} -+ 2 std"""
    return 4.0 * deviation(bar.close, n) / mean(bar.close, n)


@feature("volatility", "TA-Lib STDDEV", [10], extra=[20, 50])
def std_ratio(bar: Bar, n: int) -> Series:
    """std of {n} closes / SMA {n}"""
    return deviation(bar.close, n) / mean(bar.close, n)


@feature("volatility", "Martin and McCann (1989), ulcer index", [20, 60])
def ulcer(bar: Bar, n: int) -> Series:
    """sqrt(mean of {n} (100 * (close / highest close of {n} - 1))^2)"""
    fall = 100.0 * (bar.close / highest(bar.close, n) - 1)
    return realised(fall, n)


@feature("volatility", "leverage effect, Black (1976)", [60])
def leverage(bar: Bar, n: int) -> Series:
    """correlation of r[1] and |r| over {n} bars; 0 without any variance"""
    r = log_return(bar)
    before, size = lag(r, 1), abs(r)
    spread = central_moment(before, n, 2) * central_moment(size, n, 2)
    return where(spread > SMALLEST_VARIANCE**2, comoment(before, size, n) / sqrt(spread), 0.0)
