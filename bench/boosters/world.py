"""The rows that boosters and forests are compared on, and the losses of a learner round by round."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench import runs
from bench.boosters.peers import Booster, Matrix, Setting, log_loss
from bench.timing import cores, timed
from gpupipe import config
from gpupipe.data.panel import Panel
from gpupipe.estimators import columns
from gpupipe.estimators.boosting import tree_model
from gpupipe.estimators.training_set import Fold, Rows, gather, shuffled
from gpupipe.runtime.device import pick
from gpupipe.targets.classes import BUY, N_CLASSES, SELL
from gpupipe.training import prepare

OURS = "xgb_joint"
ALL = "all"
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class World:
    """Matrices and kept labels (column numbers) by sector. A label is kept where it has training.min_positives rows."""

    matrices: dict[str, Matrix]
    kept: dict[str, list[int]]
    label_names: tuple[str, ...]
    settings: config.Config

    def fold(self, sectors: Iterable[str] | None = None, labels: Sequence[int] | None = None) -> Fold:
        """A fold of all sectors and labels, or of some, without bins: making them is part of what is timed."""
        chosen = range(len(self.label_names)) if labels is None else labels

        def part(name: str) -> dict[str, Rows]:
            rows = {s: getattr(self.matrices[s], name) for s in sectors or self.matrices}
            return {s: Rows(r.X, np.ascontiguousarray(r.y[:, list(chosen)]), r.time_ns) for s, r in rows.items()}

        return Fold(
            name="final", fit=part("train"), validation=part("validation"),
            label_names=tuple(self.label_names[k] for k in chosen), device=pick("cpu"),
            max_bin=self.settings.training.max_bin, class_weight="none", threads=cores(), seed=self.settings.seed,
            ml=self.settings.ml,
        )  # fmt: skip

    def only(self, sector: str) -> World:
        """The world of one sector."""
        return dataclasses.replace(
            self, matrices={sector: self.matrices[sector]}, kept={sector: self.kept[sector]}
        )  # fmt: skip

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
    rows = {}
    for sector, dataset in prepared.datasets.items():
        cut = prepared.splits[sector]
        numbers = {**{part: getattr(cut, part) for part in PARTS}, "train": shuffled(cut.train, settings.seed, sector)}
        rows[sector] = {part: gather(dataset, at, chosen) for part, at in numbers.items()}
    return of_rows(rows, tuple(names[k] for k in chosen), settings)


def of_rows(rows: dict[str, dict[str, Rows]], label_names: tuple[str, ...], settings: config.Config) -> World:
    """A world of these rows by sector and part."""
    matrices, kept = {}, {}
    for sector, parts in rows.items():
        assert all((part.y >= 0).all() for part in parts.values())
        counts = np.stack([np.bincount(y, minlength=N_CLASSES) for y in parts["train"].y.T])
        prior = np.log((counts + 0.5) / (counts + 0.5).sum(axis=1, keepdims=True))
        matrices[sector] = Matrix(**parts, prior=prior)
        kept[sector] = np.flatnonzero(counts[:, [SELL, BUY]].min(axis=1) >= settings.training.min_positives).tolist()
    return World(matrices, kept, label_names, settings)


def together(world: World) -> World:
    """The same rows as if they were of one sector, in random order."""
    joined = {}
    for part in PARTS:
        of_part = [getattr(matrix, part) for matrix in world.matrices.values()]
        whole = Rows(*(np.concatenate([getattr(rows, name) for rows in of_part]) for name in ("X", "y", "time_ns")))
        joined[part] = whole.take(shuffled(np.arange(whole.n), world.settings.seed, ALL))
    return of_rows({ALL: joined}, world.label_names, world.settings)


@dataclass(frozen=True)
class Curve:
    """A learner on one label at one setting: log-losses by round on the rows of each group, float64 (rounds, n_groups).

    mean: float64 (rounds,), on the validation rows of all groups.  seconds: of the fit.
    """

    setting: Any
    mean: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    seconds: float

    @property
    def best(self) -> int:
        """The round, from 0, with the lowest validation log-loss."""
        return int(self.mean.argmin())


def search(
    peer: Booster, matrix: Matrix, label: int, groups: Sequence[Matrix], max_bin: int, options: argparse.Namespace
) -> list[Curve]:
    """A curve for each setting tried: every rate, and rising depths until one is worse, early-stopped.

    groups: whose validation and test rows are judged. AssertionError where the peer's own curve is not the log-loss of
    its margins.
    """
    curves: list[Curve] = []
    prior = matrix.prior[label]
    weights = [group.validation.n for group in groups]
    built = peer.build(matrix, Setting(options.depths[0], options.rates[0], max_bin))
    for rate in options.rates:
        best = np.inf
        for depth in options.depths:
            setting = Setting(depth, rate, max_bin)
            seconds, fitted = timed(
                lambda setting=setting: peer.fit(built, label, setting, options.rounds, options.patience)
            )
            validation, test = (
                np.array([
                    [log_loss(margin + prior, rows.y[:, label]) for margin in fitted.staged(rows.X)]
                    for rows in (getattr(group, part) for group in groups)
                ]).T
                for part in ("validation", "test")
            )  # fmt: skip
            np.testing.assert_allclose(np.average(validation, axis=1, weights=weights), fitted.curve, rtol=1e-4)
            curves.append(Curve(setting, fitted.curve, validation, test, seconds))
            if fitted.curve.min() >= best:
                break
            best = fitted.curve.min()
    return curves


@dataclass(frozen=True)
class Spent:
    """Seconds of a peer: before all labels, before the first round of each label, and of its rounds; its last loss."""

    before: float
    before_label: dict[int, float]
    rounds: dict[int, float]
    loss: dict[int, float]

    @property
    def total(self) -> float:
        return self.before + sum(self.before_label.values()) + sum(self.rounds.values())


def time_peer(peer: Booster, matrix: Matrix, wanted: dict[int, tuple[Setting, int]]) -> Spent:
    """One fit of each label, with its setting and number of rounds, on matrices that are made once."""
    before, built = timed(lambda: peer.build(matrix, next(iter(wanted.values()))[0]))
    spent = Spent(before, {}, {}, {})
    for label, (setting, rounds) in wanted.items():
        seconds, fitted = timed(
            lambda label=label, setting=setting, rounds=rounds: peer.fit(built, label, setting, rounds, rounds)
        )
        spent.before_label[label] = fitted.before_s
        spent.rounds[label] = seconds - fitted.before_s
        spent.loss[label] = float(fitted.curve[-1])
    return spent


def follow(models: list[Any], rows: Rows, own_rounds: int = 0) -> np.ndarray:
    """float64 (rounds, n_labels): log-loss of xgb_joint after each pooled round, then after each of the sector's own.

    A sector's own rounds start from each label's pooled booster cut at its best round.
    """
    if isinstance(models[0], columns.Picked):  # of fewer columns, as twins were left out
        rows = dataclasses.replace(rows, X=rows.X[:, models[0].columns])
    models = columns.unwrap(models) or []
    margin = np.tile(np.concatenate([model.bias for model in models]), (rows.n, 1))
    start, losses = margin.copy(), []
    labels = [slice(N_CLASSES * k, N_CLASSES * (k + 1)) for k in range(len(models))]

    def add_round(stage: int, to: np.ndarray, r: int) -> None:
        tree_model.add_activity(to, tree_model.stage_margin(models[0].stages[stage].booster, rows.X, r, r + 1))
        losses.append([log_loss(to[:, label], y) for label, y in zip(labels, rows.y.T, strict=True)])

    for r in range(max(model.stages[0].rounds for model in models)):
        add_round(0, margin, r)
        for label, model in zip(labels, models, strict=True):
            if model.stages[0].rounds == r + 1:
                start[:, label] = margin[:, label]
    for r in range(own_rounds if len(models[0].stages) > 1 else 0):
        add_round(1, start, r)
    return np.array(losses)
