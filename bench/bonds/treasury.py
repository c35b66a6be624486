"""Yields of Treasury auctions against the par curve of their day, between its tenors as runs take it and as fitted.

A run takes the curve on straight lines between its tenors (`schema.reference_rate`); its peer is the
Nelson-Siegel-Svensson curve that fits the same tenors best (`baselines.svensson`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from bench.runs import Line
from gpupipe.data.panel import Panel
from gpupipe.workloads.bonds import schema
from gpupipe.workloads.bonds.baselines import svensson
from gpupipe.workloads.bonds.fair_values import fair_values, years_of
from gpupipe.workloads.bonds.par_curve import COLUMN_PREFIX, tenor_years
from gpupipe.workloads.bonds.treasuries import treasury_market

CONVENTION = "treasury"  # of the yields of auctions


def lines(chosen: argparse.Namespace) -> Iterator[Line]:
    """A line for each curve, and for each remaining term in years; then the bar."""
    panel, _ = treasury_market()
    value = fair_values(panel, CONVENTION)
    residuals = {"ours": value.yield_ - value.curve_yield, "svensson": value.yield_ - svensson_of_rows(panel)}
    known = np.all([np.isfinite(residual) for residual in residuals.values()], axis=0)
    for name, residual in residuals.items():
        yield {"kind": "residual", "curve": name, "auctions": int(known.sum()), **measures(residual[known])}
    years = np.rint(value.years).astype(int)
    for term in np.unique(years[known]):
        rows = known & (years == term)
        by_curve = {f"{name}_rms_bp": measures(residual[rows])["rms_bp"] for name, residual in residuals.items()}
        yield {"kind": "residual by term", "years": int(term), "auctions": int(rows.sum()), **by_curve}
    ours, fitted = (measures(residual[known]) for residual in residuals.values())
    yield {
        "kind": "treasury bar", "rms_ratio": ours["rms_bp"] / fitted["rms_bp"],
        "median_ratio": ours["median_bp"] / fitted["median_bp"], "bar": 1.0,
        "holds": ours["rms_bp"] <= fitted["rms_bp"] and ours["median_bp"] <= fitted["median_bp"],
    }  # fmt: skip


def measures(residual: np.ndarray) -> dict[str, float]:
    """Root mean square and median of absolute residuals, in basis points, from percent."""
    size = 100 * np.abs(residual)
    return {"rms_bp": float(np.sqrt((size**2).mean())), "median_bp": float(np.median(size))}


def svensson_of_rows(panel: Panel) -> np.ndarray:
    """float64 (n_rows,), percent: the fitted curve of each row's own par curve, at its remaining years."""
    tenors = schema.curve_tenors(panel)
    rates = np.stack([panel.columns[COLUMN_PREFIX + tenor] for tenor in tenors], axis=1)
    at, years = tenor_years(tenors), years_of(panel)
    fitted = np.full(panel.n_rows, np.nan)
    for i, row in enumerate(rates):
        known = np.isfinite(row)
        if known.any():
            fitted[i] = svensson(at[known], row[known], years[i : i + 1])[0]
    return fitted
