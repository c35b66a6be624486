"""Units of work are done longest first, by what they have taken."""

from __future__ import annotations

import functools
import threading
import time

import pytest

from gpupipe.runtime.task_graph import AHEAD_UNITS, FIRST_GUESS_US, Costs, Place, Unit, run_graph


def test_costs_are_seconds_a_row_of_what_was_observed():
    costs = Costs()
    assert costs.expected_s("linear", 1_000_000) == FIRST_GUESS_US["linear"]
    assert costs.expected_s("something new", 1_000_000) == max(FIRST_GUESS_US.values())
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
    run_graph([Unit(kind, n, lambda home, k=k: done.append(k)) for k, (kind, n) in enumerate(work)], costs, 1)
    assert done == [3, 2, 1, 0]  # 6.3, 5.0, 0.9 and 0.5 seconds
    run_graph([], costs, 4)


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_what_waits_comes_after_and_makes_its_unit_important(jobs):
    done, lock, place = [], threading.Lock(), Place(0)

    def unit(name, rows, *needs):
        def work(home):
            with lock:
                done.append(name)

        return Unit("any", rows, work, needs, place)

    units = [unit("alone", 4000), first := unit("first", 1000)]
    for k in range(3):
        units.append(unit(f"after {k}", 2000, first))
        units.append(unit(f"last {k}", 1000, units[-1]))
    run_graph(units, seconds_of(any=1.0), jobs)
    assert sorted(done) == sorted(["alone", "first", *(f"{what} {k}" for what in ("after", "last") for k in range(3))])
    for k in range(3):
        assert done.index("first") < done.index(f"after {k}") < done.index(f"last {k}")
    if jobs == 1:
        assert done[0] == "first"  # one second, and nine that wait for it


def test_threads_work_side_by_side():
    both, met = threading.Barrier(2, timeout=20), []
    run_graph([Unit("a", 1, lambda home: met.append(both.wait())) for _ in range(2)], Costs(), 2)
    assert sorted(met) == [0, 1]


@pytest.mark.parametrize("jobs", [1, 3])
def test_an_error_is_raised_and_nothing_waits_for_ever(jobs):
    def fails(home):
        raise RuntimeError("of a unit")

    done = []
    units = []
    for _ in range(3):
        units.append(Unit("a", 9, fails))
        units.append(Unit("a", 1, lambda home: done.append("waits"), (units[-1],)))
    with pytest.raises(RuntimeError, match="of a unit"):
        run_graph(units, Costs(), jobs)
    assert done == []


def test_units_that_wait_for_what_never_comes_are_an_error():
    elsewhere = Unit("a", 1, lambda home: None)
    with pytest.raises(AssertionError, match="not in the graph"):
        run_graph([Unit("a", 1, lambda home: None, (elsewhere,))], Costs(), 1)


class Folds:
    """Places of some units each, the openings in a chain; what was open when, and what was done in which order."""

    def __init__(self, n_places, n_units, shared=True, seconds=0.0):
        self.lock, self.events, self.open, self.most, self.beside = threading.Lock(), [], set(), 0, 0
        self.running, self.units, opening = 0, [], ()
        for p in range(n_places):
            place = Place(p, lambda p=p: self.close(p), shared)
            opens = Unit("prepare", 1, lambda home, p=p: self.work(p, "open", home, seconds), opening, place, True)
            opening = (opens,)
            self.units.append(opens)
            for k in range(n_units):
                work = functools.partial(self.work, p, k, seconds=seconds)
                self.units.append(Unit("fit", 10 - k, work, (opens,), place))

    def work(self, place, what, home, seconds):
        with self.lock:
            if what == "open":
                self.open.add(place)
                self.beside += self.running > 0
            assert place in self.open
            self.most = max(self.most, len(self.open))
            self.events.append((place, what, home))
            self.running += 1
        time.sleep(seconds)
        with self.lock:
            self.running -= 1

    def close(self, place):
        with self.lock:
            self.open.remove(place)


@pytest.mark.parametrize("jobs", [1, 2, 4])
@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_no_more_places_are_open_than_may_be_and_all_is_done(jobs, at_once):
    folds = Folds(5, 4, seconds=0.001)
    run_graph(folds.units, Costs(), jobs, at_once)
    assert len(folds.events) == len(set(folds.events)) == 25 and not folds.open
    assert folds.most <= at_once
    if jobs == 1:  # a place is finished before the next one's units, which are only prepared
        fitted = [place for place, what, _ in folds.events if what != "open"]
        assert fitted == sorted(fitted)


def test_the_next_place_is_prepared_while_units_of_this_one_are_left():
    folds = Folds(4, 14, seconds=0.02)
    run_graph(folds.units, Costs(), 2, 2)
    opened = [k for k, (_, what, _) in enumerate(folds.events) if what == "open"]
    assert folds.beside == 3  # all but the first
    done_before = [sum(e[0] == p - 1 for e in folds.events[: opened[p]]) for p in range(1, 4)]
    left = AHEAD_UNITS * 2
    assert all(1 + 14 - left - 2 <= n < 15 for n in done_before)  # neither at once, nor when all is done


def test_what_others_share_is_made_ahead_of_the_units_that_are_left():
    """As bins of the next fold: not at once, and not when nothing is left to do beside them."""
    done, places = [], [Place(0), Place(1)]
    first = Unit("prepare", 1, lambda home: done.append("first"), (), places[0], True)
    fits = [Unit("fit", 1, lambda home: done.append("fit"), (first,), places[0]) for _ in range(12)]
    second = Unit("prepare", 1, lambda home: done.append("second"), (first,), places[1], True)
    bins = Unit("bins", 1, lambda home: done.append("bins"), (second,), places[1], ahead=True)
    later = Unit("fit", 1, lambda home: done.append("later"), (bins,), places[1])
    run_graph([first, *fits, second, bins, later], Costs(), 1)
    n = 12 - AHEAD_UNITS
    assert done == ["first", *["fit"] * n, "second", "bins", *["fit"] * AHEAD_UNITS, "later"]


def test_a_thread_that_finds_nothing_ready_opens_the_next_place():
    """As when a long pooled stage is at work, and all else of its fold waits for it."""
    opened, places, done = threading.Event(), [Place(0), Place(1)], []
    first = Unit("prepare", 1, lambda home: done.append("first"), (), places[0], True)
    long = Unit("fit", 1, lambda home: done.append(opened.wait(20)), (first,), places[0])
    waiting = [Unit("fit", 1, lambda home: done.append("waited"), (long,), places[0]) for _ in range(5)]
    second = Unit("prepare", 1, lambda home: opened.set(), (first,), places[1], True)
    run_graph([first, long, *waiting, second], Costs(), 2)
    assert done == ["first", True, *["waited"] * 5]


def test_a_home_works_on_its_own_places_and_helps_at_the_end():
    folds = Folds(2, 8, shared=False, seconds=0.01)
    run_graph(folds.units, Costs(), 2, 1, homes=2)
    of = {p: next(home for place, what, home in folds.events if place == p and what == "open") for p in (0, 1)}
    assert set(of.values()) == {0, 1}
    own = sum(home == of[place] for place, _, home in folds.events)
    assert own >= 16  # of 18
    alone = Folds(1, 8, shared=False, seconds=0.01)
    run_graph(alone.units, Costs(), 2, 1, homes=2)
    assert {home for _, _, home in alone.events} == {0, 1}
