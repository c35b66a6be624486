"""The placement of a run's stages: what they compute by the settings and the rows, and the devices that they get."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from gpupipe.config import Config
from gpupipe.cross_validation.split import Split
from gpupipe.dataset.dataset import Dataset
from gpupipe.estimators import registry
from gpupipe.estimators.contract import Estimator
from gpupipe.kernels.cores import available_cores
from gpupipe.runtime.device import Device
from gpupipe.runtime.errors import UserError
from gpupipe.runtime.placement import CPU, CUDA, Placed, Placement, Size, Stage, place, wishes_of
from gpupipe.store.content_store import Store, write_atomic
from gpupipe.training import rates

BINS = "bins"
FILE = "placement.json"  # in the store: placements by run key, the last run at the end
KEPT_RUNS = 8  # in addition to the last


def stage_name(estimator: Estimator, group: str | None) -> str:
    """The name of an estimator's stage: pooled where the group is None; one that stacks has a single stage.

    >>> linear, meta = registry.estimators(["linear", "meta_learner"])
    >>> stage_name(linear, None), stage_name(linear, "energy"), stage_name(meta, None)
    ('linear.pool', 'linear.group', 'meta_learner')
    """
    if estimator.stacks:
        return estimator.name
    return f"{estimator.name}.{'pool' if group is None else 'group'}"


def stage_names(settings: Config) -> list[str]:
    """The names of all stages of a run that may be placed."""
    names = []
    for estimator in registry.estimators(settings.training.models):
        names += [stage_name(estimator, group) for group in ((None,) if estimator.stacks else (None, "group"))]
    return names


def check(settings: Config, device: Device, workers: object | None = None) -> None:
    """Raise UserError for stages and devices in training.place that the run does not have."""
    wishes_of(settings.training.place, stage_names(settings), device.kind, device.reason)
    if workers and settings.training.place and device.kind == CUDA:
        raise UserError("--place: workers fit every stage on the device that they have; leave out --place or --workers")


def decide(
    settings: Config, shape: tuple[int, int], splits: Mapping[str, Split], device: Device, known: rates.Known
) -> Placement:
    """The placement of a run.

    shape: numbers of columns and targets.  splits: of the published fold, by group.  known: rates of this machine.
    UserError for stages and devices in training.place that the run does not have.
    """
    wishes = wishes_of(settings.training.place, stage_names(settings), device.kind, device.reason)
    if device.kind == CPU:
        return Placement(CPU)
    stages = list(_stages(settings, shape, splits))
    placed = place(stages, device.kind, available_cores(), known.rates, wishes)
    return Placement(placed.home, {**placed.stages, **_bins(settings, placed)})


def shape_of(datasets: Mapping[str, Dataset]) -> tuple[int, int]:
    """Numbers of columns and targets."""
    first = next(iter(datasets.values()))
    return len(first.names), first.n_targets


def _stages(settings: Config, shape: tuple[int, int], splits: Mapping[str, Split]) -> Iterator[Stage]:
    """The stages of the final fit and of the out-of-fold fits of one fold in time."""
    fits = [{group: len(split.train) for group, split in splits.items()}]
    if registry.stacking(settings.training.models):
        n_parts = len(next(iter(splits.values())).cross_fit)
        fits += [{group: len(split.cross_fit[part][0]) for group, split in splits.items()} for part in range(n_parts)]
    pools = [list(splits)] if settings.training.pool == "all" else [[group] for group in splits]

    def size(n_rows: int) -> Size:
        return Size(n_rows, *shape)

    for estimator in registry.estimators(settings.training.models):
        if estimator.stacks:
            yield Stage(stage_name(estimator, None), on_host=estimator.on_host)
            continue
        pooled = [estimator.work(size(sum(rows[g] for g in pool)), settings, True) for rows in fits for pool in pools]
        by_group = [estimator.work(size(n_rows), settings, False) for rows in fits for n_rows in rows.values()]
        for group, works in ((None, pooled), ("group", by_group)):
            known = tuple(work for work in works if work is not None)
            yield Stage(stage_name(estimator, group), known, estimator.on_host)


def _bins(settings: Config, placement: Placement) -> dict[str, Placed]:
    """Bins are made where trees are fitted; cut points and columns that repeat another's are found on the host."""
    trees = [
        stage_name(estimator, group)
        for estimator in registry.estimators(settings.training.models)
        if estimator.uses_bins
        for group in (None, "group")
    ]
    if not trees:
        return {}
    on_gpu = [name for name in trees if placement.device(name) == CUDA]
    reason = f"trees are fitted there: {', '.join(on_gpu)}" if on_gpu else "all trees are fitted there"
    return {BINS: Placed(BINS, CUDA if on_gpu else CPU, reason)}


class Run(Protocol):
    """What is known of a run whose stages are placed, as a TrainingContext has it.

    >>> import tempfile
    >>> from gpupipe.data import simulate
    >>> from gpupipe.training.context import TrainingContext
    >>> from gpupipe.training.prepare import outline
    >>> from gpupipe.workloads.equity import EQUITY
    >>> panel, settings = simulate(n_symbols=11, n_bars=400), EQUITY.settings("fast")
    >>> prepared, store = outline(EQUITY, panel, settings), Store(tempfile.mkdtemp())
    >>> times = prepared.folds.published
    >>> run = TrainingContext(prepared.datasets, prepared.splits, times, settings, store, "ab12", panel.device, jobs=2)
    >>> of_run(run).device("xgb_joint.pool")  # without a GPU
    'cpu'
    """

    @property
    def settings(self) -> Config:
        """Of the run."""
        ...

    @property
    def datasets(self) -> Mapping[str, Dataset]:
        """By group."""
        ...

    @property
    def splits(self) -> Mapping[str, Split]:
        """Of the published fold, by group."""
        ...

    @property
    def device(self) -> Device:
        """Which holds the features."""
        ...

    @property
    def store(self) -> Store:
        """Where the placement is kept."""
        ...

    @property
    def workers(self) -> object | None:
        """Workers that fit in its place."""
        ...

    @property
    def run_key(self) -> str:
        """By which it is found again."""
        ...


def of_run(run: Run) -> Placement:
    """The placement of a run: where it is resumed the one that it began with, else that of `decide`; it is kept.

    Rates may have been measured in between, and a run should not fit half of its models on another device.
    """
    if run.device.kind == CPU:
        return Placement(CPU)
    kept = _kept(run.store)
    if run.workers:
        placement = _of_workers(run.settings, run.device.kind)
    elif _has_stages(kept.get(run.run_key), run.settings):
        placement = Placement.of_dict(kept[run.run_key])
    else:
        placement = decide(run.settings, shape_of(run.datasets), run.splits, run.device, rates.known(run.device))
    others = dict([item for item in kept.items() if item[0] != run.run_key][-KEPT_RUNS:])
    now = {**others, run.run_key: placement.as_dict()}
    if list(now.items()) != list(kept.items()):
        write_atomic(run.store.kept(FILE), json.dumps(now, indent=1).encode())
    return placement


def _of_workers(settings: Config, home: str) -> Placement:
    """Workers fit on their device what does not belong on the CPU; see `fold_data.where`."""
    placed = {}
    for estimator in registry.estimators(settings.training.models):
        for name in {stage_name(estimator, group) for group in (None, "group")}:
            reason = estimator.on_host or "workers fit it on their device"
            placed[name] = Placed(name, CPU if estimator.on_host else home, reason)
    return Placement(home, placed)


def of_last_run(store: Store, settings: Config, device: Device) -> Placement | None:
    """The placement of the last run in an OUT; None where none is kept that has the stages of the settings."""
    if device.kind == CPU:
        return Placement(CPU)
    last = next(reversed(_kept(store).values()), None)
    return Placement.of_dict(last) if last is not None and _has_stages(last, settings) else None


def _kept(store: Store) -> dict[str, Any]:
    """Placements by run key, the last run at the end."""
    try:
        kept = json.loads(store.kept(FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _has_stages(kept: dict[str, Any] | None, settings: Config) -> bool:
    """Whether a kept placement has all stages of a run: a tuning's key leaves out the families."""
    return kept is not None and set(stage_names(settings)) <= set(kept["stages"])
