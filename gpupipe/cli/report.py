"""The command `gpupipe report`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpupipe.runtime.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class ReportRequest:
    """out: a finished run.  other: a run to show beside it, or None.  to: where that comparison is written.

    >>> ReportRequest("OUT", other="OUT2", to="compared.html").folder
    'OUT'
    """

    out: str
    other: str | None = None
    to: str | None = None

    @property
    def folder(self) -> str:
        """Where it writes, unless `to` says another place."""
        return self.out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `gpupipe report`."""
    parser.add_argument("out", metavar="OUT", help="the --out of a finished run")
    parser.add_argument("--compare", metavar="OUT2", help="another run, beside the first: OUT/compared.html")
    parser.add_argument("--to", metavar="FILE", help="with --compare: write the page there")


def request_of(chosen: argparse.Namespace) -> ReportRequest:
    """What the options ask for."""
    if chosen.to is not None and chosen.compare is None:
        raise UserError("--to is for --compare: the report of one run is OUT/report.html")
    return ReportRequest(chosen.out, chosen.compare, chosen.to)


def run(request: ReportRequest) -> int:
    """Write the page, and print where it is."""
    from gpupipe import report

    if request.other is not None:
        print(report.compare(request.out, request.other, request.to))
    else:
        print(report.write(request.out))
    return 0


def write_and_show(out: str, to: Console) -> None:
    """Write the page at the end of a run, and print where it is; or, as the run is complete, what the page needs."""
    from gpupipe import report

    try:
        report.require()
    except UserError as error:
        to.print(f"No report: {error}")
    else:
        to.print(f"Report: {report.write(out)}")
