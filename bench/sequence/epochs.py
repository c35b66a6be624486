"""An epoch of training: steps of the preset's own batch on copied windows against ours, in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bench.runs import Line
from bench.sequence import origin, ours
from bench.sequence.problem import Problem
from bench.timing import alternate, cores
from gpupipe.estimators.torch.settings import PRESETS

TIME_LIMIT_S = 300.0  # no round begins after it


def epoch(problem: Problem, preset: str, times: int) -> Line:
    """Median seconds of an epoch of the training rows, without validation.

    The usual way is timed on one thread and on all cores, as small steps may be slower on more threads: the ratio is
    that to the faster of the two.
    """
    import torch

    settings, parts = replace(PRESETS[preset], epoch_rows=0), problem.parts  # both ways fit every row once
    table, _ = origin.scaled(problem.dataset.X, parts.training, settings.scaling)
    copies = origin.windows(table, parts.training, settings.length)
    batches = origin.batches_of(copies, problem.dataset.y[parts.training], settings.batch)
    fit, _, _ = ours.dataset(problem, settings, settings.scaling)

    def side(threads: int) -> Callable[[], Any]:
        network = ours.network_of(problem, settings, seed=1)
        optimiser = torch.optim.Adam(network.parameters(), lr=settings.rate)

        def run() -> None:
            before = torch.get_num_threads()
            torch.set_num_threads(threads)
            try:
                origin.train_epoch(network, optimiser, batches(origin.shuffling(1, 0)))
            finally:
                torch.set_num_threads(before)

        return run

    network = ours.network_of(problem, settings, seed=1)
    counts = sorted({1, cores()})
    sides: dict[str, Callable[[], Any]] = {f"origin, {n} threads": side(n) for n in counts}
    sides["ours"] = lambda: ours.train(network, problem, fit, None, settings, 1, cores(), 1)
    for run in sides.values():
        run()
    seconds, rounds = alternate(times, sides, limit_s=TIME_LIMIT_S)
    fastest = min((name for name in seconds if name != "ours"), key=lambda name: seconds[name])
    return {"seconds": seconds, "reference": fastest, "ratio": seconds[fastest] / seconds["ours"], "rounds": rounds}
