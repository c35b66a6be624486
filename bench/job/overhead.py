"""What the log costs: `python -m bench.job.overhead [--times 9] [--data DATA --sector-map FILE] [--preset fast]`.

The same job is done in one process with OUT/run.jsonl written and not written, in turn, each time in a fresh OUT; the
medians of both are compared, and their spread says what can be told apart. Beside it the log's own time is measured,
all that is done within `runlog.event` in a run, added up over its threads, over the seconds of that run: it tells much
less than 1 %. The last line is JSON; the exit code is 1 if either share is above 1 %, the first by two standard errors.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

from gpupipe import config
from gpupipe.data import load
from gpupipe.pipeline import job as pipeline
from gpupipe.runtime import run_log

LIMIT = 0.01


@contextlib.contextmanager
def without_log(out: pathlib.Path, **about: Any) -> Iterator[None]:
    """In the place of `runlog.opened`: events find no log."""
    yield


class Timed:
    """`Journal.add` with a clock around it."""

    def __init__(self) -> None:
        self.seconds, self.events, self._lock = 0.0, 0, threading.Lock()
        self._add = run_log.Journal.add

    def __call__(self, journal: run_log.Journal, event: str, **fields: Any) -> None:
        began = time.perf_counter()
        self._add(journal, event, **fields)
        elapsed_s = time.perf_counter() - began
        with self._lock:
            self.seconds += elapsed_s
            self.events += 1


def once(job: Any, logged: bool) -> float:
    """Seconds of the job in a fresh OUT."""
    opened = run_log.opened
    with tempfile.TemporaryDirectory() as name:
        began = time.perf_counter()
        try:
            if not logged:
                run_log.opened = without_log
            job(pathlib.Path(name, "OUT"))
        finally:
            run_log.opened = opened
        return time.perf_counter() - began


def own_time(job: Any) -> tuple[float, int, int]:
    """Share of one run that is spent in the log, summed over threads; its events, and bytes of the file."""
    timed, add = Timed(), run_log.Journal.add
    with tempfile.TemporaryDirectory() as name:
        out = pathlib.Path(name, "OUT")
        run_log.Journal.add = lambda journal, event, **fields: timed(journal, event, **fields)  # type: ignore
        began = time.perf_counter()
        try:
            job(out)
        finally:
            run_log.Journal.add = add  # type: ignore
        return timed.seconds / (time.perf_counter() - began), timed.events, (out / run_log.FILE).stat().st_size


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=9)
    parser.add_argument("--data", default="simulated:symbols=88,bars=320,signal=0.5")
    parser.add_argument("--sector-map")
    parser.add_argument("--sectors", default="energy,technology,utilities,health_care")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--jobs", type=int)
    chosen = parser.parse_args(arguments)
    panel, report = load(chosen.data, chosen.sector_map, chosen.sectors)
    settings = config.make(chosen.preset, settings=chosen.set)

    def job(out: pathlib.Path) -> None:
        pipeline.execute(panel, report, settings, out, chosen.jobs)

    once(job, logged=True)  # kernels are compiled, pages are warm
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for k in range(chosen.times):
        for logged in (True, False) if k % 2 else (False, True):
            seconds[logged].append(once(job, logged))
    own, events, size = own_time(job)
    on, off = (statistics.median(seconds[logged]) for logged in (True, False))
    differences = [a / b - 1 for a, b in zip(seconds[True], seconds[False], strict=True)]
    spread = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else float("inf")
    share = statistics.median(differences)
    print(f"{panel.n_rows:,} rows, {events} events, {size:,} bytes of log")
    print(f"with the log {on:.3f} s, without {off:.3f} s: {100 * share:+.2f} % (standard error {100 * spread:.2f} %)")
    print(f"within the log {100 * own:.3f} % of a run, {1e6 * own * on / max(1, events):.0f} us an event")
    good = own <= LIMIT and share - 2 * spread <= LIMIT
    print(json.dumps({
        "benchmark": "overhead of the log", "rows": panel.n_rows, "events": events, "log_bytes": size,
        "with_s": round(on, 4), "without_s": round(off, 4), "share": round(share, 5),
        "share_error": round(spread, 5) if spread < 1 else None, "own_share": round(own, 6), "limit": LIMIT,
        "times": chosen.times, "preset": chosen.preset, "within_limit": good,
    }))  # fmt: skip
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
