"""Bonds against other libraries: `python -m bench.bonds [--steps kernel] --out LINES.jsonl`.

    kernel   prices and yields of made bonds: our kernels against loops of QuantLib, FinancePy and rateslib, and numpy:
             equality, then bonds a second

--steps chooses. --out LINES.jsonl gets each measurement as it ends. The last lines are JSON, one a measurement. It
needs the extra bench; a library that is not installed is left out, and said so.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence

from bench import runs
from bench.bonds import kernel
from bench.runs import Line

# A step gives its lines as they are measured.
STEPS: dict[str, Callable[[argparse.Namespace], Iterator[Line]]] = {"kernel": kernel.lines}


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = parser().parse_args(arguments)
    if unknown := [name for name in chosen.steps if name not in STEPS]:
        raise SystemExit(f"no step {', '.join(unknown)}; there are {', '.join(STEPS)}")
    measured = ({"step": name, **line} for name in chosen.steps for line in STEPS[name](chosen))
    return runs.report("bonds", measured, chosen.out)


def parser() -> argparse.ArgumentParser:
    options = runs.options(__doc__, times=15)
    options.add_argument("--steps", type=runs.numbers(str), default=list(STEPS))
    options.add_argument("--bonds", type=int, default=1_000_000, help="that our kernels and numpy value at once")
    options.add_argument("--looped", type=int, default=2_000, help="of these, that a loop in Python values in a round")
    options.add_argument("--peers", type=runs.numbers(str), default=list(kernel.PEERS), help="loops to compare with")
    options.add_argument("--out", type=pathlib.Path, help="lines are added")
    return options


if __name__ == "__main__":
    sys.exit(main())
