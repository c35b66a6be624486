"""The night: `gpupipe nightly` ingests, trains what is stale, backtests, scans and reports; safe to run twice."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import logging
import pathlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from gpupipe.errors import UserError

OK, WARN, FAIL, SKIPPED = "OK", "WARN", "FAIL", "SKIPPED"
LOG = "nightly.jsonl"
REFUSED = ("dry_run", "json", "report")  # options of a run that a night has no use for
STORE, SIGNALS, ACTIVE = "bars", "signals.parquet", "signals.sqlite"  # in OUT


@dataclass(frozen=True)
class Step:
    """What became of a step. start: UTC.  detail: what was warned of, or why it failed."""

    name: str
    start: str
    seconds: float
    status: str
    detail: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `gpupipe nightly`: those of a run, and where the bars are kept."""
    from gpupipe import run

    run.add_arguments(parser)
    parser.add_argument("--store", metavar="DIR", help=f"where bars are kept (default: {STORE} in --out)")
    parser.add_argument("--calendar", metavar="NAME", help="as for gpupipe ingest")
    parser.add_argument("--family", default="meta_learner", help="whose signals, as for gpupipe scan")
    parser.add_argument("--top", type=int, default=20, help="how many signals to print (default 20)")


def run(chosen: argparse.Namespace) -> int:
    """Do the night; 0 where every step is OK or WARN, 2 where one failed, whose line says why.

    A step that fails ends the night: those after it are skipped.
    """
    from gpupipe.console import console

    for name in REFUSED:
        if getattr(chosen, name):
            raise UserError(f"--{name.replace('_', '-')} is for gpupipe run: leave it out of gpupipe nightly")
    out = pathlib.Path(chosen.out)
    store = pathlib.Path(chosen.store) if chosen.store else out / STORE
    to = console(chosen.quiet)
    # Each step is a command of its own, asked for the same things.
    steps: dict[str, Callable[[], list[str]]] = {
        "ingest": lambda: _ingest(chosen, store),
        "train": lambda: _command("run", _of_run(chosen, store)),
        "backtest": lambda: _command("backtest", ["--models", str(out), "--data", str(store), "--quiet"]),
        "scan": lambda: _command("scan", _of_scan(chosen, out, store)),
        "report": lambda: _report(out),
    }
    done: list[Step] = []
    for name, work in steps.items():
        if any(step.status == FAIL for step in done):
            done.append(Step(name, _now(), 0.0, SKIPPED, "an earlier step failed"))
            continue
        done.append(_do(name, work))
        step = done[-1]
        to.print(f"{step.start}  {step.name:9s} {step.status:5s} {step.seconds:8.1f} s  {step.detail}", soft_wrap=True)
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"night": done[0].start, "steps": [asdict(step) for step in done]}) + "\n")
    failed = [step for step in done if step.status == FAIL]
    if failed:
        raise UserError(f"{failed[0].name}: {failed[0].detail}")
    return 0


def _do(name: str, work: Callable[[], list[str]]) -> Step:
    start, began = _now(), time.perf_counter()
    try:
        with _warnings() as warned:
            told = work()
    except (UserError, OSError) as error:
        return Step(name, start, time.perf_counter() - began, FAIL, " ".join(str(error).split()))
    found = [*warned, *told]
    return Step(name, start, time.perf_counter() - began, WARN if found else OK, "; ".join(found))


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """What gpupipe warns of while it works."""
    found: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    handler, log = Keep(logging.WARNING), logging.getLogger("gpupipe")
    log.addHandler(handler)
    try:
        yield found
    finally:
        log.removeHandler(handler)


def _ingest(chosen: argparse.Namespace, store: pathlib.Path) -> list[str]:
    from gpupipe.ingest import ingest
    from gpupipe.ingest.report import FAIL as NOTHING_TAKEN

    report = ingest(
        chosen.data, store, sector_map=chosen.sector_map, timeframe=chosen.timeframe, adjusted=chosen.adjusted,
        strict=chosen.strict, calendar=chosen.calendar,
    )  # fmt: skip
    if report.status == NOTHING_TAKEN:
        raise UserError(f"nothing of {report.source} was taken: {'; '.join(report.warnings) or 'no bars are left'}")
    return list(report.warnings)


def _command(name: str, options: list[str]) -> list[str]:
    """A command of its own, here; UserError where it fails."""
    from gpupipe import cli

    work, chosen = cli.command([name, *options])
    work(chosen)
    return []


def _report(out: pathlib.Path) -> list[str]:
    from gpupipe import report

    report.write(out)
    return []


def _of_run(chosen: argparse.Namespace, store: pathlib.Path) -> list[str]:
    """The options of the run, as they were given, on the stored bars."""
    options = ["--data", str(store), "--out", chosen.out, "--quiet", "--sectors", chosen.sectors]
    for name in ("horizons", "thresholds", "pool", "preset", "seed", "jobs", "memory", "models", "cpcv", "warm_start",
                 "walk_forward", "tune", "tune_per", "pruner", "accept", "mlflow"):  # fmt: skip
        if (value := getattr(chosen, name)) is not None:
            options += [f"--{name.replace('_', '-')}", str(value)]
    for name in ("config", "set"):
        options += [word for value in getattr(chosen, name) for word in (f"--{name}", value)]
    options += ["--no-keep"] if chosen.no_keep else []
    return [*options, "--wait", str(chosen.wait), "--device", chosen.device]


def _of_scan(chosen: argparse.Namespace, out: pathlib.Path, store: pathlib.Path) -> list[str]:
    shown = ["--quiet"] if chosen.quiet else ["--top", str(chosen.top)]
    return ["--models", str(out), "--data", str(store), "--family", chosen.family, "--to", str(out / SIGNALS),
            "--active", str(out / ACTIVE), "--device", chosen.device, *shown]  # fmt: skip


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
