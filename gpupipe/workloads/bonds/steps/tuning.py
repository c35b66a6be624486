"""Step 11: the model that drift names, tuned anew on the later half of the training dates."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from gpupipe.config import Config
from gpupipe.estimators.fit_context import FitContext
from gpupipe.workloads.bonds.found import Found
from gpupipe.workloads.bonds.models import ModelRows, fit, judged
from gpupipe.workloads.bonds.steps import evaluation
from gpupipe.workloads.bonds.studies import Study

NUMBER = 11
NAME = "tuned"


def family_of(model: Found) -> str:
    """The family of a model; of a stack, its member with the largest weight."""
    if model.facts["kind"] != "stack":
        return str(model.facts["kind"])
    weights = {name: abs(w) for name, w in model.facts["weights"].items() if name != "intercept"}
    return max(weights, key=lambda name: (weights[name], name))


def run(
    rows: ModelRows, benchmark: str, model: Found, baselines: Mapping[str, np.ndarray], test: np.ndarray,
    settings: Config, context: FitContext,
) -> Found:  # fmt: skip
    """Search on recent dates, which drift says are closest to those to come; fit on them, and measure."""
    train = rows.split.train
    recent = train[rows.date[train] >= np.median(rows.date[train])]
    later = dataclasses.replace(rows, split=dataclasses.replace(rows.split, train=recent))
    family = family_of(model)
    chosen = Study((family,), later, settings, NUMBER).run(context)
    tuned = fit(later, family, settings, NUMBER, chosen["values"])
    found = judged(later, tuned, search=chosen, benchmark=benchmark, family=family)
    measured = evaluation.measure(rows, {benchmark: model, NAME: found}, baselines, test, settings)
    return dataclasses.replace(found, facts={**found.facts, "rows": [row for row in measured if row["model"] == NAME]})
