"""What the report tells of the run itself: time, memory, versions, settings."""

from __future__ import annotations

import datetime
import pathlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from gpupipe import runlog
from gpupipe.report import charts
from gpupipe.report.page import Figure, Section, Table


def time_and_memory(out: pathlib.Path, whole: Mapping[str, Any]) -> Section:
    """Where the time went, and the memory."""
    seconds = [{"stage": name, "seconds": value} for name, value in whole["seconds"].items()]
    text = [
        f"{whole['elapsed_s']:.1f} s with {whole['jobs']} jobs, {whole['rows_per_second']:,.0f} rows a second; at most "
        f"{whole['peak_bytes'] / 2**30:.2f} GiB of memory"
        + (f", {whole['device_peak_bytes'] / 2**30:.2f} GiB of the device's" if whole["device_peak_bytes"] else "")
        + ". Stages that run side by side add up to more than the whole."
    ]
    parts: list[Any] = [Figure("Seconds by stage, of all threads", charts.bars(seconds, "stage", "seconds", "seconds"))]
    if (drawn := _timeline(out, whole["jobs"])) is not None:
        parts.append(drawn)
    crossed = [
        [direction.replace("_", " "), stage, n]
        for direction, by in whole["bus_bytes"].items() for stage, n in by.items()
    ]  # fmt: skip
    if crossed:
        columns = [("direction", False), ("stage", False), ("bytes", True)]
        parts.append(Table("Bytes over the bus", columns, crossed))
    else:
        text.append("Nothing crossed a bus: the device was the CPU.")
    return Section("Time and memory", text, parts)


def _timeline(out: pathlib.Path, jobs: int) -> Figure | None:
    """What the threads of the last run that made anything did, as its log says."""
    if not (out / runlog.FILE).exists():
        return None
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in runlog.read(out / runlog.FILE):
        runs[line["run"]].append(line)
    done = [
        [one for one in lines if one.get("unit") and one.get("seconds") and not one.get("reused")]
        for lines in runs.values()
    ]
    if not any(done):
        return None
    units = [units for units in done if units][-1]
    ends = [datetime.datetime.fromisoformat(one["time"]).timestamp() for one in units]
    first = min(end - one["seconds"] for end, one in zip(ends, units, strict=True))
    threads = {name: f"thread {k}" for k, name in enumerate(dict.fromkeys(one["thread"] for one in units), 1)}
    rows = [
        {"thread": threads[one["thread"]], "stage": one["stage"], "unit": one["unit"].split("/", 1)[-1],
         "begin": round(end - one["seconds"] - first, 3), "end": round(end - first, 3)}
        for end, one in zip(ends, units, strict=True)
    ]  # fmt: skip
    used = sum(row["end"] - row["begin"] for row in rows)
    whole_s = max(row["end"] for row in rows)
    idle = 1 - used / (whole_s * jobs)  # of as many threads as may work at once
    return Figure(
        f"What each thread did when: {len(rows)} units in {whole_s:.1f} s, idle {100 * max(0.0, idle):.0f} % of it",
        charts.timeline(rows),
    )


def about(whole: Mapping[str, Any]) -> Section:
    """Versions and settings."""
    device = whole["device"]
    return Section("Run", [f"Device: {device['kind']}, {device['name']} ({device['reason']})."], [
        Table("Versions", [("what", False), ("version", False)], list(whole["versions"].items()), folded=True),
        Table("Settings", [("key", False), ("value", False)], list(flat(whole["settings"])), folded=True),
        Table("Keys", [("what", False), ("SHA-256", False)], [
            ["run", whole["run_key"]], ["data", whole["data"].get("data_hash", "")]
        ], folded=True),
    ])  # fmt: skip


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Keys such as training.max_bin and their values as text."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)
