"""Step 4: the family and its parameters, chosen by a pruned search over all families."""

from __future__ import annotations

from gpupipe.config import Config
from gpupipe.estimators.fit_context import FitContext
from gpupipe.workloads.bonds.families.registry import FAMILIES
from gpupipe.workloads.bonds.found import Found
from gpupipe.workloads.bonds.models import ModelRows, fit, judged
from gpupipe.workloads.bonds.studies import Study

NUMBER = 4


def run(rows: ModelRows, settings: Config, context: FitContext) -> Found:
    """Search on blocks of training dates, then fit the best on all training rows."""
    chosen = Study(tuple(FAMILIES), rows, settings, NUMBER).run(context)
    return judged(rows, fit(rows, chosen["family"], settings, NUMBER, chosen["values"]), search=chosen)
