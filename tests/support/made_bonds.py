"""Made tables of bonds of all kinds, for tests of their valuation."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np

from tests.support.bond_oracle import months_before

DAY_COUNTS = ("act/act", "30/360", "act/360", "act/365")


def dates(values: Any) -> np.ndarray:
    return np.array(values, "datetime64[D]")


def made_table(n: int, seed: int) -> dict[str, Any]:
    """Bonds with short, long and whole first periods, month ends, coupon dates, and one flow left."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list[Any]] = {name: [] for name in ("issue", "maturity", "settlement", "first_coupon", "frequency")}
    for _ in range(n):
        maturity = datetime.date(1990, 1, 1) + datetime.timedelta(int(rng.integers(20_000)))
        if rng.random() < 0.4:
            maturity = (maturity.replace(day=28) + datetime.timedelta(4)).replace(day=1) - datetime.timedelta(1)
        frequency = int(rng.choice([0, 1, 2, 4, 12]))
        step = 12 // max(frequency, 1)
        n_periods = int(rng.integers(1, 40))
        issue, first_coupon = months_before(maturity, step * n_periods), None
        kind = rng.integers(3)
        if kind:
            issue += datetime.timedelta(int(rng.integers(1, 27 * step)))
            if kind == 2 and n_periods > 2 and frequency:
                first_coupon = months_before(maturity, step * (n_periods - int(rng.integers(2, 4))))
        settlement = issue + datetime.timedelta(int(rng.integers((maturity - issue).days)))
        if rng.random() < 0.3:
            settlement = max(issue, months_before(maturity, step * int(rng.integers(1, n_periods + 1))))
        row = (issue, maturity, settlement, first_coupon, frequency)
        for name, value in zip(rows, row, strict=True):
            rows[name].append(value)
    table = {name: dates(values) for name, values in rows.items() if name != "frequency"}
    frequency = np.array(rows["frequency"])
    return {
        **table, "frequency": frequency, "coupon": np.where(frequency == 0, 0.0, rng.uniform(0, 12, n).round(3)),
        "day_count": rng.choice(DAY_COUNTS, n), "yield": rng.uniform(-3, 20, n),
    }  # fmt: skip


def with_calls_and_rates(table: dict[str, Any], seed: int) -> dict[str, Any]:
    """The table with calls in a third of its bonds, floating coupons in a third, and zeros."""
    rng = np.random.default_rng(seed)
    n = len(table["coupon"])
    span = (table["maturity"] - table["settlement"]).astype(int)
    call = table["settlement"] + (span * rng.uniform(0.1, 1.2, n)).astype("timedelta64[D]")
    third = np.arange(n) % 3
    call[(third != 0) | (table["frequency"] == 0)] = np.datetime64("NaT")
    kinds = np.array(["fixed", "floating", "zero"])[np.where((third == 1) & (table["frequency"] > 0), 1, 0)]
    kinds[third == 2] = rng.choice(["fixed", "zero"], (third == 2).sum())
    price = np.where(np.isnat(call), np.nan, rng.uniform(98, 104, n).round(2))
    margin = np.where(kinds == "floating", rng.uniform(0, 2, n), np.nan)
    return {**table, "call_date": call, "call_price": price, "type": kinds, "margin": margin}
