"""The meta-learner: where it starts, what it learns, and what it does with nothing to learn from."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gpupipe.estimators import registry
from gpupipe.estimators.stacking import meta_learner
from gpupipe.estimators.stacking.meta_learner import Meta
from gpupipe.workloads import equity
from tests.support.fitting import CPU


def fit(families, predictions, y, section):
    settings = equity.make("fast").replace(meta=section)
    learner = registry.estimator("meta_learner")
    return learner.fit_stack(families, predictions, y, registry.readable(settings, "meta_learner"), CPU)


def log_odds(p):
    log = np.log(np.maximum(p.astype(np.float64), 1e-6))
    return np.stack([log[..., 0] - log[..., 1], np.zeros(p.shape[:-1]), log[..., 2] - log[..., 1]], axis=-1)


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def stacked(n_rows, seed, n_labels=2):
    """Three families' probabilities (3, n, n_labels, 3) and y: the first knows the truth, the second half, the last
    is noise."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n_rows, n_labels, 3)) + np.array([-1.0, 0.5, -1.0])
    truth = softmax(z)
    y = (rng.random((n_rows, n_labels))[..., None] > truth.cumsum(axis=-1)).sum(axis=-1).astype(np.int8)
    blurred = softmax(0.5 * z + 0.7 * rng.normal(size=z.shape))
    noise = softmax(rng.normal(size=z.shape))
    return np.stack([truth, blurred, noise]).astype(np.float32), y, truth


def predict(model, p, k):
    return model.predict([one[:, k] for one in p], CPU)


def log_loss(p, y):
    return -np.log(np.take_along_axis(p, y.astype(np.int64)[:, None], axis=1)).mean()


def test_it_starts_at_the_plain_average_of_log_odds():
    p, y, _ = stacked(500, 0)
    fitted = fit(("a", "b", "c"), {"s": p, "t": p}, {"s": y, "t": y}, Meta(l2=1e12, sector_l2=1e12))
    wanted = softmax(log_odds(p).mean(axis=0))
    for model in (fitted["s"], fitted["t"]):
        for k in range(2):
            predictions = predict(model[k], p, k)
            assert predictions.dtype == np.float32 and predictions.shape == (500, 3)
            np.testing.assert_allclose(predictions, wanted[:, k], atol=1e-6)


def test_one_family_alone_is_taken_as_it_is():
    p, y, _ = stacked(300, 1)
    fitted = fit(("a",), {"s": p[:1]}, {"s": y}, Meta(l2=1e12))
    np.testing.assert_allclose(predict(fitted["s"][0], p[:1], 0), p[0, :, 0], atol=1e-6)


def test_it_learns_whom_to_believe():
    p, y, _ = stacked(8000, 2)
    fresh, fresh_y, fresh_truth = stacked(4000, 3)
    model = fit(("oracle", "blurred", "noise"), {"s": p}, {"s": y}, Meta(l2=5.0))["s"][0]
    predictions = predict(model, fresh, 0)
    average = softmax(log_odds(fresh).mean(axis=0))[:, 0]
    target = fresh_y[:, 0]
    assert log_loss(predictions, target) < log_loss(average, target) - 0.05
    assert log_loss(predictions, target) < log_loss(fresh_truth[:, 0], target) + 0.005  # as good as knowing the truth
    contrast = model.weights.coefficients - model.weights.coefficients.mean(axis=1, keepdims=True)
    by_family = np.abs(contrast).reshape(3, 2, 3).max(axis=(1, 2))
    assert by_family[2] < 0.05 < 0.5 < by_family[0]  # the noise family is not listened to


def test_a_sector_differs_from_the_pool_as_far_as_its_rows_say():
    p, y, _ = stacked(3000, 4)
    other = p[[2, 1, 0]]  # here the last family is the oracle
    settings = Meta(l2=5.0, sector_l2=5.0)
    families = ("a", "b", "c")
    fitted = fit(families, {"s": p, "t": other}, {"s": y, "t": y}, settings)
    assert log_loss(predict(fitted["t"][0], other, 0), y[:, 0]) < log_loss(predict(fitted["s"][0], other, 0), y[:, 0])
    pulled = fit(families, {"s": p, "t": other}, {"s": y, "t": y}, Meta(l2=5.0, sector_l2=1e12))
    for k in range(2):
        np.testing.assert_allclose(pulled["s"][k].weights.coefficients, pulled["t"][k].weights.coefficients, atol=1e-6)


def test_rows_that_are_not_known_carry_no_weight():
    p, y, _ = stacked(600, 5)
    twice = {"s": np.concatenate([p, p[:, ::-1]], axis=1)}
    unknown = {"s": np.concatenate([y, np.full_like(y, -1)])}
    one = fit(("a", "b", "c"), {"s": p}, {"s": y}, Meta(max_iterations=300))["s"]
    two = fit(("a", "b", "c"), twice, unknown, Meta(max_iterations=300))["s"]
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a.weights.coefficients, b.weights.coefficients, atol=0.02)


def test_a_sector_without_rows_takes_the_pooled_weights_and_nobody_s_rows_the_average():
    p, y, _ = stacked(2000, 6)
    nothing = {"p": p[:, :0], "y": y[:0]}
    fitted = fit(("a", "b", "c"), {"s": p, "late": nothing["p"]}, {"s": y, "late": nothing["y"]}, Meta())
    alone = fit(("a", "b", "c"), {"s": p}, {"s": y}, Meta())
    for k in range(2):
        np.testing.assert_array_equal(fitted["late"][k].weights.coefficients, alone["s"][k].weights.coefficients)
        assert not np.array_equal(fitted["s"][k].weights.coefficients, fitted["late"][k].weights.coefficients)
    none = fit(("a", "b", "c"), {"late": nothing["p"]}, {"late": nothing["y"]}, Meta())["late"]
    np.testing.assert_array_equal(none[0].weights.coefficients, meta_learner.average(3).coefficients)


@pytest.mark.parametrize("inputs", ["log_odds", "probabilities"])
def test_labels_in_one_batch_are_as_each_alone(inputs):
    p, y, _ = stacked(3000, 7, n_labels=3)
    settings = Meta(inputs=inputs)
    together = fit(("a", "b", "c"), {"s": p, "t": p[:, :900]}, {"s": y, "t": y[:900]}, settings)
    for k in range(3):
        own = {"s": p[:, :, k : k + 1], "t": p[:, :900, k : k + 1]}
        label = np.ascontiguousarray(y[:, k : k + 1])
        alone = fit(("a", "b", "c"), own, {"s": label, "t": label[:900]}, settings)
        for sector in ("s", "t"):
            # Where to stop is decided for all labels together.
            np.testing.assert_allclose(
                predict(together[sector][k], p, k), predict(alone[sector][0], p, k), atol=2e-3, err_msg=f"{k} {sector}"
            )


def test_log_odds_by_hand_and_bounded():
    p = np.array([[0.2, 0.4, 0.4], [0.0, 1.0, 0.0]], np.float32)
    found = meta_learner.log_odds([p, p[::-1]], CPU)
    assert found.dtype == np.float32 and found.shape == (2, 4)
    low = np.log(1e-6)
    np.testing.assert_allclose(found, [[np.log(0.5), 0, low, low], [low, low, np.log(0.5), 0]], atol=1e-6)
    sure = np.array([[1.0, 0.0, 0.0]], np.float32)
    assert np.abs(meta_learner.log_odds([sure], CPU)).max() <= meta_learner.LARGEST_LOG_ODDS


def test_it_comes_back_bit_for_bit():
    p, y, _ = stacked(500, 7)
    model = fit(("a", "b", "c"), {"s": p}, {"s": y}, Meta())["s"][1]
    again = registry.load_model(model.files(), json.loads(json.dumps(model.describe())), {})
    assert again.families == ("a", "b", "c") and again.files() == model.files()
    np.testing.assert_array_equal(predict(again, p, 1), predict(model, p, 1))
    with pytest.raises(KeyError):
        registry.load_model({}, model.describe(), {})
