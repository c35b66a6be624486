"""Seconds of an epoch of every preset our way, with its validation, in turn: what whole trainings are compared by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.runs import Line
from bench.sequence import ours
from bench.sequence.problem import Problem
from bench.timing import alternate, cores
from gpupipe.estimators.torch.settings import PRESETS

TIME_LIMIT_S = 900.0


def pace(problem: Problem, presets: list[str], times: int) -> Line:
    """Median seconds of an epoch by preset, on all cores.

    A training of n epochs takes n times as long. So whole trainings compare, whatever else the machine did while their
    losses were measured.
    """

    def side(preset: str) -> Callable[[], Any]:
        settings = PRESETS[preset]
        network = ours.network_of(problem, settings, seed=1)
        fit, validation, _ = ours.dataset(problem, settings, settings.scaling)
        return lambda: ours.train(network, problem, fit, validation, settings, 1, cores(), 1)

    sides = {preset: side(preset) for preset in presets}
    for run in sides.values():
        run()
    seconds, rounds = alternate(times, sides, limit_s=TIME_LIMIT_S)
    return {"seconds": seconds, "rounds": rounds}
