"""The steps of `python -m bench.gpu`, the most valuable first, with the time that each may take and what it needs."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.runs import Line

Measure = Callable[[argparse.Namespace], Iterator[Line]]


@dataclass(frozen=True)
class Step:
    """A step: what measures it, its limit in seconds, the modules that it needs, and whether it reads --series.

    >>> STEPS["pool"].needs, STEPS["pool"].limit_s
    (('torch', 'rmm'), 60)
    """

    measure: Measure
    limit_s: int
    needs: tuple[str, ...] = ()
    of_series: bool = False


def why_not(step: str, chosen: argparse.Namespace) -> str:
    """Why a step is left out; empty where it is not."""
    for name in STEPS[step].needs:
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed: {FROM[name]}"
    if STEPS[step].of_series and chosen.series is None:
        return "--series names no file"
    return ""


SPARE_S = 20  # for a step to say what it has, before it is stopped
FROM = {
    "torch": "pip install 'gpupipe[torch]', in a build for CUDA",
    "cuml": "pip install 'gpupipe[cuda13]'",
    "rmm": "pip install 'gpupipe[cuda13]'",
    "pytest": "pip install 'gpupipe[test]'",
}


# What a step imports is imported with it: where that fails, it is the step that fails.
def machine(chosen: argparse.Namespace) -> Iterator[Line]:
    """The GPU, the versions, and all kernels compiled."""
    from bench.gpu import machine

    yield from machine.described()
    yield from machine.compiled()


def kernels(chosen: argparse.Namespace) -> Iterator[Line]:
    """All kernels on the bars of --data."""
    from bench.gpu import kernels
    from gpupipe.data import load

    panel, _ = load(chosen.data, chosen.sector_map, "all", "cpu")
    yield from kernels.measured(panel, chosen.sizes)


def boosters(chosen: argparse.Namespace) -> Iterator[Line]:
    """All cases of XGBoost."""
    from bench.gpu import boosters

    yield from boosters.measured("cuda", chosen.sizes.boosters, n_of_each=chosen.sizes.cases)


def tests(chosen: argparse.Namespace) -> Iterator[Line]:
    """The tests of a GPU."""
    from bench.gpu import gpu_tests

    log = chosen.out.with_suffix(".tests.log")
    yield from gpu_tests.measured(chosen.sizes.tests, log, limit_s=60 * chosen.minutes - SPARE_S)


def _of(module: str, name: str) -> Measure:
    """The step that a function of a module here measures."""

    def measure(chosen: argparse.Namespace) -> Iterator[Line]:
        yield from getattr(importlib.import_module(f"bench.gpu.{module}"), name)(chosen)

    return measure


STEPS: dict[str, Step] = {
    "machine": Step(machine, 240),
    "kernels": Step(kernels, 300),
    "boosters": Step(boosters, 240),
    "tests": Step(tests, 240, ("pytest",)),
    "job": Step(_of("workloads", "job"), 400),
    "pool": Step(_of("networks", "pool"), 60, ("torch", "rmm")),
    "windows": Step(_of("networks", "windows"), 60, ("torch",), of_series=True),
    "epoch": Step(_of("networks", "epoch"), 150, ("torch",), of_series=True),
    "loss": Step(_of("networks", "loss"), 90, ("torch",), of_series=True),
    "agent": Step(_of("workloads", "agent"), 60),
    "bonds": Step(_of("workloads", "bond_values"), 60),
    "cuml": Step(_of("workloads", "cuml"), 90, ("cuml",)),
}
