"""Time to equal validation log-loss: `python -m bench.boosters.equal_loss [--data FILE ...] [--rows sectors]`.

XGBoost, LightGBM and CatBoost used directly, one label after the other, and our xgb_joint, one booster for all labels.
--rows says from which rows the learners make their matrices:

    sectors   (default) theirs of one sector, ours of all sectors, and then the sector's rounds, as in a run
    alone     all of one sector: pooling helps nobody
    pooled    all of all sectors together (ours without sector rounds); each sector's rows are then judged apart

All see the same float32 rows of the same split, and use all cores, which bind.

Search. Each peer takes every rate and rising depths until one is worse, early-stopped; xgb_joint every depth, one for
all sectors. The first target is the worst of the learners' best validation log-losses, so that all reach it; a peer
takes, of its settings that reach it, the one that does so soonest. Each sector's target is the worst of the chosen
curves' best log-losses on its validation rows.

Timed, in turns: fitting anew with as many rounds as in the search, validated after each. Seconds of a sector are the
preparation before the first round (CatBoost's for each label anew, as its Pool holds one), and the share of the rounds
up to the round that reaches the target: of peers the sum over labels, of xgb_joint, whose rounds serve all labels, up
to the last label's, plus the sector's stage (one thread). With --rows sectors the pooled fit is divided among the
sectors by their rows. Labels with fewer than training.min_positives rows of the first or last class in a sector's
training part are left out there. Beside the times stands the sealed test's log-loss, of the rounds of the target and of
the best ones. The last line is JSON. Results until 2026-11-22 were of fits with just the target's rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bench import runs
from bench.boosters.peers import PEERS, Booster, Setting, first_reaching, log_loss
from bench.boosters.world import ALL, Matrix, World, read_world, together
from bench.timing import timed
from gpupipe import config
from gpupipe.dataset.row_view import RowView
from gpupipe.estimators import columns, registry
from gpupipe.estimators.boosting import tree_model
from gpupipe.estimators.three_classes import CLASS_COUNT

OURS = "xgb_joint"


class SectorSet(NamedTuple):
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


Curves = dict[str, dict[int, Curve]]  # by learner, or sector set, and label
Rounds = dict[str, dict[int, int]]  # by learner and label


@dataclass(frozen=True)
class Ours:
    """Our search: the settings, how many of the rounds are the pooled booster's, and curves by sector set and label."""

    settings: config.Config
    pooled: int
    curves: Curves

    @property
    def mean_best(self) -> float:
        return float(np.mean([curve.mean.min() for by_label in self.curves.values() for curve in by_label.values()]))


def search_ours(world: World, sector_sets: dict[str, SectorSet], depth: int, sector_rounds: int) -> Ours:
    """Fit the pooled booster, early-stopped, then `sector_rounds` of each sector, and follow both round by round."""
    settings = world.settings.replace(joint=dataclasses.replace(world.settings.joint, depth=depth))
    estimator, training_set = registry.estimator(OURS), world.training_set()
    readable = registry.readable(settings, OURS)
    pooled = columns.fit_pool(estimator, training_set, readable, None)
    plain = columns.unwrap(pooled) or []
    by_sector = dict.fromkeys(world.matrices, pooled)
    if sector_rounds:
        # As an out-of-fold fit does it: without validation, so that every round is there to be followed.
        frozen = [dataclasses.replace(m, stages=(*m.stages, dataclasses.replace(m.stages[0], rounds=sector_rounds)))
                  for m in plain]  # fmt: skip
        by_sector = {s: columns.fit_group(estimator, training_set, s, readable, pooled, frozen) for s in world.matrices}
    losses = {
        s: [follow(by_sector[s], rows, sector_rounds) for rows in (matrix.validation, matrix.test)]
        for s, matrix in world.matrices.items()
    }
    curves = {}
    for name, (matrix, sectors) in sector_sets.items():
        validation, test = (np.stack([losses[s][k] for s in sectors], axis=1) for k in (0, 1))
        mean = np.average(validation, axis=1, weights=[world.matrices[s].validation.n for s in sectors])
        curves[name] = {k: Curve(depth, mean[:, k], validation[:, :, k], test[:, :, k]) for k in matrix.kept}
    return Ours(settings, max(model.stages[0].rounds for model in plain), curves)


def follow(models: list[Any], rows: RowView, sector_rounds: int = 0) -> np.ndarray:
    """float64 (rounds, n_labels): log-loss of xgb_joint after each pooled round, then after each of the sector's.

    A sector's rounds start from each label's pooled booster cut at its best round.
    """
    if isinstance(models[0], columns.ColumnSubsetModel):  # of fewer columns, as twins were left out
        rows = rows.of_columns(models[0].columns)
    models = columns.unwrap(models) or []
    margin = np.tile(np.concatenate([model.bias for model in models]), (rows.n, 1))
    start, losses = margin.copy(), []
    labels = [slice(CLASS_COUNT * k, CLASS_COUNT * (k + 1)) for k in range(len(models))]

    def add_round(stage: int, to: np.ndarray, r: int) -> None:
        tree_model.add_activity(to, tree_model.stage_margin(models[0].stages[stage].booster, rows.X, r, r + 1))
        losses.append([log_loss(to[:, label], y) for label, y in zip(labels, rows.y.T, strict=True)])

    for r in range(max(model.stages[0].rounds for model in models)):
        add_round(0, margin, r)
        for label, model in zip(labels, models, strict=True):
            if model.stages[0].rounds == r + 1:
                start[:, label] = margin[:, label]
    for r in range(sector_rounds if len(models[0].stages) > 1 else 0):
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


def time_ours(world: World, ours: Ours, sector_rounds: dict[str, int]) -> tuple[Spent, dict[str, float]]:
    """One pooled fit of all labels, and seconds of each sector's stage of so many rounds."""
    estimator, training_set, settings = registry.estimator(OURS), world.training_set(), ours.settings
    readable = registry.readable(settings, OURS)
    before, _ = timed(lambda: columns.make_shared([estimator], training_set, readable))  # bins and samples
    fit, models = timed(lambda: columns.fit_pool(estimator, training_set, readable, None))
    stages = dict.fromkeys(world.matrices, 0.0)
    for s, rounds in sector_rounds.items():
        if rounds:
            shorter = settings.replace(joint_sector=dataclasses.replace(settings.joint_sector, rounds=rounds))
            fit_group = partial(columns.fit_group, estimator, training_set, s, registry.readable(shorter, OURS))
            stages[s], _ = timed(partial(fit_group, models, None))
    return Spent(before, {}, {0: fit}), stages


def median_of(spent: Sequence[Spent]) -> Spent:
    """The medians of each part of the time."""
    by_label = ({k: statistics.median(getattr(fit, part)[k] for fit in spent) for k in getattr(spent[0], part)}
                for part in ("before_label", "rounds"))  # fmt: skip
    return Spent(statistics.median(fit.before for fit in spent), *by_label)


def compare(world: World, peers: dict[str, Booster], options: argparse.Namespace) -> list[runs.Line]:
    """Search, agree on targets, time in turns; a line for each sector."""
    if options.rows == "alone" and len(world.matrices) > 1:
        worlds = [dataclasses.replace(world, matrices={s: matrix}) for s, matrix in world.matrices.items()]
        return [line for alone in worlds for line in compare(alone, peers, options)]
    judged = [s for s, matrix in world.matrices.items() if matrix.kept]
    sector_sets = {s: SectorSet(world.matrices[s], [s]) for s in judged}
    sector_rounds = world.settings.joint_sector.rounds
    if options.rows == "pooled":
        sector_sets, sector_rounds = {ALL: SectorSet(together(world), judged)}, 0
    searches = [search_ours(world, sector_sets, depth, sector_rounds) for depth in options.our_depths]
    ours = min(searches, key=lambda search: search.mean_best)
    chosen = {name: choose(world, group, ours.curves[name], peers, options) for name, group in sector_sets.items()}
    rounds = {s: rounds_to_target(world, s, g, chosen[name]) for name, group in sector_sets.items()
              for g, s in enumerate(group.sectors)}  # fmt: skip
    shorter = {s: max(0, max(by_name[OURS].values(), default=0) - ours.pooled) for s, by_name in rounds.items()}
    pools, stages, peer_fits = [], [], []
    for _ in range(options.times):
        pool, stage_s = time_ours(world, ours, shorter)
        pools.append(pool)
        stages.append(stage_s)
        peer_fits.append({
            (name, p): time_peer(peer, group.matrix, chosen[name][p])
            for name, group in sector_sets.items() for p, peer in peers.items()
        })  # fmt: skip
    lines = []
    n_rows = sum(matrix.train.n for matrix in world.matrices.values())
    for name, group in sector_sets.items():
        spent = {p: median_of([run[name, p] for run in peer_fits]) for p in peers} | {OURS: median_of(pools)}
        for g, s in enumerate(group.sectors):
            stage = statistics.median(run[s] for run in stages)
            # In a run the pooled fit is shared by all sectors; here, where it is all there is, it is not.
            share = 1.0 if options.rows == "pooled" else world.matrices[s].train.n / n_rows
            lines.append(line_of(world, s, g, chosen[name], rounds[s], spent, (share, stage), ours.pooled))
    return lines


def choose(
    world: World, group: SectorSet, ours: dict[int, Curve], peers: dict[str, Booster], options: argparse.Namespace
) -> Curves:
    """By learner and label, the curve that is timed."""
    chosen: Curves = {name: {} for name in (OURS, *peers)}
    judged, max_bin = [world.matrices[s] for s in group.sectors], world.settings.training.max_bin
    for k in group.matrix.kept:
        curves = {p: search(peer, group.matrix, k, judged, max_bin, options) for p, peer in peers.items()}
        curves[OURS] = [ours[k]]
        target = max(min(curve.mean.min() for curve in tried) for tried in curves.values())
        for name, tried in curves.items():
            chosen[name][k] = soonest(tried, target) if name != OURS else ours[k]
    print(f"searched {', '.join(group.sectors)}", flush=True)
    return chosen


def rounds_to_target(world: World, s: str, g: int, curves: Curves) -> Rounds:
    """By learner and label, the rounds until a sector's target: the worst of the best losses on group `g`."""
    labels = [k for k in curves[OURS] if k in world.matrices[s].kept]
    target = {k: max(by_label[k].validation[:, g].min() for by_label in curves.values()) for k in labels}
    return {name: {k: first_reaching(by_label[k].validation[:, g], target[k]) or 0 for k in labels}
            for name, by_label in curves.items()}  # fmt: skip


def line_of(
    world: World, s: str, g: int, curves: Curves, rounds: Rounds, spent: dict[str, Spent], ours: Sequence, pooled: int
) -> runs.Line:
    """The result of one sector. ours: share of our pooled fit, seconds of the sector's stage.  pooled: rounds."""
    labels, names = list(rounds[OURS]), world.target.names
    best = {name: {k: int(by_label[k].validation[:, g].argmin()) for k in labels} for name, by_label in curves.items()}
    last = {name: {k: r - 1 for k, r in by_label.items()} for name, by_label in rounds.items()}

    def mean(part: str, at: Rounds) -> dict[str, float]:
        return {name: float(np.mean([getattr(by_label[k], part)[at[name][k], g] for k in labels]))
                for name, by_label in curves.items()}  # fmt: skip

    seconds = {
        name: fit.before + sum(fit.before_label[k] + fit.rounds[k] * rounds[name][k] / len(curves[name][k].mean)
                               for k in labels)
        for name, fit in spent.items() if name != OURS
    }  # fmt: skip
    share, stage = ours
    pool_share = min(max(rounds[OURS].values(), default=0), pooled) / pooled
    seconds[OURS] = share * (spent[OURS].before + spent[OURS].rounds[0] * pool_share) + stage
    return {
        "sector": s, "labels": world.names(labels), "rows_train": world.matrices[s].train.n,
        "left_out": [name for k, name in enumerate(names) if k not in labels], "seconds": seconds,
        "ratio": min(value for name, value in seconds.items() if name != OURS) / seconds[OURS],
        "rounds": {name: {names[k]: r for k, r in by_label.items()} for name, by_label in rounds.items()},
        "settings": {name: {names[k]: str(by_label[k].setting) for k in labels} for name, by_label in curves.items()},
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
    panel, world = read_world(options)
    peers = runs.installed(PEERS, options.peers)
    lines = compare(world, peers, options)
    print("\nseconds to equal validation log-loss on each sector (sealed log-loss then / at the best round):")
    for line in lines:
        text = "  ".join(f"{name} {s:.2f} ({line['test_at_target'][name]:.4f} / {line['test_at_best'][name]:.4f})"
                         for name, s in line["seconds"].items())  # fmt: skip
        print(f"{line['sector']:24s} {text}  ratio {line['ratio']:.2f}")
    return runs.finish(
        "equal_loss", sectors=lines, names={p: peer.name for p, peer in peers.items()}, rows=panel.n_rows,
        options=vars(options), symbols=panel.n_symbols,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
