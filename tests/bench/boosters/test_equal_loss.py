"""The time to equal loss of two sectors, with pooling and without."""

from __future__ import annotations

import argparse

import numpy as np

from bench.boosters import equal_loss
from bench.boosters.peers import PEERS
from bench.boosters.world import Curve

OPTIONS = argparse.Namespace(depths=[2, 3], rates=[0.2], our_depths=[2, 3], rounds=10, patience=5, times=1)


def test_the_setting_that_reaches_the_target_soonest_is_taken():
    def curve(setting, losses, seconds):
        losses = np.array(losses)
        return Curve(setting, losses, losses[:, None], losses[:, None] + 1, seconds)

    curves = [curve("slow", [0.9, 0.7, 0.5], 9.0), curve("fast", [0.9, 0.8, 0.6, 0.6], 4.0), curve("bad", [0.9], 0.1)]
    need = equal_loss.soonest(curves, 0.7)
    assert (need.curve.setting, need.rounds, need.best.setting, need.best.best) == ("fast", 3, "slow", 2)


def test_a_comparison_of_two_sectors(world, make_or_skip, capsys):
    peers = {"xgboost": make_or_skip(PEERS["xgboost"])}
    for compare in (equal_loss.compare, equal_loss.alone):
        result = compare(world, peers, OPTIONS)
        equal_loss.show(result, {"xgb_joint": "xgb_joint", "xgboost": "XGBoost"})
        assert "utilities" in capsys.readouterr().out
        for line in result["sectors"]:
            assert len(line["labels"]) + len(line["left_out"]) == 4
            assert line["ours_share_s"] <= line["ours_whole_s"] and line["peers_s"]["xgboost"] > 0
            assert (line["ours_share_s"] < line["ours_whole_s"]) == (compare is equal_loss.compare)
            for losses in (line["test_at_target"], line["test_at_best"], line["validation_at_best"]):
                assert set(losses) == {"xgb_joint", "xgboost"} and all(0 < loss < 1.1 for loss in losses.values())
