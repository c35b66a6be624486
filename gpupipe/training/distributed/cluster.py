"""Cluster: the same graph on the workers of a Dask cluster, of this machine or of others."""

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
from gpupipe.estimators.contract import Estimator
from gpupipe.features.formulas.registry import Module
from gpupipe.runtime import memory, run_log
from gpupipe.runtime.device import Device
from gpupipe.store.content_store import sha256
from gpupipe.training.context import FOLDS_AT_ONCE
from gpupipe.training.distributed import site
from gpupipe.training.distributed.errors import ClusterError
from gpupipe.training.distributed.spread import Spread
from gpupipe.training.fold_data import FoldId, Stage
from gpupipe.training.recipe import Recipe

log = logging.getLogger("gpupipe")

LOOPBACK = "127.0.0.1"
DASHBOARD = f"{LOOPBACK}:8787"
CONNECT_S = 15


@dataclass
class Cluster:
    """Workers that are there.

    client: Dask's.  addresses: of the workers.  threads: of each.  dashboard: its address, "" where there is none.
    """

    client: Any
    addresses: tuple[str, ...]
    threads: int
    dashboard: str

    @property
    def jobs(self) -> int:
        """How many units are worked on at the same time."""
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
    ) -> Iterator[Run | Spread]:
        """Give all rows to all workers, or those of some groups to each; at the end they release the run.

        key: of the run.  plan: the memory plan of each worker.
        """
        paths = tuple((module.path, sha256(module.content)) for module in modules)
        # Pooled fits of a worker at once.
        fits = -(-min(self.jobs, len(settings.training.models)) // len(self.addresses))
        at_once = 1 if plan.sparing else FOLDS_AT_ONCE
        fits = 1 if settings.training.spread else fits  # all workers do them together
        threads = max(1, self.threads // fits)
        job = site.Job(key, workload.place, settings, panel.device.kind, plan, threads, at_once, paths)
        run: Run | Spread
        if settings.training.spread:
            run = Spread(self.client, self.addresses, panel, job)
        else:
            # In a list, as of a dictionary Dask would make one future a column, known by its name alone.
            (shared,) = self.client.scatter([site.rows_of(panel)], broadcast=True)
            run = Run(self, shared, job)
        try:
            yield run
        finally:
            with contextlib.suppress(Exception):  # a worker that is gone has nothing to let go of
                for address, own in run.forget().items():
                    run_log.event(
                        "worker", address=address, memory_peak_bytes=own["peak_bytes"], rows_held=own.get("rows"),
                    )  # fmt: skip
                    for direction, stages in own["bus_bytes"].items():
                        for stage, n_bytes in stages.items():
                            getattr(panel.device.ledger, direction)[stage] += n_bytes


class Run:
    """One run on the cluster, whose workers can each have all rows: a `WorkerPool`."""

    def __init__(self, cluster: Cluster, rows: Any, job: site.Job) -> None:
        self._cluster, self._rows, self._job = cluster, rows, job
        self._opening: dict[FoldId, Any] = {}
        self._lock = threading.Lock()

    @property
    def n_workers(self) -> int:
        """How many workers there were at the beginning."""
        return len(self._cluster.addresses)

    @property
    def sharded_rows(self) -> None:
        """Each worker can have all rows."""

    def worker_of(self, group: str | None, worker: int) -> int:
        """The worker that asks."""
        return worker

    def open(self, fold: FoldId, worker: int) -> None:
        """Let a worker prepare a fold, without waiting for it."""
        future = self._submit(site.prepare, worker, fold, priority=10)
        with self._lock:
            self._opening[fold] = future

    def close(self, fold: FoldId) -> None:
        """A fold is done; workers release it when they need the room."""
        with self._lock:
            self._opening.pop(fold, None)

    def forget(self) -> dict[str, dict[str, Any]]:
        """Cancel preparations and let workers release the run; see `site.forget`, for each worker."""
        with self._lock:
            for future in self._opening.values():
                future.cancel()
            self._opening.clear()
        return self._cluster.client.run(site.forget, self._job.key)

    def fit(
        self,
        fold: FoldId,
        estimator: Estimator,
        stage: Stage,
        pooled: Sequence[Any] | None,
        frozen_choices: Sequence[Any] | None,
        worker: int,
    ) -> list[Any]:
        """See `WorkerPool`."""
        earlier = estimator.earlier
        if earlier is not None:
            earlier = replace(earlier, by_group={g: site.pack(models) for g, models in earlier.by_group.items()})
        rest = (fold, estimator.name, stage, site.pack(pooled), site.pack(frozen_choices), earlier)
        name = f"{fold.name}/{estimator.name}/{stage.group or 'pool'}"
        return site.unpack(self._result(name, self._submit(site.fit, worker, *rest))) or []

    def predict(self, fold: FoldId, name: str, group: str, part: str, models: Sequence[Any], worker: int) -> np.ndarray:
        """See `WorkerPool`."""
        future = self._submit(site.predict, worker, fold, name, group, part, site.pack(models))
        return self._result(f"{fold.name}/{name}/{group}/{part}", future)

    def _submit(self, function: Callable[..., Any], worker: int, *arguments: Any, priority: int = 0) -> Any:
        # Wherever the worker is lost, Dask does its work again on another.
        return self._cluster.client.submit(
            function, self._rows, self._job, *arguments, workers=[self._cluster.addresses[worker]],
            allow_other_workers=True, pure=False, priority=priority,
        )  # fmt: skip

    def _result(self, name: str, future: Any) -> Any:
        from distributed import CancelledError, KilledWorker

        try:
            made, warnings = future.result()
        except CancelledError:  # Dask cancels what it was asked for when the scheduler is gone
            raise ClusterError(
                f"{name}: the scheduler or its workers went away: start them again; the same command goes on where "
                "this one was"
            ) from None
        except KilledWorker as error:
            raise ClusterError(
                f"{name}: worker after worker was lost while it was made ({error.last_worker.address} last): look at "
                "their logs; where they ran out of memory, give each less (--workers, --memory) or more of it"
            ) from None
        for text in warnings:
            log.warning("%s", text)
        return made


@contextlib.contextmanager
def cluster(
    device: Device, scheduler: str | None = None, workers: int = 0, jobs: int = 1, dashboard: bool = False
) -> Iterator[Cluster]:
    """A cluster: a running one, or one of this machine that ends with the context.

    scheduler: address of one that is there, as tcp://host:8786.  workers: processes of this machine, each with
    jobs / workers threads; on CUDA one GPU each; 0 works within this process.  dashboard: serve Dask's, to this machine
    alone.
    Raises ClusterError where there is none, or one that would make other models.
    """
    if scheduler is not None and workers:
        raise ClusterError("--scheduler and --workers: a cluster has the workers that it has; leave --workers out")
    if dashboard and scheduler is None and importlib.util.find_spec("bokeh") is None:
        raise ClusterError("--dashboard needs the package bokeh: pip install -e '.[dashboard]'")
    from distributed import Client

    with contextlib.ExitStack() as held:
        if scheduler is not None:
            try:
                client = held.enter_context(Client(scheduler, timeout=CONNECT_S, set_as_default=False))
            except (OSError, ValueError) as error:
                raise ClusterError(
                    f"--scheduler {scheduler}: nobody answers there ({error}); start one by `dask scheduler`, and "
                    "`dask worker` on each machine"
                ) from None
        else:
            local = held.enter_context(_local(device, workers, jobs, dashboard))
            client = held.enter_context(Client(local, set_as_default=False))
        found = client.scheduler_info(n_workers=-1)["workers"]
        if not found:
            raise ClusterError(f"--scheduler {scheduler}: it has no workers; start some by `dask worker {scheduler}`")
        _require_the_same(client.run(site.about))
        threads = min(own["nthreads"] for own in found.values())
        address = client.dashboard_link if scheduler else ""
        if dashboard and not scheduler:  # another port where that one is taken
            address = f"http://{LOOPBACK}:{local.scheduler.http_server.port}/status"
        yield Cluster(client, tuple(sorted(found)), threads, address or "")


def _local(device: Device, workers: int, jobs: int, dashboard: bool) -> Any:
    """Workers on this machine that nobody else can reach; without a number, one within this process."""
    shared = {
        "threads_per_worker": max(1, jobs // max(1, workers)),
        "dashboard_address": DASHBOARD if dashboard else f"{LOOPBACK}:0", "worker_dashboard_address": f"{LOOPBACK}:0",
        "silence_logs": logging.ERROR,  # that a worker takes its time to end is no news
    }  # fmt: skip
    if device.kind == "cuda" and workers:
        from dask_cuda import LocalCUDACluster

        # Each worker sets up its pool as this process does (`device.pick`); Dask is to limit and spill nothing.
        return LocalCUDACluster(n_workers=workers, host=LOOPBACK, memory_limit=None, device_memory_limit=None, **shared)
    from distributed import LocalCluster

    if workers:
        return LocalCluster(n_workers=workers, host=LOOPBACK, memory_limit=None, **shared)
    return LocalCluster(n_workers=1, processes=False, memory_limit=None, **shared)


def _require_the_same(found: dict[str, dict[str, Any]]) -> None:
    """ClusterError where a worker has other code or versions than this process: it would make other models."""
    own = site.about()
    for address, theirs in found.items():
        if theirs["code"] != own["code"]:
            raise ClusterError(f"the worker at {address} has other code of gpupipe: install the same there")
        for name in sorted({*own["versions"], *theirs["versions"]}):
            here, there = (one["versions"].get(name, "none") for one in (own, theirs))
            if here != there:
                raise ClusterError(f"the worker at {address} has {name} {there}, and {here} is here: install the same")
