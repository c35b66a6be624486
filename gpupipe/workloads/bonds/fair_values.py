"""The value of each quote: its yield, its risk, and its spread over the par curve of its own date."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.data.panel import Panel
from gpupipe.runtime.device import Device, pick
from gpupipe.workloads.bonds import schema

log = logging.getLogger("gpupipe")

DAYS_OF_YEAR = 365.25
YIELD_TOLERANCE = 0.25  # percentage points, by which a quoted yield may differ from that of the price
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
    """Value all quotes of a panel, in one call of the kernel, on the device of the panel."""
    host = on_host(panel)
    table = {**schema.bond_table(host), "clean": host.columns["clean"]}
    risk = valued(table, "clean", convention, panel.device, *RISK)
    unvalued = int((np.isfinite(table["clean"]) & np.isnan(risk[0])).sum())
    if unvalued:
        log.warning(
            "%s of %s quotes have a price and no yield; they have no spread", f"{unvalued:,}", f"{len(risk[0]):,}"
        )
    _tell_of_yields(host, risk[0])
    reference = schema.reference_rate(host)
    return FairValues(years_of(host), reference, risk[0] - reference, *risk)


def _tell_of_yields(panel: Panel, found: np.ndarray) -> None:
    """Warn of quotes whose yield is not that of their price, but of floating bonds, whose yield is no one thing.

    found: float64 (n_rows,), percent, the yields of the prices.
    """
    floating = (np.array(panel.attributes["type"]) == schema.FLOATING)[panel.symbol_of_row]
    quoted = panel.columns["yield"]
    both = np.isfinite(panel.columns["clean"]) & np.isfinite(quoted) & np.isfinite(found) & ~floating
    rows = np.flatnonzero(both & (np.abs(quoted - found) > YIELD_TOLERANCE))
    if len(rows):
        bond = panel.symbols[panel.symbol_of_row[rows[0]]]
        log.warning(
            "%s of %s quotes have a yield more than %g percentage points from that of their price, which counts "
            "(first %s: yield %.4g, of its price %.4g)",
            f"{len(rows):,}", f"{int(both.sum()):,}", YIELD_TOLERANCE, bond, quoted[rows[0]], found[rows[0]],
        )  # fmt: skip


def on_host(panel: Panel) -> Panel:
    """The panel on the host, where texts and dates are."""
    return panel.to(pick("cpu"))


def valued(
    table: Mapping[str, np.ndarray], given: Any, convention: Any, device: Device, *names: str
) -> list[np.ndarray]:  # fmt: skip
    """Columns of `bonds.value`, float64 (n_bonds,) on the host, by name; the kernel runs on the device.

    table: arrays on the host, as `schema.bond_table` makes them, with the given column.
    NaN where a bond has no value.
    """
    from gpupipe.workloads.bonds.valuation import value

    moved = {name: column if column.dtype.kind in "OU" else _moved(column, device) for name, column in table.items()}
    found = value(moved, given=given, convention=convention, errors="ignore")
    return [np.asarray(device.to_host(found[name]), np.float64) for name in names]


def _moved(column: np.ndarray, device: Device) -> Any:
    """A column of numbers or dates on the device; dates are int64 days there."""
    return device.asarray(column.astype("datetime64[D]").view(np.int64) if column.dtype.kind == "M" else column)


def years_of(panel: Panel) -> np.ndarray:
    """float64 (n_rows,): years of 365.25 days from each quote's day to maturity."""
    return (panel.columns["maturity"] - schema.days_of(panel)) / DAYS_OF_YEAR
