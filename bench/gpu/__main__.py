"""What can only be measured on a GPU, in one call: `python -m bench.gpu --out LINES.jsonl`.

    kernels    every value of labels, features, bins, backtests and bonds against the CPU loop's bits; milliseconds, and
               the share of the rate of a copy
    boosters   XGBoost: rounds on matrices in turn, threads, milliseconds a round, ways to read margins
    tests      `pytest -m gpu`
    job        the fast job on the GPU and on the CPU of the same machine
    pool       whether Torch and CuPy allocate from one pool
    windows    windows gathered on the GPU against those of the CPU, bit for bit, and their GB/s
    epoch      seconds of an epoch of each preset: captured as a CUDA graph, and one operator at a time; fp32 and bf16
    loss       the best validation loss of a short training, on the GPU and on the CPU
    agent      steps a second of 4,096 environments, after equal rewards
    bonds      a million bonds priced and their yields found, after equal bits
    cuml       cuML's forest and logistic regression against ours: milliseconds and log-loss

The most valuable step comes first, and each adds JSON lines to the file at once, so that nothing is lost where time
ends; a step that fails adds a line that says why, and the next one runs. --steps chooses. The machine needs no network.
`python -m bench.gpu.page LINES.jsonl` draws a page. Never run on a GPU yet.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence

from bench import runs
from bench.gpu import boosters, kernels, networks, workloads
from bench.runs import Line
from gpupipe.data import load
from gpupipe.runtime.device import why_no_cuda

Step = Callable[[argparse.Namespace], Iterator[Line]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="demo", help="bars of a market, for kernels and job")
    parser.add_argument("--sector-map", help="CSV of symbol and sector, where the bars do not hold it")
    parser.add_argument("--series", type=pathlib.Path, help="a Parquet file of one series, for networks")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="lines are added")
    parser.add_argument("--steps", type=runs.numbers(str), default=list(STEPS))
    parser.add_argument("--presets", type=runs.numbers(str), default=["fast", "balanced", "quality"])
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.steps) - set(STEPS):
        raise SystemExit(f"no step {', '.join(sorted(unknown))}; there are {', '.join(STEPS)}")
    if reason := why_no_cuda():
        raise SystemExit(f"there is no GPU to measure on: {reason}")
    failed = 0
    for step in STEPS:
        if step in chosen.steps:
            failed += run(step, chosen)
    return int(failed > 0)


def run(step: str, chosen: argparse.Namespace) -> bool:
    """Run a step, and add its lines; whether it failed."""
    try:
        for line in STEPS[step](chosen):
            add(chosen.out, {"kind": step, **about(), **line})
    except Exception as error:
        where = traceback.format_exc().splitlines()[-3:]
        add(chosen.out, {"kind": step, **about(), "error": f"{type(error).__name__}: {error}", "where": where})
        return True
    return False


def market_kernels(chosen: argparse.Namespace) -> Iterator[Line]:
    """All kernels on the bars of --data."""
    panel, _ = load(chosen.data, chosen.sector_map, "all", "cpu")
    yield from kernels.measured(panel)


def rounds(chosen: argparse.Namespace) -> Iterator[Line]:
    """All cases of XGBoost."""
    yield from boosters.measured("cuda")


def of_series(measure: Step) -> Step:
    """A step that needs --series."""

    def step(chosen: argparse.Namespace) -> Iterator[Line]:
        if chosen.series is None:
            yield {"skipped": "--series names no file"}
            return
        yield from measure(chosen)

    return step


STEPS: dict[str, Step] = {
    "kernels": market_kernels, "boosters": rounds, "tests": workloads.tests, "job": workloads.job,
    "pool": networks.pool, "windows": of_series(networks.windows), "epoch": of_series(networks.epoch),
    "loss": of_series(networks.loss), "agent": workloads.agent, "bonds": workloads.bond_values, "cuml": workloads.cuml,
}  # fmt: skip


def about() -> Line:
    """What every line says of the machine."""
    import cupy

    name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode()
    return {"device": name, "cupy": cupy.__version__, "time": time.strftime("%F %T%z")}


def add(out: pathlib.Path, line: Line) -> None:
    """Add a line to the file, and show it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a") as file:
        file.write(json.dumps(line) + "\n")
    runs.show(line)


if __name__ == "__main__":
    sys.exit(main())
