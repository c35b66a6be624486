"""Dates of bonds against the calendar of Python."""

from __future__ import annotations

import datetime

import numpy as np
import pytest

from gpupipe.kernels import bond_dates
from tests.support.bond_oracle import days_between, months_before

EPOCH = datetime.date(1970, 1, 1)


def number(date):
    return np.int64((date - EPOCH).days)


def test_months_and_days_of_every_date_of_four_centuries():
    for days in range(number(datetime.date(1799, 12, 25)), number(datetime.date(2203, 1, 5))):
        date = EPOCH + datetime.timedelta(days)
        month, day = bond_dates.month_and_day(days)
        assert (month, day) == (12 * date.year + date.month - 1, date.day)
        assert bond_dates.date_of(month, day) == days
        tomorrow = date + datetime.timedelta(1)
        assert (bond_dates.days_in_month(month) == day) == (tomorrow.day == 1)


@pytest.mark.parametrize(
    "maturity", ["2028-02-29", "2027-02-28", "2024-02-28", "2030-08-31", "2030-08-30", "2031-01-15"]
)
@pytest.mark.parametrize("step", [1, 3, 6, 12])
def test_periods_left_is_the_number_of_dates_after(maturity, step):
    maturity = datetime.date.fromisoformat(maturity)
    month, day = bond_dates.month_and_day(number(maturity))
    month_end = int(bond_dates.days_in_month(month) == day)
    grid = [months_before(maturity, k * step) for k in range(60)]
    assert [bond_dates.scheduled(month - k * step, day, month_end) for k in range(60)] == [number(d) for d in grid]
    for days in range(number(grid[30]) - 3, number(maturity) + 3):
        after = sum(number(date) > days for date in grid)
        assert bond_dates.periods_left(days, month, day, month_end, step) == after - 1


def test_days_of_30_360():
    rng = np.random.default_rng(1)
    ends = [datetime.date(2024, 2, 28), datetime.date(2024, 2, 29), datetime.date(2023, 2, 28),
            datetime.date(2024, 1, 30), datetime.date(2024, 1, 31), datetime.date(2024, 3, 31)]  # fmt: skip
    drawn = [EPOCH + datetime.timedelta(int(days)) for days in rng.integers(0, 30_000, 200)]
    for begin in ends + drawn:
        for end in ends + drawn[:20]:
            assert bond_dates.thirty_days(number(begin), number(end)) == days_between(begin, end, "30/360")


@pytest.mark.parametrize(
    "date, month_end, expected",
    [("2024-02-29", 1, "2023-08-31"), ("2024-02-29", 0, "2023-08-29"), ("2023-08-31", 0, "2023-02-28"),
     ("2023-08-30", 1, "2023-02-28"), ("2023-07-15", 1, "2023-01-15")],
)  # fmt: skip
def test_a_period_before(date, month_end, expected):
    got = bond_dates.month_before(number(datetime.date.fromisoformat(date)), 6, month_end)
    assert got == number(datetime.date.fromisoformat(expected))
