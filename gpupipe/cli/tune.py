"""The command `gpupipe tune`, and the search that `gpupipe run --tune` does first."""

from __future__ import annotations

import argparse
import pathlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpupipe.cli.job_request import JobRequest, add_job_arguments, job_request
from gpupipe.cli.options import words

if TYPE_CHECKING:
    from rich.console import Console

    from gpupipe.config import Config
    from gpupipe.data import DataReport
    from gpupipe.data.panel import Panel
    from gpupipe.pipeline.tune_job import Wanted

TUNABLE = ("xgb_joint", "xgb_hist", "xgb_leafwise", "linear")  # as training.search.searched() says; a test holds it


@dataclass(frozen=True)
class SearchRequest:
    """What is searched, as `pipeline.tune_job.Wanted`.

    >>> SearchRequest(trials=50, families=("xgb_hist",)).per
    'sector'
    """

    trials: int = 30
    per: str = "sector"
    families: tuple[str, ...] | None = None
    pruner: str = "median"
    accept: str = "deflated"

    def wanted(self, settings: Config) -> Wanted:
        """The same, checked against the settings; ConfigError for what cannot be searched."""
        from gpupipe.pipeline.tune_job import Wanted

        wanted = Wanted(self.trials, self.per, self.families, self.pruner, self.accept)
        wanted.families_of(settings)
        return wanted


@dataclass(frozen=True)
class TuneRequest:
    """A tuning job.

    >>> TuneRequest(JobRequest(out="OUT"), SearchRequest(trials=50)).search.trials
    50
    """

    job: JobRequest
    search: SearchRequest

    @property
    def folder(self) -> str:
        """Where it writes."""
        return self.job.out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `gpupipe tune`."""
    add_job_arguments(parser)
    default = SearchRequest()
    parser.add_argument(
        "--trials", type=int, default=default.trials, help="of each study, earlier sessions' too (default 30)"
    )
    parser.add_argument("--per", default=default.per, help="a study for each sector, or for each label of it")
    parser.add_argument("--family", help=f"families, separated by commas (default: {','.join(TUNABLE)})")
    parser.add_argument("--pruner", default=default.pruner, help="median or hyperband")
    add_accept(parser)


def add_accept(parser: argparse.ArgumentParser) -> None:
    """Which trial's values are used."""
    parser.add_argument(
        "--accept",
        default=SearchRequest.accept,
        help="best: use a study's best trial whatever its deflated figure; deflated: keep the preset where that is not "
        "better (default)",
    )


def request_of(chosen: argparse.Namespace) -> TuneRequest:
    """What the options ask for."""
    search = SearchRequest(chosen.trials, chosen.per, words(chosen.family), chosen.pruner, chosen.accept)
    return TuneRequest(job_request(chosen), search)


def run(request: TuneRequest) -> int:
    """Tune; UserError for what the user must mend."""
    from gpupipe.cli import console, output
    from gpupipe.pipeline import tune_job
    from gpupipe.workloads.equity import EQUITY

    settings = request.job.settings()
    wanted = request.search.wanted(settings)
    to = console.console(request.job.silent)
    panel, report = request.job.read(settings, to, EQUITY.kernels_of(settings))
    tuned(request.job, settings, wanted, (panel, report), to)
    if request.job.json:
        output.print_json_file(pathlib.Path(request.job.out) / tune_job.JSON)
    return 0


def tuned(
    job: JobRequest, settings: Config, wanted: Wanted, data: tuple[Panel, DataReport], to: Console
) -> tuple[dict[str, Any], Config]:
    """Tune and show the studies; the content of tuning.json, and the settings with the results."""
    from gpupipe.cli import console
    from gpupipe.cli.tuning_table import show_tuning
    from gpupipe.pipeline.job import JobOptions
    from gpupipe.pipeline.tune_job import tune
    from gpupipe.workloads.equity import EQUITY

    panel, report = data
    with console.live(to, panel.device) as listener:
        options = JobOptions(jobs=job.jobs, limits=job.limits(), wait_s=job.wait_s)
        tuning, settings = tune(EQUITY, panel, report, settings, wanted, job.out, options, listener)
    show_tuning(to, tuning, job.out)
    return tuning, settings
