"""Site: what a worker does of a run. Its functions are called there, by Dask; they give what the client would make."""

from __future__ import annotations

import contextlib
import logging
import pathlib
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpupipe.config import Config
from gpupipe.cross_validation.fold_times import FoldTimes
from gpupipe.cross_validation.split import Split, split
from gpupipe.data.panel import Panel
from gpupipe.dataset.dataset import Dataset
from gpupipe.estimators import columns, registry
from gpupipe.estimators.earlier import EarlierModels
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.features.formulas.registry import load_modules
from gpupipe.runtime import device, memory
from gpupipe.runtime.device import Device
from gpupipe.runtime.errors import UserError
from gpupipe.store import fingerprint
from gpupipe.store.content_store import sha256
from gpupipe.training import fold_data, recipe
from gpupipe.training.fold_data import FoldId, Stage
from gpupipe.training.prepare import make_dataset

# A model as it travels: what it says of itself, and its files.
Packed = tuple[dict[str, Any], dict[str, bytes]]


@dataclass(frozen=True)
class Job:
    """What a worker needs to know of a run in addition to its rows.

    key: of the run.  workload: where the workload is, see `recipe.load`.  plan: the memory plan.
    threads: of a pooled fit.  folds_at_once: in memory.
    modules: path and SHA-256 of each module of the user's own features.
    """

    key: str
    workload: str
    settings: Config
    device: str
    plan: memory.Plan
    threads: int
    folds_at_once: int
    modules: tuple[tuple[str, str], ...]


# The rows of a run as they travel: the fields of a Panel, its arrays in host memory.
Rows = dict[str, Any]


def rows_of(panel: Panel) -> Rows:
    """The panel as it travels."""
    to_host = panel.device.to_host
    return {
        "columns": {name: to_host(column) for name, column in panel.columns.items()},
        "time_ns": to_host(panel.time_ns), "offsets": to_host(panel.offsets), "symbols": panel.symbols,
        "attributes": dict(panel.attributes), "group_by": panel.group_by,
    }  # fmt: skip


def _panel_of(rows: Rows, where: Device) -> Panel:
    columns = {name: where.asarray(column) for name, column in rows["columns"].items()}
    arrays = {name: where.asarray(rows[name]) for name in ("time_ns", "offsets")}
    attributes = {name: tuple(values) for name, values in rows["attributes"].items()}
    return Panel(columns, **arrays, symbols=tuple(rows["symbols"]), attributes=attributes, group_by=rows["group_by"])


class _Datasets(Mapping[str, Dataset]):
    """Datasets of the groups that were asked for last, made when they are asked for."""

    def __init__(self, panel: Panel, job: Job, cache: pathlib.Path | None) -> None:
        self._panel, self._settings, self._cache = panel, job.settings, cache
        self._workload = recipe.load(job.workload)
        self._made: OrderedDict[str, tuple[Dataset, str, dict[str, float]]] = OrderedDict()
        self._lock = threading.RLock()
        self.room = 1

    def __getitem__(self, group: str) -> Dataset:
        return self.made(group)[0]

    def made(self, group: str) -> tuple[Dataset, str, dict[str, float]]:
        """See `make_dataset`."""
        with self._lock:
            if group not in self._made:
                self._made[group] = make_dataset(self._workload, self._panel, group, self._settings, self._cache)
            self._made.move_to_end(group)
            while len(self._made) > self.room:
                self._made.popitem(last=False)
            return self._made[group]

    def __iter__(self) -> Iterator[str]:
        return iter(self._panel.groups)

    def __len__(self) -> int:
        return len(self._panel.groups)


class _Splits(Mapping[str, Split]):
    """The row numbers of a fold in time, of each group."""

    def __init__(self, datasets: _Datasets, times: FoldTimes) -> None:
        self._datasets, self._times = datasets, times
        self._made: dict[str, Split] = {}

    def __getitem__(self, group: str) -> Split:
        if group not in self._made:
            self._made[group] = split(self._datasets[group], self._times)
        return self._made[group]

    def __iter__(self) -> Iterator[str]:
        return iter(self._datasets)

    def __len__(self) -> int:
        return len(self._datasets)


@dataclass(frozen=True)
class _Data:
    """See `fold_data.TrainingData`."""

    datasets: _Datasets
    splits: _Splits
    settings: Config
    device: Device
    cache: pathlib.Path | None
    plan: memory.Plan
    threads: int


class Site:
    """A run on a worker: datasets and folds, made when they are needed and let go of when others are."""

    def __init__(self, rows: Rows, job: Job) -> None:
        self.job, self.device = job, device.pick(job.device, job.settings.ml.use_rmm)
        self._cache = pathlib.Path(tempfile.mkdtemp(prefix="gpupipe-")) if job.plan.files else None
        for module, (path, digest) in zip(load_modules(job.settings.features.modules), job.modules, strict=True):
            if sha256(module.content) != digest:
                raise UserError(f"features.modules: {path} differs between the client and a worker: copy it there")
        self._datasets = _Datasets(_panel_of(rows, self.device), job, self._cache)
        self._training_sets: OrderedDict[FoldId, TrainingSet] = OrderedDict()
        self._splits: dict[FoldTimes, _Splits] = {}
        self._making: dict[FoldId, threading.Lock] = {}
        self._lock = threading.Lock()

    @property
    def groups(self) -> tuple[str, ...]:
        """Of the bars that are here."""
        return tuple(self._datasets)

    def keep_all_groups(self) -> None:
        """Let go of no dataset."""
        self._datasets.room = len(self._datasets)

    def dataset_of(self, group: str) -> tuple[Dataset, str, dict[str, float]]:
        """See `make_dataset`; made once."""
        return self._datasets.made(group)

    def data(self, fold: FoldId) -> _Data:
        """What a round is made of; datasets of its groups stay, and of one more."""
        with self._lock:
            self._datasets.room = max(self._datasets.room, len(fold.groups) + 1)
            splits = self._splits.setdefault(fold.times, _Splits(self._datasets, fold.times))
        job = self.job
        return _Data(self._datasets, splits, job.settings, self.device, self._cache, job.plan, job.threads)

    def training_set(self, fold: FoldId) -> TrainingSet:
        """The training set of a fold, made once; the one used longest ago is released where there would be too many."""
        with self._lock:
            making = self._making.setdefault(fold, threading.Lock())
        with making:
            if fold not in self._training_sets:
                made = fold_data.make_training_set(self.data(fold), fold)
                with self._lock:
                    self._training_sets[fold] = made
                    while len(self._training_sets) > self.job.folds_at_once:
                        self._training_sets.popitem(last=False)
            with self._lock:
                self._training_sets.move_to_end(fold)
                return self._training_sets[fold]

    def close(self) -> None:
        """Let go of everything."""
        self._training_sets.clear()
        if self._cache:
            shutil.rmtree(self._cache, ignore_errors=True)


_sites: dict[str, Site] = {}
_sites_lock = threading.Lock()


def _site(rows: Rows, job: Job) -> Site:
    with _sites_lock:
        if job.key not in _sites:
            _sites[job.key] = Site(rows, job)
        return _sites[job.key]


def about() -> dict[str, Any]:
    """What a worker has to have in common with the client."""
    return {"code": fingerprint.code_hash([__name__], ()), "versions": fingerprint.versions()}


def prepare(rows: Rows, job: Job, fold: FoldId) -> None:
    """Make the training set of a fold and its bins, before stages ask for them."""
    with one_blas_thread():
        training_set = _site(rows, job).training_set(fold)
        columns.make_shared(registry.estimators(job.settings.training.models), training_set, job.settings)


def fit(
    rows: Rows,
    job: Job,
    fold: FoldId,
    name: str,
    stage: Stage,
    pooled: list[Packed | None] | None,
    frozen_choices: list[Packed | None] | None,
    earlier: EarlierModels | None,
) -> tuple[list[Packed | None], list[str]]:
    """See `fold_data.fit`, with models that travel; and the warnings that were given."""
    with one_blas_thread(), logged_warnings() as warnings:
        estimator = registry.estimator(name)
        if earlier is not None:
            loaded = {group: unpack(models) or [] for group, models in earlier.by_group.items()}
            estimator = estimator.starting_from(replace(earlier, by_group=loaded))
        training_set = _site(rows, job).training_set(fold)
        models = fold_data.fit(estimator, training_set, stage, job.settings, unpack(pooled), unpack(frozen_choices))
        return pack(models), warnings


def predict(
    rows: Rows, job: Job, fold: FoldId, name: str, group: str, part: str, models: list[Packed | None]
) -> tuple[np.ndarray, list[str]]:
    """See `fold_data.predict`, with models that travel; and the warnings that were given."""
    with one_blas_thread(), logged_warnings() as warnings:
        unpacked = unpack(models)
        assert unpacked is not None
        data = _site(rows, job).data(fold)
        return fold_data.predict(registry.estimator(name), data, fold, group, part, unpacked), warnings


def forget(key: str) -> dict[str, Any]:
    """Let go of a run; what the worker's process held at most, in bytes, and what crossed its bus."""
    with _sites_lock:
        site = _sites.pop(key, None)
    if site is not None:
        site.close()
    crossed = site.device.ledger.as_dict() if site else {}
    return {"peak_bytes": device.host_peak_bytes(), "bus_bytes": crossed}


def pack(models: Sequence[Any] | None) -> Any:
    """Models as they travel; None stays None."""
    return models and [model and (model.describe(), model.files()) for model in models]


def unpack(packed: Sequence[Packed | None] | None) -> list[Any] | None:
    """The models again; a file that several have is loaded once."""
    if packed is None:
        return None
    boosters: dict[bytes, Any] = {}
    return [model and registry.load_model(model[1], model[0], boosters) for model in packed]


def one_blas_thread() -> contextlib.AbstractContextManager[Any]:
    """More would make the last bits of a sum depend on the machine."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, "blas")


@contextlib.contextmanager
def logged_warnings() -> Iterator[list[str]]:
    """Warnings that this thread logs meanwhile; they are shown by the client, and so not here."""
    warnings: list[str] = []
    thread = threading.get_ident()

    def note(record: logging.LogRecord) -> bool:
        if record.thread != thread or record.levelno < logging.WARNING:
            return True
        warnings.append(record.getMessage())
        return False

    log = logging.getLogger("gpupipe")
    log.addFilter(note)
    try:
        yield warnings
    finally:
        log.removeFilter(note)
