"""Step 1: a random forest with the settings as they are."""

from __future__ import annotations

from gpupipe.config import Config
from gpupipe.estimators.fit_context import FitContext
from gpupipe.workloads.bonds.found import Found
from gpupipe.workloads.bonds.models import ModelRows, fit, judged

NUMBER = 1


def run(rows: ModelRows, settings: Config, context: FitContext) -> Found:
    """Fit and predict."""
    return judged(rows, fit(rows, "forest", settings, NUMBER))
