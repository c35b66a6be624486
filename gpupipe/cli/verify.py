"""The command `gpupipe verify`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass


@dataclass(frozen=True)
class VerifyRequest:
    """out: the folder of a run.  json: how it is printed.

    >>> VerifyRequest("OUT").folder
    'OUT'
    """

    out: str
    json: bool = False

    @property
    def folder(self) -> str:
        """The folder that is checked: the same command checks it again."""
        return self.out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `gpupipe verify`."""
    parser.add_argument("out", metavar="OUT", help="the --out of a run")
    parser.add_argument("--json", action="store_true", help="print JSON")


def request_of(chosen: argparse.Namespace) -> VerifyRequest:
    """What the options ask for."""
    return VerifyRequest(chosen.out, chosen.json)


def run(request: VerifyRequest) -> int:
    """Recompute every checksum; 1 if something is not as it was written."""
    from gpupipe.pipeline import upkeep

    verified = upkeep.verify(request.out)
    print(upkeep.as_json(verified) if request.json else upkeep.text_of(verified))
    return int(bool(verified.wrong))
