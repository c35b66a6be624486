"""A peer's curve is the log-loss of its predictions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bench.boosters.peers import PEERS, Setting, first_reaching, log_loss


def test_losses_and_rounds_by_hand():
    margin = np.log(np.array([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]]))
    assert log_loss(margin + 3, np.array([2, 1])) == pytest.approx(-np.log([0.5, 0.2]).mean())
    curve = np.array([0.9, 0.7, 0.8, 0.6])
    assert [first_reaching(curve, at) for at in (1.0, 0.7, 0.65, 0.5)] == [1, 2, 4, None]


@pytest.mark.parametrize("name", list(PEERS))
def test_a_peers_curve_is_the_log_loss_of_its_margins(name, world, make_or_skip):
    peer = make_or_skip(PEERS[name])
    matrix = world.matrices["energy"]
    built = peer.build(matrix, Setting(2, 0.2, 16))
    for depth, label in itertools.product((2, 3), (0, 3)):
        fitted = peer.fit(built, label, Setting(depth, 0.2, 16), 6, 6)
        assert len(fitted.curve) == 6

        def loss(margin, part, label=label):
            return log_loss(margin + matrix.prior[label], part.y[:, label])

        staged = [loss(margin, matrix.validation) for margin in fitted.staged(matrix.validation.X)]
        np.testing.assert_allclose(staged, fitted.curve, rtol=1e-5)
        for rounds in (1, 4, 6):
            computed = loss(fitted.between(matrix.validation.X, 0, rounds), matrix.validation)
            assert computed == pytest.approx(fitted.curve[rounds - 1], rel=1e-5)
        trained = loss(fitted.between(matrix.train.X, 0, 6), matrix.train)
        assert trained < 0.99 * loss(np.zeros((matrix.train.n, 3)), matrix.train)
