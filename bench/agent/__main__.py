"""The agent against its peers: `python -m bench.agent [--steps environment,cartpole] --out LINES.jsonl`.

    environment  the market's kernel against a Gymnasium environment in Python: equality, then steps a second
    cartpole     PPO against sb3-contrib's RecurrentPPO on CartPole without velocities: both physics, learning curves of
                 five seeds, then steps a second
    market       the same on the trading market with a planted signal
    planted      walk-forwards on a market with a planted signal, against an oracle that reads it; and without one
    seven        the seven optimisations against the original way, at equal validation scores; each left out in turn

--steps chooses. --out LINES.jsonl gets each measurement as it ends. The last lines are JSON, one a measurement. It
needs the extras torch and bench.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence

from bench import runs
from bench.agent import cartpole, environment, market, planted, seven
from bench.runs import Line

# A step gives its lines as they are measured.
STEPS: dict[str, Callable[[argparse.Namespace], Iterator[Line]]] = {
    "environment": environment.lines, "cartpole": cartpole.lines, "market": market.lines,
    "planted": planted.lines, "seven": seven.lines,
}  # fmt: skip
_TRAINING = (
    ("torch", "torch"), ("gymnasium", "gymnasium"), ("stable_baselines3", "stable-baselines3"),
    ("sb3_contrib", "sb3-contrib"),
)  # fmt: skip
PACKAGES = {
    "environment": (("gymnasium", "gymnasium"),),
    "cartpole": _TRAINING,
    "market": _TRAINING,
    "planted": (("torch", "torch"),),
    "seven": (("torch", "torch"),),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = parser().parse_args(arguments)
    if unknown := [name for name in chosen.steps if name not in STEPS]:
        raise SystemExit(f"no step {', '.join(unknown)}; there are {', '.join(STEPS)}")
    try:
        versions = dict(runs.library(*names)[1].rsplit(" ", 1) for step in chosen.steps for names in PACKAGES[step])
    except runs.SkippedError as error:
        raise SystemExit(f'{error}: pip install -e ".[cpu,torch,bench]"') from None
    measured = ({"step": name, **line} for name in chosen.steps for line in STEPS[name](chosen))
    return runs.report("agent", measured, chosen.out, libraries=versions)


def parser() -> argparse.ArgumentParser:
    options = runs.options(__doc__, times=30)
    options.add_argument("--steps", type=runs.numbers(str), default=list(STEPS))
    options.add_argument("--data", help="bars of one instrument for the step environment (default: made ones)")
    options.add_argument("--seeds", type=int, default=5, help="trainings of each side: seeds 1, 2, ...")
    options.add_argument("--total-steps", type=int, default=60_000, help="of a training, of all environments together")
    options.add_argument("--trained-steps", type=int, default=20_000, help="of both sides, before steps are timed")
    options.add_argument("--out", type=pathlib.Path, help="lines are added")
    return options


if __name__ == "__main__":
    sys.exit(main())
