"""The seven optimisations together against the original way, and each of them left out, on a market with a signal."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bench.agent.planted import DRIFT, planted, run
from bench.runs import Line

N_BARS = 4_000  # three iterations
SEVEN = (
    "adaptive_timesteps", "warm_start", "convergence_stop", "progressive", "cache_environments", "adaptive_evaluation",
    "fast_comparison",
)  # fmt: skip
BAR = 5.0


def lines(chosen: argparse.Namespace) -> Iterator[Line]:
    """A line for each way and seed; then ratios of times, at validation scores that are at least as good."""
    ratios: dict[str, list[float]] = {name: [] for name in ("all", *SEVEN)}
    whole, as_good = [], []
    for seed in range(1, chosen.seeds + 1):
        panel, _ = planted(N_BARS, seed, DRIFT)
        original, ours = facts(run(panel, seed, "agent.original=true")), facts(run(panel, seed))
        yield {"kind": "seven", "way": "original", "seed": seed, **original}
        yield {"kind": "seven", "way": "all", "seed": seed, **ours}
        reached = to_score(ours, original["scores"])
        whole.append(original["seconds"] / ours["seconds"])
        as_good.append(float(np.mean(ours["scores"]) >= np.mean(original["scores"])))
        ratios["all"].append(original["seconds"] / reached if reached else 0.0)
        for name in SEVEN:
            without = facts(run(panel, seed, f"agent.{name}=false"))
            ratios[name].append(without["seconds"] / ours["seconds"])
            yield {"kind": "seven", "way": f"without {name}", "seed": seed, **without}
    ratio = float(np.median(ratios["all"]))
    yield {
        "kind": "seven bar", "ratio_to_the_original_score": ratio, "whole_ratio": float(np.median(whole)),
        "seeds_as_good": sum(as_good), "shares": {name: float(np.median(ratios[name])) for name in SEVEN},
        "bar": BAR, "holds": ratio >= BAR,
    }  # fmt: skip


def facts(summary: dict[str, Any]) -> Line:
    """Seconds of training and evaluating, steps, and the validation score of each iteration with its clock."""
    rows = summary["agent"]["iterations"]
    return {
        "seconds": sum(row["seconds"]["training"] + row["seconds"]["evaluation"] + row["seconds"]["comparison"]
                       + row["seconds"]["environment"] for row in rows),
        "steps": sum(sum(row["steps"]) for row in rows),
        "scores": [row["validation_score"] for row in rows],
        "clocks": [row["clock"] for row in rows],
        "sealed": summary["agent"]["sealed"]["statistics"][0]["total_return"],
    }  # fmt: skip


def to_score(ours: Line, scores: Sequence[float]) -> float | None:
    """Seconds until each iteration had the score of the original way, added up; None where one never had it."""
    total = 0.0
    for clock, score in zip(ours["clocks"], scores, strict=True):
        reached = [at for at, found in clock if found >= score]
        if not reached:
            return None
        total += reached[0]
    return total
