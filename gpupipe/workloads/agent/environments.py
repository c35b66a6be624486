"""The market as Gymnasium's environments: one, or many that step together."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from gpupipe.workloads.agent.episodes import RowRange
from gpupipe.workloads.agent.market import ACTIONS, Environments, Market

NAME = "gpupipe/Market-v0"
_SEEDS = 2**63 - 1


class MarketEnv(gymnasium.Env):
    """One account in a market. Arguments as in `Environments`.

    Observation: Box float32 (width,), see `Market.observed`.  Action: Discrete(4), see `ACTIONS`.
    info: equity, in the currency of the prices; position; row, the number of the bar that is observed.

    `reset` begins the next episode of the seed; `reset(seed=...)` draws other episodes. Raises ValueError for another
    action, and gymnasium's ResetNeeded for a step after the end of an episode.
    """

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(self, market: Market, rows: RowRange | None = None, length: int | None = None, seed: int = 0):
        self.environments = Environments(market, 1, rows, length, seed)
        self.observation_space, self.action_space = _spaces(market)
        self.spec = EnvSpec(NAME, entry_point=lambda **_: MarketEnv(market, rows, length, seed))
        self._ended, self._next = True, False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; options are not read."""
        super().reset(seed=seed)
        environments = self.environments
        if seed is not None:
            observation = environments.reset(int(self.np_random.integers(_SEEDS)))
        elif self._next:  # the step that ended the last episode has begun this one
            observation = environments.observe()
        else:
            observation = environments.reset()
        self._ended = self._next = False
        return self._host(observation)[0], self._info(environments.current("equity"), environments.current("position"))

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take an action, 0 to 3."""
        if not self.action_space.contains(action):
            raise ValueError(f"action {action!r}: expected {_actions()}")
        if self._ended:
            raise gymnasium.error.ResetNeeded("the episode has ended, or none has begun: call reset")
        row = int(self._host(self.environments.current("row"))[0]) + 1
        step = self.environments.step(np.array([action], np.int64))
        terminated, truncated = (bool(self._host(ends)[0]) for ends in (step.terminated, step.truncated))
        self._ended = self._next = terminated or truncated
        observation = step.final_observation if self._ended else step.observation
        info = self._info(step.equity, step.position) | {"row": row}
        return self._host(observation)[0].copy(), float(self._host(step.reward)[0]), terminated, truncated, info

    def _info(self, equity: Any, position: Any) -> dict[str, Any]:
        row = self._host(self.environments.current("row"))[0]
        return {"equity": float(self._host(equity)[0]), "position": int(self._host(position)[0]), "row": int(row)}

    def _host(self, array: Any) -> np.ndarray:
        return self.environments.market.device.to_host(array)


class MarketVectorEnv(VectorEnv):
    """n accounts in a market, which step in one call. Arguments as in `Environments`; spaces as in MarketEnv, n times.

    An environment whose episode ended begins its next one in the same step (AutoresetMode.SAME_STEP): its observation
    is that of the new episode, and info has `final_obs`, an object array with the last observation of the old one, and
    `final_info`, with the mask _final_obs of the environments that have one.
    info: equity, position and row, (n,) each, as in MarketEnv.

    On CUDA the market steps on the device, and what is returned is copied to the host; `Environments` leaves it there.
    Raises ValueError for another action, and for options["reset_mask"].
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self, market: Market, n: int, rows: RowRange | None = None, length: int | None = None, seed: int = 0
    ):  # fmt: skip
        self.environments = Environments(market, n, rows, length, seed)
        self.num_envs = n
        self.single_observation_space, self.single_action_space = _spaces(market)
        self.observation_space = batch_space(self.single_observation_space, n)
        self.action_space = batch_space(self.single_action_space, n)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every environment."""
        super().reset(seed=seed)
        if options and "reset_mask" in options:
            raise ValueError("reset_mask: environments that ended have begun anew, and all are reset together")
        drawn = None if seed is None else int(self.np_random.integers(_SEEDS))
        return self._host(self.environments.reset(drawn)), self._info()

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take an action, 0 to 3, in every environment."""
        actions = np.asarray(actions)
        if actions.dtype.kind not in "iu" or actions.shape != (self.num_envs,):
            raise ValueError(f"actions are {actions.dtype} {actions.shape}, expected integers ({self.num_envs},)")
        if actions.min() < 0 or actions.max() >= len(ACTIONS):
            raise ValueError(f"actions from {actions.min()} to {actions.max()}: expected {_actions()}")
        step = self.environments.step(actions, self.environments.new_step())
        terminated, truncated = self._host(step.terminated), self._host(step.truncated)
        info = self._info()
        if (ended := terminated | truncated).any():
            info |= self._final(step, ended)
        return self._host(step.observation), self._host(step.reward), terminated, truncated, info

    def _final(self, step: Any, ended: np.ndarray) -> dict[str, Any]:
        """The last observation, equity and position of the episodes that ended."""
        last = np.full(self.num_envs, None, dtype=object)
        observations = self._host(step.final_observation)
        for k in np.flatnonzero(ended):
            last[k] = observations[k].copy()
        final: dict[str, Any] = {}
        for name in ("equity", "position"):
            values = self._host(getattr(step, name))
            final |= {name: np.where(ended, values, np.zeros_like(values)), f"_{name}": ended.copy()}
        return {"final_obs": last, "_final_obs": ended, "final_info": final, "_final_info": ended.copy()}

    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = {}
        for name in ("equity", "position", "row"):
            info[name] = np.array(self._host(self.environments.current(name)))
            info[f"_{name}"] = np.ones(self.num_envs, bool)
        return info

    def _host(self, array: Any) -> np.ndarray:
        return self.environments.market.device.to_host(array)


def _spaces(market: Market) -> tuple[Box, Discrete]:
    low, high = market.bounds()
    return Box(low, high, dtype=np.float32), Discrete(len(ACTIONS))


def _actions() -> str:
    return ", ".join(f"{number} ({name})" for number, name in enumerate(ACTIONS))
