"""Step 10: drift of the models' inputs and of their residuals, and the model that tuning starts from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpupipe.workloads.bonds.found import Found
from gpupipe.workloads.bonds.models import ModelRows

BINS = 10
DRIFTED = 0.2  # a population stability index above it is called drift; above 0.1, a shift


def stability_index(before: np.ndarray, after: np.ndarray, bins: int = BINS) -> float:
    """The population stability index: sum over bins of (b - a) * log(b / a), for shares a before and b after.

    Bins are quantiles of the sample before; half a row is added to each share. Missing values are a bin of their own.
    NaN where a sample is empty.

    >>> stability_index(np.arange(100.0), np.arange(100.0)).__round__(3)
    0.0
    """
    known = before[np.isfinite(before)]
    if not len(before) or not len(after) or not len(known):
        return float("nan")
    edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1]))

    def shares(sample: np.ndarray) -> np.ndarray:
        missing = ~np.isfinite(sample)
        known = np.bincount(np.searchsorted(edges, sample[~missing], side="right"), minlength=len(edges) + 1)
        counts = np.append(known, missing.sum()) + 0.5
        return np.asarray(counts / counts.sum())

    a, b = shares(before), shares(after)
    return float(((b - a) * np.log(b / a)).sum())


def compare(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """The stability index, and the KS statistic with its p-value, of two samples."""
    from scipy.stats import ks_2samp

    a, b = before[np.isfinite(before)], after[np.isfinite(after)]
    if not len(a) or not len(b):
        return {"psi": None, "ks": None, "p": None}
    ks = ks_2samp(a, b, method="asymp")
    return {"psi": stability_index(before, after), "ks": float(ks.statistic), "p": float(ks.pvalue)}


def run(rows: ModelRows, models: Mapping[str, Found], test: np.ndarray) -> Found:
    """Inputs of training against test rows, and residuals of the models over time.

    residuals: of each model, predicted moves less those that happened, both in the unit and against the mean that
    models are fitted on, "validation": its residuals in the first half of the validation dates against the second,
    and "test": those of all validation rows against the test rows. score: the mean of the test's KS statistic and of
    the share of inputs that drifted, 0 to 1.
    benchmark: of the models whose residuals did not drift within validation, the one with the smallest loss there; of
    all, where every one drifted. Test rows do not choose it: it is tuned next, and judged on them.
    """
    split = rows.split
    inputs = {
        name: compare(rows.X[split.train, k].astype(np.float64), rows.X[test, k].astype(np.float64))
        for k, name in enumerate(rows.names)
    }
    known = [found for found in inputs.values() if found["psi"] is not None]
    drifted = float(np.mean([found["psi"] > DRIFTED for found in known])) if known else 0.0
    date = rows.date[split.validation]
    early = date < np.median(date)
    residuals: dict[str, Any] = {}
    for name, model in models.items():
        own, later = (rows.moves(model["change"], part) - rows.target(part) for part in (split.validation, test))
        within, beyond = compare(own[early], own[~early]), compare(own, later)
        residuals[name] = {"validation": within, "test": beyond, "score": ((beyond["ks"] or 0.0) + drifted) / 2}
    steady = [name for name in models if (residuals[name]["validation"]["psi"] or 0.0) <= DRIFTED] or list(models)
    benchmark = min(steady, key=lambda name: (models[name].facts["validation_loss"], name))
    return Found({}, {"inputs": inputs, "residuals": residuals, "inputs_drifted": drifted, "benchmark": benchmark})
