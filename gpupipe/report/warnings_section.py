"""All warnings about a run: from its log, its data report, skipped trainings and the last night."""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from gpupipe.report import sentences
from gpupipe.report.page import Section, Table
from gpupipe.report.signals import failed_night_steps


def warnings(out: pathlib.Path, whole: Mapping[str, Any], events: Iterable[Mapping[str, Any]]) -> Section:
    """A table of warnings: source, text, and how often or on how many rows.

    whole: the summary of the run.  events: lines of OUT/run.jsonl; only sessions with the run key of `whole` count.
    """
    log = list(events)
    sessions = {
        event.get("run") for event in log if event["event"] == "start" and event.get("run_key") == whole["run_key"]
    }
    session_events = [event for event in log if event.get("run") in sessions]
    texts = Counter(_text(event) for event in session_events if event["event"] == "warning")
    rows: list[list[Any]] = [["the run", text, n] for text, n in texts.items()]
    for event in session_events:
        if event["event"] == "end" and event.get("status") != "done":
            why = f"an earlier session was {event.get('status')} {event.get('error', '')}".strip()
            rows.append(["the run", why, 1])
        if event["event"] == "end" and event.get("lines_lost"):
            rows.append(["the log", f"{event['lines_lost']} lines could not be written", 1])
    rows += [
        ["the data", f"{finding['kind']}: {finding['action']}, {finding['symbols']:,} symbols, such as "
                     f"{finding['example']}", finding["rows"]]
        for finding in whole["data"].get("findings", ())
    ]  # fmt: skip
    rows += [["training", line, 1] for line in sentences.skip_sentences(whole["skipped"])]
    for origin in whole.get("walk_forward", {}).get("origins", ()):
        rows += [[origin["name"], line, 1] for line in sentences.skip_sentences(origin["skipped"])]
    rows += [[step, detail, 1] for step, detail in failed_night_steps(out)]
    if not sessions:
        text = ["This folder has no log of the run that trained these models, so its warnings are not known."]
    else:
        text = [] if rows else ["No warnings: neither the run nor the data check reported a problem."]
    columns = [("source", False), ("warning", False), ("times, or rows", True)]
    return Section("Warnings", text, [Table(f"{len(rows)} warnings", columns, rows)] if rows else [])


def _text(event: Mapping[str, Any]) -> str:
    where = f" ({event['where']})" if event.get("where") else ""
    return f"{event.get('text', '')}{where}"
