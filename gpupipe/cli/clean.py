"""The command `gpupipe clean`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass


@dataclass(frozen=True)
class CleanRequest:
    """out: the folder of a run.  dry_run: only say what would be removed.  json: how it is printed.

    >>> CleanRequest("OUT", dry_run=True).folder
    'OUT'
    """

    out: str
    dry_run: bool = False
    json: bool = False

    @property
    def folder(self) -> str:
        """The folder that is cleaned."""
        return self.out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `gpupipe clean`."""
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    parser.add_argument("out", metavar="OUT", help="the --out of a run")
    parser.add_argument("--json", action="store_true", help="print JSON")


def request_of(chosen: argparse.Namespace) -> CleanRequest:
    """What the options ask for."""
    return CleanRequest(chosen.out, chosen.dry_run, chosen.json)


def run(request: CleanRequest) -> int:
    """Remove what nothing refers to, and say what that was."""
    from gpupipe.pipeline import upkeep

    removed = upkeep.clean(request.out, request.dry_run)
    if request.json:
        print(upkeep.as_json(removed))
    else:
        print("would remove" if request.dry_run else "removed", upkeep.text_of(removed))
    return 0
