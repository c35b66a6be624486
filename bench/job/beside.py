"""The job beside busy processes: `python -m bench.job.beside [--beside 0,1,2] [--times 3] -- RUN OPTIONS`.

For each number of busy processes, `python -m gpupipe.run RUN OPTIONS` runs in a fresh process and a fresh OUT, in turn
with each variant of the environment (VARIANTS; the first is the job as it is). A busy process is one thread that
computes without a pause. What the cores' share explains is measured by a probe: as many computing processes as cores,
alone and beside the busy ones; `expected` is the probe's slowdown, `slowdown` the job's, both against the quiet
machine. All runs must give the same models, or it stops.

`pool_s` and `group_s` are the seconds of the pooled fits and of the fits of single groups, summed over the tasks: tasks
run side by side, so their sum exceeds the wall time. The cores bind. The last lines are JSON, one for each number of
busy processes and variant.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial

from bench import runs
from bench.timing import cores, in_turn

VARIANTS: dict[str, dict[str, str]] = {
    "as it is": {},  # gpupipe.runtime.openmp
    "spin 300000": {"GOMP_SPINCOUNT": "300000"},  # libgomp's own choice where no policy is set
    "spin 30000": {"GOMP_SPINCOUNT": "30000"},
    "spin 10000": {"GOMP_SPINCOUNT": "10000"},
    "spin 1000": {"GOMP_SPINCOUNT": "1000"},
    "passive waiting": {"OMP_WAIT_POLICY": "passive"},
}
PROBE_S = 4.0


def main(arguments: list[str] | None = None) -> int:
    parser = runs.options(__doc__, times=3)
    parser.add_argument("--beside", type=runs.numbers(), default=[0, 1, 2], help="numbers of busy processes")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(VARIANTS), help="names of variants")
    parser.add_argument("options", nargs="*", help="options of gpupipe.run, after --")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        return runs.report("beside", lines(chosen, pathlib.Path(folder)), options=chosen.options, times=chosen.times)


def lines(chosen: argparse.Namespace, folder: pathlib.Path) -> Iterator[runs.Line]:
    """One line for each number of busy processes and variant."""
    reference, quiet_rate, quiet_wall = None, probe(), {}
    for n_busy in chosen.beside:
        with busy(n_busy):
            rate = probe()
            sides = {
                name: partial(job, chosen.options, VARIANTS[name], folder / f"{n_busy} {name}") for name in chosen.only
            }
            repeated = in_turn(chosen.times, sides)
        for name, jobs in repeated.items():
            reference = reference or jobs[0]
            runs.require_same_models(jobs, reference, f"{name} beside {n_busy}")
            wall_s = runs.median(jobs, lambda run: run.wall_s, 2)
            quiet_wall.setdefault(name, wall_s)
            yield {
                "beside": n_busy, "variant": name, "wall_s": wall_s,
                "cpu_s": runs.median(jobs, lambda run: run.cpu_s, 2),
                "pool_s": runs.median(jobs, lambda run: fit_seconds(run.out)[0], 2),
                "group_s": runs.median(jobs, lambda run: fit_seconds(run.out)[1], 2),
                "expected": round(quiet_rate / rate, 3), "slowdown": round(wall_s / quiet_wall[name], 3),
                "excess": round(wall_s / quiet_wall[name] / (quiet_rate / rate), 3),
            }  # fmt: skip


def job(options: list[str], environment: dict[str, str], folder: pathlib.Path, k: int) -> runs.Run:
    """One run of the job in a changed environment."""
    folder.mkdir(exist_ok=True)
    return runs.run_job(options, folder / str(k), env={**os.environ, **environment})


def fit_seconds(out: pathlib.Path) -> tuple[float, float]:
    """Seconds of the fits of pools and of groups in a run's log."""
    pool_s = group_s = 0.0
    for text in (out / "run.jsonl").read_text().splitlines():
        entry = json.loads(text)
        if entry["event"] == "unit":
            pooled = entry["unit"].endswith("/pool")
            pool_s, group_s = pool_s + entry["seconds"] * pooled, group_s + entry["seconds"] * (not pooled)
    return pool_s, group_s


@contextlib.contextmanager
def busy(n: int) -> Iterator[None]:
    """Let n processes compute without a pause."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=compute, args=(float("inf"),), daemon=True) for _ in range(n)]
    try:
        for process in processes:
            process.start()
        time.sleep(1.0 if n else 0.0)  # until they compute
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def probe() -> float:
    """Work a second of as many computing processes as cores, the median of three measurements."""
    context = multiprocessing.get_context("spawn")
    rates = []
    with context.Pool(cores()) as pool:
        for _ in range(3):
            rates.append(sum(pool.map(compute, [PROBE_S] * cores(), chunksize=1)))
    return statistics.median(rates)


def compute(limit_s: float) -> float:
    """Compute for some seconds; the work done, in loops a second."""
    began, loops = time.perf_counter(), 0
    while time.perf_counter() - began < limit_s:
        sum(range(10_000))
        loops += 1
    return loops / (time.perf_counter() - began)


if __name__ == "__main__":
    sys.exit(main())
