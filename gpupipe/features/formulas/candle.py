"""Candle: the shape of the last bars (body, shadows, gap)."""

from __future__ import annotations

from gpupipe.features.expressions import Bar, Series, lag, maximum, mean, minimum, where
from gpupipe.features.formulas.registry import feature


def share(bar: Bar, part: Series) -> Series:
    """part / (high - low); 0 where high equals low."""
    span = bar.high - bar.low
    return where(span > 0.0, part / span, 0.0 * part)


@feature("candle", "TA-Lib candle settings")
def body(bar: Bar) -> Series:
    """(close - open) / (high - low); 0 without any range"""
    return share(bar, bar.close - bar.open)


@feature("candle", "TA-Lib candle settings")
def upper_shadow(bar: Bar) -> Series:
    """(high - max(open, close)) / (high - low); 0 without any range"""
    return share(bar, bar.high - maximum(bar.open, bar.close))


@feature("candle", "TA-Lib candle settings")
def lower_shadow(bar: Bar) -> Series:
    """(min(open, close) - low) / (high - low); 0 without any range"""
    return share(bar, minimum(bar.open, bar.close) - bar.low)


@feature("candle", "intraday return")
def bar_return(bar: Bar) -> Series:
    """close / open - 1"""
    return bar.close / bar.open - 1


@feature("candle", "overnight return")
def gap(bar: Bar) -> Series:
    """open / close[1] - 1"""
    return bar.open / lag(bar.close, 1) - 1


@feature("candle", "TA-Lib BOP, averaged", [5, 20])
def body_mean(bar: Bar, n: int) -> Series:
    """mean of {n} (close - open) / (high - low)"""
    return mean(share(bar, bar.close - bar.open), n)


@feature("candle", "TA-Lib candle settings, averaged", [5])
def shadow_balance(bar: Bar, n: int) -> Series:
    """mean of {n} (lower shadow - upper shadow) / (high - low)"""
    lower, upper = minimum(bar.open, bar.close) - bar.low, bar.high - maximum(bar.open, bar.close)
    return mean(share(bar, lower - upper), n)


@feature("candle", "TA-Lib candle settings")
def overlap(bar: Bar) -> Series:
    """part of the bar's range that the bar before also covered; 0 without any range"""
    top, bottom = minimum(bar.high, lag(bar.high, 1)), maximum(bar.low, lag(bar.low, 1))
    return share(bar, maximum(top - bottom, 0.0))
