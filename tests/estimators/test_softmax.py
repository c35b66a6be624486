"""The grouped softmax against scipy and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

from gpupipe.estimators.linear import softmax_regression
from gpupipe.kernels.softmax import activity_gradient, softmax_gradient, softmax_log_loss, softmax_probability
from gpupipe.runtime.device import pick

# expf differs by a few units in the last place between libm, CUDA and Python; p is at most 1.
ABSOLUTE = 1e-6
N_ROWS, N_LABELS = 500, 6


@pytest.fixture
def case():
    """Margins from timid to extreme, labels with unknowns, weights; and the float64 probabilities."""
    rng = np.random.default_rng(11)
    margin = rng.normal(0, rng.choice([0.1, 2.0, 40.0], (N_ROWS, 1)), (N_ROWS, 3 * N_LABELS)).astype(np.float32)
    y = rng.integers(-1, 3, (N_ROWS, N_LABELS)).astype(np.int8)
    weight = rng.uniform(0.1, 8, (N_LABELS, 3)).astype(np.float32)
    p = scipy.special.softmax(margin.astype(np.float64).reshape(N_ROWS, N_LABELS, 3), axis=2)
    return margin, y, weight, p


def run(device, kernel, *inputs, columns=3 * N_LABELS, n_outputs=1):
    outputs = [device.xp.full((len(inputs[0]), columns), 7, np.float32) for _ in range(n_outputs)]
    kernel(len(inputs[0]), *map(device.asarray, inputs), *outputs)
    return [device.to_host(output) for output in outputs]


def test_probabilities_equal_scipy(device, case):
    margin, _, _, p = case
    (probability,) = run(device, softmax_probability, margin)
    np.testing.assert_allclose(probability.reshape(p.shape), p, atol=ABSOLUTE, rtol=0)
    np.testing.assert_allclose(probability.reshape(p.shape).sum(axis=2), 1, atol=ABSOLUTE, rtol=0)


def test_gradient_and_hessian_equal_the_formula_of_xgboost(device, case):
    margin, y, weight, p = case
    grad, hess = run(device, softmax_gradient, margin, y, weight, n_outputs=2)
    known = (y >= 0)[:, :, None]
    w = np.take_along_axis(np.broadcast_to(weight, (N_ROWS, N_LABELS, 3)), np.maximum(y, 0)[:, :, None], axis=2)
    expected_grad = np.where(known, w * (p - np.eye(3)[y]), 0)
    expected_hess = np.where(known, np.maximum(2 * w * p * (1 - p), 1e-16), 0)
    np.testing.assert_allclose(grad.reshape(p.shape), expected_grad, atol=8 * ABSOLUTE, rtol=0)
    np.testing.assert_allclose(hess.reshape(p.shape), expected_hess, atol=16 * ABSOLUTE, rtol=0)
    assert (hess.reshape(p.shape)[np.broadcast_to(known, p.shape)] >= np.float32(1e-16)).all()
    assert (y == -1).any()
    assert not grad.reshape(p.shape)[y == -1].any() and not hess.reshape(p.shape)[y == -1].any()


def test_log_loss_equals_scipy_and_is_nan_where_the_label_is_unknown(device, case):
    margin, y, _, _ = case
    (loss,) = run(device, softmax_log_loss, margin, y, columns=N_LABELS)
    log_p = scipy.special.log_softmax(margin.astype(np.float64).reshape(N_ROWS, N_LABELS, 3), axis=2)
    expected = -np.take_along_axis(log_p, np.maximum(y, 0)[:, :, None], axis=2)[:, :, 0]
    expected[y == -1] = np.nan
    np.testing.assert_allclose(loss, expected, atol=ABSOLUTE, rtol=1e-6)
    assert (loss[y >= 0] >= 0).all()


def test_gradient_is_the_finite_difference_of_the_weighted_loss(device):
    rng = np.random.default_rng(2)
    margin = rng.normal(0, 2, (40, 6)).astype(np.float32)
    y = rng.integers(0, 3, (40, 2)).astype(np.int8)
    weight = rng.uniform(0.2, 5, (2, 3)).astype(np.float32)
    grad, hess = run(device, softmax_gradient, margin, y, weight, columns=6, n_outputs=2)

    def loss(at):
        log_p = scipy.special.log_softmax(at.reshape(40, 2, 3), axis=2)
        chosen = np.take_along_axis(log_p, y[:, :, None], axis=2)[:, :, 0]
        return -chosen * weight[np.arange(2), y]

    step = 1e-4
    for column in range(6):
        nudge = np.zeros(6)
        nudge[column] = step
        at = margin.astype(np.float64)
        slope = (loss(at + nudge) - loss(at - nudge))[:, column // 3] / (2 * step)
        curvature = (loss(at + nudge) - 2 * loss(at) + loss(at - nudge))[:, column // 3] / step**2
        np.testing.assert_allclose(grad[:, column], slope, atol=1e-5)
        np.testing.assert_allclose(hess[:, column], np.maximum(2 * curvature, 1e-16), atol=1e-4)


def test_activity_and_direction_are_the_finite_differences_of_the_weighted_loss(device):
    rng = np.random.default_rng(4)
    margin = rng.normal(0, 2, (40, 6)).astype(np.float32)
    y = rng.integers(-1, 3, (40, 2)).astype(np.int8)
    weight = rng.uniform(0.2, 5, (2, 3)).astype(np.float32)
    grad, hess = run(device, activity_gradient, margin, y, weight, columns=4, n_outputs=2)

    def loss(moved):
        """Of each row and label, with (activity, direction) of each label moved."""
        at = margin.astype(np.float64).reshape(40, 2, 3).copy()
        at[:, :, 0] += moved[0::2] - moved[1::2]
        at[:, :, 2] += moved[0::2] + moved[1::2]
        chosen = np.take_along_axis(scipy.special.log_softmax(at, axis=2), np.maximum(y, 0)[:, :, None], axis=2)
        return np.where(y >= 0, -chosen[:, :, 0] * weight[np.arange(2), y], 0)

    step, still = 1e-4, np.zeros(4)
    for column in range(4):
        nudge = np.zeros(4)
        nudge[column] = step
        slope = (loss(nudge) - loss(-nudge))[:, column // 2] / (2 * step)
        curvature = (loss(nudge) - 2 * loss(still) + loss(-nudge))[:, column // 2] / step**2
        factor = 2 if column % 2 else 1  # half steps of the direction
        np.testing.assert_allclose(grad[:, column], slope, atol=1e-5)
        np.testing.assert_allclose(hess[:, column], factor * curvature, atol=2e-4)
    assert (y == -1).any() and not grad.reshape(40, 2, 2)[y == -1].any() and not hess.reshape(40, 2, 2)[y == -1].any()


@pytest.mark.parametrize(
    "kernel",
    [softmax_gradient, activity_gradient, softmax_log_loss, softmax_probability],
    ids=lambda kernel: kernel.__name__,
)
def test_compiled_equals_plain_body(device, case, kernel):
    margin, y, weight, _ = case
    inputs, columns, n_outputs = {
        softmax_gradient: ((margin, y, weight), 3 * N_LABELS, 2),
        activity_gradient: ((margin, y, weight), 2 * N_LABELS, 2),
        softmax_log_loss: ((margin, y), N_LABELS, 1),
        softmax_probability: ((margin,), 3 * N_LABELS, 1),
    }[kernel]
    compiled = run(device, kernel, *inputs, columns=columns, n_outputs=n_outputs)
    plain = [np.full((N_ROWS, columns), 7, np.float32) for _ in range(n_outputs)]
    for i in range(N_ROWS):
        kernel.body(i, *inputs, *plain)
    for a, b in zip(compiled, plain, strict=True):
        np.testing.assert_allclose(a, b, atol=16 * ABSOLUTE, rtol=1e-6)


def test_extreme_and_nan_margins(device):
    margin = np.array([[1e4, 0, -1e4], [-3e38, -3e38, -3e38], [np.nan, 0, 0], [0, 0, np.nan]], np.float32)
    y = np.array([[2], [1], [0], [1]], np.int8)
    weight = np.ones((1, 3), np.float32)
    (probability,) = run(device, softmax_probability, margin, columns=3)
    assert probability[0].tolist() == [1, 0, 0]
    assert probability[1].tolist() == pytest.approx([1 / 3] * 3)
    assert np.isnan(probability[2:]).all()
    (loss,) = run(device, softmax_log_loss, margin, y, columns=1)
    assert loss[:2, 0].tolist() == pytest.approx([2e4, np.log(3)]) and np.isnan(loss[2:]).all()
    grad, hess = run(device, softmax_gradient, margin, y, weight, columns=3, n_outputs=2)
    assert grad[0].tolist() == [1, 0, -1] and hess[0].tolist() == [np.float32(1e-16)] * 3
    assert np.isnan(grad[2:]).all() and np.isnan(hess[2:]).all()


@pytest.mark.parametrize("n_outputs", [1, 2, 3, 4, 6])
def test_margins_of_any_number_of_outputs_stay_within_their_memory(n_outputs):
    """The kernel computes three outputs at a time: the last rows of others were written beyond the end."""
    rng = np.random.default_rng(n_outputs)
    Z = rng.normal(size=(900, 5)).astype(np.float32)
    weights = softmax_regression.Weights(rng.normal(size=(5, n_outputs)), rng.normal(size=n_outputs))
    whole = weights.margin_of_rows(Z, pick("cpu"))
    assert whole.shape == (900, n_outputs) and whole.dtype == np.float32 and whole.flags.c_contiguous
    np.testing.assert_allclose(whole, Z @ weights.coefficients + weights.intercept, atol=2e-5)
    for _ in range(20):
        assert np.array_equal(weights.margin_of_rows(Z, pick("cpu")), whole)
    assert np.array_equal(weights.margin_of_rows(Z[7:8], pick("cpu")), whole[7:8])
