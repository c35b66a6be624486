"""Intraday: time of day, trading sessions, what a day has paid so far, round numbers, the volume below the close.

Days and hours are those of the clock of the bars: the exchange's where the source gives it, else UTC. Of daily bars
these columns say next to nothing: no set of features but "session" holds them.
"""

from __future__ import annotations

from gpupipe.features.expressions import (
    Bar,
    Series,
    as_series,
    change,
    fill,
    floor,
    lag,
    sign,
    sine,
    total,
    total_since,
    where,
)
from gpupipe.features.formulas.registry import feature


@feature("intraday", "cyclical encoding", periods=(), extra=((),))
def time_sine(bar: Bar) -> Series:
    """sin(2 pi * elapsed share of the day)"""
    return sine(bar.time_of_day)


@feature("intraday", "cyclical encoding", periods=(), extra=((),))
def time_cosine(bar: Bar) -> Series:
    """cos(2 pi * elapsed share of the day)"""
    return sine(bar.time_of_day + 0.25)


def within(bar: Bar, first_hour: float, end_hour: float) -> Series:
    """1 where the time of the bar is from first_hour on and before end_hour, else 0."""
    return (bar.time_of_day >= first_hour / 24.0) * (bar.time_of_day < end_hour / 24.0)


@feature("intraday", "hours of trading in Tokyo", periods=(), extra=((),))
def session_asia(bar: Bar) -> Series:
    """1 from 00:00 to 09:00, else 0

    Hours of the sessions are those of UTC in winter, and do not follow daylight saving time.
    """
    return within(bar, 0, 9)


@feature("intraday", "hours of trading in London", periods=(), extra=((),))
def session_london(bar: Bar) -> Series:
    """1 from 08:00 to 17:00, else 0"""
    return within(bar, 8, 17)


@feature("intraday", "hours of trading in New York", periods=(), extra=((),))
def session_new_york(bar: Bar) -> Series:
    """1 from 13:00 to 22:00, else 0"""
    return within(bar, 13, 22)


@feature("intraday", "hours of trading in London and New York", periods=(), extra=((),))
def session_overlap(bar: Bar) -> Series:
    """1 from 13:00 to 17:00, when London and New York trade, else 0"""
    return within(bar, 13, 17)


def new_day(bar: Bar) -> Series:
    """1 in the first bar of a day, else 0."""
    return fill(change(bar.day) > 0.0, 1.0)


@feature("intraday", "return since the open of the day", periods=(), extra=((),))
def session_return(bar: Bar) -> Series:
    """close / open of the day's first bar - 1; NaN for the day where that open is unknown"""
    opened = total_since(where(new_day(bar), bar.open, 0.0), new_day(bar))  # 0 after an open that is unknown
    return bar.close / opened - 1


@feature("intraday", "volume-weighted average price since the open of the day", periods=(), extra=((),))
def session_vwap_ratio(bar: Bar) -> Series:
    """close / (sum of typical * volume / sum of volume, of the day so far) - 1; 0 where nothing was traded

    A bar with an unknown price or volume is NaN; later bars of the day leave it out.
    """
    price = bar.high + bar.low + bar.close  # three times the typical price
    flow = price * bar.volume
    paid = total_since(fill(flow, 0.0), new_day(bar))
    traded = total_since(fill(bar.volume + 0.0 * price, 0.0), new_day(bar))
    return where(traded > 0.0, 3.0 * bar.close * traded / paid - 1, 0.0) + 0.0 * flow


def power_of_ten(x: Series) -> Series:
    """The largest power of 10 that is at most x, a positive float32; exact where it is from 1 to 1e22."""
    power, inverse = as_series(1.0), as_series(1.0)
    for factor in (1e32, 1e16, 1e8, 1e4, 1e2, 1e1):  # the exponent, bit by bit
        power = where(x >= power * factor, power * factor, power)
        inverse = where(x * inverse * factor < 10.0, inverse * factor, inverse)
    return power / inverse


@feature("intraday", "psychological levels", periods=(), extra=(10, 100))
def round_distance(bar: Bar, n: int) -> Series:
    """(close - nearest multiple of step) / step, -0.5 to 0.5; step: the largest power of 10 up to the close, over {n}

    Of a close of 2065.7, the steps are 100 and 10, the levels 2100 and 2070, and the columns -0.343 and -0.43.
    """
    steps = n * bar.close / power_of_ten(bar.close)
    return steps - floor(steps + 0.5)


@feature("intraday", "volume profile", periods=(), extra=(60,))
def volume_profile(bar: Bar, n: int) -> Series:
    """(volume below the close - volume above it) / volume, of {n} bars; 0 where nothing was traded

    The volume of a bar counts at its typical price; where that equals the close, it counts for neither.
    """
    price = bar.high + bar.low + bar.close  # three times the typical price: exact, and so is the comparison
    balance, traded = sign(3.0 * bar.close - price) * bar.volume, total(bar.volume, n)
    for k in range(1, n):
        balance = balance + sign(3.0 * bar.close - lag(price, k)) * lag(bar.volume, k)
    return where(traded > 0.0, balance / traded, 0.0 * balance)
