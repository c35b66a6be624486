"""What the seven optimisations saved in a run: counts and measurements, and null where a run cannot tell."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from gpupipe.config import Config
from gpupipe.workloads.agent.cache import CacheCounts
from gpupipe.workloads.agent.candidate import CONVERGED
from gpupipe.workloads.agent.iteration import IterationResult

SEVEN = (
    "adaptive_timesteps", "warm_start", "convergence_stop", "progressive", "cache_environments", "adaptive_evaluation",
    "fast_comparison",
)  # fmt: skip

PARTS = ("training", "evaluation", "comparison", "environment")  # of the time that an iteration takes


def of(ours: Sequence[IterationResult], theirs: Sequence[IterationResult], settings: Config) -> dict[str, Any]:
    """What the optimisations saved.

    theirs: results of the original way on the same bars, where it ran; else empty, and no speed-up is claimed.
    Shares that only a run without an optimisation could tell are null; `bench.agent` measures them.
    """
    steps = _steps(ours)
    rate = steps / seconds if (seconds := _seconds(ours, "training")) > 0 else None

    def time_of(saved: int) -> float | None:
        return saved / rate if rate else None

    not_begun = sum((result.counts["base"] - result.counts["budget"]) * len(result.candidates) for result in ours)
    stopped = [c for result in ours for c in result.candidates if c["stopped"] == CONVERGED]
    left = sum(
        max(0, result.counts["budget"] - candidate["steps"])
        for result in ours for candidate in result.candidates if candidate["stopped"] == CONVERGED
    )  # fmt: skip
    return {
        "on": {name: getattr(settings.agent, name) for name in SEVEN},
        "steps": steps,
        "steps_per_second": rate,
        "seconds": {name: _seconds(ours, name) for name in PARTS},
        "iterations": len(ours),
        "adaptive_timesteps": {"steps_saved": not_begun, "seconds_saved": time_of(not_begun)},
        "warm_start": {"iterations": sum(result.counts["warm"] for result in ours), "seconds_saved": None},
        "convergence_stop": {"candidates": len(stopped), "steps_saved": left, "seconds_saved": time_of(left)},
        "progressive": {"seconds_saved": None},
        "cache_environments": _of_cache(ours),
        "adaptive_evaluation": {"evaluations": sum(
            len(candidate["evaluations"]) for result in ours for candidate in result.candidates
        ), "seconds_saved": None},
        "original": {
            "seconds": total, "speedup": total / sum(_seconds(ours, name) for name in PARTS),
        } if theirs and (total := sum(_seconds(theirs, name) for name in PARTS)) else None,
    }  # fmt: skip


def _of_cache(results: Sequence[IterationResult]) -> dict[str, Any]:
    """Requests for features and scalers, those that were found, and what computing the found ones had taken."""
    asked, found = (sum(result.counts[f"cache_{name}"] for result in results) for name in ("asked", "found"))
    saved = _seconds(results, "environment_saved")
    return {"asked": asked, "found": found, "hit_rate": CacheCounts(asked, found).hit_rate, "seconds_saved": saved}


def _seconds(results: Sequence[IterationResult], name: str) -> float:
    return float(sum(result.seconds.get(name, 0.0) for result in results))


def _steps(results: Sequence[IterationResult]) -> int:
    return sum(candidate["steps"] for result in results for candidate in result.candidates)


def origin_summary(saved: Mapping[str, Any], now: datetime.datetime) -> dict[str, Any]:
    """OUT/optimization_summary.json: the keys of the system that this one replaces, each measured, or null."""
    timesteps_saved = saved["adaptive_timesteps"]["steps_saved"] + saved["convergence_stop"]["steps_saved"]
    original, rate = saved["original"], saved["steps_per_second"]
    seconds = sum(saved["seconds"].values())
    return {
        "optimization_completed": True,
        "total_speedup_achieved": original["speedup"] if original else None,
        "total_timesteps_saved": timesteps_saved,
        "early_stops": saved["convergence_stop"]["candidates"],
        "warm_starts": saved["warm_start"]["iterations"],
        "avg_iteration_time_minutes": seconds / saved["iterations"] / 60,
        "estimated_time_saved_hours": timesteps_saved / rate / 3600 if rate else None,
        "completion_timestamp": now.isoformat(timespec="seconds"),
    }
