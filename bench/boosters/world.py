"""The rows that boosters and forests are compared on, by sector, and the training set of gpupipe's estimators."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from bench import runs
from bench.timing import cores
from gpupipe import config
from gpupipe.data.panel import Panel
from gpupipe.dataset.dataset import Dataset
from gpupipe.dataset.row_view import RowView, shuffled
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.runtime.device import pick
from gpupipe.targets.target import Target
from gpupipe.training.prepare import prepare
from gpupipe.workloads import equity

ALL = "all"
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Matrix:
    """The rows of a sector, every label known, and the logarithms of its class shares in training, (n_labels, 3).

    kept: numbers of the labels whose first and last class have training.min_positives rows each in training.
    """

    train: RowView
    validation: RowView
    test: RowView
    prior: np.ndarray
    kept: list[int]


@dataclass(frozen=True)
class World:
    """Matrices by sector, of the same labels."""

    matrices: dict[str, Matrix]
    target: Target
    settings: config.Config

    def training_set(self, sectors: Iterable[str] | None = None, labels: Sequence[int] | None = None) -> TrainingSet:
        """Rows of all sectors and labels, or of some, without bins: to make them is part of what is timed."""
        chosen = list(range(len(self.target.names)) if labels is None else labels)

        def part(name: str) -> dict[str, RowView]:
            views = {s: getattr(self.matrices[s], name) for s in sectors or self.matrices}
            return {s: view.of_targets(chosen).with_weight(None) for s, view in views.items()}  # peers have no weights

        return TrainingSet(
            name="final", fit=part("train"), validation=part("validation"), target=self.target.take(chosen),
            device=pick("cpu"), max_bin=self.settings.training.max_bin, class_weight="none", threads=cores(),
            seed=self.settings.seed, ml=self.settings.ml,
        )  # fmt: skip

    def names(self, labels: Iterable[int]) -> list[str]:
        return [self.target.names[k] for k in labels]


def read_world(chosen: argparse.Namespace) -> tuple[Panel, World]:
    """The panel and the world of --data, --labels, --preset and --set."""
    panel, _ = runs.read(chosen)
    labels = None if chosen.labels in (None, "all") else chosen.labels.split(",")
    return panel, make_world(panel, equity.make(chosen.preset, settings=chosen.set), labels)


def make_world(panel: Panel, settings: config.Config, labels: Iterable[str] | None = None) -> World:
    """All sectors of a panel; SystemExit for a label that the settings do not have."""
    prepared = prepare(equity.EQUITY, panel, settings)
    target = equity.EQUITY.target(settings)
    if labels is not None and (unknown := set(labels) - set(target.names)):
        raise SystemExit(f"no label {', '.join(unknown)}; there are {', '.join(target.names)}")
    chosen = tuple(k for k, name in enumerate(target.names) if labels is None or name in labels)
    target = target.take(chosen)
    matrices = {}
    for sector, dataset in prepared.datasets.items():
        split = prepared.splits[sector]
        parts = (shuffled(split.train, settings.seed, sector), split.validation, split.test)
        matrices[sector] = matrix_of([RowView(dataset, rows, chosen) for rows in parts], settings, target)
    return World(matrices, target, settings)


def matrix_of(parts: list[RowView], settings: config.Config, target: Target) -> Matrix:
    """The matrix of training, validation and test rows, gathered now: no learner pays for it in its time."""
    assert all(part.X.shape[0] == part.n and (part.y >= 0).all() for part in parts)
    counts = np.stack([np.bincount(y, minlength=target.n_classes) for y in parts[0].y.T])
    kept = np.flatnonzero(counts[:, [0, -1]].min(axis=1) >= settings.training.min_positives).tolist()
    return Matrix(*parts, np.log((counts + 0.5) / (counts + 0.5).sum(axis=1, keepdims=True)), kept)


def together(world: World) -> Matrix:
    """The rows of all sectors as if they were of one, in random order."""
    return matrix_of([joined(world, part) for part in PARTS], world.settings, world.target)


def joined(world: World, part: str) -> RowView:
    """A part of all sectors as the rows of one dataset, in random order."""
    views: list[RowView] = [getattr(matrix, part) for matrix in world.matrices.values()]
    X, y, time_ns = (np.concatenate([getattr(view, name) for view in views]) for name in ("X", "y", "time_ns"))
    marks, names = np.ones(len(X), bool), views[0].dataset.names
    # The rows are split already, so nothing reads when their labels end.
    dataset = Dataset(ALL, X, names, y, world.target, time_ns, time_ns, marks, marks, np.array([0, len(X)]))
    return RowView(dataset, shuffled(np.arange(len(X)), world.settings.seed, ALL))
