"""Write bond_reference.npz: prices, yields and risk of bonds by QuantLib 1.44, for tests/workloads/bonds.

    python -m tests.support.make_bond_reference AUCTIONS.parquet

needs the extra bench (QuantLib) and the file of US Treasury auctions. It holds two sets: the nominal notes and bonds of
the file, and 10,000 made bonds over all day counts, frequencies and first periods. The file stays small: inputs are
whole numbers (dates in days, coupons and yields in thousandths of a percent), durations and convexities float32; of the
yield that QuantLib finds for its own clean price, the difference to the yield that it made the price of is kept, as a
fraction times 1e15.
"""

from __future__ import annotations

import importlib
import pathlib
import sys
from typing import Any

import numpy as np

FILE = pathlib.Path(__file__).with_name("bond_reference.npz")
NONE = -(2**31)  # a first coupon that is not given
MADE = 10_000
DAY_COUNTS = ("act/act", "30/360", "act/360", "act/365")
OUTPUTS = ("clean", "accrued", "yield_difference", "macaulay", "convexity")
TYPES = {"clean": "f8", "accrued": "f8", "yield_difference": "f2", "macaulay": "f4", "convexity": "f4",
         "frequency": "i1", "day_count": "i1", "rate": "i2", "coupon": "i2"}  # fmt: skip


def quantlib() -> Any:
    """The module; imported when it is used, as it is an extra of the benchmarks."""
    return importlib.import_module("QuantLib")


def made_bonds(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    """Bonds of all kinds: month ends, short and long first periods, settlement on coupon dates, one flow left."""
    ql = quantlib()

    rows: dict[str, list[int]] = {
        name: []
        for name in ("coupon", "frequency", "issue", "maturity", "settlement", "day_count", "first_coupon", "rate")
    }
    while len(rows["coupon"]) < n:
        maturity = int(rng.integers(12_000, 42_000))
        if rng.random() < 0.3:  # a month end
            maturity = _days(ql.Date.endOfMonth(_date(maturity)))
        frequency = int(rng.choice([0, 1, 2, 4, 12], p=[0.05, 0.15, 0.5, 0.2, 0.1]))
        step = 12 // frequency if frequency else 12
        n_periods = min(1 + int(rng.geometric(0.03 if frequency else 0.2)) * (1 if step > 1 else 3), 960 // step)
        dates = grid(maturity, step, n_periods + 3)
        kind = rng.integers(3)  # of the first period: whole, short, long
        first_coupon = NONE
        issue = dates[n_periods]
        if kind:
            issue += int(rng.integers(1, max(2, dates[n_periods - 1] - issue)))
            if kind == 2 and n_periods > 2:
                first_coupon = dates[n_periods - 2]
            elif n_periods == 1:
                continue  # QuantLib takes another reference period for a bond whose only period is a stub
        last = dates[0] - 1
        settlement = int(rng.integers(issue, last + 1))
        if rng.random() < 0.15 and frequency:  # on a coupon date
            settlement = max(issue, dates[int(rng.integers(1, n_periods + 1))])
        if rng.random() < 0.15:  # one flow left, or the first period
            settlement = min(last, max(issue, dates[1])) if rng.random() < 0.5 else issue
        values = (
            int(rng.integers(0, 12_000)) if frequency else 0, frequency, issue, maturity, settlement,
            int(rng.integers(4)), first_coupon, int(rng.integers(-2_000, 20_000)),
        )  # fmt: skip
        for name, value in zip(rows, values, strict=True):
            rows[name].append(value)
    return {name: np.array(values, np.int32) for name, values in rows.items()}


def grid(maturity: int, step: int, n: int) -> list[int]:
    """The maturity and the n dates before it, one period apart."""
    ql = quantlib()

    date = _date(maturity)
    month_end = ql.Date.isEndOfMonth(date)
    null = ql.NullCalendar()
    return [_days(null.advance(date, -k * step, ql.Months, ql.Unadjusted, month_end)) for k in range(n + 1)]


def _date(days: int) -> Any:
    ql = quantlib()

    return ql.Date(int(days) + 25_569)  # serial numbers count from 1899-12-30


def _days(date: Any) -> int:
    return date.serialNumber() - 25_569


def bond_of(row: dict[str, int]) -> tuple[Any, Any, Any]:
    """QuantLib's bond, day count and frequency of a row."""
    ql = quantlib()

    maturity, issue = _date(row["maturity"]), _date(row["issue"])
    plain = [ql.ActualActual(ql.ActualActual.ISMA), ql.Thirty360(ql.Thirty360.BondBasis), ql.Actual360(),
             ql.Actual365Fixed()][row["day_count"]]  # fmt: skip
    if row["frequency"] == 0:
        bond = ql.ZeroCouponBond(0, ql.NullCalendar(), 100.0, maturity, ql.Unadjusted, 100.0, issue)
        return bond, plain, ql.Annual
    tenor = ql.Period(12 // row["frequency"], ql.Months)
    first = _date(row["first_coupon"]) if row["first_coupon"] != NONE else ql.Date()
    schedule = ql.Schedule(
        issue, maturity, tenor, ql.NullCalendar(), ql.Unadjusted, ql.Unadjusted, ql.DateGeneration.Backward,
        ql.Date.isEndOfMonth(maturity), first,
    )  # fmt: skip
    day_count = ql.ActualActual(ql.ActualActual.ISMA, schedule) if row["day_count"] == 0 else plain
    bond = ql.FixedRateBond(0, 100.0, schedule, [row["coupon"] / 1e5], day_count, ql.Unadjusted, 100.0, issue)
    return bond, day_count, row["frequency"]


def valued(bonds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What QuantLib says of bonds at their yield; the yield is that of the price it says."""
    ql = quantlib()

    results: dict[str, list[float]] = {name: [] for name in OUTPUTS}
    for k in range(len(bonds["coupon"])):
        row = {name: int(values[k]) for name, values in bonds.items()}
        bond, day_count, frequency = bond_of(row)
        settlement = _date(row["settlement"])
        ql.Settings.instance().evaluationDate = settlement
        rate = ql.InterestRate(row["rate"] / 1e5, day_count, ql.Compounded, frequency)
        about = (bond, rate.rate(), day_count, ql.Compounded, frequency, settlement)
        clean = ql.BondFunctions.cleanPrice(*about)
        price = ql.BondPrice(clean, ql.BondPrice.Clean)
        found = ql.BondFunctions.bondYield(
            bond, price, day_count, ql.Compounded, frequency, settlement, 1e-15, 1000, rate.rate()
        )  # fmt: skip
        macaulay = ql.BondFunctions.duration(bond, rate, ql.Duration.Macaulay, settlement)
        accrued = bond.accruedAmount(settlement)
        convexity = ql.BondFunctions.convexity(bond, rate, settlement)
        for name, value in zip(
            OUTPUTS, (clean, accrued, (found - rate.rate()) * 1e15, macaulay, convexity), strict=True
        ):
            results[name].append(value)
    return {name: np.array(values) for name, values in results.items()}


def auctions(path: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The nominal notes and bonds of the file as bonds, and what was published of them."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    nominal = ~columns["tips"] & ~columns["floating_rate"] & np.isfinite(columns["coupon"])
    dates = {
        name: columns[column][nominal].astype("datetime64[D]").astype(np.int32)
        for name, column in (("issue", "dated_date"), ("maturity", "maturity_date"), ("settlement", "issue_date"))
    }
    n = int(nominal.sum())
    bonds = {
        "coupon": np.round(columns["coupon"][nominal] * 1000).astype(np.int32),
        "frequency": np.full(n, 2, np.int32), **dates, "day_count": np.zeros(n, np.int32),
        "first_coupon": np.full(n, NONE, np.int32),
        "rate": np.round(columns["high_yield"][nominal] * 1e3).astype(np.int32),
    }  # fmt: skip
    published = {"price": columns["price_per_100"][nominal], "accrued_1000": columns["accrued_per_1000"][nominal]}
    return bonds, {**published, "reopening": columns["reopening"][nominal].astype(bool)}


def main(path: str) -> None:
    made = made_bonds(np.random.default_rng(1), MADE)
    treasury, published = auctions(path)
    stored = {"published_" + name: values for name, values in published.items()}
    for prefix, bonds in (("made", made), ("auction", treasury)):
        stored |= {
            f"{prefix}_{name}": v.astype(TYPES.get(name, "i4")) for name, v in {**bonds, **valued(bonds)}.items()
        }
    np.savez_compressed(FILE, **stored)
    print(f"{len(made['coupon']):,} made bonds and {len(treasury['coupon'])} auctions, {FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
