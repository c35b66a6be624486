"""Bonds flow by flow in Python, with exact dates and fractions: the street convention, for tests.

Nothing here is shared with the kernels: months are stepped one by one, and every period is summed as it comes.
"""

from __future__ import annotations

import calendar
import datetime
import itertools
import math
from dataclasses import dataclass
from fractions import Fraction

Date = datetime.date


def months_before(maturity: Date, months: int) -> Date:
    """The date so many months before a maturity, on its day or a shorter month's last; month ends stay month ends."""
    year, month = divmod(maturity.year * 12 + maturity.month - 1 - months, 12)
    length = calendar.monthrange(year, month + 1)[1]
    at_end = maturity.day == calendar.monthrange(maturity.year, maturity.month)[1]
    return Date(year, month + 1, length if at_end else min(maturity.day, length))


def days_between(begin: Date, end: Date, day_count: str) -> int:
    if day_count != "30/360":
        return (end - begin).days
    first, last = begin.day, end.day
    if first == 31:
        first = 30
    if last == 31 and first == 30:
        last = 30
    return 360 * (end.year - begin.year) + 30 * (end.month - begin.month) + last - first


@dataclass
class Flows:
    """Flows after settlement: (exponent in periods, amount, date), the redemption a flow of its own; and accrued."""

    flows: list[tuple[Fraction, Fraction, Date]]
    accrued: Fraction
    frequency: int

    def price(self, rate: float) -> float:
        """The clean price at a yield in percent."""
        growth = 1 + rate / (100 * self.frequency)
        return math.fsum(float(c) * growth ** -float(e) for e, c, _ in self.flows) - float(self.accrued)

    def measures(self, rate: float) -> tuple[float, float, float]:
        """Macaulay and modified duration, and convexity, from their definitions, in years."""
        growth, f = 1 + rate / (100 * self.frequency), self.frequency
        values = [(float(e), float(c) * growth ** -float(e)) for e, c, _ in self.flows]
        dirty = math.fsum(v for _, v in values)
        macaulay = math.fsum(e * v for e, v in values) / dirty / f
        convexity = math.fsum(e * (e + 1) * v for e, v in values) / (dirty * growth**2 * f * f)
        return macaulay, macaulay / growth, convexity


def street_flows(
    coupon: float, frequency: int, issue: Date, maturity: Date, settlement: Date, day_count: str,
    first_coupon: Date | None = None, call: tuple[Date, float] | None = None,
) -> Flows:  # fmt: skip
    """The flows of a bond; call: the date at which it ends instead of its maturity, and the price then."""
    step = 12 // max(frequency, 1)
    grid = [maturity]
    while grid[-1] > issue:
        grid.append(months_before(maturity, step * len(grid)))
    grid = grid[::-1]  # from the last date at or before the issue
    rate = Fraction(coupon) if frequency else Fraction(0)
    f = max(frequency, 1)
    whole_year = {"30/360": 360, "act/360": 360, "act/365": 365}.get(day_count, 0)

    def interest(begin: Date, end: Date) -> Fraction:
        """Interest from a date to a later one within one paid period."""
        if day_count in ("act/360", "act/365"):
            return rate * Fraction(days_between(begin, end, day_count), whole_year)
        total = Fraction(0)
        for low, high in itertools.pairwise(grid):
            if begin < high and end > low:
                part = days_between(low, min(end, high), day_count) - days_between(low, max(begin, low), day_count)
                total += Fraction(part, days_between(low, high, day_count))
        return rate * total / f

    paid = [date for date in grid[1:] if first_coupon is None or date >= first_coupon]
    flows, past = [], issue
    for date in paid:
        if date > settlement:
            flows.append((interest(past, date), date))
        else:
            past = date
        if date > settlement and len(flows) == 1:
            begin = past
        past = date
    accrued = interest(begin, settlement) if settlement > begin else Fraction(0)

    def exponent(date: Date) -> Fraction:
        """Periods from settlement: whole ones, and the parts of the first and the last by the day count."""

        def place(at: Date) -> Fraction:
            for k, (low, high) in enumerate(itertools.pairwise(grid)):
                if low <= at < high:
                    return k + Fraction(days_between(low, at, day_count), days_between(low, high, day_count))
            return Fraction(len(grid) - 1)

        return place(date) - place(settlement)

    rows = [(exponent(date), amount, date) for amount, date in flows]
    if call is not None:
        end, price = call
        kept = [row for row in rows if row[2] <= end]
        before = [date for date in [issue, *paid] if date < end]
        owed = interest(before[-1], end) if end not in paid else Fraction(0)
        return Flows([*kept, (exponent(end), Fraction(price) + owed, end)], accrued, f)
    return Flows([*rows, (exponent(maturity), Fraction(100), maturity)], accrued, f)
