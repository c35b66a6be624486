"""Time to equal validation log-loss: `python -m bench.boosters.equal_loss [--data FILE --sector-map FILE]
[--rows sectors]`.

XGBoost, LightGBM and CatBoost used directly, one label after the other, and our xgb_joint, one booster for all labels.
--rows says of which rows the learners make their matrices:

    sectors   (default) theirs of one sector, ours of all sectors, and then the sector's own rounds, as in a run
    alone     all of one sector: what is pooled helps nobody
    pooled    all of all sectors together; each sector's rows are then judged apart (see equal_loss_pooled.py)

All see the same float32 rows of the same split.

Search. Each peer takes every rate and rising depths until one is worse, early-stopped; xgb_joint every depth, one for
all sectors. The target of a sector and label is the worst of the learners' best validation log-losses, so that all
reach it. A peer takes, of its settings that reach the target, the one that does so soonest.

Timed, in turns: fitting anew with as many rounds as the target takes, validated after each round as in the search.
A peer's seconds are the sum over the labels, its matrices made once a sector; ours are `share`, the sector's part of
the pooled fit, by its rows, plus its own stage (one thread), and `whole`, with all of the pooled fit.
Labels with too few BUY or SELL rows in a sector's training part (training.min_positives) are left out there.
The sealed test's log-loss stands beside, of the rounds of the target and of the best ones. The last line is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.boosters.peers import PEERS, Booster, Fitted, Matrix, Part, Setting, first_reaching, log_loss
from bench.kernels.label_peers import SkippedError
from bench.timing import cores
from gpupipe import config
from gpupipe.estimators import columns, registry
from gpupipe.estimators.boosting import tree_model
from gpupipe.estimators.training_set import Fold, Rows, gather, shuffled
from gpupipe.runtime.device import pick
from gpupipe.targets.classes import BUY, N_CLASSES, SELL
from gpupipe.training import prepare

OURS = "xgb_joint"
ALL = "all"


@dataclass(frozen=True)
class World:
    """What is compared: matrices and kept labels (column numbers) by sector, and how to make our fold anew."""

    matrices: dict[str, Matrix]
    kept: dict[str, list[int]]
    label_names: tuple[str, ...]
    rows: dict[str, dict[str, Rows]]
    settings: config.Config

    def fold(self, sectors: Iterable[str] | None = None, labels: Sequence[int] | None = None) -> Fold:
        """A fold of all sectors and labels, or of some, without bins: making them is part of what is timed."""

        def part(name: str) -> dict[str, Rows]:
            chosen = {s: self.rows[s][name] for s in sectors or self.rows}
            if labels is None:
                return chosen
            return {s: Rows(r.X, np.ascontiguousarray(r.y[:, list(labels)]), r.time_ns) for s, r in chosen.items()}

        return Fold(
            name="final", fit=part("train"), validation=part("validation"),
            label_names=tuple(n for k, n in enumerate(self.label_names) if labels is None or k in labels),
            device=pick("cpu"), max_bin=self.settings.training.max_bin, class_weight="none", threads=cores(),
            seed=self.settings.seed, ml=self.settings.ml,
        )  # fmt: skip


@dataclass
class Curve:
    """One search: validation loss after each round, and what the model says of validation and test rows."""

    setting: Any
    loss: np.ndarray
    seconds: float
    test_loss: dict[int, float] = field(default_factory=dict)  # by rounds


def make_world(panel: Any, settings: config.Config, labels: Iterable[str] | None) -> World:
    prepared = prepare.prepare(panel, settings)
    names = next(iter(prepared.datasets.values())).label_names
    if labels is not None and (unknown := set(labels) - set(names)):
        raise SystemExit(f"no label {', '.join(unknown)}; there are {', '.join(names)}")
    chosen = [k for k, name in enumerate(names) if labels is None or name in labels]
    rows = {}
    for sector, dataset in prepared.datasets.items():
        cut = prepared.splits[sector]
        numbers = {
            "train": shuffled(cut.train, settings.seed, sector), "validation": cut.validation, "test": cut.test
        }  # fmt: skip
        rows[sector] = {name: gather(dataset, at, chosen) for name, at in numbers.items()}
    return of_rows(rows, tuple(names[k] for k in chosen), settings)


def of_rows(rows: dict[str, dict[str, Rows]], label_names: tuple[str, ...], settings: config.Config) -> World:
    """A world of these rows: by sector, "train", "validation" and "test"."""
    matrices, kept = {}, {}
    for sector, by_part in rows.items():
        parts = {name: Part(found.X, found.y) for name, found in by_part.items()}
        assert all((part.y >= 0).all() for part in parts.values())
        counts = np.stack([np.bincount(y, minlength=N_CLASSES) for y in parts["train"].y.T])
        prior = np.log((counts + 0.5) / (counts + 0.5).sum(axis=1, keepdims=True))
        matrices[sector] = Matrix(parts["train"], parts["validation"], parts["test"], prior)
        enough = counts[:, [SELL, BUY]].min(axis=1) >= settings.training.min_positives
        kept[sector] = np.flatnonzero(enough).tolist()
    return World(matrices, kept, label_names, rows, settings)


def together(world: World) -> World:
    """The same rows as if they were of one sector, in random order."""
    joined = {}
    for part in ("train", "validation", "test"):
        of_part = [parts[part] for parts in world.rows.values()]
        whole = Rows(*(np.concatenate([getattr(rows, name) for rows in of_part]) for name in ("X", "y", "time_ns")))
        joined[part] = whole.take(shuffled(np.arange(whole.n), world.settings.seed, ALL))
    return of_rows({ALL: joined}, world.label_names, world.settings)


def search_peer(
    peer: Booster, built: Any, matrix: Matrix, label: int, max_bin: int, options: argparse.Namespace
) -> list[Curve]:
    """A curve for each setting tried; the first is checked against our own log-loss of what it says."""
    found: list[Curve] = []
    for rate in options.rates:
        best = np.inf
        for depth in options.depths:
            setting = Setting(depth, rate, max_bin)
            began = time.perf_counter()
            fitted = peer.fit(built, label, setting, options.rounds, options.patience)
            curve = Curve(setting, fitted.curve, time.perf_counter() - began)
            at = int(np.argmin(fitted.curve)) + 1
            curve.test_loss[at] = loss_of(fitted, matrix.test, matrix.prior, label, at)
            if not found:
                own = loss_of(fitted, matrix.validation, matrix.prior, label, at)
                assert abs(own - fitted.curve[at - 1]) < 1e-4 * own + 1e-5, (peer.name, own, fitted.curve[at - 1])
            found.append(curve)
            if fitted.curve.min() >= best:
                break
            best = fitted.curve.min()
    return found


def loss_of(fitted: Fitted, part: Part, prior: np.ndarray, label: int, rounds: int) -> float:
    return log_loss(fitted.margin(part.X, rounds) + prior[label], part.y[:, label])


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


def search_ours(world: World, depth: int) -> Joint:
    """Fit the pooled booster, early-stopped, and a sector stage of all its rounds, and follow both round by round."""
    joint = dataclasses.replace(world.settings.joint, depth=depth)
    settings = dataclasses.replace(world.settings, joint=joint)
    family, fold = registry.family(OURS), world.fold()
    began = time.perf_counter()
    pooled = family.fit_pool(fold, settings, None)
    seconds = time.perf_counter() - began
    plain = columns.unwrap(pooled) or []
    rounds = max(model.stages[0].rounds for model in plain)
    own_rounds = settings.joint_sector.rounds
    # As an out-of-fold round does it: without validation, so that every round is there to be followed.
    like = [dataclasses.replace(m, stages=(*m.stages, dataclasses.replace(m.stages[0], rounds=own_rounds)))
            for m in plain]  # fmt: skip
    validation, test = {}, {}
    for sector, parts in world.rows.items():
        own = family.fit_sector(fold, sector, settings, pooled, like)
        validation[sector], test[sector] = (follow(own, parts[p], rounds, own_rounds) for p in ("validation", "test"))
    return Joint(settings, rounds, validation, test, seconds)


def follow(fitted: list[Any], rows: Rows, rounds: int, own_rounds: int) -> np.ndarray:
    """float64 (rounds + own_rounds, n_labels): log-loss after each pooled round, then each of the sector's own."""
    losses = []
    if isinstance(fitted[0], columns.Picked):  # of fewer columns, as twins were left out
        rows = dataclasses.replace(rows, X=rows.X[:, fitted[0].columns])
    fitted = columns.unwrap(fitted) or []
    bias = np.concatenate([model.bias for model in fitted])
    margin, start = np.tile(bias, (rows.n, 1)), np.tile(bias, (rows.n, 1))

    def measured(at: np.ndarray) -> list[float]:
        return [log_loss(at[:, N_CLASSES * k : N_CLASSES * (k + 1)], y) for k, y in enumerate(rows.y.T)]

    for r in range(rounds):
        tree_model.add_activity(margin, tree_model.stage_margin(fitted[0].stages[0].booster, rows.X, r, r + 1))
        losses.append(measured(margin))
        for k, model in enumerate(fitted):
            if model.stages[0].rounds == r + 1:
                start[:, N_CLASSES * k : N_CLASSES * (k + 1)] = margin[:, N_CLASSES * k : N_CLASSES * (k + 1)]
    for r in range(own_rounds if len(fitted[0].stages) > 1 else 0):
        tree_model.add_activity(start, tree_model.stage_margin(fitted[0].stages[1].booster, rows.X, r, r + 1))
        losses.append(measured(start))
    return np.array(losses)


@dataclass(frozen=True)
class Need:
    """What a peer needs for one sector and label to reach the target, and its losses at its own best rounds."""

    setting: Setting
    rounds: int
    target: float
    test_at_best: float
    best: float


def soonest(curves: list[Curve], target: float) -> Need:
    """Of a peer's settings that reach the target, the one that does so first."""
    able = [(c.seconds * rounds / len(c.loss), k, rounds) for k, c in enumerate(curves)
            if (rounds := first_reaching(c.loss, target)) is not None]  # fmt: skip
    _, chosen, rounds = min(able)
    best = min(curves, key=lambda c: c.loss.min())
    test_at_best = best.test_loss[int(np.argmin(best.loss)) + 1]
    return Need(curves[chosen].setting, rounds, target, test_at_best, float(best.loss.min()))


def time_pool(world: World, joint: Joint, rounds: int) -> tuple[float, Fold, list[Any]]:
    """Seconds of the pooled fit with its bins, stopped after `rounds`."""
    stage = dataclasses.replace(joint.settings.joint, rounds=rounds)
    fold = world.fold()
    began = time.perf_counter()
    pooled = registry.family(OURS).fit_pool(fold, dataclasses.replace(joint.settings, joint=stage), None)
    return time.perf_counter() - began, fold, pooled


def time_stage(joint: Joint, fold: Fold, sector: str, pooled: list[Any], rounds: int) -> float:
    """Seconds of a sector's own stage with its bins, stopped after `rounds`; 0 without any."""
    if rounds == 0:
        return 0.0
    stage = dataclasses.replace(joint.settings.joint_sector, rounds=rounds)
    settings = dataclasses.replace(joint.settings, joint_sector=stage)
    began = time.perf_counter()
    registry.family(OURS).fit_sector(fold, sector, settings, pooled, None)
    return time.perf_counter() - began


def time_peer(peer: Booster, matrix: Matrix, needs: dict[int, Need]) -> tuple[float, dict[int, float]]:
    """Seconds of all labels with the matrices made once, and the sealed log-loss of each label's model."""
    built, seconds, fitted = None, 0.0, {}
    for label, need in needs.items():
        began = time.perf_counter()
        built = peer.build(matrix, need.setting) if built is None else built
        fitted[label] = peer.fit(built, label, need.setting, need.rounds, need.rounds)
        seconds += time.perf_counter() - began
        # LightGBM's sums depend on its threads a little.
        assert fitted[label].curve[-1] <= need.target * 1.002, (peer.name, label, fitted[label].curve[-1], need)
    return seconds, {k: loss_of(f, matrix.test, matrix.prior, k, needs[k].rounds) for k, f in fitted.items()}


def compare(world: World, sectors: list[str], peers: dict[str, Booster], options: argparse.Namespace) -> dict[str, Any]:
    """Search, agree on targets, time in turns; the result by sector."""
    joints = []
    for depth in options.our_depths:
        joints.append(search_ours(world, depth))
        best = np.mean([joints[-1].validation[s][:, k].min() for s in sectors for k in world.kept[s]])
        print(f"{OURS} depth {depth}: validation {best:.5f}, {joints[-1].pooled} pooled rounds, "
              f"{joints[-1].seconds:.1f} s", flush=True)  # fmt: skip
    joint = min(joints, key=lambda j: np.mean([j.validation[s][:, k].min() for s in sectors for k in world.kept[s]]))
    needs: dict[str, dict[str, dict[int, Need]]] = {s: {p: {} for p in peers} for s in sectors}
    reached: dict[str, dict[int, int]] = {s: {} for s in sectors}  # round of our curve
    max_bin = world.settings.training.max_bin
    for s in sectors:
        matrix = world.matrices[s]
        first = Setting(options.depths[0], options.rates[0], max_bin)
        built = {p: peer.build(matrix, first) for p, peer in peers.items()}
        for k in world.kept[s]:
            curves = {p: search_peer(peer, built[p], matrix, k, max_bin, options) for p, peer in peers.items()}
            bests = [min(c.loss.min() for c in found) for found in curves.values()]
            target = max(*bests, joint.validation[s][:, k].min())
            for p in peers:
                needs[s][p][k] = soonest(curves[p], target)
            reached[s][k] = first_reaching(joint.validation[s][:, k], target) or 0
        chosen = {p: sorted({(n.setting.depth, n.setting.rate) for n in needs[s][p].values()}) for p in peers}
        print(f"searched {s}: {chosen}", flush=True)
    return _timed(world, sectors, peers, joint, needs, reached, options.times)


def alone(world: World, sectors: list[str], peers: dict[str, Booster], options: argparse.Namespace) -> dict[str, Any]:
    """As `compare`, with nothing pooled: each sector is a world of its own, in which ours chooses its depth."""
    lines = []
    for s in sectors:
        own = dataclasses.replace(
            world, matrices={s: world.matrices[s]}, kept={s: world.kept[s]}, rows={s: world.rows[s]}
        )
        found = compare(own, [s], peers, options)
        lines += [line | {"our_depth": found["our_depth"]} for line in found["sectors"]]
    return {"sectors": lines}


def _timed(
    world: World, sectors: list[str], peers: dict[str, Booster], joint: Joint, needs: Any, reached: Any, times: int
) -> dict[str, Any]:
    own = {s: max([0, *(r - joint.pooled for r in reached[s].values())]) for s in sectors}
    # Where some label needs its sector's own rounds, the pooled booster is the whole one that they start from.
    pool_rounds = max(r for s in sectors for r in reached[s].values())
    pool_rounds = joint.settings.joint.rounds if any(own.values()) else pool_rounds
    seconds: dict[tuple[str, str], list[float]] = {}
    test_at_target: dict[tuple[str, str], float] = {}
    pool_s: list[float] = []
    for _ in range(times):
        elapsed_s, fold, pooled = time_pool(world, joint, pool_rounds)
        pool_s.append(elapsed_s)
        for s in sectors:
            seconds.setdefault((s, OURS), []).append(time_stage(joint, fold, s, pooled, own[s]))
            for p, peer in peers.items():
                elapsed_s, losses = time_peer(peer, world.matrices[s], needs[s][p])
                seconds.setdefault((s, p), []).append(elapsed_s)
                test_at_target[s, p] = statistics.fmean(losses.values())
        del fold, pooled
    whole, n_rows = statistics.median(pool_s), sum(len(matrix.train.X) for matrix in world.matrices.values())
    lines = []
    for s in sectors:
        stage, labels = statistics.median(seconds[s, OURS]), list(reached[s])
        share = whole * len(world.matrices[s].train.X) / n_rows + stage
        best = {p: statistics.median(seconds[s, p]) for p in peers}
        lines.append({
            "sector": s, "labels": [world.label_names[k] for k in labels], "rows_train": len(world.matrices[s].train.X),
            "left_out": [n for k, n in enumerate(world.label_names) if k not in labels],
            "ours_share_s": share, "ours_whole_s": whole + stage, "ours_own_stage_s": stage, "peers_s": best,
            "ratio_share": min(best.values()) / share, "ratio_whole": min(best.values()) / (whole + stage),
            "test_at_target": {p: test_at_target[s, p] for p in peers}
            | {OURS: statistics.fmean(joint.test[s][reached[s][k] - 1, k] for k in labels)},
            "test_at_best": {p: statistics.fmean(n.test_at_best for n in needs[s][p].values()) for p in peers}
            | {OURS: statistics.fmean(joint.test[s][joint.validation[s][:, k].argmin(), k] for k in labels)},
            "validation_at_best": {p: statistics.fmean(n.best for n in needs[s][p].values()) for p in peers}
            | {OURS: statistics.fmean(joint.validation[s][:, k].min() for k in labels)},
            "settings": {p: {world.label_names[k]: [n.setting.depth, n.setting.rate, n.rounds]
                             for k, n in needs[s][p].items()} for p in peers},
            "ours_rounds": {world.label_names[k]: [min(r, joint.pooled), max(0, r - joint.pooled)]
                            for k, r in reached[s].items()},
        })  # fmt: skip
    return {"sectors": lines, "pool_s": whole, "pool_rounds_at_most": pool_rounds,
            "our_depth": joint.settings.joint.depth}  # fmt: skip


def show(result: dict[str, Any], names: dict[str, str]) -> None:
    """The table: seconds of all labels of a sector to equal validation log-loss, sealed log-loss beside."""
    pooled = f"pooled fit of all sectors: {result['pool_s']:.1f} s; " if "pool_s" in result else ""
    print(f"\n{pooled}seconds to equal validation log-loss, and (sealed log-loss then / at its best):")
    for line in result["sectors"]:
        sides = [(OURS, line["ours_share_s"]), *line["peers_s"].items()]
        text = "  ".join(
            f"{names[p].split()[0]} {s:.2f} ({line['test_at_target'][p]:.4f} / {line['test_at_best'][p]:.4f})"
            for p, s in sides
        )
        print(f"{line['sector']:24s} {text}  ratio {line['ratio_share']:.2f}, undivided {line['ratio_whole']:.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="demo")
    parser.add_argument("--sector-map")
    parser.add_argument("--sectors", default="all", help="to compare; the pooled booster is always of all")
    parser.add_argument("--rows", default="sectors", choices=("sectors", "alone", "pooled"))
    parser.add_argument("--labels", help="all, or as label_1d_5pct,label_5d_10pct")
    parser.add_argument("--preset", default="fast", help="of xgb_joint, whose depth is searched; and the bins of all")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--depths", type=whole_numbers, default=[2, 3, 4, 6])
    parser.add_argument("--rates", type=lambda text: [float(w) for w in text.split(",")], default=[0.15])
    parser.add_argument("--our-depths", type=whole_numbers, default=[3, 4, 5])
    parser.add_argument("--rounds", type=int, default=500, help="of a peer, at most")
    parser.add_argument("--patience", type=int, default=15)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args()
    from gpupipe.data import load

    panel, _ = load(options.data, options.sector_map, "all", "cpu")
    wanted = None if options.labels in (None, "all") else options.labels.split(",")
    world = make_world(panel, config.make(options.preset, settings=options.set), wanted)
    sectors = list(world.matrices) if options.sectors == "all" else options.sectors.split(",")
    sectors = [s for s in sectors if world.kept[s]]
    peers = {}
    for name in options.peers.split(","):
        try:
            peers[name] = PEERS[name]()
        except SkippedError as skipped:
            print(f"skipped: {skipped}")
    if options.rows == "alone":
        result = alone(world, sectors, peers, options)
    elif options.rows == "pooled":
        from bench.boosters import pooled as equal_loss_pooled

        result = equal_loss_pooled.compare(world, peers, options)
    else:
        result = compare(world, sectors, peers, options)
    names = {OURS: OURS, **{p: peer.name for p, peer in peers.items()}}
    (equal_loss_pooled.show if options.rows == "pooled" else show)(result, names)
    print(json.dumps({
        "benchmark": "equal_loss", **result, "names": names, "cores": cores(), "python": platform.python_version(),
        "options": {k: v for k, v in vars(options).items() if k not in ("data", "sector_map")},
        "rows": panel.n_rows, "symbols": panel.n_symbols,
    }))  # fmt: skip
    return 0


def whole_numbers(text: str) -> list[int]:
    """An option such as 2,3,4."""
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
