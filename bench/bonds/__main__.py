"""Bonds against other libraries and the usual way: `python -m bench.bonds [--steps eleven] --out LINES.jsonl`.

    kernel   prices and yields of made bonds: our kernels against loops of QuantLib and FinancePy, and numpy:
             equality, then bonds a second
    eleven   the eleven steps in the usual way, one after the other, against ours: seconds by step, the share of what
             makes ours faster, and the gain on sealed test rows by model
    planted  what runs find of a planted mispricing, against an oracle that knows it; what they claim without one
    treasury yields of auctions against their day's par curve, against what a run publishes as fair, and against a
             Nelson-Siegel-Svensson fit of that curve

--steps chooses. --out LINES.jsonl gets each measurement as it ends. The last lines are JSON, one a measurement. It
needs the extras bench and tune.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence

from bench import runs
from bench.bonds import eleven, kernel, planted, treasury
from bench.runs import Line

# A step gives its lines as they are measured.
STEPS: dict[str, Callable[[argparse.Namespace], Iterator[Line]]] = {
    "kernel": kernel.lines, "eleven": eleven.lines, "planted": planted.lines, "treasury": treasury.lines,
}  # fmt: skip
# What a step cannot do without.
_MODELS = (("optuna", "optuna"), ("sklearn", "scikit-learn"), ("xgboost", "xgboost"))
PACKAGES = {"eleven": (*_MODELS, ("pandas", "pandas")), "planted": _MODELS, "treasury": _MODELS}


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = parser().parse_args(arguments)
    if unknown := [name for name in chosen.steps if name not in STEPS]:
        raise SystemExit(f"no step {', '.join(unknown)}; there are {', '.join(STEPS)}")
    if unknown := [name for name in chosen.shares if name not in eleven.SHARES]:
        raise SystemExit(f"no share {', '.join(unknown)}; there are {', '.join(eleven.SHARES)}")
    needed = dict.fromkeys(names for step in chosen.steps for names in PACKAGES.get(step, ()))
    try:
        versions = dict(runs.library(*names)[1].rsplit(" ", 1) for names in needed)
    except runs.SkippedError as error:
        raise SystemExit(f'{error}: pip install -e ".[cpu,tune,bench]"') from None
    measured = ({"step": name, **line} for name in chosen.steps for line in STEPS[name](chosen))
    return runs.report("bonds", measured, chosen.out, libraries=versions)


def parser() -> argparse.ArgumentParser:
    options = runs.options(__doc__, times=15, set=[])
    options.add_argument("--steps", type=runs.numbers(str), default=list(STEPS))
    options.add_argument("--bonds", type=int, default=1_000_000, help="that our kernels and numpy value at once")
    options.add_argument("--looped", type=int, default=2_000, help="of these, that a loop in Python values in a round")
    options.add_argument("--peers", type=runs.numbers(str), default=list(kernel.PEERS), help="loops to compare with")
    options.add_argument("--n-bonds", type=int, default=5_000, help="of the step eleven")
    options.add_argument("--n-months", type=int, default=60, help="of simulated markets")
    options.add_argument("--rounds", type=int, default=1, help="of both sides of the step eleven")
    options.add_argument("--shares", type=runs.numbers(str), default=list(eleven.SHARES), help="that are measured")
    options.add_argument("--seed", type=int, default=42, help="of the step eleven")
    options.add_argument("--mispricing", type=float, default=10.0, help="that is planted, percent of the spread")
    options.add_argument("--planted-bonds", type=int, default=2_000, help="of each market of the step planted")
    options.add_argument("--seeds", type=int, default=5, help="markets of the step planted: seeds 1, 2, ...")
    options.add_argument("--out", type=pathlib.Path, help="lines are added")
    return options


if __name__ == "__main__":
    sys.exit(main())
