"""Yields and risk of bonds as scripts compute them: a loop over bonds, and for each of them Newton's method in numpy.

It values what the simulated market holds: coupon dates counted back from a maturity on a day that every month has,
first periods that are whole, 30/360 or Act/360, street convention, calls on a date and each coupon date after it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpupipe.workloads.bonds.fair_values import DAYS_OF_YEAR, FairValues
from gpupipe.workloads.bonds.schema import NO_DAY, ZERO

NEWTON_STEPS, CLOSE = 100, 1e-13  # steps at most, and the change of log(1 + yield of a period) at which they end
LEAST, MOST = -1.0, 2.0  # of log(1 + yield of a period)


def fair_values(frame: Any, curve_yield: np.ndarray) -> FairValues:
    """The fair values of all quotes, bond by bond.

    frame: pandas, of `origin.converted`.  curve_yield: float64 (n_rows,), percent, of `schema.reference_rate`.
    """
    found = np.full((5, len(frame)), np.nan)
    for rows in frame.groupby("symbol", sort=False, observed=True).indices.values():
        found[:, rows] = of_bond(frame.iloc[rows])
    day = frame["time"].to_numpy().astype("datetime64[D]").astype(np.int64)
    years = (frame["maturity"].to_numpy() - day) / DAYS_OF_YEAR
    return FairValues(years, curve_yield, found[0] - curve_yield, *found)


def of_bond(quotes: Any) -> np.ndarray:
    """float64 (5, n_quotes): yield, modified duration, convexity, DV01 and accrued interest of the quotes of a bond."""
    bond = quotes.iloc[0]
    f, by_days = int(bond["frequency"]), bond["day_count"] == "act/360"
    paid = coupon_dates(int(bond["issue"]), int(bond["maturity"]), f)
    settlement = quotes["time"].to_numpy().astype("datetime64[D]").astype(np.int64)
    rate = np.zeros(len(quotes)) if bond["type"] == ZERO else quotes["coupon"].to_numpy(np.float64)
    years = np.diff(paid) / 360 if by_days else np.full(len(paid) - 1, 1 / f)  # that a coupon is for

    def accrued(dates: np.ndarray) -> np.ndarray:
        """Years since the last coupon."""
        k, share = place(dates, paid, by_days)
        return np.asarray(years[k] * share)

    date, amount, exit_ = paid[1:], rate[:, None] * years, np.full((len(quotes), len(years)), np.nan)
    if bond["call_date"] != NO_DAY:
        exit_[:, date >= bond["call_date"]] = bond["call_price"]
        if bond["call_date"] not in date:
            at, called = np.searchsorted(date, bond["call_date"]), np.array([bond["call_date"]])
            price = bond["call_price"] + rate * accrued(called)
            date, amount = np.insert(date, at, called), np.insert(amount, at, 0.0, axis=1)
            exit_ = np.insert(exit_, at, price, axis=1)
    exit_[:, -1] = 100.0
    now = accrued(settlement)
    exponent = np.add(*place(date, paid, by_days)) - np.add(*place(settlement, paid, by_days))[:, None]
    flows = Flows(np.where(exponent > 0, exponent, np.nan), amount, exit_)
    log_yield = flows.log_yield(quotes["clean"].to_numpy(np.float64) + rate * now, float(rate.mean()) / (100 * f))
    return np.vstack([*flows.risk(log_yield, f), rate * now])


def coupon_dates(issue: int, maturity: int, frequency: int) -> np.ndarray:
    """int64 days, rising: the maturity and the dates whole periods before it, back to the issue."""
    last = np.datetime64(maturity, "D")
    months = last.astype("datetime64[M]") - np.arange(0, 12 * 101, 12 // frequency)
    dates = months.astype("datetime64[D]").astype(np.int64) + (last - last.astype("datetime64[M]")).astype(int)
    return np.asarray(dates[dates >= issue][::-1])


def place(dates: np.ndarray, paid: np.ndarray, by_days: bool) -> tuple[np.ndarray, np.ndarray]:
    """The coupon period that each date lies in, int64, and the share of it that is past."""
    k = np.clip(np.searchsorted(paid, dates, side="right") - 1, 0, len(paid) - 2)
    count = np.subtract if by_days else days_of_360
    return k, count(dates, paid[k]) / count(paid[k + 1], paid[k])


def days_of_360(end: np.ndarray, begin: np.ndarray) -> np.ndarray:
    """Days from begin to end by 30/360 (bond basis)."""
    month_1, month_2 = (day.astype("datetime64[D]").astype("datetime64[M]") for day in (begin, end))
    day_1, day_2 = (
        day - month.astype("datetime64[D]").astype(np.int64) + 1
        for day, month in ((begin, month_1), (end, month_2))
    )  # fmt: skip
    day_1 = np.minimum(day_1, 30)
    day_2 = np.where((day_2 == 31) & (day_1 == 30), 30, day_2)
    return np.asarray(30 * (month_2 - month_1).astype(np.int64) + day_2 - day_1)


class Flows:
    """What the quotes of a bond are paid for. exponent float64 (n_quotes, n_flows): periods from the quote, NaN where
    the flow is not after it; amount: coupons; exit: what else is paid where the bond ends, NaN where it cannot end.
    """

    def __init__(self, exponent: np.ndarray, amount: np.ndarray, exit_: np.ndarray) -> None:
        self.exponent, self.amount, self.exit = exponent, amount, exit_

    def sums(self, log_yield: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the flows to the worst end: their value, and the sums of exponent and of its square times the values."""
        discount = np.exp(-log_yield[:, None] * self.exponent)
        coupons, ends = np.nan_to_num(self.amount * discount), self.exit * discount
        worst = np.nanargmin(np.where(np.isnan(ends), np.inf, np.cumsum(coupons, axis=1) + ends), axis=1)
        row = np.arange(len(worst))
        value = np.where(np.arange(discount.shape[1]) <= worst[:, None], coupons, 0.0)
        value[row, worst] += ends[row, worst]
        exponent = np.nan_to_num(self.exponent)
        return value.sum(axis=1), (exponent * value).sum(axis=1), (exponent**2 * value).sum(axis=1)

    def log_yield(self, dirty: np.ndarray, start: float) -> np.ndarray:
        """log(1 + yield of a period) at which the worst end is worth the dirty price; Newton's method in brackets."""
        found = np.full(len(dirty), np.log1p(start))
        low, high = np.full(len(dirty), LEAST), np.full(len(dirty), MOST)
        for _ in range(NEWTON_STEPS):
            value, slope, _ = self.sums(found)
            low, high = np.where(value > dirty, found, low), np.where(value > dirty, high, found)
            moved = found + (value - dirty) / slope
            moved = np.where((moved >= low) & (moved <= high), moved, (low + high) / 2)  # past a kink of the worst end
            step, found = moved - found, moved
            if not (np.abs(step) > CLOSE).any():
                break
        return found

    def risk(self, log_yield: np.ndarray, frequency: int) -> tuple[np.ndarray, ...]:
        """Yield in percent a year, modified duration, convexity and DV01."""
        value, first, second = self.sums(log_yield)
        growth = np.exp(log_yield)
        modified = first / value / growth / frequency
        convexity = (second + first) / value / growth**2 / frequency**2
        return 100 * frequency * np.expm1(log_yield), modified, convexity, modified * value / 10_000
