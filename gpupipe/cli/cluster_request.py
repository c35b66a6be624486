"""Which processes compute beside this one: the options --workers, --scheduler and --dashboard."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpupipe.runtime.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from gpupipe.pipeline.options import Workers
    from gpupipe.runtime.device import Device


@dataclass(frozen=True)
class ClusterRequest:
    """Which processes train beside this one; none by default.

    workers: processes to start.  scheduler: the address of a Dask cluster.  dashboard: whether Dask's is served.

        >>> bool(ClusterRequest()), bool(ClusterRequest(workers=3))
        (False, True)
    """

    workers: int = 0
    scheduler: str | None = None
    dashboard: bool = False

    def __bool__(self) -> bool:
        return bool(self.workers or self.scheduler or self.dashboard)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser --workers and --scheduler."""
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="train in N processes; on CUDA a GPU each")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="train on this Dask cluster, as tcp://host:8786")


@contextlib.contextmanager
def connected(asked: ClusterRequest, jobs: int | None, device: Device, to: Console) -> Iterator[Workers | None]:
    """The workers that are asked for, shown to the user; None without any.  jobs: of --jobs."""
    if not asked:
        yield None
        return
    if asked.workers < 0:
        raise UserError(f"--workers {asked.workers}: expected 1 or more")
    if asked.scheduler and jobs is not None:
        raise UserError("--scheduler and --jobs: workers of a cluster have threads of their own; leave one out")
    from gpupipe.kernels.cores import available_cores
    from gpupipe.training.distributed.cluster import cluster

    with cluster(device, asked.scheduler, asked.workers, jobs or available_cores(), asked.dashboard) as workers:
        to.print(f"Cluster: {len(workers.addresses)} workers of {workers.threads} threads")
        if workers.dashboard:
            to.print(f"Dashboard: {workers.dashboard}")
        yield workers
