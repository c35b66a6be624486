"""`gpupipe ingest`: merge a source into a bar store. Safe to kill; ingesting a source twice changes only the log."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import pathlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.data import file_symbols, save, sources, validate
from gpupipe.data.bar_store import Manifest
from gpupipe.data.errors import DataError, printable
from gpupipe.data.ingest import bar_length, parts, sessions
from gpupipe.data.ingest.bar_table import BarTable
from gpupipe.data.ingest.hours import HOUR_NS
from gpupipe.data.ingest.incoming import IncomingBars, SourceOptions, align_incoming, read_incoming
from gpupipe.data.ingest.merge import MergeResult, merge
from gpupipe.data.ingest.report import IngestReport
from gpupipe.data.ingest.restate import REFUSED
from gpupipe.data.ingest.session_keys import Aligned
from gpupipe.data.panel import NS_PER_DAY
from gpupipe.data.report import Finding, counted, time_text
from gpupipe.store.content_store import Store, dump_json, write_atomic

JOURNAL, LAST = "ingest.jsonl", "ingest.json"
_DOUBTFUL = (
    sources.NO_ROWS,
    sources.NO_BARS,
    file_symbols.SAME,
    file_symbols.UNSURE,
    file_symbols.NO_TICKER,
    file_symbols.NO_COLUMN,
)
_CHANGED_OR_DOUBTFUL = (validate.BAD_EXTREME, validate.QUARANTINED[validate.JUMP - 1])  # of values that are stored


@dataclass(frozen=True)
class _Outcome:
    """The tables of one ingest: before, incoming, merged; and the store's manifests before and after."""

    aligned: Aligned
    incoming: IncomingBars
    merged: MergeResult
    manifest: Manifest | None
    planned: parts.StorePlan | None


def ingest(
    source: Any,
    store: str | pathlib.Path,
    options: SourceOptions | None = None,
    *,
    calendar: str | None = None,
    as_of: str | None = None,
    compact: bool = False,
    dry_run: bool = False,
    wait_s: float = 0.0,
) -> IngestReport:
    """Merge the bars of a source into the store and report the outcome.

    source, options: what to read and how, see `incoming.read_incoming`.  store: a folder, created if it does not exist.
    calendar: a name of exchange-calendars, or "none"; None is XNYS if that package is installed.  as_of: the day until
    which bars are expected; None is the day of the newest stored bar.  compact: rewrite every sector as one file.
    dry_run: write nothing.  wait_s: seconds to wait while another ingest holds the store.

    `merge.merge` and `restate.decide` have the rules, `parts` writes the files. Raises UserError and leaves the store
    unchanged if the source cannot be read, the store is in use, or the folder is no store.
    """
    folder = pathlib.Path(store)
    parts.check_folder(folder)
    with contextlib.nullcontext() if dry_run else Store(folder).lock("--store", wait_s):
        manifest = parts.check_folder(folder)
        if not dry_run:
            parts.clean_up(folder)
        stored = parts.read_bars(folder, manifest)
        options = options or SourceOptions()
        incoming = read_incoming(source, stored, options)
        name, _ = _calendar(calendar)
        zone = _zone(calendar, incoming.bars)
        incoming, aligned = align_incoming(incoming, stored, options, name, zone)
        merged = merge(aligned.stored, incoming.bars)
        if manifest is not None and (
            aligned.rekeyed or aligned.doubled
        ):  # the days of all files move: all are written again
            merged = dataclasses.replace(merged, stale_files=frozenset(range(len(manifest.files))))
        planned = parts.plan(merged.bars, manifest, merged.stale_files, compact=compact)
        outcome = _Outcome(aligned, incoming, merged, manifest, planned)
        report = _report(folder, outcome, calendar, as_of, dry_run=dry_run)
        if not dry_run:
            if planned is not None:
                parts.commit(folder, planned, manifest)
            _log(folder, report, incoming)
    return report


def _report(
    folder: pathlib.Path, outcome: _Outcome, calendar: str | None, as_of: str | None, *, dry_run: bool
) -> IngestReport:
    incoming, merged, planned, aligned = outcome.incoming, outcome.merged, outcome.planned, outcome.aligned
    bars, length = merged.bars, bar_length.judge(merged.bars)
    name, no_calendar = _calendar(calendar)
    check = sessions.CalendarCheck()
    if name and (length is None or length.unit in (bar_length.INTRADAY, bar_length.DAY)):
        incoming_names = set(incoming.bars.names)
        touched = frozenset(k for k, symbol in enumerate(bars.names) if symbol in incoming_names)
        first_ns = _touched_from(bars, aligned.stored, incoming.bars)
        check = sessions.check_calendar(bars, touched, first_ns, name, 0.0 if length is None else length.step_ns)
    last_session, stale, newly_stale = _stale(bars, aligned.stored, name, as_of)
    current = planned.manifest if planned is not None else outcome.manifest
    contents = planned.contents if planned is not None else {}
    refused = {change.symbol for change in merged.changes if change.kind == REFUSED}
    return IngestReport(
        store=str(folder),
        source=incoming.report.description,
        dry_run=dry_run,
        generation=current.generation if current is not None else 0,
        changed=planned is not None,
        rows_read=incoming.report.rows_read,
        rows_quarantined=incoming.report.quarantine.num_rows,
        new_bars=merged.new_bars,
        symbols=len(bars.names),
        rows=bars.n_rows,
        first_time=time_text(int(bars.time_ns.min())) if bars.n_rows else "",
        last_time=time_text(int(bars.time_ns.max())) if bars.n_rows else "",
        added=merged.added,
        changes=merged.changes,
        unchecked=merged.unchecked,
        without_sector=incoming.without_sector,
        without_bars=incoming.without_bars,
        calendar=name or no_calendar,
        missing=check.missing,
        closed=check.closed,
        outside=check.outside,
        holes=check.holes,
        silent=check.silent,
        last_session=last_session,
        stale=stale,
        newly_stale=newly_stale,
        files_written=len(contents),
        bytes_written=sum(map(len, contents.values())),
        doubts=(*_doubts(incoming.report.findings), *_twins(aligned.stored.names, incoming.bars.names)),
        all_refused=set(incoming.bars.names) <= refused,
        rekeyed=aligned.rekeyed,
        doubled=aligned.doubled,
        notes=(*incoming.report.notes, *_clock_notes(bars)),
    )


def _doubts(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Sentences on doubtful files, and on values that the store has otherwise than the source, or that may be wrong."""
    sentences = [f"{f.kind} ({f.example})" for f in findings if f.kind in _DOUBTFUL]
    sentences += [
        f"{counted(f.rows, 'row')} {f.action}: {f.kind} ({f.example})" for f in findings
        if f.kind in _CHANGED_OR_DOUBTFUL and f.action != "quarantined"
    ]  # fmt: skip
    return tuple(sentences)


def _twins(stored: Sequence[str], incoming: Sequence[str]) -> list[str]:
    """Sentences on new symbols that differ from stored ones in case, or in how accents are encoded, only."""

    def folded(name: str) -> str:
        return unicodedata.normalize("NFC", name).casefold()

    known = {folded(name): name for name in stored}
    new = sorted({*incoming} - {*stored})
    pairs = [(name, known[folded(name)]) for name in new if folded(name) in known]
    return [printable(f"a new symbol looks like a stored one ({name} and {other})") for name, other in pairs]


def _clock_notes(bars: BarTable) -> list[str]:
    """A note on symbols some of whose bars came without a time zone, so that their clock is UTC."""
    ahead_h = np.abs(bars.clock_ns - bars.time_ns) // HOUR_NS
    if bars.local_ns is None:
        return []
    zoned = np.bincount(bars.symbol, ahead_h > 1, len(bars.names))  # one hour is London in summer
    utc = np.bincount(bars.symbol, ahead_h == 0, len(bars.names))
    both = np.flatnonzero((zoned > 0) & (utc > 0))
    if not len(both):
        return []
    symbols = counted(len(both), "symbol")
    return [
        f"{symbols} ({bars.names[both[0]]} first) have bars with a time zone and bars without: the clock of those is "
        "UTC, so send them again with their zone"
    ]


def _calendar(requested: str | None) -> tuple[str, str]:
    """`(name, "")`, or `("", the reason why there is none)`."""
    if requested is not None and requested.lower() == "none":
        return "", "none"
    if requested is None and not sessions.installed():
        return "", f"none: {sessions.MISSING}"
    return requested or sessions.DEFAULT, ""


def _zone(requested: str | None, incoming: BarTable) -> str | None:
    """The time zone of bars whose source gives none: of the exchange that the user named; None if it is not needed."""
    if requested is None or requested.lower() == "none" or not (incoming.time_ns % NS_PER_DAY).any():
        return None
    return sessions.zone_of(requested)


def _touched_from(bars: BarTable, stored: BarTable, incoming: BarTable) -> np.ndarray:
    """int64 (n_names,): the time from which gaps count; the first incoming bar, or the last stored bar if earlier."""
    first_ns = np.full(len(bars.names), np.iinfo(np.int64).max)
    position = {name: k for k, name in enumerate(bars.names)}
    for name, time_ns in zip(incoming.names, incoming.time_ns[incoming.offsets[:-1]], strict=True):
        if name in position:
            first_ns[position[name]] = time_ns
    for name, time_ns in zip(stored.names, stored.time_ns[stored.offsets[1:] - 1], strict=True):
        if name in position:
            first_ns[position[name]] = min(first_ns[position[name]], time_ns)
    return first_ns


def _stale(
    bars: BarTable, stored: BarTable, calendar: str, as_of: str | None
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """`(last session, symbols without a bar on it, those of them that had one on the last day of the stored bars)`."""
    if not bars.n_rows:
        return "", (), ()
    last_days = _last_days(bars)
    expected = max(last_days.values())
    if as_of is not None:
        try:
            expected = max(expected, np.datetime64(as_of, "D"))
        except ValueError:
            raise DataError(f"--as-of {as_of}: expected a day as 2024-01-31") from None
        if calendar:
            expected = sessions.last_session(calendar, expected)
    stale = tuple(name for name, day in last_days.items() if day < expected)
    stored_days = _last_days(stored)
    stored_expected = max(stored_days.values(), default=expected)
    return str(expected), stale, tuple(name for name in stale if stored_days.get(name) == stored_expected)


def _last_days(bars: BarTable) -> dict[str, np.datetime64]:
    """The session date of the last bar of each symbol."""
    if not bars.n_rows:
        return {}
    last = bars.clock_ns[bars.offsets[1:] - 1].astype("datetime64[ns]").astype("datetime64[D]")
    return dict(zip(bars.names, last, strict=True))


def _log(folder: pathlib.Path, report: IngestReport, incoming: IncomingBars) -> None:
    """Append a line of counts to the journal, and save the last ingest's report, data report and quarantined rows."""
    log = folder / parts.LOG
    save(incoming.report, log)
    content = report.to_json()
    write_atomic(log / LAST, dump_json(content))
    counts = {key: len(value) if isinstance(value, (list, tuple)) else value for key, value in content.items()}
    counts["time"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with (log / JOURNAL).open("a", encoding="utf-8") as journal:
        journal.write(json.dumps(counts, sort_keys=True) + "\n")
