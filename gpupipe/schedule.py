"""Schedule: units of work on some threads, the longest first by what such units have taken so far."""

from __future__ import annotations

import heapq
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

# Microseconds a fitted row, of units with six labels and the preset fast on one core of 2026: where a run begins. Only
# the ratios matter, and the run's own units replace them as they finish.
FIRST_GUESS_US = {
    "xgb_joint pool": 75.0, "xgb_hist pool": 25.0, "xgb_leafwise pool": 25.0, "random_forest pool": 25.0,
    "linear pool": 7.0, "xgb_hist": 60.0, "xgb_leafwise": 55.0, "xgb_joint": 15.0, "random_forest": 12.0, "linear": 7.0,
}  # fmt: skip


@dataclass(frozen=True)
class Unit:
    """A unit of work: its kind, how many rows it fits, what to do, and the units that wait for it."""

    kind: str
    n_rows: int
    work: Callable[[], Any]
    then: tuple[Unit, ...] = ()


class Costs:
    """Seconds that a unit of a kind will take: its rows times the mean seconds a row of those that were observed."""

    def __init__(self) -> None:
        self._seen: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._lock = threading.Lock()

    def observe(self, kind: str, n_rows: int, seconds: float) -> None:
        """Learn from a finished unit."""
        with self._lock:
            self._seen[kind][0] += seconds
            self._seen[kind][1] += n_rows

    def expected_s(self, kind: str, n_rows: int) -> float:
        """What a unit will take; a kind never heard of is taken for the slowest."""
        with self._lock:
            seconds, rows = self._seen.get(kind, (0.0, 0.0))
        a_row = seconds / rows if rows else FIRST_GUESS_US.get(kind, max(FIRST_GUESS_US.values())) / 1e6
        return a_row * n_rows


def in_parallel(tasks: Sequence[Callable[[], Any]], jobs: int) -> list[Any]:
    """Run independent tasks on `jobs` threads with Dask; results in order, the first error is raised."""
    import dask

    delayed = [dask.delayed(task, pure=False)() for task in tasks]
    return list(dask.compute(*delayed, scheduler="threads", num_workers=jobs))


def longest_first(units: Sequence[Unit], costs: Costs, jobs: int) -> None:
    """Run units on `jobs` threads, and those that wait for one once it is done; the first error is raised.

    A thread that is free takes the unit that is expected to take longest with all that waits for it, divided among
    the threads, which ends at most a third later than the best order of independent units (Graham 1969).
    """
    ready: list[tuple[float, int, Unit]] = []
    changed = threading.Condition()
    state = {"number": 0, "running": 0, "failed": False}

    def importance(unit: Unit) -> float:
        return costs.expected_s(unit.kind, unit.n_rows) + sum(importance(one) for one in unit.then) / jobs

    def add(unit: Unit) -> None:
        state["number"] += 1  # of two alike the first comes first
        heapq.heappush(ready, (-importance(unit), state["number"], unit))

    def take() -> Unit | None:
        with changed:
            changed.wait_for(lambda: ready or not state["running"] or state["failed"])
            if not ready or state["failed"]:
                return None
            state["running"] += 1
            return heapq.heappop(ready)[2]

    def thread() -> None:
        while (unit := take()) is not None:
            done = False
            try:
                unit.work()
                done = True
            finally:
                with changed:
                    state["running"] -= 1
                    state["failed"] = state["failed"] or not done
                    for one in unit.then if done else ():
                        add(one)
                    changed.notify_all()

    for unit in units:
        add(unit)
    try:
        in_parallel([thread] * jobs, jobs)
    except BaseException:  # Ctrl-C is raised here, not in the threads: they would go on to the last unit
        with changed:
            state["failed"] = True
            changed.notify_all()
        raise
