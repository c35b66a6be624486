"""What scheduling costs, and what it hides: `python -m bench.job.scheduling [--times 5] [--data DATA
--sector-map FILE]`.

Three measurements, in one run:
- the scheduler's own time: the units of a job as a graph, with nothing in them, over the seconds of that job;
- the same units by the graph on one thread and by a plain loop, in turn, each time in a fresh OUT: medians, and the
  standard error of their ratio, which says what can be told apart;
- from the log of one run with --jobs threads: the idle share of the threads, and how much of the preparation
  (features, labels, rows, digests, bins) happened while something was trained. For --pool all, features and labels of
  all sectors and the first fold come before any training, whatever the schedule: their share is said apart.
The last line is JSON; the exit code is 1 where the scheduler's own time is above 2 % of the job, or the graph is slower
than the loop by 2 % and more than two standard errors.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any
from unittest import mock

from gpupipe import config
from gpupipe.data import load
from gpupipe.pipeline import job as pipeline
from gpupipe.runtime import run_log, task_graph, timeline
from gpupipe.training import groups

LIMIT = 0.02


def plain_loop(units: Any, costs: Any, jobs: int, at_once: int = 1, homes: int = 1) -> None:
    """The same units, one after the other in the order in which they were given; a place is closed behind its last."""
    last = {unit.place: k for k, unit in enumerate(units)}
    for k, unit in enumerate(units):
        unit.work(0)
        if last[unit.place] == k:
            unit.place.close()


def execute(job: Any, run_graph: Any) -> float:
    """Seconds of training in a fresh OUT, its units run by `run_graph`."""
    spent: list[float] = []

    def timed(*arguments: Any, **named: Any) -> None:
        began = time.perf_counter()
        run_graph(*arguments, **named)
        spent.append(time.perf_counter() - began)

    with tempfile.TemporaryDirectory() as name, mock.patch.object(groups, "run_graph", timed):
        job(pathlib.Path(name, "OUT"), 1)
    return sum(spent)


def own_time(job: Any, times: int) -> tuple[int, float]:
    """How many units the job has, and the median seconds of its graph with nothing in them."""
    graphs: list[Any] = []
    real = task_graph.run_graph

    def kept(units: Any, *rest: Any) -> None:
        graphs.append(units)
        real(units, *rest)

    with tempfile.TemporaryDirectory() as name, mock.patch.object(groups, "run_graph", kept):
        job(pathlib.Path(name, "OUT"), 1)
    empty: list[Any] = []
    for units in graphs:
        copies: dict[Any, Any] = {}
        for unit in units:
            needs = tuple(copies[one] for one in unit.needs)
            copies[unit] = dataclasses.replace(unit, work=lambda home: None, needs=needs)
        empty += copies.values()
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        real(empty, task_graph.Costs(), 2)
        seconds.append(time.perf_counter() - began)
    return len(empty), statistics.median(seconds)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and say by the exit code whether the limits hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--data", default="simulated:symbols=88,bars=320,signal=0.5")
    parser.add_argument("--sector-map")
    parser.add_argument("--sectors", default="all")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--jobs", type=int, default=task_graph.available_cores())
    chosen = parser.parse_args(arguments)
    panel, report = load(chosen.data, chosen.sector_map, chosen.sectors)
    settings = config.make(chosen.preset, settings=chosen.set)

    def job(out: pathlib.Path, jobs: int) -> str:
        return pipeline.execute(panel, report, settings, out, jobs)[0]["run_key"]

    n_units, own_s = own_time(job, max(5, chosen.times))  # kernels are compiled, pages are warm
    seconds: dict[str, list[float]] = {"graph": [], "loop": []}
    ways = {"graph": task_graph.run_graph, "loop": plain_loop}
    for k in range(chosen.times):
        for name in ("graph", "loop") if k % 2 else ("loop", "graph"):
            seconds[name].append(execute(job, ways[name]))
    with tempfile.TemporaryDirectory() as name:
        out = pathlib.Path(name, "OUT")
        key = job(out, chosen.jobs)
        found = timeline.find(run_log.read(out / run_log.FILE), key)
        assert found is not None
    graph_s, loop_s = (statistics.median(seconds[name]) for name in ("graph", "loop"))
    ratios = [a / b - 1 for a, b in zip(seconds["graph"], seconds["loop"], strict=True)]
    share, error = statistics.median(ratios), statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else 1.0
    lanes = timeline.shares(found)
    own, hidden = own_s / loop_s, timeline.hidden_share(found)
    idle = statistics.mean(one.idle for one in lanes)
    preparing = [one for one in found.events if one["event"] in ("features", "labels", "prepared")]
    first = min(found.since(one) - one["seconds"] for one in found.made if one["event"] == "unit")
    prepared_s = sum(one["seconds"] for one in preparing)
    before = sum(one["seconds"] for one in preparing if found.since(one) <= first) / prepared_s
    print(f"{panel.n_rows:,} rows, {n_units} units: the scheduler itself {1000 * own_s:.1f} ms, {100 * own:.3f} %")
    told = f"{100 * share:+.2f} % (standard error {100 * error:.2f} %)"
    print(f"graph {graph_s:.3f} s, plain loop {loop_s:.3f} s: {told}")
    print(
        f"with {chosen.jobs} jobs: idle {100 * idle:.1f} %; of {prepared_s:.2f} s of preparation {100 * hidden:.0f} % "
        f"beside training, {100 * before:.0f} % before any"
    )
    good = own <= LIMIT and (share <= LIMIT or share <= 2 * error)
    print(json.dumps({
        "benchmark": "scheduling", "rows": panel.n_rows, "units": n_units, "own_s": round(own_s, 5),
        "own_share": round(own, 6), "graph_s": round(graph_s, 4), "loop_s": round(loop_s, 4),
        "share": round(share, 5), "share_error": round(error, 5), "limit": LIMIT, "times": chosen.times,
        "jobs": chosen.jobs, "idle_share": round(idle, 4), "preparation_s": round(prepared_s, 3),
        "hidden_share": round(hidden, 4), "before_any_share": round(before, 4), "preset": chosen.preset,
        "pool": settings.training.pool, "within_limit": good,
    }))  # fmt: skip
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
