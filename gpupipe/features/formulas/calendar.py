"""Calendar: the session date and the time of the bar, on the exchange's clock where the source gives it, else UTC."""

from __future__ import annotations

from gpupipe.features.expressions import Bar, Series, change, floor, where
from gpupipe.features.formulas.registry import feature


def civil(day: Series) -> tuple[Series, Series]:
    """Month (1 to 12) and day of the month (1 to 31) from days since 1970-01-01. Source: Hinnant, civil_from_days."""
    z = day + 719468.0
    era = floor(z / 146097.0)
    era_day = z - era * 146097.0
    year = floor((era_day - floor(era_day / 1460.0) + floor(era_day / 36524.0) - floor(era_day / 146096.0)) / 365.0)
    year_day = era_day - (365.0 * year + floor(year / 4.0) - floor(year / 100.0))  # counted from the first of March
    month = floor((5.0 * year_day + 2.0) / 153.0)
    day_of_month = year_day - floor((153.0 * month + 2.0) / 5.0) + 1.0
    return where(month < 10.0, month + 3.0, month - 9.0), day_of_month


@feature("calendar", "calendar")
def weekday(bar: Bar) -> Series:
    """day of the week, 0 is Monday"""
    shifted = bar.day + 3.0  # 1970-01-01 was a Thursday
    return shifted - 7.0 * floor(shifted / 7.0)


@feature("calendar", "calendar")
def month(bar: Bar) -> Series:
    """month of the year, 1 to 12"""
    return civil(bar.day)[0]


@feature("calendar", "turn of the month, Ariel (1987)")
def day_of_month(bar: Bar) -> Series:
    """day of the month, 1 to 31"""
    return civil(bar.day)[1]


@feature("calendar", "calendar", periods=(), extra=((),))
def elapsed_days(bar: Bar) -> Series:
    """days since the bar before"""
    return change(bar.day) + change(bar.time_of_day)


@feature("calendar", "calendar", periods=(), extra=((),))
def hour(bar: Bar) -> Series:
    """hour of the day on the exchange's clock, 0 to 23"""
    return floor(24.0 * bar.time_of_day)
