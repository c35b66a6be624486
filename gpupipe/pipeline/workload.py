"""Workload: the interface that `job.execute` plans and runs; JobContext: one run of a workload."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gpupipe.config import Catalogue, Config
from gpupipe.data import DataReport
from gpupipe.data.panel import Panel
from gpupipe.estimators.fit_context import NO_CONTEXT, FitContext
from gpupipe.features.formulas.registry import Module
from gpupipe.pipeline.listener import Listener
from gpupipe.pipeline.options import JobOptions
from gpupipe.runtime import memory
from gpupipe.store.content_store import Store
from gpupipe.training.context import WorkerPool


@dataclass(frozen=True)
class Keys:
    """The keys of a run.

    run: digest of all inputs that decide the models.  cold: the same without a warm start; equal to run without one.

        >>> keys = Keys(run="ab12", cold="ab12")
        >>> keys.run == keys.cold  # a run from nothing
        True
    """

    run: str
    cold: str


@dataclass(frozen=True)
class JobContext:
    """One run of a workload, locked and logged.

    modules: loaded Python files of user features.  jobs: number of tasks that run at the same time.
    plan, reason: the memory plan, and the reason for it in words.
    earlier: the finished run from which models start, see `training.warm_start`; None without a warm start.
    watch: memory by stage.  workers: of a cluster, for this run; None without a cluster.
    fit: where the step that runs keeps its progress, of a `StepsWorkload`.

        >>> import tempfile
        >>> from gpupipe.data import simulate
        >>> from gpupipe.workloads.equity import EQUITY
        >>> context = JobContext(
        ...     simulate(n_symbols=11, n_bars=5), None, EQUITY.settings("fast"), (), Store(tempfile.mkdtemp()),
        ...     Keys("ab12", "ab12"), 2, Listener(), memory.AS_IT_IS, "", None, None, memory.Watch(), None)
        >>> len(context.panel.groups), context.plan.name
        (11, 'as it is')
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
    fit: FitContext = NO_CONTEXT


class Workload(Protocol):
    """The interface of workloads. `SupervisedWorkload` and `StepsWorkload` are the two kinds.

    name: the name in messages.  place: the module and name of the value, "gpupipe.workloads.equity:EQUITY".
    catalogue(): the catalogue of its settings.

        >>> from gpupipe.data import simulate
        >>> from gpupipe.workloads.equity import EQUITY
        >>> EQUITY.name, EQUITY.place
        ('equity', 'gpupipe.workloads.equity:EQUITY')
        >>> plan, reason = EQUITY.memory_plan(simulate(11, 5), EQUITY.settings("fast"), 2, memory.NO_LIMITS)
        >>> plan.name
        'as it is'
    """

    @property
    def name(self) -> str:
        """The name in messages."""
        ...

    @property
    def place(self) -> str:
        """The module and name from which workers load the value."""
        ...

    @property
    def catalogue(self) -> Callable[[], Catalogue]:
        """Returns the catalogue of its settings."""
        ...

    def require(self, settings: Config, options: JobOptions) -> None:
        """Raise UserError for missing packages or options that exclude each other, before files are read or locked."""
        ...

    def memory_plan(self, panel: Panel, settings: Config, jobs: int, limits: memory.Limits) -> tuple[memory.Plan, str]:
        """The memory plan that stays below the limits, and a sentence on it; raises UserError without such a plan."""
        ...

    def kernels_of(self, settings: Config) -> tuple[str, ...]:
        """Names of the kernels that a run calls, as far as they are known; they are compiled before it begins."""
        ...

    def run(self, context: JobContext) -> dict[str, Any]:
        """Run all tasks, write the manifest last, and return the summary."""
        ...


def load(place: str) -> Workload:
    """The workload at a place, "module:NAME".

    >>> load("gpupipe.workloads.equity:EQUITY").name
    'equity'
    """
    module, _, name = place.partition(":")
    workload: Workload = getattr(importlib.import_module(module), name)
    return workload
