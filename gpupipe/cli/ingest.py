"""The command `gpupipe ingest`."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from gpupipe.runtime.errors import UserError

if TYPE_CHECKING:
    from gpupipe.data.ingest import IngestReport

STORE_ACTIONS = ("clean", "restore", "verify")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `gpupipe ingest`."""
    parser.add_argument(
        "source", nargs="?", help="as --data of gpupipe run; or yfinance:AAPL,MSFT, yfinance:@symbols.csv"
    )  # fmt: skip
    parser.add_argument("--store", required=True, metavar="DIR", help="folder of the store, made if it is not there")
    parser.add_argument("--sector-map", help="CSV with columns symbol and sector, for symbols that are not stored yet")
    parser.add_argument("--timeframe", help="which bars, where the source holds several; yfinance's interval")
    parser.add_argument("--adjusted", action="store_true", help="scale prices by adj_close / close")
    parser.add_argument("--strict", action="store_true", help="whatever validation finds is an error")
    parser.add_argument("--since", metavar="DAY", help="leave out bars before it; from when yfinance is asked")
    parser.add_argument(
        "--calendar", metavar="NAME", help="of exchange-calendars (default XNYS; 24/7 for crypto), or none"
    )  # fmt: skip
    parser.add_argument("--as-of", metavar="DAY", help="until when bars are expected (default: the newest stored)")
    parser.add_argument("--compact", action="store_true", help="write every sector as one file")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done; nothing is written")
    parser.add_argument(
        "--wait", nargs="?", type=float, const=float("inf"), default=0.0, metavar="SECONDS",
        help="where another ingest holds the store, wait for it (so long at most) instead of refusing",
    )  # fmt: skip
    parser.add_argument("--clean", action="store_true", help="remove earlier versions of the store")
    parser.add_argument("--restore", type=int, metavar="N", help="make generation N the current one again")
    parser.add_argument("--verify", action="store_true", help="check the SHA-256 of every file")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--json", action="store_true", help="print the report as JSON, and nothing else")


def run(chosen: argparse.Namespace) -> int:
    """Do what was asked; 0, also with warnings, or 2 if nothing that came was taken. Raises UserError."""
    from gpupipe.cli.console import console
    from gpupipe.data.ingest import SourceOptions, ingest
    from gpupipe.data.ingest.report import FAIL

    to = console(chosen.quiet or chosen.json)
    actions = [name for name in STORE_ACTIONS if getattr(chosen, name) not in (None, False)]
    if len(actions) + (chosen.source is not None) != 1:
        raise UserError("gpupipe ingest: expected a SOURCE or one of --clean, --restore N, --verify")
    if actions:
        return _upkeep(chosen, to)
    options = SourceOptions(chosen.sector_map, chosen.timeframe, chosen.adjusted, chosen.strict, chosen.since)
    report = ingest(
        chosen.source, chosen.store, options, calendar=chosen.calendar,
        as_of=chosen.as_of, compact=chosen.compact, dry_run=chosen.dry_run, wait_s=chosen.wait,
    )  # fmt: skip
    if chosen.json:
        print(json.dumps(report.to_json(), indent=1))
    show(to, report)
    if report.status == FAIL:
        raise UserError(f"nothing of {report.source} was taken: {'; '.join(report.warnings) or 'no bars are left'}")
    return 0


def _upkeep(chosen: argparse.Namespace, to) -> int:
    from gpupipe.data.ingest import clean_store, restore_store, verify_store

    if chosen.verify:
        if problems := verify_store(chosen.store):
            raise UserError(f"{len(problems)} files are not as the manifest says: {problems[0]}")
        to.print(f"{chosen.store}: every file is as the manifest says")
    elif chosen.clean:
        found = clean_store(chosen.store, dry_run=chosen.dry_run)
        word = "would remove" if chosen.dry_run else "removed"
        to.print(
            f"{chosen.store}: {word} {found.generations} earlier versions, {found.files} files, {found.bytes:,} bytes"
        )
    else:
        restored = restore_store(chosen.store, chosen.restore)
        to.print(f"{chosen.store}: generation {chosen.restore} is current again, as {restored.generation}")
    return 0


def show(to, report: IngestReport) -> None:
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
        done = "nothing was written (--dry-run)"
    elif report.changed:
        written = f"{counted(report.files_written, 'file')} of {report.bytes_written:,} bytes"
        done = f"generation {report.generation}, {written}"
    else:
        done = "nothing to do: the store holds these bars"
    to.print(Text(
        f"{report.status}  {report.store}: {counted(report.rows, 'bar')} of {counted(report.symbols, 'symbol')}, "
        f"{report.first_time} to {report.last_time}; {done}"
    ), soft_wrap=True)  # fmt: skip
    if report.warnings:
        to.print(Text(f"      {'; '.join(report.warnings)}"))
