"""Step 3: all families, stacked by a ridge regression on their out-of-fold predictions."""

from __future__ import annotations

from gpupipe.config import Config
from gpupipe.estimators.fit_context import FitContext
from gpupipe.workloads.bonds.families.registry import FAMILIES
from gpupipe.workloads.bonds.families.stack import StackModel, meta_weights
from gpupipe.workloads.bonds.found import Found
from gpupipe.workloads.bonds.models import ModelRows, fit, judged, out_of_fold

NUMBER = 3
L2 = 0.1  # of the ridge regression, in variances of the predictions


def run(rows: ModelRows, settings: Config, context: FitContext) -> Found:
    """Fit members on all training rows, and their weights on predictions out of fold."""
    names = tuple(FAMILIES)
    at, predictions = out_of_fold(rows, names, settings, NUMBER, settings.search.folds)
    context.detail("out of fold")
    weights = meta_weights([predictions[name] for name in names], rows.target(at), L2, rows.device)
    members = {name: fit(rows, name, settings, NUMBER) for name in names}
    return judged(rows, StackModel(members, weights, {"rows_out_of_fold": len(at)}))
