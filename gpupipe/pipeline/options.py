"""How a job is run, and the workers that it may use."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gpupipe.config import Config
from gpupipe.data.panel import Panel
from gpupipe.features.formulas.registry import Module
from gpupipe.runtime import memory
from gpupipe.training.context import WorkerPool


class Workers(Protocol):
    """Workers of a cluster, for one run after another."""

    @property
    def jobs(self) -> int:
        """How many tasks they work on at the same time."""
        ...

    @property
    def threads(self) -> int:
        """How many tasks each of them works on at the same time."""
        ...

    def running(
        self,
        workload: Any,
        panel: Panel,
        settings: Config,
        key: str,
        plan: memory.Plan,
        modules: Sequence[Module],
    ) -> contextlib.AbstractContextManager[WorkerPool]:
        """Give them a run. key: of the run.  plan: the memory plan of each of them."""
        ...


@dataclass(frozen=True)
class JobOptions:
    """How a job is run: nothing of it changes a model, but for `warm_start`.

    jobs: fits at the same time; the number of cores if None.
    limits: memory that the run may take, by its estimate: the first plan of memory.LADDER that stays below is taken.
    tuning: where tuned settings come from (`tune_job.section`), for the summary and the manifest.
    warm_start: the folder of a finished run whose models the final fold starts from, where features, labels and
        settings are the same (see training.warm_start); it may be the job's own folder.
    wait_s: how long to wait where another run holds the folder.
    keep: whether the folder keeps finished results, so that a later run can reuse those that nothing changed for.
    workers: of a cluster, which fit and predict in the place of this process; the models are the same.

        >>> JobOptions(jobs=2, limits=memory.Limits(host=8 << 30)).keep
        True
    """

    jobs: int | None = None
    limits: memory.Limits = memory.NO_LIMITS
    tuning: dict[str, Any] | None = None
    warm_start: str | os.PathLike[str] | None = None
    wait_s: float = 0.0
    keep: bool = True
    workers: Workers | None = None
