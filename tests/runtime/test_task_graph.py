"""Tasks run longest first, by what such tasks have taken."""

from __future__ import annotations

import functools
import threading
import time

import pytest

from gpupipe.runtime.task_graph import AHEAD_TASKS, DEVICE_JOBS, FIRST_COST_US, Costs, FoldSlot, Task, run_graph


def test_costs_are_seconds_a_row_of_what_was_observed():
    costs = Costs({"linear": 9.0, "xgb_joint pool": 75.0})
    assert costs.expected_s("linear", 1_000_000) == 9.0
    assert costs.expected_s("bins", 1_000_000) == FIRST_COST_US["bins"]
    assert costs.expected_s("something new", 1_000_000) == 75.0  # taken for the slowest
    assert Costs().expected_s("something new", 1_000_000) == max(FIRST_COST_US.values())
    costs.observe("linear", 100, 2.0)
    costs.observe("linear", 300, 2.0)
    assert costs.expected_s("linear", 50) == pytest.approx(0.5)


def seconds_of(**kinds):
    costs = Costs()
    for kind, seconds in kinds.items():
        costs.observe(kind, 1000, seconds)
    return costs


def test_the_longest_come_first():
    costs, done = seconds_of(slow=9.0, quick=1.0), []
    work = [("quick", 500), ("slow", 100), ("quick", 5000), ("slow", 700)]
    run_graph([Task(kind, n, lambda worker, k=k: done.append(k)) for k, (kind, n) in enumerate(work)], costs, 1)
    assert done == [3, 2, 1, 0]  # 6.3, 5.0, 0.9 and 0.5 seconds
    run_graph([], costs, 4)


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_what_waits_comes_after_and_makes_its_task_important(jobs):
    done, lock, slot = [], threading.Lock(), FoldSlot(0)

    def task(name, rows, *needs):
        def work(worker):
            with lock:
                done.append(name)

        return Task("any", rows, work, needs, slot)

    tasks = [task("alone", 4000), first := task("first", 1000)]
    for k in range(3):
        tasks.append(task(f"after {k}", 2000, first))
        tasks.append(task(f"last {k}", 1000, tasks[-1]))
    run_graph(tasks, seconds_of(any=1.0), jobs)
    assert sorted(done) == sorted(["alone", "first", *(f"{what} {k}" for what in ("after", "last") for k in range(3))])
    for k in range(3):
        assert done.index("first") < done.index(f"after {k}") < done.index(f"last {k}")
    if jobs == 1:
        assert done[0] == "first"  # one second, and nine that wait for it


def test_threads_work_side_by_side():
    both, met = threading.Barrier(2, timeout=20), []
    run_graph([Task("a", 1, lambda worker: met.append(both.wait())) for _ in range(2)], Costs(), 2)
    assert sorted(met) == [0, 1]


@pytest.mark.parametrize("jobs", [1, 3])
def test_an_error_is_raised_and_nothing_waits_for_ever(jobs):
    def fails(worker):
        raise RuntimeError("of a task")

    done = []
    tasks = []
    for _ in range(3):
        tasks.append(Task("a", 9, fails))
        tasks.append(Task("a", 1, lambda worker: done.append("waits"), (tasks[-1],)))
    with pytest.raises(RuntimeError, match="of a task"):
        run_graph(tasks, Costs(), jobs)
    assert done == []


def test_tasks_that_wait_for_one_outside_the_graph_are_an_error():
    outside = Task("a", 1, lambda worker: None)
    with pytest.raises(AssertionError, match="not in the graph"):
        run_graph([Task("a", 1, lambda worker: None, (outside,))], Costs(), 1)


class Folds:
    """Slots of some tasks each, the openings in a chain; what was open when, and what was done in which order."""

    def __init__(self, n_slots, n_tasks, shared=True, seconds=0.0):
        self.lock, self.events, self.open, self.most, self.beside = threading.Lock(), [], set(), 0, 0
        self.running, self.tasks, opening = 0, [], ()
        for p in range(n_slots):
            slot = FoldSlot(p, lambda p=p: self.close(p), shared)
            opens = Task("prepare", 1, lambda worker, p=p: self.work(p, "open", worker, seconds), opening, slot, True)
            opening = (opens,)
            self.tasks.append(opens)
            for k in range(n_tasks):
                work = functools.partial(self.work, p, k, seconds=seconds)
                self.tasks.append(Task("fit", 10 - k, work, (opens,), slot))

    def work(self, slot, what, worker, seconds):
        with self.lock:
            if what == "open":
                self.open.add(slot)
                self.beside += self.running > 0
            assert slot in self.open
            self.most = max(self.most, len(self.open))
            self.events.append((slot, what, worker))
            self.running += 1
        time.sleep(seconds)
        with self.lock:
            self.running -= 1

    def close(self, slot):
        with self.lock:
            self.open.remove(slot)


@pytest.mark.parametrize("jobs", [1, 2, 4])
@pytest.mark.parametrize("open_slots", [1, 2, 3])
def test_no_more_slots_are_open_than_may_be_and_all_is_done(jobs, open_slots):
    folds = Folds(5, 4, seconds=0.001)
    run_graph(folds.tasks, Costs(), jobs, open_slots)
    assert len(folds.events) == len(set(folds.events)) == 25 and not folds.open
    assert folds.most <= open_slots
    if jobs == 1:  # a slot is finished before the tasks of the next one, whose rows alone are prepared
        fitted = [slot for slot, what, _ in folds.events if what != "open"]
        assert fitted == sorted(fitted)


def test_the_next_slot_is_prepared_while_tasks_of_this_one_are_left():
    folds = Folds(4, 14, seconds=0.02)
    run_graph(folds.tasks, Costs(), 2, 2)
    opened = [k for k, (_, what, _) in enumerate(folds.events) if what == "open"]
    assert folds.beside == 3  # all but the first
    done_before = [sum(e[0] == p - 1 for e in folds.events[: opened[p]]) for p in range(1, 4)]
    left = AHEAD_TASKS * 2
    assert all(1 + 14 - left - 2 <= n < 15 for n in done_before)  # neither at once, nor when all is done


def test_shared_preparation_runs_ahead_of_the_tasks_that_are_left():
    """As bins of the next fold: not at once, and not when nothing is left to do beside them."""
    done, slots = [], [FoldSlot(0), FoldSlot(1)]
    first = Task("prepare", 1, lambda worker: done.append("first"), (), slots[0], True)
    fits = [Task("fit", 1, lambda worker: done.append("fit"), (first,), slots[0]) for _ in range(12)]
    second = Task("prepare", 1, lambda worker: done.append("second"), (first,), slots[1], True)
    bins = Task("bins", 1, lambda worker: done.append("bins"), (second,), slots[1], ahead=True)
    later = Task("fit", 1, lambda worker: done.append("later"), (bins,), slots[1])
    run_graph([first, *fits, second, bins, later], Costs(), 1)
    n = 12 - AHEAD_TASKS
    assert done == ["first", *["fit"] * n, "second", "bins", *["fit"] * AHEAD_TASKS, "later"]


def test_a_thread_that_finds_nothing_ready_opens_the_next_slot():
    """As when a long pooled stage is at work, and all else of its fold waits for it."""
    opened, slots, done = threading.Event(), [FoldSlot(0), FoldSlot(1)], []
    first = Task("prepare", 1, lambda worker: done.append("first"), (), slots[0], True)
    long = Task("fit", 1, lambda worker: done.append(opened.wait(20)), (first,), slots[0])
    waiting = [Task("fit", 1, lambda worker: done.append("waited"), (long,), slots[0]) for _ in range(5)]
    second = Task("prepare", 1, lambda worker: opened.set(), (first,), slots[1], True)
    run_graph([first, long, *waiting, second], Costs(), 2)
    assert done == ["first", True, *["waited"] * 5]


def test_a_worker_takes_its_own_slots_first_and_helps_at_the_end():
    folds = Folds(2, 8, shared=False, seconds=0.01)
    run_graph(folds.tasks, Costs(), 2, 1, n_workers=2)
    of = {p: next(worker for slot, what, worker in folds.events if slot == p and what == "open") for p in (0, 1)}
    assert set(of.values()) == {0, 1}
    n_at_home = sum(worker == of[slot] for slot, _, worker in folds.events)
    assert n_at_home >= 16  # of 18
    alone = Folds(1, 8, shared=False, seconds=0.01)
    run_graph(alone.tasks, Costs(), 2, 1, n_workers=2)
    assert {worker for _, _, worker in alone.events} == {0, 1}


def test_tasks_on_the_device_run_beside_the_jobs_two_at_a_time():
    """The one job is held until both places of the device are taken, and the device until the job has begun."""
    lock, running, most = threading.Lock(), [], [0]
    both, job = threading.Event(), threading.Event()
    names = {True: set(), False: set()}

    def work(on_device):
        def do(worker):
            names[on_device].add(threading.get_ident())
            if not on_device:
                job.set()
                assert both.wait(20)
                return
            with lock:
                running.append(1)
                most[0] = max(most[0], len(running))
                if len(running) == DEVICE_JOBS:
                    both.set()
            assert job.wait(20) and both.wait(20)
            with lock:
                running.pop()

        return do

    first = Task("prepare", 1, lambda worker: None)
    tasks = [first, *(Task("fit", 1, work(k % 2 == 0), (first,), on_device=k % 2 == 0) for k in range(12))]
    run_graph(tasks, Costs(), 1)
    assert most == [DEVICE_JOBS]
    assert len(names[False]) == 1 and len(names[True]) == DEVICE_JOBS and not names[False] & names[True]


def test_tasks_of_both_kinds_wait_for_each_other():
    done = []
    first = Task("fit", 1, lambda worker: done.append("device"), on_device=True)
    second = Task("fit", 1, lambda worker: done.append("thread"), (first,))
    third = Task("fit", 1, lambda worker: done.append("device again"), (second,), on_device=True)
    run_graph([first, second, third], Costs(), 1)
    assert done == ["device", "thread", "device again"]
    with pytest.raises(ZeroDivisionError):
        run_graph([first, Task("fit", 1, lambda worker: 1 / 0, on_device=True), second], Costs(), 2)


def test_what_tasks_took_can_be_asked_for():
    costs = seconds_of(linear=2.0)
    costs.observe("linear", 500, 1.0)
    assert costs.observed("linear") == (3.0, 1500) and costs.observed("forest") == (0.0, 0)
