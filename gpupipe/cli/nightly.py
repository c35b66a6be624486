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
from typing import TYPE_CHECKING, Any

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
class Step:
    """What became of a step. start: UTC.  detail: what was warned of, or why it failed."""

    name: str
    start: str
    seconds: float
    status: str
    detail: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `gpupipe nightly`: those of a run, and where the bars are kept."""
    from gpupipe.cli import run

    run.add_arguments(parser)
    parser.add_argument("--store", metavar="DIR", help=f"where bars are kept (default: {STORE} in --out)")
    parser.add_argument("--calendar", metavar="NAME", help="as for gpupipe ingest")
    parser.add_argument("--family", default="meta_learner", help="whose signals, as for gpupipe scan")
    parser.add_argument("--top", type=int, default=20, help="how many signals to print (default 20)")


def run(chosen: argparse.Namespace) -> int:
    """Do the night; 0 where every step is OK or WARN, 2 where one failed, whose line says why.

    A line of OUT/nightly.jsonl is written as each step ends, so that a night that was killed shows how far it came;
    the next one goes on from there. Two nights do not use one OUT: the second is refused, or waits (--wait).
    """
    from gpupipe.cli.console import console
    from gpupipe.store.content_store import Store

    for name in REFUSED:
        if getattr(chosen, name):
            raise UserError(f"--{name.replace('_', '-')} is for gpupipe run: leave it out of gpupipe nightly")
    out, to = pathlib.Path(chosen.out), console(chosen.quiet)

    def waiting(holder: str) -> None:
        to.print(f"waiting for {holder}")

    with Store(out).lock(wait_s=chosen.wait, waiting=waiting, sweep=False, name=LOCK):
        with Store(out).lock(wait_s=chosen.wait, waiting=waiting):  # a run holds it, or what a killed night left goes
            pass
        done = _steps(chosen, out, to)
    if failed := [step for step in done if step.status == FAIL]:
        raise UserError("; ".join(f"{step.name}: {step.detail}" for step in failed))
    return 0


def _steps(chosen: argparse.Namespace, out: pathlib.Path, to: Console) -> list[Step]:
    store = pathlib.Path(chosen.store) if chosen.store else out / STORE
    work: dict[str, Callable[[], list[str]]] = {
        "ingest": lambda: _ingest(chosen, store), "train": lambda: _train(chosen, out, store),
        "backtest": lambda: _backtest(chosen, store), "scan": lambda: _scan(chosen, out, store),
        "report": lambda: _report(out),
    }  # fmt: skip
    night = _now()
    done: list[Step] = []
    for name, needs in NEEDS.items():
        missing = [step.name for step in done if step.name in needs and step.status in (FAIL, SKIPPED)]
        if missing:
            step = Step(name, _now(), 0.0, SKIPPED, f"needs {missing[0]}")
            _log(out, night, step)
        else:
            step = _do(name, work[name], lambda ended: _log(out, night, ended))
        to.print(f"{step.start}  {step.name:9s} {step.status:7s} {step.seconds:8.1f} s  {step.detail}", soft_wrap=True)
        done.append(step)
    return done


def _do(name: str, work: Callable[[], list[str]], log: Callable[[Step], None]) -> Step:
    """Do a step and log how it ended, however that was; what is not the user's to mend is raised again."""
    start, began = _now(), time.perf_counter()

    def ended(status: str, detail: str) -> Step:
        step = Step(name, start, time.perf_counter() - began, status, " ".join(detail.split()))
        log(step)
        return step

    try:
        with _warnings() as warned:
            told = work()
    except (UserError, OSError) as error:
        return ended(FAIL, str(error))
    except Exception as error:
        ended(FAIL, f"{type(error).__name__}: {error}")
        raise
    except BaseException as error:
        ended(STOPPED, type(error).__name__)
        raise
    found = [*warned, *told]
    return ended(WARN if found else OK, "; ".join(found))


def _log(out: pathlib.Path, night: str, step: Step) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"night": night, **asdict(step)}) + "\n")


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """What gpupipe warns of while it works."""
    found: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not getattr(record, "every_night", False):
                found.append(record.getMessage())

    handler, log = Keep(logging.WARNING), logging.getLogger("gpupipe")
    log.addHandler(handler)
    try:
        yield found
    finally:
        log.removeHandler(handler)


def _ingest(chosen: argparse.Namespace, store: pathlib.Path) -> list[str]:
    from gpupipe.data.ingest import SourceOptions, ingest
    from gpupipe.data.ingest.report import FAIL as NOTHING_TAKEN

    options = SourceOptions(chosen.sector_map, chosen.timeframe, chosen.adjusted, chosen.strict)
    report = ingest(chosen.data, store, options, calendar=chosen.calendar, wait_s=chosen.wait)
    if report.status == NOTHING_TAKEN:
        raise UserError(f"nothing of {report.source} was taken: {'; '.join(report.warnings) or 'no bars are left'}")
    return list(report.warnings)


def _train(chosen: argparse.Namespace, out: pathlib.Path, store: pathlib.Path) -> list[str]:
    """`gpupipe run` with the night's options, on the stored bars: what is said of the source was used for storing."""
    from gpupipe.cli import run

    warm = chosen.warm_start
    if warm is not None and pathlib.Path(warm).resolve() == out.resolve() and not _finished(out):
        warm = None  # the first night: from then on there is something to go on from
    stored = {"data": str(store), "sector_map": None, "timeframe": None, "adjusted": False, "strict": False}
    run.do_run(argparse.Namespace(**{**vars(chosen), **stored, "warm_start": warm, "quiet": True}))
    return []


def _finished(out: pathlib.Path) -> bool:
    """Whether there is a run to go on from, also while a killed one was about to take its place."""
    from gpupipe.artifacts.layout import MANIFEST
    from gpupipe.store.content_store import Store

    return (out / MANIFEST).exists() or Store(out).replaced.exists()


def _backtest(chosen: argparse.Namespace, store: pathlib.Path) -> list[str]:
    from gpupipe.cli import backtest

    backtest.run(_asked(
        backtest.add_arguments, models=chosen.out, data=str(store), sectors=chosen.sectors, device=chosen.device,
        quiet=True,
    ))  # fmt: skip
    return []


def _scan(chosen: argparse.Namespace, out: pathlib.Path, store: pathlib.Path) -> list[str]:
    from gpupipe.cli import scan

    scan.run(_asked(
        scan.add_arguments, models=chosen.out, data=str(store), device=chosen.device, quiet=chosen.quiet,
        family=chosen.family, top=chosen.top, to=str(out / SIGNALS), active=str(out / ACTIVE),
    ))  # fmt: skip
    return []


def _asked(add_arguments: Callable[[argparse.ArgumentParser], None], **options: Any) -> argparse.Namespace:
    """A command's usual options, but for these."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return argparse.Namespace(**{**vars(parser.parse_args([])), **options})


def _report(out: pathlib.Path) -> list[str]:
    from gpupipe import report

    report.write(out)
    return []


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
