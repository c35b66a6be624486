"""The command `gpupipe ingest`."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpupipe.cli.options import DataRequest, add_max_quarantined, add_no_sector, add_output, add_wait
from gpupipe.runtime.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from gpupipe.data.ingest import IngestReport

CLEAN, RESTORE, VERIFY = "clean", "restore", "verify"


@dataclass(frozen=True)
class IngestRequest:
    """An ingest into a store, or one of the actions that look after the store.

    data: the source, and how it is read; no source with an action.  since: earlier bars are left out.
    action: "" for an ingest, or CLEAN, RESTORE (of `generation`) or VERIFY.  calendar, as_of, compact, dry_run,
    wait_s: see `gpupipe.data.ingest.ingest`.

        >>> IngestRequest("bars", action=RESTORE, generation=12).folder
        'bars'
    """

    store: str
    data: DataRequest = field(default_factory=DataRequest)
    since: str | None = None
    calendar: str | None = None
    as_of: str | None = None
    compact: bool = False
    dry_run: bool = False
    wait_s: float = 0.0
    action: str = ""
    generation: int = 0
    quiet: bool = False
    json: bool = False

    @property
    def folder(self) -> str:
        """The store."""
        return self.store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `gpupipe ingest`."""
    parser.add_argument(
        "source", nargs="?", help="as --data of gpupipe run; or yfinance:AAPL,MSFT, yfinance:@symbols.csv"
    )
    parser.add_argument(
        "--store", required=True, metavar="DIR", help="folder of the store; created if it does not exist"
    )
    parser.add_argument("--sector-map", help="CSV with columns symbol and sector, for symbols that are not stored yet")
    add_no_sector(parser, "symbols of which no sector is known: left out (drop, the default), an error, or in other")
    parser.add_argument("--timeframe", help="which bars, where the source holds several; yfinance's interval")
    parser.add_argument("--adjusted", action="store_true", help="scale by adj_close / close; volumes by its splits")
    parser.add_argument("--strict", action="store_true", help="whatever validation finds is an error")
    add_max_quarantined(parser)
    parser.add_argument("--since", metavar="DAY", help="leave out bars before it; from when yfinance is asked")
    parser.add_argument(
        "--calendar", metavar="NAME", help="of exchange-calendars (default XNYS; 24/7 for crypto), or none"
    )
    parser.add_argument("--as-of", metavar="DAY", help="until when bars are expected (default: the newest stored)")
    parser.add_argument("--compact", action="store_true", help="write every sector as one file")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done; nothing is written")
    add_wait(parser, "another ingest holds the store")
    parser.add_argument("--clean", action="store_true", help="remove earlier versions of the store")
    parser.add_argument("--restore", type=int, metavar="N", help="make generation N the current one again")
    parser.add_argument("--verify", action="store_true", help="check the SHA-256 of every file")
    add_output(parser, "print the report as JSON, and nothing else")


def request_of(chosen: argparse.Namespace) -> IngestRequest:
    """What the options ask for; UserError unless that is a source or one action."""
    actions = [name for name, asked in (
        (CLEAN, chosen.clean), (RESTORE, chosen.restore is not None), (VERIFY, chosen.verify),
    ) if asked]  # fmt: skip
    if len(actions) + (chosen.source is not None) != 1:
        raise UserError("gpupipe ingest: expected a SOURCE or one of --clean, --restore N, --verify")
    return IngestRequest(
        store=chosen.store,
        data=DataRequest(
            source=chosen.source,
            sector_map=chosen.sector_map,
            timeframe=chosen.timeframe,
            adjusted=chosen.adjusted,
            strict=chosen.strict,
            max_quarantined=chosen.max_quarantined,
            no_sector=chosen.no_sector,
        ),
        since=chosen.since,
        calendar=chosen.calendar,
        as_of=chosen.as_of,
        compact=chosen.compact,
        dry_run=chosen.dry_run,
        wait_s=chosen.wait,
        action=actions[0] if actions else "",
        generation=chosen.restore or 0,
        quiet=chosen.quiet,
        json=chosen.json,
    )


def run(request: IngestRequest) -> int:
    """Do what is asked for; 0, also with warnings. Raises UserError, also if nothing that came was taken."""
    from gpupipe.cli.console import console

    to = console(request.quiet or request.json)
    if request.action:
        return _upkeep(request, to)
    report = ingested(request)
    if request.json:
        print(json.dumps(report.to_json(), indent=1))
    show(to, report)
    check_taken(report)
    return 0


def ingested(request: IngestRequest) -> IngestReport:
    """The report of an ingest."""
    from gpupipe.data.ingest import SourceOptions, ingest

    data = request.data
    options = SourceOptions(
        sector_map=data.sector_map,
        timeframe=data.timeframe,
        adjusted=data.adjusted,
        strict=data.strict,
        since=request.since,
        max_quarantined=data.max_quarantined,
        no_sector=data.no_sector or "drop",
    )
    return ingest(
        data.source,
        request.store,
        options,
        calendar=request.calendar,
        as_of=request.as_of,
        compact=request.compact,
        dry_run=request.dry_run,
        wait_s=request.wait_s,
    )


def check_taken(report: IngestReport) -> None:
    """UserError if nothing that came was taken."""
    from gpupipe.data.ingest.report import FAIL

    if report.status == FAIL:
        raise UserError(f"nothing of {report.source} was taken: {'; '.join(report.warnings) or 'no bars are left'}")


def _upkeep(request: IngestRequest, to: Console) -> int:
    from gpupipe.data.ingest import clean_store, restore_store, verify_store

    store = request.store
    if request.action == VERIFY:
        if problems := verify_store(store):
            raise UserError(f"{len(problems)} files are not as the manifest says: {problems[0]}")
        to.print(f"{store}: every file is as the manifest says")
    elif request.action == CLEAN:
        cleaned = clean_store(store, dry_run=request.dry_run)
        word = "would remove" if request.dry_run else "removed"
        to.print(
            f"{store}: {word} {cleaned.generations} earlier versions, {cleaned.files} files, {cleaned.bytes:,} bytes"
        )
    else:
        restored = restore_store(store, request.generation)
        to.print(f"{store}: generation {request.generation} is current again, as {restored.generation}")
    return 0


def show(to: Console, report: IngestReport) -> None:
    """Print what an ingest did."""
    from rich.table import Table
    from rich.text import Text

    from gpupipe.data.ingest.report import lines
    from gpupipe.data.report import counted

    to.print(Text(f"{report.source}: {report.rows_read:,} rows read"))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for what, detail in lines(report):
        table.add_row(what, Text(detail))
    to.print(table)
    if report.dry_run:
        outcome = "nothing was written (--dry-run)"
    elif report.changed:
        written = f"{counted(report.files_written, 'file')} of {report.bytes_written:,} bytes"
        outcome = f"generation {report.generation}, {written}"
    else:
        outcome = "nothing to do: the store holds these bars"
    to.print(Text(
        f"{report.status}  {report.store}: {counted(report.rows, 'bar')} of {counted(report.symbols, 'symbol')}, "
        f"{report.first_time} to {report.last_time}; {outcome}"
    ), soft_wrap=True)  # fmt: skip
    if report.warnings:
        to.print(Text(f"      {'; '.join(report.warnings)}"))
