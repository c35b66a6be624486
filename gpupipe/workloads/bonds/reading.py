"""`read_bonds`: files or frames of instruments, quotes and a curve become the Panel of bonds and the report on it."""

from __future__ import annotations

from typing import Any

from gpupipe.data import quarantine_limit
from gpupipe.data.panel import Panel
from gpupipe.data.report import DataReport
from gpupipe.workloads.bonds.schema import MAX_CURVE_AGE, PriceOfYield


def read_bonds(
    bonds: Any,
    quotes: Any,
    curve: Any,
    *,
    price_of_yield: PriceOfYield,
    rates: str = "auto",
    max_curve_age: int = MAX_CURVE_AGE,
    group_by: str = "sector",
    strict: bool = False,
    max_quarantined: float = quarantine_limit.DEFAULT,
) -> tuple[Panel, DataReport]:
    """Read instruments, quotes and a par curve, judge every row, and return the Panel and the report."""
    raise NotImplementedError
