"""Task graph: tasks on some threads, the longest first by what such tasks have taken so far."""

from __future__ import annotations

import functools
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# What is left of the open slots when the next one is prepared: so many tasks for each thread, or so many times the
# seconds that the preparation is expected to take.
AHEAD_TASKS, AHEAD_TIMES = 3, 1.5
DEVICE_JOBS = 2  # tasks that occupy the GPU at a time: one fills the gaps between the other's launches
# Microseconds a row, of tasks that every training has; estimators declare their own. Only the ratios matter, and the
# run's own tasks replace them as they finish.
FIRST_COST_US = {"prepare": 3.0, "bins": 7.0, "stack": 3.0}


@dataclass(frozen=True, eq=False)
class FoldSlot:
    """Memory that a group of tasks shares, such as a fold with its bins; tasks of lower slots go first.

    close: called once all its tasks are done.
    shared: whether every worker works on it, or only the one that opened it.

        >>> closed = []
        >>> slot = FoldSlot(0, close=lambda: closed.append("fold"))
        >>> run_graph([Task("fit", 100, lambda worker: None, slot=slot)], Costs(), jobs=1); closed
        ['fold']
    """

    order: int
    close: Callable[[], None] = lambda: None
    shared: bool = True


@dataclass(frozen=True, eq=False)
class Task:
    """One task of a graph.

    kind, n_rows: what its cost is estimated by.
    work(worker): what to do; `worker` is the number of the worker that the thread belongs to, below `n_workers` of
        `run_graph`.
    needs: tasks that must be done before.
    slot: the memory that it needs.
    opens: whether it prepares what the other tasks of its slot share.
    ahead: whether it is preparation that may run before the slots in front of it are done.
    on_device: whether it occupies the GPU: threads of its own do such tasks, beside the `jobs` that do the others.

        >>> done = []
        >>> first = Task("add", 1, lambda worker: done.append("first"))
        >>> second = Task("add", 1, lambda worker: done.append("second"), needs=(first,))
        >>> run_graph([first, second], Costs(), jobs=1); done
        ['first', 'second']
    """

    kind: str
    n_rows: int
    work: Callable[[int], Any]
    needs: tuple[Task, ...] = ()
    slot: FoldSlot = FoldSlot(0)
    opens: bool = False
    ahead: bool = False
    on_device: bool = False


class Costs:
    """Seconds that a task of a kind will take: its rows times the mean seconds a row of those that were observed.

    first_us: microseconds a row by kind, for kinds that were not observed yet.

        >>> costs = Costs()
        >>> costs.observe("linear pool", n_rows=1000, seconds=2.0)
        >>> costs.expected_s("linear pool", n_rows=500)
        1.0
    """

    def __init__(self, first_us: Mapping[str, float] | None = None) -> None:
        self._first_us = {**FIRST_COST_US, **(first_us or {})}
        self._observed: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._lock = threading.Lock()

    def observe(self, kind: str, n_rows: int, seconds: float) -> None:
        """Learn from a finished task."""
        with self._lock:
            self._observed[kind][0] += seconds
            self._observed[kind][1] += n_rows

    def observed(self, kind: str) -> tuple[float, int]:
        """Seconds that the finished tasks of a kind took in all, and their rows."""
        with self._lock:
            seconds, rows = self._observed.get(kind, (0.0, 0.0))
        return seconds, int(rows)

    def expected_s(self, kind: str, n_rows: int) -> float:
        """What a task will take; an unknown kind is taken for the slowest."""
        with self._lock:
            seconds, rows = self._observed.get(kind, (0.0, 0.0))
        if rows:
            return seconds / rows * n_rows
        return self._first_us.get(kind, max(self._first_us.values())) / 1e6 * n_rows


def in_parallel(calls: Sequence[Callable[[], Any]], jobs: int) -> list[Any]:
    """Run independent calls on `jobs` threads with Dask; results in order, the first error is raised."""
    import dask

    delayed = [dask.delayed(call, pure=False)() for call in calls]
    return list(dask.compute(*delayed, scheduler="threads", num_workers=jobs))


def run_graph(tasks: Sequence[Task], costs: Costs, jobs: int, open_slots: int = 2, n_workers: int = 1) -> None:
    """Do all tasks, each after those that it needs, on `jobs` threads that Dask runs; the first error is raised.

    A thread that is free takes, from the lowest slot that it may work on, the task that is expected to take longest
    with all that waits for it there, divided among the threads: of independent tasks that ends at most a third later
    than the best order (Graham 1969). When hardly enough tasks for the threads are left, or none is ready, the next
    slot is opened meanwhile, so that what it prepares is ready when they are done; never more than `open_slots` slots
    are open on a worker, which bounds what is held in memory.

    Tasks `on_device` run beside them, at most DEVICE_JOBS at a time, on threads that do nothing else.

    n_workers: how many workers the threads belong to, in turn. A thread works on the slots of its worker before
    it helps others. Tasks must be given after those they need, and slots in the order of their numbers.
    """
    graph = _Graph(tasks, costs, jobs, open_slots, n_workers)
    try:
        threads = [functools.partial(graph.thread, number % n_workers) for number in range(jobs)]
        if any(task.on_device for task in tasks):
            threads += [functools.partial(graph.thread, 0, on_device=True) for _ in range(DEVICE_JOBS)]
        in_parallel(threads, len(threads))
    except BaseException:  # Ctrl-C is raised here, not in the threads: they would work on to the last task
        graph.stop()
        raise


class _Graph:
    """The state of a running graph; all of it is changed under one lock."""

    def __init__(self, tasks: Sequence[Task], costs: Costs, jobs: int, open_slots: int, n_workers: int) -> None:
        self._costs, self._jobs, self._open_slots, self._n_workers = costs, jobs, open_slots, n_workers
        self._changed = threading.Condition()
        self._number = {task: k for k, task in enumerate(tasks)}
        self._missing = {task: set(task.needs) for task in tasks}
        self._waiting: dict[Task, list[Task]] = defaultdict(list)
        self._left: dict[FoldSlot, int] = defaultdict(int)  # tasks that are not done
        self._not_started: dict[FoldSlot, set[Task]] = defaultdict(set)
        for task in tasks:
            assert all(need in self._number for need in task.needs), "a task needs one that is not in the graph"
            self._left[task.slot] += 1
            self._not_started[task.slot].add(task)
            for need in task.needs:
                self._waiting[need].append(task)
        self._ready = [task for task in tasks if not task.needs]
        self._opened_by: dict[FoldSlot, int] = {}
        self._running = 0
        self._failed = False

    def thread(self, worker: int, on_device: bool = False) -> None:
        """What each thread does: tasks that occupy the GPU, or the others."""
        while (task := self._take(worker, on_device)) is not None:
            done = False
            try:
                task.work(worker)
                done = True
            finally:
                self._finish(task, done)

    def stop(self) -> None:
        """Let no thread take another task."""
        with self._changed:
            self._failed = True
            self._changed.notify_all()

    def _take(self, worker: int, on_device: bool) -> Task | None:
        with self._changed:
            while True:
                if self._failed or not (self._ready or self._running):
                    return None
                ready = [task for task in self._ready if task.on_device == on_device]
                if (task := self._choose(worker, ready)) is not None:
                    break
                others = len(ready) < len(self._ready)
                assert self._running or others, "tasks wait for each other, or for a slot that none of them closes"
                self._changed.wait()
            self._ready.remove(task)
            self._not_started[task.slot].remove(task)
            self._running += 1
            if task.opens:
                self._opened_by[task.slot] = worker
            return task

    def _choose(self, worker: int, ready: Sequence[Task]) -> Task | None:
        """What a thread of that worker does next of the ready tasks, if there is something for it."""
        opening = [task for task in ready if task.opens]
        mine = [task for task in ready if not task.opens and self._may_use(task.slot, worker)]
        my_slots = [slot for slot in self._opened_by if self._may_use(slot, worker)]
        next_opening = min(opening, key=lambda task: task.slot.order, default=None)
        room = len(my_slots) < self._open_slots
        if next_opening is not None and room and (not mine or self._is_time_for(next_opening.slot, my_slots)):
            return next_opening
        ahead = min((task for task in mine if task.ahead), key=lambda task: task.slot.order, default=None)
        if ahead is not None:
            before = [slot for slot in my_slots if slot.order < ahead.slot.order]
            if self._is_time_for(ahead.slot, before):
                return ahead
        # Without a ready task in a slot of this worker: those of slots that others have opened.
        candidates = mine or [task for task in ready if not task.opens]
        return min(candidates, key=self._urgency, default=None)

    def _is_time_for(self, slot: FoldSlot, before: Iterable[FoldSlot]) -> bool:
        """Whether so little is left of the slots before that the shared data of `slot` are to be prepared meanwhile."""
        threads = self._jobs // self._n_workers
        left = [task for earlier in before for task in self._not_started[earlier]]
        shared_s = sum(self._expected_s(task) for task in self._not_started[slot] if task.opens or task.ahead)
        few = len(left) <= AHEAD_TASKS * threads
        return few or sum(map(self._expected_s, left)) / threads <= AHEAD_TIMES * shared_s

    def _expected_s(self, task: Task) -> float:
        return self._costs.expected_s(task.kind, task.n_rows)

    def _may_use(self, slot: FoldSlot, worker: int) -> bool:
        return slot.shared or self._opened_by.get(slot, worker) == worker

    def _urgency(self, task: Task) -> tuple[int, float, int]:
        return task.slot.order, -self._importance(task), self._number[task]

    def _importance(self, task: Task) -> float:
        """Seconds of a task and, divided among the threads, of the tasks that wait for it in the same slot."""
        waiting = (later for later in self._waiting[task] if later.slot is task.slot)
        return self._expected_s(task) + sum(map(self._importance, waiting)) / self._jobs

    def _finish(self, task: Task, done: bool) -> None:
        with self._changed:
            self._running -= 1
            self._failed = self._failed or not done
            self._left[task.slot] -= 1
            for later in self._waiting[task] if done else ():
                self._missing[later].remove(task)
                if not self._missing[later]:
                    self._ready.append(later)
            if closed := self._left[task.slot] == 0:
                self._opened_by.pop(task.slot, None)
            self._changed.notify_all()
        if closed:
            task.slot.close()
