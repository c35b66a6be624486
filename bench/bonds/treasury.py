"""Yields of Treasury auctions against the par curve of their day, and against what a run publishes as fair.

    par curve               the row's own curve, on straight lines between its tenors: spreads are counted over it
                            (`schema.reference_rate`)
    published               what a run says is fair: the column `fitted` of its quotes
    Nelson-Siegel-Svensson  the curve that fits the tenors of the row's own curve best (`baselines.svensson`)

The bar is of what is published, over Nelson-Siegel-Svensson.
"""

from __future__ import annotations

import argparse
import io
import pathlib
import tempfile
from collections.abc import Iterator, Mapping

import numpy as np

from bench.runs import Line
from gpupipe.config import make
from gpupipe.data.panel import Panel
from gpupipe.pipeline import job
from gpupipe.workloads.bonds import BONDS, results, schema
from gpupipe.workloads.bonds.baselines import svensson
from gpupipe.workloads.bonds.fair_values import years_of
from gpupipe.workloads.bonds.par_curve import COLUMN_PREFIX, tenor_years
from gpupipe.workloads.bonds.treasuries import treasury_market

CONVENTION = "treasury"  # of the yields of auctions
PAR, PUBLISHED, SVENSSON = "par curve", "published", "Nelson-Siegel-Svensson"


def lines(chosen: argparse.Namespace) -> Iterator[Line]:
    """A line for each of the three, and for each remaining term in years; then the bar."""
    panel, report = treasury_market()
    quotes = published(panel, report)
    fair = {PAR: quotes["yield"] - quotes["spread"], PUBLISHED: quotes["fitted"], SVENSSON: svensson_of_rows(panel)}
    residuals = {name: quotes["yield"] - curve for name, curve in fair.items()}
    known = np.all([np.isfinite(residual) for residual in residuals.values()], axis=0)
    found = {name: measures(residual[known]) for name, residual in residuals.items()}
    for name, measured in found.items():
        yield {"kind": "residual", "curve": name, "auctions": int(known.sum()), **measured}
    years = np.rint(years_of(panel)).astype(int)
    for term in np.unique(years[known]):
        rows = known & (years == term)
        by_curve = {f"{name} rms_bp": measures(residual[rows])["rms_bp"] for name, residual in residuals.items()}
        yield {"kind": "residual by term", "years": int(term), "auctions": int(rows.sum()), **by_curve}
    ratios = {name: found[PUBLISHED][name] / found[SVENSSON][name] for name in ("rms_bp", "median_bp")}
    yield {
        "kind": "treasury bar", "rms_ratio": ratios["rms_bp"], "median_ratio": ratios["median_bp"], "bar": 1.0,
        "holds": max(ratios.values()) <= 1.0,
    }  # fmt: skip


def published(panel: Panel, report: object) -> Mapping[str, np.ndarray]:
    """Columns of the quotes of a run, float64 (n_rows,) in percent: yield, spread, fitted. Auctions fit no models."""
    import pyarrow.parquet as pq

    settings = make(BONDS.catalogue(), "balanced", settings=[f"bonds.convention={CONVENTION}"])
    with tempfile.TemporaryDirectory() as out:
        job.execute(BONDS, panel, report, settings, out)
        table = pq.read_table(io.BytesIO(pathlib.Path(out, results.QUOTES).read_bytes()))
    return {name: table[name].to_numpy() for name in ("yield", "spread", "fitted")}


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
