"""Schedule: a graph of units on some threads, the longest first by what such units have taken so far."""

from __future__ import annotations

import functools
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

# Microseconds a fitted row, of units with six labels and the preset fast on one core of 2026: where a run begins. Only
# the ratios matter, and the run's own units replace them as they finish.
FIRST_GUESS_US = {
    "xgb_joint pool": 75.0, "xgb_hist pool": 25.0, "xgb_leafwise pool": 25.0, "random_forest pool": 25.0,
    "prepare": 3.0, "bins": 7.0, "stack": 3.0, "linear pool": 7.0,
    "xgb_hist": 60.0, "xgb_leafwise": 55.0, "xgb_joint": 15.0, "random_forest": 12.0, "linear": 7.0,
}  # fmt: skip


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# What is left of the places that are open when the next one is prepared: so many units for each thread, or so many
# times the seconds that the preparation is expected to take.
AHEAD_UNITS, AHEAD_TIMES = 3, 1.5


@dataclass(frozen=True, eq=False)
class Place:
    """Memory that a group of units shares, such as a fold with its bins; units of lower places go first.

    close: called once all its units are done.  shared: whether every home works on it, or the one that opened it first.
    """

    order: int
    close: Callable[[], None] = lambda: None
    shared: bool = True


@dataclass(frozen=True, eq=False)
class Unit:
    """A unit of work of a graph.

    kind, n_rows: what its cost is estimated by.  work(home): what to do; `home` is where the thread's work is done, a
    number below `homes` of `run_graph`.  needs: units that must be done before.  place: what it needs room in; the
    unit that opens a place prepares what the others share; one that is done ahead does so behind it.
    """

    kind: str
    n_rows: int
    work: Callable[[int], Any]
    needs: tuple[Unit, ...] = ()
    place: Place = Place(0)
    opens: bool = False
    ahead: bool = False


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


def run_graph(units: Sequence[Unit], costs: Costs, jobs: int, at_once: int = 2, homes: int = 1) -> None:
    """Do all units, each after those that it needs, on `jobs` threads that Dask runs; the first error is raised.

    A thread that is free takes, of the lowest place that it may work on, the unit that is expected to take longest with
    all that waits for it there, divided among the threads: of independent units that ends at most a third later than
    the best order (Graham 1969). When hardly enough units for the threads are left, or none is ready, the next place
    is opened beside them, so that what it prepares is ready when they are done; never more than `at_once` places are
    open on a home, which bounds what is held in memory.

    homes: of how many workers the threads are, in turn. A thread works on places of its own home before it helps
    others. Units must be given after those they need, and places in the order of their numbers.
    """
    graph = _Graph(units, costs, jobs, at_once, homes)
    try:
        in_parallel([functools.partial(graph.thread, number % homes) for number in range(jobs)], jobs)
    except BaseException:  # Ctrl-C is raised here, not in the threads: they would go on to the last unit
        graph.stop()
        raise


class _Graph:
    """The state of a graph that is being worked on; all of it is changed under one lock."""

    def __init__(self, units: Sequence[Unit], costs: Costs, jobs: int, at_once: int, homes: int) -> None:
        self._costs, self._jobs, self._at_once, self._homes = costs, jobs, at_once, homes
        self._changed = threading.Condition()
        self._number = {unit: k for k, unit in enumerate(units)}
        self._missing = {unit: set(unit.needs) for unit in units}
        self._waiting: dict[Unit, list[Unit]] = defaultdict(list)
        self._left: dict[Place, int] = defaultdict(int)  # units that are not done
        self._unbegun: dict[Place, set[Unit]] = defaultdict(set)
        for unit in units:
            assert all(need in self._number for need in unit.needs), "a unit needs one that is not in the graph"
            self._left[unit.place] += 1
            self._unbegun[unit.place].add(unit)
            for need in unit.needs:
                self._waiting[need].append(unit)
        self._ready = [unit for unit in units if not unit.needs]
        self._opened_by: dict[Place, int] = {}
        self._running = 0
        self._failed = False

    def thread(self, home: int) -> None:
        """What each thread does."""
        while (unit := self._take(home)) is not None:
            done = False
            try:
                unit.work(home)
                done = True
            finally:
                self._finish(unit, done)

    def stop(self) -> None:
        """Let no thread take another unit."""
        with self._changed:
            self._failed = True
            self._changed.notify_all()

    def _take(self, home: int) -> Unit | None:
        with self._changed:
            while True:
                if self._failed or not (self._ready or self._running):
                    return None
                if (unit := self._choose(home)) is not None:
                    break
                assert self._running, "units wait for each other, or for a place that none of them closes"
                self._changed.wait()
            self._ready.remove(unit)
            self._unbegun[unit.place].remove(unit)
            self._running += 1
            if unit.opens:
                self._opened_by[unit.place] = home
            return unit

    def _choose(self, home: int) -> Unit | None:
        """What a thread of that home does next, if there is something for it."""
        opens = [unit for unit in self._ready if unit.opens]
        mine = [unit for unit in self._ready if not unit.opens and self._is_of(unit.place, home)]
        own_places = [place for place in self._opened_by if self._is_of(place, home)]
        next_one = min(opens, key=lambda unit: unit.place.order, default=None)
        room = len(own_places) < self._at_once
        if next_one is not None and room and (not mine or self._is_time_for(next_one.place, own_places)):
            return next_one
        prepares = min((unit for unit in mine if unit.ahead), key=lambda unit: unit.place.order, default=None)
        if prepares is not None:
            before = [place for place in own_places if place.order < prepares.place.order]
            if self._is_time_for(prepares.place, before):
                return prepares
        # Where nothing of its own is ready, what others have opened.
        found = mine or [unit for unit in self._ready if not unit.opens]
        return min(found, key=self._urgency, default=None)

    def _is_time_for(self, place: Place, before: Iterable[Place]) -> bool:
        """Whether so little is left of the places before that what a place's units share is to be made beside it."""
        threads, left = self._jobs // self._homes, [unit for one in before for unit in self._unbegun[one]]
        shared_s = sum(self._expected_s(unit) for unit in self._unbegun[place] if unit.opens or unit.ahead)
        few = len(left) <= AHEAD_UNITS * threads
        return few or sum(map(self._expected_s, left)) / threads <= AHEAD_TIMES * shared_s

    def _expected_s(self, unit: Unit) -> float:
        return self._costs.expected_s(unit.kind, unit.n_rows)

    def _is_of(self, place: Place, home: int) -> bool:
        return place.shared or self._opened_by.get(place, home) == home

    def _urgency(self, unit: Unit) -> tuple[int, float, int]:
        return unit.place.order, -self._importance(unit), self._number[unit]

    def _importance(self, unit: Unit) -> float:
        """Seconds of a unit and, divided among the threads, of what waits for it in its own place."""
        waiting = (one for one in self._waiting[unit] if one.place is unit.place)
        return self._expected_s(unit) + sum(map(self._importance, waiting)) / self._jobs

    def _finish(self, unit: Unit, done: bool) -> None:
        with self._changed:
            self._running -= 1
            self._failed = self._failed or not done
            self._left[unit.place] -= 1
            for one in self._waiting[unit] if done else ():
                self._missing[one].remove(unit)
                if not self._missing[one]:
                    self._ready.append(one)
            if closed := self._left[unit.place] == 0:
                self._opened_by.pop(unit.place, None)
            self._changed.notify_all()
        if closed:
            unit.place.close()
