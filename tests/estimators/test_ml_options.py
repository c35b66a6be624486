"""Options of training that change what trees see: each does what it says."""

from __future__ import annotations

import dataclasses
import json
import sys
import types

import numpy as np
import pytest

from gpupipe import config
from gpupipe.dataset.row_view import shuffled
from gpupipe.estimators import columns, registry
from gpupipe.estimators.boosting.binned_matrix import binned, distinct_columns
from gpupipe.estimators.boosting.round_rows import inclusion_probability
from gpupipe.estimators.boosting.sampling import cut
from gpupipe.estimators.contract import Shape
from gpupipe.estimators.training_set import with_mean_weight_1
from gpupipe.runtime import device, memory
from gpupipe.training import memory_estimate
from gpupipe.workloads import equity
from tests.support.fitting import (
    CPU,
    FAMILIES,
    SETTINGS,
    as_bytes,
    fit_all,
    fit_pool,
    log_loss,
    predict,
    predict_model,
    world,
)
from tests.support.tiny import fold_of, planted, view_of

TREES = tuple(item.name for item in registry.estimators() if item.uses_bins)


def with_ml(**changed):
    return dataclasses.replace(world()[0], ml=config.Ml(**changed))


def changed_rows(by_sector, change):
    return {s: view_of(change(r.X), r.y, r.time_ns, r.weight) for s, r in by_sector.items()}


# Columns


@pytest.mark.parametrize("name", FAMILIES)
def test_the_chosen_columns_are_stored_and_picked_from_the_whole_matrix(name):
    fold, tests, _ = world()
    best = columns.top_columns(fold, 2)
    assert best.tolist() == [0, 1]  # the others are noise
    models = fit_all(name, fold.of_columns(best), SETTINGS)[1]["a"]
    X = tests["a"].X
    assert all(model.describe()["columns"] == [0, 1] for model in models)
    again = [registry.load_model(m.files(), json.loads(json.dumps(m.describe())), {}) for m in models]
    noise = X.copy()
    noise[:, 2:] = np.random.default_rng(0).normal(size=noise[:, 2:].shape)
    predictions = predict(name, models, X)
    np.testing.assert_array_equal(predict(name, again, noise), predictions)
    np.testing.assert_array_equal(predict_model(name, again[1], noise), predictions[:, 1])
    prior = np.broadcast_to(fold.shares(["a"]), predictions.shape)
    assert (log_loss(predictions, tests["a"].y) < 0.95 * log_loss(prior, tests["a"].y)).all()


def test_columns_are_chosen_from_the_fitted_rows_alone():
    fold = world()[0]
    other = changed_rows(fold.validation, lambda X: X[:, ::-1].copy())
    unseen = dataclasses.replace(fold, validation=other)
    assert columns.top_columns(unseen, 3).tolist() == columns.top_columns(fold, 3).tolist()
    turned = dataclasses.replace(fold, fit=changed_rows(fold.fit, lambda X: np.ascontiguousarray(X[:, ::-1])))
    assert columns.top_columns(turned, 2).tolist() == [4, 5]


def test_choosing_among_chosen_columns_keeps_the_numbers_of_the_matrix():
    fold = world()[0].of_columns(np.array([0, 2, 5])).of_columns(np.array([0, 2]))
    assert fold.columns.tolist() == [0, 5] and fold.n_columns == 2


def test_fewer_columns_are_chosen_where_no_more_are_used():
    fold = world()[0]
    constant = changed_rows(fold.fit, lambda X: np.concatenate([X[:, :1], np.zeros_like(X[:, 1:])], axis=1))
    assert columns.top_columns(dataclasses.replace(fold, fit=constant), 4).tolist() == [0]


def doubled(X):
    """Column 0 once more on another scale: it sorts rows alike, and so has the same bins."""
    return np.concatenate([X, np.exp(X[:, :1] / 4).astype(np.float32), -X[:, 1:2]], axis=1)


@pytest.mark.parametrize("name", FAMILIES)
def test_columns_with_the_same_bins_are_left_out_without_loss(name):
    """column_share 1: of a share of the columns drawn at random, others would be drawn."""
    whole = [f"{stage}.column_share=1.0" for stage in ("joint", "joint_sector", "hist", "leafwise", "forest")]
    settings = equity.make("fast", settings=[*whole, "joint.rounds=10", "hist.rounds=10", "leafwise.rounds=10"])
    fold, tests, _ = world()
    twin = dataclasses.replace(
        fold, fit=changed_rows(fold.fit, doubled), validation=changed_rows(fold.validation, doubled)
    )
    models, plain = fit_all(name, twin, settings)[1]["c"], fit_all(name, fold, settings)[1]["c"]
    predictions = predict(name, models, doubled(tests["c"].X))
    if name in TREES:
        # -X has its bins the other way round: trees could leave it out too, but its codes are others.
        assert models[0].describe()["columns"] == [0, 1, 2, 3, 4, 5, 7]
        without = twin.of_columns(np.array([0, 1, 2, 3, 4, 5, 7]))
        expected = predict(name, fit_all(name, without, settings)[1]["c"], doubled(tests["c"].X))
        np.testing.assert_array_equal(predictions, expected)
        losses = [log_loss(one, tests["c"].y) for one in (predictions, predict(name, plain, tests["c"].X))]
        np.testing.assert_allclose(*losses, rtol=0.02)
    else:
        assert "columns" not in models[0].describe()  # a softmax regression sees values, not bins


def test_columns_that_differ_in_one_late_row_are_both_kept():
    rows, _ = planted(6000, 1)
    X = np.concatenate([rows.X, rows.X[:, :1]], axis=1)
    fold = fold_of({"a": view_of(X, rows.y, rows.time_ns)}, {})
    assert distinct_columns(fold).tolist() == [0, 1, 2, 3, 4, 5]
    X[-1, 6] = np.nan if np.isfinite(X[-1, 6]) else 9.0
    fold = fold_of({"a": view_of(X, rows.y, rows.time_ns)}, {})
    assert distinct_columns(fold).tolist() == [0, 1, 2, 3, 4, 5, 6]


# Rows


def test_samples_hold_every_row_once():
    fold = world()[0]
    samples = binned(fold).samples(0.2)
    assert len(samples) == 5 and binned(fold).samples(0.2) is samples
    for k, rows in enumerate(fold.fit.values()):
        together = np.concatenate([sample.blocks[k].X for sample in samples])
        np.testing.assert_array_equal(together, rows.X)
        assert all(abs(sample.blocks[k].n - rows.n / 5) < 1 for sample in samples)
    assert all(sample.bins.num_row() == sum(rows.n for rows in sample.blocks) for sample in samples)
    (all_of_a,) = binned(fold).samples(1.0, "a")
    assert all_of_a.bins.num_row() == fold.fit["a"].n


def test_a_large_share_leaves_each_row_out_once(monkeypatch):
    fold = world()[0]
    samples = binned(fold).samples(0.8)
    assert len(samples) == 5 and binned(fold).samples(0.8) is samples and binned(fold).samples(0.81) is samples
    everything = np.concatenate([rows.X for rows in fold.fit.values()])
    seen = np.concatenate([rows.X for sample in samples for rows in sample.blocks])
    assert [sample.bins.num_row() for sample in samples] == [sum(rows.n for rows in s.blocks) for s in samples]
    assert all(abs(sample.bins.num_row() - 0.8 * len(everything)) < 3 for sample in samples)
    np.testing.assert_array_equal(np.sort(seen[:, 2]), np.sort(np.repeat(everything[:, 2], 4)))  # NaN last in both
    alone = binned(fold).samples(0.8, "b")
    left = [set(map(bytes, fold.fit["b"].X)) - {bytes(x) for rows in s.blocks for x in rows.X} for s in alone]
    assert set.union(*left) == set(map(bytes, fold.fit["b"].X)) and sum(map(len, left)) == fold.fit["b"].n
    settings = equity.make("fast", settings=["ml.subsample=0.8", "joint.rounds=6"])
    _, seen = rows_of_each_round(monkeypatch, fold, settings)
    assert seen == [(3600, 3600)] * 6  # of 4,500 rows
    shape = Shape(10**6, 6e5, 2e5, 2e5, 4e5, 0.2, 100, 10, 6)
    small, large = (
        memory_estimate.estimate_plan(
            shape, equity.make("fast", settings=[f"ml.subsample={share}"]), 2, memory.AS_IT_IS, "cpu"
        ).host
        for share in (0.5, 0.8)
    )  # fmt: skip
    assert large > small
    on_gpu = {
        memory_estimate._bins(shape, equity.make("fast", settings=[f"ml.subsample={s}"]), memory.AS_IT_IS, "cuda")
        for s in (0.5, 0.8)
    }
    assert on_gpu == {2 * memory_estimate.DEVICE_BIN_BYTES * 6e5 * 100}  # one matrix of the pool, and one of groups


@pytest.mark.parametrize(
    "share, expected",
    [(0.1, (10, False)), (0.2, (5, False)), (0.5, (2, False)), (0.632, (2, False)), (0.67, (3, True)),
     (0.75, (4, True)), (0.8, (5, True)), (0.9, (10, True)), (0.94, (10, True)), (0.96, (1, False)), (1, (1, False))],
)  # fmt: skip
def test_how_rows_are_cut(share, expected):
    assert cut(share) == expected


def test_rows_are_shuffled_for_each_sector_by_itself():
    rows = np.arange(10, 500)
    mixed = shuffled(rows, 42, "energy")
    assert sorted(mixed) == list(rows) and not (mixed == rows).all()
    np.testing.assert_array_equal(mixed, shuffled(rows, 42, "energy"))
    assert not (mixed == shuffled(rows, 42, "utilities")).all() and not (mixed == shuffled(rows, 7, "energy")).all()


def rows_of_each_round(monkeypatch, fold, settings):
    import xgboost

    seen, original = [], xgboost.Booster.boost

    def boost(self, matrix, iteration, grad, hess):
        seen.append((matrix.num_row(), grad.shape[0]))
        return original(self, matrix, iteration, grad=grad, hess=hess)

    monkeypatch.setattr(xgboost.Booster, "boost", boost)
    models = fit_pool("xgb_joint", fold, settings)
    return models, seen


def test_subsample_is_the_share_of_rows_that_a_tree_is_grown_on(monkeypatch):
    settings = equity.make("fast", settings=["ml.subsample=0.2", "joint.rounds=12"])
    stages = ("joint", "joint_sector", "hist", "leafwise", "forest")
    assert all(getattr(settings, stage).subsample == 0.2 for stage in stages)
    _, seen = rows_of_each_round(monkeypatch, world()[0], settings)
    assert len(seen) == 12 and all(n == m == 900 for n, m in seen)  # of 4,500 rows


def test_gradient_sampling_draws_the_share_and_still_learns(monkeypatch):
    settings = equity.make("fast", settings=["ml.gradient_sampling=true", "ml.subsample=0.25", "joint.rounds=40"])
    fold, tests, _ = world()
    models, seen = rows_of_each_round(monkeypatch, with_ml(gradient_sampling=True), settings)
    drawn = sorted({n for n, _ in seen})
    assert len(drawn) >= 3 and all(abs(n / 4500 - 0.25) < 0.05 for n in drawn)  # anew every ten rounds
    again = fit_pool("xgb_joint", with_ml(gradient_sampling=True), settings)
    assert as_bytes(models) == as_bytes(again)
    plain = fit_pool("xgb_joint", fold, settings)
    for sector, rows in tests.items():
        drawn_loss, plain_loss = (log_loss(predict("xgb_joint", one, rows.X), rows.y) for one in (models, plain))
        prior = np.broadcast_to(fold.shares(), (rows.n, 2, 3))
        assert (drawn_loss < 0.92 * log_loss(prior, rows.y)).all() and (drawn_loss < 1.03 * plain_loss).all(), sector


def test_inclusion_probabilities_by_hand():
    chance = inclusion_probability(np.array([8.0, 2.0, 1.0, 1.0]), 0.5)
    # 8 is certain; the other draw is shared by 2, 1 and 1.
    np.testing.assert_allclose(chance, [1.0, 0.5, 0.25, 0.25])
    np.testing.assert_allclose(inclusion_probability(np.ones(10), 0.3), 0.3)
    np.testing.assert_allclose(inclusion_probability(np.zeros(4), 0.3), 0.3)
    norm = np.random.default_rng(3).exponential(size=20_000)
    for share in (0.1, 0.2, 0.5, 0.9):
        chance = inclusion_probability(norm, share)
        assert chance.max() <= 1 and chance.min() >= 0.1 * share and chance.mean() == pytest.approx(share, rel=0.02)
        assert (np.diff(chance[np.argsort(norm)]) >= 0).all()


def test_weighted_sums_over_a_draw_are_those_over_all_rows():
    norm = np.random.default_rng(4).exponential(size=4000)
    chance = inclusion_probability(norm, 0.2)
    random = np.random.default_rng(5)
    sums = [float((norm / chance)[random.random(4000) < chance].sum()) for _ in range(400)]
    assert np.mean(sums) == pytest.approx(norm.sum(), rel=0.01)


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_of_no_weight_are_as_if_they_were_not_there(name):
    fold, tests, _ = world()
    eleven = {s: view_of((r.X * 2).round().clip(-5, 5) / 2, r.y, r.time_ns) for s, r in fold.fit.items()}
    ones = {s: view_of(r.X, r.y, r.time_ns, np.ones(r.y.shape, np.float32)) for s, r in eleven.items()}
    rng = np.random.default_rng(0)
    twice = {
        s: view_of(np.tile(r.X, (2, 1)), np.concatenate([r.y, rng.permutation(r.y)]), np.tile(r.time_ns, 2),
                np.repeat(np.array([[1.0], [0.0]], np.float32), r.n, axis=0) * np.ones((1, 2), np.float32))
        for s, r in eleven.items()
    }  # fmt: skip
    settings = equity.make("fast", settings=[
        *(f"{stage}.{field}=1.0" for stage in ("joint", "joint_sector", "hist", "leafwise", "forest")
          for field in ("subsample", "column_share")),
        *(f"{library}.{field}=1.0" for library in ("lightgbm", "catboost") for field in ("subsample", "column_share")),
        *(f"{section}.rounds=6" for section in ("lightgbm", "catboost", "hist", "leafwise", "joint")), "forest.trees=2",
        "linear.max_iterations=200", "linear.l2=300",
    ])  # fmt: skip
    plain, one, models = (
        fit_all(name, dataclasses.replace(fold, fit=fit), settings)[1]["c"] for fit in (eleven, ones, twice)
    )
    predictions, unweighted, expected = (predict(name, x, tests["c"].X) for x in (models, plain, one))
    np.testing.assert_allclose(unweighted, expected, atol=1e-5)
    np.testing.assert_allclose(predictions, expected, atol=0.01)


def test_weights_are_scaled_to_a_mean_of_1():
    rows = view_of(
        np.zeros((2, 1), np.float32), np.ones((2, 1), np.int8), np.arange(2), np.array([[1], [3]], np.float32)
    )
    scaled = with_mean_weight_1({"a": rows, "b": rows}, CPU, 3)
    np.testing.assert_allclose(scaled["b"].weight, [[0.5], [1.5]])
    assert with_mean_weight_1({"a": view_of(rows.X, rows.y, rows.time_ns)}, CPU, 3)["a"].weight is None
    classes = view_of(rows.X, np.array([[2], [1]], np.int8), rows.time_ns, rows.weight)  # each row is its class
    np.testing.assert_array_equal(with_mean_weight_1({"a": classes, "b": classes}, CPU, 3)["b"].weight, 1)
    mixed = with_mean_weight_1({"a": rows, "b": classes}, CPU, 3)  # class 1: 1, 3 and 3; class 2: 1
    np.testing.assert_allclose(mixed["a"].weight, [[3 / 7], [9 / 7]], rtol=1e-6)
    np.testing.assert_allclose(mixed["b"].weight, [[1], [9 / 7]], rtol=1e-6)


# Matrices and memory


def test_without_quantile_matrices_there_are_none(monkeypatch):
    import xgboost

    fold, tests, _ = world()
    plain = with_ml(use_quantile_dmatrix=False)
    monkeypatch.setattr(xgboost, "QuantileDMatrix", None)
    models = fit_all("xgb_hist", plain, SETTINGS)[1]["a"]
    assert type(binned(plain).cut_points) is xgboost.DMatrix
    monkeypatch.undo()
    rows = tests["a"]
    losses = [
        log_loss(predict("xgb_hist", one, rows.X), rows.y)
        for one in (models, fit_all("xgb_hist", fold, SETTINGS)[1]["a"])
    ]
    np.testing.assert_allclose(*losses, rtol=0.03)  # the cuts are of samples, and a little elsewhere


@pytest.mark.parametrize("name", ["xgb_joint", "random_forest"])
def test_bins_on_disk_give_the_same_bytes(name, tmp_path):
    settings = equity.make("fast", settings=["joint.rounds=5", "joint_sector.rounds=3", "forest.trees=3"])
    kept = dataclasses.replace(world()[0], cache=tmp_path)
    on_disk, in_memory = fit_all(name, kept, settings), fit_all(name, world()[0], settings)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) > 4500 * 6
    assert as_bytes(on_disk[0]) == as_bytes(in_memory[0])
    assert all(as_bytes(on_disk[1][s]) == as_bytes(in_memory[1][s]) for s in kept.groups)


@pytest.mark.parametrize("use_rmm", [True, False])
def test_the_shared_pool_is_set_up_only_when_wanted(use_rmm, monkeypatch):
    set_up = []
    properties = types.SimpleNamespace(getDeviceProperties=lambda number: {"name": b"a GPU"})
    cupy = types.SimpleNamespace(
        cuda=types.SimpleNamespace(runtime=properties, Device=lambda: types.SimpleNamespace(id=0))
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(device, "why_no_cuda", lambda use_rmm: None)
    monkeypatch.setattr(device, "set_up_memory_pool", lambda limit_bytes=None: set_up.append(True))
    monkeypatch.setattr(device, "_devices", {})
    assert device.pick("auto", use_rmm).kind == "cuda"
    assert bool(set_up) is use_rmm


def test_values_out_of_range_are_refused():
    for wrong, text in (
        ("ml.subsample=0.05", "0.1 to 1"),
        ("ml.feature_selection_top_n=-1", "a number of columns"),
        ("ml.gradient_sampling=1", "expected bool"),
        ("ml.use_rmms=true", "did you mean 'ml.use_rmm'"),
    ):
        with pytest.raises(config.ConfigError, match=text):
            equity.make("fast", settings=[wrong])
    assert SETTINGS.ml == config.Ml()
