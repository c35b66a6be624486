"""Curves are what they say, and the time to equal loss is counted by sector, with pooling and without."""

from __future__ import annotations

import argparse
import dataclasses

import numpy as np
import pytest

from bench.boosters import equal_loss
from bench.boosters.equal_loss import Curve, Spent
from bench.boosters.peers import PEERS, log_loss
from gpupipe.estimators import columns, registry


def curve_of(setting, losses, seconds=1.0):
    losses = np.array(losses)
    return Curve(setting, losses, losses[:, None], losses[:, None] + 1, seconds)


def test_our_curve_is_the_log_loss_of_the_models_cut_there(world):
    sector_sets = {s: equal_loss.SectorSet(matrix, [s]) for s, matrix in world.matrices.items()}
    joint = equal_loss.search_ours(world, sector_sets, 3, world.settings.joint_sector.rounds)
    estimator, training_set = registry.estimator("xgb_joint"), world.training_set()
    pooled = columns.fit_pool(estimator, training_set, registry.readable(joint.settings, estimator.name), None)
    picked = getattr(pooled[0], "columns", None)  # there are twins among the columns of this market
    rows = world.matrices["utilities"].validation
    curves = joint.curves["utilities"]
    assert all(curve.validation.shape == (joint.pooled + 4, 1) for curve in curves.values()) and len(curves) > 2
    for rounds in (1, joint.pooled):
        cut = [
            dataclasses.replace(m, stages=(dataclasses.replace(m.stages[0], rounds=rounds),))
            for m in columns.unwrap(pooled)
        ]
        margin = np.log(columns.predict(estimator, columns.wrap(cut, picked), rows.features))
        for k, curve in curves.items():
            assert curve.mean[rounds - 1] == pytest.approx(log_loss(margin[:, k], rows.y[:, k]), rel=1e-5)


def test_the_setting_that_reaches_the_target_soonest_is_taken():
    curves = [curve_of("slow", [0.9, 0.7, 0.5], 9.0), curve_of("fast", [0.9, 0.8, 0.6, 0.6], 4.0),
              curve_of("bad", [0.9], 0.1)]  # fmt: skip
    assert equal_loss.soonest(curves, 0.7).setting == "fast"
    assert equal_loss.soonest(curves, 0.55).setting == "slow"


def test_seconds_are_those_of_the_rounds_up_to_the_target(world):
    (k, other, *_) = world.matrices["energy"].kept
    ours, theirs = ([0.9, 0.8, 0.7, 0.6], [0.9, 0.7, 0.7])
    curves = {"xgb_joint": {j: curve_of(3, ours) for j in (k, other)},
              "peer": {k: curve_of(2, theirs), other: curve_of(2, [0.5])}}  # fmt: skip
    rounds = equal_loss.rounds_to_target(world, "energy", 0, curves)
    assert rounds == {"xgb_joint": {k: 3, other: 4}, "peer": {k: 2, other: 1}}
    spent = {"xgb_joint": Spent(1.0, {}, {0: 6.0}), "peer": Spent(1.0, {k: 0.5, other: 0.0}, {k: 3.0, other: 4.0})}
    line = equal_loss.line_of(world, "energy", 0, curves, rounds, spent, (0.5, 0.25), pooled=3)  # the fourth is its own
    assert line["seconds"] == {"peer": 1.0 + 0.5 + 2.0 + 4.0, "xgb_joint": 0.5 * (1.0 + 6.0) + 0.25}
    assert line["ratio"] == 2.0 and line["test_at_target"]["peer"] == pytest.approx((1.7 + 1.5) / 2)


@pytest.mark.parametrize("rows", ["sectors", "alone", "pooled"])
@pytest.mark.parametrize("name", list(PEERS))
def test_every_sector_is_judged_apart(rows, name, world, make_or_skip):
    options = argparse.Namespace(
        rows=rows, depths=[2, 3], rates=[0.2], our_depths=[2, 3], rounds=8, patience=5, times=1
    )  # fmt: skip
    peers = {name: make_or_skip(PEERS[name])}
    lines = equal_loss.compare(world, peers, options)  # it checks each peer's losses against its own curve
    assert [line["sector"] for line in lines] == ["energy", "utilities"]
    for line in lines:
        assert len(line["labels"]) + len(line["left_out"]) == 4
        assert all(1 <= r <= 60 for rounds in line["rounds"].values() for r in rounds.values())
        assert line["ratio"] == pytest.approx(line["seconds"][name] / line["seconds"]["xgb_joint"])
        for losses in (line["test_at_target"], line["test_at_best"], line["validation_at_best"]):
            assert set(losses) == {"xgb_joint", name} and all(0 < loss < 1.1 for loss in losses.values())
