"""Spread: one run on workers that each hold the rows of some groups only, and fit the pooled stages together."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np

from gpupipe.data.panel import Panel
from gpupipe.dataset.dataset import Dataset
from gpupipe.estimators.contract import Estimator
from gpupipe.training.cache_keys import GroupDigests
from gpupipe.training.distributed import holding, site
from gpupipe.training.distributed.errors import ClusterError
from gpupipe.training.fold_data import FoldId, Stage, share_groups

log = logging.getLogger("gpupipe")

ATTEMPTS = 4  # at one thing, each after workers were lost while it was done
POLL_S = 0.5  # how often it is looked whether workers that are waited for are still there
REPLACED_S = 120  # how long another worker is waited for where one is gone

_T = TypeVar("_T")


class _LostError(Exception):
    """A worker was lost, or had lost what it held, while something was done there."""


@dataclass(frozen=True)
class _Features:
    """The feature matrix of a group, whose rows are fetched from the worker that holds them: as an array."""

    shape: tuple[int, int]
    fetch: Callable[[np.ndarray], Any]
    dtype: ClassVar = np.dtype(np.float32)

    def __getitem__(self, rows: Any) -> Any:
        return self.fetch(rows)


class _FeaturesOnCuda(_Features):
    """The same on a CUDA device, where the fetched rows are put."""

    __cuda_array_interface__ = None


class Spread:
    """One run on the cluster: a `WorkerPool` and its `ShardedRows`.

    What is fitted together is done again, from its beginning, where a worker is lost: once another has taken its
    place and has its groups' bars. Sums are taken in the order of the workers' places, so the bits are the same.
    """

    def __init__(self, client: Any, addresses: Sequence[str], panel: Panel, job: site.Job) -> None:
        n_wanted = job.settings.training.spread
        if len(addresses) < n_wanted:
            raise ClusterError(
                f"training.spread = {n_wanted}: the cluster has {len(addresses)} workers; start more, or spread over "
                "as many as there are"
            )
        self._client, self._panel, self._job = client, panel, job
        self._groups = share_groups(_rows_of(panel), n_wanted)
        self._worker_of = {group: worker for worker, own in enumerate(self._groups) for group in own}
        self._addresses = list(addresses[: len(self._groups)])
        self._settled: dict[int, str] = {}  # of each worker, the address that has its bars
        self._described: dict[str, Any] = {}
        self._prepared: dict[FoldId, dict[str, tuple[GroupDigests, dict[str, str]]]] = {}
        self._binned: set[FoldId] = set()
        self._open: list[FoldId] = []
        self._losses = 0
        self._lock = threading.RLock()
        self._together = threading.Lock()  # several workers do one thing at a time, or they would wait crosswise

    @property
    def n_workers(self) -> int:
        """How many workers hold rows."""
        return len(self._groups)

    @property
    def sharded_rows(self) -> Spread:
        """See `WorkerPool`."""
        return self

    def worker_of(self, group: str | None, worker: int) -> int | None:
        """The worker that holds a group; None where all of them work together."""
        return None if group is None else self._worker_of[group]

    def dataset(self, group: str) -> tuple[Dataset, str, dict[str, float]]:
        """See `ShardedRows`."""
        described, features_hash, seconds = self._again(f"features of {group}", lambda: self._dataset(group))
        device = self._panel.device
        arrays = {name: device.asarray(one) if isinstance(one, np.ndarray) else one for name, one in described.items()}
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
        return device.asarray(self._again(name, lambda: self._alone(group, holding.features, group, at)))

    def inputs(self, fold: FoldId) -> dict[str, tuple[GroupDigests, dict[str, str]]]:
        """See `ShardedRows`."""
        with self._lock:
            self._open.append(fold)

        def attempt() -> dict[str, tuple[GroupDigests, dict[str, str]]]:
            self._ready(fold, binned=False)
            return self._prepared[fold]

        return self._again(f"{fold.name}/prepare", attempt)

    def open(self, fold: FoldId, worker: int) -> None:
        """Nothing in addition to what `inputs` does."""

    def close(self, fold: FoldId) -> None:
        """A fold is done; workers release it when the next one is prepared."""
        with self._lock, contextlib.suppress(ValueError):
            self._open.remove(fold)

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
        assert estimator.earlier is None, "refused before"
        name = f"{fold.name}/{estimator.name}/{stage.group or 'pool'}"
        packed, choices = site.pack(pooled), site.pack(frozen_choices)
        if stage.group is None:

            def together() -> Any:
                return self._in_ring(fold, estimator.uses_bins, holding.fit_pool, estimator.name, stage, choices)

            (models, digest, warnings), *others = self._again(name, together)
            if any(other != digest for _, other, _ in others):
                raise ClusterError(
                    f"{name}: the workers do not agree on what they have fitted together: use machines of one kind"
                )
        else:
            group = stage.group

            def on_its_worker() -> Any:
                self._ready(fold, estimator.uses_bins)
                return self._alone(group, holding.fit_group, fold, estimator.name, stage, packed, choices)

            models, warnings = self._again(name, on_its_worker)
        _show(warnings)
        return site.unpack(models) or []

    def predict(self, fold: FoldId, name: str, group: str, part: str, models: Sequence[Any], worker: int) -> np.ndarray:
        """See `WorkerPool`."""
        rest = (fold, name, group, part, site.pack(models))
        prediction, warnings = self._again(
            f"{fold.name}/{name}/{group}/{part}", lambda: self._alone(group, holding.predict, *rest)
        )
        _show(warnings)
        return prediction

    def forget(self) -> dict[str, dict[str, Any]]:
        """Let workers go of all of it; what each held, as `holding.forget`."""
        return self._client.run(holding.forget, self._job.key)

    def _ready(self, fold: FoldId, binned: bool) -> None:
        """See to it that the workers of a round have gathered its rows, and have its bins where they are needed."""
        if fold in self._prepared and (fold in self._binned or not binned):
            return
        with self._together:
            self._prepare(fold, binned)

    def _prepare(self, fold: FoldId, binned: bool) -> None:
        losses = self._losses
        if fold not in self._prepared:
            found = self._call_ring(fold, holding.prepare, tuple(self._open))
            with self._lock:
                self._require_nothing_lost(losses)
                # In pooled order, whoever holds a group.
                self._prepared[fold] = {s: own[s] for s in fold.groups for own in found if s in own}
        if binned and fold not in self._binned:
            self._call_ring(fold, holding.make_bins)
            with self._lock:
                self._require_nothing_lost(losses)
                self._binned.add(fold)

    def _require_nothing_lost(self, losses: int) -> None:
        if losses != self._losses:
            raise _LostError("workers were lost meanwhile")

    def _in_ring(self, fold: FoldId, binned: bool, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        with self._together:
            self._prepare(fold, binned)
            return self._call_ring(fold, function, *arguments)

    def _call_ring(self, fold: FoldId, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Call function(key, ring, fold, *arguments) on all workers that hold rows of a round, at the same time."""
        workers = sorted({self._worker_of[group] for group in fold.groups})
        first = self._addresses[workers[0]]
        if gone := {self._addresses[worker] for worker in workers} - self._there():
            raise _LostError(f"{min(gone)} is gone")
        rings: list[holding.Ring | None] = [None]
        if len(workers) > 1:
            tracker = self._meet(first, len(workers))
            rings = [holding.Ring(rank, len(workers), tracker) for rank in range(len(workers))]
        calls = {
            worker: self._submit(worker, function, self._job.key, ring, fold, *arguments, priority=10)
            for worker, ring in zip(workers, rings, strict=True)
        }  # fmt: skip
        try:
            return self._results(calls)
        except BaseException:
            if rings[0] is not None:  # others may wait for one that is gone before it has joined them
                with contextlib.suppress(OSError, ValueError, KeyError, RuntimeError):
                    self._client.run(holding.part, int(rings[0].tracker["dmlc_tracker_port"]), workers=[first])
            raise

    def _meet(self, address: str, n_workers: int) -> dict[str, Any]:
        from distributed.comm import get_address_host

        try:
            return self._client.run(holding.meet, n_workers, get_address_host(address), workers=[address])[address]
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise _LostError(f"{address} does not answer ({error})") from None

    def _alone(self, group: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call function(key, *arguments) on the worker that holds a group."""
        worker = self._worker_of[group]
        (made,) = self._results({worker: self._submit(worker, function, self._job.key, *arguments)})
        return made

    def _submit(self, worker: int, function: Callable[..., Any], *arguments: Any, priority: int = 0) -> Any:
        return self._client.submit(
            function, *arguments, workers=[self._addresses[worker]], allow_other_workers=False, pure=False,
            priority=priority,
        )  # fmt: skip

    def _results(self, calls: Mapping[int, Any]) -> list[Any]:
        """What the calls give, in the order of the workers; the error that is nobody else's fault, if there is one."""
        from distributed import wait

        asked = {worker: self._addresses[worker] for worker in calls}
        try:
            while waiting := {worker: call for worker, call in calls.items() if not call.done()}:
                try:
                    with self._client.as_current():
                        wait(list(waiting.values()), timeout=POLL_S, return_when="FIRST_COMPLETED")
                except TimeoutError:
                    there = self._there()
                    gone = [asked[worker] for worker, call in waiting.items() if asked[worker] not in there]
                    if gone:
                        raise _LostError(f"{gone[0]} is gone") from None
            errors = [_error_of(call) for call in calls.values()]
            for error in sorted(filter(None, errors), key=lambda one: isinstance(one, _LostError)):
                raise error
            return [self._fetched(call, asked[worker]) for worker, call in calls.items()]
        finally:
            for call in calls.values():
                call.cancel()

    def _fetched(self, call: Any, address: str) -> Any:
        """The result of a call that is done; _LostError where its worker went before it was fetched.

        Dask would wait for that very worker to make it again. Each time it waits twice as long, as a fetch that is
        given up begins anew.
        """
        seconds = POLL_S
        while True:
            try:
                return call.result(timeout=seconds)
            except TimeoutError:
                if address not in self._there():
                    raise _LostError(f"{address} is gone") from None
                seconds *= 2
            except CancelledError:
                raise _LostError(f"what {address} made is gone") from None
            except Exception as error:  # of making it again
                raise _error_of(call) or error from None

    def _again(self, name: str, attempt: Callable[[], _T]) -> _T:
        """Do it; again, once the workers are complete, where some are lost meanwhile."""
        lost = ""
        for _ in range(ATTEMPTS):
            losses = self._losses
            try:
                return attempt()
            except _LostError as error:
                lost = str(error)
            with contextlib.suppress(_LostError):
                self._complete(losses)
        raise ClusterError(
            f"{name}: workers were lost {ATTEMPTS} times while it was done ({' '.join(lost.split())[:300]}): look at "
            "their logs; where they ran out of memory, spread over more of them"
        )

    def _complete(self, losses: int) -> None:
        """Give the place and the bars of workers that are gone to others; nothing that was gathered is relied on."""
        with self._lock:
            if losses != self._losses:
                return  # another thread has seen to it
            self._losses += 1
            self._prepared.clear()
            self._binned.clear()
            until = time.monotonic() + REPLACED_S
            while missing := [k for k, one in enumerate(self._addresses) if one not in self._there()]:
                spare = sorted(self._there() - set(self._addresses))
                for worker, address in zip(missing, spare, strict=False):
                    log.warning(
                        "the worker at %s is gone: %s takes its place and gets its groups", self._addresses[worker],
                        address,
                    )  # fmt: skip
                    self._addresses[worker] = address
                if len(spare) < len(missing):
                    if time.monotonic() > until:
                        raise ClusterError(
                            f"the worker at {self._addresses[missing[0]]} is gone, and none has come in its place for "
                            f"{REPLACED_S} seconds: start another; the same command goes on where this one was"
                        )
                    time.sleep(POLL_S)
            self._settle()

    def _settle(self) -> None:
        """Send their bars to workers that have not got them."""
        workers = [worker for worker, address in enumerate(self._addresses) if self._settled.get(worker) != address]
        calls = {}
        for worker in workers:
            own = self._panel.where([group in self._groups[worker] for group in self._panel.group])
            # In a list, as of a dictionary Dask would make one future a column, known by its name alone.
            (bars,) = self._client.scatter([site.rows_of(own)], workers=[self._addresses[worker]], hash=False)
            calls[worker] = self._submit(worker, holding.settle, bars, self._job)
        for worker, told in zip(workers, self._results(calls), strict=True):
            self._settled[worker] = self._addresses[worker]
            self._described.update(told)

    def _there(self) -> set[str]:
        """Addresses of the workers that the scheduler has now."""
        return set(self._client.scheduler_info(n_workers=-1)["workers"])


def _error_of(call: Any) -> BaseException | None:
    """What went wrong with a call that has ended; _LostError where this or another worker was lost."""
    from distributed import KilledWorker
    from distributed.comm import CommClosedError
    from xgboost.core import XGBoostError

    if call.status == "finished":
        return None
    if call.status != "error":
        return _LostError(f"{call.key} is {call.status}")
    error = call.exception()
    # XGBoost says of a peer that is gone what it says of its own mistakes.
    lost = isinstance(error, (KilledWorker, CommClosedError, XGBoostError, holding.NotHeldError))
    return _LostError(f"{type(error).__name__}: {error}") if lost else error


def _rows_of(panel: Panel) -> dict[str, int]:
    lengths = np.diff(panel.device.to_host(panel.offsets))
    return {
        s: int(sum(n for n, own in zip(lengths, panel.group, strict=True) if own == s)) for s in panel.groups
    }  # fmt: skip


def _show(warnings: Sequence[str]) -> None:
    for text in warnings:
        log.warning("%s", text)
