"""IngestReport: the outcome of an ingest, as JSON and as lines for the console."""

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
    """The outcome of an ingest.

    store: folder.  source: a sentence that names the data.  dry_run: whether nothing was written.
    generation: of the store afterwards; changed: whether it is a new one.
    rows_read, rows_quarantined: of the source, see its data report.  new_bars: bars that were not stored before.
    symbols, rows, first_time, last_time (ISO 8601): of the store afterwards.
    added: new symbols.  changes: restated, revised, kept, replaced, refused and moved symbols, and possible splits.
    unchecked: symbols with new bars but no overlapping bar, so that a restatement would not be detected.
    without_sector: symbols dropped because no sector is known.  without_bars: symbols for which Yahoo sent no bars.
    doubts: files that were skipped, doubtful symbols of files, and repaired or doubtful prices, as sentences.
    calendar: its name, or the reason why there is none.  missing: (symbol, day), sessions without a bar in the time
    range that this ingest touched.  closed: days with bars on which the exchange was closed.
    outside, holes, silent: of intraday bars, see `hours.HoursCheck`.
    stale: symbols without a bar on last_session; newly_stale: those whose last bar was on the store's last day before
    this ingest.  last_session: the day on which bars are expected, "" if nothing is stored.
    files_written, bytes_written: new files of this generation.  all_refused: whether no symbol was accepted.
    notes: on the source, of its data report.  rekeyed, doubled: stored bars of an earlier version that were brought to
    their session date, and that were removed because their day stood there twice, see `session_keys`.

    >>> from gpupipe.data.ingest import ingest
    >>> report = ingest("simulated:symbols=2,bars=3,seed=1", "no-such-folder", calendar="none", dry_run=True)
    >>> report.new_bars, report.added, report.status
    (6, ('SIM0000', 'SIM0001'), 'OK')
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
    doubts: tuple[str, ...] = ()
    outside: tuple[tuple[str, str, int], ...] = ()
    holes: tuple[tuple[str, str, int], ...] = ()
    silent: tuple[tuple[str, int], ...] = ()
    rekeyed: int = 0
    doubled: int = 0
    notes: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Short sentences on what a person should check."""
        by_kind = Counter(change.kind for change in self.changes)
        sentences = [f"{counted(by_kind[kind], 'symbol')} {kind}" for kind in _DOUBTFUL if by_kind[kind]]
        if self.rows_quarantined:
            sentences.insert(0, f"{counted(self.rows_quarantined, 'row')} quarantined")
        if self.without_sector:
            sentences.append(f"{counted(len(self.without_sector), 'symbol')} without a sector left out")
        if self.without_bars:
            sentences.append(f"no bars came for {counted(len(self.without_bars), 'symbol')}")
        sentences += self.doubts
        if self.missing:
            sentences.append(f"{counted(len(self.missing), 'session')} without a bar")
        if self.closed:
            sentences.append(f"bars on {counted(len(self.closed), 'day')} when {self.calendar} was closed")
        if self.outside:
            sentences.append(f"{counted(_n_bars(self.outside), 'bar')} outside the hours of {self.calendar}")
        if self.silent:
            sentences.append(f"{counted(_n_bars(self.silent), 'time')} in sessions at which no symbol has a bar")
        if self.newly_stale:
            sentences.append(f"{counted(len(self.newly_stale), 'symbol')} newly stale")
        return tuple(sentences)

    @property
    def status(self) -> str:
        """FAIL if no incoming bar was accepted, WARN if there are warnings, else OK."""
        if self.all_refused:
            return FAIL
        return WARN if self.warnings else OK

    def to_json(self) -> dict[str, Any]:
        """All fields, the status and the warnings."""
        return {**dataclasses.asdict(self), "status": self.status, "warnings": list(self.warnings)}


def lines(report: IngestReport) -> list[tuple[str, str]]:
    """Format a report for the console: `(heading, detail)` of each part that is not empty."""
    formatted = [("note", note) for note in report.notes]
    formatted.append(("new bars", f"{report.new_bars:,}"))
    if report.added:
        formatted.append(("symbols added", _listed(report.added)))
    if report.rekeyed or report.doubled:
        detail = f"{counted(report.rekeyed, 'stored bar')} of an earlier version got the date of the session"
        doubled = f"; {counted(report.doubled, 'bar')} of days that stood there twice were removed"
        formatted.append(("session dates", detail + (doubled if report.doubled else "")))
    formatted += _change_lines(report.changes)
    if report.without_sector:
        formatted.append(
            ("no sector", f"{_listed(report.without_sector)}: left out, give --sector-map, or --no-sector other")
        )
    if report.without_bars:
        formatted.append(("no bars", _listed(report.without_bars)))
    if report.unchecked:
        detail = f"{_listed(report.unchecked)}: no bar overlaps, a restatement would not be detected"
        formatted.append(("not checked", detail))
    formatted.append(("calendar", report.calendar))
    formatted += _missing_lines(report.missing)
    if report.closed:
        formatted.append(("closed days", f"{_listed(report.closed)}: is --calendar right (24/7 for crypto)?"))
    for heading, counts, days in (("outside hours", report.outside, "on"), ("holes", report.holes, "in sessions of")):
        if counts:
            largest_first = sorted(counts, key=lambda count: -count[2])
            shown = _listed([f"{symbol} {day} {n:,}" for symbol, day, n in largest_first])
            formatted.append((heading, f"{counted(_n_bars(counts), 'bar')} {days} {_extent(counts)}: {shown}"))
    if report.silent:
        formatted.append(("silent", _listed([f"{counted(n, 'bar')} from {moment}" for moment, n in report.silent])))
    if report.stale:
        detail = f"{_listed(report.stale)}: no bar on {report.last_session}"
        if report.newly_stale:
            detail += f"; newly stale {_listed(report.newly_stale)}"
        formatted.append(("stale", detail))
    return formatted


def _change_lines(changes: Iterable[Change]) -> list[tuple[str, str]]:
    by_kind: dict[str, list[Change]] = {}
    for change in changes:
        by_kind.setdefault(change.kind, []).append(change)
    formatted = []
    for kind, same_kind in by_kind.items():
        for change in same_kind[:_SHOWN]:
            factor = f"by {change.factor:.6g}" if change.factor is not None else ""
            since = f"before {change.since}" if change.since else ""
            subject = " ".join(word for word in (change.symbol, factor, since) if word)
            formatted.append((kind, f"{subject}: {change.detail}"))
        if len(same_kind) > _SHOWN:
            formatted.append((kind, f"and {len(same_kind) - _SHOWN} more"))
    return formatted


def _missing_lines(missing: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    symbols_of_day: dict[str, list[str]] = {}
    for symbol, day in missing:
        symbols_of_day.setdefault(day, []).append(symbol)
    days = sorted(symbols_of_day)
    formatted = [("missing", f"{day}: {_listed(symbols_of_day[day])}") for day in days[:_SHOWN]]
    if len(days) > _SHOWN:
        formatted.append(("missing", f"and on {counted(len(days) - _SHOWN, 'more day')}"))
    return formatted


def _n_bars(counts: Iterable[tuple[Any, ...]]) -> int:
    return sum(count[-1] for count in counts)


def _extent(counts: Iterable[tuple[str, str, int]]) -> str:
    days, symbols = {day for _, day, _ in counts}, {symbol for symbol, _, _ in counts}
    return f"{counted(len(days), 'day')}, {counted(len(symbols), 'symbol')}"


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
