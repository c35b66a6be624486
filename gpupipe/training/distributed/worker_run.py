"""WorkerRun: a run on a worker. Dask calls the functions of this module; results equal the client's."""

from __future__ import annotations

import contextlib
import functools
import logging
import pathlib
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpupipe.config import Config
from gpupipe.cross_validation.fold_times import FoldTimes
from gpupipe.cross_validation.split import Split, split
from gpupipe.data.panel import Panel
from gpupipe.dataset.dataset import Dataset
from gpupipe.estimators import columns, registry
from gpupipe.estimators.contract import Model
from gpupipe.estimators.earlier import EarlierModels
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.features.formulas.registry import load_modules
from gpupipe.runtime import device, libraries, memory
from gpupipe.runtime.device import Device
from gpupipe.runtime.errors import UserError
from gpupipe.store import fingerprint
from gpupipe.store.content_store import sha256
from gpupipe.training import fold_data, recipe
from gpupipe.training.fold_data import FoldId, Stage
from gpupipe.training.prepare import make_dataset

# A packed model: its description and its files.
Packed = tuple[dict[str, Any], dict[str, bytes]]


@dataclass(frozen=True)
class Job:
    """The parameters of a run that a worker needs in addition to the rows.

    key: of the run.  workload: the place of the workload, see `recipe.load`.  plan: the memory plan.
    threads: of a pooled fit.  folds_at_once: number of folds in memory.
    modules: path and SHA-256 of each module of user features.
    device_bytes: what each worker may take of its GPU's memory; no limit if None.

        >>> from gpupipe.workloads.equity import EQUITY
        >>> job = Job("ab12", EQUITY.place, EQUITY.settings("fast"), "cpu", memory.AS_IT_IS, 2, 2, ())
        >>> job.workload, job.plan.name
        ('gpupipe.workloads.equity:EQUITY', 'as it is')
    """

    key: str
    workload: str
    settings: Config
    device: str
    plan: memory.Plan
    threads: int
    folds_at_once: int
    modules: tuple[tuple[str, str], ...]
    device_bytes: int | None = None


# The packed rows of a run: the fields of a Panel, with arrays in host memory.
Rows = dict[str, Any]


def rows_of(panel: Panel) -> Rows:
    """The packed rows of a panel."""
    to_host = panel.device.to_host
    return {
        "columns": {name: to_host(column) for name, column in panel.columns.items()},
        "time_ns": to_host(panel.time_ns), "offsets": to_host(panel.offsets), "symbols": panel.symbols,
        "local_ns": None if panel.local_ns is None else to_host(panel.local_ns),
        "attributes": dict(panel.attributes), "group_by": panel.group_by,
    }  # fmt: skip


def _panel_of(rows: Rows, where: Device) -> Panel:
    columns = {name: where.asarray(column) for name, column in rows["columns"].items()}
    arrays = {name: where.asarray(rows[name]) for name in ("time_ns", "offsets", "local_ns") if rows[name] is not None}
    attributes = {name: tuple(values) for name, values in rows["attributes"].items()}
    return Panel(columns, **arrays, symbols=tuple(rows["symbols"]), attributes=attributes, group_by=rows["group_by"])


class _Datasets(Mapping[str, Dataset]):
    """Datasets by group, computed on demand; the `room` groups that were used last stay in memory."""

    def __init__(self, panel: Panel, job: Job, cache: pathlib.Path | None) -> None:
        self._panel, self._settings, self._cache = panel, job.settings, cache
        self._place = job.workload
        self._results: OrderedDict[str, tuple[Dataset, str, dict[str, float]]] = OrderedDict()
        self._lock = threading.RLock()
        self.room = 1

    @functools.cached_property
    def _recipe(self) -> recipe.Recipe:
        """Loaded once it is needed: a workload of steps has none."""
        return recipe.load(self._place)

    def __getitem__(self, group: str) -> Dataset:
        return self.result_of(group)[0]

    def result_of(self, group: str) -> tuple[Dataset, str, dict[str, float]]:
        """`make_dataset` of a group."""
        with self._lock:
            if group not in self._results:
                self._results[group] = make_dataset(self._recipe, self._panel, group, self._settings, self._cache)
            self._results.move_to_end(group)
            while len(self._results) > self.room:
                self._results.popitem(last=False)
            return self._results[group]

    def __iter__(self) -> Iterator[str]:
        return iter(self._panel.groups)

    def __len__(self) -> int:
        return len(self._panel.groups)


class _Splits(Mapping[str, Split]):
    """Row numbers of a fold in time, by group, computed on demand."""

    def __init__(self, datasets: _Datasets, times: FoldTimes) -> None:
        self._datasets, self._times = datasets, times
        self._by_group: dict[str, Split] = {}

    def __getitem__(self, group: str) -> Split:
        if group not in self._by_group:
            self._by_group[group] = split(self._datasets[group], self._times)
        return self._by_group[group]

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


class WorkerRun:
    """A run on a worker: datasets and training sets, computed on demand and released when others need the memory.

    >>> from gpupipe.data import simulate
    >>> from gpupipe.workloads.equity import EQUITY
    >>> job = Job("ab12", EQUITY.place, EQUITY.settings("fast"), "cpu", memory.AS_IT_IS, 2, 2, ())
    >>> run = WorkerRun(rows_of(simulate(n_symbols=3, n_bars=5)), job)
    >>> len(run.groups), run.device.kind
    (3, 'cpu')
    """

    def __init__(self, rows: Rows, job: Job) -> None:
        libraries.load()
        self.job, self.device = job, device.pick(job.device, job.settings.ml.use_rmm, job.device_bytes)
        self._cache = pathlib.Path(tempfile.mkdtemp(prefix="gpupipe-")) if job.plan.files else None
        for module, (path, digest) in zip(load_modules(job.settings.features.modules), job.modules, strict=True):
            if sha256(module.content) != digest:
                raise UserError(f"features.modules: {path} differs between the client and a worker: copy it there")
        self.panel = _panel_of(rows, self.device)
        self._datasets = _Datasets(self.panel, job, self._cache)
        self._training_sets: OrderedDict[FoldId, TrainingSet] = OrderedDict()
        self._splits: dict[FoldTimes, _Splits] = {}
        self._making: dict[FoldId, threading.Lock] = {}
        self._lock = threading.Lock()

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups whose bars this worker has."""
        return tuple(self._datasets)

    def keep_all_groups(self) -> None:
        """Release no dataset."""
        self._datasets.room = len(self._datasets)

    def dataset_of(self, group: str) -> tuple[Dataset, str, dict[str, float]]:
        """`make_dataset` of a group, computed once."""
        return self._datasets.result_of(group)

    def data(self, fold: FoldId) -> _Data:
        """The inputs of a fold; datasets of its groups, and of one further group, stay in memory."""
        with self._lock:
            self._datasets.room = max(self._datasets.room, len(fold.groups) + 1)
            splits = self._splits.setdefault(fold.times, _Splits(self._datasets, fold.times))
        job = self.job
        return _Data(self._datasets, splits, job.settings, self.device, self._cache, job.plan, job.threads)

    def training_set(self, fold: FoldId) -> TrainingSet:
        """The training set of a fold, computed once; above folds_at_once the least recently used is released."""
        with self._lock:
            making = self._making.setdefault(fold, threading.Lock())
        with making:
            if fold not in self._training_sets:
                training_set = fold_data.make_training_set(self.data(fold), fold)
                with self._lock:
                    self._training_sets[fold] = training_set
                    while len(self._training_sets) > self.job.folds_at_once:
                        self._training_sets.popitem(last=False)
            with self._lock:
                self._training_sets.move_to_end(fold)
                return self._training_sets[fold]

    def close(self) -> None:
        """Release all datasets and files."""
        self._training_sets.clear()
        if self._cache:
            shutil.rmtree(self._cache, ignore_errors=True)


_runs: dict[str, WorkerRun] = {}
_runs_lock = threading.Lock()


def _run(rows: Rows, job: Job) -> WorkerRun:
    with _runs_lock:
        if job.key not in _runs:
            _runs[job.key] = WorkerRun(rows, job)
        return _runs[job.key]


def about() -> dict[str, Any]:
    """Code digest and versions, which must be equal on worker and client."""
    return {"code": fingerprint.code_hash([__name__], ()), "versions": fingerprint.versions()}


def prepare(rows: Rows, job: Job, fold: FoldId) -> None:
    """Compute the training set of a fold and its bins, before stages need them."""
    with one_blas_thread():
        training_set = _run(rows, job).training_set(fold)
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
    """`fold_data.fit` with packed models; returns packed models and warnings."""
    with one_blas_thread(), logged_warnings() as warnings:
        estimator = registry.estimator(name)
        if earlier is not None:
            loaded = {group: unpack(models) or [] for group, models in earlier.by_group.items()}
            estimator = estimator.starting_from(replace(earlier, by_group=loaded))
        training_set = _run(rows, job).training_set(fold)
        models = fold_data.fit(estimator, training_set, stage, job.settings, unpack(pooled), unpack(frozen_choices))
        return pack(models), warnings


def predict(
    rows: Rows, job: Job, fold: FoldId, name: str, group: str, part: str, models: list[Packed | None]
) -> tuple[np.ndarray, list[str]]:
    """`fold_data.predict` with packed models; returns predictions and warnings."""
    with one_blas_thread(), logged_warnings() as warnings:
        unpacked = unpack(models)
        assert unpacked is not None
        data = _run(rows, job).data(fold)
        return fold_data.predict(registry.estimator(name), data, fold, group, part, unpacked), warnings


def call(rows: Rows, job: Job, function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[Any, list[str]]:
    """function(panel, settings, *arguments); returns its result and warnings."""
    with one_blas_thread(), logged_warnings() as warnings:
        return function(_run(rows, job).panel, job.settings, *arguments), warnings


def forget(key: str) -> dict[str, Any]:
    """Release a run; returns the peak memory of the worker's process, and the bytes that crossed its bus."""
    with _runs_lock:
        run = _runs.pop(key, None)
    if run is not None:
        run.close()
    crossed = run.device.ledger.as_dict() if run else {}
    return {"peak_bytes": device.host_peak_bytes(), "bus_bytes": crossed}


def pack(models: Sequence[Model | None] | None) -> Any:
    """Models in packed form; None stays None."""
    return models and [model and (model.describe(), model.files()) for model in models]


def unpack(packed: Sequence[Packed | None] | None) -> list[Any] | None:
    """Load packed models; a file that several models share is loaded once."""
    if packed is None:
        return None
    boosters: dict[bytes, Any] = {}
    return [model and registry.load_model(model[1], model[0], boosters) for model in packed]


def one_blas_thread() -> contextlib.AbstractContextManager[Any]:
    """Limit BLAS to one thread: with more, the last bits of sums depend on the machine."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, "blas")


@contextlib.contextmanager
def logged_warnings() -> Iterator[list[str]]:
    """Collect the warnings that this thread logs; the client shows them, so they are not logged here."""
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
