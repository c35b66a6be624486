"""Time to equal validation log-loss: `python -m bench.boosters.equal_loss [--data FILE ...] [--rows sectors]`.

XGBoost, LightGBM and CatBoost used directly, one label after the other, and our xgb_joint, one booster for all labels.
--rows says from which rows the learners make their matrices:

    sectors   (default) theirs of one sector, ours of all sectors, and then the sector's own rounds, as in a run
    alone     all of one sector: pooling helps nobody
    pooled    all of all sectors together (ours without own rounds); each sector's rows are then judged apart

All see the same float32 rows of the same split, and use all cores, which bind.

Search. Each peer takes every rate and rising depths until one is worse, early-stopped; xgb_joint every depth, one for
all sectors. The first target is the worst of the learners' best validation log-losses, so that all reach it; a peer
takes, of its settings that reach it, the one that does so soonest. Each sector's target is the worst of the chosen
curves' best log-losses on its validation rows.

Timed, in turns: fitting anew with as many rounds as in the search, validated after each. Seconds of a sector are the
preparation before the first round (CatBoost's for each label anew, as its Pool holds one), and the share of the rounds
up to the one that reaches the target: of peers the sum over labels, of xgb_joint, whose rounds serve all labels, up to
the last label's, plus the sector's own stage (one thread). With --rows sectors the pooled fit is divided among the
sectors by their rows. Labels with too few BUY or SELL rows in a sector's training part
(training.min_positives) are left out there. Beside the times stands the sealed test's log-loss, of the rounds of the
target and of the best ones. The last line is JSON. Results until 2026-11-22 were of fits with just the target's rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bench import runs
from bench.boosters.peers import PEERS, Booster, Setting, first_reaching, log_loss
from bench.boosters.world import ALL, Matrix, World, of_options, together
from bench.timing import timed
from gpupipe import config
from gpupipe.estimators import columns, registry
from gpupipe.estimators.boosting import tree_model
from gpupipe.estimators.training_set import Rows
from gpupipe.targets.classes import N_CLASSES

OURS = "xgb_joint"


class Unit(NamedTuple):
    """Sectors whose rows are in one matrix of the peers, and are judged apart."""

    matrix: Matrix
    sectors: list[str]


@dataclass(frozen=True)
class Curve:
    """A learner on one label at one setting: log-losses by round on the rows of each group, float64 (rounds, n_groups).

    mean: float64 (rounds,), on the validation rows of all groups.  seconds: of the fit.
    """

    setting: Any
    mean: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    seconds: float = 0.0


def search(
    peer: Booster, matrix: Matrix, label: int, groups: Sequence[Matrix], max_bin: int, options: argparse.Namespace
) -> list[Curve]:
    """A curve for each setting tried; AssertionError where a peer's curve is not the log-loss of its margins."""
    curves: list[Curve] = []
    weights = [group.validation.n for group in groups]
    built = peer.build(matrix, Setting(options.depths[0], options.rates[0], max_bin))
    for rate in options.rates:
        best = np.inf
        for depth in options.depths:
            setting = Setting(depth, rate, max_bin)
            seconds, fitted = timed(partial(peer.fit, built, label, setting, options.rounds, options.patience))
            validation, test = (
                np.array([
                    [log_loss(margin + matrix.prior[label], rows.y[:, label]) for margin in fitted.staged(rows.X)]
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


def soonest(curves: list[Curve], target: float) -> Curve:
    """Of a peer's curves that reach the target, the one that does so first."""
    able = [(curve.seconds * rounds / len(curve.mean), k) for k, curve in enumerate(curves)
            if (rounds := first_reaching(curve.mean, target)) is not None]  # fmt: skip
    return curves[min(able)[1]]


@dataclass(frozen=True)
class Ours:
    """Our search: the settings, how many of the rounds are the pooled booster's, and curves by unit and label."""

    settings: config.Config
    pooled: int
    curves: dict[str, dict[int, Curve]]

    @property
    def mean_best(self) -> float:
        return float(np.mean([curve.mean.min() for by_label in self.curves.values() for curve in by_label.values()]))


def search_ours(world: World, units: dict[str, Unit], depth: int, own_rounds: int) -> Ours:
    """Fit the pooled booster, early-stopped, then `own_rounds` of each sector, and follow both round by round."""
    settings = dataclasses.replace(world.settings, joint=dataclasses.replace(world.settings.joint, depth=depth))
    family, fold = registry.family(OURS), world.fold()
    pooled = family.fit_pool(fold, settings, None)
    plain = columns.unwrap(pooled) or []
    by_sector = dict.fromkeys(world.matrices, pooled)
    if own_rounds:
        # As an out-of-fold round does it: without validation, so that every round is there to be followed.
        frozen = [dataclasses.replace(m, stages=(*m.stages, dataclasses.replace(m.stages[0], rounds=own_rounds)))
                  for m in plain]  # fmt: skip
        by_sector = {s: family.fit_sector(fold, s, settings, pooled, frozen) for s in world.matrices}
    losses = {
        s: [follow(by_sector[s], rows, own_rounds) for rows in (matrix.validation, matrix.test)]
        for s, matrix in world.matrices.items()
    }
    curves = {}
    for name, (matrix, sectors) in units.items():
        validation, test = (np.stack([losses[s][k] for s in sectors], axis=1) for k in (0, 1))
        mean = np.average(validation, axis=1, weights=[world.matrices[s].validation.n for s in sectors])
        curves[name] = {k: Curve(depth, mean[:, k], validation[:, :, k], test[:, :, k]) for k in matrix.kept}
    return Ours(settings, max(model.stages[0].rounds for model in plain), curves)


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


@dataclass
class Spent:
    """Seconds of one fit of all labels: before them, before the first round of each label, and of its rounds."""

    before: float
    before_label: dict[int, float]
    rounds: dict[int, float]


def time_peer(peer: Booster, matrix: Matrix, curves: dict[int, Curve]) -> Spent:
    """One fit of each label, at its setting, on matrices that are made once."""
    before, built = timed(lambda: peer.build(matrix, next(iter(curves.values())).setting))
    spent = Spent(before, {}, {})
    for label, curve in curves.items():
        rounds = len(curve.mean)
        seconds, fitted = timed(partial(peer.fit, built, label, curve.setting, rounds, rounds))
        spent.before_label[label], spent.rounds[label] = fitted.before_s, seconds - fitted.before_s
    return spent


def time_ours(world: World, ours: Ours, own_rounds: dict[str, int]) -> tuple[Spent, dict[str, float]]:
    """One pooled fit of all labels, and seconds of each sector's own stage of so many rounds."""
    family, fold, settings = registry.family(OURS), world.fold(), ours.settings
    before, _ = timed(lambda: fold.samples(settings.joint.subsample))
    fit, models = timed(lambda: family.fit_pool(fold, settings, None))
    stages = dict.fromkeys(world.matrices, 0.0)
    for s, rounds in own_rounds.items():
        if rounds:
            own = dataclasses.replace(settings, joint_sector=dataclasses.replace(settings.joint_sector, rounds=rounds))
            stages[s], _ = timed(partial(family.fit_sector, fold, s, own, models, None))
    return Spent(before, {}, {0: fit}), stages


def median_of(spent: Sequence[Spent]) -> Spent:
    """The medians of each part of the time."""
    by_label = ({k: statistics.median(getattr(one, part)[k] for one in spent) for k in getattr(spent[0], part)}
                for part in ("before_label", "rounds"))  # fmt: skip
    return Spent(statistics.median(one.before for one in spent), *by_label)


def compare(world: World, peers: dict[str, Booster], options: argparse.Namespace) -> list[runs.Line]:
    """Search, agree on targets, time in turns; a line for each sector."""
    if options.rows == "alone" and len(world.matrices) > 1:
        return [line for s in world.matrices for line in compare(world.only(s), peers, options)]
    judged = [s for s, matrix in world.matrices.items() if matrix.kept]
    units = {s: Unit(world.matrices[s], [s]) for s in judged}
    own_rounds = world.settings.joint_sector.rounds
    if options.rows == "pooled":
        units, own_rounds = {ALL: Unit(together(world), judged)}, 0
    tried = [search_ours(world, units, depth, own_rounds) for depth in options.our_depths]
    ours = min(tried, key=lambda one: one.mean_best)
    chosen = {name: choose(world, unit, ours.curves[name], peers, options) for name, unit in units.items()}
    rounds = {s: rounds_to_target(world, s, g, chosen[name]) for name, unit in units.items()
              for g, s in enumerate(unit.sectors)}  # fmt: skip
    own = {s: max(0, max(by_name[OURS].values(), default=0) - ours.pooled) for s, by_name in rounds.items()}
    pools, stages, of_peers = [], [], []
    for _ in range(options.times):
        pool, stage_s = time_ours(world, ours, own)
        pools.append(pool)
        stages.append(stage_s)
        of_peers.append({
            (name, p): time_peer(peer, unit.matrix, chosen[name][p])
            for name, unit in units.items() for p, peer in peers.items()
        })  # fmt: skip
    lines = []
    n_rows = sum(matrix.train.n for matrix in world.matrices.values())
    for name, unit in units.items():
        spent = {p: median_of([run[name, p] for run in of_peers]) for p in peers} | {OURS: median_of(pools)}
        for g, s in enumerate(unit.sectors):
            stage = statistics.median(run[s] for run in stages)
            # In a run the pooled fit is shared by all sectors; here, where it is all there is, it is not.
            share = 1.0 if options.rows == "pooled" else world.matrices[s].train.n / n_rows
            lines.append(line_of(world, s, g, chosen[name], rounds[s], spent, (share, stage), ours.pooled))
    return lines


def choose(
    world: World, unit: Unit, ours: dict[int, Curve], peers: dict[str, Booster], options: argparse.Namespace
) -> dict[str, dict[int, Curve]]:
    """By learner and label, the curve that is timed."""
    chosen: dict[str, dict[int, Curve]] = {name: {} for name in (OURS, *peers)}
    groups, max_bin = [world.matrices[s] for s in unit.sectors], world.settings.training.max_bin
    for k in unit.matrix.kept:
        curves = {p: search(peer, unit.matrix, k, groups, max_bin, options) for p, peer in peers.items()}
        curves[OURS] = [ours[k]]
        target = max(min(curve.mean.min() for curve in own) for own in curves.values())
        for name, own in curves.items():
            chosen[name][k] = soonest(own, target) if name != OURS else ours[k]
    print(f"searched {', '.join(unit.sectors)}", flush=True)
    return chosen


def rounds_to_target(world: World, s: str, g: int, curves: dict[str, dict[int, Curve]]) -> dict[str, dict[int, int]]:
    """By learner and label, the rounds until a sector's target: the worst of the best losses on group `g`."""
    labels = [k for k in curves[OURS] if k in world.matrices[s].kept]
    target = {k: max(own[k].validation[:, g].min() for own in curves.values()) for k in labels}
    return {name: {k: first_reaching(own[k].validation[:, g], target[k]) or 0 for k in labels}
            for name, own in curves.items()}  # fmt: skip


def line_of(
    world: World,
    s: str,
    g: int,
    curves: dict[str, dict[int, Curve]],
    rounds: dict[str, dict[int, int]],
    spent: dict[str, Spent],
    of_ours: tuple[float, float],
    pooled: int,
) -> runs.Line:
    """The result of one sector. of_ours: share of our pooled fit, seconds of our own stage.  pooled: its rounds."""
    labels = list(rounds[OURS])
    best = {name: {k: int(own[k].validation[:, g].argmin()) for k in labels} for name, own in curves.items()}
    last = {name: {k: r - 1 for k, r in own.items()} for name, own in rounds.items()}

    def mean(part: str, at: dict[str, dict[int, int]]) -> dict[str, float]:
        return {name: float(np.mean([getattr(own[k], part)[at[name][k], g] for k in labels]))
                for name, own in curves.items()}  # fmt: skip

    seconds = {
        name: own.before + sum(own.before_label[k] + own.rounds[k] * rounds[name][k] / len(curves[name][k].mean)
                               for k in labels)
        for name, own in spent.items() if name != OURS
    }  # fmt: skip
    share, stage = of_ours
    of_pool = min(max(rounds[OURS].values(), default=0), pooled) / pooled
    seconds[OURS] = share * (spent[OURS].before + spent[OURS].rounds[0] * of_pool) + stage
    return {
        "sector": s, "labels": world.names(labels), "rows_train": world.matrices[s].train.n,
        "left_out": [name for k, name in enumerate(world.label_names) if k not in labels], "seconds": seconds,
        "ratio": min(value for name, value in seconds.items() if name != OURS) / seconds[OURS],
        "rounds": {name: {world.label_names[k]: r for k, r in own.items()} for name, own in rounds.items()},
        "settings": {name: {world.label_names[k]: str(own[k].setting) for k in labels} for name, own in curves.items()},
        "our_pooled_rounds": pooled, "test_at_target": mean("test", last), "test_at_best": mean("test", best),
        "validation_at_best": mean("validation", best),
    }  # fmt: skip


def main() -> int:
    parser = runs.options(__doc__, data="demo", preset="fast", set=[], times=3)
    parser.add_argument("--rows", default="sectors", choices=("sectors", "alone", "pooled"))
    parser.add_argument("--labels", help="all, or as label_1d_5pct,label_5d_10pct")
    parser.add_argument("--depths", type=runs.numbers(), default=[2, 3, 4, 6])
    parser.add_argument("--rates", type=runs.numbers(float), default=[0.15])
    parser.add_argument("--our-depths", type=runs.numbers(), default=[3, 4, 5])
    parser.add_argument("--rounds", type=int, default=500, help="of a peer, at most")
    parser.add_argument("--patience", type=int, default=15)
    parser.add_argument("--peers", type=runs.numbers(str), default=list(PEERS))
    options = parser.parse_args()
    panel, world = of_options(options)
    peers = runs.installed(PEERS, options.peers)
    lines = compare(world, peers, options)
    print("\nseconds to equal validation log-loss on each sector (sealed log-loss then / at the best round):")
    for line in lines:
        text = "  ".join(f"{name} {s:.2f} ({line['test_at_target'][name]:.4f} / {line['test_at_best'][name]:.4f})"
                         for name, s in line["seconds"].items())  # fmt: skip
        print(f"{line['sector']:24s} {text}  ratio {line['ratio']:.2f}")
    print(json.dumps(runs.record(
        "equal_loss", sectors=lines, names={p: peer.name for p, peer in peers.items()}, rows=panel.n_rows,
        options=vars(options), symbols=panel.n_symbols,
    )))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
