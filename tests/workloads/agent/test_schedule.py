"""The schedule of an iteration: adaptive timesteps, phases, evaluations, convergence."""

from __future__ import annotations

import pytest

from gpupipe.workloads.agent import schedule
from gpupipe.workloads.agent.schedule import Values

BASE = Values(learning_rate=3e-4, epochs=8, entropy=0.01, clip=0.2)


def test_timesteps_fall_by_a_twentieth_to_the_least():
    for iteration in range(60):
        expected = max(15_000, int(50_000 * 0.95**iteration))
        assert schedule.timesteps(50_000, 15_000, iteration, adaptive=True) == expected
        assert schedule.timesteps(50_000, 15_000, iteration, adaptive=False) == 50_000
    assert schedule.timesteps(1_000, 5_000, 0, adaptive=True) == 1_000  # the least is never more than the base


def test_phases_change_all_four_values():
    shares = [0.0, 0.5, 0.9]
    values = [schedule.values_at(share, BASE, progressive=True) for share in shares]
    for name in ("learning_rate", "epochs", "entropy", "clip"):
        assert len({getattr(value, name) for value in values}) > 1, name
    assert [value.entropy for value in values] == sorted((value.entropy for value in values), reverse=True)
    assert {schedule.values_at(share, BASE, progressive=False) for share in shares} == {BASE}


def test_evaluations_come_more_often_as_gains_get_small():
    scores, intervals = [], []
    for score in (0.1, 0.5, 0.505, 0.506, 0.506, 0.9):
        scores.append(score)
        intervals.append(schedule.evaluation_interval(scores, 4_000, 0.001, denser=True))
    assert intervals == [4_000, 4_000, 2_000, 1_000, 1_000, 1_000]
    assert schedule.evaluation_interval(scores, 4_000, 0.001, denser=False) == 4_000


@pytest.mark.parametrize("often", [1, 2, 4])
def test_it_has_converged_after_as_many_steps_without_a_gain_however_often_it_evaluates(often):
    scores, at = [0.0, 0.3], [0, 100]
    for steps in range(100 // often, 301, 100 // often):
        assert not schedule.converged(scores, at, 300, 0.001), steps
        scores.append(0.3)
        at.append(100 + steps)
    assert schedule.converged(scores, at, 300, 0.001)
    assert not schedule.converged([*scores, 0.4], [*at, 500], 300, 0.001)  # it never ends for good
    assert not schedule.converged([], [], 300, 0.001)
