"""Every forest learns, and forests are compared at equal loss."""

from __future__ import annotations

import argparse

import numpy as np
import pytest

from bench.boosters import forests


def test_losses_by_hand():
    probability = np.array([[[0.0, 0.5, 0.5]], [[0.2, 0.8, 0.0]]])
    loss = forests.mean_loss
    assert loss(probability, np.array([[1], [0]])) == pytest.approx(-np.log([0.5, 0.2]).mean(), abs=1e-5)
    assert loss(probability, np.array([[0], [2]])) == pytest.approx(-np.log(1e-6), abs=1e-4)


@pytest.mark.parametrize("name", ["random_forest", "xgboost", "lightgbm", "sklearn"])
def test_every_forest_beats_the_prior_for_one_label_and_for_all(name, world, make_or_skip):
    contender = make_or_skip(forests.CONTENDERS[name], world)
    matrix = world.matrices["energy"]
    for labels in ([1], world.matrices["energy"].kept):
        probability = contender.fit("energy", labels, forests.Grown(4, 8, 20, 0.25))(matrix.train.X)
        assert probability.shape == (len(matrix.train.X), len(labels), 3)
        np.testing.assert_allclose(probability.sum(axis=2), 1, atol=1e-5)
        prior = np.tile(np.exp(matrix.prior[labels]), (len(matrix.train.X), 1, 1))
        y = matrix.train.y[:, labels]
        assert forests.mean_loss(probability, y) < 0.98 * forests.mean_loss(prior, y)


def test_forests_are_compared_at_the_worst_of_their_bests(world, make_or_skip):
    options = argparse.Namespace(depths=[3, 5], trees=[4, 8], min_rows=20, column_share=0.25, times=1)
    contenders = {name: make_or_skip(forests.CONTENDERS[name], world) for name in ("random_forest", "sklearn")}
    result = forests.compare(world, "energy", [0, 1], contenders, options)
    lines = result["contenders"].values()
    assert result["target"] == max(line["validation_at_best"] for line in lines)
    assert all(line["validation_at_best"] <= line["validation"] <= result["target"] for line in lines)
    assert all(line["seconds"] > 0 for line in lines) and result["labels"] == ["label_1d_2pct", "label_1d_4pct"]
