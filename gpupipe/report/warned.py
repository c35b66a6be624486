"""Every warning of a run: what its log, its data report and the last night say."""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from gpupipe.report import sentences
from gpupipe.report.page import Section, Table
from gpupipe.report.signals import of_night


def warnings(out: pathlib.Path, whole: Mapping[str, Any], events: Iterable[Mapping[str, Any]]) -> Section:
    """Warnings of all sessions that made these models, of the data, of what was not trained, and of the night."""
    lines = list(events)
    runs = {one.get("run") for one in lines if one["event"] == "start" and one.get("run_key") == whole["run_key"]}
    own = [one for one in lines if one.get("run") in runs]
    told = Counter(_told(one) for one in own if one["event"] == "warning")
    found: list[list[Any]] = [["the run", text, n] for text, n in told.items()]
    for one in own:
        if one["event"] == "end" and one.get("status") != "done":
            found.append(["the run", f"a session before was {one.get('status')} {one.get('error', '')}".strip(), 1])
        if one["event"] == "end" and one.get("lines_lost"):
            found.append(["the log", f"{one['lines_lost']} lines could not be written", 1])
    found += [
        ["the data", f"{one['kind']}: {one['action']}, {one['symbols']:,} symbols, as {one['example']}", one["rows"]]
        for one in whole["data"].get("findings", ())
    ]  # fmt: skip
    found += [["training", line, 1] for line in sentences.skip_sentences(whole["skipped"])]
    for origin in whole.get("walk_forward", {}).get("origins", ()):
        found += [[origin["name"], line, 1] for line in sentences.skip_sentences(origin["skipped"])]
    found += [[what, text, 1] for what, text in of_night(out)]
    if not runs:
        text = ["The log of these models' run is not here: what it warned of is not known."]
    else:
        text = [] if found else ["None: neither the run nor the data gave reason."]
    columns = [("of", False), ("warning", False), ("times, or rows", True)]
    return Section("Warnings", text, [Table(f"{len(found)} warnings", columns, found)] if found else [])


def _told(event: Mapping[str, Any]) -> str:
    where = f" ({event['where']})" if event.get("where") else ""
    return f"{event.get('text', '')}{where}"
