"""What the log and the scheduler of a run cost: `python -m bench.job.overhead [--of log|graph] [--times 9]`.

--of log: the seconds within `Journal.add`, added up over threads, as a share of one run. (With the log and without it,
in turn, the spread of runs hides a share this small.) The limit is 1 %.

--of graph:
- the time of the scheduler itself: the tasks of a job as a graph, with nothing in them, over the seconds of that job;
- the same tasks by the graph on one thread and by a plain loop, in turn, each time in a fresh OUT: medians, and the
  standard error of their ratio, which says what can be told apart;
- from the log of one run with --jobs threads: the idle share of the threads, and how much of the preparation
  (features, labels, rows, digests, bins) happened while something was trained. For --pool all, features and labels of
  all sectors and the first fold come before any training, whatever the schedule: their share is reported apart.
The limit is 2 % of the job for the scheduler itself, and for the graph over the loop beyond two standard errors.

The cores bind, so nothing else may run. The last line is JSON; the exit code is 1 where a limit is not kept.
"""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

from bench import runs
from bench.timing import cores, excess, in_turn, timed
from gpupipe.pipeline.job import JobOptions, execute
from gpupipe.runtime import run_log, task_graph, timeline
from gpupipe.training import groups
from gpupipe.workloads import equity

LIMIT = {"log": 0.01, "graph": 0.02}
Job = Callable[[pathlib.Path], Any]
Answer = tuple[dict[str, Any], bool]  # the facts, and whether the limits are kept


def in_fresh_out(job: Job) -> float:
    """Seconds of the job in a fresh OUT."""
    with tempfile.TemporaryDirectory() as folder:
        return timed(lambda: job(pathlib.Path(folder, "OUT")))[0]


def measure_log(job: Job, jobs: int, times: int) -> Answer:
    """The time within the log, the median of some runs."""
    in_fresh_out(job)  # kernels are compiled, pages are warm
    shares, n_events, sizes = zip(*(share_within_log(job) for _ in range(times)), strict=True)
    share = statistics.median(shares)
    print(f"{n_events[0]} events, {sizes[0]:,} bytes of log: {100 * share:.3f} % of a run")
    return {"events": n_events[0], "log_bytes": sizes[0], "own_share": share}, share <= LIMIT["log"]


def share_within_log(job: Job) -> tuple[float, int, int]:
    """Share of one run that is spent in the log, summed over threads; its events, and bytes of the file."""
    add, spent = run_log.Journal.add, []

    def clocked(journal: run_log.Journal, event: str, **fields: Any) -> None:
        spent.append(timed(lambda: add(journal, event, **fields))[0])

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(run_log.Journal, "add", clocked):
        out = pathlib.Path(folder, "OUT")
        elapsed_s, _ = timed(lambda: job(out))
        return sum(spent) / elapsed_s, len(spent), (out / run_log.FILE).stat().st_size


def plain_loop(tasks: Any, costs: Any, jobs: int, open_slots: int = 1, n_workers: int = 1) -> None:
    """In the place of `run_graph`: the same tasks in the order of the list; each slot is closed after its last task."""
    last = {task.slot: k for k, task in enumerate(tasks)}
    for k, task in enumerate(tasks):
        task.work(0)
        if last[task.slot] == k:
            task.slot.close()


def with_graph(job: Job, run_graph: Callable[..., None]) -> tuple[float, list[Any]]:
    """Seconds of training in a fresh OUT, its tasks run by `run_graph`, and the tasks."""
    spent, graphs = [], []

    def clocked(tasks: Any, *rest: Any) -> None:
        graphs.append(tasks)
        spent.append(timed(lambda: run_graph(tasks, *rest))[0])

    with mock.patch.object(groups, "run_graph", clocked):
        in_fresh_out(job)
    return sum(spent), [task for tasks in graphs for task in tasks]


def measure_graph(job: Job, jobs: int, times: int) -> Answer:
    """The time of the scheduler itself, the graph over a plain loop, and what one run with `jobs` threads hides."""
    real = task_graph.run_graph
    _, tasks = with_graph(lambda out: job(out, 1), real)
    empty: dict[Any, Any] = {}
    for task in tasks:
        needs = tuple(empty[need] for need in task.needs)
        empty[task] = dataclasses.replace(task, work=lambda worker: None, needs=needs)
    schedule = partial(real, list(empty.values()), task_graph.Costs(), 2)
    scheduler_s = statistics.median(timed(schedule)[0] for _ in range(max(5, times)))
    sides = {
        name: lambda k, way=way: with_graph(lambda out: job(out, 1), way)[0]
        for name, way in (("loop", plain_loop), ("graph", real))
    }
    seconds = in_turn(times, sides)
    share, error = excess(seconds["graph"], seconds["loop"])
    graph_s, loop_s = (statistics.median(seconds[side]) for side in ("graph", "loop"))
    hidden = what_is_hidden(job, jobs)
    print(f"{len(tasks)} tasks: the scheduler itself {1000 * scheduler_s:.1f} ms, {100 * scheduler_s / loop_s:.3f} %")
    print(f"graph {graph_s:.3f} s, loop {loop_s:.3f} s: {100 * share:+.2f} % (standard error {100 * error:.2f} %)")
    idle, hid, before = (100 * hidden[name] for name in ("idle_share", "hidden_share", "before_any_share"))
    print(f"with {jobs} jobs: idle {idle:.1f} %; of {hidden['preparation_s']:.2f} s of preparation {hid:.0f} % while "
          f"something trained, {before:.0f} % before any training")  # fmt: skip
    return {
        "units": len(tasks), "own_s": scheduler_s, "own_share": scheduler_s / loop_s,
        "graph_s": graph_s, "loop_s": loop_s, "share": share, "share_error": runs.finite(error), "jobs": jobs, **hidden,
    }, scheduler_s / loop_s <= LIMIT["graph"] and share <= max(LIMIT["graph"], 2 * error)  # fmt: skip


def what_is_hidden(job: Job, jobs: int) -> dict[str, float]:
    """From the log of one run: idle threads, and preparation that happened while something was trained."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder, "OUT")
        key = job(out, jobs)
        log = timeline.find(run_log.read(out / run_log.FILE), key)
    assert log is not None
    preparing = [event for event in log.events if event["event"] in ("features", "labels", "prepared")]
    first = min(log.since(event) - event["seconds"] for event in log.computed if event["event"] == "unit")
    prepared_s = sum(event["seconds"] for event in preparing)
    before_s = sum(event["seconds"] for event in preparing if log.since(event) <= first)
    return {
        "idle_share": statistics.mean(lane.idle for lane in timeline.shares(log)), "preparation_s": prepared_s,
        "hidden_share": timeline.hidden_share(log), "before_any_share": before_s / prepared_s,
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    market = "simulated:symbols=88,bars=320,signal=0.5"
    parser = runs.options(__doc__, data=market, sectors="all", preset="fast", set=[], times=9)
    parser.add_argument("--of", default="log", choices=sorted(LIMIT))
    parser.add_argument("--jobs", type=int, default=cores())
    chosen = parser.parse_args(arguments)
    panel, report = runs.read(chosen, chosen.sectors)
    settings = equity.make(chosen.preset, settings=chosen.set)

    def job(out: pathlib.Path, jobs: int = chosen.jobs) -> str:
        return execute(equity.EQUITY, panel, report, settings, out, JobOptions(jobs=jobs))[0]["run_key"]

    facts, good = (measure_log if chosen.of == "log" else measure_graph)(job, chosen.jobs, chosen.times)
    runs.finish(
        f"overhead of the {chosen.of}", rows=panel.n_rows, **facts, limit=LIMIT[chosen.of], times=chosen.times,
        preset=chosen.preset, pool=settings.training.pool, within_limit=good,
    )  # fmt: skip
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
