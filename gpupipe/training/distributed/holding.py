"""Holding: what a worker does of a run whose rows are spread, so that it holds those of some groups and no others."""

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
from gpupipe.estimators import columns, registry
from gpupipe.estimators.training_set import TrainingSet, this_process_only
from gpupipe.runtime import device
from gpupipe.store.content_store import dump_json, sha256
from gpupipe.training import fold_data
from gpupipe.training.cache_keys import GroupDigests
from gpupipe.training.distributed.site import Job, Packed, Rows, Site, logged_warnings, one_blas_thread, pack, unpack
from gpupipe.training.fold_data import FoldId, Stage

# A peer that is gone ends what was asked of it at once; one that is slow, or still at a group's stage, is waited for.
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
    """The rows of some groups, and what was made of them. folds: of the rounds that are open, by the whole round."""

    def __init__(self, rows: Rows, job: Job) -> None:
        self.job, self.site = job, Site(rows, job)
        self.site.keep_all_groups()
        self.training_sets: dict[FoldId, TrainingSet] = {}

    @property
    def groups(self) -> tuple[str, ...]:
        """Whose rows it holds."""
        return self.site.groups

    def own(self, fold: FoldId) -> FoldId:
        """The part of a round that is held here."""
        return dataclasses.replace(fold, groups=tuple(g for g in fold.groups if g in self.groups))


_held: dict[str, Holding] = {}
_trackers: dict[int, Any] = {}


def _holding(key: str) -> Holding:
    try:
        return _held[key]
    except KeyError:
        raise NotHeldError("it holds nothing of this run") from None


def settle(rows: Rows, job: Job) -> dict[str, tuple[dict[str, Any], str, dict[str, float]]]:
    """Take the bars of some groups and compute their features; of each group all but X, as `preparing.dataset_of`."""
    with one_blas_thread():
        held = _held[job.key] = Holding(rows, job)
        return {group: _without_features(held, *held.site.dataset_of(group)) for group in held.groups}


def _without_features(held: Holding, dataset: Dataset, features: str, seconds: dict[str, float]) -> Any:
    columns = {field.name: getattr(dataset, field.name) for field in dataclasses.fields(dataset) if field.name != "X"}
    to_host = held.site.device.to_host
    described = {name: to_host(column) if hasattr(column, "dtype") else column for name, column in columns.items()}
    return described, features, seconds


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
        yield this_process_only
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


def prepare(
    key: str, ring: Ring | None, fold: FoldId, keep: Sequence[FoldId]
) -> dict[str, tuple[GroupDigests, dict[str, str]]]:
    """Gather the rows of a fold that are held here; for each group see `ShardedRows.inputs`.

    keep: folds that are open; all others are released.
    """
    held = _holding(key)
    for closed in set(held.training_sets) - set(keep):
        del held.training_sets[closed]
    own = held.own(fold)
    data = held.site.data(own)
    with one_blas_thread(), _joined(ring) as total:
        training_set = fold_data.make_training_set(data, own, total, fold.groups)
    held.training_sets[fold] = training_set
    lookback = max(item.lookback_rows for item in registry.estimators(held.job.settings.training.models))
    return {
        group: (
            GroupDigests.of(training_set, group, lookback),
            fold_data.digests_of_predicted(data, own, group),
        )
        for group in own.groups
    }


def make_bins(key: str, ring: Ring | None, fold: FoldId) -> None:
    """Make the bins that tree estimators share."""
    held = _holding(key)
    with one_blas_thread(), _joined(ring):
        settings = held.job.settings
        columns.make_shared(registry.estimators(settings.training.models), _training_set(held, fold), settings)


def fit_pool(
    key: str, ring: Ring | None, fold: FoldId, name: str, stage: Stage, frozen_choices: list[Packed | None] | None
) -> tuple[list[Packed | None] | None, str, list[str]]:
    """An estimator's pooled models, as they travel, from the ring's first; a digest of them, and warnings."""
    held = _holding(key)
    with one_blas_thread(), logged_warnings() as warnings, _joined(ring):
        models = fold_data.fit(
            registry.estimator(name), _training_set(held, fold), stage, held.job.settings, None,
            unpack(frozen_choices),
        )  # fmt: skip
        packed = pack(models)
    described = [
        model and [model[0], {suffix: sha256(content) for suffix, content in model[1].items()}] for model in packed
    ]
    digest = sha256(dump_json(described))
    first = ring is None or ring.rank == 0
    return (packed, digest, warnings) if first else (None, digest, [])


def fit_group(
    key: str,
    fold: FoldId,
    name: str,
    stage: Stage,
    pooled: list[Packed | None],
    frozen_choices: list[Packed | None] | None,
) -> tuple[list[Packed | None], list[str]]:
    """See `fold_data.fit`, for a group that is held here, with models that travel; and warnings."""
    held = _holding(key)
    with one_blas_thread(), logged_warnings() as warnings:
        models = fold_data.fit(
            registry.estimator(name), _training_set(held, fold), stage, held.job.settings, unpack(pooled),
            unpack(frozen_choices),
        )  # fmt: skip
        return pack(models), warnings


def predict(
    key: str, fold: FoldId, name: str, group: str, part: str, models: list[Packed | None]
) -> tuple[np.ndarray, list[str]]:
    """See `fold_data.predict`, for a group that is held here; and warnings."""
    held, unpacked = _holding(key), unpack(models)
    assert unpacked is not None
    with one_blas_thread(), logged_warnings() as warnings:
        data = held.site.data(held.own(fold))
        return fold_data.predict(registry.estimator(name), data, fold, group, part, unpacked), warnings


def features(key: str, group: str, rows: np.ndarray) -> np.ndarray:
    """The feature matrix's rows with these numbers, float32 (n_rows, n_features)."""
    held = _holding(key)
    X = held.site.dataset_of(group)[0].X
    return held.site.device.to_host(X[held.site.device.asarray(rows)])


def forget(key: str) -> dict[str, Any]:
    """Release a run; see `site.forget`, with the number of rows that were held of each group."""
    held = _held.pop(key, None)
    rows = {s: held.site.dataset_of(s)[0].n_rows for s in held.groups} if held else {}
    crossed = held.site.device.ledger.as_dict() if held else {}
    return {"peak_bytes": device.host_peak_bytes(), "bus_bytes": crossed, "rows": rows, "process": os.getpid()}


def _training_set(held: Holding, fold: FoldId) -> TrainingSet:
    if fold not in held.training_sets:
        raise NotHeldError("it has not the rows of this round")
    return held.training_sets[fold]
