"""TrainingContext: data, settings and store that training tasks share; WorkerPool: workers that run the tasks."""

from __future__ import annotations

import pathlib
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from gpupipe.config import Config
from gpupipe.cross_validation.fold_times import FoldTimes
from gpupipe.cross_validation.split import Split
from gpupipe.dataset.dataset import Dataset
from gpupipe.estimators import registry
from gpupipe.estimators.contract import Estimator, Model
from gpupipe.estimators.earlier import EarlierModels
from gpupipe.kernels.cores import available_cores
from gpupipe.runtime import memory
from gpupipe.runtime.device import Device, pick
from gpupipe.runtime.placement import CPU, Placement
from gpupipe.runtime.task_graph import Costs
from gpupipe.store.cache import ResultCache
from gpupipe.store.content_store import Store
from gpupipe.training.cache_keys import GroupDigests
from gpupipe.training.expected_return import GroupTrades
from gpupipe.training.fold_data import FoldId, Stage
from gpupipe.training.fold_tasks import first_costs

FOLDS_AT_ONCE = 2  # folds in memory: one is trained, and the next is prepared beside its last tasks


class ShardedRows(Protocol):
    """Rows sharded over workers: each worker holds the rows of some groups, and this process holds no features.

    >>> from gpupipe.data import simulate
    >>> from gpupipe.training.distributed.spread import Spread
    >>> from gpupipe.training.distributed.worker_run import Job
    >>> from gpupipe.workloads import equity
    >>> panel, settings = simulate(n_symbols=11, n_bars=5), equity.make("fast", training__spread=3)
    >>> job = Job("ab12", "gpupipe.workloads.equity:EQUITY", settings, "cpu", memory.AS_IT_IS, 2, 2, ())
    >>> rows = Spread(None, ("tcp://a", "tcp://b", "tcp://c"), panel, job).sharded_rows
    >>> workers = [rows.worker_of(sector, 0) for sector in panel.groups]
    >>> [workers.count(worker) for worker in range(3)]  # sectors of each worker
    [4, 4, 3]
    """

    def dataset(self, group: str) -> tuple[Dataset, str, dict[str, float]]:
        """See `prepare.make_dataset`; rows of X are fetched from their worker when they are read."""
        ...

    def inputs(self, fold: FoldId) -> dict[str, tuple[GroupDigests, dict[str, str]]]:
        """For each group of a fold, the digests of its rows, and a digest of X for each predicted part."""
        ...


class WorkerPool(Protocol):
    """Workers that fit and predict in the place of this process, with equal results to the last bit.

    The argument `worker` is a worker's number, from 0 to n_workers - 1.

        >>> from gpupipe.training.distributed.cluster import Cluster, ClusterRun
        >>> pool = ClusterRun(Cluster(None, ("tcp://a", "tcp://b", "tcp://c"), threads=2, dashboard=""), None, None)
        >>> pool.n_workers, pool.worker_of("energy", 2), pool.sharded_rows is None
        (3, 2, True)
    """

    @property
    def n_workers(self) -> int:
        """Number of workers."""
        ...

    @property
    def sharded_rows(self) -> ShardedRows | None:
        """The sharded rows; None where this process and each worker have access to all rows."""
        ...

    def worker_of(self, group: str | None, worker: int) -> int | None:
        """The number of the worker that fits a group's stage (None: the pooled stage), for a thread of `worker`."""
        ...

    def open(self, fold: FoldId, worker: int) -> None:
        """Start the preparation of a fold on a worker, and return at once."""
        ...

    def close(self, fold: FoldId) -> None:
        """Release a fold."""
        ...

    def call(self, name: str, function: Callable[..., Any], arguments: Sequence[Any], worker: int) -> Any:
        """What function(panel, settings, *arguments) returns on a worker.  name: of the task, for messages."""
        ...

    def fit(
        self,
        fold: FoldId,
        estimator: Estimator,
        stage: Stage,
        pooled: Sequence[Model | None] | None,
        frozen_choices: Sequence[Model | None] | None,
        worker: int,
    ) -> list[Any]:
        """See `fold_data.fit`."""
        ...

    def predict(
        self, fold: FoldId, name: str, group: str, part: str, models: Sequence[Model], worker: int
    ) -> np.ndarray:
        """See `fold_data.predict`."""
        ...


def _nothing_earlier(name: str, groups: Sequence[str], labels: Sequence[str]) -> EarlierModels | None:
    return None


@dataclass
class TrainingContext:
    """The data, settings, store and progress callbacks that the tasks of a training share.

    times: the fold in time that is trained.
    cache: a folder for bins, where memory is short.  plan: the memory plan.
    workers: workers that fit in the place of this process.
    earlier(name, groups, labels): an earlier run's models from which an estimator's final fit starts; None to start
        from nothing. The run key has to include their digest.
    advance(text): called after each task.
    detail(text): called now and then while a long task runs, with how far it is.
    seconds: by stage, filled while training.  costs: observed costs of tasks.
    results: cached results, with counts of reused ones.
    turns: order of the tasks that may run out of memory.
    trades: the trades that calls would open, from which expected returns are learned; None where nothing is traded.
    placement: the device of each stage; by default the run's device has them all.
    beside: number of folds in time that are trained at once, each by a context of its own.
    home: the run's device, of which `device` differs in `on_host`.

        >>> import tempfile
        >>> from gpupipe.runtime.device import pick
        >>> from gpupipe.workloads.equity import EQUITY
        >>> store, times = Store(tempfile.mkdtemp()), FoldTimes("", (), (), ())
        >>> context = TrainingContext({}, {}, times, EQUITY.settings("fast"), store, "ab12", pick("cpu"), jobs=4)
        >>> context.stacking, len(context.base_models), context.folds_at_once
        ('meta_learner', 5, 2)
    """

    datasets: Mapping[str, Dataset]
    splits: Mapping[str, Split]
    times: FoldTimes
    settings: Config
    store: Store
    run_key: str
    device: Device
    jobs: int
    cache: pathlib.Path | None = None
    plan: memory.Plan = memory.AS_IT_IS
    workers: WorkerPool | None = None
    earlier: Callable[[str, Sequence[str], Sequence[str]], EarlierModels | None] = _nothing_earlier
    advance: Callable[[str], None] = lambda text: None
    detail: Callable[[str], None] = lambda text: None
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    costs: Costs = field(default=None)  # type: ignore[assignment]
    results: ResultCache = field(default=None)  # type: ignore[assignment]
    turns: memory.Turns = field(default_factory=memory.Turns)
    trades: GroupTrades | None = None
    placement: Placement = field(default=None)  # type: ignore[assignment]
    beside: int = 1
    home: Device = field(default=None)  # type: ignore[assignment]
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.results = self.results or ResultCache(self.store, self.run_key)
        self.costs = self.costs or Costs(first_costs(self.settings.training.models))
        self.placement = self.placement or Placement(self.device.kind)
        self.home = self.home or self.device

    @property
    def threads(self) -> int:
        """Number of threads of a pooled fit; as many pooled fits run at once as there are of them, and jobs."""
        return max(1, available_cores() // (min(self.jobs, self.pooled_fits) * self.beside))

    @property
    def pooled_fits(self) -> int:
        """Number of pooled fits that need not wait for each other, in one fit of a fold."""
        n_pools = 1 if self.settings.training.pool == "all" else max(1, len(self.datasets))
        return len(self.settings.training.models) * n_pools

    @property
    def folds_in_time_at_once(self) -> int:
        """Number of folds in time to train at once, so that there is work for all jobs; 1 where one fold has enough.

        Also 1 where rows are gathered: memory is planned for one fold in time.
        """
        if self.workers or self.plan.sparing or registry.reads_rows(self.settings):
            return 1
        return max(1, self.jobs // self.pooled_fits)

    @property
    def folds_at_once(self) -> int:
        """Number of folds that may be in memory."""
        return 1 if self.plan.sparing else FOLDS_AT_ONCE

    @property
    def stacking(self) -> str | None:
        """The name of the stacking estimator; None if the run has none."""
        return registry.stacking(self.settings.training.models)

    @property
    def base_models(self) -> list[str]:
        """Names of the estimators that are fitted on rows, in order."""
        return [name for name in self.settings.training.models if name != self.stacking]

    @property
    def on_host(self) -> TrainingContext:
        """This context with the datasets' copies on the host, to read and score them there.

        Itself without a GPU, and with workers: rows of X may be theirs.
        """
        if self.device.kind == CPU or self.workers:
            return self
        host = pick(CPU)
        return replace(self, datasets={name: data.on(host) for name, data in self.datasets.items()}, device=host)

    def device_of(self, stage: str) -> Device:
        """The device that a stage is placed on.  stage: its name, see `placement.stage_name`."""
        return self.home if self.placement.device(stage) == self.home.kind else pick(CPU)

    def spent(self, stage: str, elapsed_s: float) -> None:
        """Add to the time of a stage."""
        with self._lock:
            self.seconds[stage] += elapsed_s
