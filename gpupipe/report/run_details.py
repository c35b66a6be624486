"""Sections on the run itself: time, memory, bus traffic, devices, versions, settings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gpupipe.artifacts import summary
from gpupipe.report import charts
from gpupipe.report.page import Figure, Section, Table
from gpupipe.runtime import timeline

GIB = 2**30


def time_and_memory(whole: Mapping[str, Any], log: timeline.Log | None) -> Section:
    """Seconds by stage, the timeline of all threads, memory, and bytes over the bus.

    whole: the summary of the run.  log: the log of the run that wrote OUT, None where there is none.
    """
    seconds = [{"stage": name, "seconds": value} for name, value in whole["seconds"].items()]
    text = [
        f"{whole['elapsed_s']:.1f} s, {whole['jobs']} parallel jobs, {whole['rows_per_second']:,.0f} rows a second, "
        f"peak memory {whole['peak_bytes'] / GIB:.2f} GiB"
        + (f", on the device {whole['device_peak_bytes'] / GIB:.2f} GiB" if whole["device_peak_bytes"] else "")
        + ". Seconds by stage are summed over threads, so they can add up to more than the elapsed time."
    ]
    parts: list[Any] = [
        Figure("Seconds by stage, summed over all threads", charts.bars(seconds, "stage", "seconds", "seconds"))
    ]
    if log is None:
        text.append("There is no timeline: this folder has no log of the tasks that trained these models.")
    else:
        timeline_parts, timeline_text = _timeline(log, whole["jobs"])
        parts += [*timeline_parts, *_memory(log)]
        text += timeline_text
    bus_parts, bus_text = _bus(whole["bus_bytes"], whole.get("placement"))
    placed_parts, placed_text = _placement(whole.get("placement"))
    return Section(
        "Time and memory", [*text, *placed_text, *bus_text], [*parts, *placed_parts, *bus_parts]
    )  # fmt: skip


def _placement(placement: Mapping[str, Any] | None) -> tuple[list[Any], list[str]]:
    """What ran where and why, of a run with a GPU."""
    if placement is None:
        return [], []
    columns = [("stage", False), ("device", False), ("why", False), ("expected on the GPU, s", True),
               ("expected on all threads, s", True), ("its tasks took, s", True)]  # fmt: skip
    rows = [
        [name, stage["device"], stage["reason"], stage["expected_s"].get("cuda"), stage["expected_s"].get("cpu"),
         stage["took_s"]]
        for name, stage in placement["stages"].items()
    ]  # fmt: skip
    rates = placement["rates"]
    known = (
        f"Expected times are of rates that were measured on {rates['when'][:10]}."
        if set(rates["measured"]) >= {"cpu", "cuda"}
        else "Expected times are of rates that are estimates: gpupipe doctor --measure measures those of this machine."
    )
    text = f"{summary.placement_sentence(placement)}. {known}"
    return [Table("Where each stage ran", columns, rows)], [text]


def _timeline(log: timeline.Log, jobs: int) -> tuple[list[Any], list[str]]:
    bars = [{**asdict(bar), "begin": round(bar.begin, 2), "end": round(bar.end, 2)} for bar in timeline.bars(log)]
    names = list(dict.fromkeys(bar["lane"] for bar in bars))
    parts: list[Any] = [
        Figure("Timeline of each thread or worker; grey: idle between the first task and the last",
               charts.timeline(bars, names)),
    ]  # fmt: skip
    lanes = timeline.shares(log)
    if not lanes:
        return parts, []
    columns = [("thread or worker", False), ("tasks", True), ("busy, s", True), ("idle, %", True)]
    rows = [[lane.name, lane.units, lane.busy_s, 100 * lane.idle] for lane in lanes]
    span = lanes[0].seconds
    # Threads that never ran a task were idle too.
    n = max(len(lanes), jobs)
    idle = max(0.0, 1 - sum(lane.busy_s for lane in lanes) / (n * span)) if span else 0.0
    text = [
        f"{sum(lane.units for lane in lanes):,} tasks ran in {span:.1f} s on {n} threads or workers, which were idle "
        f"for {100 * idle:.1f} % of that time."
    ]
    overlap = timeline.hidden_share(log)
    if overlap == overlap:  # NaN without any preparation
        text.append(
            f"{100 * overlap:.0f} % of the preparation (features, labels, rows and bins of each fold) overlapped with "
            "training."
        )
    return [*parts, Table("Idle share", columns, rows, digits=1)], text


def _memory(log: timeline.Log) -> list[Any]:
    rows = [{"what": what, "seconds": at, "gib": n / GIB} for what, at, n in timeline.held(log)]
    if not rows:
        return []
    columns = [("stage", False), ("seconds", True), ("resident, GiB", True), ("peak so far, GiB", True),
               ("peak of the device's pool, GiB", True), ("allocations in the pool", True)]  # fmt: skip
    table: list[list[Any]] = [
        [name, seconds, *(None if n is None else n / GIB for n in marks[:3]), marks[3]]
        for name, seconds, *marks in timeline.held_by_phase(log)
    ]
    if all(row[4] is None for row in table):  # no device, or no pool that counts
        columns, table = columns[:4], [row[:4] for row in table]
    return [
        Figure("Memory of the main process after each step, from its log", charts.memory(rows)),
        Table("Memory by stage: the largest value logged in the stage, and peaks since the start", columns, table),
    ]


def _bus(
    bus_bytes: Mapping[str, Mapping[str, int]], placement: Mapping[str, Any] | None
) -> tuple[list[Any], list[str]]:
    stages = list(dict.fromkeys(stage for by_stage in bus_bytes.values() for stage in by_stage))
    if not stages:
        return [], ["Nothing crossed a bus: the device was the CPU."]
    columns = [("stage", False), ("to the device, MiB", True), ("to the host, MiB", True)]
    rows: list[list[Any]] = [
        [stage or "outside of stages", *(bus_bytes[way].get(stage, 0) / 2**20 for way in ("to_device", "to_host"))]
        for stage in stages
    ]
    rows.append(["all", *(sum(row[k] for row in rows) for k in (1, 2))])
    text = []
    if placement is not None and placement["bus"]["share"] is not None:
        text = [f"At the measured rate these copies take {100 * placement['bus']['share']:.2f} % of the run's time."]
    return [Table("Bytes over the bus", columns, rows)], text


def run_section(whole: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Section:
    """Devices, versions, settings and keys of a run.  whole: its summary.  events: lines of OUT/run.jsonl."""
    device = whole["device"]
    parts: list[Any] = [
        Table("Versions", [("package", False), ("version", False)], list(whole["versions"].items())),
        Table("Settings", [("key", False), ("value", False)], list(flat(whole["settings"])), folded=True),
        Table("Keys", [("key of", False), ("SHA-256", False)], [
            ["run", whole["run_key"]], ["data", whole["data"].get("data_hash", "")]
        ], folded=True),
    ]  # fmt: skip
    if rows := _tasks_by_device(whole["run_key"], events):
        columns = [("stage", False), ("device", False), ("tasks computed", True), ("reused from the store", True),
                   ("seconds", True)]  # fmt: skip
        parts.insert(0, Table("Tasks by stage and device, over all sessions of this run", columns, rows))
    return Section("Run", [f"Device: {device['kind']}, {device['name']} ({device['reason']})."], parts)


def _tasks_by_device(run_key: str, events: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    sessions = {event.get("run") for event in events if event["event"] == "start" and event.get("run_key") == run_key}
    totals: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0, 0.0])
    for event in events:
        if event.get("run") in sessions and event["event"] in ("features", "labels", "prepared", "unit"):
            counts = totals[event.get("stage", ""), event.get("device", "")]
            counts[1 if event.get("reused") else 0] += 1
            counts[2] += event.get("seconds", 0.0)
    return [[stage, device, *counts] for (stage, device), counts in totals.items()]


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Nested settings as pairs of a dotted key, such as training.max_bin, and the value as text."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)
