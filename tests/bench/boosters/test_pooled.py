"""On one matrix of all sectors, every sector is judged apart."""

from __future__ import annotations

import argparse

import pytest

from bench.boosters import pooled
from bench.boosters.peers import PEERS


@pytest.mark.parametrize("name", list(PEERS))
def test_on_one_matrix_every_sector_is_judged_apart(name, world, make_or_skip, capsys):
    options = argparse.Namespace(depths=[2, 3], rates=[0.2], our_depths=[2], rounds=8, patience=5, times=1)
    peers = {name: make_or_skip(PEERS[name])}
    result = pooled.compare(world, peers, options)  # it checks each peer's losses against its own curve
    pooled.show(result, {"xgb_joint": "xgb_joint", name: name})
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
