"""`train`: the job from Python."""

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

    preset: fast, balanced or quality.  settings: "section.field=value" strings, as --set takes them.
    jobs: trainings at the same time; the number of cores if None.  overrides: as `config.make` takes them, for
    example `labels__horizons=(1, 5)` or `training__models=("xgb_joint", "linear")`.

    warm_start: the folder of a finished run to go on from, as --warm-start; it may be `out`.

    A finished run of the same data, settings and code in `out` is left as it is; a killed one goes on.
    Raises ConfigError, StoreError or ValueError with what to mend.
    """
    chosen = equity.make(preset, None, settings, **overrides)
    options = job.JobOptions(jobs=jobs, warm_start=warm_start)
    return job.execute(equity.EQUITY, panel, None, chosen, out, options)[0]
