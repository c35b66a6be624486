"""Spread: a run on workers that each hold the rows of some groups, and fit the pooled stages together."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np

from gpupipe.data.panel import Panel
from gpupipe.dataset.dataset import Dataset
from gpupipe.estimators.contract import Estimator, Model
from gpupipe.training.cache_keys import GroupDigests
from gpupipe.training.distributed import sharded_worker, worker_run
from gpupipe.training.distributed.calls import POLL_S, LostError, results
from gpupipe.training.distributed.errors import ClusterError
from gpupipe.training.fold_data import FoldId, Stage, share_groups

log = logging.getLogger("gpupipe")

ATTEMPTS = 4  # of a call that fails because workers are lost
REPLACED_S = 120  # to wait for the replacement of a lost worker

_T = TypeVar("_T")


@dataclass(frozen=True)
class _Features:
    """The feature matrix of a group as an array; rows are fetched from their worker when they are indexed."""

    shape: tuple[int, int]
    fetch: Callable[[np.ndarray], Any]
    dtype: ClassVar = np.dtype(np.float32)

    def __getitem__(self, rows: Any) -> Any:
        return self.fetch(rows)

    def take(self, rows: Any, axis: int, out: Any, mode: str = "raise") -> Any:
        """As of an array, along its rows: xp.take calls it."""
        assert axis == 0, "only rows are fetched"
        out[...] = self.fetch(rows)
        return out


class _FeaturesOnCuda(_Features):
    """_Features whose fetched rows are on a CUDA device."""

    __cuda_array_interface__ = None


class Spread:
    """A sharded run on a cluster: a `WorkerPool` and its `ShardedRows`.

    Where a worker is lost during a common fit, another worker replaces it and gets the bars of its groups, and the fit
    starts again. Sums are added in the order of the workers' numbers, so a repeated fit gives the same bits.

        >>> from gpupipe.data import simulate
        >>> from gpupipe.runtime import memory
        >>> from gpupipe.workloads import equity
        >>> settings = equity.make("fast", training__spread=2)
        >>> job = worker_run.Job("ab12", equity.EQUITY.place, settings, "cpu", memory.AS_IT_IS, 2, 2, ())
        >>> panel = simulate(n_symbols=5, n_bars=5)  # a sector each
        >>> spread = Spread(None, ("tcp://a", "tcp://b"), panel, job)
        >>> spread.n_workers, [spread.worker_of(sector, 0) for sector in panel.groups]
        (2, [0, 1, 0, 1, 0])
    """

    def __init__(self, client: Any, addresses: Sequence[str], panel: Panel, job: worker_run.Job) -> None:
        n_wanted = job.settings.training.spread
        if len(addresses) < n_wanted:
            raise ClusterError(
                f"training.spread = {n_wanted}: the cluster has {len(addresses)} workers; start more, or lower --spread"
            )
        self._client, self._panel, self._job = client, panel, job
        self._groups = share_groups(_rows_of(panel), n_wanted)
        self._worker_of = {group: worker for worker, groups in enumerate(self._groups) for group in groups}
        self._addresses = list(addresses[: len(self._groups)])
        self._settled: dict[int, str] = {}  # by worker number: the address that has received its bars
        self._described: dict[str, Any] = {}
        self._prepared: dict[FoldId, dict[str, tuple[GroupDigests, dict[str, str]]]] = {}
        self._binned: set[FoldId] = set()
        self._open: list[FoldId] = []
        self._losses = 0
        self._lock = threading.RLock()
        self._together = threading.Lock()  # common calls run one at a time; two at once would deadlock

    @property
    def n_workers(self) -> int:
        """Number of workers that hold rows."""
        return len(self._groups)

    @property
    def sharded_rows(self) -> Spread:
        """This run itself."""
        return self

    def worker_of(self, group: str | None, worker: int) -> int | None:
        """The number of the worker that holds a group; None for a pooled stage, which all workers fit together."""
        return None if group is None else self._worker_of[group]

    def call(self, name: str, function: Callable[..., Any], arguments: Sequence[Any], worker: int) -> Any:
        """Not for workers that hold some of the rows each."""
        raise AssertionError(f"{name}: steps are not run on sharded rows")

    def dataset(self, group: str) -> tuple[Dataset, str, dict[str, float]]:
        """See `ShardedRows`."""
        described, features_hash, seconds = self._again(f"features of {group}", lambda: self._dataset(group))
        device = self._panel.device
        arrays = {
            name: device.asarray(value) if isinstance(value, np.ndarray) else value for name, value in described.items()
        }
        kind = _FeaturesOnCuda if device.kind == "cuda" else _Features
        X = kind((len(described["time_ns"]), len(described["names"])), lambda rows: self._features(group, rows))
        return Dataset(X=X, **arrays), features_hash, seconds

    def _dataset(self, group: str) -> Any:
        with self._lock:
            if group not in self._described:
                self._settle()
            return self._described[group]

    def _features(self, group: str, rows: Any) -> Any:
        device = self._panel.device
        at = device.to_host(rows)
        name = f"rows of {group}"
        return device.asarray(self._again(name, lambda: self._alone(group, sharded_worker.features, group, at)))

    def inputs(self, fold: FoldId) -> dict[str, tuple[GroupDigests, dict[str, str]]]:
        """See `ShardedRows`."""
        with self._lock:
            self._open.append(fold)

        def attempt() -> dict[str, tuple[GroupDigests, dict[str, str]]]:
            self._ready(fold, binned=False)
            return self._prepared[fold]

        return self._again(f"{fold.name}/prepare", attempt)

    def open(self, fold: FoldId, worker: int) -> None:
        """Nothing to do: `inputs` has prepared the fold."""

    def close(self, fold: FoldId) -> None:
        """Mark a fold as done; workers release it when they prepare the next fold."""
        with self._lock, contextlib.suppress(ValueError):
            self._open.remove(fold)

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
        assert estimator.earlier is None, "refused before"
        name = f"{fold.name}/{estimator.name}/{stage.group or 'pool'}"
        packed, choices = worker_run.pack(pooled), worker_run.pack(frozen_choices)
        if stage.group is None:

            def together() -> Any:
                return self._in_ring(fold, estimator.uses_bins, sharded_worker.fit_pool, estimator.name, stage, choices)

            (models, digest, warnings), *others = self._again(name, together)
            if any(other != digest for _, other, _ in others):
                raise ClusterError(
                    f"{name}: the workers fitted different pooled models together: use machines of one kind"
                )
        else:
            group = stage.group

            def on_its_worker() -> Any:
                self._ready(fold, estimator.uses_bins)
                return self._alone(group, sharded_worker.fit_group, fold, estimator.name, stage, packed, choices)

            models, warnings = self._again(name, on_its_worker)
        _show(warnings)
        return worker_run.unpack(models) or []

    def predict(
        self, fold: FoldId, name: str, group: str, part: str, models: Sequence[Model], worker: int
    ) -> np.ndarray:
        """See `WorkerPool`."""
        rest = (fold, name, group, part, worker_run.pack(models))
        prediction, warnings = self._again(
            f"{fold.name}/{name}/{group}/{part}", lambda: self._alone(group, sharded_worker.predict, *rest)
        )
        _show(warnings)
        return prediction

    def forget(self) -> dict[str, dict[str, Any]]:
        """Let workers release the run; returns `sharded_worker.forget` of each worker."""
        return self._client.run(sharded_worker.forget, self._job.key)

    def _ready(self, fold: FoldId, binned: bool) -> None:
        """Prepare a fold on its workers, if it is not prepared. binned: whether its bins are needed too."""
        if fold in self._prepared and (fold in self._binned or not binned):
            return
        with self._together:
            self._prepare(fold, binned)

    def _prepare(self, fold: FoldId, binned: bool) -> None:
        losses = self._losses
        if fold not in self._prepared:
            by_worker = self._call_ring(fold, sharded_worker.prepare, tuple(self._open))
            with self._lock:
                self._require_nothing_lost(losses)
                # In pooled order, whatever worker holds a group.
                self._prepared[fold] = {
                    group: inputs[group] for group in fold.groups for inputs in by_worker if group in inputs
                }
        if binned and fold not in self._binned:
            self._call_ring(fold, sharded_worker.make_bins)
            with self._lock:
                self._require_nothing_lost(losses)
                self._binned.add(fold)

    def _require_nothing_lost(self, losses: int) -> None:
        if losses != self._losses:
            raise LostError("workers were lost during the call")

    def _in_ring(self, fold: FoldId, binned: bool, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        with self._together:
            self._prepare(fold, binned)
            return self._call_ring(fold, function, *arguments)

    def _call_ring(self, fold: FoldId, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Call function(key, ring, fold, *arguments) at the same time on all workers that hold rows of a fold."""
        workers = sorted({self._worker_of[group] for group in fold.groups})
        first = self._addresses[workers[0]]
        if gone := {self._addresses[worker] for worker in workers} - self._there():
            raise LostError(f"{min(gone)} is lost")
        rings: list[sharded_worker.Ring | None] = [None]
        if len(workers) > 1:
            tracker = self._meet(first, len(workers))
            rings = [sharded_worker.Ring(rank, len(workers), tracker) for rank in range(len(workers))]
        calls = {
            worker: self._submit(worker, function, self._job.key, ring, fold, *arguments, priority=10)
            for worker, ring in zip(workers, rings, strict=True)
        }  # fmt: skip
        try:
            return self._results(calls)
        except BaseException:
            if rings[0] is not None:  # others may wait for a worker that was lost before it joined
                with contextlib.suppress(OSError, ValueError, KeyError, RuntimeError):
                    self._client.run(sharded_worker.part, int(rings[0].tracker["dmlc_tracker_port"]), workers=[first])
            raise

    def _meet(self, address: str, n_workers: int) -> dict[str, Any]:
        from distributed.comm import get_address_host

        try:
            return self._client.run(sharded_worker.meet, n_workers, get_address_host(address), workers=[address])[
                address
            ]
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise LostError(f"{address} does not answer ({error})") from None

    def _alone(self, group: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call function(key, *arguments) on the worker that holds a group."""
        worker = self._worker_of[group]
        (result,) = self._results({worker: self._submit(worker, function, self._job.key, *arguments)})
        return result

    def _submit(self, worker: int, function: Callable[..., Any], *arguments: Any, priority: int = 0) -> Any:
        return self._client.submit(
            function, *arguments, workers=[self._addresses[worker]], allow_other_workers=False, pure=False,
            priority=priority,
        )  # fmt: skip

    def _results(self, calls: Mapping[int, Any]) -> list[Any]:
        """See `calls.results`; calls: by worker number."""
        return results(self._client, [(self._addresses[worker], call) for worker, call in calls.items()], self._there)

    def _again(self, name: str, attempt: Callable[[], _T]) -> _T:
        """Call `attempt`; where workers are lost, replace them and call it again, up to ATTEMPTS times."""
        lost = ""
        for _ in range(ATTEMPTS):
            losses = self._losses
            try:
                return attempt()
            except LostError as error:
                lost = str(error)
            with contextlib.suppress(LostError):
                self._complete(losses)
        raise ClusterError(
            f"{name}: workers were lost in {ATTEMPTS} attempts ({' '.join(lost.split())[:300]}): look at "
            "their logs; where they ran out of memory, spread over more of them"
        )

    def _complete(self, losses: int) -> None:
        """Replace lost workers by others, which get their bars; prepared folds are prepared again."""
        with self._lock:
            if losses != self._losses:
                return  # another thread has replaced them
            self._losses += 1
            self._prepared.clear()
            self._binned.clear()
            until = time.monotonic() + REPLACED_S
            while missing := [k for k, address in enumerate(self._addresses) if address not in self._there()]:
                spare = sorted(self._there() - set(self._addresses))
                for worker, address in zip(missing, spare, strict=False):
                    log.warning(
                        "the worker at %s is lost: %s replaces it and gets its groups", self._addresses[worker],
                        address,
                    )  # fmt: skip
                    self._addresses[worker] = address
                if len(spare) < len(missing):
                    if time.monotonic() > until:
                        raise ClusterError(
                            f"the worker at {self._addresses[missing[0]]} is lost, and no worker has replaced it for "
                            f"{REPLACED_S} seconds: start another; the same command resumes the run"
                        )
                    time.sleep(POLL_S)
            self._settle()

    def _settle(self) -> None:
        """Send their bars to workers that have not received them."""
        workers = [worker for worker, address in enumerate(self._addresses) if self._settled.get(worker) != address]
        calls = {}
        for worker in workers:
            panel = self._panel.where([group in self._groups[worker] for group in self._panel.group])
            # In a list, because Dask turns a dictionary into a future for each key.
            (bars,) = self._client.scatter([worker_run.rows_of(panel)], workers=[self._addresses[worker]], hash=False)
            calls[worker] = self._submit(worker, sharded_worker.settle, bars, self._job)
        for worker, described in zip(workers, self._results(calls), strict=True):
            self._settled[worker] = self._addresses[worker]
            self._described.update(described)

    def _there(self) -> set[str]:
        """Addresses of the workers that the scheduler has now."""
        return set(self._client.scheduler_info(n_workers=-1)["workers"])


def _rows_of(panel: Panel) -> dict[str, int]:
    lengths = np.diff(panel.device.to_host(panel.offsets))
    return {
        group: int(sum(n for n, symbol_group in zip(lengths, panel.group, strict=True) if symbol_group == group))
        for group in panel.groups
    }  # fmt: skip


def _show(warnings: Sequence[str]) -> None:
    for text in warnings:
        log.warning("%s", text)
