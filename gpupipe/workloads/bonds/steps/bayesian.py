"""Step 8: a search of the chosen family, with the columns of regimes and factors; its values are those fitted."""

from __future__ import annotations

from gpupipe.config import Config
from gpupipe.estimators.fit_context import FitContext
from gpupipe.workloads.bonds.found import Found
from gpupipe.workloads.bonds.models import ModelRows, fit, judged
from gpupipe.workloads.bonds.studies import Study

NUMBER = 8


def run(rows: ModelRows, family: str, settings: Config, context: FitContext) -> Found:
    """Search by Optuna's TPE sampler, then fit the best on all training rows."""
    chosen = Study((family,), rows, settings, NUMBER).run(context)
    return judged(rows, fit(rows, family, settings, NUMBER, chosen["values"]), search=chosen)
