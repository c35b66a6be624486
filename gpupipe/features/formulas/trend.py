"""Trend: the close relative to moving averages, MACD, directional movement, regressions on time."""

from __future__ import annotations

from gpupipe.features.expressions import (
    Bar,
    Series,
    bars_since_highest,
    bars_since_lowest,
    central_moment,
    change,
    ema,
    lag,
    maximum,
    mean,
    minimum,
    total,
    weighted_total,
    where,
    wilder,
    wilder_total,
)
from gpupipe.features.formulas.registry import feature


def true_range(bar: Bar) -> Series:
    """max(high, previous close) - min(low, previous close)."""
    previous = lag(bar.close, 1)
    return maximum(bar.high, previous) - minimum(bar.low, previous)


def directional_movement(bar: Bar) -> tuple[Series, Series]:
    """+DM and -DM: rise of the high and fall of the low, each 0 unless it is positive and the larger of the two."""
    up, down = change(bar.high), -change(bar.low)
    plus = where(up > down, maximum(up, 0.0), 0.0)
    minus = where(down > up, maximum(down, 0.0), 0.0)
    return plus, minus


def slope(x: Series, n: int) -> Series:
    """Slope per bar of the least-squares line through the last n values."""
    age = (n - 1) / 2
    return (age * total(x, n) - weighted_total(x, n)) / (n * (n * n - 1) / 12)


@feature("trend", "TA-Lib SMA", [5, 10, 20, 50, 100, 200])
def sma_ratio(bar: Bar, n: int) -> Series:
    """close / SMA({n}) - 1"""
    return bar.close / mean(bar.close, n) - 1


@feature("trend", "TA-Lib EMA", [5, 10, 20, 50], extra=[100, 200])
def ema_ratio(bar: Bar, n: int) -> Series:
    """close / EMA({n}) - 1"""
    return bar.close / ema(bar.close, n) - 1


@feature("trend", "TA-Lib WMA", [10, 20, 50])
def wma_ratio(bar: Bar, n: int) -> Series:
    """close / WMA({n}) - 1"""
    weighted = n * total(bar.close, n) - weighted_total(bar.close, n)
    return bar.close / (weighted / (n * (n + 1) / 2)) - 1


@feature("trend", "TA-Lib DEMA", [20])
def dema_ratio(bar: Bar, n: int) -> Series:
    """close / DEMA({n}) - 1"""
    once = ema(bar.close, n)
    return bar.close / (2.0 * once - ema(once, n)) - 1


@feature("trend", "TA-Lib TRIX", [15])
def trix(bar: Bar, n: int) -> Series:
    """100 * one bar's rate of change of the EMA({n}) of EMA({n}) of EMA({n})"""
    thrice = ema(ema(ema(bar.close, n), n), n)
    return 100.0 * (thrice / lag(thrice, 1) - 1)


def macd(bar: Bar, fast: int, slow: int, signal: int) -> tuple[Series, Series]:
    """MACD line and signal line; both averages of the price start on the first bar of the slow one."""
    line = ema(bar.close, fast, slow - fast) - ema(bar.close, slow)
    return line, ema(line, signal)


@feature("trend", "TA-Lib MACD")
def macd_line_ratio(bar: Bar) -> Series:
    """MACD(12, 26, 9) line / close"""
    line, signal = macd(bar, 12, 26, 9)
    return (line + 0.0 * signal) / bar.close


@feature("trend", "TA-Lib MACD")
def macd_signal_ratio(bar: Bar) -> Series:
    """MACD(12, 26, 9) signal / close"""
    return macd(bar, 12, 26, 9)[1] / bar.close


@feature("trend", "TA-Lib MACD")
def macd_hist_ratio(bar: Bar) -> Series:
    """MACD(12, 26, 9) hist / close"""
    line, signal = macd(bar, 12, 26, 9)
    return (line - signal) / bar.close


def directional(bar: Bar, n: int) -> tuple[Series, Series]:
    """+DI and -DI, 0 to 100."""
    plus, minus = directional_movement(bar)
    span = wilder_total(true_range(bar), n)
    return tuple(where(span > 0.0, 100.0 * wilder_total(move, n) / span, 0.0) for move in (plus, minus))  # type: ignore[return-value]


def direction_index(bar: Bar, n: int) -> Series:
    """DX, 0 to 100; 0 without directional movement."""
    plus, minus = (wilder_total(move, n) for move in directional_movement(bar))
    both = plus + minus
    return where(both > 0.0, 100.0 * abs(plus - minus) / both, 0.0)


@feature("trend", "TA-Lib ADX", [14, 28])
def adx(bar: Bar, n: int) -> Series:
    """Wilder's mean of 100 |+DI - -DI| / (+DI + -DI), n = {n}"""
    return wilder(direction_index(bar, n), n)


@feature("trend", "TA-Lib PLUS_DI", [14])
def plus_di(bar: Bar, n: int) -> Series:
    """100 * rises of the high / true range, Wilder's sums, n = {n}"""
    return directional(bar, n)[0]


@feature("trend", "TA-Lib MINUS_DI", [14])
def minus_di(bar: Bar, n: int) -> Series:
    """100 * falls of the low / true range, Wilder's sums, n = {n}"""
    return directional(bar, n)[1]


@feature("trend", "TA-Lib AROON", [25])
def aroon_up(bar: Bar, n: int) -> Series:
    """100 * ({n} - bars since the highest high of {n} + 1) / {n}"""
    return 100.0 * (1 - bars_since_highest(bar.high, n + 1) / n)


@feature("trend", "TA-Lib AROON", [25])
def aroon_down(bar: Bar, n: int) -> Series:
    """100 * ({n} - bars since the lowest low of {n} + 1) / {n}"""
    return 100.0 * (1 - bars_since_lowest(bar.low, n + 1) / n)


@feature("trend", "TA-Lib LINEARREG_SLOPE", [10, 20, 60])
def slope_ratio(bar: Bar, n: int) -> Series:
    """100 * slope of the line through {n} closes / their mean"""
    return 100.0 * slope(bar.close, n) / mean(bar.close, n)


@feature("trend", "coefficient of determination", [20, 60])
def trend_r2(bar: Bar, n: int) -> Series:
    """R squared of the line through {n} closes; 0 of closes that do not move"""
    spread = central_moment(bar.close, n, 2)
    explained = slope(bar.close, n) * slope(bar.close, n) * ((n * n - 1) / 12)
    return where(spread > 0.0, explained / spread, 0.0)


@feature("trend", "Kaufman (1995), efficiency ratio", [10, 20, 60])
def efficiency_ratio(bar: Bar, n: int) -> Series:
    """|close - close[{n}]| / sum of {n} |close - close[1]|; 0 of closes that do not move"""
    path = total(abs(change(bar.close)), n)
    return where(path > 0.0, abs(change(bar.close, n)) / path, 0.0)


@feature("trend", "Botes and Siepman (2010), vortex indicator", [14])
def vortex(bar: Bar, n: int) -> Series:
    """(sum of {n} |high - low[1]| - sum of {n} |low - high[1]|) / sum of {n} true ranges; 0 without any range"""
    span = total(true_range(bar), n)
    up, down = abs(bar.high - lag(bar.low, 1)), abs(bar.low - lag(bar.high, 1))
    return where(span > 0.0, (total(up, n) - total(down, n)) / span, 0.0)


@feature("trend", "ratio of two averages", [(5, 20), (20, 60), (50, 200)])
def sma_cross(bar: Bar, short: int, long: int) -> Series:
    """SMA({short}) / SMA({long}) - 1"""
    return mean(bar.close, short) / mean(bar.close, long) - 1
