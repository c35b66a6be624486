"""Dates of bonds: calendar arithmetic, coupon schedules generated backwards from maturity, and day counts.

A date is an int64, days since 1970-01-01. A month is an int64 too: 12 * year + month - 1. The schedule of a bond is its
maturity minus whole periods of `step` months, each counted from the maturity itself: on the day of the month of the
maturity, or on the last day of a shorter month; with month_end always on the last day (end-of-month rule), as where the
maturity is one, but for the exception of `schedule_of` in kernels/bonds.py.
Dates are not moved for holidays.
"""

from __future__ import annotations

import numpy as np

from .compile import inline

EARLIEST = np.int64(-1_000_000)  # dates up to it, in the year -768, are not given; numpy's NaT is one
ACT_ACT, THIRTY_360, ACT_360, ACT_365 = 0, 1, 2, 3  # day counts


@inline
def month_and_day(date):
    """The month of a date, and its day of the month (1 to 31)."""
    # Years that begin in March, in eras of 400: the leap day is the last of its year.
    z = date + 719468
    era = z // 146097
    day_of_era = z - era * 146097
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    return 12 * (year_of_era + 400 * era) + shifted + 2, day_of_year - (153 * shifted + 2) // 5 + 1


@inline
def date_of(month, day):
    """The date of a day of a month."""
    march = month - 2  # months since March of the year 0
    year = march // 12
    day_of_year = (153 * (march - 12 * year) + 2) // 5 + day - 1
    era = year // 400
    year_of_era = year - 400 * era
    return 146097 * era + 365 * year_of_era + year_of_era // 4 - year_of_era // 100 + day_of_year - 719468


@inline
def days_in_month(month):
    """28 to 31."""
    year = month // 12
    number = month - 12 * year + 1
    days = 30 + ((number + (number >> 3)) & 1)
    leap = ((year & 3) == 0) & ((year % 100 != 0) | (year % 400 == 0))
    february = 29 if leap else 28
    return february if number == 2 else days


@inline
def day_within(month, day, month_end):
    """The day of the schedule in a month: the last one with `month_end`, else `day` or the last before it."""
    length = days_in_month(month)
    return length if (month_end != 0) | (day > length) else day


@inline
def scheduled(month, day, month_end):
    """The date of the schedule in a month."""
    return date_of(month, day_within(month, day, month_end))


@inline
def periods_left(date, month, day, month_end, step):
    """The largest k for which the date k periods before the maturity lies after `date`; -1 at and after maturity.

    month, day, month_end: of the maturity; step: months of a period.
    """
    its_month, its_day = month_and_day(date)
    k = (month - its_month) // step
    same = month - k * step == its_month
    return k - 1 if same & (day_within(its_month, day, month_end) <= its_day) else k


@inline
def thirty_days_of(first_month, first_day, last_month, last_day):
    """Days of 30/360, bond basis: every month has 30; the 31st is the 30th, as an end only after a 30th or 31st."""
    first_day = 30 if first_day == 31 else first_day
    last_day = 30 if (last_day == 31) & (first_day == 30) else last_day
    return 30 * (last_month - first_month) + last_day - first_day


@inline
def thirty_days(begin, end):
    """Days of 30/360 between two dates."""
    first_month, first_day = month_and_day(begin)
    last_month, last_day = month_and_day(end)
    return thirty_days_of(first_month, first_day, last_month, last_day)


@inline
def counted_days(begin, end, day_count):
    """Days from `begin` to `end` by the day count."""
    return thirty_days(begin, end) if day_count == THIRTY_360 else end - begin


@inline
def days_of_year(day_count):
    """Days of the year of 30/360, Act/360 and Act/365."""
    return np.float64(365.0) if day_count == ACT_365 else np.float64(360.0)


@inline
def month_before(date, step, month_end):
    """The date `step` months before a date: on its last day with `month_end` where the date is one."""
    month, day = month_and_day(date)
    keeps_end = (month_end != 0) & (day == days_in_month(month))
    return scheduled(month - step, day, 1 if keeps_end else 0)
