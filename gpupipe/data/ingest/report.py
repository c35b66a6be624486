"""IngestReport: what an ingest did, as JSON and as lines for people."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gpupipe.data.ingest import restate
from gpupipe.data.ingest.merge import Change
from gpupipe.data.report import counted

OK, WARN, FAIL = "OK", "WARN", "FAIL"
_SHOWN = 5  # symbols or days in a line
_DOUBTFUL = ("looks like a split", restate.REFUSED, restate.REPLACED)


@dataclass(frozen=True)
class IngestReport:
    """What an ingest found and did.

    store, source: folder, and a sentence on what was read.  dry_run: nothing was written.  generation: of the store
    afterwards; changed: whether it is a new one.  rows_read, rows_quarantined: of the source, see its data report.
    new_bars: bars that were not stored.  symbols, rows: in the store afterwards.  first_time, last_time: of the
    store, ISO 8601.  added: new symbols.  changes: restated, revised, replaced, refused, moved symbols.  unchecked:
    symbols with new bars and none that overlaps, of which a restatement would not have been seen.
    without_sector: symbols left out for want of one.  without_bars: asked for, and nothing came.
    calendar: its name, or why there is none.  missing: (symbol, day) of sessions without a bar, in the time that this
    ingest touched.  closed: days with bars on which the exchange was closed.  outside, holes, silent: of bars
    within a day, as of `hours.Within`.  stale: symbols without a bar on the
    last session; newly_stale: those that had one on their last session before this ingest.
    last_session: the day that stale is judged by, "" if nothing is stored.
    files_written, bytes_written: new files of this generation.
    """

    store: str
    source: str
    dry_run: bool
    generation: int
    changed: bool
    rows_read: int
    rows_quarantined: int
    new_bars: int
    symbols: int
    rows: int
    first_time: str
    last_time: str
    added: tuple[str, ...]
    changes: tuple[Change, ...]
    unchecked: tuple[str, ...]
    without_sector: tuple[str, ...]
    without_bars: tuple[str, ...]
    calendar: str
    missing: tuple[tuple[str, str], ...]
    closed: tuple[str, ...]
    last_session: str
    stale: tuple[str, ...]
    newly_stale: tuple[str, ...]
    files_written: int
    bytes_written: int
    all_refused: bool = False
    outside: tuple[tuple[str, str, int], ...] = ()
    holes: tuple[tuple[str, str, int], ...] = ()
    silent: tuple[tuple[str, int], ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should look at, a short sentence each."""
        found = []
        if self.rows_quarantined:
            found.append(f"{counted(self.rows_quarantined, 'row')} quarantined")
        by_kind = Counter(change.kind for change in self.changes)
        found += [f"{counted(by_kind[kind], 'symbol')} {kind}" for kind in _DOUBTFUL if by_kind[kind]]
        if self.without_sector:
            found.append(f"{counted(len(self.without_sector), 'symbol')} without a sector left out")
        if self.without_bars:
            found.append(f"no bars came for {counted(len(self.without_bars), 'symbol')}")
        if self.missing:
            found.append(f"{counted(len(self.missing), 'session')} without a bar")
        if self.closed:
            found.append(f"bars on {counted(len(self.closed), 'day')} when {self.calendar} was closed")
        if self.outside:
            found.append(f"{counted(_bars(self.outside), 'bar')} outside of the hours of {self.calendar}")
        if self.silent:
            found.append(f"{counted(_bars(self.silent), 'time')} within sessions of which no symbol has a bar")
        if self.newly_stale:
            found.append(f"{counted(len(self.newly_stale), 'symbol')} newly stale")
        return tuple(found)

    @property
    def status(self) -> str:
        """FAIL where nothing that came was taken, WARN where a person should look, else OK."""
        if self.all_refused:
            return FAIL
        return WARN if self.warnings else OK

    def to_json(self) -> dict[str, Any]:
        """All fields, the status and the warnings."""
        return {**dataclasses.asdict(self), "status": self.status, "warnings": list(self.warnings)}


def lines(report: IngestReport) -> list[tuple[str, str]]:
    """`(what, detail)` for display, only of what there is."""
    by_kind: dict[str, list[Change]] = {}
    for change in report.changes:
        by_kind.setdefault(change.kind, []).append(change)
    found = [("new bars", f"{report.new_bars:,}")]
    if report.added:
        found.append(("symbols added", _listed(report.added)))
    for kind, changes in by_kind.items():
        for change in changes[:_SHOWN]:
            factor = f"by {change.factor:.6g}" if change.factor is not None else ""
            since = f"before {change.since}" if change.since else ""
            about = " ".join(word for word in (change.symbol, factor, since) if word)
            found.append((kind, f"{about}: {change.detail}"))
        if len(changes) > _SHOWN:
            found.append((kind, f"and {len(changes) - _SHOWN} more"))
    if report.without_sector:
        found.append(("no sector", f"{_listed(report.without_sector)}: left out, give --sector-map"))
    if report.without_bars:
        found.append(("no bars", _listed(report.without_bars)))
    if report.unchecked:
        found.append(("not checked", f"{_listed(report.unchecked)}: no bar overlaps, a restatement would not be seen"))
    found.append(("calendar", report.calendar))
    if report.missing:
        found += _missing(report.missing)
    if report.closed:
        found.append(("closed days", f"{_listed(report.closed)}: is --calendar right (24/7 for crypto)?"))
    for what, counts, days in (("outside hours", report.outside, "on"), ("holes", report.holes, "in sessions of")):
        if counts:
            most = sorted(counts, key=lambda one: -one[2])
            shown = _listed([f"{symbol} {day} {n:,}" for symbol, day, n in most])
            found.append((what, f"{counted(_bars(counts), 'bar')} {days} {_of(counts)}: {shown}"))
    if report.silent:
        found.append(("silent", _listed([f"{counted(n, 'bar')} from {moment}" for moment, n in report.silent])))
    if report.stale:
        detail = f"{_listed(report.stale)}: no bar on {report.last_session}"
        if report.newly_stale:
            detail += f"; new among them {_listed(report.newly_stale)}"
        found.append(("stale", detail))
    return found


def _missing(missing: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    days = Counter(day for _, day in missing)
    found = []
    for day in sorted(days)[:_SHOWN]:
        found.append(("missing", f"{day}: {_listed([symbol for symbol, own in missing if own == day])}"))
    if len(days) > _SHOWN:
        found.append(("missing", f"and on {counted(len(days) - _SHOWN, 'more day')}"))
    return found


def _bars(counts: Iterable[tuple[Any, ...]]) -> int:
    return sum(one[-1] for one in counts)


def _of(counts: Iterable[tuple[str, str, int]]) -> str:
    days, symbols = {day for _, day, _ in counts}, {symbol for symbol, _, _ in counts}
    return f"{counted(len(days), 'day')}, {counted(len(symbols), 'symbol')}"


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
