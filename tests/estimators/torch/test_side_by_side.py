"""Side by side or one after the other: measured, said, and without an effect on the bytes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

torch = pytest.importorskip("torch", reason="networks need Torch")

from gpupipe.estimators.torch import side_by_side  # noqa: E402
from gpupipe.estimators.torch.losses import HeadLosses  # noqa: E402
from gpupipe.estimators.torch.network import arrays_of  # noqa: E402
from gpupipe.estimators.torch.plan import TrainingPlan  # noqa: E402
from gpupipe.estimators.torch.side_by_side import choose  # noqa: E402
from gpupipe.estimators.torch.training import train  # noqa: E402
from tests.support.training_problem import LOSSES, network_of, problem  # noqa: E402

PLAN = TrainingPlan(3, 0.01, 700, rates=(0.01,) * 3, seed=1)


def chosen(n_trainings, cores, n_rows=700):
    return choose(n_trainings, cores, network_of, *problem(n_rows), HeadLosses(LOSSES), PLAN)


def with_rates(monkeypatch, side, alone):
    """Let the measured rows a second be these."""
    monkeypatch.setattr(side_by_side, "_rows_a_second", lambda trials, pool: side if len(trials) > 1 else alone)


@pytest.mark.parametrize(
    ("n_trainings", "cores", "at_once", "threads"), [(2, 2, 2, 1), (5, 2, 2, 1), (2, 8, 2, 4), (3, 8, 3, 2)]
)
def test_the_faster_way_is_chosen_and_said(n_trainings, cores, at_once, threads, monkeypatch):
    with_rates(monkeypatch, 2000.0, 1500.0)
    plan = chosen(n_trainings, cores)
    assert (plan.at_once, plan.threads) == (at_once, threads)
    assert "2,000 rows a second side by side, 1,500 one after the other" in plan.reason
    with_rates(monkeypatch, 1500.0, 2000.0)
    plan = chosen(n_trainings, cores)
    assert (plan.at_once, plan.threads) == (1, cores) and plan.reason.startswith("one network after the other")


@pytest.mark.parametrize(("n_trainings", "cores"), [(1, 4), (7, 1), (0, 2)])
def test_where_there_is_nothing_to_choose_nothing_is_measured(n_trainings, cores, monkeypatch):
    monkeypatch.setattr(side_by_side, "_rows_a_second", None)
    plan = chosen(n_trainings, cores)
    assert (plan.at_once, plan.threads) == (1, cores)


def test_it_measures_and_leaves_the_training_as_it_is():
    plan = chosen(2, 2)
    assert (plan.at_once, plan.threads) in ((2, 1), (1, 2)) and " rows a second " in plan.reason


def test_the_choice_changes_no_byte():
    def trained(seed, threads):
        network = network_of(seed)
        train(network, *problem(900, seed), None, None, LOSSES, PLAN, threads=threads)
        return b"".join(array.tobytes() for array in arrays_of(network).values())

    with ThreadPoolExecutor(2) as pool:
        beside = list(pool.map(lambda seed: trained(seed, 1), (0, 1)))
    chosen(2, 2)
    assert beside == [trained(seed, 2) for seed in (0, 1)]
