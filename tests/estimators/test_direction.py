"""direction: a planted side is ranked and none is claimed without one; nothing but a row's own columns is read."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from gpupipe import load, simulate
from gpupipe.config import ConfigError
from gpupipe.dataset.dataset import Dataset
from gpupipe.dataset.row_view import RowView
from gpupipe.estimators import registry
from gpupipe.estimators.linear.direction_slope import Slope, sides_of_ranks, sides_of_touches, slope_of
from gpupipe.estimators.linear.rank_regression import moments_of, parts_in_time, ranks_within
from gpupipe.kernels.compile import Kernel
from gpupipe.runtime.errors import UserError
from gpupipe.serving.scan import scan
from gpupipe.targets.classes import CLASSES
from gpupipe.targets.target import Target
from gpupipe.workloads import equity
from tests.support import tiny
from tests.support.fitting import CPU, as_bytes, fit_all, fit_pool, predict
from tests.support.tiny import QUICK, SECTORS, fold_of, in_sectors

SETTINGS = equity.make("fast", settings=["direction_touch.rounds=24"])
NAMES = ("sector_rank_roc_1", "roc_1", "natr_14", "rsi_14")
THRESHOLD = 0.03
GROUPS = ("a", "b", "c")
COLUMNS = "features.names=rsi_14,natr_14,roc_1,roc_5,upper_shadow,lower_shadow,sector_rank_*"


def rows_of(group: str, seed: int, signal: float, n_times: int = 120, n_symbols: int = 14) -> RowView:
    """Rows of one group: column 0 tells the side of the next return, column 2 its size; all move with the market."""
    rng = np.random.default_rng([seed, GROUPS.index(group)])
    market = np.random.default_rng(seed).normal(0, 0.01, n_times)
    time_ns, n = np.repeat(np.arange(n_times), n_symbols), n_times * n_symbols
    X = rng.normal(size=(n, len(NAMES))).astype(np.float32)
    size = 0.02 * np.exp(0.4 * X[:, 2])
    forward = (market[time_ns] + size * (signal * X[:, 0] + rng.normal(size=n))).astype(np.float32)
    y = np.where(forward > THRESHOLD, 2, np.where(forward < -THRESHOLD, 0, 1)).astype(np.int8)
    X[rng.random(n) < 0.03, 1] = np.nan
    dataset = Dataset(
        group, X, NAMES, np.stack([y, np.where(np.abs(forward) > 2 * THRESHOLD, y, 1)], axis=1),
        Target(("label_0", "label_1"), "classes", (1, 2), CLASSES), time_ns, time_ns + 1, np.ones(n, bool),
        np.ones(n, bool), np.array([0, n]), extra={"forward_return_1": forward},
    )  # fmt: skip
    return RowView(dataset, np.arange(n))


@functools.cache
def world(signal: float, seed: int = 0):
    """(training set, test rows by group)."""
    fit, validation, test = ({g: rows_of(g, seed + k, signal) for g in GROUPS} for k in (100, 200, 300))
    training_set = fold_of(fit, validation)
    return dataclasses.replace(training_set, target=fit["a"].dataset.target), test


@functools.cache
def fitted(signal: float, seed: int = 0):
    return fit_all("direction", world(signal, seed)[0], SETTINGS)


def test_a_planted_side_is_ranked_and_lowers_the_loss():
    _, tests = world(0.3)
    pooled, groups = fitted(0.3)
    assert pooled[0].slope > 0.1 and pooled[0].scope == "pool"
    ics, losses = [], []
    for group, rows in tests.items():
        p = predict("direction", groups[group], rows.X)
        assert p.dtype == np.float32 and p.shape == (rows.n, 2, 3)
        np.testing.assert_allclose(p.sum(axis=2), 1, atol=1e-6)
        score = np.log(p[:, 0, 2] / p[:, 0, 0])
        ics.append(spearmanr(score, rows.extra("forward_return_1"))[0])
        flat = predict("direction", [dataclasses.replace(model, slope=0.0) for model in groups[group]], rows.X)
        losses.append([-np.log(q[np.arange(rows.n), 0, rows.y[:, 0]]).mean() for q in (p, flat)])
    assert min(ics) > 0.15, ics
    with_side, without = np.mean(losses, axis=0)
    assert with_side < 0.99 * without


def test_a_rank_column_is_penalised_less_than_another():
    training_set, _ = world(0.3)
    raw = fit_all("direction", training_set, equity.make("fast", settings=["direction_touch.rounds=2"]))[0][0]
    strict = ["direction_touch.rounds=2", "direction.rank_l2=10"]
    same = fit_all("direction", training_set, equity.make("fast", settings=strict))[0][0]
    share = [abs(m.coefficients[0]) / np.abs(m.coefficients).sum() for m in (raw, same)]
    assert share[0] > share[1]


def test_without_a_side_the_slope_is_next_to_nothing():
    slopes = [fit_pool("direction", world(0.0, seed)[0], SETTINGS)[0].slope for seed in range(0, 60, 10)]
    assert max(slopes) < 0.1 and np.median(slopes) < 0.02, slopes


def test_the_slope_is_one_for_all_targets_and_out_of_fold_fits_take_it():
    pooled, groups = fitted(0.3)
    assert pooled[0].slope == pooled[1].slope and groups["a"][0] is pooled[0]
    training_set = dataclasses.replace(world(0.3)[0], validation={}, name="part1")
    frozen = [dataclasses.replace(model, slope=0.123) for model in pooled]
    again = fit_pool("direction", training_set, SETTINGS, frozen)
    assert [model.slope for model in again] == [0.123, 0.123]
    assert [m.touch.stages[0].rounds for m in again] == [m.touch.stages[0].rounds for m in pooled]
    assert fit_pool("direction", training_set, SETTINGS)[0].slope > 0.1, "it is measured on the fitted rows"


def test_touches_that_clearly_go_the_other_way_make_the_slope_0():
    """y is turned around in the validation part alone."""
    training_set, _ = world(0.3)
    turned = {
        g: RowView(dataclasses.replace(rows.dataset, y=(2 - rows.dataset.y).astype(np.int8)), rows.rows)
        for g, rows in training_set.validation.items()
    }
    model = fit_pool("direction", dataclasses.replace(training_set, validation=turned), SETTINGS)[0]
    assert model.slope == 0 and model.coefficients.any()


def test_a_row_is_predicted_from_its_own_columns():
    models, rows = fitted(0.3)[1]["b"], world(0.3)[1]["b"]
    whole = predict("direction", models, rows.X)
    np.testing.assert_array_equal(predict("direction", models, rows.X[7:8]), whole[7:8])
    changed = rows.X.copy()
    changed[8:] = 5
    np.testing.assert_array_equal(predict("direction", models, changed)[:8], whole[:8])
    assert predict("direction", models, rows.X[:0]).shape == (0, 2, 3)
    assert np.isfinite(predict("direction", models, np.full((3, len(NAMES)), np.nan, np.float32))).all()


def test_what_comes_after_the_fitted_rows_changes_no_score():
    """Each group's dataset goes on after the fitted rows; other returns there change neither trees nor score."""
    training_set, _ = world(0.3)
    cut = 80 * 14

    def until(rows: RowView, later: float) -> RowView:
        changed = rows.extra("forward_return_1").copy()
        changed[cut:] = later
        return RowView(dataclasses.replace(rows.dataset, extra={"forward_return_1": changed}), rows.rows[:cut])

    first, second = (
        dataclasses.replace(training_set, fit={g: until(rows, later) for g, rows in training_set.fit.items()})
        for later in (0.5, -0.5)
    )
    assert as_bytes(fit_pool("direction", first, SETTINGS)) == as_bytes(fit_pool("direction", second, SETTINGS))


def test_the_order_of_rows_in_a_group_hardly_matters():
    training_set, _ = world(0.3)
    shuffled = {
        g: rows.take(np.random.default_rng(5).permutation(rows.n)) for g, rows in training_set.fit.items()
    }  # fmt: skip
    other = fit_pool("direction", dataclasses.replace(training_set, fit=shuffled), SETTINGS)[0]
    np.testing.assert_allclose(other.coefficients, fitted(0.3)[0][0].coefficients, rtol=1e-3, atol=1e-4)


def test_saved_and_loaded_it_predicts_the_same():
    models, rows = fitted(0.3)[1]["a"], world(0.3)[1]["a"]
    again = [registry.load_model(model.files(), model.describe(), {}) for model in models]
    np.testing.assert_array_equal(predict("direction", again, rows.X), predict("direction", models, rows.X))
    assert as_bytes(again) == as_bytes(models)


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed")
@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_its_onnx_graph_predicts_the_same(tmp_path, class_weight):
    from gpupipe.artifacts.onnx import checking
    from tests.support.onnx_files import exported, hard_rows

    training_set, tests = world(0.3)
    models = fit_pool("direction", dataclasses.replace(training_set, class_weight=class_weight), SETTINGS)
    X = np.concatenate([hard_rows([("direction", m) for m in models], len(NAMES)), tests["c"].X[:200]])
    assert np.isnan(X).any()
    for model, content in zip(models, exported(tmp_path, "direction", models, len(NAMES)), strict=True):
        expected = predict("direction", [model], X)[:, 0]
        assert checking.largest_difference(content, X, expected) < 2e-6
        assert np.ptp(expected[:, 2] / (expected[:, 0] + expected[:, 2])) > 0.05, "the side is no constant"


def test_it_calls_the_kernels_that_it_declares(monkeypatch):
    called: set[str] = set()
    alone, together = Kernel.__call__, Kernel.together

    def call(kernel, n, *arguments):
        called.add(kernel.full_name)
        alone(kernel, n, *arguments)

    def call_together(kernel, calls):
        called.add(kernel.full_name)
        together(kernel, calls)

    monkeypatch.setattr(Kernel, "__call__", call)
    monkeypatch.setattr(Kernel, "together", call_together)
    models = fit_pool("direction", world(0.3)[0], SETTINGS)
    predict("direction", models, world(0.3)[1]["a"].X)
    assert called == set(registry.estimator("direction").kernels)


def test_one_group_and_two_classes():
    alone = {part: {"a": getattr(world(0.3)[0], part)["a"]} for part in ("fit", "validation")}
    training_set = dataclasses.replace(world(0.3)[0], **alone)
    pooled, groups = fit_all("direction", training_set, SETTINGS)
    assert pooled[0].scope == "sector" and groups["a"] == pooled
    for part, views in alone.items():
        rows = views["a"]
        y = np.where(rows.dataset.y == 0, 1, rows.dataset.y).astype(np.int8)
        alone[part] = {"a": RowView(dataclasses.replace(rows.dataset, y=y), rows.rows)}
    model = fit_pool("direction", dataclasses.replace(training_set, **alone), SETTINGS)[0]
    p = predict("direction", [model], world(0.3)[1]["a"].X)
    assert np.isfinite(p).all() and p[:, 0, 0].max() < 0.01, "no row was of the lower class"


def test_a_dataset_without_returns_is_refused():
    training_set, _ = world(0.3)
    bare = {g: RowView(dataclasses.replace(rows.dataset, extra={}), rows.rows) for g, rows in training_set.fit.items()}
    with pytest.raises(UserError, match="forward_return_1"):
        fit_pool("direction", dataclasses.replace(training_set, fit=bare), SETTINGS)


def test_without_a_cross_section_there_is_no_side():
    """One symbol a time: nothing can be ranked, and the probabilities are those of the trees with one side share."""
    few = {g: rows_of(g, 5, 0.3, n_times=400, n_symbols=1) for g in GROUPS}
    training_set = dataclasses.replace(world(0.3)[0], fit=few, validation=few)
    model = fit_pool("direction", training_set, SETTINGS)[0]
    assert model.slope == 0 and not model.coefficients.any()
    p = predict("direction", [model], few["a"].X)[:, 0]
    assert np.ptp(p[:, 2] / (p[:, 0] + p[:, 2])) < 1e-6


# Ranks, ridge and slope by hand


def test_ranks_are_scipys_of_each_time_with_mean_0():
    rng = np.random.default_rng(0)
    time_ns, values = rng.integers(0, 5, 300), rng.integers(0, 9, 300).astype(float)
    values[rng.random(300) < 0.1] = np.nan
    ranks = ranks_within(values, time_ns)
    for time in range(5):
        own = (time_ns == time) & ~np.isnan(values)
        np.testing.assert_allclose(ranks[own], (rankdata(values[own]) - 0.5) / own.sum() - 0.5)
        assert abs(ranks[own].mean()) < 1e-12
    assert (np.isnan(ranks) == np.isnan(values)).all()
    assert np.isnan(ranks_within(np.arange(9.0), np.zeros(9, int))).all(), "nine rows are too few"
    assert len(ranks_within(np.zeros(0), np.zeros(0, int))) == 0
    assert np.isnan(ranks_within(np.full(12, np.nan), np.zeros(12, int))).all()
    assert (ranks_within(np.ones(12), np.zeros(12, int)) == 0).all(), "ties share the middle"


def test_ridge_solves_its_normal_equations_over_blocks_and_parts():
    rng = np.random.default_rng(2)
    Z, target, penalty = rng.normal(size=(200, 4)).astype(np.float32), rng.normal(size=200), np.array([0.1, 1, 5, 10])
    target[::7] = np.nan
    part = np.arange(200) // 50
    moments = moments_of([Z[:90], Z[90:]], [target[:90], target[90:]], [part[:90], part[90:]], 5, CPU)
    for parts in ([0, 1, 2, 3], [0, 3], [1]):
        own = ~np.isnan(target) & np.isin(part, parts)
        square, product = Z[own].T @ Z[own] / own.sum(), Z[own].T @ target[own] / own.sum()
        expected = np.linalg.solve(square + np.diag(penalty), product)
        np.testing.assert_allclose(moments.ridge(penalty, parts), expected, rtol=1e-4, atol=1e-6)
    assert moments.ridge(penalty, [4]).tolist() == moments.ridge(penalty, []).tolist() == [0, 0, 0, 0]


def test_parts_have_a_gap_where_returns_of_the_part_before_end():
    time_ns = np.repeat(np.arange(20), 2)[::-1]
    part = parts_in_time(time_ns, 4, 2)
    by_time = dict(zip(time_ns.tolist(), part.tolist(), strict=True))
    assert [by_time[t] for t in range(20)] == [0] * 5 + [4, 4, 1, 1, 1] + [4, 4, 2, 2, 2] + [4, 4, 3, 3, 3]
    assert parts_in_time(np.zeros(3, int), 4, 1).tolist() == [0, 0, 0]
    assert len(parts_in_time(np.zeros(0, int), 4, 1)) == 0


def test_a_slope_is_found_and_unknown_ones_are_told():
    rng = np.random.default_rng(4)
    score, time_ns = rng.normal(size=600), np.arange(600) // 10
    up = rng.random(600) < 1 / (1 + np.exp(-score))
    y = np.where(up, 2, 0).astype(np.int8)[:, None]

    def slope(score=score, y=y, time_ns=time_ns, horizon=1):
        return slope_of(sides_of_touches(score, y, time_ns, np.zeros(1)), horizon)

    assert abs(slope().estimate - 1) < 3 * slope().standard_error < 0.6 and slope().shrunk > 0.5
    assert slope().estimate == slope_of(sides_of_ranks(score, up - 0.5, time_ns), 1).estimate
    assert slope(-score).is_reversed and slope(-score).shrunk == 0
    market = np.random.default_rng(5).random(60)[time_ns] < 0.5
    moved = slope(score + market, np.where(market, 2, y[:, 0]).astype(np.int8)[:, None])
    assert 0.3 < moved.estimate < 1.5, "days on which all rise tell nothing of the score"
    unknown = [
        slope(time_ns=time_ns // 4), slope(horizon=40), slope(np.zeros(600)), slope(time_ns / 30),
        slope(y=np.ones_like(y)), slope(np.full(600, np.nan)),
    ]  # fmt: skip
    assert all(np.isnan(one.estimate) and one.shrunk == 0 and not one.is_reversed for one in unknown)
    one_sided = slope(np.abs(score), np.full_like(y, 2))
    assert np.isnan(one_sided.estimate) or abs(one_sided.estimate) <= 3, "a slope without an end stays finite"
    assert Slope(0.05, 0.1).shrunk == 0 < Slope(0.05, 0.01).shrunk < 0.05


@pytest.mark.parametrize("setting", ["direction.l2=0", "direction.rank_l2=0", "direction.rank_l2=nan"])
def test_a_ridge_has_a_penalty(setting):
    with pytest.raises(ConfigError, match=setting.partition("=")[0]):
        equity.make("fast", settings=[setting])


# The whole job


def test_a_job_trains_stacks_publishes_and_scans_it(tmp_path):
    models = "training.models=direction,linear,meta_learner"
    settings = equity.make(
        "fast", settings=[*QUICK, models, COLUMNS, "labels.thresholds=0.02", "direction_touch.rounds=8"]
    )
    # With memory the pressure stays, and its shadows make the next bar touch the barrier of the other side.
    market = in_sectors(simulate(n_symbols=110, n_bars=260, seed=3, signal=1.0, memory=0.0), SECTORS)
    summary, worked = tiny.execute(market, None, settings, tmp_path / "OUT", 1)
    assert worked and summary["n_models"] == summary["n_models_wanted"] == 3 * 2 * 3
    loaded = load(tmp_path / "OUT")
    model = loaded.by_group["energy"]["label_1d_2pct"]["direction"]
    model = getattr(model, "model", model)
    assert model.slope > 0.05, "the market's buying pressure is in the shadows of the last bar"
    meta = loaded.by_group["energy"]["label_1d_2pct"]["meta_learner"]
    assert meta.families == ("direction", "linear")
    assert not scan(loaded, market, "direction").unpredicted
