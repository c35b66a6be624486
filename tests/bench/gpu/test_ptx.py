"""bench.gpu.ptx on a few bars."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from bench.gpu import market_calls
from bench.gpu.ptx import by_ptx
from gpupipe.data import simulate
from tests.support.ptx import why_not


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_a_line_for_each_kernel_of_a_step(monkeypatch):
    panel = simulate(2, 80)
    steps = dict(market_calls.steps(panel))
    name = "labels, first_touch, calendar"
    monkeypatch.setattr(market_calls, "steps", lambda *_: [(name, steps[name])])
    lines = list(market_calls.compared(panel, "labels.", functools.partial(by_ptx, (9, 0))))
    assert [(line["step"], line["kernel"]) for line in lines] == [
        (name, "labels.calendar_ends"),
        (name, "labels.label_cube"),
    ]
    assert all(line["values"] > 0 and line["differ"] == 0 for line in lines)


def test_a_step_that_fails_is_a_line_and_the_next_one_follows(monkeypatch):
    panel = simulate(2, 80)
    steps = dict(market_calls.steps(panel))
    names = ("labels, first_touch, calendar", "classes")
    monkeypatch.setattr(market_calls, "steps", lambda *_: [(name, steps[name]) for name in names])

    def run(call, arguments):
        if call.kernel.full_name == "labels.label_cube":
            raise MemoryError("no memory is left")
        return {}

    ends, failed, classes = market_calls.compared(panel, "", run)
    assert (ends["kernel"], classes["kernel"]) == ("labels.calendar_ends", "labels.barrier_labels")
    assert failed == {"step": names[0], "error": "MemoryError: no memory is left"}


def test_cuts_are_rising_quantiles_of_the_known_values():
    values = np.array([[1, 5, np.nan], [np.nan, 5, np.nan], [3, 5, np.nan]], np.float32)
    first, second, unknown = market_calls.cuts_of(values)
    assert first[0] > 1 and first[-1] < 3 and (np.diff(first) > 0).all()
    np.testing.assert_array_equal(second, [5])
    assert len(unknown) == 0
