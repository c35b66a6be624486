"""The simulated markets and settings of the steps."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.config import Config, make
from gpupipe.data.panel import Panel
from gpupipe.data.report import DataReport
from gpupipe.workloads.bonds import BONDS
from gpupipe.workloads.bonds.markets import price_of_yield
from gpupipe.workloads.bonds.simulate import simulated_market

CONVENTION = "street"
# Settings with which a run takes seconds, to try the steps out.
TINY = (
    "search.trials=2", "search.folds=2", "search.depths=3,5", "forest.n_trees=20", "forest.trees_at_once=10",
    "boosting.rounds=10", "network.epochs=3", "bonds.least_rows=50",
)  # fmt: skip


@dataclass(frozen=True)
class Market:
    """A simulated market. expected: float64 (n_rows,), the change of each spread that the truth expects, percent."""

    panel: Panel
    report: DataReport
    expected: np.ndarray


def market(n_bonds: int, n_months: int, seed: int, mispricing: float) -> Market:
    """See `simulate.simulated_market`."""
    made: Any = simulated_market(
        n_bonds, n_months, seed, price_of_yield=price_of_yield(CONVENTION), mispricing=mispricing
    )
    return Market(made.panel, made.report, made.truth["expected_change"].to_numpy())


def settings(chosen: argparse.Namespace, seed: int) -> Config:
    """The balanced settings with those of --set."""
    return make(BONDS.catalogue(), "balanced", settings=list(chosen.set), seed=seed)
