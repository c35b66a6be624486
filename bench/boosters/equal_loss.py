"""Time to equal validation log-loss: `python -m bench.boosters.equal_loss [--data FILE ...] [--rows sectors]`.

XGBoost, LightGBM and CatBoost used directly, one label after the other, and our xgb_joint, one booster for all labels.
--rows says from which rows the learners make their matrices:

    sectors   (default) theirs of one sector, ours of all sectors, and then the sector's own rounds, as in a run
    alone     all of one sector: pooling helps nobody
    pooled    all of all sectors together; each sector's rows are then judged apart (see pooled.py)

All see the same float32 rows of the same split, and use all cores, which bind.

Search. Each peer takes every rate and rising depths until one is worse, early-stopped; xgb_joint every depth, one for
all sectors. The target of a sector and label is the worst of the learners' best validation log-losses, so that all
reach it. A peer takes, of its settings that reach the target, the one that does so soonest.

Timed, in turns: fitting anew with as many rounds as the target takes, validated after each round as in the search.
A peer's seconds are the sum over the labels, its matrices made once a sector; ours are `share`, the sector's part of
the pooled fit, by its rows, plus its own stage (one thread), and `whole`, with all of the pooled fit.
Labels with too few BUY or SELL rows in a sector's training part (training.min_positives) are left out there.
Beside the times stands the sealed test's log-loss, of the rounds of the target and of the best ones. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench import runs
from bench.boosters import pooled
from bench.boosters.peers import PEERS, Booster, Setting, first_reaching
from bench.boosters.world import OURS, Curve, World, follow, of_options, search, time_peer
from bench.timing import timed
from gpupipe import config
from gpupipe.estimators import columns, registry
from gpupipe.estimators.training_set import Fold


@dataclass(frozen=True)
class Joint:
    """Our search: the settings, and by sector the losses after each pooled round and then each of its own.

    validation, test: float64 (rounds, n_labels).  pooled: how many of the rounds are the pooled booster's.
    seconds: of the pooled fit.
    """

    settings: config.Config
    pooled: int
    validation: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    seconds: float

    def mean_best(self, world: World) -> float:
        """Mean over sectors and labels of the lowest validation log-loss."""
        return float(np.mean([self.validation[s][:, k].min() for s, kept in world.kept.items() for k in kept]))


def with_stage(settings: config.Config, stage: str, **fields: Any) -> config.Config:
    """Settings with other values in one of the stages of xgb_joint."""
    return dataclasses.replace(settings, **{stage: dataclasses.replace(getattr(settings, stage), **fields)})


def search_ours(world: World, depth: int) -> Joint:
    """Fit the pooled booster, early-stopped, and a sector stage of all its rounds, and follow both round by round."""
    settings = with_stage(world.settings, "joint", depth=depth)
    family, fold = registry.family(OURS), world.fold()
    seconds, models = timed(lambda: family.fit_pool(fold, settings, None))
    plain = columns.unwrap(models) or []
    rounds, own_rounds = max(model.stages[0].rounds for model in plain), settings.joint_sector.rounds
    # As an out-of-fold round does it: without validation, so that every round is there to be followed.
    frozen = [dataclasses.replace(m, stages=(*m.stages, dataclasses.replace(m.stages[0], rounds=own_rounds)))
              for m in plain]  # fmt: skip
    losses: dict[str, dict[str, np.ndarray]] = {"validation": {}, "test": {}}
    for sector, matrix in world.matrices.items():
        own = family.fit_sector(fold, sector, settings, models, frozen)
        for part, by_sector in losses.items():
            by_sector[sector] = follow(own, getattr(matrix, part), own_rounds)
    return Joint(settings, rounds, **losses, seconds=seconds)


@dataclass(frozen=True)
class Need:
    """A peer's curve that reaches the target of a sector and label soonest, after how many rounds, and its best one."""

    curve: Curve
    rounds: int
    target: float
    best: Curve


def soonest(curves: list[Curve], target: float) -> Need:
    """Of a peer's settings that reach the target, the one that does so first."""
    able = [
        (curve.seconds * rounds / len(curve.mean), k, rounds) for k, curve in enumerate(curves)
        if (rounds := first_reaching(curve.mean, target)) is not None
    ]  # fmt: skip
    _, chosen, rounds = min(able)
    return Need(curves[chosen], rounds, target, min(curves, key=lambda curve: curve.mean.min()))


def time_pool(world: World, joint: Joint, rounds: int) -> tuple[float, tuple[Fold, list[Any]]]:
    """Seconds of the pooled fit with its bins, stopped after `rounds`; the fold and the models."""
    settings, fold = with_stage(joint.settings, "joint", rounds=rounds), world.fold()
    seconds, models = timed(lambda: registry.family(OURS).fit_pool(fold, settings, None))
    return seconds, (fold, models)


def time_stage(joint: Joint, fold: Fold, sector: str, models: list[Any], rounds: int) -> float:
    """Seconds of a sector's own stage with its bins, stopped after `rounds`; 0 without any."""
    if rounds == 0:
        return 0.0
    settings = with_stage(joint.settings, "joint_sector", rounds=rounds)
    return timed(lambda: registry.family(OURS).fit_sector(fold, sector, settings, models, None))[0]


def compare(world: World, peers: dict[str, Booster], options: argparse.Namespace) -> dict[str, Any]:
    """Search, agree on targets, time in turns; the result by sector."""
    joints = []
    for depth in options.our_depths:
        joints.append(search_ours(world, depth))
        print(f"{OURS} depth {depth}: validation {joints[-1].mean_best(world):.5f}, {joints[-1].pooled} pooled rounds, "
              f"{joints[-1].seconds:.1f} s", flush=True)  # fmt: skip
    joint = min(joints, key=lambda joint: joint.mean_best(world))
    needs: dict[str, dict[str, dict[int, Need]]] = {}
    reached: dict[str, dict[int, int]] = {}  # round of our curve
    for s, matrix in world.matrices.items():
        needs[s], reached[s] = {p: {} for p in peers}, {}
        for k in world.kept[s]:
            max_bin = world.settings.training.max_bin
            curves = {p: search(peer, matrix, k, [matrix], max_bin, options) for p, peer in peers.items()}
            bests = [min(curve.mean.min() for curve in tried) for tried in curves.values()]
            target = max(*bests, joint.validation[s][:, k].min())
            for p, tried in curves.items():
                needs[s][p][k] = soonest(tried, target)
            reached[s][k] = first_reaching(joint.validation[s][:, k], target) or 0
        print(f"searched {s}: { {p: chosen_settings(own) for p, own in needs[s].items()} }", flush=True)
    return timed_in_turn(world, peers, joint, needs, reached, options.times)


def chosen_settings(needs: dict[int, Need]) -> list[tuple[int, float]]:
    return sorted({(need.curve.setting.depth, need.curve.setting.rate) for need in needs.values()})


def alone(world: World, peers: dict[str, Booster], options: argparse.Namespace) -> dict[str, Any]:
    """As `compare`, with nothing pooled: each sector is a world of its own, in which ours chooses its depth."""
    lines = []
    for sector in world.matrices:
        result = compare(world.only(sector), peers, options)
        lines += [line | {"our_depth": result["our_depth"]} for line in result["sectors"]]
    return {"sectors": lines}


def timed_in_turn(
    world: World, peers: dict[str, Booster], joint: Joint, needs: Any, reached: Any, times: int
) -> dict[str, Any]:
    own_rounds = {s: max([0, *(r - joint.pooled for r in rounds.values())]) for s, rounds in reached.items()}
    # Where some label needs its sector's own rounds, the pooled booster is the whole one that they start from.
    pool_rounds = max(r for rounds in reached.values() for r in rounds.values())
    pool_rounds = joint.settings.joint.rounds if any(own_rounds.values()) else pool_rounds
    seconds: dict[tuple[str, str], list[float]] = {(s, p): [] for s in reached for p in (OURS, *peers)}
    pool_s: list[float] = []
    for _ in range(times):
        elapsed_s, (fold, models) = time_pool(world, joint, pool_rounds)
        pool_s.append(elapsed_s)
        for s in reached:
            seconds[s, OURS].append(time_stage(joint, fold, s, models, own_rounds[s]))
            for p, peer in peers.items():
                wanted: dict[int, tuple[Setting, int]] = {
                    k: (need.curve.setting, need.rounds) for k, need in needs[s][p].items()
                }
                spent = time_peer(peer, world.matrices[s], wanted)
                for k, need in needs[s][p].items():  # LightGBM's sums depend on its threads a little
                    assert spent.loss[k] <= need.target * 1.002, (p, k, spent.loss[k], need.target)
                seconds[s, p].append(spent.total)
        del fold, models
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    lines = [line_of(world, s, joint, needs[s], reached[s], statistics.median(pool_s), medians) for s in reached]
    return {"sectors": lines, "pool_s": statistics.median(pool_s), "pool_rounds_at_most": pool_rounds,
            "our_depth": joint.settings.joint.depth}  # fmt: skip


def line_of(
    world: World, s: str, joint: Joint, needs: Any, reached: dict[int, int], pool_s: float, medians: dict[Any, float]
) -> dict[str, Any]:
    """The result of one sector."""
    n_rows, mean = world.matrices[s].train.n, statistics.fmean
    stage = medians[s, OURS]
    share = pool_s * n_rows / sum(matrix.train.n for matrix in world.matrices.values()) + stage
    best = {p: medians[s, p] for p in needs}
    validation, test = joint.validation[s], joint.test[s]
    names = dict(zip(reached, world.names(reached), strict=True))
    return {
        "sector": s, "labels": list(names.values()), "rows_train": n_rows,
        "left_out": [name for name in world.label_names if name not in names.values()],
        "ours_share_s": share, "ours_whole_s": pool_s + stage, "ours_own_stage_s": stage, "peers_s": best,
        "ratio_share": min(best.values()) / share, "ratio_whole": min(best.values()) / (pool_s + stage),
        "test_at_target": {p: mean(float(n.curve.test[n.rounds - 1, 0]) for n in own.values())
                           for p, own in needs.items()}
        | {OURS: mean(test[r - 1, k] for k, r in reached.items())},
        "test_at_best": {p: mean(float(n.best.test[n.best.best, 0]) for n in own.values()) for p, own in needs.items()}
        | {OURS: mean(test[validation[:, k].argmin(), k] for k in reached)},
        "validation_at_best": {p: mean(float(n.best.mean.min()) for n in own.values()) for p, own in needs.items()}
        | {OURS: mean(validation[:, k].min() for k in reached)},
        "settings": {
            p: {names[k]: [n.curve.setting.depth, n.curve.setting.rate, n.rounds] for k, n in own.items()}
            for p, own in needs.items()
        },
        "ours_rounds": {names[k]: [min(r, joint.pooled), max(0, r - joint.pooled)] for k, r in reached.items()},
    }  # fmt: skip


def show(result: dict[str, Any], names: dict[str, str]) -> None:
    """The table: seconds of all labels of a sector to equal validation log-loss, and the sealed log-loss."""
    in_all = f"pooled fit of all sectors: {result['pool_s']:.1f} s; " if "pool_s" in result else ""
    print(f"\n{in_all}seconds to equal validation log-loss, and (sealed log-loss then / at its best):")
    for line in result["sectors"]:
        sides = [(OURS, line["ours_share_s"]), *line["peers_s"].items()]
        text = "  ".join(
            f"{names[p].split()[0]} {s:.2f} ({line['test_at_target'][p]:.4f} / {line['test_at_best'][p]:.4f})"
            for p, s in sides
        )
        print(f"{line['sector']:24s} {text}  ratio {line['ratio_share']:.2f}, undivided {line['ratio_whole']:.2f}")


WAYS = {"sectors": (compare, show), "alone": (alone, show), "pooled": (pooled.compare, pooled.show)}


def main() -> int:
    parser = runs.options(__doc__, data="demo", preset="fast", set=[], times=3)
    parser.add_argument("--rows", default="sectors", choices=list(WAYS))
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
    run, print_table = WAYS[options.rows]
    result = run(world, peers, options)
    names = {OURS: OURS, **{p: peer.name for p, peer in peers.items()}}
    print_table(result, names)
    print(json.dumps(runs.record(
        "equal_loss", **result, names=names, options=runs.chosen_options(options), rows=panel.n_rows,
        symbols=panel.n_symbols,
    )))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
