"""RecurrentPolicy: sequences against single steps, states reset where episodes start, and the starts of weights."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="policies need Torch")

from gpupipe.estimators.torch.network import arrays_of, load_arrays, one_thread  # noqa: E402
from gpupipe.estimators.torch.recurrent_policy import RecurrentPolicy, in_one_tensor  # noqa: E402

LENGTH, N, N_OBSERVATIONS = 11, 6, 5
CLOSE = {"rtol": 0, "atol": 2e-6}  # float32 sums in another order, through eleven steps


def policy_of(layers=1, size=16, seed=0, heads=(12, 8)):
    """A policy whose logits differ by more than those of a fresh one."""
    policy = RecurrentPolicy(N_OBSERVATIONS, 3, size, layers, heads, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        policy.policy_head[-1].weight *= 100
    return policy


def sequences_of(policy, share=0.25, seed=0):
    """Observations, starts, and states that are not zero, of N sequences."""
    generator = torch.Generator().manual_seed(seed)
    observations = torch.randn(LENGTH, N, N_OBSERVATIONS, generator=generator)
    starts = torch.rand(LENGTH, N, generator=generator) < share
    h, c = (0.5 * torch.randn(policy.layers, N, policy.size, generator=generator) for _ in range(2))
    return observations, starts, h, c


def by_single_steps(policy, observations, starts, h, c):
    """Logits and values of each sequence and step by itself, with new states where an episode starts."""
    logits, values = torch.zeros(LENGTH, N, policy.n_actions), torch.zeros(LENGTH, N)
    for i in range(N):
        own_h, own_c = h[:, i : i + 1], c[:, i : i + 1]
        for t in range(LENGTH):
            if starts[t, i]:
                own_h, own_c = policy.zero_state(1)
            step = policy.step(observations[t, i : i + 1], own_h, own_c)
            logits[t, i], values[t, i], own_h, own_c = step[0][0], step[1][0], step[2], step[3]
    return logits, values


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_sequences_equal_single_steps(layers, share):
    policy = policy_of(layers)
    inputs = sequences_of(policy, share)
    with torch.no_grad():
        expected, got = by_single_steps(policy, *inputs), policy(*inputs)
    for a, b in zip(got, expected, strict=True):
        assert float(b.std()) > 1e-3
        torch.testing.assert_close(a, b, **CLOSE)


@pytest.mark.parametrize("layers", [1, 2])
def test_cut_and_stepped_sequences_have_the_same_gradients(layers):
    policy = policy_of(layers)
    inputs = sequences_of(policy)
    outputs = policy.cut(*inputs), policy.stepped(*inputs)
    torch.testing.assert_close(*outputs, **CLOSE)
    gradients = [torch.autograd.grad(x.sin().sum(), list(policy.lstm.parameters())) for x in outputs]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_nothing_before_a_start_changes_what_comes_after_it():
    policy = policy_of()
    observations, starts, h, c = sequences_of(policy, share=0.0)
    starts[4, 2] = starts[0, 3] = True
    logits, values = policy(observations, starts, h, c)
    observations[:4, 2] += 1
    h[:, 2:4] += 1
    other_logits, other_values = policy(observations, starts, h, c)
    same = (logits == other_logits).all(dim=-1) & (values == other_values)
    expected = torch.ones(LENGTH, N, dtype=torch.bool)
    expected[:4, 2] = False
    assert torch.equal(same, expected)


def test_the_gradient_of_the_value_reaches_the_lstm_in_the_share_that_is_asked_for():
    policy = policy_of()
    inputs = sequences_of(policy)
    norms = [
        torch.autograd.grad(policy(*inputs, share)[1].sum(), policy.lstm.weight_hh_l0, allow_unused=True)[0]
        for share in (1.0, 0.5, 0.0)
    ]
    torch.testing.assert_close(norms[0], 2 * norms[1])
    assert norms[0].any() and not norms[2].any()


def test_equal_generators_give_equal_policies_on_any_number_of_threads():
    state = torch.get_rng_state()
    arrays = [arrays_of(policy_of(2)), arrays_of(policy_of(2, seed=1))]
    with one_thread():
        again = arrays_of(policy_of(2))
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    for name, array in arrays[0].items():
        assert array.tobytes() == again[name].tobytes(), name
        assert "bias" in name or not np.array_equal(array, arrays[1][name]), name
    forget = arrays[0]["lstm.bias_ih_l1"]
    assert (forget == np.repeat([0, 1, 0, 0], 16)).all() and not arrays[0]["lstm.bias_hh_l1"].any()
    assert np.abs(arrays[0]["policy_head.2.weight"]).max() <= 1


def test_weights_in_one_tensor_are_those_of_the_policy():
    policy = policy_of(2)
    before, inputs = arrays_of(policy), sequences_of(policy)
    expected = policy(*inputs)
    weights = in_one_tensor(policy)
    assert all(array.tobytes() == before[name].tobytes() for name, array in arrays_of(policy).items())
    torch.testing.assert_close(policy(*inputs), expected)
    with torch.no_grad():
        weights.zero_()
    assert not any(array.any() for array in arrays_of(policy).values())
    load_arrays(policy, before)
    assert weights.detach().numpy().tobytes() == b"".join(array.tobytes() for array in before.values())
    other = copy.deepcopy(policy)
    with torch.no_grad():
        weights.zero_()
    assert other.lstm.weight_hh_l0.any()


def test_policies_that_cannot_be_are_refused():
    for sizes in ((0, 3, 8, 1), (5, 1, 8, 1), (5, 3, 0, 1), (5, 3, 8, 0), (5, 3, 8, 1, (4, 0))):
        with pytest.raises(ValueError, match="expected observations, layers and two actions or more"):
            RecurrentPolicy(*sizes, generator=torch.Generator())
