"""Momentum: rates of change, oscillators, and the steadiness of moves."""

from __future__ import annotations

from gpupipe.features.expressions import (
    Bar,
    Series,
    absolute_deviation,
    change,
    deviation,
    highest,
    lag,
    lowest,
    maximum,
    mean,
    minimum,
    total,
    where,
    wilder,
)
from gpupipe.features.formulas.registry import feature
from gpupipe.features.formulas.returns import log_return
from gpupipe.features.formulas.trend import true_range


@feature("momentum", "TA-Lib ROC", [1, 2, 3, 5, 10, 20, 40, 60, 120, 250])
def roc(bar: Bar, n: int) -> Series:
    """100 * (close / close[{n}] - 1)"""
    return 100.0 * (bar.close / lag(bar.close, n) - 1)


@feature("momentum", "Jegadeesh and Titman (1993), skipping the last month", [(20, 120), (20, 250)])
def roc_between(bar: Bar, skip: int, n: int) -> Series:
    """100 * (close[{skip}] / close[{n}] - 1)"""
    return 100.0 * (lag(bar.close, skip) / lag(bar.close, n) - 1)


def relative_strength(bar: Bar, n: int) -> Series:
    """RSI over n bars, 0 to 100; 50 where the close has not moved."""
    move = change(bar.close)
    gain, loss = wilder(maximum(move, 0.0), n), wilder(maximum(-move, 0.0), n)
    return where(gain + loss > 0.0, 100.0 * gain / (gain + loss), 50.0)


@feature("momentum", "TA-Lib RSI", [7, 14, 21])
def rsi(bar: Bar, n: int) -> Series:
    """100 * gain / (gain + loss), Wilder's averages, n = {n}

    50 where the close has not moved (TA-Lib: 0).
    """
    return relative_strength(bar, n)


def range_position(x: Series, high: Series, low: Series, n: int) -> Series:
    """100 * (x - lowest low of n bars) / (highest high - lowest low); 50 where the two are equal."""
    top, bottom = highest(high, n), lowest(low, n)
    return where(top > bottom, 100.0 * (x - bottom) / (top - bottom), 50.0)


@feature("momentum", "TA-Lib STOCHRSI", [14])
def stochrsi(bar: Bar, n: int) -> Series:
    """place of RSI({n}) in the range of its last {n} values, 0 to 100; 50 without any range (TA-Lib: 0)"""
    rsi = relative_strength(bar, n)
    return range_position(rsi, rsi, rsi, n)


@feature("momentum", "TA-Lib WILLR", [14])
def willr(bar: Bar, n: int) -> Series:
    """100 * (close - lowest {n}) / (highest {n} - lowest {n}) - 100; -50 without any range (TA-Lib: 0)"""
    return range_position(bar.close, bar.high, bar.low, n) - 100.0


@feature("momentum", "TA-Lib STOCH", [14])
def stoch_slowk(bar: Bar, n: int) -> Series:
    """SMA 3 of 100 * (close - lowest {n}) / (highest {n} - lowest {n})"""
    return mean(range_position(bar.close, bar.high, bar.low, n), 3)


@feature("momentum", "TA-Lib STOCH", [14])
def stoch_slowd(bar: Bar, n: int) -> Series:
    """SMA 3 of SMA 3 of 100 * (close - lowest {n}) / (highest {n} - lowest {n})"""
    return mean(mean(range_position(bar.close, bar.high, bar.low, n), 3), 3)


@feature("momentum", "TA-Lib STOCHF", [5])
def stoch_fastk(bar: Bar, n: int) -> Series:
    """100 * (close - lowest {n}) / (highest {n} - lowest {n})"""
    return range_position(bar.close, bar.high, bar.low, n)


@feature("momentum", "TA-Lib CCI", [14, 20])
def cci(bar: Bar, n: int) -> Series:
    """(typical - SMA {n}) / (0.015 * mean absolute deviation); 0 without any deviation"""
    price = bar.high + bar.low + bar.close  # three times the typical price: exact, and so is its sum
    spread = absolute_deviation(price, n)
    return where(spread > 0.0, (price - mean(price, n)) / (0.015 * spread), 0.0)


@feature("momentum", "TA-Lib CMO, with sums of the window", [14])
def momentum_balance(bar: Bar, n: int) -> Series:
    """100 * (gains - losses) / (gains + losses) of {n} closes; 0 without any move"""
    path = total(abs(change(bar.close)), n)
    return where(path > 0.0, 100.0 * change(bar.close, n) / path, 0.0)


@feature("momentum", "TA-Lib ULTOSC", [(7, 14, 28)])
def ultosc(bar: Bar, short: int, middle: int, long: int) -> Series:
    """100 * (4 A({short}) + 2 A({middle}) + A({long})) / 7, A = sum of close - true low / sum of true ranges

    50 where there is no range.
    """
    pressure = bar.close - minimum(bar.low, lag(bar.close, 1))
    span = true_range(bar)

    def part(n: int) -> Series:
        return where(total(span, n) > 0.0, total(pressure, n) / total(span, n), 0.5)

    return (4.0 * part(short) + 2.0 * part(middle) + part(long)) * (100.0 / 7.0)


@feature("momentum", "share of rising bars", [10, 20, 60])
def up_share(bar: Bar, n: int) -> Series:
    """share of {n} bars that closed above the bar before"""
    return mean(change(bar.close) > 0.0, n)


@feature("momentum", "Sharpe ratio a bar", [20, 60, 120])
def return_ratio(bar: Bar, n: int) -> Series:
    """mean / std of {n} r, r = ln(close / close[1]); 0 without any variance"""
    spread = deviation(log_return(bar), n)
    return where(spread > 3e-8, mean(log_return(bar), n) / spread, 0.0)


@feature("momentum", "change of momentum", [5, 20])
def acceleration(bar: Bar, n: int) -> Series:
    """roc_{n} - roc_{n}[{n}]"""
    rate = 100.0 * (bar.close / lag(bar.close, n) - 1)
    return change(rate, n)
