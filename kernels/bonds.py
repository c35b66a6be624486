"""Bonds: from dates to the terms that a price needs, once for each settlement, and to single cash flows.

A bond's flows are its coupons and the redemption, 100. The exponent of a flow is how many coupon periods it is
discounted by. Where all exponents after the first are one period apart and all coupons after the first are equal, five
numbers tell everything (`bond_terms`), and prices are closed form; the flows of other bonds are written out
(`bond_flows`). kernels/bond_closed.py reads the first, kernels/bond_yields.py the second.

Conventions, by their numbers:

    STREET      the exponent is w + k for the k-th flow, w the part of the current period that is left by the day count;
                coupons of Act/Act and 30/360 are coupon / frequency, those of Act/360 and Act/365 follow their days
    QUANTLIB    stepwise times as QuantLib's: year fractions of each period by the day count times the frequency;
                coupons follow the year fraction of their period
    TREASURY    street, but for simple interest until the first flow: 1 / (1 + w u) instead of v^w; this is how the US
                Treasury computes the prices of its auctions; of bonds in closed form whose next flow is w <= 1 away
"""

from __future__ import annotations

import numpy as np

from .bond_dates import (
    ACT_360,
    ACT_365,
    ACT_ACT,
    EARLIEST,
    THIRTY_360,
    counted_days,
    date_of,
    day_within,
    days_in_month,
    days_of_year,
    month_and_day,
    month_before,
    periods_left,
    scheduled,
    thirty_days_of,
)
from .compile import inline, kernel

LEAD, FIRST, LATER, ACCRUED, PERIOD = range(5)  # the rows of `terms`
N_TERMS = 5
STREET, QUANTLIB, TREASURY = 0, 1, 2  # conventions
REDEMPTION = np.float64(100.0)
LONGEST = 127  # flows of a bond that is priced in closed form
FAR_LEAD = np.float64(30.0)  # periods until the first flow, beyond which flows are written out
MOST_FLOWS = 1 << 15  # of a bond that is valued: quarters until the year 9999
# What is wrong with a bond; VALUED where nothing is.
VALUED, NOT_CONVERGED, MATURED, DAY_COUNT, FREQUENCY, ISSUE, MISSING, FIRST_COUPON, NO_CURVE, RANGE, KIND = range(11)
TOO_LONG = 11


@inline
def keeps_day(issue, first_coupon, month, day, step):
    """Whether a schedule back from the last day of a month keeps to that day in longer months.

    The first coupon tells where it is given and in a longer month, else the issue.
    """
    its_month, its_day = month_and_day(issue)
    if first_coupon > EARLIEST:
        first_month, first_day = month_and_day(first_coupon)
        if days_in_month(first_month) > day:
            its_month, its_day = first_month, first_day
    on_schedule = ((month - its_month) % step == 0) & (its_day == day)
    return on_schedule & (its_day < days_in_month(its_month))


@inline
def schedule_of(frequency, issue, maturity, first_coupon, convention):
    """The schedule: month, day and month_end of the maturity, months of a period, the first coupon, and a mark.

    A maturity on the last day of its month makes a schedule of last days, but where the first coupon, or else the
    issue, lies on its day in a longer month: then the schedule keeps the day, in all conventions but QUANTLIB.

    The first coupon is the number of periods before maturity at which it is paid, -1 where `first_coupon` is not on the
    schedule. The mark is whether the first period is not one whole period.
    """
    month, day = month_and_day(maturity)
    month_end = 1 if day == days_in_month(month) else 0
    step = 12 // frequency if frequency > 0 else 12
    if (month_end != 0) & (convention != QUANTLIB):
        month_end = 0 if keeps_day(issue, first_coupon, month, day, step) else 1
    first = periods_left(issue, month, day, month_end, step)
    irregular = scheduled(month - (first + 1) * step, day, month_end) != issue
    if first_coupon > EARLIEST:
        given = periods_left(first_coupon - 1, month, day, month_end, step)
        on_schedule = (given >= 0) & (given <= first)
        on_schedule = on_schedule & (scheduled(month - given * step, day, month_end) == first_coupon)
        irregular = irregular | (given != first)
        first = given if on_schedule else np.int64(-1)
    return month, day, month_end, step, first, irregular


@inline
def stub(date, month, day, month_end, step, first, issue, day_count, convention):
    """Of a first period that is not one whole period, in periods: its length, what of it is past, and what is left.

    It is cut at the dates one, two, ... periods before the first coupon, and each part counts as its share of the whole
    period that it lies in. QuantLib counts these from the first coupon's own day, which in a short month is another.
    """
    length, past, left = np.float64(0.0), np.float64(0.0), np.float64(0.0)
    k, end = first, scheduled(month - first * step, day, month_end)
    while end > issue:
        if convention == QUANTLIB:
            begin = month_before(end, step, month_end)
        else:
            begin = scheduled(month - (k + 1) * step, day, month_end)
        whole = np.float64(counted_days(begin, end, day_count))
        unborn = counted_days(begin, issue, day_count) if issue > begin else 0
        length += (whole - unborn) / whole
        if date >= end:
            past += (whole - unborn) / whole
        else:
            gone = counted_days(begin, date, day_count) if date > begin else 0
            past += max(gone - unborn, 0) / whole
            left += (whole - gone) / whole
        k, end = k + 1, begin
    return length, past, left


@inline
def period_at(date, k, month, day, month_end, step, first, irregular, issue, frequency, day_count, convention):
    """Of the period of a date, which ends k periods before maturity: the years that its coupon is for, those of them
    that are past, and the periods that are left.
    """  # fmt: skip
    by_days = (day_count >= ACT_360) | ((day_count == THIRTY_360) & (convention == QUANTLIB))
    f = np.float64(frequency)
    end = scheduled(month - k * step, day, month_end)
    begin = scheduled(month - (k + 1) * step, day, month_end)
    in_stub = irregular & (k == first)
    left = np.float64(0.0)
    length, past = left, left
    if in_stub:
        begin = issue
        if not (by_days & (convention == QUANTLIB)):
            length, past, left = stub(date, month, day, month_end, step, first, issue, day_count, convention)
    whole = np.float64(counted_days(begin, end, day_count))
    gone = np.float64(counted_days(begin, date, day_count))
    if by_days:
        year = days_of_year(day_count)
        if convention == QUANTLIB:
            left = f * (whole - gone) / year
        elif not in_stub:
            left = (whole - gone) / whole
        return whole / year, gone / year, left
    if in_stub:
        return length / f, past / f, left
    return 1 / f, gone / (whole * f), (whole - gone) / whole


@inline
def whole_period(days, frequency, day_count, convention):
    """Of a whole period of so many days: the years that its coupon is for, and the periods that it counts as."""
    f = np.float64(frequency)
    if (day_count >= ACT_360) | ((day_count == THIRTY_360) & (convention == QUANTLIB)):
        years = days / days_of_year(day_count)
        return years, f * years if convention == QUANTLIB else np.float64(1.0)
    return 1 / f, np.float64(1.0)


@inline
def zero_exponent(date, maturity, month, day, month_end, day_count, convention):
    """Years, compounded once a year, from a date to the maturity of a bond without coupons."""
    if (convention == QUANTLIB) & (day_count != ACT_ACT):
        return counted_days(date, maturity, day_count) / days_of_year(day_count)
    if (
        convention == QUANTLIB
    ):  # years are counted back from the maturity one after the other: from 29 February on the 28th
        month_end = 0
        day = 28 if (day == 29) & (month % 12 == 1) else day
    k = max(periods_left(date, month, day, month_end, 12), 0)
    end = maturity if k == 0 else scheduled(month - 12 * k, day, month_end)
    begin = scheduled(month - 12 * (k + 1), day, month_end)
    whole = np.float64(counted_days(begin, end, day_count))
    return k + (whole - counted_days(begin, date, day_count)) / whole


@inline
def what_is_wrong(coupon, frequency, issue, maturity, settlement, day_count, convention):
    """The status of a bond by its columns."""
    if not (coupon == coupon and issue > EARLIEST and maturity > EARLIEST and settlement > EARLIEST):
        return MISSING
    if day_count < ACT_ACT or day_count > ACT_365:
        return DAY_COUNT
    if not (frequency == 0 or frequency == 1 or frequency == 2 or frequency == 4 or frequency == 12):
        return FREQUENCY
    if maturity <= settlement:
        return MATURED
    if convention == TREASURY and frequency == 0:
        return KIND
    return ISSUE if settlement < issue else VALUED


@inline
def refuse(i, terms, n_flows, by_flows):
    """Write no terms and no flows for bond i."""
    n_flows[i], by_flows[i] = 0, False
    for k in range(N_TERMS):
        terms[k, i] = np.nan


@inline
def equal_periods(month, day, month_end, step, day_count, convention):
    """Whether all whole periods have one exponent and one coupon."""
    if day_count == THIRTY_360 and convention == QUANTLIB:  # periods that end in February differ from the 29th on
        return (day <= 28 and month_end == 0) or (month % 12 - 1) % step != 0
    return day_count <= THIRTY_360


@kernel(
    types=("f8[:]", "i8[:]", "i8[:]", "i8[:]", "i8[:]", "i1[:]", "i8[:]", "i8[:]", "b1[:]", "i8",
           "f8[:,:]", "i8[:]", "b1[:]", "i1[:]"),
    double_precision=True, brief=True,
)  # fmt: skip
def bond_terms(
    i, coupon, frequency, issue, maturity, settlement, day_count, first_coupon, call_date, floating, convention,
    terms, n_flows, by_flows, status,
):  # fmt: skip
    """The terms of bond i at its settlement.

    terms[:, i]: LEAD, the exponent of the first flow, in periods; FIRST and LATER, the first coupon and each later
    one, where these are equal; ACCRUED interest; PERIOD, a hundredth of a period in years: times a yield in percent it
    is u.

    A frequency of 0 is a bond without coupons, compounded once a year: one flow. A first period that is not a whole one
    is short, or with a first coupon long, by `stub`. Flows on the settlement date are past.

    Reads:   row i alone.
    Inputs:  coupon float64 (n_bonds,), percent a year, of a floating bond that of the current period; frequency int64,
             coupons a year, 0, 1, 2, 4 or 12; issue, maturity, settlement int64, dates; day_count int8, ACT_ACT to
             ACT_365; first_coupon and call_date int64, dates, or before EARLIEST where none is given; floating bool;
             convention int64, a number above.
    State:   status int8 (n_bonds,), VALUED or what is wrong; a bond that comes with another one keeps it.
    Outputs: terms float64 (N_TERMS, n_bonds); n_flows int64, flows after settlement, with a call between two coupons
             one more; by_flows bool, whether `bond_flows` has to write them.
    NaN:     a bond that cannot be valued has NaN terms and no flows.
    Source:  ICMA rule 251 (Act/Act); QuantLib 1.44, CashFlows::npv and ActualActual(ISMA, schedule); 31 CFR 356,
             appendix B (Treasury).
    """
    wrong = np.int64(status[i])
    first = np.int64(-1)
    if wrong == VALUED:
        wrong = what_is_wrong(
            coupon[i], frequency[i], issue[i], maturity[i], settlement[i], day_count[i], convention
        )  # fmt: skip
    if wrong == VALUED:
        month, day, month_end, step, first, irregular = schedule_of(
            frequency[i], issue[i], maturity[i], first_coupon[i], convention
        )  # fmt: skip
        wrong = np.int64(FIRST_COUPON if first < 0 else VALUED)
    status[i] = wrong
    if wrong != VALUED:
        refuse(i, terms, n_flows, by_flows)
        return
    f = np.float64(max(frequency[i], 1))
    terms[PERIOD, i] = np.float64(0.01) / f
    called = (call_date[i] > EARLIEST) & (call_date[i] < maturity[i])
    if frequency[i] == 0:
        terms[LEAD, i] = zero_exponent(settlement[i], maturity[i], month, day, month_end, day_count[i], convention)
        terms[FIRST, i], terms[LATER, i], terms[ACCRUED, i] = np.float64(0.0), np.float64(0.0), np.float64(0.0)
        n_flows[i], by_flows[i] = 1, terms[LEAD, i] > FAR_LEAD
        return
    k = min(periods_left(settlement[i], month, day, month_end, step), first)
    years, past, left = period_at(
        settlement[i], k, month, day, month_end, step, first, irregular, issue[i], frequency[i], day_count[i],
        convention,
    )  # fmt: skip
    terms[LEAD, i] = left
    terms[FIRST, i] = coupon[i] * years
    terms[LATER, i] = coupon[i] / f
    terms[ACCRUED, i] = coupon[i] * past
    n = k + 1
    equal = (k == 0) | (equal_periods(month, day, month_end, step, day_count[i], convention) and not floating[i])
    by_flows[i] = called | (n > LONGEST) | (left > FAR_LEAD) | (not equal)
    if called:
        at_call = min(periods_left(call_date[i] - 1, month, day, month_end, step), first)
        between = scheduled(month - at_call * step, day, month_end) != call_date[i]
        if (call_date[i] > settlement[i]) & between:
            n += 1
    n_flows[i] = n
    if n > MOST_FLOWS:
        status[i] = TOO_LONG
        refuse(i, terms, n_flows, by_flows)
    elif (convention == TREASURY) & (by_flows[i] | (left > np.float64(1.0))):
        status[i] = KIND
        refuse(i, terms, n_flows, by_flows)


@kernel(
    types=("i8[:]", "i8[:]", "f8[:]", "i8[:]", "i8[:]", "i8[:]", "i8[:]", "i1[:]", "i8[:]", "i8[:]", "f8[:]", "b1[:]",
           "f8[:]", "i8", "f8[:]", "f8[:]", "f8[:]", "i8[:]", "i8[:]"),
    double_precision=True, brief=64,
)  # fmt: skip
def bond_flows(
    i, bonds, offsets, coupon, frequency, issue, maturity, settlement, day_count, first_coupon, call_date, call_price,
    floating, margin, convention, exponent, amount, exit, date, first_exit,
):  # fmt: skip
    """The flows of bond b = bonds[i] after its settlement, as rows offsets[i] to offsets[i + 1].

    exponent: in periods.  amount: the coupon; of a floating bond that of the current period, and of later ones the
    margin alone, to which `project_flows` adds the rate.  exit: what the bond pays beside the coupon if it ends here:
    100 at maturity, the call price (with the interest accrued, between two coupons) where it can be called, else NaN.
    A bond can be called at its call date, and at each coupon date after it.

    Reads:   row bonds[i] alone.
    Inputs:  bonds int64 (n,); offsets int64 (n + 1,), by n_flows of `bond_terms`, of which the others are;
             call_price float64 (n_bonds,), clean; margin float64, percent a year.
    Outputs: exponent, amount, exit float64 (offsets[n],); date int64; first_exit int64 (n,), the first row of each bond
             in which it may end.
    NaN:     exit, as above. Bonds that cannot be valued have no flows.
    Source:  as `bond_terms`.
    """
    b, row = bonds[i], offsets[i]
    first_exit[i] = row
    if row == offsets[i + 1]:
        return
    month, day, month_end, step, first, irregular = schedule_of(
        frequency[b], issue[b], maturity[b], first_coupon[b], convention
    )  # fmt: skip
    if frequency[b] == 0:
        exponent[row] = zero_exponent(settlement[b], maturity[b], month, day, month_end, day_count[b], convention)
        amount[row], exit[row], date[row] = np.float64(0.0), REDEMPTION, maturity[b]
        return
    k = min(periods_left(settlement[b], month, day, month_end, step), first)
    years, _, left = period_at(
        settlement[b], k, month, day, month_end, step, first, irregular, issue[b], frequency[b], day_count[b],
        convention,
    )  # fmt: skip
    rate, total, before = coupon[b], left, settlement[b]
    its_month = month - k * step
    its_day = day_within(its_month, day, month_end)
    paid = date_of(its_month, its_day)
    while k >= 0:
        if (before < call_date[b]) & (call_date[b] < paid):
            _, accrued, after = period_at(
                call_date[b], k, month, day, month_end, step, first, irregular, issue[b], frequency[b], day_count[b],
                convention,
            )  # fmt: skip
            exponent[row], amount[row] = total - after, np.float64(0.0)
            exit[row], date[row] = call_price[b] + rate * accrued, call_date[b]
            row += 1
        exponent[row], amount[row], date[row] = total, rate * years, paid
        exit[row] = np.nan
        if (call_date[b] > EARLIEST) & (paid >= call_date[b]):
            exit[row] = call_price[b]
        if k == 0:
            exit[row] = REDEMPTION
        row, before, k, day_before = row + 1, paid, k - 1, its_day
        its_month += step
        its_day = day_within(its_month, day, month_end)
        paid = date_of(its_month, its_day)
        days = paid - before
        if day_count[b] == THIRTY_360:
            days = thirty_days_of(its_month - step, day_before, its_month, its_day)
        years, left = whole_period(days, frequency[b], day_count[b], convention)
        total += left
        rate = margin[b] if floating[b] else coupon[b]
    row = offsets[i]
    while exit[row] != exit[row]:
        row += 1
    first_exit[i] = row
