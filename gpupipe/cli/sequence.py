"""The command `gpupipe sequence`: networks on windows of bars, of one symbol or of several."""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpupipe.cli.job_request import JobRequest, add_arguments_of_any, job_request
from gpupipe.cli.options import add_outside, numbers, words
from gpupipe.estimators.torch.architecture import ARCHITECTURES
from gpupipe.estimators.torch.settings import PRECISIONS, PRESETS
from gpupipe.runtime.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from gpupipe.config import Config
    from gpupipe.data import DataReport
    from gpupipe.data.panel import Panel

SEQUENCE = "gpupipe.workloads.sequence:SEQUENCE"
NONE = "none"  # of --thresholds: labels by multiples of the volatility alone
MIN_MAX_SETS = ("atb9",)  # sets of features that are levels, and so are scaled to their range
INT8 = "int8"
LEAST_COVERAGE = 0.5  # of columns from outside
# Options that set a value of the networks' section, their types, and what they are.
NETWORK_OPTIONS = {
    "--epochs": ("epochs", int, "epochs at most"),
    "--sequence-length": ("length", int, "bars of a window, the row itself included"),
    "--patience": ("patience", int, "epochs without a better validation loss after which training ends"),
    "--learning-rate": ("rate", float, "of Adam"),
}


@dataclass(frozen=True)
class SequenceRequest:
    """A run of sequence networks.

    start_from: the folder of a finished run whose networks are trained on.  onnx, plots: whether ONNX files and the
    report are written.  quantize: "int8" for a second ONNX file, else "".  list_presets: print the presets, no more.

        >>> SequenceRequest(JobRequest(out="btc")).folder, SequenceRequest(list_presets=True).folder
        ('btc', '')
    """

    job: JobRequest = field(default_factory=JobRequest)
    start_from: str | None = None
    onnx: bool = True
    plots: bool = True
    quantize: str = ""
    list_presets: bool = False

    @property
    def folder(self) -> str:
        """Where it writes."""
        return "" if self.list_presets else self.job.out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `gpupipe sequence`."""
    add_arguments_of_any(parser, "symbols", tuple(PRESETS))
    parser.add_argument("--symbol", metavar="A[,B]", help="these symbols alone (default: all of the data)")
    parser.add_argument("--list-presets", action="store_true", help="print the presets as they are in the code")
    parser.add_argument("--features", help="core (default), atb9 or others of `gpupipe features`, as core,rsi_*")
    parser.add_argument("--multiples", help="further thresholds, multiples of the volatility of 20 bars, as 1,2")
    parser.add_argument("--model-type", choices=tuple(ARCHITECTURES), help="the network, whatever the preset")
    parser.add_argument("--batch-size", type=int, metavar="N", help="steps of N rows exactly")
    for option, (_, kind, text) in NETWORK_OPTIONS.items():
        parser.add_argument(option, type=kind, metavar="N" if kind is int else "RATE", help=text)
    parser.add_argument("--precision", choices=PRECISIONS, help="auto: bf16 on a GPU that has it, else fp32")
    parser.add_argument("--models", help="families, separated by commas (default: sequence)")
    parser.add_argument(
        "--folds", dest="walk_forward", type=int, metavar="N",
        help="walk-forward: train at N successive origins, test each on the time right after it; keep the last",
    )  # fmt: skip
    parser.add_argument("--from", dest="start_from", metavar="DIR", help="train the networks of a finished run on")
    parser.add_argument("--skip-onnx", action="store_true", help="write no ONNX files")
    parser.add_argument("--skip-plots", action="store_true", help="write no OUT/report.html")
    parser.add_argument("--quantize", choices=(INT8,), help="a second ONNX file with weights of 8 bits")
    share = f"{100 * LEAST_COVERAGE:g} %"
    text = f"join columns from outside by time; those known for less than {share.replace('%', '%%')} of the rows are"
    add_outside(parser, f"{text} left out")


def request_of(chosen: argparse.Namespace) -> SequenceRequest:
    """What the options ask for; UserError for options that mean nothing."""
    if chosen.quantize and chosen.skip_onnx:
        raise UserError("--quantize int8 writes an ONNX file, and --skip-onnx writes none: leave one of them out")
    no_thresholds = chosen.thresholds == NONE
    chosen.thresholds = None if no_thresholds else chosen.thresholds
    features = words(chosen.features)
    values: dict[str, Any] = {
        f"sequence__{name}": getattr(chosen, option.strip("-").replace("-", "_"))
        for option, (name, _, _) in NETWORK_OPTIONS.items()
    }
    values |= {
        "sequence__network": chosen.model_type,
        "sequence__precision": chosen.precision,
        "features__names": features,
        "labels__multiples": numbers(chosen.multiples, float, "--multiples"),
    }
    if no_thresholds:
        values["labels__thresholds"] = ()
    if chosen.batch_size is not None:
        values |= {"sequence__batch": chosen.batch_size, "sequence__step_rows": 0}
    job = job_request(chosen)
    levels = set(MIN_MAX_SETS) & set(features or ())
    asked = dataclasses.replace(
        job.asked,
        workload=SEQUENCE,
        implied=("sequence.scaling=minmax",) if levels else (),
        values=tuple((name, value) for name, value in values.items() if value is not None),
    )
    data = dataclasses.replace(job.data, group_by="symbol", least_coverage=LEAST_COVERAGE)
    return SequenceRequest(
        job=dataclasses.replace(job, asked=asked, data=data),
        start_from=chosen.start_from,
        onnx=not chosen.skip_onnx,
        plots=not chosen.skip_plots,
        quantize=chosen.quantize or "",
        list_presets=chosen.list_presets,
    )


def run(request: SequenceRequest) -> int:
    """Train, evaluate, publish, and show what came of it; UserError for what the user must mend."""
    from gpupipe.artifacts.onnx import export
    from gpupipe.cli import console, sequence_tables
    from gpupipe.estimators import registry
    from gpupipe.workloads.sequence import SEQUENCE as WORKLOAD
    from gpupipe.workloads.sequence import check
    from gpupipe.workloads.sequence.settings import SECTION

    job = request.job
    if request.list_presets:
        rows = sequence_tables.preset_rows()
        if job.json:
            print(json.dumps(rows, indent=1))
        sequence_tables.show_presets(console.console(job.silent), rows)
        return 0
    settings = job.settings()
    job.limits()
    registry.require(settings.training.models)
    if request.onnx and SECTION in settings.training.models:
        export.require()
    if request.start_from is not None:
        check.require_same_windows(request.start_from, settings)
    to = console.console(job.silent)
    panel, report = job.read(settings, to, WORKLOAD.kernels_of(settings))
    settings = check.with_outside(settings, panel)
    check.require_trainable(WORKLOAD, panel, settings)
    if sentence := check.step_sentence(settings):
        console.paragraph(to, sentence, "Steps")
    request = _sharing_cores(request, settings, panel, to)
    whole, worked = _execute(request, settings, (panel, report), to)
    version = _version(request, settings, panel, to)
    _show(request, whole, to)
    for sentence in version:
        to.print(sentence)
    if not worked:
        to.print(
            f"Nothing to do: {job.out} holds this run (same data, settings, code and versions); every file checked."
        )
    return 0


def _sharing_cores(request: SequenceRequest, settings: Config, panel: Panel, to: Console) -> SequenceRequest:
    """The request with as many jobs as networks are trained at once, which is measured, unless --jobs says it."""
    from gpupipe.cli import console
    from gpupipe.workloads.sequence import sharing

    if request.job.jobs is not None or (chosen := sharing.measure(panel, settings)) is None:
        return request
    console.paragraph(to, chosen.reason, "Cores")
    return dataclasses.replace(request, job=dataclasses.replace(request.job, jobs=chosen.at_once))


def _execute(
    request: SequenceRequest, settings: Config, data: tuple[Panel, DataReport], to: Console
) -> tuple[dict[str, Any], bool]:
    """The summary, and whether anything had to be done."""
    from gpupipe.cli import console
    from gpupipe.pipeline import job
    from gpupipe.workloads.sequence import SEQUENCE as WORKLOAD

    (panel, report), asked = data, request.job
    with console.live(to, panel.device) as listener:
        options = job.JobOptions(
            jobs=asked.jobs, limits=asked.limits(), warm_start=request.start_from, wait_s=asked.wait_s
        )
        return job.execute(WORKLOAD, panel, report, settings, asked.out, options, listener)


def _version(request: SequenceRequest, settings: Config, panel: Panel, to: Console) -> list[str]:
    """Write OUT/versions and OUT/latest; what was written and checked, in sentences."""
    from gpupipe.artifacts.latest import LATEST
    from gpupipe.artifacts.load import load
    from gpupipe.cli import console
    from gpupipe.runtime.device import pick
    from gpupipe.workloads.sequence.settings import SECTION
    from gpupipe.workloads.sequence.versions import write_version

    if SECTION not in settings.training.models:
        return []
    device = pick("cpu")
    with console.live(to, device) as listener:
        listener.stage("files of the networks")
        written = write_version(
            load(request.job.out), panel.to(device), settings, request.onnx, request.quantize == INT8, listener.stage
        )
    if written is None:
        return []
    return [f"{pathlib.Path(request.job.out) / LATEST} points to {written.folder}", *written.sentences()]


def _show(request: SequenceRequest, whole: dict[str, Any], to: Console) -> None:
    """Show the summary; write the report where its packages are there."""
    from gpupipe.artifacts import summary
    from gpupipe.cli import output, report, sequence_tables
    from gpupipe.workloads.sequence import SEQUENCE as WORKLOAD

    out = pathlib.Path(request.job.out)
    if request.job.json:
        output.print_json_file(out / summary.JSON)
    sequence_tables.show(to, whole, out, WORKLOAD.baselines)
    if request.plots:
        report.write_and_show(request.job.out, to)
