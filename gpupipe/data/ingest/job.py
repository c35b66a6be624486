"""`gpupipe ingest`: a source into a bar store, safe to kill, the same source twice changing nothing but the log."""

from __future__ import annotations

import contextlib
import datetime
import json
import pathlib
from typing import Any

import numpy as np

from gpupipe.data import save
from gpupipe.data.bar_store import Manifest
from gpupipe.data.errors import DataError
from gpupipe.data.ingest import parts, sessions
from gpupipe.data.ingest.arrivals import Arrival, arrive
from gpupipe.data.ingest.merge import Merged, merge
from gpupipe.data.ingest.report import IngestReport
from gpupipe.data.ingest.restate import REFUSED
from gpupipe.data.ingest.rows import Rows
from gpupipe.data.report import time_text
from gpupipe.store.content_store import Store, dump_json, write_atomic

JOURNAL, LAST = "ingest.jsonl", "ingest.json"
_OTHER_BARS = 1.5  # times longer or shorter: bars of another length


def ingest(
    source: Any, store: str | pathlib.Path, *, sector_map: Any = None, timeframe: str | None = None,
    adjusted: bool = False, strict: bool = False, since: str | None = None, calendar: str | None = None,
    as_of: str | None = None, compact: bool = False, dry_run: bool = False, wait_s: float = 0.0,
) -> IngestReport:  # fmt: skip
    """Put the bars of a source into the store, and say what became of them.

    source, sector_map, timeframe, adjusted, strict, since: as for `arrivals.arrive`.  store: a folder, made if it is
    not there.  calendar: of exchange-calendars, or "none"; None is XNYS where that package is installed.
    as_of: the day until which bars are expected; the newest stored bar's if None.  compact: every sector becomes one
    file.  dry_run: nothing is written.  wait_s: how long to wait where another ingest holds the store.

    The rules are those of `merge.merge` and `restate.decide`; the files, of `parts`. Raises UserError where the
    source cannot be read, the store is in use or no store, and leaves everything as it was.
    """
    folder = pathlib.Path(store)
    parts.check_folder(folder)
    with contextlib.nullcontext() if dry_run else Store(folder).lock("--store", wait_s):
        manifest = parts.check_folder(folder)
        if not dry_run:
            parts.tidy(folder)
        stored = parts.read_rows(folder, manifest)
        arrival = arrive(
            source, stored, sector_map=sector_map, timeframe=timeframe, adjusted=adjusted, strict=strict, since=since
        )  # fmt: skip
        _check_bars(stored, arrival.rows)
        merged = merge(stored, arrival.rows)
        planned = parts.plan(merged.rows, manifest, merged.stale_parts, compact=compact)
        report = _report(folder, manifest, stored, arrival, merged, planned, calendar, as_of, dry_run)
        if not dry_run:
            if planned is not None:
                parts.commit(folder, planned, manifest)
            _log(folder, report, arrival)
    return report


def _check_bars(stored: Rows, arrived: Rows) -> None:
    """DataError where the bars that arrive are of another length than those stored: they would be mixed for good."""
    old, new = _spacing_ns(stored), _spacing_ns(arrived)
    if old and new and not 1 / _OTHER_BARS < new / old < _OTHER_BARS:
        raise DataError(
            f"the store holds bars of {_length(old)} and the source bars of {_length(new)}: use another --store, or "
            "choose with --timeframe"
        )


def _spacing_ns(rows: Rows) -> float:
    """The median time between two bars of a symbol, 0 where none has two."""
    steps = np.diff(rows.time_ns)[rows.symbol[1:] == rows.symbol[:-1]]
    return float(np.median(steps)) if len(steps) else 0.0


def _length(step_ns: float) -> str:
    for name, size in (("days", 86_400e9), ("hours", 3_600e9), ("minutes", 60e9)):
        if step_ns >= size:
            return f"{step_ns / size:g} {name}"
    return f"{step_ns / 1e9:g} seconds"


def _report(
    folder: pathlib.Path, manifest: Manifest | None, stored: Rows, arrival: Arrival, merged: Merged,
    planned: parts.Planned | None, calendar: str | None, as_of: str | None, dry_run: bool,
) -> IngestReport:  # fmt: skip
    rows = merged.rows
    name, why = _calendar(calendar)
    gaps = sessions.Gaps()
    if name:
        touched = frozenset(k for k, own in enumerate(rows.names) if own in set(arrival.rows.names))
        gaps = sessions.gaps(rows, touched, _touched_from(rows, stored, arrival.rows), name, _spacing_ns(rows))
    day, stale, newly = _stale(rows, stored, name, as_of)
    current = planned.manifest if planned is not None else manifest
    refused = {change.symbol for change in merged.changes if change.kind == REFUSED}
    contents = planned.contents if planned is not None else {}
    return IngestReport(
        store=str(folder), source=arrival.report.description, dry_run=dry_run,
        generation=current.generation if current is not None else 0, changed=planned is not None,
        rows_read=arrival.report.rows_read, rows_quarantined=arrival.report.quarantine.num_rows,
        new_bars=merged.new_bars, symbols=len(rows.names), rows=rows.n_rows,
        first_time=time_text(int(rows.time_ns.min())) if rows.n_rows else "",
        last_time=time_text(int(rows.time_ns.max())) if rows.n_rows else "",
        added=merged.added, changes=merged.changes, unchecked=merged.unchecked,
        without_sector=arrival.without_sector, without_bars=arrival.without_bars,
        calendar=name or why, missing=gaps.missing, closed=gaps.closed,
        outside=gaps.outside, holes=gaps.holes, silent=gaps.silent,
        last_session=day, stale=stale, newly_stale=newly,
        files_written=len(contents), bytes_written=sum(map(len, contents.values())),
        all_refused=set(arrival.rows.names) <= refused,
    )  # fmt: skip


def _calendar(asked: str | None) -> tuple[str, str]:
    """`(name, "")`, or `("", why there is none)`."""
    if asked is not None and asked.lower() == "none":
        return "", "none"
    if asked is None and not sessions.installed():
        return "", f"none: {sessions.MISSING}"
    return asked or sessions.DEFAULT, ""


def _touched_from(rows: Rows, stored: Rows, arrived: Rows) -> np.ndarray:
    """int64 (n_names,): from when on gaps count: a symbol's first arriving bar, or its last stored if earlier."""
    first = np.full(len(rows.names), np.iinfo(np.int64).max)
    place = {name: k for k, name in enumerate(rows.names)}
    for name, time_ns in zip(arrived.names, arrived.time_ns[arrived.edges[:-1]], strict=True):
        if name in place:
            first[place[name]] = time_ns
    for name, time_ns in zip(stored.names, stored.time_ns[stored.edges[1:] - 1], strict=True):
        if name in place:
            first[place[name]] = min(first[place[name]], time_ns)
    return first


def _stale(rows: Rows, stored: Rows, calendar: str, as_of: str | None) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """`(the last session, symbols without a bar on it, those of them that had one on the stored last day)`."""
    if not rows.n_rows:
        return "", (), ()
    days = _last_days(rows)
    newest = max(days.values())
    if as_of is not None:
        try:
            newest = max(newest, np.datetime64(as_of, "D"))
        except ValueError:
            raise DataError(f"--as-of {as_of}: expected a day as 2024-01-31") from None
        if calendar:
            newest = sessions.last_session(calendar, newest)
    stale = tuple(name for name, day in days.items() if day < newest)
    before = _last_days(stored)
    had = max(before.values(), default=newest)
    return str(newest), stale, tuple(name for name in stale if before.get(name) == had)


def _last_days(rows: Rows) -> dict[str, np.datetime64]:
    """The UTC date of the last bar of each symbol."""
    if not rows.n_rows:
        return {}
    last = rows.time_ns[rows.edges[1:] - 1].astype("datetime64[ns]").astype("datetime64[D]")
    return dict(zip(rows.names, last, strict=True))


def _log(folder: pathlib.Path, report: IngestReport, arrival: Arrival) -> None:
    """One line to the journal, and the whole of the last ingest beside it: report, data report, quarantined rows."""
    place = folder / parts.LOG
    save(arrival.report, place)
    whole = report.to_json()
    write_atomic(place / LAST, dump_json(whole))
    counts = {key: len(value) if isinstance(value, (list, tuple)) else value for key, value in whole.items()}
    counts["time"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with (place / JOURNAL).open("a") as journal:
        journal.write(json.dumps(counts, sort_keys=True) + "\n")
