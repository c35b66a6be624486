"""Step 6: factors, the principal components of changes of the curve; a bond's loadings are columns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gpupipe.config import Config
from gpupipe.estimators.fit_context import FitContext
from gpupipe.workloads.bonds.families.libraries import estimator
from gpupipe.workloads.bonds.found import Found
from gpupipe.workloads.bonds.models import ModelRows
from gpupipe.workloads.bonds.par_curve import interpolated


def run(rows: ModelRows, curve: np.ndarray, tenor_years: np.ndarray, settings: Config, context: FitContext) -> Found:
    """Fit on the changes between training dates; scores of all dates.

    curve: float64 (n_dates, n_tenors), percent; tenor_years: float64 (n_tenors,).
    arrays: loading float64 (n_factors, n_tenors), a unit score's change of the curve in percent, whose largest entry is
    positive; mean float64 (n_tenors,), the mean change; tenor_years; score float64 (n_dates, n_factors), see `scores`.
    """
    change = np.diff(curve[: rows.split.first[0]], axis=0)
    fitted = change[np.isfinite(change).all(axis=1)]
    n = min(settings.bonds.n_factors, fitted.shape[1], max(0, len(fitted) - 1))
    loading, mean = np.zeros((n, curve.shape[1])), np.zeros(curve.shape[1])
    share: list[float] = []
    if n:
        components = estimator("pca", rows.device, n_components=n)
        components.fit(fitted)
        loading, mean = np.asarray(components.components_, np.float64), np.asarray(components.mean_, np.float64)
        largest = np.abs(loading).argmax(axis=1)
        loading = loading * np.sign(loading[np.arange(n), largest])[:, None]  # of a component the sign is arbitrary
        share = [float(v) for v in np.asarray(components.explained_variance_ratio_)]
    found = {"loading": loading, "mean": mean, "tenor_years": tenor_years}
    return Found({**found, "score": scores(found, curve)}, {"explained": share})


def scores(found: Mapping[str, np.ndarray], curve: np.ndarray) -> np.ndarray:
    """float64 (n_dates, n_factors): of the change from the date before, NaN where it is not known.

    found: arrays of the step.  curve: float64 (n_dates, n_tenors), percent.
    """
    change = np.vstack([np.full((1, curve.shape[1]), np.nan), np.diff(curve, axis=0)])
    # Sums of products by einsum, so that the last bits of a score do not depend on the number of dates.
    return np.einsum("dt,ft->df", change - found["mean"], found["loading"])


def columns(
    found: Mapping[str, np.ndarray], score: np.ndarray, date: np.ndarray, years: np.ndarray
) -> dict[str, np.ndarray]:  # fmt: skip
    """For each row the loading of each factor at its bond's years, and the date's score times that loading."""
    made = {}
    for k, loading in enumerate(found["loading"]):
        own = interpolated(found["tenor_years"], np.broadcast_to(loading, (len(years), len(loading))), years)
        made[f"loading_{k + 1}"] = own
        made[f"factor_move_{k + 1}"] = own * score[date, k]
    return made
