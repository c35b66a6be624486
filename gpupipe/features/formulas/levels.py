"""Levels: prices and volume as they are, for networks on one series whose scaler is fitted on its training rows.

A level says nothing at another price: no set of features but "atb9" holds these columns.
"""

from __future__ import annotations

from gpupipe.features.expressions import Bar, Series, mean
from gpupipe.features.formulas.registry import feature


@feature("level", "the bar", periods=(), extra=((),))
def level_open(bar: Bar) -> Series:
    """open"""
    return bar.open


@feature("level", "the bar", periods=(), extra=((),))
def level_high(bar: Bar) -> Series:
    """high"""
    return bar.high


@feature("level", "the bar", periods=(), extra=((),))
def level_low(bar: Bar) -> Series:
    """low"""
    return bar.low


@feature("level", "the bar", periods=(), extra=((),))
def level_close(bar: Bar) -> Series:
    """close"""
    return bar.close


@feature("level", "the bar", periods=(), extra=((),))
def level_volume(bar: Bar) -> Series:
    """volume"""
    return bar.volume


@feature("level", "TA-Lib SMA", periods=(), extra=(7, 14, 30))
def level_sma(bar: Bar, n: int) -> Series:
    """SMA({n}) of the close, a price"""
    return mean(bar.close, n)
