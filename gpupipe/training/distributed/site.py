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

from gpupipe import config
from gpupipe.cross_validation.splits import Boundaries, Split, split
from gpupipe.data.panel import COLUMNS, Panel
from gpupipe.dataset.dataset import Dataset
from gpupipe.estimators import registry
from gpupipe.estimators.earlier import Earlier
from gpupipe.estimators.training_set import Fold
from gpupipe.features.formulas.registry import load_modules
from gpupipe.runtime import device, memory
from gpupipe.runtime.device import Device
from gpupipe.runtime.errors import UserError
from gpupipe.store import fingerprint
from gpupipe.store.content_store import sha256
from gpupipe.training import fold_data
from gpupipe.training import prepare as preparing
from gpupipe.training.fold_data import Which

# A model as it travels: what it says of itself, and its files.
Packed = tuple[dict[str, Any], dict[str, bytes]]


@dataclass(frozen=True)
class Job:
    """What a worker needs to know of a run beside its bars.

    key: of the run.  plan: how memory is gone about.  threads: of a pooled fit.  folds_at_once: in memory.
    modules: path and SHA-256 of each module of the user's own features.
    """

    key: str
    settings: config.Config
    device: str
    plan: memory.Plan
    threads: int
    folds_at_once: int
    modules: tuple[tuple[str, str], ...]


# The bars of a run as they travel: what a Panel holds, its arrays in host memory.
Bars = dict[str, Any]


def bars_of(panel: Panel) -> Bars:
    """The panel as it travels."""
    arrays = {name: panel.device.to_host(getattr(panel, name)) for name in (*COLUMNS, "time_ns", "offsets")}
    return {**arrays, "symbols": panel.symbols, "sector": panel.sector}


def _panel_of(bars: Bars, where: Device) -> Panel:
    arrays = {name: where.asarray(bars[name]) for name in (*COLUMNS, "time_ns", "offsets")}
    return Panel(**arrays, symbols=tuple(bars["symbols"]), sector=tuple(bars["sector"]))


class _Datasets(Mapping[str, Dataset]):
    """Datasets of the sectors that were asked for last, made when they are asked for."""

    def __init__(self, panel: Panel, settings: config.Config, cache: pathlib.Path | None) -> None:
        self._panel, self._settings, self._cache = panel, settings, cache
        self._made: OrderedDict[str, tuple[Dataset, str, dict[str, float]]] = OrderedDict()
        self._lock = threading.RLock()
        self.room = 1

    def __getitem__(self, sector: str) -> Dataset:
        return self.made(sector)[0]

    def made(self, sector: str) -> tuple[Dataset, str, dict[str, float]]:
        """As `preparing.dataset_of`."""
        with self._lock:
            if sector not in self._made:
                self._made[sector] = preparing.dataset_of(self._panel, sector, self._settings, self._cache)
            self._made.move_to_end(sector)
            while len(self._made) > self.room:
                self._made.popitem(last=False)
            return self._made[sector]

    def __iter__(self) -> Iterator[str]:
        return iter(self._panel.sectors)

    def __len__(self) -> int:
        return len(self._panel.sectors)


class _Splits(Mapping[str, Split]):
    """The row numbers of a fold in time, of each sector."""

    def __init__(self, datasets: _Datasets, at: Boundaries) -> None:
        self._datasets, self._at = datasets, at
        self._made: dict[str, Split] = {}

    def __getitem__(self, sector: str) -> Split:
        if sector not in self._made:
            self._made[sector] = split(self._datasets[sector], self._at)
        return self._made[sector]

    def __iter__(self) -> Iterator[str]:
        return iter(self._datasets)

    def __len__(self) -> int:
        return len(self._datasets)


@dataclass(frozen=True)
class _Data:
    """As `folding.Data`."""

    datasets: _Datasets
    splits: _Splits
    settings: config.Config
    device: Device
    cache: pathlib.Path | None
    plan: memory.Plan
    threads: int


class Site:
    """A run on a worker: datasets and folds, made when they are needed and let go of when others are."""

    def __init__(self, bars: Bars, job: Job) -> None:
        self.job, self.device = job, device.pick(job.device, job.settings.ml.use_rmm)
        self._cache = pathlib.Path(tempfile.mkdtemp(prefix="gpupipe-")) if job.plan.files else None
        for module, (path, digest) in zip(load_modules(job.settings.features.modules), job.modules, strict=True):
            if sha256(module.content) != digest:
                raise UserError(f"features.modules: {path} differs between the client and a worker: copy it there")
        self._datasets = _Datasets(_panel_of(bars, self.device), job.settings, self._cache)
        self._folds: OrderedDict[Which, Fold] = OrderedDict()
        self._splits: dict[Boundaries, _Splits] = {}
        self._making: dict[Which, threading.Lock] = {}
        self._lock = threading.Lock()

    @property
    def sectors(self) -> tuple[str, ...]:
        """Of the bars that are here."""
        return tuple(self._datasets)

    def keep_all_sectors(self) -> None:
        """Let go of no dataset."""
        self._datasets.room = len(self._datasets)

    def dataset_of(self, sector: str) -> tuple[Dataset, str, dict[str, float]]:
        """As `preparing.dataset_of`, made once."""
        return self._datasets.made(sector)

    def data(self, which: Which) -> _Data:
        """What a round is made of; datasets of its sectors stay, and of one more."""
        with self._lock:
            self._datasets.room = max(self._datasets.room, len(which.sectors) + 1)
            splits = self._splits.setdefault(which.at, _Splits(self._datasets, which.at))
        job = self.job
        return _Data(self._datasets, splits, job.settings, self.device, self._cache, job.plan, job.threads)

    def fold(self, which: Which) -> Fold:
        """The fold of a round, made once; the one that was used longest ago goes where there would be too many."""
        with self._lock:
            making = self._making.setdefault(which, threading.Lock())
        with making:
            if which not in self._folds:
                made = fold_data.make_fold(self.data(which), which)
                with self._lock:
                    self._folds[which] = made
                    while len(self._folds) > self.job.folds_at_once:
                        self._folds.popitem(last=False)
            with self._lock:
                self._folds.move_to_end(which)
                return self._folds[which]

    def close(self) -> None:
        """Let go of everything."""
        self._folds.clear()
        if self._cache:
            shutil.rmtree(self._cache, ignore_errors=True)


_sites: dict[str, Site] = {}
_sites_lock = threading.Lock()


def _site(bars: Bars, job: Job) -> Site:
    with _sites_lock:
        if job.key not in _sites:
            _sites[job.key] = Site(bars, job)
        return _sites[job.key]


def about() -> dict[str, Any]:
    """What a worker has to have in common with the client."""
    return {"code": fingerprint.code_hash([__name__], ()), "versions": fingerprint.versions()}


def prepare(bars: Bars, job: Job, which: Which) -> None:
    """Make the fold of a round and its bins, before units ask for them."""
    with one_blas_thread():
        names = [name for name in job.settings.training.models if name in registry.BY_BINS]
        registry.prepare(names, _site(bars, job).fold(which), job.settings)


def fit(
    bars: Bars, job: Job, which: Which, family: str, sector: str | None, labels: Sequence[int],
    pooled: list[Packed | None] | None, like: list[Packed | None] | None, earlier: Earlier | None,
) -> tuple[list[Packed | None], list[str]]:  # fmt: skip
    """As `folding.fit`, of models that travel; and the warnings that were given."""
    with one_blas_thread(), logged_warnings() as said:
        site = _site(bars, job)
        if earlier is not None:
            loaded = {sector: unpack(own) or [] for sector, own in earlier.by_sector.items()}
            earlier = replace(earlier, by_sector=loaded)
        own = registry.family(family, earlier)
        made = fold_data.fit(own, site.fold(which), sector, labels, job.settings, unpack(pooled), unpack(like))
        return pack(made), said


def say(
    bars: Bars, job: Job, which: Which, family: str, sector: str, part: str, fitted: list[Packed | None]
) -> tuple[np.ndarray, list[str]]:  # fmt: skip
    """As `folding.say`, of models that travel; and the warnings that were given."""
    with one_blas_thread(), logged_warnings() as said:
        found = unpack(fitted)
        assert found is not None
        site = _site(bars, job)
        return fold_data.say(registry.family(family), site.data(which), which, sector, part, found), said


def forget(key: str) -> dict[str, Any]:
    """Let go of a run; what the worker's process held at most, in bytes, and what crossed its bus."""
    with _sites_lock:
        site = _sites.pop(key, None)
    if site is not None:
        site.close()
    crossed = site.device.ledger.as_dict() if site else {}
    return {"peak_bytes": device.host_peak_bytes(), "bus_bytes": crossed}


def pack(fitted: Sequence[Any] | None) -> Any:
    """Models as they travel; None stays None."""
    return fitted and [model and (model.describe(), model.files()) for model in fitted]


def unpack(packed: Sequence[Packed | None] | None) -> list[Any] | None:
    """The models again; a file that several have is loaded once."""
    if packed is None:
        return None
    boosters: dict[bytes, Any] = {}
    return [one and registry.from_files(one[1], one[0], boosters) for one in packed]


def one_blas_thread() -> contextlib.AbstractContextManager[Any]:
    """More would make the last bits of a sum depend on the machine."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, "blas")


@contextlib.contextmanager
def logged_warnings() -> Iterator[list[str]]:
    """Warnings that this thread logs meanwhile; they are shown by the client, and so not here."""
    said: list[str] = []
    thread = threading.get_ident()

    def note(record: logging.LogRecord) -> bool:
        if record.thread != thread or record.levelno < logging.WARNING:
            return True
        said.append(record.getMessage())
        return False

    log = logging.getLogger("gpupipe")
    log.addFilter(note)
    try:
        yield said
    finally:
        log.removeFilter(note)
