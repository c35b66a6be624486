"""Rollout: steps of a policy in environments, with the LSTM's states; cut into the sequences that are trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from gpupipe.estimators.torch.captured import CapturedCall
from gpupipe.estimators.torch.recurrent_policy import RecurrentPolicy


class Step(Protocol):
    """What a step of n environments gives; arrays may be overwritten by the next step.

    observation: float32 (n, n_observations), after the step; where an episode ended, that of the next episode's start.
    reward: float (n,).  terminated: bool (n,), the episode ended and nothing follows.
    truncated: bool (n,), it was cut off: its value goes on.
    final_observation: float32 (n, n_observations), of the ended episode; elsewhere it is not read.
    """

    @property
    def observation(self) -> Any: ...  # noqa: D102

    @property
    def reward(self) -> Any: ...  # noqa: D102

    @property
    def terminated(self) -> Any: ...  # noqa: D102

    @property
    def truncated(self) -> Any: ...  # noqa: D102

    @property
    def final_observation(self) -> Any: ...  # noqa: D102


class Environment(Protocol):
    """n environments that step together; each starts its next episode in the step that ends one.

    Arrays are numpy, or CuPy where training runs on a GPU; nothing there may wait for the device.
    """

    @property
    def n(self) -> int:
        """How many they are."""
        ...

    @property
    def n_observations(self) -> int:
        """Numbers of an observation."""
        ...

    @property
    def n_actions(self) -> int:
        """Of which one is taken in each step."""
        ...

    def reset(self) -> Any:
        """Start all episodes; observations float32 (n, n_observations)."""
        ...

    def step(self, actions: Any) -> Step:
        """One step of each, with actions int64 (n,)."""
        ...

    def state(self) -> dict[str, Any]:
        """All that the next steps depend on, as arrays."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        ...


@dataclass(frozen=True)
class Sequences:
    """Sequences of steps to train on: (length, n, ...), and of states (layers, n, size). They are numbered along n.

    starts: whether a step is the first of an episode.  log_p: of the actions, under the policy of the rollout.
    h, c: the states before the first step.
    """

    observations: Tensor
    starts: Tensor
    actions: Tensor
    log_p: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    h: Tensor
    c: Tensor

    @property
    def n(self) -> int:
        """Number of sequences."""
        return self.starts.shape[1]

    def take(self, numbers: Tensor) -> Sequences:
        """Some of them, copied."""
        return Sequences(*(getattr(self, field.name).index_select(1, numbers) for field in fields(self)))

    def copy_(self, other: Sequences) -> None:
        """Overwrite these with as many others."""
        for field in fields(self):
            getattr(self, field.name).copy_(getattr(other, field.name))


class Rollout:
    """The last `length` steps of n environments, and what goes on from rollout to rollout.

    observation: float32 (n, n_observations), of the next step.  h, c: the states before it, zero where it starts an
    episode.  episode_return: float64 (n,), sum of the rewards of each running episode.

    Tensors of the rollout are (length, n): done, bool, whether the step ended an episode; final_values, float32, the
    value of the final observation where it truncated one, 0 elsewhere; ...
    episodes, returns: number and sum of returns of the episodes that ended in the rollout.
    """

    def __init__(
        self,
        environment: Environment,
        policy: RecurrentPolicy,
        length: int,
        sequence: int,
        torch_device: str,
        captured: bool = False,
    ) -> None:
        self.environment, self.policy, self.sequence, self.torch_device = environment, policy, sequence, torch_device
        n = environment.n

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=torch_device)

        self.h, self.c = policy.zero_state(n)
        self.observation = zeros(n, environment.n_observations)
        self.observation.copy_(self._tensor(environment.reset()))
        self.episode_return = zeros(n, dtype=torch.float64)
        self.observations = zeros(length, n, environment.n_observations)
        self.starts, self.done = (zeros(length, n, dtype=torch.bool) for _ in range(2))
        self.actions = zeros(length, n, dtype=torch.int64)
        self.log_p, self.values, self.rewards, self.final_values = (zeros(length, n) for _ in range(4))
        self.first_h, self.first_c = (zeros(length // sequence, *self.h.shape) for _ in range(2))
        self.episodes, self.returns = zeros(dtype=torch.int64), zeros(dtype=torch.float64)
        self._uniform = zeros(n)
        self._chosen = zeros(n, dtype=torch.int64), zeros(n), zeros(n)  # actions, their log p, values
        self._choose = CapturedCall(self._act, captured)

    @torch.no_grad()
    def collect(self, generator: torch.Generator) -> None:
        """Step all environments `length` times; actions are drawn from the generator."""
        uniforms = torch.rand(self.rewards.shape, generator=generator, device=self.torch_device)
        self.episodes.zero_()
        self.returns.zero_()
        for t in range(len(uniforms)):
            if t % self.sequence == 0:
                self.first_h[t // self.sequence], self.first_c[t // self.sequence] = self.h, self.c
            self.observations[t] = self.observation
            self._uniform.copy_(uniforms[t])
            self._choose()
            self.actions[t], self.log_p[t], self.values[t] = self._chosen
            step = self.environment.step(self._array(self._chosen[0]))
            terminated, truncated = self._tensor(step.terminated), self._tensor(step.truncated)
            self.rewards[t] = self._tensor(step.reward)
            self.final_values[t] = self._final_values(step.final_observation, truncated & ~terminated)
            self._end_episodes(t, torch.logical_or(terminated, truncated, out=self.done[t]))
            self.observation.copy_(self._tensor(step.observation))

    def _act(self) -> None:
        """Choose actions for the observation, and take the states one step on; all of it in place."""
        logits, value, h, c = self.policy.step(self.observation, self.h, self.c)
        log_p = logits.log_softmax(dim=-1)
        actions, chosen_log_p, values = self._chosen
        # The inverse of the distribution function: the number of actions whose cumulated probability is passed.
        passed = log_p.exp().cumsum(dim=-1)[:, :-1] <= self._uniform[:, None]
        torch.sum(passed, dim=-1, out=actions)
        chosen_log_p.copy_(log_p.gather(-1, actions[:, None]).squeeze(-1))
        values.copy_(value)
        self.h.copy_(h)
        self.c.copy_(c)

    def _final_values(self, observation: Any, truncated: Tensor) -> Tensor | float:
        """The values of the final observations of truncated episodes, 0 elsewhere; on a GPU computed for all rows."""
        if self.torch_device == "cpu":
            rows = truncated.nonzero().squeeze(-1)
            if len(rows) == 0:
                return 0.0
            _, value, _, _ = self.policy.step(self._tensor(observation)[rows], self.h[:, rows], self.c[:, rows])
            return torch.zeros(len(truncated)).index_copy_(0, rows, value)
        _, value, _, _ = self.policy.step(self._tensor(observation), self.h, self.c)
        return torch.where(truncated, value, 0)

    def _end_episodes(self, t: int, done: Tensor) -> None:
        """Count the episodes that a step ended, and set the states of the next ones to zero."""
        self.episode_return += self.rewards[t]
        if t + 1 < len(self.starts):
            self.starts[t + 1] = done
        if self.torch_device == "cpu" and not done.any():
            return
        self.episodes += done.sum()
        self.returns += torch.where(done, self.episode_return, 0).sum()
        for state in (self.episode_return, self.h, self.c):
            state.masked_fill_(done if state.dim() == 1 else done[:, None], 0)

    @torch.no_grad()
    def next_values(self) -> Tensor:
        """float32 (length, n): the value after each step; see `advantages_of`."""
        _, last, _, _ = self.policy.step(self.observation, self.h, self.c)
        return torch.where(self.done, self.final_values, torch.cat([self.values[1:], last[None]]))

    def sequences(self, advantages: Tensor) -> Sequences:
        """The steps as sequences of the length that is trained on: number k * n + i is the k-th of environment i."""

        def cut(steps: Tensor) -> Tensor:  # (length, n, ...) to (sequence, length // sequence * n, ...)
            return steps.unflatten(0, (-1, self.sequence)).transpose(0, 1).flatten(1, 2)

        per_step = (self.observations, self.starts, self.actions, self.log_p, self.values, advantages)
        states = (state.transpose(0, 1).flatten(1, 2) for state in (self.first_h, self.first_c))
        return Sequences(*map(cut, (*per_step, advantages + self.values)), *states)

    def _tensor(self, array: Any) -> Tensor:
        """An array of the environment as a tensor, without a copy."""
        return torch.as_tensor(array, device=self.torch_device)

    def _array(self, tensor: Tensor) -> Any:
        """A tensor as an array for the environment, without a copy."""
        if self.torch_device == "cpu":
            return tensor.numpy()
        import cupy

        return cupy.from_dlpack(tensor)
