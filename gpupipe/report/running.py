"""What the report tells of the run itself: time, memory, versions, settings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gpupipe.report import charts
from gpupipe.report.page import Figure, Section, Table
from gpupipe.runtime import timeline

GIB = 2**30


def time_and_memory(whole: Mapping[str, Any], log: timeline.Log | None) -> Section:
    """Where the time went, who worked when, what was held, and what crossed the bus. log: of the run that made OUT."""
    seconds = [{"stage": name, "seconds": value} for name, value in whole["seconds"].items()]
    text = [
        f"{whole['elapsed_s']:.1f} s with {whole['jobs']} jobs, {whole['rows_per_second']:,.0f} rows a second; at most "
        f"{whole['peak_bytes'] / GIB:.2f} GiB of memory"
        + (f", {whole['device_peak_bytes'] / GIB:.2f} GiB of the device's" if whole["device_peak_bytes"] else "")
        + ". Stages that run side by side add up to more than the whole."
    ]
    parts: list[Any] = [Figure("Seconds by stage, of all threads", charts.bars(seconds, "stage", "seconds", "seconds"))]
    if log is None:
        text.append("No log here tells of units that were made for these models, so there is no timeline.")
    else:
        drawn, said = _timeline(log, whole["jobs"])
        parts += [*drawn, *_memory(log)]
        text += said
    crossed, said = _bus(whole["bus_bytes"])
    return Section("Time and memory", [*text, *said], [*parts, *crossed])


def _timeline(log: timeline.Log, jobs: int) -> tuple[list[Any], list[str]]:
    drawn = [{**asdict(bar), "begin": round(bar.begin, 2), "end": round(bar.end, 2)} for bar in timeline.bars(log)]
    names = list(dict.fromkeys(row["lane"] for row in drawn))
    parts: list[Any] = [
        Figure("What each thread or worker did when; grey: idle, between the first unit and the last",
               charts.timeline(drawn, names)),
    ]  # fmt: skip
    lanes = timeline.shares(log)
    if not lanes:
        return parts, []
    columns = [("thread or worker", False), ("units", True), ("busy, s", True), ("idle, %", True)]
    rows = [[lane.name, lane.units, lane.busy_s, 100 * lane.idle] for lane in lanes]
    span = lanes[0].seconds
    # Threads that never had a unit were idle too.
    n = max(len(lanes), jobs)
    idle = max(0.0, 1 - sum(lane.busy_s for lane in lanes) / (n * span)) if span else 0.0
    text = [
        f"{sum(lane.units for lane in lanes):,} units were made in {span:.1f} s by {n} at a time, which were idle for "
        f"{100 * idle:.1f} % of it.",
        f"Of the preparation (features, labels, each fold's rows and bins) {100 * timeline.hidden_share(log):.0f} % "
        "happened while something was trained.",
    ]
    return [*parts, Table("Idle share", columns, rows, digits=1)], text


def _memory(log: timeline.Log) -> list[Any]:
    rows = [{"what": what, "seconds": at, "gib": n / GIB} for what, at, n in timeline.held(log)]
    if not rows:
        return []
    columns = [("stage", False), ("seconds", True), ("resident, GiB", True), ("largest so far, GiB", True),
               ("largest of the device's pool, GiB", True), ("allocations in the pool", True)]  # fmt: skip
    table: list[list[Any]] = [
        [name, seconds, *(None if n is None else n / GIB for n in marks[:3]), marks[3]]
        for name, seconds, *marks in timeline.held_by_phase(log)
    ]
    if all(row[4] is None for row in table):  # no device, or no pool that counts
        columns, table = columns[:4], [row[:4] for row in table]
    return [
        Figure("Memory held by the process that leads the run, as its log saw it after each step", charts.memory(rows)),
        Table("Memory by stage, as seen in it and at its end", columns, table),
    ]


def _bus(crossed: Mapping[str, Mapping[str, int]]) -> tuple[list[Any], list[str]]:
    stages = list(dict.fromkeys(stage for by in crossed.values() for stage in by))
    if not stages:
        return [], ["Nothing crossed a bus: the device was the CPU."]
    columns = [("stage", False), ("to the device, MiB", True), ("to the host, MiB", True)]
    rows: list[list[Any]] = [
        [stage or "outside of stages", *(crossed[way].get(stage, 0) / 2**20 for way in ("to_device", "to_host"))]
        for stage in stages
    ]
    rows.append(["all", *(sum(row[k] for row in rows) for k in (1, 2))])
    return [Table("Bytes over the bus", columns, rows)], []


def about(whole: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Section:
    """Devices, versions and settings."""
    device = whole["device"]
    parts: list[Any] = [
        Table("Versions", [("what", False), ("version", False)], list(whole["versions"].items())),
        Table("Settings", [("key", False), ("value", False)], list(flat(whole["settings"])), folded=True),
        Table("Keys", [("what", False), ("SHA-256", False)], [
            ["run", whole["run_key"]], ["data", whole["data"].get("data_hash", "")]
        ], folded=True),
    ]  # fmt: skip
    if where := _where(whole["run_key"], events):
        columns = [("stage", False), ("device", False), ("units made", True), ("taken from the store", True),
                   ("seconds", True)]  # fmt: skip
        parts.insert(0, Table("What ran on which device, all sessions of this run", columns, where))
    return Section("Run", [f"Device: {device['kind']}, {device['name']} ({device['reason']})."], parts)


def _where(run_key: str, events: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    runs = {one.get("run") for one in events if one["event"] == "start" and one.get("run_key") == run_key}
    made: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0, 0.0])
    for one in events:
        if one.get("run") in runs and one["event"] in ("features", "labels", "prepared", "unit"):
            counts = made[one.get("stage", ""), one.get("device", "")]
            counts[1 if one.get("reused") else 0] += 1
            counts[2] += one.get("seconds", 0.0)
    return [[stage, device, *counts] for (stage, device), counts in made.items()]


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Keys such as training.max_bin and their values as text."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)
