"""Boosters grown on matrices in turn: on CUDA a parameter is set before each change, and models stay the same bytes."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import xgboost

from gpupipe import config
from gpupipe.estimators.boosting import tree_model
from gpupipe.estimators.boosting.settings import Booster
from gpupipe.estimators.boosting.tree_model import Grower
from gpupipe.runtime.device import Device
from gpupipe.workloads import equity
from tests.support.fitting import CPU, as_bytes, fit_all, world

TREES = ("xgb_joint", "xgb_hist", "xgb_leafwise", "random_forest")
FEW = equity.make("fast", settings=[
    "joint.rounds=12", "joint_sector.rounds=6", "hist.rounds=4", "leafwise.rounds=4", "forest.trees=6",
    "forest.sector_trees=4", "hist.subsample=0.5", "leafwise.subsample=0.5", "training.min_positives=1",
])  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SaysCuda(Device):
    """A device that says it is CUDA; its arrays are numpy's, and XGBoost is asked for the CPU."""

    xp = np
    xgboost = "cpu"

    def sync(self) -> None:
        """Nothing is asynchronous."""


SAYS_CUDA = SaysCuda("cuda", "stand-in", "for the test")


@pytest.fixture
def grown(monkeypatch):
    """For each booster what it was asked, in order: its matrix before a round, None where a parameter was set."""
    asked: dict[xgboost.Booster, list] = {}
    boost, set_param = xgboost.Booster.boost, xgboost.Booster.set_param

    def boosted(booster, bins, *arguments, **named):
        asked.setdefault(booster, []).append(bins)
        return boost(booster, bins, *arguments, **named)

    def changed(booster, parameters, value=None):
        if parameters == {"device": "cpu"}:
            asked.setdefault(booster, []).append(None)
        return set_param(booster, parameters, value)

    monkeypatch.setattr(xgboost.Booster, "boost", boosted)
    monkeypatch.setattr(xgboost.Booster, "set_param", changed)
    return asked


def changes(steps) -> tuple[int, int, int]:
    """Of a booster's steps: rounds on another matrix than the last, those after a set parameter, parameters set."""
    rounds = [k for k, step in enumerate(steps) if step is not None]
    others = [b for a, b in itertools.pairwise(rounds) if steps[a] is not steps[b]]
    return len(others), sum(steps[k - 1] is None for k in others), steps.count(None)


def two_matrices():
    rng = np.random.default_rng(2)
    parts = [rng.normal(size=(n, 5)).astype(np.float32) for n in (300, 180)]
    whole = xgboost.QuantileDMatrix(np.concatenate(parts), max_bin=32)
    bins = [xgboost.QuantileDMatrix(part, max_bin=32, ref=whole) for part in parts]
    gradients = [np.sin(part[:, :2]) + rng.normal(size=(len(part), 2)).astype(np.float32) for part in parts]
    return bins, gradients


@pytest.mark.parametrize(("device", "at"), [(CPU, []), (SAYS_CUDA, [2, 4])], ids=["cpu", "cuda"])
def test_a_parameter_is_set_where_the_matrix_is_another_and_nowhere_else(device, at, grown):
    bins, gradients = two_matrices()
    stage = Booster(depth=3, min_child_weight=1.0, column_share=0.5)
    parameters = tree_model.parameters(stage, CPU, 32, threads=1, seed=1)
    booster, plain = (tree_model.vector_leaf(parameters, 1, bins[0]) for _ in range(2))
    grower, turns = Grower(booster, device), [0, 0, 1, 1, 0]
    for k, turn in enumerate(turns):
        grower.boost(bins[turn], k, gradients[turn], np.ones_like(gradients[turn]))
        plain.boost(bins[turn], k, grad=gradients[turn], hess=np.ones_like(gradients[turn]))
    rounds = [k for k, step in enumerate(grown[booster]) if step is not None]
    assert [k for k, step in enumerate(rounds) if step and grown[booster][step - 1] is None] == at
    assert grown[booster].count(None) == len(at)
    assert booster.save_raw("ubj") == plain.save_raw("ubj")


@pytest.mark.parametrize("gradient_sampling", [False, True])
@pytest.mark.parametrize("name", TREES)
def test_every_booster_that_takes_matrices_in_turn_is_configured_anew(name, gradient_sampling, grown):
    training_set = dataclasses.replace(world()[0], ml=config.Ml(gradient_sampling=gradient_sampling))
    pooled, groups = fit_all(name, training_set, FEW)
    assert not any(None in steps for steps in grown.values())
    grown.clear()
    again = fit_all(name, dataclasses.replace(training_set, device=SAYS_CUDA), FEW)
    counts = [changes(steps) for steps in grown.values() if any(step is not None for step in steps)]
    assert all(others == after == asked for others, after, asked in counts)
    draws_once = gradient_sampling and name in ("xgb_hist", "xgb_leafwise")  # rows drawn stay for ten rounds
    assert draws_once or any(others for others, _, _ in counts)
    assert as_bytes(again[0]) == as_bytes(pooled)
    assert {group: as_bytes(models) for group, models in again[1].items()} == {
        group: as_bytes(models) for group, models in groups.items()
    }
