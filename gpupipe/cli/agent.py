"""The command `gpupipe agent`: a recurrent policy that trades one instrument, retrained in a walk-forward."""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gpupipe.cli.job_request import JobRequest, SettingsRequest
from gpupipe.cli.options import (
    add_device,
    add_max_quarantined,
    add_output,
    add_outside,
    add_wait,
    data_request,
    words,
)
from gpupipe.runtime.errors import UserError

AGENT = "gpupipe.workloads.agent:AGENT"
PROFILES = ("conservative", "balanced", "aggressive", "ultra_fast")
CACHE = "cache"  # the first word of `gpupipe agent cache OUT`
METAVARS: dict[Any, str] = {int: "N", float: "X", str: "TEXT"}
# Options that set a value of the settings: the value, its type, and what it is.
OPTIONS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "--total-timesteps": ("agent__total_timesteps", int, "steps of the first iteration at most (50000)"),
    "--min-timesteps": ("agent__min_timesteps", int, "what adaptive timesteps do not fall below (15000)"),
    "--initial-window": ("agent__initial_window", int, "bars of training and validation (2500)"),
    "--step-size": ("agent__step_size", int, "bars of a sealed test, by which windows move on (500)"),
    "--validation-size": ("agent__validation_size", float, "share of the window that chooses the policy (0.2)"),
    "--eval-freq": ("agent__eval_freq", int, "steps between two evaluations, at first (5000)"),
    "--early-stopping-patience": (
        "agent__early_stopping_patience", int, "times --eval-freq steps without a gain, then a candidate stops (3)"
    ),
    "--convergence-threshold": ("agent__convergence_threshold", float, "the least gain that counts (0.001)"),
    "--parallel-candidates": ("agent__candidates", int, "policies trained side by side; the best on validation stays"),
    "--learning-rate": ("ppo__learning_rate", float, "of AdamW, before the schedule"),
    "--initial-balance": ("market__initial_balance", float, "of the account (10000)"),
    "--spread": ("market__spread", str, "a column of the bars, a price (0.3), '30 points' or '2 bps'"),
    "--point-size": ("market__point_size", float, "the price of a point; with it a column counts points"),
    "--commission": ("market__commission", float, "basis points of the value of a fill (1)"),
    "--slippage": ("market__slippage", float, "basis points of the price of a fill (1)"),
    "--size": ("market__size", float, "the stake of a position, as a multiple of the balance (1)"),
    "--max-drawdown": ("market__max_drawdown", float, "share below its peak at which an episode or a test ends"),
    "--fill": ("market__fill", str, "open (default) or close, of the bar after the decision"),
    "--reward": ("market__reward", str, "log (default): growth of log-equity; legacy: a shaped reward"),
}  # fmt: skip
# Switches of the optimisations, which are on by default.
SWITCHES = {
    "--no-adaptive-timesteps": ("agent__adaptive_timesteps", "train every iteration for --total-timesteps"),
    "--no-warm-start": ("agent__warm_start", "begin every iteration from nothing"),
    "--no-convergence-stop": ("agent__convergence_stop", "train all timesteps of an iteration"),
    "--no-progressive": ("agent__progressive", "keep learning rate, epochs, entropy and clip constant"),
    "--no-cache-environments": ("agent__cache_environments", "compute features and scalers for each candidate"),
    "--no-adaptive-evaluation": ("agent__adaptive_evaluation", "evaluate every --eval-freq steps"),
    "--no-fast-comparison": ("agent__fast_comparison", "evaluate candidates step by step"),
}


@dataclass(frozen=True)
class AgentRequest:
    """A run of the agent, or a look at its cache.

    resume: refuse to begin a new run.  onnx, plots: whether an ONNX file and the report are written.
    cache: show what OUT keeps of environments; clear: remove it.

        >>> AgentRequest(JobRequest(out="gold")).folder
        'gold'
    """

    job: JobRequest = field(default_factory=JobRequest)
    resume: bool = False
    onnx: bool = True
    plots: bool = True
    cache: bool = False
    clear: bool = False

    @property
    def folder(self) -> str:
        """Where it writes."""
        return self.job.out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `gpupipe agent`."""
    parser.add_argument("words", nargs="*", metavar="cache OUT", help="show what OUT keeps of environments (--clear)")
    parser.add_argument("--data", help="bars of one instrument: Parquet, CSV(.gz), Arrow or SQLite file, or a folder")
    parser.add_argument("--symbol", metavar="A", help="the instrument, where the data hold several")
    parser.add_argument("--timeframe", help="which bars, where the data hold several")
    parser.add_argument("--adjusted", action="store_true", help="scale by adj_close / close; volumes by its splits")
    parser.add_argument("--strict", action="store_true", help="whatever validation finds is an error")
    add_max_quarantined(parser)
    add_outside(parser, "join columns from outside by time, such as the spread")
    parser.add_argument("--profile", choices=PROFILES, help="how long candidates train (default: balanced)")
    parser.add_argument("--features", help="session (default), core or others of `gpupipe features`")
    for option, (_, kind, text) in OPTIONS.items():
        parser.add_argument(option, type=kind, metavar=METAVARS[kind], help=text)
    for option, (_, text) in SWITCHES.items():
        parser.add_argument(option, action="store_true", help=text)
    parser.add_argument("--use-original-training", action="store_true", help="train the original way, to compare")
    parser.add_argument("--benchmark-mode", action="store_true", help="train the original way and ours, and compare")
    parser.add_argument("--resume", action="store_true", help="go on with a stopped run; refuse to begin one")
    parser.add_argument("--skip-onnx", action="store_true", help="write no ONNX file")
    parser.add_argument("--skip-plots", action="store_true", help="write no OUT/report.html")
    parser.add_argument("--config", action="append", default=[], metavar="FILE", help="a gpupipe.toml; later ones win")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", help="change one setting")
    parser.add_argument("--seed", type=int)
    add_device(parser)
    parser.add_argument("--out", default=JobRequest.out, help="folder for all results (default: OUT)")
    parser.add_argument("--jobs", type=int, help="iterations and candidates at the same time (default: the cores)")
    parser.add_argument("--clear", action="store_true", help="with `cache OUT`: remove it")
    add_wait(parser, "another run holds --out")
    add_output(parser, "print the summary as JSON, and nothing else")


def request_of(chosen: argparse.Namespace) -> AgentRequest:
    """What the options ask for; UserError for words and options that mean nothing."""
    if chosen.words:
        if chosen.words[0] != CACHE or len(chosen.words) != 2:
            raise UserError(f"gpupipe agent {' '.join(chosen.words)}: expected options alone, or `cache OUT`")
        job = JobRequest(out=chosen.words[1], wait_s=chosen.wait, quiet=chosen.quiet, json=chosen.json)
        return AgentRequest(job, cache=True, clear=chosen.clear)
    if chosen.clear:
        raise UserError("--clear: expected `gpupipe agent cache OUT --clear`")
    values = {name: getattr(chosen, _attribute(option)) for option, (name, _, _) in OPTIONS.items()}
    values |= {name: False for option, (name, _) in SWITCHES.items() if getattr(chosen, _attribute(option))}
    values["features__names"] = words(chosen.features)
    if chosen.benchmark_mode:
        values["agent__benchmark"] = True
    if chosen.use_original_training:
        if chosen.benchmark_mode:
            raise UserError("--benchmark-mode trains the original way too: leave --use-original-training out")
        values["agent__original"] = True
    asked = SettingsRequest(
        preset=chosen.profile,
        files=tuple(chosen.config),
        assignments=tuple(chosen.set),
        seed=chosen.seed,
        values=tuple((name, value) for name, value in values.items() if value is not None),
        workload=AGENT,
    )
    data = dataclasses.replace(data_request(chosen, strict=chosen.strict), group_by="symbol")
    job = JobRequest(
        data=data, asked=asked, out=chosen.out, device=chosen.device, jobs=chosen.jobs, wait_s=chosen.wait,
        quiet=chosen.quiet, json=chosen.json,
    )  # fmt: skip
    return AgentRequest(job, chosen.resume, not chosen.skip_onnx, not chosen.skip_plots)


def _attribute(option: str) -> str:
    return option.strip("-").replace("-", "_")


def run(request: AgentRequest) -> int:
    """Train, test, publish, and show what came of it; UserError for what the user must mend."""
    from gpupipe.artifacts.onnx import export
    from gpupipe.cli import agent_tables, console, report
    from gpupipe.pipeline import job
    from gpupipe.workloads.agent import AGENT as WORKLOAD
    from gpupipe.workloads.agent import recipe, upkeep, versions
    from gpupipe.workloads.agent.settings import trained

    asked = request.job
    if request.cache:
        return _cache(request)
    if request.resume:
        upkeep.require_begun(asked.out)
    settings = asked.settings()
    if request.onnx:
        export.require()
    to = console.console(asked.silent)
    WORKLOAD.require(settings, job.JobOptions())
    panel, data_report = asked.read(settings, to, WORKLOAD.kernels_of(settings))
    tests = recipe.walk_forward(panel, trained(settings))  # refuses what cannot be traded, before anything is written
    console.paragraph(to, agent_tables.plan_sentence(settings, tests), "Plan")
    with console.live(to, panel.device) as listener:
        options = job.JobOptions(jobs=asked.jobs, wait_s=asked.wait_s)
        whole, worked = job.execute(WORKLOAD, panel, data_report, settings, asked.out, options, listener)
    if asked.json:
        from gpupipe.artifacts import summary
        from gpupipe.cli import output

        output.print_json_file(pathlib.Path(asked.out) / summary.JSON)
    agent_tables.show(to, whole, asked.out)
    for sentence in versions.write_version(asked.out, panel, settings, request.onnx).sentences():
        to.print(sentence)
    if request.plots:
        report.write_and_show(asked.out, to)
    if not worked:
        to.print(
            f"Nothing to do: {asked.out} holds this run (same data, settings, code and versions); every file checked."
        )
    return 0


def _cache(request: AgentRequest) -> int:
    """Show what OUT keeps of environments, or remove it."""
    from gpupipe.cli import console
    from gpupipe.workloads.agent import upkeep

    kept = upkeep.clear(request.job.out, request.job.wait_s) if request.clear else upkeep.kept(request.job.out)
    if request.job.json:
        print(json.dumps(kept))
        return 0
    verb = "removed" if request.clear else "keeps"
    console.console(request.job.quiet).print(
        f"{request.job.out} {verb} {kept['features']} feature matrices and {kept['scalers']} scalers of environments, "
        f"{kept['bytes'] / 2**20:.1f} MiB"
    )
    return 0
