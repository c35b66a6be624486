"""Units of work are done longest first, by what they have taken."""

from __future__ import annotations

import threading

import pytest

from gpupipe.schedule import FIRST_GUESS_US, Costs, Unit, longest_first


def test_costs_are_seconds_a_row_of_what_was_observed():
    costs = Costs()
    assert costs.expected_s("linear", 1_000_000) == FIRST_GUESS_US["linear"]
    assert costs.expected_s("something new", 1_000_000) == max(FIRST_GUESS_US.values())
    costs.observe("linear", 100, 2.0)
    costs.observe("linear", 300, 2.0)
    assert costs.expected_s("linear", 50) == pytest.approx(0.5)


def test_the_longest_come_first():
    costs, done = Costs(), []
    for kind, seconds in (("slow", 9.0), ("quick", 1.0)):
        costs.observe(kind, 1000, seconds)
    work = [("quick", 500), ("slow", 100), ("quick", 5000), ("slow", 700)]
    longest_first([Unit(kind, n, lambda k=k: done.append(k)) for k, (kind, n) in enumerate(work)], costs, 1)
    assert done == [3, 2, 1, 0]  # 6.3, 5.0, 0.9 and 0.5 seconds
    longest_first([], costs, 4)


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_what_waits_comes_after_and_makes_its_unit_important(jobs):
    costs, done, lock = Costs(), [], threading.Lock()
    costs.observe("any", 1, 1.0)

    def unit(name, rows, *then):
        def work():
            with lock:
                done.append(name)

        return Unit("any", rows, work, then)

    after = [unit(f"after {k}", 2, unit(f"last {k}", 1)) for k in range(3)]
    longest_first([unit("alone", 4), unit("first", 1, *after)], costs, jobs)
    assert sorted(done) == sorted(["alone", "first", *(f"{what} {k}" for what in ("after", "last") for k in range(3))])
    for k in range(3):
        assert done.index("first") < done.index(f"after {k}") < done.index(f"last {k}")
    if jobs == 1:
        assert done[0] == "first"  # one second, and nine that wait for it


def test_threads_work_side_by_side():
    both, met = threading.Barrier(2, timeout=20), []
    longest_first([Unit("a", 1, lambda: met.append(both.wait())) for _ in range(2)], Costs(), 2)
    assert sorted(met) == [0, 1]


@pytest.mark.parametrize("jobs", [1, 3])
def test_an_error_is_raised_and_nothing_waits_for_ever(jobs):
    def fails():
        raise RuntimeError("of a unit")

    done = []
    with pytest.raises(RuntimeError, match="of a unit"):
        longest_first([Unit("a", 9, fails, (Unit("a", 1, lambda: done.append("waits")),))] * 3, Costs(), jobs)
    assert done == []
