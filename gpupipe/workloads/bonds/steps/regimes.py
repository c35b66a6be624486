"""Step 5: regimes, clusters of dates by the state of curve and spreads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpupipe.config import Config
from gpupipe.estimators.fit_context import FitContext
from gpupipe.workloads.bonds.families.libraries import estimator
from gpupipe.workloads.bonds.found import Found
from gpupipe.workloads.bonds.models import ModelRows
from gpupipe.workloads.bonds.seeds import seed_of

NUMBER = 5
STATE = ("curve_level", "curve_slope", "curve_bend", "curve_change", "market_spread", "market_change")
FEWEST_DATES = 8  # of training for each cluster that is tried, or a cluster would be an episode
STARTS = 10  # of each clustering


def state_of_dates(
    X: np.ndarray, names: Sequence[str], spread: np.ndarray, date: np.ndarray, n_dates: int
) -> np.ndarray:  # fmt: skip
    """float64 (n_dates, n): columns that all rows of a date share, and the deviation of its spreads.

    X: float32 (n_rows, n_columns), of the names.  spread: float64 (n_rows,).  date: int64 (n_rows,), positions.
    """
    state = np.full((n_dates, len(STATE) + 1), np.nan)
    for k, name in enumerate(STATE):
        column = X[:, list(names).index(name)]
        known = np.flatnonzero(np.isfinite(column))[::-1]
        state[date[known], k] = column[known]
    known = np.flatnonzero(np.isfinite(spread))
    count = np.maximum(np.bincount(date[known], minlength=n_dates), 1)
    mean = np.bincount(date[known], weights=spread[known], minlength=n_dates) / count
    deviation = (spread[known] - mean[date[known]]) ** 2
    state[:, -1] = np.sqrt(np.bincount(date[known], weights=deviation, minlength=n_dates) / count)
    return state


def run(rows: ModelRows, n_dates: int, settings: Config, context: FitContext) -> Found:
    """Cluster the training dates, and assign all dates.

    arrays: regime int64 (n_dates,), numbered by rising mean spread; state float64 (n_dates, n); mean and scale of the
    state over training dates, float64 (n,); centers float64 (n_regimes, n), of the standardised state.
    The number of clusters has the largest silhouette over the training dates. Later dates change no cluster.
    """
    state = state_of_dates(rows.X, rows.names, rows.spread, rows.date, n_dates)
    training = state[: rows.split.first[0]]
    known = np.isfinite(training).any(axis=0)
    mean, scale = np.zeros(state.shape[1]), np.ones(state.shape[1])
    mean[known], scale[known] = np.nanmean(training[:, known], axis=0), np.nanstd(training[:, known], axis=0)
    found = {"state": state, "mean": mean, "scale": np.where(scale > 0, scale, 1.0)}
    fitted = _standardised(found, training)
    most = min(settings.bonds.n_regimes, len(training) // FEWEST_DATES)
    centers, silhouettes = _clustered(fitted, most, rows.device, seed_of(rows.seed, NUMBER))
    found["centers"] = centers[np.argsort(centers[:, STATE.index("market_spread")], kind="stable")]
    facts = {"regimes": len(centers), "silhouettes": silhouettes, "dates_fitted": len(training)}
    return Found({**found, "regime": nearest(found, state)}, facts)


def _standardised(found: Mapping[str, np.ndarray], state: np.ndarray) -> np.ndarray:
    """The state by the mean and scale of training; the mean where it is missing."""
    return np.nan_to_num((state - found["mean"]) / found["scale"])


def _clustered(fitted: np.ndarray, most: int, device: str, seed: int) -> tuple[np.ndarray, dict[str, float]]:
    """The centers of the clusters with the largest silhouette, and the silhouettes by number of clusters.

    One cluster where no number of them, up to `most` and to that of distinct rows, has a silhouette above 0.
    """
    from sklearn.metrics import silhouette_score
    from threadpoolctl import threadpool_limits

    silhouettes: dict[str, float] = {}
    best: Any = fitted.mean(axis=0, keepdims=True)
    for k in range(2, min(most, len(np.unique(fitted, axis=0))) + 1):
        clusters = estimator("kmeans", device, n_clusters=k, n_init=STARTS, random_state=seed)
        with threadpool_limits(1, "openmp"):  # or the order of sums depends on which thread is done first
            labels = np.asarray(clusters.fit_predict(fitted))
        if len(np.unique(labels)) < k:
            continue
        silhouette = float(silhouette_score(fitted, labels))
        if silhouette > max([0.0, *silhouettes.values()]):
            best = np.asarray(clusters.cluster_centers_, np.float64)
        silhouettes[str(k)] = silhouette
    return best, silhouettes


def nearest(found: Mapping[str, np.ndarray], state: np.ndarray) -> np.ndarray:
    """int64 (n_dates,): the regime of each state, float64 (n_dates, n), by the centers, mean and scale of `found`."""
    distance = ((_standardised(found, state)[:, None] - found["centers"]) ** 2).sum(axis=2)
    return np.argmin(distance, axis=1)


def columns(regime: np.ndarray, n_regimes: int, date: np.ndarray) -> dict[str, np.ndarray]:
    """For each row the regime of its date, one column a regime; without the first, which the others imply."""
    return {f"regime_{k}": (regime[date] == k).astype(np.float32) for k in range(1, n_regimes)}
