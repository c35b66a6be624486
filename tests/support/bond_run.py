"""Small runs of bonds for tests: a simulated market and settings that train within seconds, and what OUT holds."""

from __future__ import annotations

import functools
import pathlib

import numpy as np

from gpupipe.config import make
from gpupipe.pipeline import job
from gpupipe.workloads.bonds import BONDS, columns, fair_values, markets
from gpupipe.workloads.bonds.simulate import SimulatedMarket, simulated_market

N_BONDS, N_MONTHS, SEED = 96, 40, 3
# Settings that train all models of that market within three seconds.
SMALL = (
    "search.trials=3", "search.folds=2", "search.depths=2,4", "forest.n_trees=6", "forest.trees_at_once=3",
    "boosting.rounds=15", "boosting.patience=4", "network.epochs=3", "network.width=8", "bonds.least_rows=50",
)  # fmt: skip
MARKET = ("--n-bonds", str(N_BONDS), "--n-months", str(N_MONTHS), "--seed", str(SEED))
OPTIONS = tuple(word for setting in SMALL for word in ("--set", setting))  # the same on a command line


@functools.cache
def market(mispricing: float = 0.0, n_bonds: int = N_BONDS, n_months: int = N_MONTHS, seed: int = SEED):
    """The simulated market with its truth."""
    price = markets.price_of_yield("street")
    made: SimulatedMarket = simulated_market(n_bonds, n_months, seed, price_of_yield=price, mispricing=mispricing)
    return made


@functools.cache
def rows_of_market(mispricing: float = 0.0):
    """(panel, fair values, rows with their columns) of the small market."""
    panel = market(mispricing).panel
    fair = fair_values.fair_values(panel, "street")
    return panel, fair, columns.rows_of(panel, fair)


def small_settings(*more: str, seed: int = SEED):
    return make(BONDS.catalogue(), settings=[*SMALL, *more], seed=seed)


def run_bonds(out, *more: str, panel=None, seed: int = SEED, jobs: int = 2):
    """The summary of a run, and whether there was anything to do."""
    bonds = market().panel if panel is None else panel
    return job.execute(BONDS, bonds, None, small_settings(*more, seed=seed), out, job.JobOptions(jobs=jobs))


def lasting(out) -> dict[str, bytes]:
    """Files of OUT/bonds, which equal input makes equal."""
    folder = pathlib.Path(out) / "bonds"
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def made_rows(seed: int, n_dates: int = 24, n_issuers: int = 12, bonds_by_issuer: int = 2, n_columns: int = 5):
    """ModelRows of made numbers: the first column and its product with the second predict the change."""
    from gpupipe.workloads.bonds.models import ModelRows
    from gpupipe.workloads.bonds.settings import BondSettings
    from gpupipe.workloads.bonds.split import split_rows

    rng = np.random.default_rng(seed)
    n_bonds = n_issuers * bonds_by_issuer
    date = np.tile(np.arange(n_dates), n_bonds)
    bond = np.repeat(np.arange(n_bonds), n_dates)
    X = rng.standard_normal((len(date), n_columns)).astype(np.float32)
    change = 0.3 * X[:, 0] + 0.2 * X[:, 0] * X[:, 1] + 0.1 * rng.standard_normal(len(date))
    after = np.where(date < n_dates - 1, np.arange(len(date)) + 1, -1)
    change[after < 0] = np.nan
    X[rng.random(X.shape) < 0.03] = np.nan
    share = (np.arange(n_issuers) * 0.618034 % 1)[bond // bonds_by_issuer]
    split = split_rows(date, n_dates, after, share, BondSettings(least_rows=20))
    judged = np.flatnonzero(date >= split.first[0])
    return ModelRows(
        X, tuple(f"x{k}" for k in range(n_columns)), np.ones(len(date)), change.astype(np.float32), date, after, share,
        judged, split, seed, "cpu",
    )  # fmt: skip
