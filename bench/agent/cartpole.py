"""CartPole without velocities: the same physics, and both sides learn it from equally many samples."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from bench.agent import training
from bench.agent.masked_cartpole import MaskedCartPole, masked_cartpole
from bench.runs import Line

TASK = training.Task(MaskedCartPole, lambda seed: masked_cartpole())
STEPS_COMPARED, LARGEST_DIFFERENCE = 2_000, 1e-9  # of the physics


def lines(chosen: argparse.Namespace) -> Iterator[Line]:
    """Physics, then what `training` measures."""
    yield {"kind": "physics", "largest_difference": physics()}
    yield from training.lines(TASK, chosen)


def physics() -> float:
    """The largest difference to Gymnasium's CartPole over some episodes; SystemExit where it is another pole."""
    import gymnasium

    theirs = gymnasium.make("CartPole-v1").unwrapped
    theirs.reset(seed=0)
    environment, rng, largest = MaskedCartPole(1), np.random.default_rng(0), 0.0
    environment.physics = np.array(theirs.state, dtype=np.float64)[None]
    for _ in range(STEPS_COMPARED):
        action = rng.integers(0, 2, 1)
        step = environment.step(action)
        _, _, terminated, _, _ = theirs.step(int(action[0]))
        if terminated != step.terminated[0]:
            raise SystemExit("an episode of CartPole ends in another step than Gymnasium's")
        if terminated or step.truncated[0]:
            theirs.reset(seed=int(rng.integers(1 << 30)))
            environment.physics, environment.age[:] = np.array(theirs.state, dtype=np.float64)[None], 0
        largest = max(largest, float(np.abs(environment.physics[0] - np.asarray(theirs.state)).max()))
    if largest > LARGEST_DIFFERENCE:
        raise SystemExit(f"the physics differ from Gymnasium's by {largest:g}")
    return largest
