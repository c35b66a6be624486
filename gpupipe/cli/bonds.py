"""The command `gpupipe bonds`: fair values of bonds in eleven steps, and today's rich and cheap ones."""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gpupipe.cli import cluster_request
from gpupipe.cli.cluster_request import ClusterRequest
from gpupipe.cli.job_request import JobRequest, SettingsRequest
from gpupipe.cli.options import add_device, add_max_quarantined, add_output, add_wait
from gpupipe.runtime.errors import UserError

BONDS = "gpupipe.workloads.bonds:BONDS"
SCAN = "scan"  # the first word of `gpupipe bonds scan OUT`
MARKETS = ("simulated", "treasuries")
METAVARS: dict[Any, str] = {int: "N", float: "X", str: "TEXT"}
# Options that set a value of the settings: the value, its type, and what it is.
OPTIONS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "--convention": ("bonds__convention", str, "of yields: street (default), quantlib or treasury"),
    "--trials": ("search__trials", int, "of each search (20)"),
    "--regimes": ("bonds__n_regimes", int, "clusters of dates at most (4)"),
    "--factors": ("bonds__n_factors", int, "principal components of curve changes (3)"),
}


@dataclass(frozen=True)
class BondRequest:
    """A run of bonds, or a look at its rich and cheap bonds.

    bonds, curve, quotes: files; all "" for the market of `market`.
    n_bonds, n_months, mispricing: of the simulated market.  rates: the unit of coupons, yields and the curve.
    cluster: which processes make the steps.
    scan: show the signals of OUT, of its own last date or of the files' one.  most: rows that are shown.

        >>> BondRequest(JobRequest(out="corporates")).folder
        'corporates'
    """

    job: JobRequest = field(default_factory=JobRequest)
    bonds: str = ""
    curve: str = ""
    quotes: str = ""
    market: str = MARKETS[0]
    n_bonds: int = 1_000
    n_months: int = 60
    mispricing: float = 0.0
    rates: str = "auto"
    strict: bool = False
    max_quarantined: float | None = None
    plots: bool = True
    cluster: ClusterRequest = field(default_factory=ClusterRequest)
    scan: bool = False
    most: int = 10

    @property
    def folder(self) -> str:
        """Where it writes."""
        return self.job.out

    @property
    def has_files(self) -> bool:
        """Whether it reads files."""
        return bool(self.bonds)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `gpupipe bonds`."""
    parser.add_argument("words", nargs="*", metavar="scan OUT", help="show the rich and cheap bonds of a run")
    parser.add_argument("--bonds", default="", metavar="FILE", help="instruments: id, type, coupon, maturity, ...")
    parser.add_argument("--curve", default="", metavar="FILE", help="par curve: date, then a column for each tenor")
    parser.add_argument("--quotes", default="", metavar="FILE", help="id, date, clean price or yield")
    parser.add_argument("--market", choices=MARKETS, help="without files (default: simulated)")
    parser.add_argument("--n-bonds", type=int, metavar="N", help="of the simulated market (1000)")
    parser.add_argument("--n-months", type=int, metavar="N", help="of the simulated market (60)")
    parser.add_argument("--mispricing", type=float, metavar="X", help="percent of spread planted in that market (0)")
    parser.add_argument("--rates", choices=("auto", "percent", "fraction"), help="unit of the files (default: auto)")
    parser.add_argument("--strict", action="store_true", help="whatever validation finds is an error")
    add_max_quarantined(parser)
    parser.add_argument("--sample", metavar="10%%|N", help="bonds that the steps 9 to 11 judge (default: all)")
    for option, (_, kind, text) in OPTIONS.items():
        parser.add_argument(option, type=kind, metavar=METAVARS[kind], help=text)
    parser.add_argument("--skip-plots", action="store_true", help="write no OUT/report.html")
    parser.add_argument("--config", action="append", metavar="FILE", help="a gpupipe.toml; later ones win")
    parser.add_argument("--set", action="append", metavar="SECTION.FIELD=VALUE", help="change one setting")
    parser.add_argument("--seed", type=int)
    add_device(parser)
    parser.add_argument("--out", default=JobRequest.out, help="folder for all results (default: OUT)")
    parser.add_argument("--jobs", type=int, help="steps at the same time (default: the cores)")
    parser.add_argument("--memory", metavar="SIZE", help="as 8GiB: hold no more than that, with fewer steps at once")
    cluster_request.add_arguments(parser)
    parser.add_argument("--top", type=int, default=10, metavar="N", help="bonds that are shown (10)")
    add_wait(parser, "another run holds --out")
    add_output(parser, "print the summary, or the signals, as JSON and nothing else")
    # None where they are not given, so that they are refused where they would change nothing.
    parser.set_defaults(**dict.fromkeys(("max_quarantined", "strict", "skip_plots", "workers")))


def request_of(chosen: argparse.Namespace) -> BondRequest:
    """What the options ask for; UserError for words and options that mean nothing."""
    scan, out = False, chosen.out
    if chosen.words:
        if chosen.words[0] != SCAN or len(chosen.words) != 2:
            raise UserError(f"gpupipe bonds {' '.join(chosen.words)}: expected options alone, or `scan OUT`")
        scan, out = True, chosen.words[1]
    files = {name: getattr(chosen, name) for name in ("bonds", "curve", "quotes")}
    if (missing := [f"--{name}" for name, path in files.items() if not path]) and len(missing) < len(files):
        raise UserError(f"{' and '.join(missing)} missing: give --bonds, --curve and --quotes, or none of them")
    _refuse_what_is_not_used(vars(chosen), scan)
    values = {name: _given(vars(chosen), option) for option, (name, _, _) in OPTIONS.items()}
    values["bonds__sample"] = _sample(chosen.sample)
    asked = SettingsRequest(
        files=tuple(chosen.config or ()), assignments=tuple(chosen.set or ()), seed=chosen.seed,
        values=tuple((name, value) for name, value in values.items() if value is not None), workload=BONDS,
    )  # fmt: skip
    job = JobRequest(
        asked=asked, out=out, device=chosen.device, jobs=chosen.jobs, wait_s=chosen.wait, quiet=chosen.quiet,
        json=chosen.json, memory=chosen.memory,
    )  # fmt: skip
    market = {name: getattr(chosen, name) for name in ("market", "n_bonds", "n_months", "mispricing", "rates")}
    return BondRequest(
        job, **files, **{name: value for name, value in market.items() if value is not None},
        strict=bool(chosen.strict), max_quarantined=chosen.max_quarantined, plots=not chosen.skip_plots,
        cluster=ClusterRequest(chosen.workers or 0, chosen.scheduler), scan=scan, most=chosen.top,
    )  # fmt: skip


def _given(chosen: Mapping[str, Any], option: str) -> Any:
    return chosen[option.strip("-").replace("-", "_")]


def _refuse_what_is_not_used(chosen: Mapping[str, Any], scan: bool) -> None:
    """UserError for options that were given and that would change nothing.  chosen: values of all options by name."""
    has_files = bool(chosen["bonds"])
    simulated = ("--n-bonds", "--n-months", "--mispricing")
    unused: dict[str, tuple[str, ...]] = {}
    if scan:
        unused["with `gpupipe bonds scan`"] = (
            *OPTIONS, "--sample", "--seed", "--config", "--set", "--skip-plots", "--jobs", "--market", *simulated,
            "--memory", "--workers", "--scheduler",
        )  # fmt: skip
    elif has_files:
        unused["with files"] = ("--market", *simulated)
    elif chosen["market"] == "treasuries":
        unused["with --market treasuries"] = simulated
    if not has_files:
        unused["without files"] = ("--rates", "--strict", "--max-quarantined")
    for where, options in unused.items():
        if given := [option for option in options if _given(chosen, option) is not None]:
            raise UserError(f"{', '.join(given)}: no effect {where}; leave it out")
    if chosen["top"] < 0:
        raise UserError(f"--top {chosen['top']}: expected 0 or more")


def _sample(text: str | None) -> float | None:
    """A share of the bonds ("10%") or their number ("500")."""
    if text is None:
        return None
    is_share = text.strip().endswith("%")
    try:
        value = float(text.strip().removesuffix("%")) / 100 if is_share else float(int(text))
    except (ValueError, OverflowError):
        value = 0.0
    if not 0 < value < float("inf") or (is_share and value > 1):
        raise UserError(f"--sample {text}: expected a share such as 10%, or a number of bonds")
    return 0.0 if is_share and value == 1 else value


def run(request: BondRequest) -> int:
    """Value, train, judge, publish, and show what came of it; UserError for what the user must mend."""
    from gpupipe.cli import bond_tables, console, report
    from gpupipe.pipeline import job
    from gpupipe.workloads.bonds import BONDS as WORKLOAD

    asked = request.job
    to = console.console(asked.silent)
    if request.scan:
        return _scan(request, to)
    settings, limits = asked.settings(), asked.limits()
    WORKLOAD.require(settings, job.JobOptions())
    panel, data_report = read(request, settings.bonds.convention, settings.seed, to)
    cluster = cluster_request.connected(request.cluster, asked.jobs, panel.device, to)
    with cluster as workers, console.live(to, panel.device) as listener:
        options = job.JobOptions(jobs=asked.jobs, limits=limits, wait_s=asked.wait_s, workers=workers)
        whole, worked = job.execute(WORKLOAD, panel, data_report, settings, asked.out, options, listener)
    if asked.json:
        from gpupipe.artifacts import summary
        from gpupipe.cli import output

        output.print_json_file(pathlib.Path(asked.out) / summary.JSON)
    bond_tables.show(to, whole, asked.out, request.most)
    if request.plots:
        report.write_and_show(asked.out, to)
    if not worked:
        to.print(
            f"Nothing to do: {asked.out} holds this run (same data, settings, code and versions); every file checked."
        )
    return 0


def read(request: BondRequest, convention: str, seed: int, to: Any) -> tuple[Any, Any]:
    """The panel of the files, or of the market without them, and its report, shown."""
    from gpupipe.cli import console
    from gpupipe.data import quarantine_limit
    from gpupipe.runtime.device import pick
    from gpupipe.workloads.bonds import markets

    device = pick(request.job.device)
    with to.status("reading") if to.is_terminal and not to.quiet else contextlib.nullcontext():
        if request.has_files:
            most = quarantine_limit.DEFAULT if request.max_quarantined is None else request.max_quarantined
            panel, report = markets.from_files(
                request.bonds, request.quotes, request.curve, convention, rates=request.rates, strict=request.strict,
                max_quarantined=most,
            )  # fmt: skip
        elif request.market == "treasuries":
            panel, report = markets.treasuries()
        else:
            panel, report = markets.simulated(request.n_bonds, request.n_months, seed, convention, request.mispricing)
    console.show_data(to, report)
    console.show_device(to, device)
    return panel.to(device), report


def _scan(request: BondRequest, to: Any) -> int:
    """Show today's rich and cheap bonds: those of the run's last date, or of the files' one by the run's model."""
    from gpupipe.cli import bond_tables
    from gpupipe.report import bond_words
    from gpupipe.workloads.bonds import scan

    out = request.job.out
    whole = scan.summary_of(out)
    if request.has_files:
        panel, report = read(request, scan.convention_of(out), 0, to)
        table, data = scan.of_panel(out, panel), {"kind": report.kind}
    else:
        table, data = scan.of_run(out), whole["data"]
    if request.job.json:
        print(json.dumps(bond_tables.rows_for_json(table)))
        return 0
    bond_tables.show_signals(to, table, request.most, data)
    to.print(bond_words.skill_of_signals(whole["bonds"]))
    return 0
