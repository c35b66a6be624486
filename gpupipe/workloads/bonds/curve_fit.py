"""The spread that the curves of a quote's date fit to it: what is fair where no model says more."""

from __future__ import annotations

import numpy as np

from gpupipe.data.panel import Panel
from gpupipe.workloads.bonds import schema
from gpupipe.workloads.bonds.baselines import FEWEST, GRADES, SVENSSON, baselines
from gpupipe.workloads.bonds.columns import BondRows
from gpupipe.workloads.bonds.dates import group_mean, positions
from gpupipe.workloads.bonds.fair_values import FairValues
from gpupipe.workloads.bonds.ratings import RANKS, TREASURY


def fitted_spreads(
    panel: Panel, fair: FairValues, rows: BondRows, by_grade: np.ndarray | None = None
) -> np.ndarray:  # fmt: skip
    """float64 (n_rows,), percent: the spread of the curve of each quote's date and grade over the quote's par curve.

    The curve is Nelson's, Siegel's and Svensson's, fitted to the yields of the date's quotes of one grade. Where these
    are fewer than `baselines.FEWEST`, it is the quote's own par curve and the mean spread of the grade; of Treasuries,
    whose curve that is, the par curve alone.
    panel: on the host.  by_grade: float64 (n_rows,), percent, the baseline's fit where it is known already.
    """
    at_maturity = schema.rate_at_maturity(panel)
    if by_grade is None:
        by_grade = baselines(fair.spread, at_maturity, fair.years, rows.rating, rows.date)[SVENSSON]
    group = positions(rows.date * (len(GRADES) + 1) + np.searchsorted(GRADES, rows.rating))[1]
    known = np.isfinite(fair.spread) & np.isfinite(at_maturity) & np.isfinite(fair.years)
    few = np.bincount(group, weights=known)[group] < FEWEST
    mean = np.where(rows.rating == RANKS[TREASURY], 0.0, group_mean(fair.spread, group))
    return np.where(known, np.where(few, mean, by_grade), np.nan)
