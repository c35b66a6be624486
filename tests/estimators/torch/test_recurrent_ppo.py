"""PPO with an LSTM: advantages and losses against naive versions, rollouts by hand, equal bytes, and what it learns."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PPO needs Torch")

from bench.agent.masked_cartpole import MaskedCartPole, Moment  # noqa: E402
from gpupipe.estimators.torch.network import arrays_of  # noqa: E402
from gpupipe.estimators.torch.plan import TrainingError  # noqa: E402
from gpupipe.estimators.torch.ppo_settings import PPOSettings  # noqa: E402
from gpupipe.estimators.torch.recurrent_policy import RecurrentPolicy  # noqa: E402
from gpupipe.estimators.torch.recurrent_ppo import Trainer, advantages_of, loss_gradients  # noqa: E402
from gpupipe.estimators.torch.rollout import Rollout, Sequences  # noqa: E402
from tests.support.memory_tasks import RecallSign  # noqa: E402

RECALL = PPOSettings(
    n_environments=16, rollout=20, sequence=10, epochs=4, minibatch=160, size=16, heads=(16, 8), learning_rate=5e-3,
    gamma=0.95, gae_lambda=0.9, value_clip=0,
)  # fmt: skip
# Two layers, episodes of three steps or so that end both ways, and clipped values: all that a state must hold.
BUSY = dataclasses.replace(RECALL, n_environments=8, layers=2, value_clip=0.2, value_gradient=0.5, minibatch=80)


def naive_advantages(rewards, values, next_values, done, gamma, gae_lambda):
    """From the definition: discounted sums of the errors up to the end of the episode or of the rollout."""
    advantages = np.zeros(rewards.shape)
    for i in range(rewards.shape[1]):
        for t in range(len(rewards)):
            factor = 1.0
            for k in range(t, len(rewards)):
                delta = rewards[k, i] + gamma * next_values[k, i] - values[k, i]
                advantages[t, i] += factor * delta
                factor *= gamma * gae_lambda
                if done[k, i]:
                    break
    return advantages


def test_advantages_equal_the_naive_sums():
    rng = np.random.default_rng(0)
    rewards, values, next_values = rng.normal(size=(3, 13, 7)).astype(np.float32)
    done = rng.random((13, 7)) < 0.2
    got = advantages_of(*map(torch.from_numpy, (rewards, values, next_values, done)), 0.97, 0.9)
    expected = naive_advantages(rewards, values, next_values, done, 0.97, 0.9)
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=1e-5)  # float32 sums


def test_advantages_of_two_steps_by_hand():
    """Discount and lambda 1/2. Environment 0 goes on, 1 terminates in its first step, 2 truncates there, at value 8."""
    rewards = torch.tensor([[1.0, 1, 1], [2, 2, 2]])
    values = torch.tensor([[4.0, 4, 4], [6, 6, 6]])
    done = torch.tensor([[False, True, True], [False, False, False]])
    next_values = torch.tensor([[6.0, 0, 8], [10, 10, 10]])
    # delta of the second step: 2 + 10 / 2 - 6 = 1; of the first: 1 + 6 / 2 - 4 = 0, 1 - 4 = -3, 1 + 8 / 2 - 4 = 1
    got = advantages_of(rewards, values, next_values, done, 0.5, 0.5)
    assert got.tolist() == [[0.25, -3, 1], [1, 1, 1]]


def sequences_of(n_actions=4, length=5, n=6, seed=0):
    """Logits, values, and made-up steps near the clip: log p of the rollout is a little off that of the logits."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(length, n, n_actions, generator=generator)
    values, advantages, returns, before = torch.randn(4, length, n, generator=generator)
    actions = torch.randint(0, n_actions, (length, n), generator=generator)
    log_p = logits.log_softmax(-1).gather(-1, actions[..., None])[..., 0]
    log_p = log_p + 0.3 * torch.randn(length, n, generator=generator)
    nothing = torch.zeros(1, n, 1)
    steps = torch.zeros(length, n, 2), torch.zeros(length, n, dtype=torch.bool), actions, log_p
    return logits, values, Sequences(*steps, values + 0.5 * before, advantages, returns, nothing, nothing)


def plain_loss(logits, values, batch, settings, clip, entropy_weight):
    """The loss as the papers write it, differentiated by autograd; its parts as sums."""
    distribution = torch.distributions.Categorical(logits=logits)
    log_p = distribution.log_prob(batch.actions)
    ratio = (log_p - batch.log_p).exp()
    surrogate = torch.min(ratio * batch.advantages, ratio.clamp(1 - clip, 1 + clip) * batch.advantages)
    squares = (values - batch.returns) ** 2
    if settings.value_clip:
        near = batch.values + (values - batch.values).clamp(-settings.value_clip, settings.value_clip)
        squares = torch.max(squares, (near - batch.returns) ** 2)
    entropy = distribution.entropy()
    loss = (-surrogate + settings.value_weight * squares - entropy_weight * entropy).sum()
    kl = ratio - 1 - (log_p - batch.log_p)
    share = ((ratio - 1).abs() > clip).float()
    return loss, torch.stack([x.sum() for x in (-surrogate, squares, entropy, kl, share)])


@pytest.mark.parametrize("value_clip", [0.0, 0.3])
def test_written_out_gradients_equal_those_of_autograd(value_clip):
    settings = PPOSettings(value_clip=value_clip, value_weight=0.7)
    logits, values, batch = sequences_of()
    logits.requires_grad_(True), values.requires_grad_(True)
    loss, parts = plain_loss(logits, values, batch, settings, 0.2, 0.05)
    expected = torch.autograd.grad(loss, (logits, values))
    with torch.no_grad():
        *got, sums = loss_gradients(logits, values, batch, settings, torch.tensor(0.2), torch.tensor(0.05))
    assert 0 < parts[4] < 30 and (expected[0] == 0).sum() == 0
    for a, b in zip((*got, sums), (*expected, parts), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


class Script:
    """Two environments that end as a script says: 0 terminates after step 1, 1 is truncated after step 2."""

    n, n_observations, n_actions = 2, 2, 2

    def __init__(self):
        self.t = 0

    def observation(self):
        return np.float32([[self.t, 0], [self.t, 1]])

    def reset(self):
        return self.observation()

    def step(self, actions):
        assert actions.dtype == np.int64 and actions.shape == (2,)
        self.t += 1
        ends = np.array([self.t == 2, self.t == 3])
        kinds = ends & [True, False], ends & [False, True]
        return Moment(self.observation(), np.array([1.0, 10]) * self.t, *kinds, self.observation() + 100)


def test_a_rollout_carries_states_resets_them_and_values_final_observations():
    policy = RecurrentPolicy(2, 2, 8, 1, (8, 8), generator=torch.Generator().manual_seed(0))
    rollout = Rollout(Script(), policy, length=4, sequence=2, torch_device="cpu")
    rollout.collect(torch.Generator().manual_seed(0))
    observed = torch.tensor([[[t, i] for i in range(2)] for t in range(5)], dtype=torch.float32)
    assert torch.equal(rollout.observations, observed[:4])
    assert rollout.done.tolist() == [[False, False], [True, False], [False, True], [False, False]]
    assert rollout.starts.tolist() == [[False, False], [False, False], [True, False], [False, True]]
    assert rollout.rewards.tolist() == [[1, 10], [2, 20], [3, 30], [4, 40]]
    assert rollout.episodes == 2 and rollout.returns == 1 + 2 + 10 + 20 + 30
    assert rollout.episode_return.tolist() == [7, 40]
    with torch.no_grad():
        h, c = policy.zero_state(2)
        values = []
        for t in range(4):
            for i in range(2):
                if rollout.starts[t, i]:
                    h[:, i] = c[:, i] = 0
            if t % 2 == 0:
                torch.testing.assert_close(rollout.first_h[t // 2], h)
            logits, value, h, c = policy.step(observed[t], h, c)
            values.append(value)
            log_p = logits.log_softmax(-1).gather(-1, rollout.actions[t][:, None])[:, 0]
            torch.testing.assert_close(rollout.log_p[t], log_p)
            if t == 2:
                _, final, _, _ = policy.step(observed[3] + 100, h, c)
        _, last, _, _ = policy.step(observed[4], h, c)
        torch.testing.assert_close(rollout.values, torch.stack(values))
        following = torch.stack([*values[1:], last])
        following[1, 0], following[2, 1] = 0, final[1]
        torch.testing.assert_close(rollout.next_values(), following)
    sequences = rollout.sequences(rollout.rewards)
    assert sequences.n == 4 and sequences.observations[:, 3].tolist() == [[2, 1], [3, 1]]  # the second of environment 1
    torch.testing.assert_close(sequences.h[0], rollout.first_h[:, 0].flatten(0, 1))


def test_actions_are_drawn_with_their_probabilities():
    policy = RecurrentPolicy(2, 3, 8, 1, (8, 8), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        policy.policy_head[-1].bias.copy_(torch.tensor([0.2, 0.5, 0.3]).log())
    environment = MaskedCartPole(400)
    environment.n_actions = 3
    rollout = Rollout(environment, policy, length=50, sequence=50, torch_device="cpu")
    rollout.collect(torch.Generator().manual_seed(0))
    shares = torch.bincount(rollout.actions.flatten(), minlength=3) / rollout.actions.numel()
    np.testing.assert_allclose(shares.numpy(), [0.2, 0.5, 0.3], atol=0.015)


def busy_trainer(threads=1, **changes):
    return Trainer(RecallSign(8, length=3, truncates=True), dataclasses.replace(BUSY, **changes), 3, threads=threads)


def bytes_of(state):
    return {name: np.asarray(value).tobytes() for name, value in state.items()}


def test_threads_change_no_byte():
    states = []
    for threads in (1, 2):
        trainer = busy_trainer(threads)
        records = [trainer.update() for _ in range(3)]
        states.append((records, bytes_of(trainer.state())))
        trainer.close()
    assert states[0] == states[1]


@pytest.mark.parametrize("stop", [0, 1, 2])
def test_a_restored_training_ends_in_the_same_bytes(stop):
    whole = busy_trainer()
    for k in range(4):
        if k == stop:
            state = whole.state()
            whole.set(learning_rate=1e-3, entropy=0.02)
        records = whole.update()
    again = busy_trainer()
    again.update()  # what is there before does not matter
    again.restore(state)
    assert bytes_of(again.state()) == bytes_of(state) and again.steps == stop * BUSY.samples
    again.set(learning_rate=1e-3, entropy=0.02)
    for _ in range(4 - stop):
        last = again.update()
    assert last == records and bytes_of(again.state()) == bytes_of(whole.state())


def test_set_acts_on_the_next_update_and_is_read_back():
    trainer, other = busy_trainer(), busy_trainer()
    assert (trainer.learning_rate, trainer.epochs, trainer.entropy, trainer.clip) == (5e-3, 4, 0.01, 0.2)
    trainer.set(learning_rate=2e-3, epochs=2, entropy=0.05, clip=0.01)
    assert trainer.optimizer.param_groups[0]["lr"] == 2e-3
    assert (trainer.learning_rate, trainer.epochs, trainer.entropy, trainer.clip) == (2e-3, 2, 0.05, 0.01)
    record = trainer.update()
    assert record.learning_rate == 2e-3 and record.epochs == 2
    assert trainer.optimizer.state[trainer.optimizer.param_groups[0]["params"][0]]["step"] == 2 * BUSY.samples / 80
    other.update()
    for name in ("learning_rate", "epochs", "entropy", "clip"):
        changed = busy_trainer()
        changed.set(**{name: getattr(trainer, name)})
        changed.update()
        assert bytes_of(arrays_of(changed.policy)) != bytes_of(arrays_of(other.policy)), name
    still = busy_trainer(weight_decay=0)
    before = bytes_of(arrays_of(still.policy))
    still.set(learning_rate=0)
    still.update()
    assert bytes_of(arrays_of(still.policy)) == before


def test_records_count_what_happened():
    trainer = Trainer(RecallSign(16, length=5), RECALL, 1)
    record = trainer.update()
    assert (record.number, record.steps, trainer.steps) == (1, 320, 320)
    assert record.episodes == 64 and record.mean_return == pytest.approx(record.mean_reward * 5, abs=0.06)
    assert record.entropy == pytest.approx(math.log(2), abs=0.05) and record.kl >= 0 and 0 <= record.clip_share < 1
    assert record.explained_variance < 0.9 and record.value_loss > 0


def test_a_warm_start_takes_the_weights_and_a_fresh_optimiser():
    earlier = busy_trainer()
    earlier.update()
    before = bytes_of(arrays_of(earlier.policy))
    trainer = Trainer(RecallSign(8, length=3, truncates=True), BUSY, 4, policy=earlier.policy)
    assert bytes_of(arrays_of(trainer.policy)) == before
    assert not any(name.startswith("adamw") for name in trainer.state())
    trainer.update()
    assert bytes_of(arrays_of(earlier.policy)) == before != bytes_of(arrays_of(trainer.policy))


def test_what_does_not_fit_is_refused():
    environment = RecallSign(8, length=3)
    policy = RecurrentPolicy(3, 2, 16, 1, (16, 8), generator=torch.Generator())
    for settings, start, problem in [
        (BUSY, policy, r"expected a policy of the shape \(3, 2, 16, 2, \(16, 8\)\), got \(3, 2, 16, 1, \(16, 8\)\)"),
        (RECALL, None, "expected 16 environments, got 8"),
        (dataclasses.replace(BUSY, sequence=7), None, "sequence is 7, expected a divisor of rollout, 20"),
        (dataclasses.replace(BUSY, minibatch=85), None, "minibatch is 85, expected a multiple of sequence, 10"),
        (dataclasses.replace(BUSY, minibatch=120), None, "minibatch is 120, expected a divisor of .*, 160"),
    ]:
        with pytest.raises(ValueError, match=problem):
            Trainer(environment, settings, 0, start)


def test_a_loss_that_is_not_finite_ends_the_training():
    trainer = busy_trainer()
    with torch.no_grad():
        trainer.policy.value_head[-1].bias.fill_(math.nan)
    with pytest.raises(TrainingError, match=r"the loss is nan in update 1, at a rate of 0\.005: choose a lower rate"):
        trainer.update()


@pytest.mark.parametrize("truncates", [False, True])
def test_a_sign_is_recalled_after_five_steps(truncates):
    """Chance is 0.5; without memory nothing is better."""
    trainer = Trainer(RecallSign(16, length=5, truncates=truncates), RECALL, 1)
    returns = [trainer.update().mean_return for _ in range(20)]
    assert np.mean(returns[:2]) < 0.65 and np.mean(returns[-3:]) > 0.9


def test_a_pole_is_balanced_longer_without_velocities():
    settings = PPOSettings(
        n_environments=16, rollout=64, sequence=16, epochs=6, minibatch=256, size=32, heads=(32, 16),
        learning_rate=3e-3, gamma=0.98, gae_lambda=0.9, value_clip=0, entropy=0.0, weight_decay=0.0,
    )  # fmt: skip
    trainer = Trainer(MaskedCartPole(16, seed=1), settings, 1)
    returns = [trainer.update().mean_return for _ in range(30)]
    assert np.mean(returns[:3]) < 30 and np.mean(returns[-3:]) > 80
