"""The markets of a run: files, the shipped US Treasuries, or a simulated corporate market on their curve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpupipe.data.panel import Panel
from gpupipe.data.report import DataReport
from gpupipe.runtime.device import pick
from gpupipe.workloads.bonds import fair_values
from gpupipe.workloads.bonds.schema import PriceOfYield


def price_of_yield(convention: str) -> PriceOfYield:
    """A function that turns a table of bonds with their yields into clean prices, float64 (n,)."""

    def price(table: Mapping[str, np.ndarray]) -> np.ndarray:
        return fair_values.valued(table, "yield", convention, pick("cpu"), "clean")[0]

    return price


def from_files(
    bonds: str, quotes: str, curve: str, convention: str, **options: Any
) -> tuple[Panel, DataReport]:  # fmt: skip
    """See `reading.read_bonds`, whose options they are."""
    from gpupipe.workloads.bonds.reading import read_bonds

    return read_bonds(bonds, quotes, curve, price_of_yield=price_of_yield(convention), **options)


def treasuries() -> tuple[Panel, DataReport]:
    """See `treasuries.treasury_market`."""
    from gpupipe.workloads.bonds.treasuries import treasury_market

    return treasury_market()


def simulated(
    n_bonds: int, n_months: int, seed: int, convention: str, mispricing: float
) -> tuple[Panel, DataReport]:  # fmt: skip
    """See `simulate.simulated_market`."""
    from gpupipe.workloads.bonds.simulate import simulated_market

    market = simulated_market(
        n_bonds, n_months, seed, price_of_yield=price_of_yield(convention), mispricing=mispricing
    )  # fmt: skip
    return market.panel, market.report
