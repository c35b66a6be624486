"""Two folds side by side, a thread each, against one after the other, with one thread and with all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bench.runs import Line
from bench.sequence import ours
from bench.sequence.curve import Curve
from bench.sequence.problem import Problem
from bench.timing import alternate, cores
from gpupipe.estimators.torch.settings import PRESETS

N_FOLDS = 2
TIME_LIMIT_S = 300.0  # no round begins after it


@dataclass(frozen=True)
class Fold:
    """A fold's problem; both folds have as many rows, so that a thread each ends at the same time."""

    problem: Problem
    seed: int

    def train(self, preset: str, threads: int, epochs: int) -> Curve:
        """One training from new weights, without validation."""
        settings = PRESETS[preset]
        network = ours.network_of(self.problem, settings, self.seed)
        fit, _, _ = ours.dataset(self.problem, settings, settings.scaling)
        return ours.train(network, self.problem, fit, None, settings, self.seed, threads, epochs)


def folds_of(problem: Problem) -> list[Fold]:
    """Two overlapping parts of the training rows, of the same length: the first and the last two thirds."""
    rows = problem.parts.training
    n = 2 * len(rows) // 3
    return [Fold(problem.with_training(part), seed) for seed, part in enumerate((rows[:n], rows[len(rows) - n :]), 1)]


def folds(problem: Problem, preset: str, times: int, epochs: int = 1) -> Line:
    """Median seconds of both folds, three ways in turn; SystemExit where the ways do not give the same losses."""
    both = folds_of(problem)

    def in_turn(threads: int) -> list[Curve]:
        return [fold.train(preset, threads, epochs) for fold in both]

    def side_by_side() -> list[Curve]:
        with ThreadPoolExecutor(N_FOLDS) as pool:
            return list(pool.map(lambda fold: fold.train(preset, 1, epochs), both))

    sides = {
        "side by side": side_by_side, "in turn, one thread": lambda: in_turn(1),
        "in turn, all threads": lambda: in_turn(cores()),
    }  # fmt: skip
    losses = {name: [[e.loss for e in curve.epochs] for curve in side()] for name, side in sides.items()}
    if any(found != losses["side by side"] for found in losses.values()):
        raise SystemExit(f"{problem.name}, {preset}: folds side by side train to other losses than one after the other")
    seconds, rounds = alternate(times, sides, limit_s=TIME_LIMIT_S)
    return {
        "seconds": seconds, "rounds": rounds,
        "over_one_thread": seconds["in turn, one thread"] / seconds["side by side"],
        "over_all_threads": seconds["in turn, all threads"] / seconds["side by side"],
    }  # fmt: skip
