"""JobOptions: how a job is run; Workers: a cluster that a job may use."""

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
    """The workers of a cluster, which serve runs in turn.

    >>> from gpupipe.training.distributed.cluster import Cluster
    >>> workers = Cluster(None, ("tcp://a", "tcp://b", "tcp://c"), threads=2, dashboard="")
    >>> workers.jobs, JobOptions(workers=workers).workers.threads
    (6, 2)
    """

    @property
    def jobs(self) -> int:
        """Number of tasks that all workers run at the same time."""
        ...

    @property
    def threads(self) -> int:
        """Number of tasks that each worker runs at the same time."""
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
        """Send a run to the workers. key: of the run.  plan: the memory plan of each worker."""
        ...


@dataclass(frozen=True)
class JobOptions:
    """How a job is run. Only `warm_start` changes models.

    jobs: number of fits that run at the same time; None is the number of cores.
    limits: memory limits of the run; the first plan of memory.LADDER whose estimate stays below them is chosen.
    tuning: the record of tuned settings (`tune_job.section`), for the summary and the manifest.
    warm_start: the folder of a finished run from whose models the final fold starts, where features, labels and
        settings are equal (see training.warm_start); it may be the folder of this job.
    wait_s: seconds to wait while another run holds the folder.
    keep: whether the folder keeps cached results, which later runs can reuse.
    workers: of a cluster, which fit and predict in the place of this process and give equal models.

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
