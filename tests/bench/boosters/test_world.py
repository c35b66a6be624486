"""The rows of a world, and the losses of xgb_joint round by round."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bench.boosters import equal_loss
from bench.boosters import world as worlds
from bench.boosters.peers import log_loss
from gpupipe.config import make
from gpupipe.estimators import columns, registry
from tests.support.tiny import QUICK, tiny_market


def test_our_curve_is_the_log_loss_of_the_models_cut_there(world):
    joint = equal_loss.search_ours(world, 3)
    family, fold = registry.family("xgb_joint"), world.fold()
    pooled = family.fit_pool(fold, joint.settings, None)
    picked = getattr(pooled[0], "columns", None)  # there are twins among the columns of this market
    rows = world.matrices["utilities"].validation
    assert joint.validation["utilities"].shape == (joint.pooled + joint.settings.joint_sector.rounds, 4)
    for rounds in (1, joint.pooled):
        cut = [
            dataclasses.replace(m, stages=(dataclasses.replace(m.stages[0], rounds=rounds),))
            for m in columns.unwrap(pooled)
        ]
        margin = np.log(family.predict(columns.wrap(cut, picked), rows.X, fold.device))
        expected = [log_loss(margin[:, k], rows.y[:, k]) for k in range(4)]
        np.testing.assert_allclose(joint.validation["utilities"][rounds - 1], expected, rtol=1e-5)


def test_rows_together_are_those_of_the_sectors(world):
    whole = worlds.together(world)
    assert list(whole.matrices) == [worlds.ALL]
    for part in worlds.PARTS:
        of_sectors = [getattr(matrix, part) for matrix in world.matrices.values()]
        X, y = (np.concatenate([getattr(rows, name) for rows in of_sectors]) for name in ("X", "y"))
        joined = getattr(whole.matrices[worlds.ALL], part)
        assert len(joined.X) == len(X)
        assert not np.array_equal(joined.X, X)
        of_row = {row.tobytes(): label.tobytes() for row, label in zip(X, y, strict=True)}
        assert len(of_row) == len(X)
        assert {row.tobytes(): label.tobytes() for row, label in zip(joined.X, joined.y, strict=True)} == of_row


def test_a_fold_has_the_sectors_and_labels_that_are_asked_for(world):
    fold = world.fold(["utilities"], [3, 1])
    assert list(fold.fit) == ["utilities"] and fold.label_names == tuple(world.names([3, 1]))
    np.testing.assert_array_equal(fold.fit["utilities"].y, world.matrices["utilities"].train.y[:, [3, 1]])
    with pytest.raises(SystemExit, match="no label label_9d"):
        worlds.of_panel(tiny_market(), make("fast", settings=QUICK), ["label_9d"])
