"""Kernels of the recurrent policy: plain body, compiled loop, naive float64, and rows that do not depend on others."""

from __future__ import annotations

import numpy as np
import pytest

from gpupipe.estimators.torch.policy_weights import PolicyWeights
from gpupipe.kernels.policy import hyperbolic_tangent, policy_step, sigmoid
from tests.support.policies import N_ACTIONS, N_OBSERVATIONS, arrays_of_policy, naive_step

CLOSE = {"rtol": 0, "atol": 2e-6}  # float32 sums of some dozen products, against float64


def inputs_of(weights, n, seed=0):
    """Observations, and states that are not zero."""
    rng = np.random.default_rng(seed)
    observations = rng.normal(size=(n, N_OBSERVATIONS)).astype(np.float32)
    h, c = rng.uniform(-0.8, 0.8, (2, n, weights.layers * weights.size)).astype(np.float32)
    return observations, h, c


@pytest.mark.parametrize("layers", [1, 2])
def test_compiled_steps_equal_the_plain_body(layers):
    weights = PolicyWeights.of(arrays_of_policy(layers, size=6, heads=(5, 3)))
    inputs = inputs_of(weights, 4)
    step = weights.step(*inputs)
    outputs = [np.zeros_like(x) for x in (step.h, step.c, step.logits, step.values, step.actions)]
    work = np.zeros((4, weights.n_work), np.float32)
    for i in range(4):
        policy_step.body(np.int64(i), *inputs, *arguments(weights), work, *outputs)
    for got, expected in zip((step.h, step.c, step.logits, step.values, step.actions), outputs, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)  # exp differs by a few units in the last place


def arguments(weights):
    return weights.recurrent, weights.first, weights.second, weights.last


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(("size", "heads"), [(1, (1, 1)), (7, (5, 3)), (32, (64, 32)), (16, (40, 8))])
def test_steps_equal_a_naive_lstm(layers, size, heads):
    arrays = arrays_of_policy(layers, size, heads)
    weights = PolicyWeights.of(arrays)
    assert (weights.n_observations, weights.n_actions, weights.size) == (N_OBSERVATIONS, N_ACTIONS, size)
    observations, h, c = inputs_of(weights, 9)
    before = h.copy(), c.copy()
    step = weights.step(observations, h, c)
    assert (h == before[0]).all() and (c == before[1]).all()
    logits, values, next_h, next_c = naive_step(arrays, observations, h, c)
    np.testing.assert_allclose(step.h, next_h, **CLOSE)
    np.testing.assert_allclose(step.c, next_c, **CLOSE)
    np.testing.assert_allclose(step.logits, logits, **CLOSE)
    np.testing.assert_allclose(step.values, values, **CLOSE)
    assert (step.actions == step.logits.argmax(axis=1)).all()


def test_bits_of_a_row_do_not_depend_on_the_rows_beside_it():
    weights = PolicyWeights.of(arrays_of_policy(2, 16, (8, 4)))
    inputs = inputs_of(weights, 300)
    whole = weights.step(*inputs)
    rows = np.random.default_rng(1).permutation(300)[:7]
    some = weights.step(*(x[rows] for x in inputs))
    for name in ("logits", "values", "actions", "h", "c"):
        assert getattr(some, name).tobytes() == getattr(whole, name)[rows].tobytes(), name
    assert weights.step(*(x[:0] for x in inputs)).logits.shape == (0, N_ACTIONS)


def test_nan_stays_in_its_row_and_equal_logits_give_the_first_action():
    weights = PolicyWeights.of(arrays_of_policy(1, 4, (3, 2)))
    observations, h, c = inputs_of(weights, 3)
    expected = weights.step(observations, h, c)
    observations[1, 2] = np.nan
    step = weights.step(observations, h, c)
    assert np.isnan(step.logits[1]).all() and np.isnan(step.values[1]) and step.actions[1] == 0
    assert (step.logits[[0, 2]] == expected.logits[[0, 2]]).all()
    weights.last[...] = 0
    assert (weights.step(observations[:1], h[:1], c[:1]).actions == 0).all()


def test_sigmoid_and_tangent_are_as_exact_as_they_say_and_do_not_overflow():
    x = np.concatenate([np.linspace(-15, 15, 3001), [-1e4, 1e4, 0, -np.inf, np.inf]]).astype(np.float32)
    exact = x.astype(np.float64)
    with np.errstate(over="ignore"):
        expected = 1 / (1 + np.exp(-exact))
    for function, values in ((sigmoid, expected), (hyperbolic_tangent, np.tanh(exact))):
        got = np.array([function(value) for value in x])
        assert got.dtype == np.float32 and np.abs(got - values).max() < 1.2e-7
        assert np.isnan(function(np.float32(np.nan)))


def test_heads_that_the_kernel_does_not_have_are_refused():
    arrays = arrays_of_policy(1, 4, (3, 2))
    fewer = {name: array for name, array in arrays.items() if "_head.2" not in name}
    with pytest.raises(ValueError, match="expected heads of 2 layers and an output, got 1 layers"):
        PolicyWeights.of(fewer)


def test_steps_equal_torch():
    torch = pytest.importorskip("torch", reason="policies need Torch")
    from gpupipe.estimators.torch.network import arrays_of
    from gpupipe.estimators.torch.recurrent_policy import RecurrentPolicy

    for layers, size in ((1, 128), (2, 64)):
        policy = RecurrentPolicy(40, 4, size, layers, generator=torch.Generator().manual_seed(0))
        weights = PolicyWeights.of(arrays_of(policy))
        h, c = policy.zero_state(33)
        own_h, own_c = weights.zero_state(33)
        observations = np.random.default_rng(0).normal(size=(50, 33, 40)).astype(np.float32)
        with torch.no_grad():
            for observation in observations:
                logits, values, h, c = policy.step(torch.from_numpy(observation), h, c)
                step = weights.step(observation, own_h, own_c)
                own_h, own_c = step.h, step.c
                np.testing.assert_allclose(step.logits, logits, rtol=0, atol=1e-5)
                np.testing.assert_allclose(step.values, values, rtol=0, atol=1e-5)
                np.testing.assert_allclose(own_c, c.transpose(0, 1).flatten(1), rtol=0, atol=1e-5)
