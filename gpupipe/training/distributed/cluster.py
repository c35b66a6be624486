"""Cluster: runs the task graph on the workers of a Dask cluster, on this machine or on others."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpupipe.config import Config
from gpupipe.data.panel import Panel
from gpupipe.estimators.contract import Estimator, Model
from gpupipe.features.formulas.registry import Module
from gpupipe.runtime import memory, run_log
from gpupipe.runtime.device import Device, memory_limit
from gpupipe.store.content_store import sha256
from gpupipe.training.context import FOLDS_AT_ONCE
from gpupipe.training.distributed import worker_run
from gpupipe.training.distributed.errors import ClusterError
from gpupipe.training.distributed.spread import Spread
from gpupipe.training.fold_data import FoldId, Stage
from gpupipe.training.recipe import Recipe

log = logging.getLogger("gpupipe")

LOOPBACK = "127.0.0.1"
DASHBOARD = f"{LOOPBACK}:8787"
CONNECT_S = 15
ATTEMPTS = 3  # of a call whose arguments are lost with the worker that holds them


class _LostError(ClusterError):
    """Dask cancelled a task, because the scheduler, or the worker that holds its arguments, was lost."""


@dataclass
class Cluster:
    """The connected workers of a Dask cluster.

    client: Dask's client.  addresses: one for each worker.  threads: of each worker.
    dashboard: address of Dask's dashboard; "" without one.

        >>> cluster = Cluster(None, ("tcp://a", "tcp://b", "tcp://c"), threads=2, dashboard="")
        >>> cluster.jobs
        6
    """

    client: Any
    addresses: tuple[str, ...]
    threads: int
    dashboard: str

    @property
    def jobs(self) -> int:
        """Number of tasks that run at the same time."""
        return len(self.addresses) * self.threads

    @contextlib.contextmanager
    def running(
        self,
        workload: Recipe,
        panel: Panel,
        settings: Config,
        key: str,
        plan: memory.Plan,
        modules: Sequence[Module],
    ) -> Iterator[ClusterRun | Spread]:
        """Send all rows to every worker, or the rows of some groups to each; workers release the run at the end.

        key: of the run.  plan: the memory plan of each worker.
        """
        paths = tuple((module.path, sha256(module.content)) for module in modules)
        # Number of pooled fits that a worker runs at once.
        fits = max(1, -(-min(self.jobs, len(settings.training.models)) // len(self.addresses)))
        at_once = 1 if plan.sparing else FOLDS_AT_ONCE
        fits = 1 if settings.training.spread else fits  # all workers do them together
        threads = max(1, self.threads // fits)
        job = worker_run.Job(
            key, workload.place, settings, panel.device.kind, plan, threads, at_once, paths, memory_limit()
        )
        run: ClusterRun | Spread
        if settings.training.spread:
            run = Spread(self.client, self.addresses, panel, job)
        else:
            run = ClusterRun(self, worker_run.rows_of(panel), job)
        try:
            yield run
        finally:
            with contextlib.suppress(Exception):  # a lost worker holds nothing
                for address, usage in run.forget().items():
                    run_log.event(
                        "worker", address=address, memory_peak_bytes=usage["peak_bytes"], rows_held=usage.get("rows"),
                    )  # fmt: skip
                    for direction, stages in usage["bus_bytes"].items():
                        for stage, n_bytes in stages.items():
                            getattr(panel.device.ledger, direction)[stage] += n_bytes


class ClusterRun:
    """One run on a cluster whose workers each have access to all rows: a `WorkerPool`.

    rows: of the panel, see `worker_run.rows_of`; None for a run that sends none.

    >>> run = ClusterRun(Cluster(None, ("tcp://a", "tcp://b"), threads=2, dashboard=""), rows=None, job=None)
    >>> run.n_workers, run.worker_of("energy", 1)
    (2, 1)
    """

    def __init__(self, cluster: Cluster, rows: Any, job: worker_run.Job) -> None:
        self._cluster, self._panel_rows, self._job = cluster, rows, job
        self._rows = self._sent_rows()
        self._opening: dict[FoldId, Any] = {}
        self._lock = threading.Lock()

    def _sent_rows(self) -> Any:
        """A future of the rows, sent to every worker."""
        if self._panel_rows is None:
            return None
        # In a list, because Dask turns a dictionary into a future for each key. A key of its own, as one that is made
        # of the content may be on its way out.
        return self._cluster.client.scatter([self._panel_rows], broadcast=True, hash=False)[0]

    @property
    def n_workers(self) -> int:
        """Number of workers at the start of the run."""
        return len(self._cluster.addresses)

    @property
    def sharded_rows(self) -> None:
        """None: each worker has access to all rows."""

    def worker_of(self, group: str | None, worker: int) -> int:
        """The calling worker itself."""
        return worker

    def open(self, fold: FoldId, worker: int) -> None:
        """Start the preparation of a fold on a worker, and return at once."""
        future = self._submit(worker_run.prepare, worker, fold, priority=10)
        with self._lock:
            self._opening[fold] = future

    def close(self, fold: FoldId) -> None:
        """Mark a fold as done; workers release it when they need the memory."""
        with self._lock:
            self._opening.pop(fold, None)

    def forget(self) -> dict[str, dict[str, Any]]:
        """Cancel preparations, and let workers release the run; returns `worker_run.forget` of each worker."""
        with self._lock:
            for future in self._opening.values():
                future.cancel()
            self._opening.clear()
        return self._cluster.client.run(worker_run.forget, self._job.key)

    def call(self, name: str, function: Callable[..., Any], arguments: Sequence[Any], worker: int) -> Any:
        """See `WorkerPool`."""
        for _ in range(ATTEMPTS - 1):
            try:
                return self._call(name, function, arguments, worker)
            except _LostError:
                if self._cluster.client.status != "running":  # the scheduler was lost
                    raise
                with contextlib.suppress(OSError):  # the next attempt says that no worker takes anything
                    self._rows = self._sent_rows()  # a scheduler that keeps one copy may have lost them, too
        return self._call(name, function, arguments, worker)

    def _call(self, name: str, function: Callable[..., Any], arguments: Sequence[Any], worker: int) -> Any:
        # Sent beside the task, as Dask holds tasks themselves to be small. One worker holds what is sent: where it is
        # lost, Dask has nothing to run the task with, and cancels it.
        try:
            sent = self._cluster.client.scatter([list(arguments)], hash=False)
        except OSError as error:
            raise _LostError(f"{name}: no worker takes its arguments ({error})") from None
        return self._result(name, self._submit(worker_run.call, worker, function, *sent))

    def fit(
        self,
        fold: FoldId,
        estimator: Estimator,
        stage: Stage,
        pooled: Sequence[Model | None] | None,
        frozen_choices: Sequence[Model | None] | None,
        worker: int,
    ) -> list[Any]:
        """See `WorkerPool`."""
        earlier = estimator.earlier
        if earlier is not None:
            earlier = replace(earlier, by_group={g: worker_run.pack(models) for g, models in earlier.by_group.items()})
        rest = (fold, estimator.name, stage, worker_run.pack(pooled), worker_run.pack(frozen_choices), earlier)
        name = f"{fold.name}/{estimator.name}/{stage.group or 'pool'}"
        return worker_run.unpack(self._result(name, self._submit(worker_run.fit, worker, *rest))) or []

    def predict(
        self, fold: FoldId, name: str, group: str, part: str, models: Sequence[Model], worker: int
    ) -> np.ndarray:
        """See `WorkerPool`."""
        future = self._submit(worker_run.predict, worker, fold, name, group, part, worker_run.pack(models))
        return self._result(f"{fold.name}/{name}/{group}/{part}", future)

    def _submit(self, function: Callable[..., Any], worker: int, *arguments: Any, priority: int = 0) -> Any:
        # Where the worker is lost, Dask runs the task again on another worker, which gets the rows from any other.
        return self._cluster.client.submit(
            function, self._rows, self._job, *arguments, workers=[self._cluster.addresses[worker]],
            allow_other_workers=True, pure=False, priority=priority,
        )  # fmt: skip

    def _result(self, name: str, future: Any) -> Any:
        from distributed import CancelledError, KilledWorker

        try:
            result, warnings = future.result()
        except CancelledError:  # Dask cancels tasks when the scheduler, or what they need, is lost
            raise _LostError(
                f"{name}: the scheduler or its workers were lost: start them again; the same command resumes the run"
            ) from None
        except KilledWorker as error:
            raise ClusterError(
                f"{name}: this task was lost with several workers ({error.last_worker.address} last): look at their "
                "logs; where they ran out of memory, start fewer workers or lower --memory"
            ) from None
        for text in warnings:
            log.warning("%s", text)
        return result


@contextlib.contextmanager
def cluster(
    device: Device, scheduler: str | None = None, workers: int = 0, jobs: int = 1, dashboard: bool = False
) -> Iterator[Cluster]:
    """Connect to a running cluster, or start a local cluster that ends with the context.

    scheduler: address of a running scheduler, such as tcp://host:8786.
    workers: number of local processes, each with jobs / workers threads and, on CUDA, a GPU; 0 runs in this process.
    dashboard: serve Dask's dashboard to this machine.
    Raises ClusterError where no scheduler answers, or a worker has other code or versions.
    """
    if scheduler is not None and workers:
        raise ClusterError("--scheduler and --workers: a running cluster has its workers; leave --workers out")
    if dashboard and scheduler is None and importlib.util.find_spec("bokeh") is None:
        raise ClusterError("--dashboard needs the package bokeh: pip install -e '.[dashboard]'")
    from distributed import Client

    with contextlib.ExitStack() as stack:
        if scheduler is not None:
            try:
                client = stack.enter_context(Client(scheduler, timeout=CONNECT_S, set_as_default=False))
            except (OSError, ValueError) as error:
                raise ClusterError(
                    f"--scheduler {scheduler}: no scheduler answers ({error}); start `dask scheduler`, and "
                    "`dask worker` on each machine"
                ) from None
        else:
            local = stack.enter_context(_local(device, workers, jobs, dashboard))
            client = stack.enter_context(Client(local, set_as_default=False))
            client.amm.stop()  # it keeps one copy of a run's rows, which are lost with their worker
        workers_of_cluster = client.scheduler_info(n_workers=-1)["workers"]
        if not workers_of_cluster:
            raise ClusterError(f"--scheduler {scheduler}: it has no workers; start some by `dask worker {scheduler}`")
        _require_the_same(client.run(worker_run.about))
        threads = min(about["nthreads"] for about in workers_of_cluster.values())
        address = client.dashboard_link if scheduler else ""
        if dashboard and not scheduler:  # Dask takes another port where this port is in use
            address = f"http://{LOOPBACK}:{local.scheduler.http_server.port}/status"
        yield Cluster(client, tuple(sorted(workers_of_cluster)), threads, address or "")


def _local(device: Device, workers: int, jobs: int, dashboard: bool) -> Any:
    """Workers on this machine, reachable from this machine only; workers = 0 is a single worker in this process."""
    shared = {
        "threads_per_worker": max(1, jobs // max(1, workers)),
        "dashboard_address": DASHBOARD if dashboard else f"{LOOPBACK}:0", "worker_dashboard_address": f"{LOOPBACK}:0",
        "silence_logs": logging.ERROR,  # warnings about workers that end slowly do not matter
    }  # fmt: skip
    if device.kind == "cuda" and workers:
        _require_gpus(workers, device.xp.cuda.runtime.getDeviceCount())
        if importlib.util.find_spec("dask_cuda") is None:
            raise ClusterError(
                "--workers on GPUs needs the package dask-cuda: pip install -e '.[cuda13]', or '.[cuda12]' for a CUDA "
                "12 driver; or leave --workers out"
            )
        from dask_cuda import LocalCUDACluster

        # Each worker sets up its pool as this process does (`device.pick`); Dask is to limit and spill nothing.
        return LocalCUDACluster(n_workers=workers, host=LOOPBACK, memory_limit=None, device_memory_limit=None, **shared)
    from distributed import LocalCluster

    if workers:
        return LocalCluster(n_workers=workers, host=LOOPBACK, memory_limit=None, **shared)
    return LocalCluster(n_workers=1, processes=False, memory_limit=None, **shared)


def _require_gpus(workers: int, n_gpus: int) -> None:
    """Raise ClusterError for more workers than GPUs: some would share one, whose memory each takes for its own."""
    if workers > n_gpus:
        gpus = "1 GPU" if n_gpus == 1 else f"{n_gpus} GPUs"
        raise ClusterError(
            f"--workers {workers}: each worker has a GPU of its own, and this machine has {gpus}: give --workers "
            f"{n_gpus}, or leave it out: one process fits on its GPU and on CPU threads beside it"
        )


def _require_the_same(about_workers: dict[str, dict[str, Any]]) -> None:
    """Raise ClusterError where a worker has other code or versions than this process, and so could fit other models."""
    about_client = worker_run.about()
    for address, about_worker in about_workers.items():
        if about_worker["code"] != about_client["code"]:
            raise ClusterError(f"the worker at {address} has other code of gpupipe: install the same there")
        for name in sorted({*about_client["versions"], *about_worker["versions"]}):
            here, there = (about["versions"].get(name, "none") for about in (about_client, about_worker))
            if here != there:
                raise ClusterError(f"the worker at {address} has {name} {there}, and {here} is here: install the same")
