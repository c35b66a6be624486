"""Preparing: features and labels of every sector, and the folds in time that all sectors share."""

from __future__ import annotations

import pathlib
import time
from dataclasses import dataclass
from typing import Any

from gpupipe import config
from gpupipe.cross_validation.splits import Folds, Split, folds, split
from gpupipe.data.panel import Panel
from gpupipe.dataset.dataset import WARM_BARS, Dataset, join, without_features
from gpupipe.features.matrix import compute_features, feature_names, warm_up_of
from gpupipe.runtime import memory, run_log
from gpupipe.targets.triple_barrier import tp_dd_labels
from gpupipe.training.fold_tasks import Holders


@dataclass(frozen=True)
class Prepared:
    """Datasets of every sector, all folds of the run, the splits of the published one, and what was spent on them."""

    datasets: dict[str, Dataset]
    splits: dict[str, Split]
    folds: Folds
    features_hash: str
    seconds: dict[str, float]


def prepare(
    panel: Panel, settings: config.Config, cache: pathlib.Path | None = None, holders: Holders | None = None
) -> Prepared:
    """Features and labels of each sector, once, and the folds in time that all sectors share.

    The features of one's own must be there (`load_modules`).
    cache: a folder in which the features are kept in files, where the device is the CPU.
    holders: workers that have computed them.
    """
    seconds = {"features": 0.0, "labels": 0.0, "split": 0.0}
    datasets: dict[str, Dataset] = {}
    features_hash = ""
    for sector in panel.sectors:
        datasets[sector], features_hash, spent = (
            holders.dataset(sector) if holders else dataset_of(panel, sector, settings, cache)
        )
        for stage, elapsed_s in spent.items():
            seconds[stage] += elapsed_s
    started = time.perf_counter()
    with panel.device.stage("split"):
        cut = folds(list(datasets.values()), settings.split)
        splits = {sector: split(dataset, cut.published) for sector, dataset in datasets.items()}
    seconds["split"] = time.perf_counter() - started
    return Prepared(datasets, splits, cut, features_hash, seconds)


def dataset_of(
    panel: Panel, sector: str, settings: config.Config, cache: pathlib.Path | None = None
) -> tuple[Dataset, str, dict[str, float]]:
    """Features and labels of one sector, the hash of the features' names and formulas, and the seconds of both."""
    own = panel.of_sector(sector)
    with panel.device.stage("features"):
        started = time.perf_counter()
        out = None
        if cache is not None and panel.device.kind == "cpu":
            out = memory.matrix((own.n_rows, len(feature_names(settings.features.names))), cache)
        features = compute_features(own, settings.features.names, out)
        panel.device.sync()
        features_s = _told("features", sector, started, own, features.values)
    with panel.device.stage("labels"):
        started = time.perf_counter()
        wanted = settings.labels
        labels = tp_dd_labels(own, wanted.horizons, wanted.thresholds, wanted.rule, wanted.window)
        weighted = settings.training.sample_weight == "uniqueness"
        dataset = join(own, features, labels, sector, weighted)
        panel.device.sync()
        labels_s = _told("labels", sector, started, own, dataset.y)
    return dataset, features.hash, {"features": features_s, "labels": labels_s}


def _told(stage: str, sector: str, started: float, panel: Panel, made: Any) -> float:
    """Log what was made of a sector; the seconds since it began."""
    seconds, kind = time.perf_counter() - started, panel.device.kind
    run_log.event(stage, stage=stage, unit=sector, seconds=seconds, rows=panel.n_rows, bytes=made.nbytes, device=kind)
    return seconds


def outline(panel: Panel, settings: config.Config) -> Prepared:
    """Labels, and the folds that they and the bars alone tell of: what `prepare` gives, without any features.

    A row is taken for warm once as many bars of its symbol as the longest of the short columns needs are known.
    """
    datasets = {}
    needed = [warm_up_of(name) for name in feature_names(settings.features.names)]
    warm_bars = max([bars for bars in needed if bars <= WARM_BARS], default=0)
    wanted = settings.labels
    for sector in panel.sectors:
        own = panel.of_sector(sector)
        labels = tp_dd_labels(own, wanted.horizons, wanted.thresholds, wanted.rule, wanted.window)
        datasets[sector] = without_features(own, labels, sector, warm_bars)
    cut = folds(list(datasets.values()), settings.split)
    return Prepared(datasets, {sector: split(one, cut.published) for sector, one in datasets.items()}, cut, "", {})
