"""How several trainings share the cores of a machine: side by side, or one after the other on all of them."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from gpupipe.estimators.torch.losses import HeadLosses, HeadTargets
from gpupipe.estimators.torch.network import Network, one_thread
from gpupipe.estimators.torch.plan import TrainingPlan
from gpupipe.estimators.torch.shards import ShardedSteps, Workers
from gpupipe.estimators.torch.steps import adam, autocast_of, training_mode
from gpupipe.estimators.torch.windows import Windows

TURNS = 3  # of each way, alternating; the medians are compared
STEPS = 2  # of each network in a turn


@dataclass(frozen=True)
class SideBySide:
    """How trainings share the cores; it changes no byte of their results.

    at_once: trainings at the same time.  threads: of each of them.  reason: a sentence for the user.

        >>> SideBySide(2, 1, "2 networks side by side, a thread each").at_once
        2
    """

    at_once: int
    threads: int
    reason: str


def choose(
    n_trainings: int,
    cores: int,
    network: Callable[[], Network],
    windows: Windows,
    targets: HeadTargets,
    losses: HeadLosses,
    plan: TrainingPlan,
) -> SideBySide:
    """Measure both ways with a few steps of networks that are thrown away, and choose the one of more rows a second.

    n_trainings: trainings that are to be done.  cores: to use.
    network: makes a network such as those that will be trained.  windows, targets, losses: such as theirs, at least
        one row, on which the steps are done.
    With one training or one core, and on a GPU, there is nothing to choose and nothing is measured.
    """
    at_once = min(n_trainings, cores)
    if windows.torch_device != "cpu":
        return SideBySide(1, 1, "networks are trained one after the other on the GPU")
    if at_once < 2:
        return SideBySide(1, cores, f"one network at a time, {_threads(cores)}")
    each = cores // at_once
    with contextlib.ExitStack() as closed:
        beside = [_Trial(network(), windows, targets, losses, plan, each, closed) for _ in range(at_once)]
        alone = [_Trial(network(), windows, targets, losses, plan, cores, closed)]
        pool = closed.enter_context(ThreadPoolExecutor(at_once))
        # The first turn, which starts threads and allocates buffers, is not counted.
        turns = [(_rows_a_second(beside, pool), _rows_a_second(alone, pool)) for _ in range(TURNS + 1)][1:]
    side, one = (statistics.median(rates) for rates in zip(*turns, strict=True))
    measured = f"{side:,.0f} rows a second side by side, {one:,.0f} one after the other"
    if side >= one:
        return SideBySide(at_once, each, f"{at_once} networks side by side, {_threads(each)} each: {measured}")
    return SideBySide(1, cores, f"one network after the other, {_threads(cores)}: {measured}")


class _Trial:
    """A network that is trained for some steps, on as many threads as are given."""

    def __init__(
        self,
        network: Network,
        windows: Windows,
        targets: HeadTargets,
        losses: HeadLosses,
        plan: TrainingPlan,
        threads: int,
        closed: contextlib.ExitStack,
    ) -> None:
        workers = Workers(threads)
        closed.callback(workers.close)
        optimizer = adam(closed.enter_context(training_mode(network, plan.heads_only)), plan.rate, "cpu")
        autocast = autocast_of(plan.precision, "cpu")
        self.steps = ShardedSteps(network, windows, targets, losses, optimizer, workers, autocast)
        order = np.random.default_rng(plan.seed).permutation(windows.n)
        self.positions = torch.from_numpy(order[: plan.rows_of_step])

    def run(self) -> int:
        """Do the steps of a turn; gives their rows."""
        with one_thread():
            for k in range(STEPS):
                self.steps.step(self.positions, (0, k))
        return STEPS * len(self.positions)


def _rows_a_second(trials: list[_Trial], pool: ThreadPoolExecutor) -> float:
    """Of the trials together, in a turn."""
    began = time.perf_counter()
    rows = sum(pool.map(_Trial.run, trials))
    return rows / (time.perf_counter() - began)


def _threads(n: int) -> str:
    return f"{n} thread{'s' * (n > 1)}"
