"""Timeline: what each thread of a run did when, from its log; how much of it was idle, and what training hid."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

PREPARING = ("features", "labels", "prepared")  # events whose work makes what training reads
TRAINING = "unit"


@dataclass(frozen=True)
class Interval:
    """Something that a thread did. lane: of the thread or worker.  begin, end: seconds since the run's first."""

    lane: str
    event: str
    stage: str
    unit: str
    begin: float
    end: float


def intervals(events: Iterable[dict[str, Any]]) -> list[Interval]:
    """What the last run of a log that made anything did; units that were taken from an earlier run are left out."""
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in events:
        if line.get("unit") and line.get("seconds") and not line.get("reused"):
            runs[line["run"]].append(line)
    made = [lines for lines in runs.values() if any(line["event"] == TRAINING for line in lines)]
    if not made:
        return []
    lines = made[-1]
    ends = [datetime.datetime.fromisoformat(line["time"]).timestamp() for line in lines]
    first = min(end - line["seconds"] for end, line in zip(ends, lines, strict=True))
    lanes = {name: f"thread {k}" for k, name in enumerate(dict.fromkeys(line["thread"] for line in lines), 1)}
    return [
        Interval(
            f"worker {line['worker'] + 1}" if "worker" in line else lanes[line["thread"]], line["event"], line["stage"],
            line["unit"], end - line["seconds"] - first, end - first,
        )
        for end, line in zip(ends, lines, strict=True)
    ]  # fmt: skip


def idle_share(found: Sequence[Interval], jobs: int) -> float:
    """Share of the time of `jobs` threads, from the first interval to the last, in which they did nothing; 0 to 1."""
    span = max(one.end for one in found) - min(one.begin for one in found)
    return max(0.0, 1.0 - sum(one.end - one.begin for one in found) / (span * jobs))


def hidden_share(found: Sequence[Interval]) -> float:
    """Share of the seconds of preparation during which something was being trained; NaN where nothing was prepared."""
    busy = _union((one.begin, one.end) for one in found if one.event == TRAINING)
    preparing = [one for one in found if one.event in PREPARING]
    total = sum(one.end - one.begin for one in preparing)
    hidden = sum(
        max(0.0, min(one.end, end) - max(one.begin, begin)) for one in preparing for begin, end in busy
    )  # fmt: skip
    return hidden / total if total else float("nan")


def _union(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans of time that do not overlap, of spans that may."""
    found: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
    return found
