"""Functions that Dask calls on a worker of a sharded run; the worker holds the rows of some groups."""

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
from gpupipe.store.content_store import sha256, sha256_of
from gpupipe.training import fold_data
from gpupipe.training.cache_keys import GroupDigests
from gpupipe.training.distributed.worker_run import (
    Job,
    Packed,
    Rows,
    WorkerRun,
    logged_warnings,
    one_blas_thread,
    pack,
    unpack,
)
from gpupipe.training.fold_data import FoldId, Stage

# A lost peer ends a collective call at once; this timeout is for a slow peer, or one that still fits a group's stage.
PEER_S = 6 * 3600


class NotHeldError(Exception):
    """This worker does not hold the requested rows, because it has replaced a lost worker."""


@dataclass(frozen=True)
class Ring:
    """Workers that call XGBoost's collective together.

    rank: number of this worker, from 0 to size - 1.  tracker: arguments that connect to the tracker.

        >>> rings = [Ring(rank, 3, {"dmlc_tracker_port": 9091}) for rank in range(3)]
        >>> [ring.rank for ring in rings], {ring.size for ring in rings}
        ([0, 1, 2], {3})
    """

    rank: int
    size: int
    tracker: dict[str, Any]


class HeldRows:
    """The rows of some groups on this worker, and their training sets.

    training_sets: of the open folds, by the id of the whole fold.

        >>> from gpupipe.cross_validation.fold_times import FoldTimes
        >>> from gpupipe.data import simulate
        >>> from gpupipe.runtime import memory
        >>> from gpupipe.training.distributed.worker_run import rows_of
        >>> from gpupipe.workloads.equity import EQUITY
        >>> job = Job("ab12", EQUITY.place, EQUITY.settings("fast"), "cpu", memory.AS_IT_IS, 2, 2, ())
        >>> held = HeldRows(rows_of(simulate(n_symbols=11, n_bars=5).of_group("energy")), job)
        >>> held.held_fold(FoldId(FoldTimes("", (), (), ()), ("energy", "utilities"), None, (0,))).groups
        ('energy',)
    """

    def __init__(self, rows: Rows, job: Job) -> None:
        self.job, self.run = job, WorkerRun(rows, job)
        self.run.keep_all_groups()
        self.training_sets: dict[FoldId, TrainingSet] = {}

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups whose rows this worker holds."""
        return self.run.groups

    def held_fold(self, fold: FoldId) -> FoldId:
        """The fold restricted to the groups of this worker."""
        return dataclasses.replace(fold, groups=tuple(g for g in fold.groups if g in self.groups))


_held: dict[str, HeldRows] = {}
_trackers: dict[int, Any] = {}


def _held_rows(key: str) -> HeldRows:
    try:
        return _held[key]
    except KeyError:
        raise NotHeldError("this worker holds no rows of this run") from None


def settle(rows: Rows, job: Job) -> dict[str, tuple[dict[str, Any], str, dict[str, float]]]:
    """Receive the bars of some groups and compute their features; returns `make_dataset` of each group without X."""
    with one_blas_thread():
        held = _held[job.key] = HeldRows(rows, job)
        return {group: _without_features(held, *held.run.dataset_of(group)) for group in held.groups}


def _without_features(held: HeldRows, dataset: Dataset, features: str, seconds: dict[str, float]) -> Any:
    columns = {field.name: getattr(dataset, field.name) for field in dataclasses.fields(dataset) if field.name != "X"}
    to_host = held.run.device.to_host
    described = {name: to_host(column) if hasattr(column, "dtype") else column for name, column in columns.items()}
    return described, features, seconds


def meet(n_workers: int, host: str) -> dict[str, Any]:
    """Start a tracker, which connects workers; returns the arguments that connect to it."""
    from xgboost.tracker import RabitTracker

    tracker = RabitTracker(n_workers, host, sortby="task")
    tracker.start()
    arguments = tracker.worker_args()
    port = int(arguments["dmlc_tracker_port"])
    _trackers[port] = tracker

    def wait() -> None:
        with contextlib.suppress(Exception):  # the peers of a lost worker report it
            tracker.wait_for()
        _trackers.pop(port, None)

    threading.Thread(target=wait, daemon=True).start()
    return arguments


def part(port: int) -> None:
    """Stop a tracker, so that workers that wait for a lost worker get an error."""

    def free(tracker: Any) -> None:
        with contextlib.suppress(Exception):  # the tracker raises because it was stopped
            tracker.free()

    if (tracker := _trackers.pop(port, None)) is not None:
        threading.Thread(target=free, args=(tracker,), daemon=True).start()


@contextlib.contextmanager
def _joined(ring: Ring | None) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    """Join a ring in this thread; yields the sum over its workers. Raises XGBoostError where another worker is lost."""
    if ring is None:
        yield this_process_only
        return
    from xgboost import collective, core

    # XGBoost registers log callbacks by thread. Its messages about ranks are not shown.
    core._LIB.XGBRegisterLogCallback(core._LIB.callback)
    arguments = dict(ring.tracker, dmlc_task_id=f"{ring.rank:06d}", dmlc_timeout=PEER_S, dmlc_retry=1)
    communicator = collective.CommunicatorContext(**arguments)
    with contextlib.redirect_stdout(io.StringIO()):
        communicator.__enter__()
    try:
        yield _total
    finally:
        communicator.__exit__()


def _total(numbers: np.ndarray) -> np.ndarray:
    """The sum over the workers of a ring, added in the order of ranks, so that all workers get the same bits."""
    from xgboost import collective

    assert collective.is_distributed(), "sums need a ring of workers"
    places = np.zeros((collective.get_world_size(), *numbers.shape), numbers.dtype)
    places[collective.get_rank()] = numbers
    return collective.allreduce(places, collective.Op.SUM).reshape(places.shape).sum(axis=0)


def prepare(
    key: str, ring: Ring | None, fold: FoldId, keep: Sequence[FoldId]
) -> dict[str, tuple[GroupDigests, dict[str, str]]]:
    """Gather the rows of a fold on this worker; returns `ShardedRows.inputs` of its groups.

    keep: the open folds; all others are released.
    """
    held = _held_rows(key)
    for closed in set(held.training_sets) - set(keep):
        del held.training_sets[closed]
    part_of_fold = held.held_fold(fold)
    data = held.run.data(part_of_fold)
    with one_blas_thread(), _joined(ring) as total:
        training_set = fold_data.make_training_set(data, part_of_fold, total, fold.groups)
    held.training_sets[fold] = training_set
    lookback = registry.lookback(held.job.settings).rows
    return {
        group: (
            GroupDigests.of(training_set, group, lookback),
            fold_data.digests_of_predicted(data, part_of_fold, group),
        )
        for group in part_of_fold.groups
    }


def make_bins(key: str, ring: Ring | None, fold: FoldId) -> None:
    """Compute the bins that tree estimators share."""
    held = _held_rows(key)
    with one_blas_thread(), _joined(ring):
        settings = held.job.settings
        columns.make_shared(registry.estimators(settings.training.models), _training_set(held, fold), settings)


def fit_pool(
    key: str, ring: Ring | None, fold: FoldId, name: str, stage: Stage, frozen_choices: list[Packed | None] | None
) -> tuple[list[Packed | None] | None, str, list[str]]:
    """Fit pooled models together; returns packed models (from rank 0 only), their digest, and warnings."""
    held = _held_rows(key)
    with one_blas_thread(), logged_warnings() as warnings, _joined(ring):
        models = fold_data.fit(
            registry.estimator(name), _training_set(held, fold), stage, held.job.settings, None,
            unpack(frozen_choices),
        )  # fmt: skip
        packed = pack(models)
    described = [
        model and [model[0], {suffix: sha256(content) for suffix, content in model[1].items()}] for model in packed
    ]
    digest = sha256_of(described)
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
    """`fold_data.fit` for a group of this worker; returns packed models and warnings."""
    held = _held_rows(key)
    with one_blas_thread(), logged_warnings() as warnings:
        models = fold_data.fit(
            registry.estimator(name), _training_set(held, fold), stage, held.job.settings, unpack(pooled),
            unpack(frozen_choices),
        )  # fmt: skip
        return pack(models), warnings


def predict(
    key: str, fold: FoldId, name: str, group: str, part: str, models: list[Packed | None]
) -> tuple[np.ndarray, list[str]]:
    """`fold_data.predict` for a group of this worker; returns predictions and warnings."""
    held, unpacked = _held_rows(key), unpack(models)
    assert unpacked is not None
    with one_blas_thread(), logged_warnings() as warnings:
        data = held.run.data(held.held_fold(fold))
        return fold_data.predict(registry.estimator(name), data, fold, group, part, unpacked), warnings


def features(key: str, group: str, rows: np.ndarray) -> np.ndarray:
    """Rows of the feature matrix of a group by number, float32 (n_rows, n_features)."""
    held = _held_rows(key)
    X = held.run.dataset_of(group)[0].X
    return held.run.device.to_host(X[held.run.device.asarray(rows)])


def forget(key: str) -> dict[str, Any]:
    """Release a run; returns `worker_run.forget`, with the number of rows of each group."""
    held = _held.pop(key, None)
    rows = {s: held.run.dataset_of(s)[0].n_rows for s in held.groups} if held else {}
    crossed = held.run.device.ledger.as_dict() if held else {}
    return {"peak_bytes": device.host_peak_bytes(), "bus_bytes": crossed, "rows": rows, "process": os.getpid()}


def _training_set(held: HeldRows, fold: FoldId) -> TrainingSet:
    if fold not in held.training_sets:
        raise NotHeldError("this worker does not hold the rows of this fold")
    return held.training_sets[fold]
