"""The yield that the curves of a quote's date fit to it: what is fair where no model says more."""

from __future__ import annotations

import numpy as np

from gpupipe.workloads.bonds.baselines import FEWEST, GRADES, SVENSSON, baselines, svensson
from gpupipe.workloads.bonds.columns import BondRows
from gpupipe.workloads.bonds.dates import group_mean, positions
from gpupipe.workloads.bonds.fair_values import FairValues
from gpupipe.workloads.bonds.ratings import RANKS, TREASURY


def fitted_yields(fair: FairValues, rows: BondRows, by_grade: np.ndarray | None = None) -> np.ndarray:
    """float64 (n_rows,), percent: the Nelson-Siegel-Svensson curve of each quote's date at the quote's years.

    The curve fits the yields of the date's quotes of one grade. Where these are fewer than `baselines.FEWEST`, it fits
    the par curve of the date, and lies above it by the mean of what that leaves of the grade's quotes; of Treasuries,
    whose curve that is, by nothing.
    by_grade: float64 (n_rows,), percent, the baseline's fit where it is known already.
    """
    if by_grade is None:
        made = baselines(fair.spread, fair.curve_yield, fair.years, rows.rating, rows.date)
        by_grade = made[SVENSSON] + fair.curve_yield
    group = positions(rows.date * (len(GRADES) + 1) + np.searchsorted(GRADES, rows.rating))[1]
    known = np.isfinite(fair.yield_) & np.isfinite(fair.curve_yield) & np.isfinite(fair.years)
    few = known & (np.bincount(group, weights=known)[group] < FEWEST)
    fitted = np.where(known, by_grade, np.nan)
    par = np.full(len(fitted), np.nan)
    for k in np.unique(rows.date[few]):
        own, rates = np.flatnonzero(few & (rows.date == k)), rows.curves.rates[k]
        has_rate = np.isfinite(rates)
        par[own] = svensson(rows.curves.years[has_rate], rates[has_rate], fair.years[own])
    above = np.where(rows.rating == RANKS[TREASURY], 0.0, group_mean(np.where(few, fair.yield_ - par, np.nan), group))
    return np.where(few, par + above, fitted)
