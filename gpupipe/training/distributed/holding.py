"""Holding: what a worker does of a run whose rows are spread, so that it holds those of some sectors and no others."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.dataset.dataset import Dataset
from gpupipe.estimators import registry
from gpupipe.estimators.training_set import Fold, alone
from gpupipe.runtime import device
from gpupipe.store.content_store import dump_json, sha256
from gpupipe.training import fold_data
from gpupipe.training.cache_keys import Held
from gpupipe.training.distributed.site import Bars, Job, Packed, Site, logged_warnings, one_blas_thread, pack, unpack
from gpupipe.training.fold_data import Which

# A peer that is gone ends what was asked of it at once; one that is slow, or still at a sector's stage, is waited for.
PEER_S = 6 * 3600


class NotHeldError(Exception):
    """This worker does not hold what it is asked about: it has taken the place of one that is gone."""


@dataclass(frozen=True)
class Ring:
    """The workers that do one thing together. rank: this one's number, of `size`.  tracker: where they meet."""

    rank: int
    size: int
    tracker: dict[str, Any]


class Holding:
    """The rows of some sectors, and what was made of them. folds: of the rounds that are open, by the whole round."""

    def __init__(self, bars: Bars, job: Job) -> None:
        self.job, self.site = job, Site(bars, job)
        self.site.keep_all_sectors()
        self.folds: dict[Which, Fold] = {}

    @property
    def sectors(self) -> tuple[str, ...]:
        """Whose rows it holds."""
        return self.site.sectors

    def own(self, which: Which) -> Which:
        """The part of a round that is held here."""
        return dataclasses.replace(which, sectors=tuple(s for s in which.sectors if s in self.sectors))


_held: dict[str, Holding] = {}
_trackers: dict[int, Any] = {}


def _holding(key: str) -> Holding:
    try:
        return _held[key]
    except KeyError:
        raise NotHeldError("it holds nothing of this run") from None


def settle(bars: Bars, job: Job) -> dict[str, tuple[dict[str, Any], str, dict[str, float]]]:
    """Take the bars of some sectors and compute their features; of each sector all but X, as `preparing.dataset_of`."""
    with one_blas_thread():
        held = _held[job.key] = Holding(bars, job)
        return {sector: _told(held, *held.site.dataset_of(sector)) for sector in held.sectors}


def _told(held: Holding, dataset: Dataset, features: str, seconds: dict[str, float]) -> Any:
    columns = {field.name: getattr(dataset, field.name) for field in dataclasses.fields(dataset) if field.name != "X"}
    to_host = held.site.device.to_host
    told = {name: to_host(column) if hasattr(column, "dtype") else column for name, column in columns.items()}
    return told, features, seconds


def meet(n_workers: int, host: str) -> dict[str, Any]:
    """Begin a tracker, where workers find each other; what they need to know of it."""
    from xgboost.tracker import RabitTracker

    tracker = RabitTracker(n_workers, host, sortby="task")
    tracker.start()
    known = tracker.worker_args()
    port = int(known["dmlc_tracker_port"])
    _trackers[port] = tracker

    def wait() -> None:
        with contextlib.suppress(Exception):  # where a worker is lost, its peers say so
            tracker.wait_for()
        _trackers.pop(port, None)

    threading.Thread(target=wait, daemon=True).start()
    return known


def part(port: int) -> None:
    """End a tracker: workers that wait there for one that will not come get an error."""

    def free(tracker: Any) -> None:
        with contextlib.suppress(Exception):  # it complains that it was stopped
            tracker.free()

    if (tracker := _trackers.pop(port, None)) is not None:
        threading.Thread(target=free, args=(tracker,), daemon=True).start()


@contextlib.contextmanager
def _joined(ring: Ring | None) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    """Be one of a ring in this thread; gives the sum over all of them. XGBoostError where another is lost."""
    if ring is None:
        yield alone
        return
    from xgboost import collective, core

    # Of this thread, as of the one that imported XGBoost: what it tells of ranks is no news, and is printed nowhere.
    core._LIB.XGBRegisterLogCallback(core._LIB.callback)
    known = dict(ring.tracker, dmlc_task_id=f"{ring.rank:06d}", dmlc_timeout=PEER_S, dmlc_retry=1)
    communicator = collective.CommunicatorContext(**known)
    with contextlib.redirect_stdout(io.StringIO()):
        communicator.__enter__()
    try:
        yield _total
    finally:
        communicator.__exit__()


def _total(numbers: np.ndarray) -> np.ndarray:
    """The sum over the workers of a ring, in their order whatever way it takes: the same bits everywhere."""
    from xgboost import collective

    assert collective.is_distributed(), "only what all workers do together sums over them"
    places = np.zeros((collective.get_world_size(), *numbers.shape), numbers.dtype)
    places[collective.get_rank()] = numbers
    return collective.allreduce(places, collective.Op.SUM).reshape(places.shape).sum(axis=0)


def prepare(key: str, ring: Ring | None, which: Which, keep: Sequence[Which]) -> dict[str, tuple[Held, dict[str, str]]]:
    """Gather the rows of a round that are held here; of each sector as `fitting.Holders.inputs`.

    keep: rounds that are open; all others go.
    """
    held = _holding(key)
    for one in set(held.folds) - set(keep):
        del held.folds[one]
    own = held.own(which)
    data = held.site.data(own)
    with one_blas_thread(), _joined(ring) as total:
        fold = fold_data.make_fold(data, own, total, which.sectors)
    held.folds[which] = fold
    return {s: (Held.of(fold, s), fold_data.digests_of_predicted(data, own, s)) for s in own.sectors}


def make_bins(key: str, ring: Ring | None, which: Which) -> None:
    """Make the bins that families of trees share."""
    held = _holding(key)
    with one_blas_thread(), _joined(ring):
        names = [name for name in held.job.settings.training.models if name in registry.BY_BINS]
        registry.prepare(names, _fold(held, which), held.job.settings)


def fit_pool(
    key: str, ring: Ring | None, which: Which, family: str, labels: Sequence[int], like: list[Packed | None] | None
) -> tuple[list[Packed | None] | None, str, list[str]]:  # fmt: skip
    """A family's pooled models, as they travel, of the ring's first; a digest of them, and warnings."""
    held = _holding(key)
    with one_blas_thread(), logged_warnings() as said, _joined(ring):
        made = pack(fold_data.fit(
            registry.family(family), _fold(held, which), None, labels, held.job.settings, None, unpack(like)
        ))  # fmt: skip
    digest = sha256(dump_json([
        one and [one[0], {name: sha256(content) for name, content in one[1].items()}] for one in made
    ]))  # fmt: skip
    first = ring is None or ring.rank == 0
    return (made, digest, said) if first else (None, digest, [])


def fit_sector(
    key: str, which: Which, family: str, sector: str, labels: Sequence[int], pooled: list[Packed | None],
    like: list[Packed | None] | None,
) -> tuple[list[Packed | None], list[str]]:  # fmt: skip
    """As `folding.fit`, of a sector that is held here, of models that travel; and warnings."""
    held = _holding(key)
    with one_blas_thread(), logged_warnings() as said:
        made = fold_data.fit(
            registry.family(family), _fold(held, which), sector, labels, held.job.settings, unpack(pooled), unpack(like)
        )  # fmt: skip
        return pack(made), said


def say(
    key: str, which: Which, family: str, sector: str, part: str, fitted: list[Packed | None]
) -> tuple[np.ndarray, list[str]]:
    """As `folding.say`, of a sector that is held here; and warnings."""
    held, found = _holding(key), unpack(fitted)
    assert found is not None
    with one_blas_thread(), logged_warnings() as said:
        data = held.site.data(held.own(which))
        return fold_data.say(registry.family(family), data, which, sector, part, found), said


def features(key: str, sector: str, rows: np.ndarray) -> np.ndarray:
    """The feature matrix's rows with these numbers, float32 (n_rows, n_features)."""
    held = _holding(key)
    X = held.site.dataset_of(sector)[0].X
    return held.site.device.to_host(X[held.site.device.asarray(rows)])


def forget(key: str) -> dict[str, Any]:
    """Let go of a run; as `site.forget`, and how many rows were held of which sectors."""
    held = _held.pop(key, None)
    rows = {s: held.site.dataset_of(s)[0].n_rows for s in held.sectors} if held else {}
    crossed = held.site.device.ledger.as_dict() if held else {}
    return {"peak_bytes": device.host_peak_bytes(), "bus_bytes": crossed, "rows": rows, "process": os.getpid()}


def _fold(held: Holding, which: Which) -> Fold:
    if which not in held.folds:
        raise NotHeldError("it has not the rows of this round")
    return held.folds[which]
