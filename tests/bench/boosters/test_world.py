"""The rows of a world, and its training sets."""

from __future__ import annotations

import numpy as np
import pytest

from bench.boosters import world as worlds
from gpupipe.workloads.equity import make
from tests.support.tiny import QUICK, tiny_market


def test_rows_together_are_those_of_the_sectors(world):
    whole = worlds.together(world)
    assert set(whole.kept) >= set(world.matrices["energy"].kept)
    for part in worlds.PARTS:
        of_sectors = [getattr(matrix, part) for matrix in world.matrices.values()]
        X, y = (np.concatenate([getattr(rows, name) for rows in of_sectors]) for name in ("X", "y"))
        joined = getattr(whole, part)
        assert len(joined.X) == len(X)
        assert not np.array_equal(joined.X, X)
        of_row = {row.tobytes(): label.tobytes() for row, label in zip(X, y, strict=True)}
        assert len(of_row) == len(X)
        assert {row.tobytes(): label.tobytes() for row, label in zip(joined.X, joined.y, strict=True)} == of_row


def test_a_training_set_has_the_sectors_and_labels_that_are_asked_for(world):
    training_set = world.training_set(["utilities"], [3, 1])
    assert list(training_set.fit) == ["utilities"] and training_set.target.names == tuple(world.names([3, 1]))
    np.testing.assert_array_equal(training_set.fit["utilities"].y, world.matrices["utilities"].train.y[:, [3, 1]])
    with pytest.raises(SystemExit, match="no label label_9d"):
        worlds.make_world(tiny_market(), make("fast", settings=QUICK), ["label_9d"])
