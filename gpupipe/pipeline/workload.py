"""What the job asks of any workload: it can be planned, and it can be run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gpupipe.config import Catalogue, Config
from gpupipe.data import DataReport
from gpupipe.data.panel import Panel
from gpupipe.features.formulas.registry import Module
from gpupipe.pipeline.listener import Listener
from gpupipe.pipeline.options import JobOptions
from gpupipe.runtime import memory
from gpupipe.store.content_store import Store
from gpupipe.training.context import WorkerPool


@dataclass(frozen=True)
class Keys:
    """run: of all that decides the models.  cold: without what the run started from; the same where that is nothing."""

    run: str
    cold: str


@dataclass(frozen=True)
class JobContext:
    """One run, locked and logged, as a workload gets it.

    modules: the Python files of the user's own features, loaded.  jobs: tasks at the same time.
    plan, reason: the memory plan, and why it was chosen, in words.
    earlier: the finished run that models start from, see `training.warm_start`; None for nothing.
    watch: the memory that is held, by stage.  workers: a cluster's, for this run; None without one.
    """

    panel: Panel
    report: DataReport | None
    settings: Config
    modules: Sequence[Module]
    store: Store
    keys: Keys
    jobs: int
    listener: Listener
    plan: memory.Plan
    reason: str
    earlier: Any
    tuning: dict[str, Any] | None
    watch: memory.Watch
    workers: WorkerPool | None


class Workload(Protocol):
    """What `job.execute` runs. `SupervisedWorkload` and `StepsWorkload` are the two kinds.

    name: as messages have it.  place: the module and name of the value, "gpupipe.workloads.equity:EQUITY".
    catalogue(): what its settings may hold.
    """

    @property
    def name(self) -> str:
        """As messages have it."""
        ...

    @property
    def place(self) -> str:
        """Where workers find it."""
        ...

    @property
    def catalogue(self) -> Callable[[], Catalogue]:
        """What its settings may hold."""
        ...

    def require(self, settings: Config, options: JobOptions) -> None:
        """Raise UserError for what is missing or does not go together, before anything is read or locked."""
        ...

    def memory_plan(self, panel: Panel, settings: Config, jobs: int, limits: memory.Limits) -> tuple[memory.Plan, str]:
        """The memory plan that stays below the limits, and a sentence on it; UserError where none does."""
        ...

    def run(self, context: JobContext) -> dict[str, Any]:
        """Do all of it and write the manifest last; the summary."""
        ...
