"""The value of each quote: its yield, its risk, and its spread over the par curve of its own date."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpupipe.data.panel import Panel
from gpupipe.workloads.bonds import schema

DAYS_OF_YEAR = 365.25
RISK = ("yield", "modified", "convexity", "dv01", "accrued")
ARRAYS = ("years", "curve_yield", "spread", *RISK)


@dataclass(frozen=True)
class FairValues:
    """Of each quote, float64 (n_rows,) on the host; NaN where the price is not known or has no yield.

    years: from the quote's date to maturity.  yield_: percent a year.  modified: modified duration, years.
    convexity: years squared.  dv01: of 100 of par.  accrued: of 100 of par.
    curve_yield: percent, the par curve of the date, see `schema.reference_rate`.  spread: percent, yield less that.

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


def fair_values(panel: Panel, convention: str) -> FairValues:
    """Value all quotes of a panel, in one call of the kernel."""
    from gpupipe.workloads.bonds.valuation import value

    table, clean = schema.bond_table(panel), panel.columns["clean"]
    valued = value({**table, "clean": clean}, given="clean", convention=convention)
    reference = schema.reference_rate(panel)
    risk = [np.asarray(valued[name], np.float64) for name in RISK]
    return FairValues(years_of(panel), reference, risk[0] - reference, *risk)


def years_of(panel: Panel) -> np.ndarray:
    """float64 (n_rows,): years of 365.25 days from each quote's day to maturity."""
    return (panel.columns["maturity"] - schema.days_of(panel)) / DAYS_OF_YEAR
