"""The measures against scikit-learn on random cases, and by hand where scikit-learn has no such measure."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics

from gpupipe.estimators.three_classes import LOWER, MIDDLE, UPPER
from gpupipe.evaluation import metrics


def random_case(seed):
    """Informative probabilities, observed classes, and returns with some NaN."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(30, 400))
    truth = rng.dirichlet([0.6, 2.0, 0.6], n)
    y = (rng.random(n)[:, None] > truth.cumsum(axis=1)).sum(axis=1).clip(0, 2).astype(np.int8)
    y[:3] = (LOWER, MIDDLE, UPPER)
    predictions = 0.7 * truth + 0.3 * rng.dirichlet([1, 1, 1], n)
    if seed % 2:
        predictions = np.round(predictions, 1) + 0.05  # many ties
    probability = (predictions / predictions.sum(axis=1, keepdims=True)).astype(np.float32)
    returns = rng.normal(0, 0.02, n).astype(np.float32)
    returns[rng.random(n) < 0.1] = np.nan
    return probability, y, returns


@pytest.mark.parametrize("seed", range(12))
def test_every_measure_equals_scikit_learns(seed):
    probability, y, returns = random_case(seed)
    prior = np.bincount(y, minlength=3) / len(y)
    cutoffs = metrics.call_cutoffs(probability, y)
    values = metrics.measures(probability, y, prior, cutoffs, returns)
    exact = probability.astype(np.float64)
    loss = sklearn.metrics.log_loss(y, exact / exact.sum(axis=1, keepdims=True), labels=[0, 1, 2])
    prior_loss = sklearn.metrics.log_loss(y, np.tile(prior, (len(y), 1)), labels=[0, 1, 2])
    assert values["rows"] == len(y)
    assert values["log_loss"] == pytest.approx(loss, rel=1e-6)
    assert values["prior_log_loss"] == pytest.approx(prior_loss, rel=1e-12)
    assert values["gain_over_prior"] == pytest.approx(1 - loss / prior_loss, abs=1e-6)
    called = metrics.calls(probability, cutoffs)
    assert values["balanced_accuracy"] == pytest.approx(sklearn.metrics.balanced_accuracy_score(y, called), rel=1e-12)
    for name, c in (("buy", UPPER), ("sell", LOWER)):
        score = sklearn.metrics.average_precision_score(y == c, probability[:, c])
        assert values[f"pr_auc_{name}"] == pytest.approx(score, rel=1e-12)
        assert values[f"precision_{name}"] == pytest.approx(
            sklearn.metrics.precision_score(y == c, called == c), rel=1e-12
        )
        assert values[f"recall_{name}"] == pytest.approx(sklearn.metrics.recall_score(y == c, called == c), rel=1e-12)
        assert values[f"share_{name}"] == (y == c).mean()
        assert values[f"calls_{name}"] == (called == c).sum()
        assert values[f"return_when_{name}"] == pytest.approx(np.nanmean(returns[called == c].astype(np.float64)))


@pytest.mark.parametrize("seed", range(6))
def test_the_cutoff_has_the_best_f1_of_all(seed):
    probability, y, _ = random_case(seed)
    for name, c in (("buy", UPPER), ("sell", LOWER)):
        cutoff = metrics.call_cutoffs(probability, y)[name]
        scores = [sklearn.metrics.f1_score(y == c, probability[:, c] >= v) for v in np.unique(probability[:, c])]
        assert sklearn.metrics.f1_score(y == c, probability[:, c] >= np.float32(cutoff)) == pytest.approx(max(scores))


def test_calls_by_hand():
    probability = np.array([[0.2, 0.6, 0.2], [0.3, 0.5, 0.2], [0.1, 0.5, 0.4], [0.4, 0.2, 0.4], [0.6, 0.0, 0.4]])
    called = metrics.calls(probability, {"buy": 0.4, "sell": 0.3})
    # In the last two rows both exceed their cutoffs, LOWER by the larger ratio (4/3 and 2 against 1).
    assert called.tolist() == [MIDDLE, LOWER, UPPER, LOWER, LOWER] and called.dtype == np.int8
    assert metrics.calls(probability[3:4], {"buy": 0.3, "sell": 0.3}).tolist() == [UPPER]  # equal ratios: UPPER


@pytest.mark.parametrize("n_classes", [2, 5])
def test_the_columns_of_the_probabilities_are_the_classes(n_classes):
    rng = np.random.default_rng(11)
    probability, y = rng.dirichlet(np.ones(n_classes), 400).astype(np.float32), rng.integers(0, n_classes, 400)
    cutoffs, prior = {"buy": 0.55, "sell": 0.55}, np.ones(n_classes) / n_classes
    called = metrics.calls(probability, cutoffs)
    reached = {0: probability[:, 0] >= 0.55, n_classes - 1: probability[:, -1] >= 0.55}
    ahead = probability[:, 0] > probability[:, -1]
    np.testing.assert_array_equal(called == 0, reached[0] & ahead)
    np.testing.assert_array_equal(called == n_classes - 1, reached[n_classes - 1] & ~ahead)
    assert set(called) == {0, n_classes - 1, 2 if n_classes == 5 else -1}
    values = metrics.measures(probability, y, prior, cutoffs, np.zeros(400, np.float32))
    assert values["share_buy"] == (y == n_classes - 1).mean() and values["share_sell"] == (y == 0).mean()
    assert values["prior_log_loss"] == pytest.approx(np.log(n_classes))
    assert values["balanced_accuracy"] == pytest.approx(
        np.mean([(called[y == c] == c).mean() for c in range(n_classes)])
    )


def test_a_class_that_was_never_observed_is_never_called():
    probability, y = random_case(3)[0], np.full(len(random_case(3)[0]), MIDDLE, np.int8)
    cutoffs = metrics.call_cutoffs(probability, y)
    assert cutoffs == {"buy": 1.0, "sell": 1.0}
    assert (metrics.calls(probability, cutoffs) == MIDDLE).all()


def test_undefined_measures_are_nan_and_not_zero():
    probability = random_case(1)[0]
    n = len(probability)
    prior, cutoffs = np.array([0.2, 0.6, 0.2]), {"buy": 1.0, "sell": 1.0}
    values = metrics.measures(probability, np.full(n, MIDDLE, np.int8), prior, cutoffs, np.zeros(n, np.float32))
    undefined = {f"{m}_{c}" for m in ("precision", "recall", "pr_auc", "return_when") for c in ("buy", "sell")}
    undefined |= {"gain_over_prior", "touch_gain", "direction_gain"}  # all rows are of one class
    assert {name for name, value in values.items() if np.isnan(value)} == undefined
    assert values["balanced_accuracy"] == 1.0 and values["share_buy"] == 0.0 and values["calls_sell"] == 0
    # Calls whose returns are all NaN have no mean return.
    low = {"buy": 0.01, "sell": 2.0}
    unknown = metrics.measures(probability, np.full(n, UPPER, np.int8), prior, low, np.full(n, np.nan, np.float32))
    assert unknown["calls_buy"] > 0 and np.isnan(unknown["return_when_buy"])


def test_rows_of_a_single_class_have_no_gain():
    """The prior of 1 in 1,000 loses next to nothing on them: the ratio would be -14,065 percent."""
    y = np.full(50, MIDDLE, np.int8)
    probability, prior = np.tile(np.float32([0.08, 0.86, 0.06]), (50, 1)), np.array([0.0005, 0.999, 0.0005])
    values = metrics.measures(probability, y, prior, {"buy": 0.5, "sell": 0.5}, np.zeros(50, np.float32))
    assert np.isnan(values["gain_over_prior"]) and values["prior_log_loss"] == pytest.approx(0.001, rel=1e-3)
    assert 1 - values["log_loss"] / values["prior_log_loss"] < -140  # of which nothing follows
    y[0] = UPPER
    values = metrics.measures(probability, y, prior, {"buy": 0.5, "sell": 0.5}, np.zeros(50, np.float32))
    assert values["gain_over_prior"] == pytest.approx(1 - values["log_loss"] / values["prior_log_loss"])


def test_no_rows_give_nan():
    nothing = np.empty((0, 3), np.float32)
    values = metrics.measures(nothing, np.empty(0, np.int8), np.ones(3) / 3, {"buy": 1.0, "sell": 1.0}, nothing[:, 0])
    assert (values["rows"], values["calls_buy"], values["calls_sell"]) == (0, 0, 0)
    assert all(np.isnan(v) for name, v in values.items() if name != "rows" and not name.startswith("calls"))


def test_log_loss_by_hand_and_bounded():
    probability = np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]], np.float32)
    losses = metrics.log_losses(probability, np.array([0, 0], np.int8))
    assert losses.tolist() == pytest.approx([np.log(2), -np.log(1e-12)]) and losses.dtype == np.float64


def test_calibration_of_a_perfect_oracle_is_zero():
    happened = np.random.default_rng(0).random(1000) < 0.3
    assert metrics.calibration_error(happened.astype(np.float32), happened) == 0.0


def test_calibration_by_hand():
    # 20 rows, bins of two: nine bins predict 0.1 without any event, the last predicts 0.9 with one event in two rows.
    probability = np.array([0.1] * 18 + [0.9] * 2)
    happened = np.array([False] * 18 + [True, False])
    assert metrics.calibration_error(probability, happened) == pytest.approx(0.9 * 0.1 + 0.1 * 0.4)
    mixed = np.random.default_rng(1).permutation(20)  # rows in any order
    by_bin = metrics.calibration_error(probability[mixed], happened[mixed])
    assert by_bin == pytest.approx(0.9 * 0.1 + 0.1 * 0.4)
    assert metrics.calibration_error(np.array([0.25]), np.array([True])) == 0.75
    assert metrics.calibration_error(np.array([0.25, 0.5]), np.array([False, True])) == pytest.approx(0.375)


def test_calibration_error_detects_overconfident_probabilities():
    rng = np.random.default_rng(2)
    probability = rng.uniform(0, 0.5, 20_000)
    happened = rng.random(20_000) < probability
    assert metrics.calibration_error(probability, happened) < 0.02
    assert metrics.calibration_error(probability + 0.3, happened) == pytest.approx(0.3, abs=0.02)
