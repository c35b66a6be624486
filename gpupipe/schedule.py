"""Schedule: independent units of work on some threads, the longest first by what such units have taken so far."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

# Microseconds a fitted row, of a sector's unit with six labels and the preset fast on one core of 2026: where a run
# begins. Only the ratios matter, and the run's own units replace them as they finish.
FIRST_GUESS_US = {"xgb_hist": 80.0, "xgb_leafwise": 80.0, "xgb_joint": 40.0, "random_forest": 30.0, "linear": 10.0}


@dataclass(frozen=True)
class Unit:
    """A unit of work: its kind, how many rows it fits, and what to do."""

    kind: str
    n_rows: int
    work: Callable[[], Any]


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


def longest_first(units: Sequence[Unit], costs: Costs, jobs: int) -> list[Any]:
    """Run units on `jobs` threads; results in the order of `units`.

    A thread that is free takes the longest unit that is left, which ends at most a third later than the best order
    there is (Graham 1969), where the order as given may end with the longest unit running alone.
    """
    order = sorted(range(len(units)), key=lambda k: -costs.expected_s(units[k].kind, units[k].n_rows))
    turn, lock = iter(order), threading.Lock()
    results: list[Any] = [None] * len(units)

    def thread() -> None:
        while True:
            with lock:
                k = next(turn, None)
            if k is None:
                return
            results[k] = units[k].work()

    in_parallel([thread] * min(jobs, len(units)), jobs)
    return results
