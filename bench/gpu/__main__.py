"""What can only be measured on a GPU, in one call: `python -m bench.gpu --out LINES.jsonl`.

    machine    the GPU, its driver, versions; and kernels compiled, which the next steps then find
    kernels    every value of labels, features, bins, backtests and bonds against the CPU loop's bits; milliseconds, and
               the share of the rate of a copy
    boosters   XGBoost: rounds on matrices in turn, threads, milliseconds a round, ways to read margins
    tests      the tests that `pytest -m gpu` selects
    job        the fast job on the GPU and on the CPU of the same machine
    pool       whether Torch and CuPy allocate from one pool
    windows    windows gathered on the GPU against those of the CPU, bit for bit, and their GB/s
    epoch      seconds of an epoch of each preset: captured as a CUDA graph, and one operator at a time; fp32 and bf16
    loss       the best validation loss of a short training, on the GPU and on the CPU
    agent      steps a second of 4,096 environments, after equal rewards
    bonds      a million bonds priced and their yields found, after equal bits
    cuml       cuML's forest and logistic regression against ours: milliseconds and log-loss

The most valuable step comes first. Each step is a process of its own with a limit of time, and adds JSON lines to the
file at once: nothing is lost where one fails, crashes, hangs or time ends. A step that fails or is left out adds a line
that says why, and the next one runs. The exit code is 1 where a line is wrong. --steps chooses. The machine needs no
network.
`python -m bench.gpu.page LINES.jsonl` draws a page. Never run on a GPU yet.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time
from collections.abc import Sequence

from bench import runs
from bench.gpu import alone
from bench.gpu.sizes import SMALL, Sizes
from bench.gpu.steps import STEPS, why_not
from gpupipe.runtime.device import why_no_cuda
from gpupipe.runtime.interrupts import Stopped, stoppable


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    chosen = parser().parse_args(words)
    chosen.sizes = SMALL if chosen.small else Sizes()
    if chosen.small:
        del chosen.presets[1:]
    if unknown := set(chosen.steps) - set(STEPS):
        raise SystemExit(f"no step {', '.join(sorted(unknown))}; there are {', '.join(STEPS)}")
    if reason := why_no_cuda():
        raise SystemExit(f"there is no GPU to measure on: {reason}")
    if chosen.alone:  # --minutes are of this step then
        return alone.run(chosen.alone, chosen)
    try:
        with stoppable("stopped"):
            return run(chosen, words)
    except Stopped as stopped:
        return stopped.exit_code


def run(chosen: argparse.Namespace, words: Sequence[str]) -> int:
    """Run the chosen steps, each in a process; 1 where one has failed."""
    failed, end = 0, time.monotonic() + 60 * chosen.minutes
    for step in STEPS:
        if step not in chosen.steps:
            continue
        left = end - time.monotonic()
        reason = why_not(step, chosen) or (f"{chosen.minutes:g} minutes are over" if left < 1 else "")
        if reason:
            alone.add(chosen.out, step, {"skipped": reason})
        else:
            failed += alone.run_in_process(step, words, chosen.out, min(left, STEPS[step].limit_s))
    return int(failed > 0)


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(
        prog="python -m bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", default="demo", help="bars of a market, for kernels and job")
    options.add_argument("--sector-map", help="CSV of symbol and sector, where the bars do not hold it")
    options.add_argument("--series", type=pathlib.Path, help="a Parquet file of one series, for networks")
    options.add_argument("--out", type=pathlib.Path, required=True, help="lines are added")
    options.add_argument("--steps", type=runs.numbers(str), default=list(STEPS), help="separated by commas; all")
    options.add_argument(
        "--presets", type=runs.numbers(str), default=["fast", "balanced", "quality"], help="of networks"
    )
    options.add_argument("--minutes", type=float, default=60.0, help="in all; the step that runs then is stopped")
    options.add_argument("--small", action="store_true", help="little of each step: a trial of a minute or two")
    options.add_argument("--alone", choices=list(STEPS), help=argparse.SUPPRESS)  # what the process of a step is given
    return options


if __name__ == "__main__":
    sys.exit(main())
