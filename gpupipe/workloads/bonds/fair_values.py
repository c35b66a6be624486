"""The value of each quote: its yield, its risk, and its spread over the par curve of its own date."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.data.panel import NS_PER_DAY, Panel
from gpupipe.workloads.bonds import curve as par_curve

TERMS = ("coupon", "frequency", "issue", "maturity")
RISK = ("yield", "modified", "convexity", "dv01", "accrued")
ARRAYS = ("years", "curve_yield", "spread", *RISK)


@dataclass(frozen=True)
class FairValues:
    """Of each quote, float64 (n_rows,) on the host; NaN where the price is not known or has no yield.

    years: from the quote's date to maturity.  yield_: percent a year.  modified: modified duration, years.
    convexity: years squared.  dv01: of 100 of par.  accrued: of 100 of par.
    curve_yield: percent, the par curve of the date at those years.  spread: yield less curve_yield, percent.

        >>> FairValues(*(np.zeros(2) for _ in ARRAYS)).spread.shape
        (2,)
    """

    years: np.ndarray
    curve_yield: np.ndarray
    spread: np.ndarray
    yield_: np.ndarray
    modified: np.ndarray
    convexity: np.ndarray
    dv01: np.ndarray
    accrued: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """By name, as `ARRAYS` has them."""
        return dict(zip(ARRAYS, vars(self).values(), strict=True))


def table_of(panel: Panel) -> dict[str, Any]:
    """The table that `valuation.value` reads: the terms of each row's bond, settled on the row's own date."""
    to_host = panel.device.to_host
    days = to_host(panel.time_ns) // NS_PER_DAY
    symbol = to_host(panel.symbol_of_row)
    table: dict[str, Any] = {name: to_host(panel.columns[name]) for name in TERMS}
    for name in ("issue", "maturity"):
        table[name] = table[name].astype("datetime64[D]")
    table["settlement"] = days.astype("datetime64[D]")
    table["day_count"] = np.asarray(panel.attributes["day_count"])[symbol]
    return table


def fair_values(panel: Panel, convention: str) -> FairValues:
    """Value all quotes of a panel, in one call of the kernel."""
    from gpupipe.workloads.bonds.valuation import value

    table = table_of(panel)
    clean = panel.device.to_host(panel.columns["clean"])
    valued = value({**table, "clean": clean}, given="clean", convention=convention)
    years = (table["maturity"] - table["settlement"]).astype(np.int64) / par_curve.DAYS_OF_YEAR
    columns = {name: panel.device.to_host(column) for name, column in panel.columns.items()}
    tenor_years = np.array([par_curve.TENORS[name] for name in par_curve.tenors_of(columns)])
    curve_yield = par_curve.at_years(par_curve.known_curve(columns), tenor_years, years)
    risk = [np.asarray(valued[name], np.float64) for name in RISK]
    return FairValues(years, curve_yield, risk[0] - curve_yield, *risk)
