"""PPO against sb3-contrib's RecurrentPPO on one task: learning curves by seed, then steps a second, in turn."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.agent import sb3
from bench.agent.curves import Ended, area, at_middle, by_part, paired_difference
from bench.runs import Line
from bench.timing import alternate, cores, timed
from gpupipe.estimators.torch.ppo_settings import PPOSettings

if TYPE_CHECKING:
    from gpupipe.estimators.torch.recurrent_ppo import Trainer

# Samples of an update and of a minibatch, epochs and network are those of the peer: see `sb3.options`. It steps 8
# environments 128 times; ours are more, and what is trained on is cut into shorter sequences.
SETTINGS = PPOSettings(
    n_environments=16, rollout=64, sequence=32, epochs=10, minibatch=256, learning_rate=1e-3, gamma=0.98,
    gae_lambda=0.9, clip=0.2, value_clip=0.0, entropy=0.0, weight_decay=0.0, value_gradient=0.0,
)  # fmt: skip
PACE_BAR = 7.0  # times the peer's steps a second


@dataclass(frozen=True)
class Task:
    """What both sides learn.

    ours: makes n environments of a seed, which step together.  peers: makes a gymnasium.Env of a seed.
    length: steps of an episode; None where its return is their number.
    """

    ours: Callable[[int, int], Any]
    peers: Callable[[int], Any]
    settings: PPOSettings = SETTINGS
    length: int | None = None


def lines(task: Task, chosen: argparse.Namespace) -> Iterator[Line]:
    """A curve for each seed and side, their comparison, and the pace."""
    areas: dict[str, list[float]] = {"ours": [], "sb3": []}
    for seed in range(1, chosen.seeds + 1):
        for way, train in (("ours", ours), ("sb3", theirs)):
            seconds, ended = timed(lambda train=train, seed=seed: train(task, seed, chosen.total_steps))
            n = task.settings.n_environments if way == "ours" else sb3.ENVIRONMENTS
            parts = by_part(at_middle(ended, n, task.length), chosen.total_steps)
            areas[way].append(area(parts))
            yield {"kind": "curve", "way": way, "seed": seed, "returns": parts, "area": areas[way][-1], "s": seconds}
    yield {"kind": "learning", "areas": areas, **paired_difference(areas["ours"], areas["sb3"])}
    yield {"kind": "pace", **pace(task, chosen.trained_steps, chosen.times)}


def trainer_of(task: Task, seed: int) -> Trainer:
    """Our trainer, on all cores."""
    from gpupipe.estimators.torch.recurrent_ppo import Trainer

    settings = task.settings
    return Trainer(task.ours(settings.n_environments, seed), settings, seed, threads=cores())


def peer_of(task: Task, seed: int, threads: int) -> sb3.Peer:
    """The peer; its environments have seeds of their own."""
    return sb3.Peer(lambda k: task.peers(seed * sb3.ENVIRONMENTS + k), task.settings, seed, threads)


def ours(task: Task, seed: int, total_steps: int) -> list[Ended]:
    """The episodes of a training, as one entry for those of an update."""
    trainer = trainer_of(task, seed)
    ended = []
    while trainer.steps < total_steps:
        update = trainer.update()
        if update.episodes:
            ended.append(Ended(update.steps, update.episodes, update.mean_return))
    trainer.close()
    return ended


def theirs(task: Task, seed: int, total_steps: int) -> list[Ended]:
    """The episodes of a training of the peer, on one thread: its curve does not depend on it."""
    return peer_of(task, seed, threads=1).learn(total_steps)


def pace(task: Task, trained_steps: int, times: int) -> Line:
    """Steps a second of updates in turn, of policies that have learned for a while; the peer on one thread and on all.

    The peer's faster number of threads counts.
    """
    trainer = trainer_of(task, seed=1)
    peers = {f"sb3 {n}": peer_of(task, seed=1, threads=n) for n in dict.fromkeys((1, cores()))}
    while trainer.steps < trained_steps:
        trainer.update()
    for peer in peers.values():
        peer.learn(trained_steps)
    sides = {"ours": trainer.update, **{name: peer.update for name, peer in peers.items()}}
    seconds, rounds = alternate(times, sides)
    trainer.close()
    per_second = {name: task.settings.samples / taken for name, taken in seconds.items()}
    ratio = per_second["ours"] / max(per_second[name] for name in peers)
    return {"steps_per_s": per_second, "rounds": rounds, "ratio": ratio, "bar": PACE_BAR, "holds": ratio >= PACE_BAR}
