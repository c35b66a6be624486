"""The command `gpupipe status`."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass

from gpupipe.cli import run as run_command
from gpupipe.cli.job_request import JobRequest, job_request


@dataclass(frozen=True)
class StatusRequest:
    """out: the folder of a run.  job: with data, what this run would do there.

    >>> StatusRequest("OUT", JobRequest(jobs=2)).job.jobs
    2
    """

    out: str
    job: JobRequest

    @property
    def folder(self) -> str:
        """It only looks."""
        return ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `gpupipe status`: OUT, and those of a run."""
    run_command.add_arguments(parser)
    parser.add_argument("of", metavar="OUT", help="the --out of a run; with --data and others: what that run would do")


def request_of(chosen: argparse.Namespace) -> StatusRequest:
    """What the options ask for; the positional OUT is the run's."""
    return StatusRequest(chosen.of, dataclasses.replace(job_request(chosen), out=chosen.of))


def run(request: StatusRequest) -> int:
    """Say which units of OUT are done."""
    from gpupipe.cli import console
    from gpupipe.pipeline import upkeep
    from gpupipe.workloads.equity import EQUITY

    job = request.job
    if job.data.source is None:
        status = upkeep.status(request.out)
    else:
        settings = job.settings()
        panel, _ = job.read(settings, console.console(quiet=True))
        status = upkeep.status(request.out, EQUITY, panel, settings)
    print(upkeep.as_json(status) if job.json else upkeep.text_of(status))
    return 0
