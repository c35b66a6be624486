"""Spread: one run on workers that each hold the rows of some sectors only, and fit the pooled stages together."""

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
from gpupipe.estimators import registry
from gpupipe.estimators.earlier import Earlier
from gpupipe.training.cache_keys import Held
from gpupipe.training.distributed import holding, site
from gpupipe.training.distributed.errors import ClusterError
from gpupipe.training.fold_data import Which, shares

log = logging.getLogger("gpupipe")

ATTEMPTS = 4  # at one thing, each after workers were lost while it was done
POLL_S = 0.5  # how often it is looked whether workers that are waited for are still there
REPLACED_S = 120  # how long another worker is waited for where one is gone

_T = TypeVar("_T")


class _LostError(Exception):
    """A worker was lost, or had lost what it held, while something was done there."""


@dataclass(frozen=True)
class _Features:
    """The feature matrix of a sector, whose rows are fetched from the worker that holds them: as an array."""

    shape: tuple[int, int]
    fetch: Callable[[np.ndarray], Any]
    dtype: ClassVar = np.dtype(np.float32)

    def __getitem__(self, rows: Any) -> Any:
        return self.fetch(rows)


class _FeaturesOnCuda(_Features):
    """As of a CUDA device, where the rows that are fetched are put."""

    __cuda_array_interface__ = None


class Spread:
    """One run on the cluster: as `fitting.Elsewhere` and `fitting.Holders`.

    What is fitted together is done again, from its beginning, where a worker is lost: once another has taken its
    place and has its sectors' bars. Sums are taken in the order of the workers' places, so the bits are the same.
    """

    def __init__(self, client: Any, addresses: Sequence[str], panel: Panel, job: site.Job) -> None:
        n_wanted = job.settings.training.spread
        if len(addresses) < n_wanted:
            raise ClusterError(
                f"training.spread = {n_wanted}: the cluster has {len(addresses)} workers; start more, or spread over "
                "as many as there are"
            )
        self._client, self._panel, self._job = client, panel, job
        self._sectors = shares(_rows_of(panel), n_wanted)
        self._home = {sector: home for home, own in enumerate(self._sectors) for sector in own}
        self._addresses = list(addresses[: len(self._sectors)])
        self._settled: dict[int, str] = {}  # of each home, the address that has its bars
        self._told: dict[str, Any] = {}
        self._prepared: dict[Which, dict[str, tuple[Held, dict[str, str]]]] = {}
        self._binned: set[Which] = set()
        self._open: list[Which] = []
        self._losses = 0
        self._lock = threading.RLock()
        self._together = threading.Lock()  # several workers do one thing at a time, or they would wait crosswise

    @property
    def homes(self) -> int:
        """How many workers hold rows."""
        return len(self._sectors)

    @property
    def holders(self) -> Spread:
        """As of `fitting.Elsewhere`."""
        return self

    def home_of(self, sector: str | None, home: int) -> int | None:
        """The worker that holds a sector; None where all of them work together."""
        return None if sector is None else self._home[sector]

    def dataset(self, sector: str) -> tuple[Dataset, str, dict[str, float]]:
        """As `fitting.Holders`."""
        told, features_hash, seconds = self._again(f"features of {sector}", lambda: self._dataset(sector))
        device = self._panel.device
        arrays = {name: device.asarray(one) if isinstance(one, np.ndarray) else one for name, one in told.items()}
        kind = _FeaturesOnCuda if device.kind == "cuda" else _Features
        X = kind((len(told["time_ns"]), len(told["names"])), lambda rows: self._features(sector, rows))
        return Dataset(X=X, **arrays), features_hash, seconds

    def _dataset(self, sector: str) -> Any:
        with self._lock:
            if sector not in self._told:
                self._settle()
            return self._told[sector]

    def _features(self, sector: str, rows: Any) -> Any:
        device = self._panel.device
        at = device.to_host(rows)
        name = f"rows of {sector}"
        return device.asarray(self._again(name, lambda: self._alone(sector, holding.features, sector, at)))

    def inputs(self, which: Which) -> dict[str, tuple[Held, dict[str, str]]]:
        """As `fitting.Holders`."""
        with self._lock:
            self._open.append(which)

        def attempt() -> dict[str, tuple[Held, dict[str, str]]]:
            self._ready(which, binned=False)
            return self._prepared[which]

        return self._again(f"{which.name}/prepare", attempt)

    def open(self, which: Which, home: int) -> None:
        """Nothing more is to be done than `inputs` does."""

    def close(self, which: Which) -> None:
        """A round is done; workers let go of it when the next one is prepared."""
        with self._lock, contextlib.suppress(ValueError):
            self._open.remove(which)

    def fit(
        self, which: Which, family: str, sector: str | None, labels: Sequence[int], pooled: Sequence[Any] | None,
        like: Sequence[Any] | None, earlier: Earlier | None, home: int,
    ) -> list[Any]:  # fmt: skip
        """As `fitting.Elsewhere`."""
        assert earlier is None, "refused before"
        binned, name = family in registry.BY_BINS, f"{which.name}/{family}/{sector or 'pool'}"
        if sector is None:

            def together() -> Any:
                return self._in_ring(which, binned, holding.fit_pool, family, list(labels), site.pack(like))

            (made, digest, warnings), *others = self._again(name, together)
            if any(other != digest for _, other, _ in others):
                raise ClusterError(
                    f"{name}: the workers do not agree on what they have fitted together: use machines of one kind"
                )
        else:
            rest = (which, family, sector, list(labels), site.pack(pooled), site.pack(like))

            def there() -> Any:
                self._ready(which, binned)
                return self._alone(sector, holding.fit_sector, *rest)

            made, warnings = self._again(name, there)
        _show(warnings)
        return site.unpack(made) or []

    def say(self, which: Which, family: str, sector: str, part: str, fitted: Sequence[Any], home: int) -> np.ndarray:
        """As `fitting.Elsewhere`."""
        rest = (which, family, sector, part, site.pack(fitted))
        name = f"{which.name}/{family}/{sector}/{part}"
        said, warnings = self._again(name, lambda: self._alone(sector, holding.say, *rest))
        _show(warnings)
        return said

    def forget(self) -> dict[str, dict[str, Any]]:
        """Let workers go of all of it; what each held, as `holding.forget`."""
        return self._client.run(holding.forget, self._job.key)

    def _ready(self, which: Which, binned: bool) -> None:
        """See to it that the workers of a round have gathered its rows, and have its bins where they are needed."""
        if which in self._prepared and (which in self._binned or not binned):
            return
        with self._together:
            self._prepare(which, binned)

    def _prepare(self, which: Which, binned: bool) -> None:
        losses = self._losses
        if which not in self._prepared:
            found = self._call_ring(which, holding.prepare, tuple(self._open))
            with self._lock:
                self._require_nothing_lost(losses)
                # In pooled order, whoever holds a sector.
                self._prepared[which] = {s: own[s] for s in which.sectors for own in found if s in own}
        if binned and which not in self._binned:
            self._call_ring(which, holding.make_bins)
            with self._lock:
                self._require_nothing_lost(losses)
                self._binned.add(which)

    def _require_nothing_lost(self, losses: int) -> None:
        if losses != self._losses:
            raise _LostError("workers were lost meanwhile")

    def _in_ring(self, which: Which, binned: bool, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        with self._together:
            self._prepare(which, binned)
            return self._call_ring(which, function, *arguments)

    def _call_ring(self, which: Which, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Call function(key, ring, which, *arguments) on all workers that hold rows of a round, at the same time."""
        homes = sorted({self._home[sector] for sector in which.sectors})
        first = self._addresses[homes[0]]
        if gone := {self._addresses[home] for home in homes} - self._there():
            raise _LostError(f"{min(gone)} is gone")
        rings: list[holding.Ring | None] = [None]
        if len(homes) > 1:
            tracker = self._meet(first, len(homes))
            rings = [holding.Ring(rank, len(homes), tracker) for rank in range(len(homes))]
        calls = {
            home: self._submit(home, function, self._job.key, ring, which, *arguments, priority=10)
            for home, ring in zip(homes, rings, strict=True)
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

    def _alone(self, sector: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call function(key, *arguments) on the worker that holds a sector."""
        home = self._home[sector]
        (made,) = self._results({home: self._submit(home, function, self._job.key, *arguments)})
        return made

    def _submit(self, home: int, function: Callable[..., Any], *arguments: Any, priority: int = 0) -> Any:
        return self._client.submit(
            function, *arguments, workers=[self._addresses[home]], allow_other_workers=False, pure=False,
            priority=priority,
        )  # fmt: skip

    def _results(self, calls: Mapping[int, Any]) -> list[Any]:
        """What the calls give, in the order of the homes; the error that is nobody else's fault, if there is one."""
        from distributed import wait

        asked = {home: self._addresses[home] for home in calls}
        try:
            while waiting := {home: call for home, call in calls.items() if not call.done()}:
                try:
                    with self._client.as_current():
                        wait(list(waiting.values()), timeout=POLL_S, return_when="FIRST_COMPLETED")
                except TimeoutError:
                    there = self._there()
                    gone = [asked[home] for home, call in waiting.items() if asked[home] not in there]
                    if gone:
                        raise _LostError(f"{gone[0]} is gone") from None
            errors = [_error_of(call) for call in calls.values()]
            for error in sorted(filter(None, errors), key=lambda one: isinstance(one, _LostError)):
                raise error
            return [self._fetched(call, asked[home]) for home, call in calls.items()]
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
                for home, address in zip(missing, spare, strict=False):
                    log.warning(
                        "the worker at %s is gone: %s takes its place and gets its sectors", self._addresses[home],
                        address,
                    )  # fmt: skip
                    self._addresses[home] = address
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
        homes = [home for home, address in enumerate(self._addresses) if self._settled.get(home) != address]
        calls = {}
        for home in homes:
            own = self._panel.where([sector in self._sectors[home] for sector in self._panel.sector])
            # In a list, as of a dictionary Dask would make one future a column, known by its name alone.
            (bars,) = self._client.scatter([site.bars_of(own)], workers=[self._addresses[home]], hash=False)
            calls[home] = self._submit(home, holding.settle, bars, self._job)
        for home, told in zip(homes, self._results(calls), strict=True):
            self._settled[home] = self._addresses[home]
            self._told.update(told)

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
        s: int(sum(n for n, own in zip(lengths, panel.sector, strict=True) if own == s)) for s in panel.sectors
    }  # fmt: skip


def _show(warnings: Sequence[str]) -> None:
    for text in warnings:
        log.warning("%s", text)
