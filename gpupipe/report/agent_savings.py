"""The section on what the seven optimisations of an agent's training saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpupipe.report.page import Section, Table

Row = Mapping[str, Any]
UNKNOWN = "not known from one run"
COLUMNS = [("optimisation", False), ("", False), ("what it did", False), ("steps saved", True),
           ("seconds saved", True)]  # fmt: skip


def savings(whole: Row) -> Section | None:
    """A row for each optimisation, and the speed-up where the original way ran; None without an agent."""
    agent = whole.get("agent")
    if not agent:
        return None
    saved = agent["optimisations"]
    seconds, rate = saved["seconds"], saved["steps_per_second"]
    spent = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    speed = f" at {rate:,.0f} steps a second" if rate else ""
    text = [
        f"{saved['steps']:,} steps{speed}, over all candidates: {spent}. Seconds saved are steps not trained at that "
        "rate, and of the cache the mean time of what it computed, for each request that it answered. What the others "
        "saved only a run without them can tell.",
        original_sentence(saved),
    ]
    return Section("Optimisations", text, [Table("What each optimisation saved", COLUMNS, rows(saved), digits=1)])


def rows(saved: Row) -> list[list[Any]]:
    """Rows of the table.  saved: the summary's entry "optimisations"."""
    warm, stops, cache = saved["warm_start"], saved["convergence_stop"], saved["cache_environments"]
    did = {
        "adaptive_timesteps": "later iterations may train fewer steps",
        "warm_start": f"iterations that start from the policy before: {warm['iterations']} of {saved['iterations']}",
        "convergence_stop": f"{_count(stops['candidates'], 'candidate')} stopped early",
        "progressive": "learning rate, epochs, entropy and clip change by phase",
        "cache_environments": f"requests for features and scalers found: {cache['found']} of {cache['asked']}",
        "adaptive_evaluation": f"{_count(saved['adaptive_evaluation']['evaluations'], 'evaluation')}, denser near "
                               "convergence",
        "fast_comparison": "all policies on all validation episodes in one call",
    }  # fmt: skip
    table = []
    for name, text in did.items():
        on, found = saved["on"][name], saved.get(name, {})
        seconds = found.get("seconds_saved")
        cell = "" if not on else UNKNOWN if seconds is None else seconds
        steps = found.get("steps_saved") if on else None
        table.append([name.replace("_", " "), "on" if on else "off", text if on else "", steps, cell])
    return table


def original_sentence(saved: Row) -> str:
    """The measured speed-up, where the original way ran.

    >>> original_sentence({"original": None})
    'The original way of training did not run on these bars, so no speed-up is claimed; --benchmark-mode measures it.'
    >>> original_sentence({"original": {"seconds": 120.0, "speedup": 8.0}})
    'On the same bars the original way of training took 120.0 s, 8.0 times as long as this one: 15.0 s.'
    """
    original = saved["original"]
    if not original:
        return (
            "The original way of training did not run on these bars, so no speed-up is claimed; --benchmark-mode "
            "measures it."
        )
    total, speedup = original["seconds"], original["speedup"]
    return (
        f"On the same bars the original way of training took {total:,.1f} s, {speedup:,.1f} times as long as this one: "
        f"{total / speedup:,.1f} s."
    )


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
