"""The section on the training of an agent's policies: validation scores, and what the schedule set, by steps."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from gpupipe.report import agent_charts
from gpupipe.report.agent_charts import AGENT
from gpupipe.report.page import Figure, Section

Row = Mapping[str, Any]
FILE = "training.parquet"  # in OUT, written by the workload
MOST_POINTS, LEAST_POINTS = 4000, 8  # of a chart; of one of its lines
VALUES = {
    "learning_rate": "learning rate", "entropy_weight": "weight of the entropy", "entropy": "entropy of the policy",
    "clip": "clip range", "epochs": "epochs of an update",
}  # fmt: skip


def learning_curves(out: pathlib.Path, whole: Row) -> Section | None:
    """Validation score by steps of every candidate, and the schedule; None without an agent or its history."""
    import pyarrow.parquet as pq

    if not whole.get("agent") or not (out / FILE).exists():
        return None
    lines = pq.read_table(out / FILE).to_pylist()
    runs = by_candidate(lines)
    if not runs:
        return None
    kept = kept_candidates(runs)
    scores = score_points(runs, kept)
    values = value_points([line for line in lines if line["kind"] == "update"], kept)
    several = len({candidate for _, _, candidate in runs}) > 1
    text = [
        "Validation score: the mean log-growth of an episode of the validation bars, played greedily, after costs. It "
        "chooses the policy, so its best value flatters; the sealed tests judge.",
        _sentence(runs, kept),
    ]
    chosen = ", of one iteration at a time" if len(kept) > agent_charts.MOST_PANELS else ""
    parts = [Figure(
        f"Validation score by steps{' of each candidate' if several else ''}{chosen}; diamond: the policy that is kept",
        agent_charts.scores(scores),
    )]  # fmt: skip
    if values:
        parts.append(Figure(
            "What the schedule set, and the entropy of the policy, by steps of all iterations"
            f"{', of the candidates that are kept' if several else ''}",
            agent_charts.values(values),
        ))  # fmt: skip
    return Section("Training of the policies", text, parts)


def by_candidate(lines: Sequence[Row]) -> dict[tuple[str, int, int], list[Row]]:
    """Evaluations, rising, of each (way, iteration, candidate); scores that are not known are left out."""
    runs: dict[tuple[str, int, int], list[Row]] = {}
    for line in lines:
        score = line["score"]
        if line["kind"] == "evaluation" and score is not None and math.isfinite(score):
            runs.setdefault((line["way"], line["iteration"], line["candidate"]), []).append(line)
    return runs


def kept_candidates(runs: Mapping[tuple[str, int, int], Sequence[Row]]) -> dict[tuple[str, int], int]:
    """The candidate that each iteration of each way keeps: the first of the best score.

    >>> runs = {("agent", 0, k): [{"score": score}] for k, score in enumerate((0.1, 0.3, 0.3))}
    >>> kept_candidates(runs)
    {('agent', 0): 1}
    """
    best: dict[tuple[str, int], tuple[float, int]] = {}
    for (way, iteration, candidate), evaluations in runs.items():
        score = max(line["score"] for line in evaluations)
        if (way, iteration) not in best or score > best[way, iteration][0]:
            best[way, iteration] = score, candidate
    return {key: candidate for key, (_, candidate) in best.items()}


def score_points(
    runs: Mapping[tuple[str, int, int], Sequence[Row]], kept: Mapping[tuple[str, int], int]
) -> list[dict[str, Any]]:
    """Rows of the chart of scores; lines are thinned to about MOST_POINTS in all, the best evaluation remains."""
    most = max(LEAST_POINTS, MOST_POINTS // len(runs))
    points = []
    for (way, iteration, candidate), evaluations in runs.items():
        best = max(range(len(evaluations)), key=lambda k: evaluations[k]["score"])  # the first of equal ones
        own = kept[way, iteration] == candidate
        step = max(1, -(-len(evaluations) // most))
        points += [
            {"iteration": _title(way, iteration), "candidate": f"candidate {candidate + 1}", "steps": line["steps"],
             "score": 100 * line["score"], "kept": own and k == best}
            for k, line in enumerate(evaluations) if k % step == 0 or k in (best, len(evaluations) - 1)
        ]  # fmt: skip
    return points


def value_points(updates: Sequence[Row], kept: Mapping[tuple[str, int], int]) -> list[dict[str, Any]]:
    """Rows of the chart of values: of the kept candidates, by steps since the first iteration's beginning."""
    chosen = [line for line in updates if kept.get((line["way"], line["iteration"])) == line["candidate"]]
    ways = list(dict.fromkeys(line["way"] for line in chosen))
    points = []
    for way in ways:
        own = [line for line in chosen if line["way"] == way]
        lengths: dict[int, int] = {}
        for line in own:
            lengths[line["iteration"]] = max(line["steps"], lengths.get(line["iteration"], 0))
        before, total = {}, 0
        for iteration in sorted(lengths):
            before[iteration] = total
            total += lengths[iteration]
        step = max(1, -(-len(own) * len(VALUES) * len(ways) // MOST_POINTS))
        points += [
            {"what": title if way == AGENT else f"{title}, {way}", "iteration": line["iteration"],
             "steps": before[line["iteration"]] + line["steps"], "value": float(line[name])}
            for name, title in VALUES.items() for line in own[::step]
            if line[name] is not None and math.isfinite(line[name])
        ]  # fmt: skip
    return points


def _title(way: str, iteration: int) -> str:
    return f"iteration {iteration}" if way == AGENT else f"{way}, iteration {iteration}"


def _sentence(runs: Mapping[tuple[str, int, int], Sequence[Row]], kept: Mapping[tuple[str, int], int]) -> str:
    """How many iterations kept the policy that they started from, and how many have a score above 0."""
    own = {key: candidate for key, candidate in kept.items() if key[0] == AGENT}
    scores = {key: [line["score"] for line in runs[(*key, candidate)]] for key, candidate in own.items()}
    warm = [key for key, candidate in own.items() if runs[(*key, candidate)][0]["steps"] == 0]
    above = sum(max(values) > 0 for values in scores.values())
    text = f"Iterations that keep a policy with a score above 0: {above} of {len(own)}"
    if not warm:
        return f"{text}."
    same = sum(scores[key][0] == max(scores[key]) for key in warm)
    return (
        f"{text}. Step 0 is the policy of the iteration before. Iterations that keep it, because training made nothing "
        f"better of it: {same} of {len(warm)}."
    )
