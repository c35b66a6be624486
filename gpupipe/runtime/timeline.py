"""Time and memory of a run, read from its log: which thread did what and when, which were idle, what was held."""

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
    """A step of a lane; begin and end in seconds since the run began.

    >>> bar = Bar("thread 1", "linear final", "energy/final/linear", begin=1.5, end=4.0)
    >>> bar.end - bar.begin
    2.5
    """

    lane: str
    stage: str
    unit: str
    begin: float
    end: float


@dataclass(frozen=True)
class Lane:
    """Units and busy seconds of a lane. seconds: from the begin of the first unit to the end of the last.

    >>> Lane("thread 1", units=3, busy_s=6.0, seconds=8.0).idle
    0.25
    """

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
    """The log of one run. events: in the order of the file.

    >>> event = {"event": "stage", "time": "2026-01-02T00:00:05Z", "thread": "MainThread", "stage": "features"}
    >>> log = Log([event], began=_seconds(event) - 5)
    >>> log.since(event), log.place(event), log.computed
    (5.0, ('', 'MainThread'), [])
    """

    events: Sequence[Event]
    began: float  # seconds since the epoch

    def since(self, event: Event) -> float:
        """Seconds from the begin of the run to an event."""
        return _seconds(event) - self.began

    @property
    def computed(self) -> list[Event]:
        """Units that this run computed, not those that it took from the store, and what it prepared for them."""
        return [event for event in self.events if _is_computed(event)]

    def place(self, event: Event) -> tuple[str, str]:
        """Worker and thread of an event; "" for no worker. A thread counts for the worker that it serves."""
        workers = {known["thread"]: known["worker"] for known in self.events if "worker" in known}
        return str(event.get("worker", workers.get(event["thread"], ""))), event["thread"]


def find(events: Iterable[Event], run_key: str) -> Log | None:
    """The last run that computed units of the models with this key: an earlier one may have been stopped."""
    by_run: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_run[event.get("run", "")].append(event)
    runs = [lines for lines in by_run.values() if _computes(lines, run_key)]
    if not runs:
        return None
    last = runs[-1]
    return Log(last, min(_seconds(event) - (event.get("seconds", 0.0) if _timed(event) else 0.0) for event in last))


def _computes(events: Sequence[Event], run_key: str) -> bool:
    """Whether a run has this key and computed any unit."""
    has_key = any(event["event"] == "start" and event.get("run_key") == run_key for event in events)
    return has_key and any(map(_is_computed, events))


def bars(log: Log) -> list[Bar]:
    """Steps of the run itself, then of each worker or thread that computed units, and its idle time between them."""
    drawn = [*_of_run(log)]
    names = lanes(log)
    units = _units(log, names)
    begun = min((unit.begin for unit in units), default=0.0)
    ended = max((unit.end for unit in units), default=0.0)
    for name in dict.fromkeys(names.values()):
        of_lane = sorted((unit for unit in units if unit.lane == name), key=lambda unit: unit.begin)
        drawn += of_lane
        if name == MAIN:
            continue
        at = begun
        for unit in [*of_lane, Bar(name, IDLE, "", ended, ended)]:
            if unit.begin - at > LATE_S:
                drawn.append(Bar(name, IDLE, "nothing to do", at, unit.begin))
            at = max(at, unit.end)
    return drawn


def lanes(log: Log) -> dict[tuple[str, str], str]:
    """What the lane of a (worker, thread) is called."""
    pairs = list(dict.fromkeys(map(log.place, log.computed)))
    workers = list(dict.fromkeys(worker for worker, _ in pairs if worker))
    of_gpu = _gpu_threads(log)
    threads: dict[str, list[str]] = defaultdict(list)
    for worker, thread in pairs:
        if worker or (thread != "MainThread" and thread not in of_gpu):
            threads[worker].append(thread)
    names: dict[tuple[str, str], str] = {}
    for worker, thread in pairs:
        if not worker and thread == "MainThread":
            names[worker, thread] = MAIN
            continue
        if not worker and thread in of_gpu:
            names[worker, thread] = f"GPU {of_gpu.index(thread) + 1}"
            continue
        k = threads[worker].index(thread) + 1
        if not worker:
            names[worker, thread] = f"thread {k}"
        else:
            # Names of workers may be long addresses.
            name = f"worker {workers.index(worker) + 1}" if len(worker) > 12 else f"worker {worker}"
            names[worker, thread] = name if len(threads[worker]) == 1 else f"{name}, thread {k}"
    return names


def _gpu_threads(log: Log) -> list[str]:
    """Threads that only fit on a GPU, of a run whose other threads fit beside it (`task_graph.DEVICE_JOBS`)."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for event in log.computed:
        if event["event"] == "unit" and "worker" not in event:
            kinds[event["thread"]].add(event.get("device", ""))
    on_gpu = [thread for thread, devices in kinds.items() if devices == {"cuda"}]
    return on_gpu if len(on_gpu) < len(kinds) else []


def shares(log: Log) -> list[Lane]:
    """Units and idle share of each worker or thread that computed units beside others; MAIN is left out."""
    units = [unit for unit in _units(log, lanes(log)) if unit.lane != MAIN]
    if not units:
        return []
    span = max(unit.end for unit in units) - min(unit.begin for unit in units)
    by_lane: dict[str, list[Bar]] = defaultdict(list)
    for unit in units:
        by_lane[unit.lane].append(unit)
    return [
        Lane(name, sum(bar.stage not in PREPARED for bar in drawn), sum(bar.end - bar.begin for bar in drawn), span)
        for name, drawn in by_lane.items()
    ]


def idle_by_device(log: Log, jobs: int) -> dict[str, float]:
    """Idle share of each kind of device from the first task to the last: of the GPU, and of `jobs` CPU threads.

    The GPU is idle while no thread has a task there, and busy while one has: also while it only prepares launches.
    Preparation of folds counts for the threads. Empty without tasks.
    """
    timed = [(event, log.since(event) - event["seconds"], log.since(event)) for event in log.computed]
    if not timed:
        return {}
    span = max(end for _, _, end in timed) - min(begin for _, begin, _ in timed)
    on_gpu = [(begin, end) for event, begin, end in timed if event["event"] == "unit" and event.get("device") == "cuda"]
    gpu_s = sum(end - begin for begin, end in _union(on_gpu))
    cpu_s = sum(end - begin for _, begin, end in timed) - sum(end - begin for begin, end in on_gpu)
    return {"cuda": max(0.0, 1 - gpu_s / span), "cpu": max(0.0, 1 - cpu_s / (jobs * span))} if span else {}


def hidden_share(log: Log) -> float:
    """Share of the seconds of preparation in which something was trained as well; NaN where nothing was prepared.

    Preparation: features, labels, and for each fold its rows, digests and bins.
    """
    events = [event for event in log.events if event.get("seconds")]
    timed = [(event, log.since(event) - event["seconds"], log.since(event)) for event in events]
    busy = _union((begin, end) for event, begin, end in timed if event["event"] == "unit" and _is_computed(event))
    spans = [(begin, end) for event, begin, end in timed if event["event"] in ("features", "labels", "prepared")]
    total = sum(end - begin for begin, end in spans)
    beside = sum(max(0.0, min(end, e) - max(begin, b)) for begin, end in spans for b, e in busy)
    return beside / total if total else float("nan")


def _union(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans of time that do not overlap, of spans that may."""
    united: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if united and begin <= united[-1][1]:
            united[-1] = (united[-1][0], max(end, united[-1][1]))
        else:
            united.append((begin, end))
    return united


def phases(log: Log) -> list[tuple[str, float, float]]:
    """(stage, begin, end) in seconds since the start: reading, the stages that the run announced, and writing.

    Writing is what is left of the evaluation's stage once the evaluation's own seconds are over.
    """
    stages = []
    for event in log.events:
        if event["event"] == "read":
            stages.append(("read", log.since(event) - event.get("seconds", 0.0), log.since(event)))
    marks = [event for event in log.events if event["event"] in ("stage", "published", "end")]
    spent = {event.get("stage"): event.get("seconds", 0.0) for event in log.events if event["event"] == "seconds"}
    for event, following in itertools.pairwise(marks):
        if event["event"] != "stage":
            continue
        name, begin, end = event.get("stage", ""), log.since(event), log.since(following)
        if name == "evaluation" and following["event"] == "published":
            evaluated = min(end, begin + spent.get(name, end - begin))
            stages += [(name, begin, evaluated), ("write", evaluated, end)]
        else:
            stages.append((name, begin, end))
    return stages


def held(log: Log) -> list[tuple[str, float, int]]:
    """(name of the measure, seconds since the start, bytes) at every event that has it."""
    kinds = {
        "resident": "memory_bytes", "largest so far": "memory_peak_bytes", "device's pool": "device_bytes",
        "pool's largest so far": "device_peak_bytes",
    }  # fmt: skip
    return [
        (name, round(log.since(event), 3), event[field])
        for name, field in kinds.items() for event in log.events if field in event
    ]  # fmt: skip


def held_by_phase(log: Log) -> list[list[Any]]:
    """For each phase: name, seconds, in bytes the largest resident set seen and the marks of it and of the pool."""
    rows = []
    for name, begin, end in phases(log):
        inside = [event for event in log.events if begin - 1e-3 <= log.since(event) <= end + 1e-3]

        def most(field: str, inside: Sequence[Event] = inside) -> int | None:
            return max((event[field] for event in inside if field in event), default=None)

        marks = [most(f) for f in ("memory_bytes", "memory_peak_bytes", "device_peak_bytes", "device_allocations")]
        rows.append([name, end - begin, *marks])
    return rows


def _of_run(log: Log) -> list[Bar]:
    """Steps of the thread that leads: reading, features, labels, evaluating, writing."""
    steps = []
    for event in log.events:
        if event["event"] in PREPARING and event.get("seconds"):
            end = log.since(event)
            steps.append(Bar(MAIN, event["event"], event.get("unit", ""), end - event["seconds"], end))
    steps += [Bar(MAIN, n, "", begin, end) for n, begin, end in phases(log) if n in ("evaluation", "write")]
    return steps


def _units(log: Log, names: Mapping[tuple[str, str], str]) -> list[Bar]:
    units = []
    for event in log.computed:
        end, lane = log.since(event), names[log.place(event)]
        unit = event["unit"].split("/", 1)[-1].strip("/")
        units.append(Bar(lane, event["stage"], unit, end - event["seconds"], end))
    return units


def _is_computed(event: Event) -> bool:
    return event["event"] in ("unit", "prepared") and bool(event.get("seconds")) and not event.get("reused")


def _timed(event: Event) -> bool:
    return event["event"] in (*PREPARING, "prepared", "unit")


def _seconds(event: Event) -> float:
    return datetime.datetime.fromisoformat(event["time"]).timestamp()
