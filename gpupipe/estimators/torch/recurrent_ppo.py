"""Proximal policy optimisation of a recurrent policy: advantages, losses, and the loop, from top to bottom.

Read beside Huang et al. (2022), "The 37 implementation details of proximal policy optimization", whose details for
LSTMs it has: states are carried from rollout to rollout, set to zero where an episode starts, and kept with the
sequences that are trained on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gpupipe.estimators.torch.captured import CapturedCall, can_capture
from gpupipe.estimators.torch.network import arrays_of, load_arrays, on_host, one_thread
from gpupipe.estimators.torch.plan import TrainingError
from gpupipe.estimators.torch.ppo_settings import PPOSettings
from gpupipe.estimators.torch.recurrent_policy import RecurrentPolicy, in_one_tensor
from gpupipe.estimators.torch.rollout import Environment, Rollout, Sequences
from gpupipe.estimators.torch.shards import Workers, seed_of

SHARDS, SHARD_SAMPLES = 2, 1024  # fixed: other numbers give other sums, and so other bytes
CARRIED = ("observation", "h", "c", "episode_return")  # of a rollout, to the next
NUMBERS = ("updates", "epochs", "learning_rate", "entropy", "clip")
MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # what AdamW keeps
TINY = 1e-8  # keeps the division by the deviation of equal advantages finite


@dataclass(frozen=True)
class Update:
    """What an update did. Losses, entropy, KL and clip share are means over the samples of its last epoch.

    number: of the update, from 1.  steps: of all environments so far.  epochs, learning_rate: of this update.
    kl: estimate of the divergence from the policy of the rollout.  clip_share: samples whose gradient was cut off.
    explained_variance: 1 - variance(return - value) / variance(return); NaN where all returns are equal.
    mean_reward: of a step.  episodes: that ended in the rollout.  mean_return: of these, not discounted; NaN for none.
    """

    number: int
    steps: int
    epochs: int
    learning_rate: float
    policy_loss: float
    value_loss: float
    entropy: float
    kl: float
    clip_share: float
    explained_variance: float
    mean_reward: float
    episodes: int
    mean_return: float


def advantages_of(
    rewards: Tensor, values: Tensor, next_values: Tensor, done: Tensor, gamma: float, gae_lambda: float
) -> Tensor:
    """Generalised advantages, float32 (length, n); those plus the values are the returns that values learn.

        delta[t] = reward[t] + gamma * next_value[t] - value[t]
        advantage[t] = delta[t] + gamma * gae_lambda * advantage[t + 1], without the second term where t ends an episode

    rewards, values: float32 (length, n).  done: bool (length, n), whether the step ended an episode.
    next_values: float32 (length, n), the value after the step: 0 where it terminated, that of the final observation
        where it truncated.
    Source: Schulman et al. (2016), "High-dimensional continuous control using generalized advantage estimation".
    """
    deltas = rewards + gamma * next_values - values
    decay = (~done).float() * (gamma * gae_lambda)
    advantages, following = torch.empty_like(deltas), torch.zeros_like(deltas[0])
    for t in range(len(deltas) - 1, -1, -1):
        following = torch.addcmul(deltas[t], decay[t], following)
        advantages[t] = following
    return advantages


def loss_gradients(
    logits: Tensor, values: Tensor, batch: Sequences, settings: PPOSettings, clip: Tensor, entropy_weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Derivatives of a step's loss by its logits (length, n, n_actions) and value (length, n); sums of its parts.

    With r = exp(log p(action) - log p of the rollout), A the advantage and H the entropy -sum(p log p):

        policy loss = -min(r * A, clip(r, 1 - clip, 1 + clip) * A)
        value loss = (value - return)^2, or where it is larger, that of the value clipped to the rollout's +- value_clip
        loss = policy loss + value_weight * value loss - entropy_weight * H

    They are written out, as few operations in the place of autograd's many. The sums, float32 (5,): policy loss, value
    loss, entropy, KL (r - 1 - log r), number of |r - 1| > clip.
    batch: its advantages are already scaled.
    Source: Schulman et al. (2017), "Proximal policy optimization algorithms"; Schulman (2020) for the estimate of KL.
    """
    log_p = logits.log_softmax(dim=-1)
    p, actions = log_p.exp(), batch.actions[..., None]
    log_ratio = log_p.gather(-1, actions).squeeze(-1) - batch.log_p
    ratio = log_ratio.exp()
    free = ratio * batch.advantages
    clipped = torch.minimum(torch.maximum(ratio, 1 - clip), 1 + clip) * batch.advantages
    of_action = torch.where(free <= clipped, -free, 0)  # by log p of the action: d r / d log p = r
    weighted = p * log_p
    entropy = -weighted.sum(dim=-1)
    by_logits = entropy_weight * torch.addcmul(weighted, p, entropy[..., None]) - p * of_action[..., None]
    by_logits.scatter_add_(-1, actions, of_action[..., None])
    errors = values - batch.returns
    squares, by_values = errors.square(), errors
    if settings.value_clip > 0:
        moved = values - batch.values
        near = batch.values + moved.clamp(-settings.value_clip, settings.value_clip) - batch.returns
        farther = near.square() > squares  # only where the clipped value does not follow the value
        squares, by_values = torch.where(farther, near.square(), squares), torch.where(farther, 0, errors)
    sums = -torch.minimum(free, clipped), squares, entropy, ratio - 1 - log_ratio, ((ratio - 1).abs() > clip).float()
    return by_logits, (2 * settings.value_weight) * by_values, torch.stack(sums).sum(dim=(1, 2))


class Trainer:
    """Rollouts of a policy in environments, and updates of the policy.

    environment: `settings.n_environments` environments that step together; it is reset here.
    seed: of the weights, the actions, and the order of the sequences.
    policy: an earlier one that training starts from, with a fresh optimiser; a copy of it is trained.
    threads: on a CPU, that compute the parts of a minibatch; their number changes no byte.
    torch_device: "cpu" or "cuda".

    On a CPU equal inputs give equal bytes, also where training was stopped after an update and restored. A minibatch
    is cut into shards, whose gradients are added in order: two, or as many as have SHARD_SAMPLES samples each.

    On a GPU the choice of actions and the gradient step of a minibatch are one CUDA graph each; nothing waits for the
    device within a rollout or an epoch. Not captured are the environment's own kernels, advantages, and the order of
    the sequences. Never run on a GPU yet.

    Raises ValueError for settings that do not fit each other, the environment or the policy.
    """

    def __init__(
        self,
        environment: Environment,
        settings: PPOSettings,
        seed: int,
        policy: RecurrentPolicy | None = None,
        *,
        threads: int = 1,
        torch_device: str = "cpu",
    ) -> None:
        if (problem := settings.problem()) is not None:
            raise ValueError(f"{problem[0]} is {getattr(settings, problem[0])}, expected {problem[1]}")
        if environment.n != settings.n_environments:
            raise ValueError(f"expected {settings.n_environments} environments, got {environment.n}")
        self.environment, self.settings, self.seed, self.torch_device = environment, settings, seed, torch_device
        shape = environment.n_observations, environment.n_actions, settings.size, settings.layers, settings.heads
        self.policy = RecurrentPolicy(*shape, generator=torch.Generator().manual_seed(seed_of(seed)))
        if policy is not None:
            if policy.shape != self.policy.shape:
                raise ValueError(f"expected a policy of the shape {self.policy.shape}, got {policy.shape}")
            load_arrays(self.policy, arrays_of(policy))
        self.policy.to(torch_device)
        self._weights = in_one_tensor(self.policy)
        on_gpu = torch_device == "cuda"
        captured = on_gpu and can_capture()
        rate = torch.tensor(settings.learning_rate, device=torch_device) if on_gpu else settings.learning_rate
        options = {"eps": 1e-5, "weight_decay": settings.weight_decay, "fused": True, "capturable": on_gpu}
        self.optimizer = torch.optim.AdamW([self._weights], rate, **options)
        # Tensors, as a captured step reads them; float64, so that they are read back as they were set.
        self._clip = torch.tensor(settings.clip, dtype=torch.float64, device=torch_device)
        self._entropy = torch.tensor(settings.entropy, dtype=torch.float64, device=torch_device)
        self.epochs = settings.epochs
        self.updates = 0
        self._generator = torch.Generator(torch_device)
        self._workers = Workers(1 if on_gpu else threads)
        self._rollout = Rollout(environment, self.policy, settings.rollout, settings.sequence, torch_device, captured)
        self._sequences: Sequences | None = None
        self._chosen = torch.zeros(settings.minibatch_sequences, dtype=torch.int64, device=torch_device)
        self._train_chosen = CapturedCall(self._gradient_step, captured)

    def close(self) -> None:
        """End the threads."""
        self._workers.close()

    @property
    def steps(self) -> int:
        """Steps of all environments so far."""
        return self.updates * self.settings.samples

    @property
    def learning_rate(self) -> float:
        """Of the next update, as the optimiser has it."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def entropy(self) -> float:
        """The weight of the entropy in the next update."""
        return float(self._entropy)

    @property
    def clip(self) -> float:
        """How far probabilities may move in the next update."""
        return float(self._clip)

    def set(
        self,
        *,
        learning_rate: float | None = None,
        epochs: int | None = None,
        entropy: float | None = None,
        clip: float | None = None,
    ) -> None:
        """Change what the next updates do; what is None stays."""
        if learning_rate is not None:
            for group in self.optimizer.param_groups:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(learning_rate)
                else:
                    group["lr"] = learning_rate
        if epochs is not None:
            self.epochs = epochs
        if entropy is not None:
            self._entropy.fill_(entropy)
        if clip is not None:
            self._clip.fill_(clip)

    def update(self) -> Update:
        """One rollout, and the training on it; TrainingError where a loss is not finite."""
        with one_thread():
            # Drawn from the number of the update alone: a training that goes on needs no state of a generator.
            self._generator.manual_seed(seed_of(self.seed, self.updates))
            self._rollout.collect(self._generator)
            self._learn_from(self._rollout.sequences(self._advantages()))
            self.updates += 1
            return self._record()

    def _advantages(self) -> Tensor:
        rollout, settings = self._rollout, self.settings
        return advantages_of(
            rollout.rewards, rollout.values, rollout.next_values(), rollout.done, settings.gamma, settings.gae_lambda
        )

    def _learn_from(self, sequences: Sequences) -> None:
        """Epochs of gradient steps, each over all sequences in a new order."""
        if self._sequences is None:
            self._sequences = sequences
        else:
            self._sequences.copy_(sequences)  # a captured step reads them where they are
        for _ in range(self.epochs):
            self._numbers = torch.zeros(5, device=self.torch_device)
            order = torch.randperm(sequences.n, generator=self._generator, device=self.torch_device)
            for chosen in order.split(len(self._chosen)):
                self._chosen.copy_(chosen)
                self._numbers += self._train_chosen()

    def _gradient_step(self) -> Tensor:
        """Train on the chosen sequences; float32 (5,), means of the parts of the loss."""
        assert self._sequences is not None
        advantages = self._sequences.advantages.index_select(1, self._chosen)
        mean, deviation, samples = advantages.mean(), advantages.std() + TINY, advantages.numel()
        parameters = list(self.policy.parameters())

        def run(chosen: Tensor) -> tuple[Tensor, Tensor]:
            """The sums over some of the sequences: parts of the loss, and the gradient by all weights."""
            assert self._sequences is not None
            shard = self._sequences.take(chosen)
            shard = replace(shard, advantages=(shard.advantages - mean) / deviation)
            logits, values = self.policy(
                shard.observations, shard.starts, shard.h, shard.c, self.settings.value_gradient
            )
            with torch.no_grad():
                *gradients, sums = loss_gradients(logits, values, shard, self.settings, self._clip, self._entropy)
            gradients = torch.autograd.grad((logits, values), parameters, gradients)
            return sums, torch.cat([gradient.flatten() for gradient in gradients])

        shards = 1 if self.torch_device == "cuda" else max(SHARDS, samples // SHARD_SAMPLES)
        parts = self._chosen.tensor_split(min(shards, len(self._chosen)))
        (sums, gradient), *others = self._workers.map(run, parts)
        for more_sums, more_gradient in others:
            sums += more_sums
            gradient += more_gradient
        gradient /= samples
        gradient *= (self.settings.max_gradient / (torch.linalg.vector_norm(gradient) + TINY)).clamp_(max=1)
        self._weights.grad = gradient
        self.optimizer.step()
        return sums / samples

    def _record(self) -> Update:
        """What the update did; the one time that the host waits for the device."""
        rollout = self._rollout
        assert self._sequences is not None
        returns, errors = self._sequences.returns, self._sequences.advantages
        minibatches = self.settings.samples // self.settings.minibatch
        scalars = [errors.var(), returns.var(), rollout.rewards.mean(), rollout.returns, rollout.episodes]
        numbers = torch.cat([self._numbers / minibatches, torch.stack([x.double() for x in scalars])]).tolist()
        policy_loss, value_loss, entropy, kl, share, error, variance, reward, total, episodes = numbers
        if not all(map(math.isfinite, numbers)):
            raise TrainingError(
                f"the loss is {policy_loss + value_loss:g} in update {self.updates}, at a rate of "
                f"{self.learning_rate:g}: choose a lower rate"
            )
        explained = 1 - error / variance if variance else math.nan
        return Update(
            self.updates, self.steps, self.epochs, self.learning_rate, policy_loss, value_loss, entropy, kl, share,
            explained, reward, int(episodes), total / episodes if episodes else math.nan,
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """All that the next updates depend on, as numpy arrays and plain numbers, by name.

        Arrays: `policy/...`, `adamw/...`, `rollout/...` and `environment/...`. Numbers: updates, epochs, learning_rate,
        entropy, clip.
        """
        arrays = {f"policy/{name}": array for name, array in arrays_of(self.policy).items()}
        moments = self.optimizer.state[self._weights]
        if self.updates:  # before the first step they are zero, or not there
            kept = on_host([moments[name] for name in MOMENTS])
            arrays |= {f"adamw/{name}": array for name, array in zip(MOMENTS, kept, strict=True)}
        arrays |= {f"rollout/{name}": getattr(self._rollout, name).cpu().numpy().copy() for name in CARRIED}
        arrays |= {f"environment/{name}": array for name, array in self.environment.state().items()}
        numbers = {name: getattr(self, name) for name in NUMBERS}
        return arrays | numbers

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave, in a trainer of the same settings, seed and kind of environment."""
        parts: dict[str, dict[str, Any]] = {"policy": {}, "adamw": {}, "rollout": {}, "environment": {}}
        for name, array in state.items():
            part, slash, rest = name.partition("/")
            if slash:
                parts[part][rest] = array
        load_arrays(self.policy, parts["policy"])
        self.environment.restore(parts["environment"])
        with torch.no_grad():
            for name in CARRIED:
                getattr(self._rollout, name).copy_(torch.from_numpy(parts["rollout"][name]))
        moments = self.optimizer.state[self._weights]
        for name, moment in parts["adamw"].items():
            if name in moments:
                moments[name].copy_(torch.from_numpy(moment))  # a captured step reads it where it is
            else:
                moments[name] = torch.from_numpy(moment.copy()).to(self.torch_device)
        for name in moments.keys() - parts["adamw"].keys():
            moments[name].zero_()  # as before the first step
        self.updates = int(state["updates"])
        self.set(**{name: state[name] for name in NUMBERS if name != "updates"})
