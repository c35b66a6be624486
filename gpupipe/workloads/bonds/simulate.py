"""A simulated corporate market on the real par curve of the US Treasury: seeded, with an optional mispricing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpupipe.data.panel import Panel
from gpupipe.data.report import DataReport
from gpupipe.workloads.bonds.schema import PriceOfYield


@dataclass(frozen=True)
class SimulatedMarket:
    """A simulated market: its panel, the tables it was read from, and the truth about it.

    panel, report: as of `reading.read_bonds`; the report's kind is "simulated".
    instruments, quotes, curve: Arrow tables, as files that `read_bonds` reads have them.
    truth: Arrow table, one row for each row of the panel, in that order.
    """

    panel: Panel
    report: DataReport
    instruments: Any
    quotes: Any
    curve: Any
    truth: Any
    simulated: bool = True


def simulated_market(
    n_bonds: int = 5_000,
    n_months: int = 60,
    seed: int = 0,
    *,
    price_of_yield: PriceOfYield,
    mispricing: float = 0.0,
    half_life: float = 3.0,
) -> SimulatedMarket:
    """Simulate quotes of corporate bonds at month ends."""
    raise NotImplementedError
