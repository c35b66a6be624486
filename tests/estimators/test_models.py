"""The model families on a small problem whose true probabilities are known."""

from __future__ import annotations

import dataclasses
import json
import warnings

import numpy as np
import pytest

from gpupipe.estimators import registry
from gpupipe.estimators.baselines.class_shares import fit_table
from gpupipe.estimators.boosting import tree_model
from gpupipe.estimators.boosting.binned_matrix import binned
from gpupipe.estimators.linear import softmax_linear, softmax_regression
from gpupipe.estimators.linear.softmax_regression import RegressionRows
from gpupipe.estimators.three_classes import LOWER, UPPER
from gpupipe.evaluation.paired_test import clearly_better
from gpupipe.runtime.device import Device, DeviceError
from gpupipe.workloads import equity
from tests.support.fitting import (
    BOOSTERS,
    CPU,
    FAMILIES,
    OPTIONAL,
    SETTINGS,
    as_bytes,
    fit_all,
    fit_group,
    fit_pool,
    fitted,
    log_loss,
    predict,
    predict_model,
    world,
)
from tests.support.tiny import fold_of, planted, view_of

ALONE = ("xgb_hist", "xgb_leafwise", *BOOSTERS)  # a model of one sector and one label


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_beats_the_prior_out_of_sample(name):
    fold, tests, _ = world()
    _, by_sector = fitted(name)
    for sector, rows in tests.items():
        predictions = predict(name, by_sector[sector], rows.X)
        assert (
            predictions.shape == (rows.n, 2, 3)
            and predictions.dtype == np.float32
            and predictions.flags["C_CONTIGUOUS"]
        )
        assert (predictions >= 0).all() and (predictions <= 1).all()
        np.testing.assert_allclose(predictions.sum(axis=2), 1, atol=2e-6)
        prior = np.broadcast_to(fold.shares([sector]), predictions.shape)
        gain = 1 - log_loss(predictions, rows.y) / log_loss(prior, rows.y)
        assert (gain > 0.08).all(), (name, sector, gain)


@pytest.mark.parametrize("name", FAMILIES)
def test_one_model_says_what_all_of_them_say(name):
    _, tests, _ = world()
    by_sector = fitted(name)[1]
    together = predict(name, by_sector["c"], tests["c"].X)
    for k, model in enumerate(by_sector["c"]):
        np.testing.assert_array_equal(predict_model(name, model, tests["c"].X), together[:, k])
    assert predict(name, by_sector["c"], tests["c"].X[:0]).shape == (0, 2, 3)


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_without_any_value_are_predicted_too(name):
    nothing = np.full((4, 6), np.nan, np.float32)
    predictions = predict(name, fitted(name)[1]["a"], nothing)
    assert np.isfinite(predictions).all()
    np.testing.assert_allclose(predictions.sum(axis=2), 1, atol=2e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_saved_models_come_back_bit_for_bit(name):
    _, tests, _ = world()
    boosters = {}
    for sector, models in fitted(name)[1].items():
        X = tests[sector].X
        again = []
        for model in models:
            about = json.loads(json.dumps(model.describe()))
            assert about["scope"] in ("pool", "sector")
            again.append(registry.load_model(model.files(), about, boosters))
        np.testing.assert_array_equal(predict(name, again, X), predict(name, models, X))
        assert as_bytes(again) == as_bytes(models)  # and are the same files again


def test_equal_files_are_loaded_once():
    boosters = {}
    again = [registry.load_model(m.files(), m.describe(), boosters) for m in fitted("xgb_joint")[0]]
    assert len(boosters) == 1 and again[0].stages[0].booster is again[1].stages[0].booster


def test_an_unknown_kind_of_model_is_refused():
    with pytest.raises(ValueError, match="unknown kind of model 'oracle'"):
        registry.load_model({}, {"kind": "oracle"}, {})


@pytest.mark.parametrize("name", FAMILIES)
def test_the_number_of_threads_changes_no_byte(name):
    few = equity.make("fast", settings=[
        "joint.rounds=4", "hist.rounds=3", "leafwise.rounds=3", "forest.trees=3", "lightgbm.rounds=5",
        "catboost.rounds=5",
    ])  # fmt: skip
    one, two = (fit_all(name, dataclasses.replace(world()[0], threads=threads), few) for threads in (1, 2))
    assert as_bytes(one[0]) == as_bytes(two[0])
    for sector in one[1]:
        assert as_bytes(one[1][sector]) == as_bytes(two[1][sector])


@pytest.mark.parametrize("name", FAMILIES)
def test_fitting_again_gives_the_same_bytes_and_another_fold_does_not_disturb(name):
    fold = world()[0]
    again = fit_all(name, fold, SETTINGS)  # on the fold, and the bins, that all families have used before
    assert as_bytes(again[0]) == as_bytes(fitted(name)[0])
    assert all(as_bytes(again[1][s]) == as_bytes(fitted(name)[1][s]) for s in fold.groups)


def test_each_label_of_linear_is_fitted_with_its_own_penalty():
    """All labels in one product are, label by label, what each gives alone with the penalty that is its own."""
    rows, _ = planted(3000, 1, missing=0.0)
    centre = softmax_regression.Weights(np.zeros((6, 6)), np.zeros(6))
    ones, penalties = np.ones((2, 3), np.float32), np.array([20.0, 2000.0])
    both = softmax_regression.fit(RegressionRows([rows.X], [rows.y], ones), centre, penalties, 200, CPU)
    for k, l2 in enumerate(penalties):
        one_label = RegressionRows([rows.X], [rows.y[:, k : k + 1].copy()], ones[:1])
        alone = softmax_regression.fit(one_label, softmax_regression.target_columns(centre, k), l2, 200, CPU)
        own = softmax_regression.target_columns(both, k)
        np.testing.assert_allclose(own.coefficients, alone.coefficients, atol=3e-3)
        np.testing.assert_allclose(own.intercept, alone.intercept, atol=3e-3)
    size = [np.abs(softmax_regression.target_columns(both, k).coefficients).sum() for k in range(2)]
    assert size[1] < 0.8 * size[0], "the second label's penalty is a hundred times the first's"


def test_the_penalty_of_a_label_is_in_proportion_to_its_entropy():
    """The prior's mean loss over the fitted rows: small for rare events, log 3 for balanced classes."""
    for weighted in ("none", "balanced"):
        fold = world(weighted, base=(-4.0, 0.0, -4.0))[0]
        y = np.concatenate([rows.y for rows in fold.fit.values()])
        expected = []
        for k, column in enumerate(y.T):
            weight = fold.weights()[k][column]
            shares = np.bincount(column, weights=weight, minlength=3) / weight.sum()
            expected.append(np.average(-np.log(shares[column]), weights=weight))
        np.testing.assert_allclose(softmax_linear.entropy(fold), expected, rtol=2e-3)
    assert softmax_linear.entropy(world()[0])[0] > 1.5 * softmax_linear.entropy(world(base=(-4.0, 0.0, -4.0))[0])[0]
    np.testing.assert_allclose(softmax_linear.entropy(fold), np.log(3), rtol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_balanced_classes_leave_probabilities_calibrated(name):
    _, tests, _ = world(base=(-2.5, 0.0, -3.0))
    plain = fit_all(name, world("none", base=(-2.5, 0.0, -3.0))[0], SETTINGS)
    balanced = fit_all(name, world("balanced", base=(-2.5, 0.0, -3.0))[0], SETTINGS)
    for sector, rows in tests.items():
        predictions = predict(name, balanced[1][sector], rows.X)
        unweighted = predict(name, plain[1][sector], rows.X)
        for k in range(2):
            for c in (LOWER, UPPER):
                share = (rows.y[:, k] == c).mean()
                assert predictions[:, k, c].mean() == pytest.approx(share, rel=0.3), (sector, k, c)
        assert (log_loss(predictions, rows.y) < 1.12 * log_loss(unweighted, rows.y)).all(), sector
    weights = world("balanced", base=(-2.5, 0.0, -3.0))[0].weights()
    assert (weights[:, UPPER] > 2).all() and (weights[:, 1] < 1).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_an_out_of_fold_round_takes_the_choices_of_the_final_one(name):
    fold = world()[0]
    frozen = fitted(name)
    half = {s: rows.slice(0, 700) for s, rows in fold.fit.items()}
    out_of_fold = dataclasses.replace(fold, name="part1", fit=half, validation={})
    pooled, by_sector = fit_all(name, out_of_fold, SETTINGS, frozen)
    for chosen, models in zip([frozen[0], *frozen[1].values()], [pooled, *by_sector.values()], strict=True):
        for a, b in zip(chosen, models, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert a.scope == b.scope and a.describe().get("rounds") == b.describe().get("rounds")
                assert a.files() != b.files()


def test_early_stopping_chooses_fewer_rounds_than_there_are():
    for name, field in (("xgb_hist", "hist"), ("xgb_leafwise", "leafwise"), ("xgb_joint", "joint")):
        long = equity.make("fast", settings=[f"{field}.rounds=400", f"{field}.learning_rate=0.3"])
        models = fit_pool(name, world()[0], long)
        if name != "xgb_joint":
            models = fit_group(name, world()[0], "a", long, models)
        rounds = [model.stages[0].rounds for model in models]
        assert all(1 <= r < 400 for r in rounds), (name, rounds)
        # The booster is cut: no rounds are kept that no model asks for.
        assert models[0].stages[0].booster.num_boosted_rounds() == (max(rounds) if name == "xgb_joint" else rounds[0])


WHOLE = equity.make("fast", settings=[
    *(f"{stage}.{field}=1.0"
      for stage in ("joint", "joint_sector", "hist", "leafwise", "forest", "lightgbm", "catboost")
      for field in ("subsample", "column_share")),
    *(f"{stage}.rounds=10" for stage in ("hist", "leafwise", "joint", "lightgbm", "catboost")),
    "forest.trees=2", "linear.max_iterations=200",
])  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_labels_that_are_not_known_carry_no_weight(name):
    """Every row once more with unknown labels: the same bins, means and shares, so the same model."""
    fold, tests, _ = world()
    eleven_values = {s: (r.X * 2).round().clip(-5, 5) / 2 for s, r in fold.fit.items()}
    fit = {s: view_of(eleven_values[s], r.y, r.time_ns) for s, r in fold.fit.items()}
    twice = {
        s: view_of(np.concatenate([r.X, r.X]), np.concatenate([r.y, np.full_like(r.y, -1)]), np.tile(r.time_ns, 2))
        for s, r in fit.items()
    }
    known = {s: np.arange(r.n) % 7 > 0 for s, r in fold.validation.items()}
    unknown = {
        s: view_of(r.X, np.where(known[s][:, None], r.y, np.int8(-1)), r.time_ns) for s, r in fold.validation.items()
    }
    dropped = {s: view_of(r.X[known[s]], r.y[known[s]], r.time_ns[known[s]]) for s, r in fold.validation.items()}
    models = fit_all(name, dataclasses.replace(fold, fit=twice, validation=unknown), WHOLE)
    expected = fit_all(name, dataclasses.replace(fold, fit=fit, validation=dropped), WHOLE)
    for s in fold.groups:
        assert [m.describe().get("rounds") for m in models[1][s]] == [
            m.describe().get("rounds") for m in expected[1][s]
        ]
        predictions, wanted = (predict(name, one[1][s], tests[s].X) for one in (models, expected))
        np.testing.assert_allclose(predictions, wanted, atol=0.01 if name == "linear" else 1e-3)


@pytest.mark.parametrize("name", ["xgb_hist", "xgb_leafwise", *OPTIONAL])
def test_a_sector_with_too_few_positives_takes_the_pooled_model(name):
    fold = world()[0]
    poor = fold.fit["b"]
    y = poor.y.copy()
    y[np.flatnonzero(y[:, 0] == UPPER)[19:], 0] = 1  # 19 rows of the upper class are left of the first label
    fold = dataclasses.replace(fold, fit={**fold.fit, "b": view_of(poor.X, y, poor.time_ns)})
    pooled, by_sector = fit_all(name, fold, SETTINGS)
    assert pooled[0] is not None and pooled[0].scope == "pool" and pooled[1] is None
    assert by_sector["b"][0] is pooled[0]
    scopes = {s: [model.scope for model in models] for s, models in by_sector.items()}
    assert scopes == {"a": ["sector", "sector"], "b": ["pool", "sector"], "c": ["sector", "sector"]}
    rich = dataclasses.replace(world()[0], validation={})
    again = fit_all(
        name, rich, SETTINGS, (pooled, by_sector)
    )  # the choice is taken over, whatever this round's counts are
    assert again[1]["b"][0].scope == "pool" and again[0][1] is None


@pytest.mark.parametrize("name", FAMILIES)
def test_one_sector_alone_is_its_own_pool(name):
    fold, tests, _ = world(sectors=("c",))
    pooled, by_sector = fit_all(name, fold, SETTINGS)
    assert [model.scope for model in by_sector["c"]] == ["sector", "sector"]
    if name in ALONE:
        assert pooled == [None, None]
    else:
        assert by_sector["c"] == pooled
    predictions = predict(name, by_sector["c"], tests["c"].X)
    prior = np.broadcast_to(fold.shares(), predictions.shape)
    assert (log_loss(predictions, tests["c"].y) < 0.95 * log_loss(prior, tests["c"].y)).all()


# Of eight. One standard error is not much, and the boosted stage is judged on the rows that chose its rounds.
@pytest.mark.parametrize("name, least", [("xgb_joint", 2), ("linear", 5)])
def test_a_sector_that_differs_gets_a_stage_of_its_own(name, least):
    """Sector c's signal is twice as strong; where all sectors are alike, a pooled model that has learned is kept."""
    assert {model.scope for model in fitted(name)[1]["c"]} == {"sector"}
    sectors = dict(enumerate("abcd"))
    alike = fold_of(
        {s: planted(1500, k)[0] for k, s in sectors.items()}, {s: planted(700, 10 + k)[0] for k, s in sectors.items()}
    )
    learned = equity.make("fast", settings=["joint.rounds=300", "linear.l2=1", "linear.max_iterations=200"])
    pooled, by_sector = fit_all(name, alike, learned)
    scopes = [model.scope for models in by_sector.values() for model in models]
    assert scopes.count("pool") >= least, scopes
    for models in by_sector.values():
        assert all(a is b for a, b in zip(models, pooled, strict=True) if a.scope == "pool")


def test_xgboost_that_trained_on_the_cpu_unasked_is_refused():
    """A CPU build (or a machine without a driver) takes device="cuda" and trains on the CPU without a word."""
    import xgboost

    assert not xgboost.build_info()["USE_CUDA"], "this test needs a build of XGBoost without CUDA"
    cuda = Device("cuda", "a GPU that is not there", "for this test")
    bins = binned(world()[0]).cut_points
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # versions differ in whether they say something
        booster = tree_model.vector_leaf(tree_model.parameters(SETTINGS.joint, cuda, 32, 1, 0), 6, bins)
        booster.save_config()
    with pytest.raises(DeviceError, match=r"asked to train on cuda and trained on cpu.*--device cpu"):
        tree_model.refuse_silent_cpu(booster, cuda)
    tree_model.refuse_silent_cpu(booster, CPU)


def test_clearly_better_by_hand():
    time = np.repeat(np.arange(40), 2)  # four blocks of ten times, two rows a time
    reference = np.ones(80)
    assert clearly_better(reference - 0.1, reference, time)
    assert not clearly_better(reference, reference, time)
    assert not clearly_better(reference + 0.1, reference, time)
    # Gains by block 8, 4, 0, -4: their sum is 8, its standard error 5.16 * 2 = 10.3.
    by_block = np.repeat([0.4, 0.2, 0.0, -0.2], 20)
    assert not clearly_better(reference - by_block, reference, time)
    # Gains by block 8, 8, 0, 0: their sum is 16, its standard error 4.62 * 2 = 9.2.
    assert clearly_better(reference - np.repeat([0.4, 0.4, 0.0, 0.0], 20), reference, time)
    # Rows that one of the two does not know are left out.
    unknown = reference - by_block
    unknown[time >= 30] = np.nan  # 8, 4, 0: sum 12, standard error 4 * 1.73 = 6.9
    assert clearly_better(unknown, reference, time)
    assert not clearly_better(reference[:40] - 0.1, reference[:40], time[:40])  # two blocks say nothing
    assert not clearly_better(reference[:0], reference[:0], time[:0])


def test_the_volatility_table_by_hand():
    natr = np.repeat(np.arange(20, dtype=np.float32), 50)  # twenty levels of fifty rows: one a bin
    y = np.ones((1000, 1), np.int8)
    y[natr == 19, 0] = np.tile([0, 2], 25)
    y[:3] = -1  # left out
    table = fit_table([natr[:400], natr[400:]], [y[:400], y[400:]], 3)
    predictions = table.predict(natr)
    assert predictions.shape == (1000, 1, 3)
    np.testing.assert_allclose(predictions.sum(axis=2), 1)
    counts = np.array([25, 947, 25]) + 0.5
    smooth = 10 * counts / counts.sum()
    np.testing.assert_allclose(predictions[-1, 0], (np.array([25, 0, 25]) + smooth) / 60)
    np.testing.assert_allclose(predictions[100, 0], (np.array([0, 50, 0]) + smooth) / 60)
    np.testing.assert_allclose(predictions[0, 0], (np.array([0, 47, 0]) + smooth) / 57)
    np.testing.assert_array_equal(table.predict(np.array([np.nan, 99], np.float32)), predictions[-1:].repeat(2, axis=0))


def test_shares_and_weights_by_hand():
    rows = view_of(np.zeros((6, 1), np.float32), np.array([[0], [1], [1], [1], [2], [-1]], np.int8), np.arange(6))
    fold = fold_of({"a": rows}, {}, "balanced")
    assert fold.counts["a"].tolist() == [[1, 3, 1]]
    np.testing.assert_allclose(fold.shares(), [[1.5 / 6.5, 3.5 / 6.5, 1.5 / 6.5]])
    np.testing.assert_allclose(fold.shares(["a"]), (np.array([[1, 3, 1]]) + fold.shares()) / 6)
    np.testing.assert_allclose(fold.weights(), 1 / (3 * fold.shares()), rtol=1e-6)
    assert (dataclasses.replace(fold, class_weight="none").weights() == 1).all()
