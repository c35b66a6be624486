"""The night: `gpupipe nightly` ingests, trains what is stale, backtests, scans and reports; safe to run twice."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import json
import logging
import pathlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from gpupipe.backtest.calling import registry
from gpupipe.cli import run as run_command
from gpupipe.cli.backtest import add_call
from gpupipe.cli.options import DataRequest
from gpupipe.cli.run import RunRequest
from gpupipe.runtime.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

OK, WARN, FAIL, SKIPPED, STOPPED = "OK", "WARN", "FAIL", "SKIPPED", "STOPPED"
LOG, LOCK = "nightly.jsonl", "nightly.lock"
REFUSED = ("dry_run", "json", "report")  # options of a run that a night has no use for
STORE, SIGNALS, ACTIVE = "bars", "signals.parquet", "signals.sqlite"  # in OUT
# A step is skipped where one that it needs did not succeed. Yesterday's models are not scanned with tonight's bars:
# what came of a night that failed would look like tonight's.
NEEDS = {"ingest": (), "train": ("ingest",), "backtest": ("train",), "scan": ("train",), "report": ("train",)}


@dataclass(frozen=True)
class NightlyRequest:
    """A night. run: what is trained; its data are those that are ingested.  store: where bars are kept.

    calendar: as for `gpupipe ingest`.  family: whose signals.
    call: the calling rule, of backtest and scan.  top: how many of them are printed.

        >>> night = NightlyRequest(RunRequest(), store="bars", top=5)
        >>> night.folder == night.run.job.out, night.top
        (True, 5)
    """

    run: RunRequest
    store: str
    calendar: str | None = None
    family: str = "meta_learner"
    call: str = registry.DEFAULT
    top: int = 20

    @property
    def folder(self) -> str:
        """Where it writes."""
        return self.run.folder

    @property
    def out(self) -> pathlib.Path:
        """The folder of the run."""
        return pathlib.Path(self.run.job.out)


@dataclass(frozen=True)
class Step:
    """What became of a step. start: UTC.  detail: what was warned of, or why it failed.

    >>> Step("ingest", "2026-01-02T22:00:00Z", seconds=12.5, status="done", detail="").seconds
    12.5
    """

    name: str
    start: str
    seconds: float
    status: str
    detail: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `gpupipe nightly`: those of a run, and where the bars are kept."""
    run_command.add_arguments(parser)
    parser.add_argument("--store", metavar="DIR", help=f"where bars are kept (default: {STORE} in --out)")
    parser.add_argument("--calendar", metavar="NAME", help="as for gpupipe ingest")
    parser.add_argument("--family", default="meta_learner", help="whose signals, as for gpupipe scan")
    add_call(parser)
    parser.add_argument("--top", type=int, default=20, help="how many signals to print (default 20)")


def request_of(chosen: argparse.Namespace) -> NightlyRequest:
    """What the options ask for; UserError for options of a run that a night has no use for."""
    for name in REFUSED:
        if getattr(chosen, name):
            raise UserError(f"--{name.replace('_', '-')} is for gpupipe run: leave it out of gpupipe nightly")
    store = chosen.store or str(pathlib.Path(chosen.out) / STORE)
    call = registry.rule(chosen.call).text
    return NightlyRequest(run_command.request_of(chosen), store, chosen.calendar, chosen.family, call, chosen.top)


def run(request: NightlyRequest) -> int:
    """Do the night; 0 where every step is OK or WARN, 2 where one failed, whose line says why.

    A line of OUT/nightly.jsonl is written as each step ends, so that a night that was killed shows how far it came;
    the next one goes on from there. Two nights do not use one OUT: the second is refused, or waits (--wait).
    """
    from gpupipe.cli.console import console
    from gpupipe.store.content_store import Store

    _check(request)
    job, to = request.run.job, console(request.run.job.quiet)

    def waiting(holder: str) -> None:
        to.print(f"waiting for {holder}")

    store = Store(request.out)
    with store.lock(wait_s=job.wait_s, waiting=waiting, sweep=False, name=LOCK):
        with Store(request.out).lock(wait_s=job.wait_s, waiting=waiting):  # for a run; what a killed night left goes
            pass
        steps = _steps(request, to)
    if failed := [step for step in steps if step.status == FAIL]:
        raise UserError("; ".join(f"{step.name}: {step.detail}" for step in failed))
    return 0


def _check(request: NightlyRequest) -> None:
    """UserError before anything is done for what a later step could not do."""
    from gpupipe import report

    settings = request.run.job.settings()
    run_command.checked_search(request.run, settings)
    families = settings.training.models
    if request.family not in families:
        raise UserError(
            f"--family {request.family}: this night trains no such model, but {', '.join(families)}; choose one of "
            f"these, as --family {families[0]}, or name {request.family} in --models too"
        )
    if request.top < 1:
        raise UserError(f"--top {request.top}: expected 1 or more")
    report.require()


def _steps(request: NightlyRequest, to: Console) -> list[Step]:
    work: dict[str, Callable[[], list[str]]] = {
        "ingest": lambda: _ingest(request),
        "train": lambda: _train(request),
        "backtest": lambda: _backtest(request),
        "scan": lambda: _scan(request),
        "report": lambda: _report(request),
    }
    night, out = _now(), request.out
    steps: list[Step] = []
    for name, needs in NEEDS.items():
        missing = [step.name for step in steps if step.name in needs and step.status in (FAIL, SKIPPED)]
        if missing:
            step = Step(name, _now(), 0.0, SKIPPED, f"needs {missing[0]}")
            _log(out, night, step)
        else:
            step = _do(name, work[name], lambda ended: _log(out, night, ended))
        to.print(f"{step.start}  {step.name:9s} {step.status:7s} {step.seconds:8.1f} s  {step.detail}", soft_wrap=True)
        steps.append(step)
    return steps


def _do(name: str, work: Callable[[], list[str]], log: Callable[[Step], None]) -> Step:
    """Do a step and log how it ended, however that was; what is not the user's to mend is raised again."""
    start, began = _now(), time.perf_counter()

    def ended(status: str, detail: str) -> Step:
        step = Step(name, start, time.perf_counter() - began, status, " ".join(detail.split()))
        log(step)
        return step

    try:
        with _warnings() as warned:
            notes = work()
    except (UserError, OSError) as error:
        return ended(FAIL, str(error))
    except Exception as error:
        ended(FAIL, f"{type(error).__name__}: {error}")
        raise
    except BaseException as error:
        ended(STOPPED, type(error).__name__)
        raise
    warnings = [*warned, *notes]
    return ended(WARN if warnings else OK, "; ".join(warnings))


def _log(out: pathlib.Path, night: str, step: Step) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"night": night, **asdict(step)}) + "\n")


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """What gpupipe warns of while it works."""
    messages: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not getattr(record, "every_night", False):
                messages.append(record.getMessage())

    handler, log = Keep(logging.WARNING), logging.getLogger("gpupipe")
    log.addHandler(handler)
    try:
        yield messages
    finally:
        log.removeHandler(handler)


def _ingest(request: NightlyRequest) -> list[str]:
    from gpupipe.cli import ingest

    job = request.run.job
    report = ingest.ingested(
        ingest.IngestRequest(store=request.store, data=job.data, calendar=request.calendar, wait_s=job.wait_s)
    )
    ingest.check_taken(report)
    return list(report.warnings)


def _train(request: NightlyRequest) -> list[str]:
    """`gpupipe run` with the night's options, on the stored bars: options of the source were used for storing."""
    asked, out = request.run, request.out
    warm_start = asked.warm_start
    if warm_start is not None and pathlib.Path(warm_start).resolve() == out.resolve() and not _finished(out):
        warm_start = None  # the first night: there is no earlier run to start from
    data = DataRequest(source=request.store, sectors=asked.job.data.sectors)
    job = dataclasses.replace(asked.job, data=data, quiet=True)
    run_command.run(dataclasses.replace(asked, job=job, warm_start=warm_start))
    return []


def _finished(out: pathlib.Path) -> bool:
    """Whether there is a run to start from, also while a killed one was about to take its place."""
    from gpupipe.artifacts.layout import MANIFEST
    from gpupipe.store.content_store import Store

    return (out / MANIFEST).exists() or Store(out).replaced.exists()


def _backtest(request: NightlyRequest) -> list[str]:
    from gpupipe.cli import backtest

    job = request.run.job
    data = DataRequest(source=request.store, sectors=job.data.sectors)
    backtest.run(backtest.BacktestRequest(models=job.out, data=data, call=request.call, device=job.device, quiet=True))
    return []


def _scan(request: NightlyRequest) -> list[str]:
    from gpupipe.cli import scan

    job, out = request.run.job, request.out
    scan.run(
        scan.ScanRequest(
            models=job.out,
            data=DataRequest(source=request.store),
            family=request.family,
            call=request.call,
            top=request.top,
            to=str(out / SIGNALS),
            active=str(out / ACTIVE),
            device=job.device,
            quiet=job.quiet,
        )
    )
    return []


def _report(request: NightlyRequest) -> list[str]:
    from gpupipe import report

    report.write(request.out)
    return []


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
