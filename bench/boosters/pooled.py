"""bench.boosters.equal_loss on one matrix of all sectors: each learner's time until it is as good on each
sector's rows.

Every learner is fitted on the rows of all sectors, at the setting with the lowest validation log-loss over all of them
(each depth is tried), and early-stopped there: peers one label after the other, xgb_joint all labels at once. For a
sector and label the target is the worst of the learners' best log-losses on that sector's validation rows, so that all
reach it. Seconds until then: what was made before the first round (by CatBoost for each label anew, as its Pool holds
one), and of the rounds the share up to the one that reaches the target; of peers the sum over labels, of xgb_joint,
whose rounds serve all labels, up to the last label's.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.boosters import equal_loss
from bench.boosters.equal_loss import ALL, OURS, World
from bench.boosters.peers import Booster, Matrix, Setting, first_reaching, log_loss
from gpupipe.estimators import columns, registry
from gpupipe.estimators.boosting import tree_model
from gpupipe.estimators.training_set import Rows
from gpupipe.targets.classes import N_CLASSES


@dataclass(frozen=True)
class Curves:
    """A learner on one label: log-loss by round on each sector's rows, float64 (rounds, n_sectors)."""

    setting: Any
    validation: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Spent:
    """Seconds of a learner: before all labels, before the first round of each label by itself, and of its rounds."""

    before: float
    before_label: dict[int, float]
    rounds: dict[int, float]


def compare(world: World, peers: dict[str, Booster], options: argparse.Namespace) -> dict[str, Any]:
    """One line for each sector; see the module."""
    sectors = [s for s in world.rows if world.kept[s]]
    whole = equal_loss.together(world)
    matrix, labels = whole.matrices[ALL], whole.kept[ALL]
    apart = {part: [world.rows[s][part] for s in sectors] for part in ("validation", "test")}
    curves = {p: {k: of_peer(p, peer, matrix, k, apart, world, options) for k in labels} for p, peer in peers.items()}
    settings, curves[OURS] = of_ours(world, labels, apart, options)
    seconds: dict[str, list[Spent]] = {name: [] for name in curves}
    for _ in range(options.times):
        for p, peer in peers.items():
            seconds[p].append(time_peer(peer, matrix, curves[p]))
        began = time.perf_counter()
        fold = world.fold()
        fold.samples(settings.joint.subsample)
        made = time.perf_counter()
        registry.family(OURS).fit_pool(fold, settings, None)
        seconds[OURS].append(Spent(made - began, {}, {labels[0]: time.perf_counter() - made}))
    before = {name: statistics.median(one.before for one in runs) for name, runs in seconds.items()}
    own_before, fit = (
        {name: {k: statistics.median(getattr(one, part)[k] for one in runs) for k in getattr(runs[0], part)}
         for name, runs in seconds.items()}
        for part in ("before_label", "rounds")
    )  # fmt: skip
    lines = []
    for n, s in enumerate(sectors):
        own = [k for k in labels if k in world.kept[s]]
        target = {k: max(by_label[k].validation[:, n].min() for by_label in curves.values()) for k in own}
        rounds = {
            name: {k: first_reaching(by_label[k].validation[:, n], target[k]) or 0 for k in own}
            for name, by_label in curves.items()
        }
        spent = {
            p: before[p] + sum(
                own_before[p][k] + fit[p][k] * rounds[p][k] / len(curves[p][k].validation) for k in own
            )
            for p in peers
        }  # fmt: skip
        spent[OURS] = before[OURS] + fit[OURS][labels[0]] * max(rounds[OURS].values()) / len(
            curves[OURS][labels[0]].validation
        )
        lines.append({
            "sector": s, "labels": [world.label_names[k] for k in own], "seconds": spent,
            "ratio": min(spent[p] for p in peers) / spent[OURS],
            "rounds": {name: {world.label_names[k]: r for k, r in of.items()} for name, of in rounds.items()},
            "test_at_target": {name: float(np.mean([by[k].test[rounds[name][k] - 1, n] for k in own]))
                               for name, by in curves.items()},
            "validation_at_best": {name: float(np.mean([by[k].validation[:, n].min() for k in own]))
                                   for name, by in curves.items()},
            "test_at_best": {name: float(np.mean([by[k].test[by[k].validation[:, n].argmin(), n] for k in own]))
                             for name, by in curves.items()},
        })  # fmt: skip
    chosen = {
        p: {world.label_names[k]: [c.setting.depth, len(c.validation)] for k, c in curves[p].items()} for p in peers
    }
    chosen[OURS] = {"all": [settings.joint.depth, len(curves[OURS][labels[0]].validation)]}
    return {"sectors": lines, "before_s": before,
            "before_labels_s": {p: sum(of.values()) for p, of in own_before.items()},
            "fit_s": {p: sum(of.values()) for p, of in fit.items()},
            "depth_and_rounds": chosen}  # fmt: skip


def of_peer(
    name: str, peer: Booster, matrix: Matrix, label: int, apart: dict[str, list[Rows]], world: World,
    options: argparse.Namespace,
) -> Curves:  # fmt: skip
    """The depth with the lowest validation log-loss over all sectors, and its losses on each."""
    best, found = np.inf, None
    for depth in options.depths:
        setting = Setting(depth, options.rates[0], world.settings.training.max_bin)
        fitted = peer.fit(peer.build(matrix, setting), label, setting, options.rounds, options.patience)
        if fitted.curve.min() >= best:
            break
        best, found = fitted.curve.min(), (setting, fitted)
    assert found is not None
    setting, fitted = found
    losses = {
        part: np.stack([
            [log_loss(margin + matrix.prior[label], rows.y[:, label]) for margin in fitted.staged(rows.X)]
            for rows in parts
        ], axis=1)
        for part, parts in apart.items()
    }  # fmt: skip
    weights = [rows.n for rows in apart["validation"]]
    np.testing.assert_allclose(np.average(losses["validation"], axis=1, weights=weights), fitted.curve, rtol=1e-4)
    print(f"{name} {world.label_names[label]}: depth {setting.depth}, {len(fitted.curve)} rounds", flush=True)
    return Curves(setting, losses["validation"], losses["test"])


def of_ours(
    world: World, labels: list[int], apart: dict[str, list[Rows]], options: argparse.Namespace
) -> tuple[Any, dict[int, Curves]]:
    """xgb_joint's pooled stage at its best depth, and its losses by label on each sector."""
    found: list[tuple[float, Any, list[Any]]] = []
    for depth in options.our_depths:
        settings = dataclasses.replace(
            world.settings, joint=dataclasses.replace(world.settings.joint, depth=depth)
        )  # fmt: skip
        pooled = registry.family(OURS).fit_pool(world.fold(), settings, None)
        followed = [follow(pooled, rows) for rows in apart["validation"]]
        means = np.average(followed, axis=0, weights=[rows.n for rows in apart["validation"]])
        found.append((float(means.min(axis=0).mean()), settings, pooled))
        print(f"{OURS}: depth {depth}, {len(means)} rounds, {found[-1][0]:.5f}", flush=True)
    _, settings, pooled = min(found, key=lambda one: one[0])
    losses = {part: np.stack([follow(pooled, rows) for rows in parts], axis=1) for part, parts in apart.items()}
    return settings, {k: Curves(settings, losses["validation"][:, :, k], losses["test"][:, :, k]) for k in labels}


def follow(pooled: list[Any], rows: Rows) -> np.ndarray:
    """float64 (rounds, n_labels): log-loss after each round of the pooled booster."""
    if isinstance(pooled[0], columns.Picked):  # of fewer columns, as twins were left out
        rows = dataclasses.replace(rows, X=rows.X[:, pooled[0].columns])
    pooled = columns.unwrap(pooled) or []
    margin = np.tile(np.concatenate([model.bias for model in pooled]), (rows.n, 1))
    found = []
    for r in range(max(model.stages[0].rounds for model in pooled)):
        tree_model.add_activity(margin, tree_model.stage_margin(pooled[0].stages[0].booster, rows.X, r, r + 1))
        found.append([
            log_loss(margin[:, N_CLASSES * k : N_CLASSES * (k + 1)], y) for k, y in enumerate(rows.y.T)
        ])  # fmt: skip
    return np.array(found)


def time_peer(peer: Booster, matrix: Matrix, curves: dict[int, Curves]) -> Spent:
    """One fit of every label, with as many rounds as the search took."""
    began = time.perf_counter()
    built = peer.build(matrix, next(iter(curves.values())).setting)
    spent = Spent(time.perf_counter() - began, {}, {})
    for k, one in curves.items():
        began = time.perf_counter()
        fitted = peer.fit(built, k, one.setting, len(one.validation), len(one.validation))
        spent.before_label[k] = fitted.before_s
        spent.rounds[k] = time.perf_counter() - began - fitted.before_s
    return spent


def show(result: dict[str, Any], names: dict[str, str]) -> None:
    """The table: seconds until each learner is as good on a sector, and its sealed log-loss at its best."""
    print("\nseconds to equal validation log-loss on each sector (sealed log-loss at the best round):")
    for line in result["sectors"]:
        sides = [OURS, *(p for p in line["seconds"] if p != OURS)]
        text = "  ".join(
            f"{names[p].split()[0]} {line['seconds'][p]:.1f} ({line['test_at_best'][p]:.4f})" for p in sides
        )
        print(f"{line['sector']:24s} {text}  ratio {line['ratio']:.2f}")
