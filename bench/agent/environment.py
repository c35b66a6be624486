"""The market's kernel against the same rules as a gymnasium.Env in Python: equality, then steps a second.

Two environments in Python are timed. The usual one indexes arrays of numpy, scales each observation as it is seen, and
is made by `gymnasium.make`, with its wrappers. The lean one has Python's own numbers and features that were scaled
before, and no wrapper: as fast as we can write it. The bar is judged against the usual one, at JUDGED environments:
below some 8,000 the kernel runs on one thread, as waking another one takes as long.
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.agent.planted import planted
from bench.runs import Line
from bench.timing import alternate
from gpupipe.workloads.agent.market import Environments, Market

ENVIRONMENTS, JUDGED = (4_096, 16_384, 65_536), 16_384  # of the kernel
STEPS = 1 << 21  # of all environments together, in a round
PLAIN_STEPS = 20_000  # of the Python loop, in a round
COMPARED = 3_000  # steps whose observations, rewards and equities must be equal
TOLERANCE = 1e-5  # float32 observations and rewards
BAR = 400.0
N_BARS = 100_000  # of the made market


def lines(chosen: argparse.Namespace) -> Iterator[Line]:
    """Equality of both sides, then their steps a second."""
    market = market_of(chosen)
    yield {"kind": "environment equality", "largest_difference": compared(market), "steps": COMPARED}
    yield {"kind": "environment pace", "bars": market.n_rows, "columns": market.width, **pace(market, chosen.times)}


def market_of(chosen: argparse.Namespace) -> Market:
    """The bars of --data, or made ones, with the features of the set session and costs."""
    from gpupipe import read

    panel = read(chosen.data, group_by="symbol") if chosen.data else planted(N_BARS, 1, drift=0.0)[0]
    return Market.of(panel, "session", spread="2 bps", max_drawdown=0.2)


def plain_market(market: Market, lean: bool) -> Any:
    """The same market as a gymnasium.Env, one step at a time: the lean one, or the usual one by `gymnasium.make`."""
    import gymnasium
    from gymnasium.envs.registration import EnvSpec
    from gymnasium.spaces import Box, Discrete

    rules, scaler, values = market.rules, market.scaler, market.features.values
    rows = scaler.scaled(values) if lean else None
    prices = (array.astype(np.float64) for array in (market.open, market.close, market.slip))
    open_, close, slip = (array.tolist() if lean else array for array in prices)
    commission, first, last = rules.commission_bps / 1e4, market.first_row, market.n_rows - 1

    class PlainMarket(gymnasium.Env):  # type: ignore[misc]
        observation_space = Box(-np.inf, np.inf, (market.width,), np.float32)
        action_space = Discrete(4)

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
            super().reset(seed=seed)
            self.row, self.position, self.bars_held = first, 0, 0
            self.balance = self.equity = self.peak = rules.initial_balance
            self.stake, self.paid = 0.0, 1.0
            return self.observe(), {}

        def observe(self) -> np.ndarray:
            observation = np.empty(market.width, np.float32)
            if rows is None:
                scaled = (values[self.row] - scaler.offset) / scaler.scale
                observation[:-3] = np.nan_to_num(np.clip(scaled, scaler.low, scaler.high))
            else:
                observation[:-3] = rows[self.row]
            earned = self.position * (close[self.row] - self.paid) / self.paid
            observation[-3:] = self.position, min(max(earned, -1.0), 1.0), min(self.bars_held / rules.held_scale, 1.0)
            return observation

        def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
            before, held, row = self.equity, self.position, self.row + 1
            stopped = before <= max((1 - rules.max_drawdown) * self.peak, rules.ruin * rules.initial_balance)
            target = 0 if stopped or action == 3 else {0: held, 1: 1, 2: -1}[action]
            if target != held:
                if held:
                    got = open_[row] * (1 - held * slip[row])
                    change = held * (got - self.paid) / self.paid - commission * got / self.paid
                    self.balance += self.stake * change
                self.stake, self.paid, self.bars_held = 0.0, 1.0, 0
                if target and self.balance > 0:
                    self.stake = rules.size * self.balance
                    self.balance -= commission * self.stake
                    self.paid = open_[row] * (1 + target * slip[row])
                elif target:
                    target = 0
            self.position, self.row = target, row
            self.bars_held += target != 0
            self.equity = self.balance + self.stake * target * (close[row] - self.paid) / self.paid
            self.peak = max(self.peak, self.equity)
            growth = math.log(max(self.equity, 1e-6) / max(before, 1e-6))
            reward = rules.reward_scale * (growth - rules.risk_aversion * growth * growth)
            return self.observe(), reward, stopped, not stopped and row >= last, {}

    if lean:
        return PlainMarket()
    return gymnasium.make(EnvSpec("PlainMarket-v0", entry_point=PlainMarket))


def compared(market: Market) -> float:
    """The largest difference of observations and rewards over some thousand steps; SystemExit beyond the tolerance."""
    largest = 0.0
    for lean in (True, False):
        plain, kernel, rng = plain_market(market, lean), Environments(market, 1), np.random.default_rng(0)
        expected, got = plain.reset()[0], kernel.reset()[0]
        largest = max(largest, float(np.abs(expected - got).max()))
        for _ in range(COMPARED):
            action = int(rng.choice(4, p=(0.85, 0.05, 0.05, 0.05)))
            expected, reward, terminated, truncated, _ = plain.step(action)
            step = kernel.step(np.array([action]))
            if (terminated, truncated) != (bool(step.terminated[0]), bool(step.truncated[0])):
                raise SystemExit("an episode ends in another step than in the plain market")
            ended = terminated or truncated
            seen = step.final_observation if ended else step.observation
            largest = max(largest, float(np.abs(expected - seen[0]).max()), abs(reward - float(step.reward[0])))
            if ended:
                plain.reset()
    if not largest <= TOLERANCE:
        raise SystemExit(f"the kernel differs from the plain market by {largest:g}")
    return largest


def pace(market: Market, times: int) -> Line:
    """Steps a second of all, in turn: many environments by the kernel, one by each of the two in Python."""
    rng = np.random.default_rng(0)
    plain_actions = rng.integers(0, 4, PLAIN_STEPS).tolist()

    def by_kernel(environments: Environments, actions: np.ndarray) -> None:
        for chosen in actions:
            environments.step(chosen)

    def by_python(plain: Any) -> None:
        plain.reset()
        for action in plain_actions:
            _, _, terminated, truncated, _ = plain.step(action)
            if terminated or truncated:
                plain.reset()

    sides: dict[str, Any] = {}
    for n in ENVIRONMENTS:
        environments = Environments(market, n, length=1_000)
        environments.reset()
        actions = rng.integers(0, 4, (STEPS // n, n))
        sides[f"kernel {n}"] = functools.partial(by_kernel, environments, actions)
    for name, lean in (("usual", False), ("lean", True)):
        sides[name] = functools.partial(by_python, plain_market(market, lean))
    for run in sides.values():
        run()
    seconds, rounds = alternate(times, sides)
    per_second = {name: (PLAIN_STEPS if name in ("usual", "lean") else STEPS) / s for name, s in seconds.items()}
    judged = per_second[f"kernel {JUDGED}"]
    ratio = judged / per_second["usual"]
    return {"steps_per_s": per_second, "rounds": rounds, "judged": JUDGED, "ratio": ratio, "bar": BAR,
            "holds": ratio >= BAR, "ratio_to_lean": judged / per_second["lean"]}  # fmt: skip
