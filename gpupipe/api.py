"""`train`: the training job as a Python function."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from gpupipe.data.panel import Panel
from gpupipe.pipeline import job
from gpupipe.workloads import equity


def train(
    panel: Panel,
    preset: str = "balanced",
    out: str | os.PathLike[str] = "OUT",
    *,
    settings: Iterable[str] = (),
    jobs: int | None = None,
    warm_start: str | os.PathLike[str] | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """Train every model on a panel, write them to `out`, and return the summary (the content of summary.json).

    preset: fast, balanced or quality.
    settings: "section.field=value" strings, as for --set.
    jobs: number of fits that run at the same time; None is the number of cores.
    warm_start: the folder of a finished run from whose models training starts, as for --warm-start; it may be `out`.
    overrides: see `config.make`: `labels__horizons=(1, 5)` or `training__models=("xgb_joint", "linear")`.

    A finished run with the same data, settings and code in `out` is kept, and a killed run is resumed.
    Raises ConfigError, StoreError or ValueError with the fix.

    Example: `train(panel, "fast", "OUT", labels__horizons=(1,))["models"]` lists the trained models.
    """
    chosen = equity.make(preset, None, settings, **overrides)
    options = job.JobOptions(jobs=jobs, warm_start=warm_start)
    return job.execute(equity.EQUITY, panel, None, chosen, out, options)[0]
