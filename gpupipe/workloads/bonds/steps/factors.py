"""Step 6: factors, the principal components of changes of the curve; a bond's loadings are columns."""

from __future__ import annotations

import numpy as np

from gpupipe.config import Config
from gpupipe.estimators.fit_context import FitContext
from gpupipe.workloads.bonds.families.libraries import estimator
from gpupipe.workloads.bonds.found import Found
from gpupipe.workloads.bonds.models import ModelRows
from gpupipe.workloads.bonds.par_curve import interpolated

NUMBER = 6


def run(rows: ModelRows, curve: np.ndarray, tenor_years: np.ndarray, settings: Config, context: FitContext) -> Found:
    """Fit on the changes between training dates; scores of all dates.

    curve: float64 (n_dates, n_tenors), percent; tenor_years: float64 (n_tenors,).
    arrays: loading float64 (n_factors, n_tenors), a unit score's change of the curve in percent, whose largest entry is
    positive; score float64 (n_dates, n_factors), of the change from the date before, NaN where it is not known.
    """
    change = np.vstack([np.full(curve.shape[1], np.nan), np.diff(curve, axis=0)])
    known = np.isfinite(change).all(axis=1)
    fitted = change[: rows.split.first[0]][known[: rows.split.first[0]]]
    n = min(settings.bonds.n_factors, fitted.shape[1], max(0, len(fitted) - 1))
    score = np.full((len(curve), n), np.nan)
    loading = np.zeros((n, curve.shape[1]))
    share: list[float] = []
    if n:
        components = estimator("pca", rows.device, n_components=n)
        components.fit(fitted)
        loading = np.asarray(components.components_, np.float64)
        largest = np.abs(loading).argmax(axis=1)
        sign = np.sign(loading[np.arange(n), largest])  # of a component it is arbitrary
        loading = loading * sign[:, None]
        score[known] = (change[known] - np.asarray(components.mean_, np.float64)) @ loading.T
        share = [float(v) for v in np.asarray(components.explained_variance_ratio_)]
    return Found({"loading": loading, "score": score, "tenor_years": tenor_years}, {"explained": share})


def columns(found: Found, date: np.ndarray, years: np.ndarray) -> dict[str, np.ndarray]:
    """For each row the loading of each factor at its bond's years, and the date's score times that loading."""
    made = {}
    for k, loading in enumerate(found["loading"]):
        own = interpolated(found["tenor_years"], np.broadcast_to(loading, (len(years), len(loading))), years)
        made[f"loading_{k + 1}"] = own
        made[f"factor_move_{k + 1}"] = own * found["score"][date, k]
    return made
