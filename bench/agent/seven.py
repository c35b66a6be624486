"""The seven optimisations together against the original way, and each of them left out, on a market with a signal."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from bench.agent.curves import paired_difference
from bench.agent.planted import DRIFT, planted, run
from bench.runs import Line

N_BARS = 4_000  # three iterations
SEVEN = (
    "adaptive_timesteps", "warm_start", "convergence_stop", "progressive", "cache_environments", "adaptive_evaluation",
    "fast_comparison",
)  # fmt: skip
BAR = 5.0
ORIGINAL, ALL, WITHOUT = "original", "all", "without "


def lines(chosen: argparse.Namespace) -> Iterator[Line]:
    """A line for each way and seed, then the conclusion."""
    found: list[Line] = []
    for seed in range(1, chosen.seeds + 1):
        panel, _ = planted(N_BARS, seed, DRIFT)
        ways = {ORIGINAL: "agent.original=true", ALL: None} | {WITHOUT + name: f"agent.{name}=false" for name in SEVEN}
        for way, setting in ways.items():
            line = {
                "kind": "seven",
                "way": way,
                "seed": seed,
                **facts(run(panel, seed, *([setting] if setting else []))),
            }
            found.append(line)
            yield line
    yield {"kind": "seven bar", **conclusion(found)}


def conclusion(found: Sequence[Line]) -> Line:
    """Ratios of times, medians over seeds, and whether validation scores are equal.

    whole_ratio: time of the original way over that of all seven, of all that both trained.
    score: the mean score of the iterations, ours less the original way's by seed, with its 95 % interval.
    reached: of so many iterations, in how many ours had the best score of the original way.
    shares: time without an optimisation over that of all seven.
    """
    by = {(line["way"], line["seed"]): line for line in found}
    seeds = sorted({line["seed"] for line in found})

    def ratio(way: str, over: str) -> float:
        return statistics.median(by[way, seed]["seconds"] / by[over, seed]["seconds"] for seed in seeds)

    means = {way: [statistics.fmean(by[way, seed]["scores"]) for seed in seeds] for way in (ORIGINAL, ALL)}
    reached = [
        any(found >= score for _, found in clock)
        for seed in seeds
        for score, clock in zip(by[ORIGINAL, seed]["scores"], by[ALL, seed]["clocks"], strict=True)
    ]
    score, whole = paired_difference(means[ALL], means[ORIGINAL]), ratio(ORIGINAL, ALL)
    return {
        "whole_ratio": whole, "score": score, "iterations": len(reached), "reached": sum(reached),
        "shares": {name: ratio(WITHOUT + name, ALL) for name in SEVEN},
        "bar": BAR, "holds": whole >= BAR and score["as_good"],
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
