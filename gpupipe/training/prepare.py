"""Prepare a run: features and targets of every group, and the folds in time that all groups share."""

from __future__ import annotations

import pathlib
import time
from dataclasses import dataclass
from typing import Any

from gpupipe.config import Config
from gpupipe.cross_validation.folds import Folds, make_folds
from gpupipe.cross_validation.split import Split, split
from gpupipe.data.panel import Panel
from gpupipe.dataset.dataset import Dataset
from gpupipe.runtime import run_log
from gpupipe.runtime.device import pick
from gpupipe.training.context import ShardedRows
from gpupipe.training.recipe import Recipe


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
    for group in panel.groups:
        datasets[group], features_hash, spent = (
            sharded_rows.dataset(group) if sharded_rows else make_dataset(workload, panel, group, settings, cache)
        )
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


def make_dataset(
    workload: Recipe, panel: Panel, group: str, settings: Config, cache: pathlib.Path | None = None
) -> tuple[Dataset, str, dict[str, float]]:
    """The dataset of one group, the hash of the features' names and formulas, and seconds by stage."""
    group_panel = panel.of_group(group)
    with panel.device.stage("features"):
        started = time.perf_counter()
        features = workload.features(group_panel, settings, cache)
        panel.device.sync()
        features_s = _logged("features", group, started, group_panel, features.values)
    with panel.device.stage("labels"):
        started = time.perf_counter()
        dataset = workload.dataset(group_panel, features, group, settings)
        panel.device.sync()
        labels_s = _logged("labels", group, started, group_panel, dataset.y)
    return dataset, features.hash, {"features": features_s, "labels": labels_s}


def _logged(stage: str, group: str, started: float, panel: Panel, array: Any) -> float:
    """Log an array of a group; returns the seconds since `started`."""
    seconds, kind = time.perf_counter() - started, panel.device.kind
    run_log.event(stage, stage=stage, unit=group, seconds=seconds, rows=panel.n_rows, bytes=array.nbytes, device=kind)
    return seconds


def outline(workload: Recipe, panel: Panel, settings: Config) -> Prepared:
    """Targets and folds as from `prepare`, without features; targets and bars alone determine the folds."""
    datasets = {group: workload.outline(panel.of_group(group), group, settings) for group in panel.groups}
    folds = make_folds(list(datasets.values()), settings.split)
    splits = {group: split(dataset, folds.published) for group, dataset in datasets.items()}
    return Prepared(datasets, splits, folds, "", {})
