"""The learners that bench.boosters.equal_loss and bench.boosters.forests time say what they are compared by."""

from __future__ import annotations

import argparse
import dataclasses

import numpy as np
import pytest

from bench.boosters import equal_loss, forests
from bench.boosters import peers as booster_peers
from bench.boosters import pooled as equal_loss_pooled
from bench.boosters.peers import Setting, first_reaching, log_loss
from bench.kernels.label_peers import SkippedError
from gpupipe.config import make
from gpupipe.estimators import columns, registry
from tests.support.tiny import QUICK, in_sectors, tiny_market


@pytest.fixture(scope="module")
def world():
    return equal_loss.make_world(in_sectors(tiny_market(), ["energy", "utilities"]), make("fast", settings=QUICK), None)


def peer_or_skip(make_one, *arguments):
    try:
        return make_one(*arguments)
    except SkippedError as error:
        pytest.skip(str(error))


def test_losses_and_rounds_by_hand():
    margin = np.log(np.array([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]]))
    assert log_loss(margin + 3, np.array([2, 1])) == pytest.approx(-np.log([0.5, 0.2]).mean())
    curve = np.array([0.9, 0.7, 0.8, 0.6])
    assert [first_reaching(curve, at) for at in (1.0, 0.7, 0.65, 0.5)] == [1, 2, 4, None]
    said = np.array([[[0.0, 0.5, 0.5]], [[0.2, 0.8, 0.0]]])
    assert forests.mean_loss(said, np.array([[1], [0]])) == pytest.approx(-np.log([0.5, 0.2]).mean(), abs=1e-5)
    assert forests.mean_loss(said, np.array([[0], [2]])) == pytest.approx(-np.log(1e-6), abs=1e-4)


@pytest.mark.parametrize("name", list(booster_peers.PEERS))
def test_a_peers_curve_is_the_log_loss_of_what_it_says(name, world):
    peer = peer_or_skip(booster_peers.PEERS[name])
    matrix = world.matrices["energy"]
    built = peer.build(matrix, Setting(2, 0.2, 16))
    for depth in (2, 3):
        for label in (0, 3):
            fitted = peer.fit(built, label, Setting(depth, 0.2, 16), 6, 6)
            prior = log_loss(np.tile(matrix.prior[label], (len(matrix.train.X), 1)), matrix.train.y[:, label])
            assert len(fitted.curve) == 6
            for rounds in (1, 4, 6):
                found = equal_loss.loss_of(fitted, matrix.validation, matrix.prior, label, rounds)
                assert found == pytest.approx(fitted.curve[rounds - 1], rel=1e-5)
            assert equal_loss.loss_of(fitted, matrix.train, matrix.prior, label, 6) < 0.99 * prior


def test_our_curve_is_the_log_loss_of_the_models_cut_there(world):
    joint = equal_loss.search_ours(world, 3)
    family, fold = registry.family("xgb_joint"), world.fold()
    pooled = family.fit_pool(fold, joint.settings, None)
    picked = getattr(pooled[0], "columns", None)  # there are twins among the columns of this market
    rows = world.rows["utilities"]["validation"]
    assert joint.validation["utilities"].shape == (joint.pooled + joint.settings.joint_sector.rounds, 4)
    for rounds in (1, joint.pooled):
        cut = [
            dataclasses.replace(m, stages=(dataclasses.replace(m.stages[0], rounds=rounds),))
            for m in columns.unwrap(pooled)
        ]
        said = np.log(family.predict(columns.wrap(cut, picked), rows.X, fold.device))
        expected = [log_loss(said[:, k], rows.y[:, k]) for k in range(4)]
        np.testing.assert_allclose(joint.validation["utilities"][rounds - 1], expected, rtol=1e-5)


def test_rows_together_are_those_of_the_sectors(world):
    whole = equal_loss.together(world)
    assert list(whole.matrices) == [equal_loss.ALL]
    for part in ("train", "validation", "test"):
        own = np.concatenate([rows[part].X for rows in world.rows.values()])
        there = whole.rows[equal_loss.ALL][part]
        assert len(there.X) == len(own)
        assert not np.array_equal(there.X, own)
        y = np.concatenate([rows[part].y for rows in world.rows.values()])
        of_row = {row.tobytes(): label.tobytes() for row, label in zip(own, y, strict=True)}
        found = {row.tobytes(): label.tobytes() for row, label in zip(there.X, there.y, strict=True)}
        assert len(of_row) == len(own)
        assert found == of_row


@pytest.mark.parametrize("name", list(booster_peers.PEERS))
def test_on_one_matrix_every_sector_is_judged_apart(name, world, capsys):
    options = argparse.Namespace(
        depths=[2, 3], rates=[0.2], our_depths=[2], rounds=8, patience=5, times=1, rows="pooled"
    )
    peers = {name: peer_or_skip(booster_peers.PEERS[name])}
    result = equal_loss_pooled.compare(world, peers, options)  # it checks each peer's losses against its own curve
    equal_loss_pooled.show(result, {"xgb_joint": "xgb_joint", name: name})
    assert "utilities" in capsys.readouterr().out
    assert [line["sector"] for line in result["sectors"]] == ["energy", "utilities"]
    for line in result["sectors"]:
        for learner, rounds in line["rounds"].items():
            assert all(1 <= r <= 60 for r in rounds.values())
            most = sum(result[part][learner] for part in ("before_s", "before_labels_s", "fit_s"))
            assert result["before_s"][learner] < line["seconds"][learner] <= most * 1.000001
        assert line["ratio"] == pytest.approx(line["seconds"][name] / line["seconds"]["xgb_joint"])
        assert all(0 < loss < 1.1 for of in ("test_at_target", "test_at_best") for loss in line[of].values())
    assert (result["before_labels_s"][name] > 0) == (name == "catboost")  # whose bins are of one label


def test_a_comparison_of_two_sectors(world, capsys):
    options = argparse.Namespace(
        depths=[2, 3], rates=[0.2], our_depths=[2, 3], rounds=10, patience=5, times=1, peers="xgboost"
    )
    peers = {"xgboost": peer_or_skip(booster_peers.xgboost_peer)}
    result = equal_loss.compare(world, ["energy", "utilities"], peers, options)
    equal_loss.show(result, {"xgb_joint": "xgb_joint", "xgboost": "XGBoost"})
    assert "utilities" in capsys.readouterr().out
    for line in result["sectors"]:
        assert len(line["labels"]) + len(line["left_out"]) == 4
        assert 0 < line["ours_share_s"] < line["ours_whole_s"] and line["peers_s"]["xgboost"] > 0
        for losses in (line["test_at_target"], line["test_at_best"], line["validation_at_best"]):
            assert set(losses) == {"xgb_joint", "xgboost"} and all(0 < loss < 1.1 for loss in losses.values())
    with pytest.raises(SystemExit, match="no label label_9d"):
        equal_loss.make_world(tiny_market(), make("fast", settings=QUICK), ["label_9d"])


@pytest.mark.parametrize("name", ["random_forest", "xgboost", "lightgbm", "sklearn"])
def test_every_forest_beats_the_prior_for_one_label_and_for_all(name, world):
    contender = peer_or_skip(forests.CONTENDERS[name], world)
    matrix = world.matrices["energy"]
    for labels in ([1], world.kept["energy"]):
        said = contender.fit("energy", labels, forests.Grown(4, 8, 20, 0.25))(matrix.train.X)
        assert said.shape == (len(matrix.train.X), len(labels), 3)
        np.testing.assert_allclose(said.sum(axis=2), 1, atol=1e-5)
        prior = np.tile(np.exp(matrix.prior[labels]), (len(matrix.train.X), 1, 1))
        y = matrix.train.y[:, labels]
        assert forests.mean_loss(said, y) < 0.98 * forests.mean_loss(prior, y)


def test_forests_are_compared_at_the_worst_of_their_bests(world):
    options = argparse.Namespace(depths=[3, 5], trees=[4, 8], min_rows=20, column_share=0.25, times=1)
    there = {name: peer_or_skip(forests.CONTENDERS[name], world) for name in ("random_forest", "sklearn")}
    found = forests.compare(world, "energy", [0, 1], there, options)
    each = found["contenders"].values()
    assert found["target"] == max(one["validation_at_best"] for one in each)
    assert all(one["validation_at_best"] <= one["validation"] <= found["target"] for one in each)
    assert all(one["seconds"] > 0 for one in each) and found["labels"] == ["label_1d_2pct", "label_1d_4pct"]
