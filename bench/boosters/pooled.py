"""bench.boosters.equal_loss on one matrix of all sectors: the time until each learner is as good on a sector's rows.

Every learner is fitted on the rows of all sectors, at the setting with the lowest validation log-loss over all of them,
and early-stopped there: peers one label after the other, xgb_joint all labels at once. For a sector and label the
target is the worst of the learners' best log-losses on that sector's validation rows, so that all reach it. Seconds
until then: the preparation before the first round (CatBoost's for each label anew, as its Pool holds one), and of the
rounds the share up to the one that reaches the target; of peers the sum over labels, of xgb_joint, whose rounds serve
all labels, up to the last label's.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from typing import Any

import numpy as np

from bench.boosters.peers import Booster, first_reaching
from bench.boosters.world import ALL, OURS, Curve, Spent, World, follow, search, time_peer, together
from bench.timing import timed
from gpupipe.estimators import registry


def compare(world: World, peers: dict[str, Booster], options: argparse.Namespace) -> dict[str, Any]:
    """One line for each sector; see the module."""
    sectors = [s for s in world.matrices if world.kept[s]]
    whole = together(world)
    matrix, labels = whole.matrices[ALL], whole.kept[ALL]
    groups = [world.matrices[s] for s in sectors]
    curves: dict[str, dict[int, Curve]] = {p: {} for p in peers}
    for p, peer in peers.items():
        for k in labels:
            tried = search(peer, matrix, k, groups, world.settings.training.max_bin, options)
            curves[p][k] = best = min(tried, key=lambda curve: curve.mean.min())
            print(f"{p} {world.label_names[k]}: depth {best.setting.depth}, {len(best.mean)} rounds", flush=True)
    settings, curves[OURS] = search_ours(world, labels, groups, options)
    seconds: dict[str, list[Spent]] = {name: [] for name in curves}
    for _ in range(options.times):
        for p, peer in peers.items():
            wanted = {k: (curve.setting, len(curve.mean)) for k, curve in curves[p].items()}
            seconds[p].append(time_peer(peer, matrix, wanted))
        fold = world.fold()
        before, _ = timed(lambda fold=fold: fold.samples(settings.joint.subsample))
        fit, _ = timed(lambda fold=fold: registry.family(OURS).fit_pool(fold, settings, None))
        seconds[OURS].append(Spent(before, {}, {labels[0]: fit}, {}))
    medians = {name: median_of(spent) for name, spent in seconds.items()}
    lines = [line_of(world, n, s, curves, medians) for n, s in enumerate(sectors)]
    chosen = {
        p: {world.label_names[k]: [c.setting.depth, len(c.mean)] for k, c in curves[p].items()} for p in peers
    } | {OURS: {"all": [settings.joint.depth, len(curves[OURS][labels[0]].mean)]}}
    return {
        "sectors": lines, "before_s": {p: spent.before for p, spent in medians.items()},
        "before_labels_s": {p: sum(spent.before_label.values()) for p, spent in medians.items()},
        "fit_s": {p: sum(spent.rounds.values()) for p, spent in medians.items()}, "depth_and_rounds": chosen,
    }  # fmt: skip


def median_of(spent: list[Spent]) -> Spent:
    """The medians of each part of the time."""
    by_label = (
        {k: statistics.median(getattr(run, part)[k] for run in spent) for k in getattr(spent[0], part)}
        for part in ("before_label", "rounds")
    )
    return Spent(statistics.median(run.before for run in spent), *by_label, {})


def line_of(
    world: World, n: int, s: str, curves: dict[str, dict[int, Curve]], medians: dict[str, Spent]
) -> dict[str, Any]:
    """The result of sector `s`, the n-th group."""
    labels = [k for k in curves[OURS] if k in world.kept[s]]
    target = {k: max(by_label[k].validation[:, n].min() for by_label in curves.values()) for k in labels}
    rounds = {
        name: {k: first_reaching(by_label[k].validation[:, n], target[k]) or 0 for k in labels}
        for name, by_label in curves.items()
    }
    shares = {name: {k: r / len(curves[name][k].mean) for k, r in own.items()} for name, own in rounds.items()}
    spent = {
        p: own.before + sum(own.before_label[k] + own.rounds[k] * shares[p][k] for k in labels)
        for p, own in medians.items() if p != OURS
    }  # fmt: skip
    fastest = min(spent.values())
    spent[OURS] = medians[OURS].before + sum(medians[OURS].rounds.values()) * max(shares[OURS].values())
    best = {name: {k: by_label[k].validation[:, n].argmin() for k in labels} for name, by_label in curves.items()}

    def mean(part: str, at: dict[str, dict[int, int]]) -> dict[str, float]:
        return {name: float(np.mean([getattr(own[k], part)[at[name][k], n] for k in labels]))
                for name, own in curves.items()}  # fmt: skip

    return {
        "sector": s, "labels": world.names(labels), "seconds": spent, "ratio": fastest / spent[OURS],
        "rounds": {name: {world.label_names[k]: r for k, r in own.items()} for name, own in rounds.items()},
        "test_at_target": mean("test", {name: {k: r - 1 for k, r in own.items()} for name, own in rounds.items()}),
        "validation_at_best": mean("validation", best), "test_at_best": mean("test", best),
    }  # fmt: skip


def search_ours(
    world: World, labels: list[int], groups: list[Any], options: argparse.Namespace
) -> tuple[Any, dict[int, Curve]]:
    """xgb_joint's pooled stage at its best depth, and its losses by label on each group."""
    tried = []
    weights = [group.validation.n for group in groups]
    for depth in options.our_depths:
        settings = dataclasses.replace(world.settings, joint=dataclasses.replace(world.settings.joint, depth=depth))
        seconds, models = timed(lambda settings=settings: registry.family(OURS).fit_pool(world.fold(), settings, None))
        followed = np.stack([follow(models, group.validation) for group in groups], axis=1)
        means = np.average(followed, axis=1, weights=weights)
        tried.append((float(means.min(axis=0).mean()), depth, settings, models, followed, means, seconds))
        print(f"{OURS}: depth {depth}, {len(means)} rounds, {tried[-1][0]:.5f}", flush=True)
    _, _, settings, models, followed, means, seconds = min(tried, key=lambda one: one[:2])
    test = np.stack([follow(models, group.test) for group in groups], axis=1)
    return settings, {k: Curve(settings, means[:, k], followed[:, :, k], test[:, :, k], seconds) for k in labels}


def show(result: dict[str, Any], names: dict[str, str]) -> None:
    """The table: seconds until each learner is as good on a sector, and its sealed log-loss at its best."""
    print("\nseconds to equal validation log-loss on each sector (sealed log-loss at the best round):")
    for line in result["sectors"]:
        sides = [OURS, *(p for p in line["seconds"] if p != OURS)]
        text = "  ".join(
            f"{names[p].split()[0]} {line['seconds'][p]:.1f} ({line['test_at_best'][p]:.4f})" for p in sides
        )
        print(f"{line['sector']:24s} {text}  ratio {line['ratio']:.2f}")
