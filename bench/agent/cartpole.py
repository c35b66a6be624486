"""CartPole without velocities: both sides learn it from equally many samples; then their steps a second, in turn."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from bench.agent import sb3
from bench.agent.curves import Ended, area, by_part, paired_difference
from bench.runs import Line
from bench.timing import alternate, cores, timed
from gpupipe.estimators.torch.ppo_settings import PPOSettings
from tests.support.memory_tasks import MaskedCartPole

if TYPE_CHECKING:
    from gpupipe.estimators.torch.recurrent_ppo import Trainer

# Samples of an update and of a minibatch, epochs and network are those of the peer: see `sb3.options`. It steps 8
# environments 128 times; ours are more, and what is trained on is cut into shorter sequences.
SETTINGS = PPOSettings(
    n_environments=16, rollout=64, sequence=32, epochs=10, minibatch=256, learning_rate=1e-3, gamma=0.98,
    gae_lambda=0.9, clip=0.2, value_clip=0.0, entropy=0.0, weight_decay=0.0, value_gradient=0.0,
)  # fmt: skip
PACE_BAR = 7.0  # times the peer's steps a second
STEPS_COMPARED, LARGEST_DIFFERENCE = 2_000, 1e-9  # of the physics


def lines(chosen: argparse.Namespace) -> Iterator[Line]:
    """Physics, a curve for each seed and side, their comparison, and the pace."""
    yield {"kind": "physics", "largest_difference": physics()}
    areas: dict[str, list[float]] = {"ours": [], "sb3": []}
    for seed in range(1, chosen.seeds + 1):
        for way, train in (("ours", ours), ("sb3", sb3.train)):
            seconds, ended = timed(lambda train=train, seed=seed: train(SETTINGS, seed, chosen.total_steps))
            parts = by_part(ended, chosen.total_steps)
            areas[way].append(area(parts))
            yield {"kind": "curve", "way": way, "seed": seed, "returns": parts, "area": areas[way][-1], "s": seconds}
    yield {"kind": "learning", "areas": areas, **paired_difference(areas["ours"], areas["sb3"])}
    yield {"kind": "pace", **pace(chosen.trained_steps, chosen.times)}


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


def trainer_of(settings: PPOSettings, seed: int) -> Trainer:
    """Our trainer, on all cores."""
    from gpupipe.estimators.torch.recurrent_ppo import Trainer

    return Trainer(MaskedCartPole(settings.n_environments, seed), settings, seed, threads=cores())


def ours(settings: PPOSettings, seed: int, total_steps: int) -> list[Ended]:
    """The episodes of a training, as one entry for those of an update."""
    trainer = trainer_of(settings, seed)
    ended = []
    while trainer.steps < total_steps:
        update = trainer.update()
        if update.episodes:
            ended.append(Ended(update.steps, update.episodes, update.mean_return))
    trainer.close()
    return ended


def pace(trained_steps: int, times: int) -> Line:
    """Steps a second of updates in turn, of policies that have learned for a while; the peer on one thread and on all.

    The peer's faster number of threads counts.
    """
    trainer = trainer_of(SETTINGS, seed=1)
    peers = {f"sb3 {n}": sb3.Peer(SETTINGS, seed=1, threads=n) for n in dict.fromkeys((1, cores()))}
    while trainer.steps < trained_steps:
        trainer.update()
    for peer in peers.values():
        peer.learn(trained_steps)
    sides = {"ours": trainer.update, **{name: peer.update for name, peer in peers.items()}}
    seconds, rounds = alternate(times, sides)
    trainer.close()
    per_second = {name: SETTINGS.samples / taken for name, taken in seconds.items()}
    ratio = per_second["ours"] / max(per_second[name] for name in peers)
    return {"steps_per_s": per_second, "rounds": rounds, "ratio": ratio, "bar": PACE_BAR, "holds": ratio >= PACE_BAR}
