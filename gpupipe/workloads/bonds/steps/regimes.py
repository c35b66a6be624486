"""Step 5: regimes, clusters of dates by the state of curve and spreads."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpupipe.config import Config
from gpupipe.estimators.fit_context import FitContext
from gpupipe.workloads.bonds.families.libraries import estimator
from gpupipe.workloads.bonds.found import Found
from gpupipe.workloads.bonds.models import ModelRows

NUMBER = 5
STATE = ("curve_level", "curve_slope", "curve_bend", "curve_change", "market_spread", "market_change")
FEWEST_DATES = 8  # of training for each cluster that is tried, or a cluster would be an episode
STARTS = 10  # of each clustering


def state_of_dates(rows: ModelRows, n_dates: int) -> np.ndarray:
    """float64 (n_dates, n): columns that all rows of a date share, and the deviation of its spreads."""
    state = np.full((n_dates, len(STATE) + 1), np.nan)
    for k, name in enumerate(STATE):
        column = rows.X[:, rows.names.index(name)]
        known = np.flatnonzero(np.isfinite(column))[::-1]
        state[rows.date[known], k] = column[known]
    known = np.isfinite(rows.spread)
    count = np.maximum(np.bincount(rows.date[known], minlength=n_dates), 1)
    mean = np.bincount(rows.date[known], weights=rows.spread[known], minlength=n_dates) / count
    deviation = (rows.spread[known] - mean[rows.date[known]]) ** 2
    state[:, -1] = np.sqrt(np.bincount(rows.date[known], weights=deviation, minlength=n_dates) / count)
    return state


def run(rows: ModelRows, n_dates: int, settings: Config, context: FitContext) -> Found:
    """Cluster the training dates, and assign all dates.

    arrays: regime int64 (n_dates,), numbered by rising mean spread, and state float64 (n_dates, n).
    The number of clusters has the largest silhouette over the training dates. Later dates change no cluster.
    """
    from sklearn.metrics import silhouette_score

    state = state_of_dates(rows, n_dates)
    training = state[: rows.split.first[0]]
    mean, scale = np.nanmean(training, axis=0), np.nanstd(training, axis=0)
    standard = np.nan_to_num((state - mean) / np.where(scale > 0, scale, 1.0))
    fitted = standard[: len(training)]
    most = min(settings.bonds.n_regimes, len(training) // FEWEST_DATES)
    best: tuple[float, Any] = (0.0, None)
    silhouettes = {}
    for k in range(2, most + 1):
        clusters = estimator("kmeans", rows.device, n_clusters=k, n_init=STARTS, random_state=rows.seed + NUMBER)
        labels = np.asarray(clusters.fit_predict(fitted))
        if len(np.unique(labels)) < k:
            continue
        silhouettes[k] = float(silhouette_score(fitted, labels))
        if silhouettes[k] > best[0]:
            best = silhouettes[k], np.asarray(clusters.cluster_centers_, np.float64)
    if best[1] is None:
        regime = np.zeros(n_dates, np.int64)
        centers = fitted.mean(axis=0, keepdims=True)
    else:
        centers = best[1][np.argsort(best[1][:, STATE.index("market_spread")], kind="stable")]
        regime = np.argmin(((standard[:, None] - centers) ** 2).sum(axis=2), axis=1)
    facts = {"regimes": len(centers), "silhouettes": silhouettes, "dates_fitted": len(training)}
    return Found({"regime": regime, "state": state}, facts)


def columns(found: Found, date: np.ndarray) -> dict[str, np.ndarray]:
    """For each row the regime of its date, one column a regime; without the first, which the others imply."""
    n = int(found.facts["regimes"])
    return {f"regime_{k}": (found["regime"][date] == k).astype(np.float32) for k in range(1, n)}
