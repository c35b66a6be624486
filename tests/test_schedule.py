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


def test_the_longest_come_first_and_results_in_order():
    costs, done = Costs(), []
    for kind, seconds in (("slow", 9.0), ("quick", 1.0)):
        costs.observe(kind, 1000, seconds)
    work = [("quick", 500), ("slow", 100), ("quick", 5000), ("slow", 700)]
    units = [Unit(kind, n, lambda k=k: done.append(k) or k * 10) for k, (kind, n) in enumerate(work)]
    assert longest_first(units, costs, 1) == [0, 10, 20, 30]
    assert done == [3, 2, 1, 0]  # 6.3, 5.0, 0.9 and 0.5 seconds
    assert longest_first([], costs, 4) == []


def test_threads_work_side_by_side():
    both = threading.Barrier(2, timeout=20)
    assert longest_first([Unit("a", 1, both.wait), Unit("a", 1, both.wait)], Costs(), 2) in ([0, 1], [1, 0])


@pytest.mark.parametrize("jobs", [1, 3])
def test_an_error_is_raised(jobs):
    def fails():
        raise RuntimeError("of a unit")

    with pytest.raises(RuntimeError, match="of a unit"):
        longest_first([Unit("a", 1, lambda: 1), Unit("a", 2, fails), Unit("a", 3, lambda: 1)], Costs(), jobs)
