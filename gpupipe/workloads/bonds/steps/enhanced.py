"""Step 2: a random forest whose depth is searched on validation."""

from __future__ import annotations

from gpupipe.config import Config
from gpupipe.estimators.fit_context import FitContext
from gpupipe.workloads.bonds.families.contract import mean_squared
from gpupipe.workloads.bonds.found import Found
from gpupipe.workloads.bonds.models import ModelRows, fit, judged

NUMBER = 2
PATIENCE = 2  # deeper forests without a gain on validation, then the search stops


def run(rows: ModelRows, settings: Config, context: FitContext) -> Found:
    """Fit a forest of each depth, from shallow to deep; keep the best on validation."""
    validation = rows.split.validation
    target = rows.target(validation)
    tried: list[tuple[int, float]] = []
    best = None
    for depth in sorted(settings.search.depths):
        model = fit(rows, "forest", settings, NUMBER, {"max_depth": depth})
        loss = mean_squared(model.predict(rows.X[validation]), target)
        if best is None or loss < min(known for _, known in tried):
            best = model
        tried.append((depth, loss))
        context.detail(f"depth {depth}")
        losses = [known for _, known in tried]
        if len(losses) - 1 - losses.index(min(losses)) >= PATIENCE:
            break
    assert best is not None, "settings.search.depths is not empty"
    depth = min(tried, key=lambda item: item[1])[0]
    return judged(rows, best, depth=depth, depths=[list(item) for item in tried])
