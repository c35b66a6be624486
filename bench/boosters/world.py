"""The rows that boosters and forests are compared on, by sector, and the fold that ours are trained on."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from bench import runs
from bench.timing import cores
from gpupipe import config
from gpupipe.data.panel import Panel
from gpupipe.estimators.training_set import Fold, Rows, gather, shuffled
from gpupipe.runtime.device import pick
from gpupipe.targets.classes import BUY, N_CLASSES, SELL
from gpupipe.training import prepare

ALL = "all"
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Matrix:
    """The rows of a sector, every label known, and the logarithms of its class shares in training, (n_labels, 3).

    kept: numbers of the labels with training.min_positives BUY and SELL rows in training.
    """

    train: Rows
    validation: Rows
    test: Rows
    prior: np.ndarray
    kept: list[int]


@dataclass(frozen=True)
class World:
    """Matrices by sector, of the same labels."""

    matrices: dict[str, Matrix]
    label_names: tuple[str, ...]
    settings: config.Config

    def fold(self, sectors: Iterable[str] | None = None, labels: Sequence[int] | None = None) -> Fold:
        """A fold of all sectors and labels, or of some, without bins: making them is part of what is timed."""
        chosen = range(len(self.label_names)) if labels is None else labels

        def part(name: str) -> dict[str, Rows]:
            rows = {s: getattr(self.matrices[s], name) for s in sectors or self.matrices}
            return {s: Rows(r.X, np.ascontiguousarray(r.y[:, list(chosen)]), r.time_ns) for s, r in rows.items()}

        return Fold(
            name="final", fit=part("train"), validation=part("validation"), label_names=tuple(self.names(chosen)),
            device=pick("cpu"), max_bin=self.settings.training.max_bin, class_weight="none", threads=cores(),
            seed=self.settings.seed, ml=self.settings.ml,
        )  # fmt: skip

    def only(self, sector: str) -> World:
        return dataclasses.replace(self, matrices={sector: self.matrices[sector]})

    def names(self, labels: Iterable[int]) -> list[str]:
        return [self.label_names[k] for k in labels]


def of_options(chosen: argparse.Namespace) -> tuple[Panel, World]:
    """The panel and the world of --data, --labels, --preset and --set."""
    panel, _ = runs.read(chosen)
    labels = None if chosen.labels in (None, "all") else chosen.labels.split(",")
    return panel, of_panel(panel, config.make(chosen.preset, settings=chosen.set), labels)


def of_panel(panel: Panel, settings: config.Config, labels: Iterable[str] | None = None) -> World:
    """All sectors of a panel; SystemExit for a label that the settings do not have."""
    prepared = prepare.prepare(panel, settings)
    names = next(iter(prepared.datasets.values())).label_names
    if labels is not None and (unknown := set(labels) - set(names)):
        raise SystemExit(f"no label {', '.join(unknown)}; there are {', '.join(names)}")
    chosen = [k for k, name in enumerate(names) if labels is None or name in labels]
    matrices = {}
    for sector, dataset in prepared.datasets.items():
        cut = prepared.splits[sector]
        rows = (shuffled(cut.train, settings.seed, sector), cut.validation, cut.test)
        matrices[sector] = matrix_of([gather(dataset, at, chosen) for at in rows], settings)
    return World(matrices, tuple(names[k] for k in chosen), settings)


def matrix_of(parts: list[Rows], settings: config.Config) -> Matrix:
    """The matrix of training, validation and test rows."""
    assert all((part.y >= 0).all() for part in parts)
    counts = np.stack([np.bincount(y, minlength=N_CLASSES) for y in parts[0].y.T])
    kept = np.flatnonzero(counts[:, [SELL, BUY]].min(axis=1) >= settings.training.min_positives).tolist()
    return Matrix(*parts, np.log((counts + 0.5) / (counts + 0.5).sum(axis=1, keepdims=True)), kept)


def together(world: World) -> Matrix:
    """The rows of all sectors as if they were of one, in random order."""
    parts = []
    for part in PARTS:
        of_sectors = [getattr(matrix, part) for matrix in world.matrices.values()]
        whole = Rows(*(np.concatenate([getattr(rows, name) for rows in of_sectors]) for name in ("X", "y", "time_ns")))
        parts.append(whole.take(shuffled(np.arange(whole.n), world.settings.seed, ALL)))
    return matrix_of(parts, world.settings)
