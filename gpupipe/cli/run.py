"""The job: `python -m gpupipe.run --sectors all`, which is `gpupipe run --sectors all`."""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpupipe.cli import cluster_request
from gpupipe.cli.cluster_request import ClusterRequest
from gpupipe.cli.guard import entry, perform
from gpupipe.cli.job_request import ALL_WORKERS, JobRequest, add_job_arguments, job_request
from gpupipe.cli.tune import SearchRequest, add_accept
from gpupipe.runtime.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from gpupipe.config import Config
    from gpupipe.data import DataReport
    from gpupipe.data.panel import Panel
    from gpupipe.pipeline.tune_job import Wanted


@dataclass(frozen=True)
class RunRequest:
    """A run. warm_start: the folder of a finished run.  keep: what only a later run could use.  search: tune first.

    mlflow: the address of the MLflow that logs the finished run; None for none.

        >>> RunRequest(JobRequest(out="nightly"), ClusterRequest(workers=3)).folder
        'nightly'
    """

    job: JobRequest = field(default_factory=JobRequest)
    cluster: ClusterRequest = field(default_factory=ClusterRequest)
    search: SearchRequest | None = None
    warm_start: str | None = None
    keep: bool = True
    report: bool = False
    dry_run: bool = False
    mlflow: str | None = None

    @property
    def folder(self) -> str:
        """Where it writes."""
        return self.job.out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of the job."""
    add_job_arguments(parser)
    parser.add_argument("--models", help="families, separated by commas; turbomode: the predecessor's six")
    parser.add_argument(
        "--walk-forward", nargs="?", type=int, const=4, metavar="N",
        help="train at N successive origins (default 4), test each on the time right after it; keep the last models",
    )  # fmt: skip
    parser.add_argument("--cpcv", metavar="N,K", help="combinatorial purged cross-validation, as 6,2: 15 trainings")
    parser.add_argument(
        "--warm-start", metavar="DIR",
        help="resume boosting from the models of a finished run in DIR (may be --out) where possible",
    )  # fmt: skip
    cluster_request.add_arguments(parser)
    parser.add_argument(
        "--spread", nargs="?", type=int, const=ALL_WORKERS, metavar="N",
        help="let each of N workers (default: --workers) hold the rows of some sectors only, and fit together",
    )  # fmt: skip
    parser.add_argument("--dashboard", action="store_true", help="serve Dask's dashboard, to this machine alone")
    parser.add_argument("--no-keep", action="store_true", help="keep nothing in --out that only a later run could use")
    parser.add_argument("--report", action="store_true", help="write OUT/report.html at the end, as gpupipe report")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop; nothing is written")
    parser.add_argument("--tune", type=int, metavar="N", help="first tune with N trials a study, as gpupipe tune does")
    parser.add_argument("--tune-per", default="sector", metavar="WHAT", help="a study for each sector or each label")
    parser.add_argument("--pruner", default="median", help="of --tune: median or hyperband")
    add_accept(parser)
    parser.add_argument(
        "--mlflow", nargs="?", const="sqlite:///mlflow.db", metavar="URI",
        help="log the finished run to MLflow: sqlite:///mlflow.db (default), file:FOLDER or http://HOST:PORT",
    )  # fmt: skip


def request_of(chosen: argparse.Namespace) -> RunRequest:
    """What the options ask for."""
    search = None
    if chosen.tune is not None:
        search = SearchRequest(chosen.tune, chosen.tune_per, None, chosen.pruner, chosen.accept)
    return RunRequest(
        job=job_request(chosen),
        cluster=ClusterRequest(chosen.workers, chosen.scheduler, chosen.dashboard),
        search=search,
        warm_start=chosen.warm_start,
        keep=not chosen.no_keep,
        report=chosen.report,
        dry_run=chosen.dry_run,
        mlflow=chosen.mlflow,
    )


def run(request: RunRequest) -> int:
    """Do the job and show what came of it; UserError for what the user must mend."""
    from gpupipe.cli import console
    from gpupipe.workloads.equity import EQUITY

    job = request.job
    settings = job.settings()
    wanted = checked_search(request, settings)
    to = console.console(job.silent)
    data = job.read(settings, to, () if request.dry_run else EQUITY.kernels_of(settings))
    if request.dry_run:
        _show_plan(request, settings, data[0], to)
        return 0
    tuning, settings = _tuning(request, settings, wanted, data, to)
    summary, worked = _execute(request, settings, data, tuning, to)
    _show(request, summary, to)
    if not worked:
        to.print(
            f"Nothing to do: {job.out} holds this run (same data, settings, code and versions); every file checked."
        )
    return 0


def checked_search(request: RunRequest, settings: Config) -> Wanted | None:
    """What is tuned first; UserError early for what could not be done later, the report and MLflow too."""
    wanted = None
    if request.search is not None:
        if settings.training.spread:
            raise UserError("--tune and --spread: tuning needs all rows in one process; leave one of them out")
        wanted = request.search.wanted(settings)
    request.job.limits()
    if request.mlflow is not None:
        from gpupipe.artifacts import mlflow_tracking

        mlflow_tracking.require(request.mlflow)
    if request.report:  # imported only then: it would cost every other run its import
        from gpupipe import report

        report.require()
    return wanted


def _show_plan(request: RunRequest, settings: Config, panel: Panel, to: Console) -> None:
    from gpupipe.cli import tables
    from gpupipe.training import planning
    from gpupipe.workloads.equity import EQUITY

    planned = planning.plan(EQUITY, panel, settings, request.job.jobs, request.job.limits())
    if request.job.json:
        print(json.dumps(planned, indent=1))
    tables.show_plan(to, planned)


def _tuning(
    request: RunRequest, settings: Config, wanted: Wanted | None, data: tuple[Panel, DataReport], to: Console
) -> tuple[dict[str, Any] | None, Config]:
    """Where tuned values come from, for the summary, and the settings with those that are searched now."""
    from gpupipe.cli.tune import tuned
    from gpupipe.pipeline import tune_job

    tuning = tune_job.provenance(request.job.asked.files)
    if wanted:
        tuning, settings = tuned(request.job, settings, wanted, data, to)
    return (tune_job.section(tuning, settings, data[1].data_hash) if tuning else tuning), settings


def _execute(
    request: RunRequest, settings: Config, data: tuple[Panel, DataReport], tuning: dict[str, Any] | None, to: Console
) -> tuple[dict[str, Any], bool]:
    """The summary, and whether anything had to be done."""
    from gpupipe.cli import console
    from gpupipe.pipeline import job
    from gpupipe.workloads.equity import EQUITY

    (panel, report), asked = data, request.job
    cluster = cluster_request.connected(request.cluster, asked.jobs, panel.device, to)
    with cluster as workers, console.live(to, panel.device) as listener:
        options = job.JobOptions(
            asked.jobs, asked.limits(), tuning, request.warm_start, asked.wait_s, request.keep, workers
        )
        return job.execute(EQUITY, panel, report, settings, asked.out, options, listener)


def _show(request: RunRequest, whole: dict[str, Any], to: Console) -> None:
    """Show the summary; write the report and log to MLflow where asked."""
    from gpupipe.artifacts import mlflow_tracking, summary
    from gpupipe.cli import output
    from gpupipe.cli.summary_tables import show_summary
    from gpupipe.workloads.equity import EQUITY

    out = request.job.out
    run_id = mlflow_tracking.track(request.mlflow, out, whole) if request.mlflow is not None else None
    if request.job.json:
        output.print_json_file(pathlib.Path(out) / summary.JSON)
    show_summary(to, whole, out, EQUITY.baselines)
    if request.report:
        from gpupipe import report

        to.print(f"Report: {report.write(out)}")
    if run_id:
        to.print(f"MLflow has it as run {run_id} of the experiment {mlflow_tracking.EXPERIMENT}, at {request.mlflow}.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `python -m gpupipe.run`."""
    parser = argparse.ArgumentParser(prog="python -m gpupipe.run", description=__doc__)
    add_arguments(parser)
    return entry(lambda: perform(sys.modules[__name__], parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
