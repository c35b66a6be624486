"""What the log of a run says of its time and memory: who did what when, who was idle, what was held."""

from __future__ import annotations

import datetime
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Event = Mapping[str, Any]
MAIN, IDLE = "run", "idle"
PREPARING = ("read", "features", "labels")  # events of one step, with the seconds that it took
PREPARED = ("prepare", "bins")  # for units, by their threads
LATE_S = 0.05  # shorter gaps between units are not drawn


@dataclass(frozen=True)
class Bar:
    """A step of a lane; begin and end in seconds since the run began."""

    lane: str
    stage: str
    unit: str
    begin: float
    end: float


@dataclass(frozen=True)
class Lane:
    """What a lane came to while units were made. seconds: from the first unit's begin to the last one's end."""

    name: str
    units: int
    busy_s: float
    seconds: float

    @property
    def idle(self) -> float:
        """Share of the time."""
        return max(0.0, 1 - self.busy_s / self.seconds) if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class Log:
    """One run, as its log says. events: in the order of the file."""

    events: Sequence[Event]
    began: float  # seconds since the epoch

    def since(self, event: Event) -> float:
        """Seconds from the begin of the run to an event."""
        return _seconds(event) - self.began

    @property
    def made(self) -> list[Event]:
        """Units that this run made, not those that it took from the store, and what it prepared for them."""
        return [one for one in self.events if _is_made(one)]

    def place(self, event: Event) -> tuple[str, str]:
        """Worker and thread of an event; what a thread did itself is of the worker that it serves; "" is none."""
        workers = {one["thread"]: one["worker"] for one in self.events if "worker" in one}
        return str(event.get("worker", workers.get(event["thread"], ""))), event["thread"]


def find(events: Iterable[Event], run_key: str) -> Log | None:
    """The last run that made units of the models with this key, which may have been taken up after it was stopped."""
    runs: dict[str, list[Event]] = defaultdict(list)
    for one in events:
        runs[one.get("run", "")].append(one)
    own = [
        lines for lines in runs.values()
        if any(one["event"] == "start" and one.get("run_key") == run_key for one in lines) and any(map(_is_made, lines))
    ]  # fmt: skip
    if not own:
        return None
    return Log(own[-1], min(_seconds(one) - (one.get("seconds", 0.0) if _timed(one) else 0.0) for one in own[-1]))


def bars(log: Log) -> list[Bar]:
    """Steps of the run itself, then of each worker or thread that made units; between units, who waited."""
    found = [*_of_run(log)]
    names = lanes(log)
    begun = min((one.begin for one in _units(log, names)), default=0.0)
    ended = max((one.end for one in _units(log, names)), default=0.0)
    for name in dict.fromkeys(names.values()):
        own = sorted((one for one in _units(log, names) if one.lane == name), key=lambda one: one.begin)
        found += own
        if name == MAIN:
            continue
        at = begun
        for one in [*own, Bar(name, IDLE, "", ended, ended)]:
            if one.begin - at > LATE_S:
                found.append(Bar(name, IDLE, "nothing to do", at, one.begin))
            at = max(at, one.end)
    return found


def lanes(log: Log) -> dict[tuple[str, str], str]:
    """What the lane of a (worker, thread) is called."""
    pairs = list(dict.fromkeys(map(log.place, log.made)))
    workers = list(dict.fromkeys(worker for worker, _ in pairs if worker))
    threads: dict[str, list[str]] = defaultdict(list)
    for worker, thread in pairs:
        if worker or thread != "MainThread":
            threads[worker].append(thread)
    found: dict[tuple[str, str], str] = {}
    for worker, thread in pairs:
        if not worker and thread == "MainThread":
            found[worker, thread] = MAIN
            continue
        k = threads[worker].index(thread) + 1
        if not worker:
            found[worker, thread] = f"thread {k}"
        else:
            # Names of workers may be long addresses.
            name = f"worker {workers.index(worker) + 1}" if len(worker) > 12 else f"worker {worker}"
            found[worker, thread] = name if len(threads[worker]) == 1 else f"{name}, thread {k}"
    return found


def shares(log: Log) -> list[Lane]:
    """Units and idle share of each worker or thread that made units beside others; MAIN is left out."""
    names = lanes(log)
    units = [one for one in _units(log, names) if one.lane != MAIN]
    if not units:
        return []
    span = max(one.end for one in units) - min(one.begin for one in units)
    own: dict[str, list[Bar]] = defaultdict(list)
    for one in units:
        own[one.lane].append(one)
    return [
        Lane(name, sum(one.stage not in PREPARED for one in of), sum(one.end - one.begin for one in of), span)
        for name, of in own.items()
    ]


def hidden_share(log: Log) -> float:
    """Share of the seconds of preparation in which something was trained as well; NaN where nothing was prepared.

    Preparation: features, labels, and for each fold its rows, digests and bins.
    """
    timed = [(one, log.since(one) - one["seconds"], log.since(one)) for one in log.events if one.get("seconds")]
    busy = _union((begin, end) for one, begin, end in timed if one["event"] == "unit" and _is_made(one))
    spans = [(begin, end) for one, begin, end in timed if one["event"] in ("features", "labels", "prepared")]
    total = sum(end - begin for begin, end in spans)
    beside = sum(max(0.0, min(end, e) - max(begin, b)) for begin, end in spans for b, e in busy)
    return beside / total if total else float("nan")


def _union(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans of time that do not overlap, of spans that may."""
    found: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
    return found


def phases(log: Log) -> list[tuple[str, float, float]]:
    """(stage, begin, end) in seconds since the start: reading, the stages that the run announced, and writing.

    Writing is what is left of the evaluation's stage once the evaluation's own seconds are over.
    """
    found = []
    for one in log.events:
        if one["event"] == "read":
            found.append(("read", log.since(one) - one.get("seconds", 0.0), log.since(one)))
    marks = [one for one in log.events if one["event"] in ("stage", "published", "end")]
    spent = {one.get("stage"): one.get("seconds", 0.0) for one in log.events if one["event"] == "seconds"}
    for one, following in itertools.pairwise(marks):
        if one["event"] != "stage":
            continue
        name, begin, end = one.get("stage", ""), log.since(one), log.since(following)
        if name == "evaluation" and following["event"] == "published":
            evaluated = min(end, begin + spent.get(name, end - begin))
            found += [(name, begin, evaluated), ("write", evaluated, end)]
        else:
            found.append((name, begin, end))
    return found


def held(log: Log) -> list[tuple[str, float, int]]:
    """(what, seconds since the start, bytes) at every event that says it."""
    kinds = {
        "resident": "memory_bytes", "largest so far": "memory_peak_bytes", "device's pool": "device_bytes",
        "pool's largest so far": "device_peak_bytes",
    }  # fmt: skip
    return [
        (what, round(log.since(one), 3), one[field])
        for what, field in kinds.items() for one in log.events if field in one
    ]  # fmt: skip


def held_by_phase(log: Log) -> list[list[Any]]:
    """For each phase: name, seconds, in bytes the largest resident set seen and the marks of it and of the pool."""
    rows = []
    for name, begin, end in phases(log):
        inside = [one for one in log.events if begin - 1e-3 <= log.since(one) <= end + 1e-3]

        def most(field: str, inside: Sequence[Event] = inside) -> int | None:
            return max((one[field] for one in inside if field in one), default=None)

        marks = [most(f) for f in ("memory_bytes", "memory_peak_bytes", "device_peak_bytes", "device_allocations")]
        rows.append([name, end - begin, *marks])
    return rows


def _of_run(log: Log) -> list[Bar]:
    """Steps of the thread that leads: reading, features, labels, evaluating, writing."""
    found = []
    for one in log.events:
        if one["event"] in PREPARING and one.get("seconds"):
            end = log.since(one)
            found.append(Bar(MAIN, one["event"], one.get("unit", ""), end - one["seconds"], end))
    found += [Bar(MAIN, n, "", begin, end) for n, begin, end in phases(log) if n in ("evaluation", "write")]
    return found


def _units(log: Log, names: Mapping[tuple[str, str], str]) -> list[Bar]:
    found = []
    for one in log.made:
        end, lane = log.since(one), names[log.place(one)]
        unit = one["unit"].split("/", 1)[-1].strip("/")
        found.append(Bar(lane, one["stage"], unit, end - one["seconds"], end))
    return found


def _is_made(event: Event) -> bool:
    return event["event"] in ("unit", "prepared") and bool(event.get("seconds")) and not event.get("reused")


def _timed(event: Event) -> bool:
    return event["event"] in (*PREPARING, "prepared", "unit")


def _seconds(event: Event) -> float:
    return datetime.datetime.fromisoformat(event["time"]).timestamp()
