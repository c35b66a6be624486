"""Bonds as objects of QuantLib and FinancePy, made before they are timed, and in numpy."""

from __future__ import annotations

import contextlib
import datetime
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.runs import SkippedError, library
from gpupipe.bonds import prepare

Table = dict[str, np.ndarray]


@dataclass(frozen=True)
class Peer:
    """Functions of one number for each bond: its clean price from a yield, its yield from a clean price, in percent.

    risk: price, modified duration and convexity from a yield; None where the library has no such functions.
    """

    version: str
    price: list[Callable[[float], float]]
    rate: list[Callable[[float], float]]
    risk: list[Callable[[float], tuple[float, float, float]]] | None = None


def rows_of(table: Table) -> list[dict[str, Any]]:
    return [dict(zip(table, values, strict=True)) for values in zip(*(v.tolist() for v in table.values()), strict=True)]


def quantlib(table: Table) -> Peer:
    """FixedRateBond and BondFunctions. Act/Act takes the reference periods of the coupons: of the two ways that
    QuantLib has, the faster.
    """  # fmt: skip
    ql, version = library("QuantLib", "QuantLib")
    counts = {
        "act/act": ql.ActualActual(ql.ActualActual.ISMA), "30/360": ql.Thirty360(ql.Thirty360.BondBasis),
        "act/360": ql.Actual360(), "act/365": ql.Actual365Fixed(),
    }  # fmt: skip
    price, rate, risk = [], [], []

    def date_of(date: datetime.date) -> Any:
        return ql.Date(date.day, date.month, date.year)

    def functions(row: dict[str, Any]) -> None:
        maturity, settlement, frequency = date_of(row["maturity"]), date_of(row["settlement"]), row["frequency"]
        schedule = ql.Schedule(
            date_of(row["issue"]), maturity, ql.Period(12 // frequency, ql.Months), ql.NullCalendar(), ql.Unadjusted,
            ql.Unadjusted, ql.DateGeneration.Backward, ql.Date.isEndOfMonth(maturity),
        )  # fmt: skip
        count = counts[row["day_count"]]
        bond = ql.FixedRateBond(0, 100.0, schedule, [row["coupon"] / 100], count)
        about = (count, ql.Compounded, frequency, settlement)
        clean, found, measure = ql.BondFunctions.cleanPrice, ql.BondFunctions.bondYield, ql.BondFunctions

        def measured(y: float) -> tuple[float, float, float]:
            interest = ql.InterestRate(y / 100, *about[:3])
            modified = measure.duration(bond, interest, ql.Duration.Modified, settlement)
            return clean(bond, y / 100, *about), modified, measure.convexity(bond, interest, settlement)

        price.append(lambda y: clean(bond, y / 100, *about))
        rate.append(lambda p: 100 * found(bond, ql.BondPrice(p, ql.BondPrice.Clean), *about, 1e-10, 100, 0.05))
        risk.append(measured)

    for row in rows_of(table):
        functions(row)
    return Peer(version, price, rate, risk)


def financepy(table: Table) -> Peer:
    """Bond, of Act/Act bonds alone: by its UK_DMO convention, which is the street's."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints a banner when it is loaded
        module, version = library("financepy.products.bonds.bond", "financepy")
        types, dates = (library(f"financepy.utils.{name}", "financepy")[0] for name in ("global_types", "date"))
        more = {
            name: library(f"financepy.utils.{name}", "financepy")[0] for name in ("frequency", "day_count", "calendar")
        }
    street = types.YTMCalcType.UK_DMO
    kinds = {1: "ANNUAL", 2: "SEMI_ANNUAL", 4: "QUARTERLY", 12: "MONTHLY"}
    price, rate = [], []

    def date_of(date: datetime.date) -> Any:
        return dates.Date(date.day, date.month, date.year)

    def functions(row: dict[str, Any]) -> None:
        bond = module.Bond(
            date_of(row["issue"]), date_of(row["maturity"]), row["coupon"] / 100,
            more["frequency"].FrequencyTypes[kinds[row["frequency"]]], more["day_count"].DayCountTypes.ACT_ACT_ICMA,
            0, more["calendar"].CalendarTypes.NONE,
        )  # fmt: skip
        settlement = date_of(row["settlement"])
        price.append(lambda y: float(bond.clean_price_from_ytm(settlement, y / 100, street)))
        rate.append(lambda p: 100 * float(bond.yield_to_maturity(settlement, p, street)))

    for row in rows_of(table):
        functions(row)
    return Peer(version, price, rate)


class InNumpy:
    """The street formula over arrays, as one writes it: terms prepared, powers, and Newton's method on all bonds."""

    def __init__(self, table: Table) -> None:
        terms = prepare(table)
        self.frequency, self.n, self.accrued = table["frequency"].astype(float), terms.n_flows, terms.accrued
        settled, maturity = table["settlement"], table["maturity"]
        # The part of the period that is left follows from the accrued interest and the coupon, where that is not 0.
        self.coupon = table["coupon"] / self.frequency
        self.left = 1 - self.accrued / self.coupon
        self.years = (maturity - settled).astype(float) / 365.25

    def price(self, rate: np.ndarray) -> np.ndarray:
        u = rate / (100 * self.frequency)
        v = 1 / (1 + u)
        flat = np.abs(u) < 1e-9
        annuity = np.where(flat, self.n, (1 - v**self.n) / np.where(flat, 1.0, 1 - v))
        return v**self.left * (self.coupon * annuity + 100 * v ** (self.n - 1)) - self.accrued

    def rate(self, clean: np.ndarray) -> np.ndarray:
        rate = 100 * (self.coupon * self.frequency + (100 - clean) / self.years) / (100 + clean) * 2
        rate = np.clip(rate, -20, 60)
        for _ in range(50):
            here = self.price(rate) - clean
            slope = (self.price(rate + 1e-4) - clean - here) / 1e-4
            step = here / slope
            rate = rate - step
            if np.abs(step).max() < 1e-9:
                break
        return rate


LOOPS: dict[str, Callable[[Table], Peer]] = {"quantlib": quantlib, "financepy": financepy}

__all__ = ["LOOPS", "InNumpy", "Peer", "SkippedError", "financepy", "quantlib", "rows_of"]
