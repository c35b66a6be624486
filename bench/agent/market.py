"""The trading market with a planted signal: both sides learn to read it from equally many samples."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.agent import training
from bench.agent.planted import DRIFT, N_BARS, planted
from bench.runs import Line

EPISODE = 100  # steps
FEATURES = ("volume_ratio_1_20", "roc_1", "roc_5")
COSTS = {"spread": "1 bps", "commission_bps": 0.2, "slippage_bps": 0.2}
SETTINGS = dataclasses.replace(training.SETTINGS, gamma=0.95)  # the agent's own


def lines(chosen: argparse.Namespace) -> Iterator[Line]:
    """What an episode earns with the signal in hand, then what `training` measures."""
    yield {"kind": "oracle", "mean_return": oracle()}
    yield from training.lines(training.Task(environments, environment, SETTINGS, EPISODE), chosen)


def environments(n: int, seed: int) -> Any:
    """Accounts that step together."""
    from gpupipe.workloads.agent.market import Environments, Market

    return Environments(Market.of(planted(N_BARS, 1, DRIFT)[0], list(FEATURES), **COSTS), n, length=EPISODE, seed=seed)


def environment(seed: int) -> Any:
    """One account, as a gymnasium.Env."""
    from gpupipe import agent

    return agent.make_env(
        planted(N_BARS, 1, DRIFT)[0], list(FEATURES), episode_length=EPISODE, seed=seed, **COSTS
    )  # fmt: skip


def oracle(episodes: int = 256) -> float:
    """The mean return of episodes that hold the sign of the next bar's drift."""
    sign, accounts = planted(N_BARS, 1, DRIFT)[1], environments(episodes, 0)
    accounts.reset()
    total = 0.0
    for _ in range(EPISODE):  # all begin together, and none is ruined
        wanted = np.where(sign[accounts.current("row")] > 0, 1, 2)
        total += float(accounts.step(wanted).reward.mean())
    return total
