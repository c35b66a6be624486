"""Trees walked by our own kernels against XGBoost's predictions, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import xgboost

from gpupipe.dataset.row_view import LazyRows
from gpupipe.estimators.boosting import tree_model
from gpupipe.estimators.boosting.tree_model import learner_of
from gpupipe.estimators.boosting.tree_walk import FIELDS, READ, Walk, arrays_of
from gpupipe.kernels.trees import add_leaf_activity, leaves_of_trees

N_ROWS, N_COLUMNS, ROUNDS = 700, 9, 7
GROWTH = {
    "depthwise": {"max_depth": 4},
    "lossguide": {"max_depth": 0, "max_leaves": 9, "grow_policy": "lossguide"},
    "without a split": {"max_depth": 3, "min_child_weight": 1e9},
}


@pytest.fixture(scope="module")
def X():  # noqa: N802
    """Columns with NaN, with ties, with only a few values."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(N_ROWS, N_COLUMNS)).astype(np.float32)
    X[:, 1] = rng.integers(0, 3, N_ROWS)
    X[rng.random(N_ROWS) < 0.4, 2] = np.nan
    X[rng.random(N_ROWS) < 0.1, 3] = np.nan
    X[:, 4] = np.nan
    return X


def grown(X, growth, n_labels):
    """A booster whose splits need columns that miss values, to the left and to the right."""
    rng = np.random.default_rng(5)
    bins = xgboost.QuantileDMatrix(X, max_bin=16)
    booster = xgboost.Booster(
        {"tree_method": "hist", "max_bin": 16, "multi_strategy": "multi_output_tree", "num_target": 2 * n_labels,
         "eta": 0.3, "base_score": 0.0, "lambda": 1.0, **growth}, [bins],
    )  # fmt: skip
    for k in range(ROUNDS):
        asked = X[:, [2, 3, 1][k % 3]]
        pull = np.where(np.isnan(asked), np.float32(2 * (-1) ** k), asked)[:, None]
        gradient = (pull + rng.normal(size=(N_ROWS, 2 * n_labels))).astype(np.float32)
        booster.boost(bins, k, grad=gradient, hess=np.ones_like(gradient))
    return booster


@pytest.mark.parametrize("n_labels", [1, 6])
@pytest.mark.parametrize("growth", GROWTH)
def test_margins_are_those_of_xgboost(device, X, growth, n_labels):
    booster = grown(X, GROWTH[growth], n_labels)
    walk, at = Walk(booster, device), device.asarray(X)
    start = np.random.default_rng(1).normal(size=(N_ROWS, 3 * n_labels)).astype(np.float32)
    margin, expected = device.asarray(start.copy()), start.copy()
    for first, last in ((0, 1), (1, 3), (3, 3), (3, ROUNDS)):
        walk.add([margin[:300], margin[300:301], margin[301:]], [at[:300], at[300:301], at[301:]], first, last)
        for k in range(first, last):
            tree_model.add_activity(
                expected, booster.inplace_predict(X, iteration_range=(k, k + 1), predict_type="margin")
            )
    np.testing.assert_array_equal(device.to_host(margin), expected)
    moved = np.abs(expected - start).max(axis=0)
    assert (moved[1::3] == 0).all()
    if growth != "without a split":  # of whose root XGBoost 3.2 makes a leaf of 0
        assert (moved[0::3] > 0).all() and (moved[2::3] > 0).all()
    sent = np.concatenate([walk._rounds[k][0]["unknown_left"] for k in range(ROUNDS)])
    inner = np.concatenate([walk._rounds[k][0]["column"] for k in range(ROUNDS)]) >= 0
    assert inner.any() == (growth != "without a split")
    assert growth == "without a split" or len(np.unique(sent[inner])) == 2  # NaN went both ways


@pytest.mark.parametrize("growth", GROWTH)
def test_arrays_of_trees_are_those_of_the_json(X, growth):
    booster = grown(X, GROWTH[growth], 2)
    content, trees = bytes(booster.save_raw("ubj")), learner_of(booster)["gradient_booster"]["model"]["trees"]
    for name in READ:
        found = arrays_of(content, name)
        assert len(found) == len(trees) == ROUNDS
        for array, tree in zip(found, trees, strict=True):
            np.testing.assert_array_equal(array, np.array(tree[name], dtype=array.dtype))


def test_rows_that_are_copied_late_and_in_blocks(device, X, monkeypatch):
    monkeypatch.setattr("gpupipe.dataset.row_view.BLOCK_ROWS", 64)
    booster, rng = grown(X, GROWTH["depthwise"], 2), np.random.default_rng(0)
    at, columns = rng.permutation(N_ROWS)[:300], np.arange(N_COLUMNS)
    wide = np.concatenate([X, X[:, ::-1]], axis=1)
    lazy = LazyRows(device.asarray(wide), device.asarray(at), device.asarray(columns))
    margins = [device.xp.zeros((300, 6), dtype=np.float32) for _ in range(2)]
    Walk(booster, device).add([margins[0][:100], margins[0][100:]], [lazy[:100], lazy[100:]], 0, ROUNDS)
    Walk(booster, device).add([margins[1]], [device.asarray(X[at])], 0, ROUNDS)
    np.testing.assert_array_equal(device.to_host(margins[0]), device.to_host(margins[1]))
    assert device.to_host(margins[0])[:, [0, 2, 3, 5]].any(axis=0).all()


def test_trees_that_a_booster_gets_later_are_read_when_they_are_asked_for(device, X):
    whole = grown(X, GROWTH["depthwise"], 1)
    early = Walk(whole[:2], device)
    early.add([device.xp.zeros((N_ROWS, 3), dtype=np.float32)], [device.asarray(X)], 0, 2)
    early.booster = whole
    margins = [device.xp.zeros((N_ROWS, 3), dtype=np.float32) for _ in range(2)]
    early.add([margins[0]], [device.asarray(X)], 1, 5)
    Walk(whole, device).add([margins[1]], [device.asarray(X)], 1, 5)
    np.testing.assert_array_equal(device.to_host(margins[0]), device.to_host(margins[1]))


def test_compiled_equals_plain_body(device, X):
    booster = grown(X, GROWTH["depthwise"], 2)
    root, *nodes, values = Walk(booster, device)._joined(0, 3)
    assert len(nodes) == len(FIELDS)
    leaf, margin = np.empty((N_ROWS, 3), np.int32), np.zeros((N_ROWS, 6), np.float32)
    for i in range(N_ROWS):
        leaves_of_trees.body(i, X, root, *nodes, leaf)
        add_leaf_activity.body(i, leaf, values, margin)
    computed = device.xp.empty(leaf.shape, dtype=np.int32), device.xp.zeros(margin.shape, dtype=np.float32)
    leaves_of_trees(N_ROWS, device.asarray(X), *map(device.asarray, (root, *nodes)), computed[0])
    add_leaf_activity(N_ROWS, computed[0], device.asarray(values), computed[1])
    np.testing.assert_array_equal(device.to_host(computed[0]), leaf)
    np.testing.assert_array_equal(device.to_host(computed[1]), margin)
    assert len(np.unique(leaf)) > 20 and leaf.max() == len(values) - 1


def test_calls_that_run_together_are_checked_and_say_what_each_alone_says(device, X):
    booster = grown(X, GROWTH["depthwise"], 2)
    *trees_of, _ = map(device.asarray, Walk(booster, device)._joined(0, 2))
    at = device.asarray(X)
    alone, side_by_side = (device.xp.full((N_ROWS, 2), -1, dtype=np.int32) for _ in range(2))
    leaves_of_trees(N_ROWS, at, *trees_of, alone)
    parts = [slice(0, 10), slice(10, 10), slice(10, 500), slice(500, N_ROWS)]
    leaves_of_trees.together([(part.stop - part.start, at[part], *trees_of, side_by_side[part]) for part in parts])
    np.testing.assert_array_equal(device.to_host(side_by_side), device.to_host(alone))
    leaves_of_trees.together([])
    with pytest.raises(ValueError, match="X is float64"):
        leaves_of_trees.together([(1, at[:1].astype(part), *trees_of, alone[:1]) for part in ("float32", "float64")])
