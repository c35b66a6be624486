"""What a run expects of each quote's spread, and how far off that is: by the chosen model, or by the curve fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.config import Config
from gpupipe.data.panel import Panel
from gpupipe.workloads.bonds import curve_fit, recipe
from gpupipe.workloads.bonds.columns import BondRows
from gpupipe.workloads.bonds.fair_values import FairValues
from gpupipe.workloads.bonds.found import Found
from gpupipe.workloads.bonds.intervals import Calibration, Intervals, Residuals


@dataclass(frozen=True)
class Expected:
    """The fair spreads of a run.

    model: the name of the chosen model; None where the curve fit says what is fair.
    change: float32 (n_rows,), percent, the fair spread less the quoted one; NaN where it is not known.
    intervals: of the fair spreads.

        >>> Expected(None, np.zeros(2, np.float32), Residuals({-1: (-0.1, 0.1)})).model is None
        True
    """

    model: str | None
    change: np.ndarray
    intervals: Intervals


def of_models(values: Mapping[str, Found], settings: Config, device: str) -> Expected:
    """By the model that was chosen on validation, with what its predictions were worth there."""
    found, name = values[recipe.ROWS], values["evaluation"].facts["chosen"]
    change, rows = values[name]["change"], recipe.model_rows(found, settings, device)
    validation = rows.split.validation
    intervals = Calibration.of(
        rows.moves(change, validation), rows.target(validation), rows.date[validation], rows.horizon(validation),
        settings.seed,
    )  # fmt: skip
    return Expected(name, change, intervals)


def of_curve(values: Mapping[str, Found], fair: FairValues) -> Expected:
    """By the curves of each date, with the residuals of all quotes."""
    found = values[recipe.ROWS]
    change = found["fitted"] - fair.spread
    return Expected(None, change.astype(np.float32), Residuals.of(-change, found["rating"]))


def change_by_curve(panel: Panel, fair: FairValues, rows: BondRows) -> np.ndarray:
    """float32 (n_rows,), percent: what the curves of new quotes' own dates expect, see `Expected.change`.

    panel: on the host.
    """
    return (curve_fit.fitted_spreads(panel, fair, rows) - fair.spread).astype(np.float32)


def residual_of_curve(values: Mapping[str, Found]) -> dict[str, Any]:
    """How far the yields of quotes lie from the curve fit: number of quotes, root mean square and median in bp."""
    residual = 100 * (values[recipe.VALUES]["spread"] - values[recipe.ROWS]["fitted"])
    known = np.abs(residual[np.isfinite(residual)])
    rmse = float(np.sqrt((known**2).mean())) if len(known) else None
    return {"quotes": len(known), "rmse_bp": rmse, "median_bp": float(np.median(known)) if len(known) else None}
