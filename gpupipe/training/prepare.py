"""Prepare a run: features and targets of every group, and the folds in time that all groups share."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from gpupipe.config import Config
from gpupipe.cross_validation.folds import Folds, make_folds
from gpupipe.cross_validation.split import Split, split
from gpupipe.data.panel import Panel
from gpupipe.dataset.dataset import Dataset, share_digests
from gpupipe.features.matrix import Features
from gpupipe.runtime import run_log
from gpupipe.runtime.device import pick
from gpupipe.targets.triple_barrier import Labels
from gpupipe.training.context import ShardedRows
from gpupipe.training.recipe import Recipe

# Datasets by group, the hash of the features' names and formulas, and seconds by stage.
_Datasets = tuple[dict[str, Dataset], str, dict[str, float]]


@dataclass(frozen=True)
class Prepared:
    """Datasets of every group, the folds of the run, and the splits of the published fold.

    seconds: by stage: features, labels and split.

        >>> from gpupipe.data import simulate
        >>> from gpupipe.workloads.equity import EQUITY
        >>> prepared = outline(EQUITY, simulate(n_symbols=11, n_bars=400), EQUITY.settings("fast"))
        >>> split = prepared.splits["energy"]
        >>> len(split.train), len(split.validation), len(split.test)
        (191, 57, 67)
    """

    datasets: dict[str, Dataset]
    splits: dict[str, Split]
    folds: Folds
    features_hash: str
    seconds: dict[str, float]


def prepare(
    workload: Recipe,
    panel: Panel,
    settings: Config,
    cache: pathlib.Path | None = None,
    sharded_rows: ShardedRows | None = None,
) -> Prepared:
    """Compute the features and targets of each group, and the folds in time that all groups share.

    Features of the user's modules must be registered before (`load_modules`).
    cache: a folder for files that hold the features, on a CPU.
    sharded_rows: workers that have computed the datasets.
    """
    seconds = {"features": 0.0, "labels": 0.0, "split": 0.0}
    datasets: dict[str, Dataset] = {}
    features_hash = ""
    parts = _of_workers(sharded_rows, panel) if sharded_rows else _computed(workload, panel, settings, cache)
    for part, part_hash, spent in parts:
        datasets, features_hash = {**datasets, **part}, part_hash
        for stage, elapsed_s in spent.items():
            seconds[stage] += elapsed_s
    started = time.perf_counter()
    with panel.device.stage("split"):
        read = datasets
        if not sharded_rows:  # whose X is on their workers
            read = {group: dataset.on(pick("cpu")) for group, dataset in datasets.items()}
        folds = make_folds(list(read.values()), settings.split)
        splits = {group: split(dataset, folds.published) for group, dataset in read.items()}
    seconds["split"] = time.perf_counter() - started
    return Prepared(datasets, splits, folds, features_hash, seconds)


def _of_workers(sharded_rows: ShardedRows, panel: Panel) -> Iterator[_Datasets]:
    """The datasets of one group after another, which workers have computed."""
    for group in panel.groups:
        dataset, features_hash, seconds = sharded_rows.dataset(group)
        yield {group: dataset}, features_hash, seconds


def _computed(workload: Recipe, panel: Panel, settings: Config, cache: pathlib.Path | None) -> Iterator[_Datasets]:
    """The datasets of parts of the panel.

    On a GPU all groups are one part: a launch takes as long for one as for all. On a CPU each is a part of its own:
    features of one group at a time are held twice, and each has its own file where they do not fit in memory.
    """
    parts = map(panel.of_group, panel.groups) if panel.device.kind == "cpu" else [panel.by_group()]
    for part in parts:
        yield make_datasets(workload, part, settings, cache)


def make_dataset(
    workload: Recipe, panel: Panel, group: str, settings: Config, cache: pathlib.Path | None = None
) -> tuple[Dataset, str, dict[str, float]]:
    """The dataset of one group, the hash of the features' names and formulas, and seconds by stage."""
    datasets, features_hash, seconds = make_datasets(workload, panel.of_group(group), settings, cache)
    return datasets[group], features_hash, seconds


def make_datasets(workload: Recipe, panel: Panel, settings: Config, cache: pathlib.Path | None = None) -> _Datasets:
    """The datasets of all groups of a panel, the hash of the features' names and formulas, and seconds by stage.

    Each kernel is launched once; the arrays of a group are slices, as groups follow each other (`Panel.by_group`).
    """
    unit = panel.groups[0] if len(panel.groups) == 1 else f"{len(panel.groups)} groups"
    with panel.device.stage("features"):
        started = time.perf_counter()
        features = workload.features(panel, settings, cache)
        panel.device.sync()
        features_s = _logged("features", unit, started, panel, features.values.nbytes)
    with panel.device.stage("labels"):
        started = time.perf_counter()
        labels = workload.labels(panel, settings)
        if len(panel.groups) == 1:
            datasets = {unit: workload.dataset(panel, features, labels, unit, settings)}
        else:
            datasets = _slices(workload, panel, features, labels, settings)
        panel.device.sync()
        labels_s = _logged("labels", unit, started, panel, sum(dataset.y.nbytes for dataset in datasets.values()))
    return datasets, features.hash, {"features": features_s, "labels": labels_s}


def _slices(
    workload: Recipe, panel: Panel, features: Features, labels: Labels | None, settings: Config
) -> dict[str, Dataset]:
    """The datasets of groups that follow each other, from the features and labels of all."""
    datasets, as_computed = {}, True
    for group, rows in panel.slices_of_groups().items():
        own = panel.of_group(group)
        own_features, own_labels = features.part(rows, own), None if labels is None else labels.part(rows, own)
        datasets[group] = workload.dataset(own, own_features, own_labels, group, settings)
        as_computed = as_computed and datasets[group].X is own_features.values
    if as_computed:
        share_digests(list(datasets.values()), features.values)
    return datasets


def _logged(stage: str, unit: str, started: float, panel: Panel, n_bytes: int) -> float:
    """Log arrays of some groups; returns the seconds since `started`."""
    seconds, kind = time.perf_counter() - started, panel.device.kind
    run_log.event(stage, stage=stage, unit=unit, seconds=seconds, rows=panel.n_rows, bytes=n_bytes, device=kind)
    return seconds


def outline(workload: Recipe, panel: Panel, settings: Config) -> Prepared:
    """Targets and folds as from `prepare`, without features; targets and bars alone determine the folds."""
    datasets = {group: workload.outline(panel.of_group(group), group, settings) for group in panel.groups}
    folds = make_folds(list(datasets.values()), settings.split)
    splits = {group: split(dataset, folds.published) for group, dataset in datasets.items()}
    return Prepared(datasets, splits, folds, "", {})
