"""Range: the position of the close between past extremes, and the bars since these extremes."""

from __future__ import annotations

from gpupipe.features.expressions import (
    Bar,
    Series,
    bars_since_highest,
    bars_since_lowest,
    highest,
    lowest,
    mean,
    where,
)
from gpupipe.features.formulas.momentum import range_position
from gpupipe.features.formulas.registry import feature
from gpupipe.features.formulas.volatility import relative_range


@feature("range", "relative true range", [20])
def range_ratio(bar: Bar, n: int) -> Series:
    """true range / close[1], over its mean of {n}; 1 without any range"""
    average = mean(relative_range(bar), n)
    return where(average > 0.0, relative_range(bar) / average, 1.0)


@feature("range", "TA-Lib MAX", [5, 20, 60, 120, 250])
def high_distance(bar: Bar, n: int) -> Series:
    """close / highest high of {n} - 1"""
    return bar.close / highest(bar.high, n) - 1


@feature("range", "TA-Lib MIN", [5, 20, 60, 120, 250])
def low_distance(bar: Bar, n: int) -> Series:
    """close / lowest low of {n} - 1"""
    return bar.close / lowest(bar.low, n) - 1


@feature("range", "TA-Lib MAXINDEX", [20, 60])
def bars_since_high(bar: Bar, n: int) -> Series:
    """bars since the highest high of {n}, the newest of equal ones"""
    return bars_since_highest(bar.high, n)


@feature("range", "TA-Lib MININDEX", [20, 60])
def bars_since_low(bar: Bar, n: int) -> Series:
    """bars since the lowest low of {n}, the newest of equal ones"""
    return bars_since_lowest(bar.low, n)


@feature("range", "Donchian channel", [60])
def donchian_place(bar: Bar, n: int) -> Series:
    """100 * (close - lowest {n}) / (highest {n} - lowest {n}); 50 without any range"""
    return range_position(bar.close, bar.high, bar.low, n)


@feature("range", "width of the Donchian channel", [20, 60])
def donchian_width(bar: Bar, n: int) -> Series:
    """(highest high of {n} - lowest low of {n}) / close"""
    return (highest(bar.high, n) - lowest(bar.low, n)) / bar.close


@feature("range", "TA-Lib candle settings")
def bar_range(bar: Bar) -> Series:
    """(high - low) / close"""
    return (bar.high - bar.low) / bar.close
