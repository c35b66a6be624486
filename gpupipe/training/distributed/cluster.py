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

from gpupipe import config
from gpupipe.data.panel import Panel
from gpupipe.estimators.earlier import Earlier
from gpupipe.features.formulas.registry import Module
from gpupipe.runtime import memory, run_log
from gpupipe.runtime.device import Device
from gpupipe.store.content_store import sha256
from gpupipe.training.distributed import site
from gpupipe.training.distributed.errors import ClusterError
from gpupipe.training.distributed.spread import Spread
from gpupipe.training.fold_data import Which
from gpupipe.training.groups import FOLDS_AT_ONCE

log = logging.getLogger("gpupipe")

LOOPBACK = "127.0.0.1"
DASHBOARD = f"{LOOPBACK}:8787"
CONNECT_S = 15


@dataclass
class Cluster:
    """Workers that are there.

    client: Dask's.  homes: the workers' addresses.  threads: of each.  dashboard: its address, "" where there is none.
    """

    client: Any
    homes: tuple[str, ...]
    threads: int
    dashboard: str

    @property
    def jobs(self) -> int:
        """How many units are worked on at the same time."""
        return len(self.homes) * self.threads

    @contextlib.contextmanager
    def running(
        self, panel: Panel, settings: config.Config, key: str, plan: memory.Plan, modules: Sequence[Module]
    ) -> Iterator[Run | Spread]:  # fmt: skip
        """Give the bars to all workers, or those of some sectors to each; at the end they let go of all of it.

        key: of the run.  plan: how each goes about its memory.
        """
        paths = tuple((module.path, sha256(module.content)) for module in modules)
        fits = -(-min(self.jobs, len(settings.training.models)) // len(self.homes))  # pooled ones of a worker at once
        at_once = 1 if plan.sparing else FOLDS_AT_ONCE
        fits = 1 if settings.training.spread else fits  # which all workers do together
        job = site.Job(key, settings, panel.device.kind, plan, max(1, self.threads // fits), at_once, paths)
        run: Run | Spread
        if settings.training.spread:
            run = Spread(self.client, self.homes, panel, job)
        else:
            # In a list, as of a dictionary Dask would make one future a column, known by its name alone.
            (shared,) = self.client.scatter([site.bars_of(panel)], broadcast=True)
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
    """One run on the cluster: as `fitting.Elsewhere`."""

    def __init__(self, cluster: Cluster, panel: Any, job: site.Job) -> None:
        self._cluster, self._panel, self._job = cluster, panel, job
        self._opening: dict[Which, Any] = {}
        self._lock = threading.Lock()

    @property
    def homes(self) -> int:
        """How many workers there were at the beginning."""
        return len(self._cluster.homes)

    @property
    def holders(self) -> None:
        """Each worker can have all rows."""

    def home_of(self, sector: str | None, home: int) -> int:
        """Where it was asked for."""
        return home

    def open(self, which: Which, home: int) -> None:
        """Let a worker prepare a round, without waiting for it."""
        future = self._submit(site.prepare, home, which, priority=10)
        with self._lock:
            self._opening[which] = future

    def close(self, which: Which) -> None:
        """A round is done; workers let go of it when they need the room."""
        with self._lock:
            self._opening.pop(which, None)

    def forget(self) -> dict[str, dict[str, Any]]:
        """Wait for nothing that was asked for ahead, and let workers go of all of it; as `site.forget`, of each."""
        with self._lock:
            for future in self._opening.values():
                future.cancel()
            self._opening.clear()
        return self._cluster.client.run(site.forget, self._job.key)

    def fit(
        self, which: Which, family: str, sector: str | None, labels: Sequence[int], pooled: Sequence[Any] | None,
        like: Sequence[Any] | None, earlier: Earlier | None, home: int,
    ) -> list[Any]:  # fmt: skip
        """As `folding.fit`."""
        if earlier is not None:
            packed = {of: site.pack(own) for of, own in earlier.by_sector.items()}
            earlier = replace(earlier, by_sector=packed)
        rest = (which, family, sector, list(labels), site.pack(pooled), site.pack(like), earlier)
        made = self._result(f"{which.name}/{family}/{sector or 'pool'}", self._submit(site.fit, home, *rest))
        return site.unpack(made) or []

    def say(self, which: Which, family: str, sector: str, part: str, fitted: Sequence[Any], home: int) -> np.ndarray:
        """As `folding.say`."""
        future = self._submit(site.say, home, which, family, sector, part, site.pack(fitted))
        return self._result(f"{which.name}/{family}/{sector}/{part}", future)

    def _submit(self, function: Callable[..., Any], home: int, *arguments: Any, priority: int = 0) -> Any:
        # Wherever the worker is lost, Dask does its work again on another.
        return self._cluster.client.submit(
            function, self._panel, self._job, *arguments, workers=[self._cluster.homes[home]],
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
    """A cluster: one that is there, or one of this machine, which ends with the context.

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
    """Workers on this machine, which nobody else can reach; without a number, one within this process."""
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
