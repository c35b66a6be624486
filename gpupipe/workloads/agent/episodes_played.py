"""Episodes that policies play greedily: all policies on all episodes in one call, or step by step, with equal bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpupipe.estimators.torch.policy_weights import PolicyWeights
from gpupipe.kernels.environment import LEAST_EQUITY
from gpupipe.workloads.agent.episodes import checked_rows
from gpupipe.workloads.agent.market import Environments, Market

STACKED = ("recurrent", "first", "second", "last")
Episode = tuple[int, int]  # the first row, and the last that is observed, both included


@dataclass(frozen=True)
class Played:
    """What policies did in episodes, on the host.

    positions: int8 (n_policies, n_episodes, longest), decided in each row from the first on; 0 after the end.
    equity: float64 (n_policies, n_episodes), at the end, over the initial balance.
    steps: int64 (n_policies, n_episodes), until the end.

        >>> Played(np.int8([[[1, 1, 0]]]), np.array([[1.0]]), np.array([[3]])).growth.tolist()
        [[0.0]]
    """

    positions: np.ndarray
    equity: np.ndarray
    steps: np.ndarray

    @property
    def growth(self) -> np.ndarray:
        """float64 (n_policies, n_episodes): log of the equity; of a lost account, of a millionth."""
        return np.log(np.maximum(self.equity, LEAST_EQUITY))


def play(policies: Sequence[PolicyWeights], market: Market, episodes: Sequence[Episode]) -> Played:
    """All policies on all episodes in one call of a kernel, each from a flat position and a state of zero.

    policies: of one shape, that read the market's observation.
    Raises UserError for rows that the market does not have.
    """
    from gpupipe.kernels.episodes import policy_episode

    xp, asarray = market.device.xp, market.device.asarray
    shape = len(policies), len(episodes)
    n, longest = shape[0] * shape[1], max(last - first for first, last in episodes)
    weights = [asarray(np.concatenate([getattr(policy, name) for policy in policies])) for name in STACKED]
    edges = asarray(np.stack(checked_rows(market.n_rows, _edges(episodes), None, len(episodes)), axis=1))
    one = policies[0]
    n_state, n_actions = one.layers * one.size, one.n_actions
    scratch = xp.zeros((n, 2 * n_state + n_actions + one.n_work), np.float32)
    positions, result = xp.zeros((n, longest), np.int8), xp.empty((n, 2), np.float64)
    policy_episode(
        n, *weights, *market.arguments(), edges, np.int64(n_state), np.int64(n_actions),
        xp.empty((n, market.width), np.float32), scratch, positions, result,
    )  # fmt: skip
    to_host = market.device.to_host
    return Played(
        to_host(positions).reshape(*shape, longest),
        to_host(result)[:, 0].reshape(shape) / market.rules.initial_balance,
        to_host(result)[:, 1].astype(np.int64).reshape(shape),
    )


def play_step_by_step(policies: Sequence[PolicyWeights], market: Market, episodes: Sequence[Episode]) -> Played:
    """The same as `play`, to the last bit: one policy after the other, one episode after the other, step by step."""
    shape, longest = (len(policies), len(episodes)), max(last - first for first, last in episodes)
    positions, equity = np.zeros((*shape, longest), np.int8), np.zeros(shape)
    steps = np.zeros(shape, np.int64)
    to_host = market.device.to_host
    for p, policy in enumerate(policies):
        for e, episode in enumerate(episodes):
            environments = _environments(market, [episode])
            h, c = policy.zero_state(1)
            observation, ended, k = to_host(environments.observe()), False, 0
            while not ended:
                decided = policy.step(observation, h, c)
                h, c = decided.h, decided.c
                step = environments.step(decided.actions)
                observation = to_host(step.observation)
                positions[p, e, k] = to_host(step.position)[0]
                k += 1
                ended = bool(to_host(step.terminated | step.truncated)[0])
            equity[p, e], steps[p, e] = to_host(step.equity)[0] / market.rules.initial_balance, k
    return Played(positions, equity, steps)


def _environments(market: Market, episodes: Sequence[Episode]) -> Environments:
    """An environment for each episode, at its first row."""
    environments = Environments(market, len(episodes), _edges(episodes))
    environments.reset()
    return environments


def _edges(episodes: Sequence[Episode]) -> tuple[np.ndarray, np.ndarray]:
    first, last = np.array(episodes, np.int64).T
    return first, last
