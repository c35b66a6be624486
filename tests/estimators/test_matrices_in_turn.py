"""Rounds on samples in turn: of one matrix on CUDA, of a matrix each on the CPU, and the same bytes either way."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import xgboost

from gpupipe import config
from gpupipe.dataset.row_view import RowView, in_few_arrays, whole
from gpupipe.estimators.boosting import tree_model
from gpupipe.estimators.boosting.binned_matrix import binned
from gpupipe.estimators.boosting.settings import Booster
from gpupipe.estimators.boosting.tree_model import Grower
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.workloads import equity
from tests.support.fitting import CPU, as_bytes, fit_all, world
from tests.support.matrices import TARGET, dataset_of
from tests.support.says_cuda import SaysCuda

TREES = ("xgb_joint", "xgb_hist", "xgb_leafwise", "random_forest")
FEW = (
    "joint.rounds=12", "joint_sector.rounds=6", "hist.rounds=4", "leafwise.rounds=4", "forest.trees=6",
    "forest.sector_trees=4", "hist.subsample=0.5", "leafwise.subsample=0.5", "training.min_positives=1",
)  # fmt: skip


SAYS_CUDA = SaysCuda()


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
    """Of a booster's steps: rounds on another matrix than the last, those after a set parameter, parameters set.

    What is set after the last round does not count: a finished booster may be moved to where it predicts.
    """
    rounds = [k for k, step in enumerate(steps) if step is not None]
    others = [b for a, b in itertools.pairwise(rounds) if steps[a] is not steps[b]]
    return len(others), sum(steps[k - 1] is None for k in others), steps[: rounds[-1]].count(None)


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


# How rounds see a share of the rows: parts of them in turn, all but one part in turn, and draws by their gradients.
WAYS = {
    "parts in turn": ({}, ()),
    "a part left out": ({}, ("ml.subsample=0.8",)),
    "draws": ({"gradient_sampling": True}, ()),
    "all rows": ({}, ("ml.subsample=1.0",)),
}


def with_weights(training_set):
    """The training set whose fitted rows weigh between 0 and 2."""
    rng = np.random.default_rng(9)
    fit = {
        group: rows.with_weight(rng.uniform(0, 2, (rows.n, rows.n_targets)).astype(np.float32))
        for group, rows in training_set.fit.items()
    }
    return dataclasses.replace(training_set, fit=fit)


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", TREES)
def test_rows_that_do_not_count_in_one_matrix_change_no_byte(name, way, weighted, grown):
    """On CUDA all rounds of a booster are fitted on one matrix; XGBoost's CPU build grows the same trees on it."""
    options, more = WAYS[way]
    settings = equity.make("fast", settings=[*FEW, *more])
    training_set = dataclasses.replace(world()[0], ml=config.Ml(**options))
    if weighted:
        training_set = with_weights(training_set)
    pooled, groups = fit_all(name, training_set, settings)
    separate = [changes(steps)[0] for steps in grown.values() if any(step is not None for step in steps)]
    grown.clear()
    again = fit_all(name, dataclasses.replace(training_set, device=SAYS_CUDA), settings)
    fitted = [steps for steps in grown.values() if any(step is not None for step in steps)]
    assert fitted and all(changes(steps) == (0, 0, 0) for steps in fitted)
    draws_once = way == "draws" and name in ("xgb_hist", "xgb_leafwise")  # rows drawn stay for ten rounds
    takes_turns = not (draws_once or way == "all rows" or (way == "draws" and name == "random_forest"))
    assert any(separate) or not takes_turns
    assert as_bytes(again[0]) == as_bytes(pooled)
    assert {group: as_bytes(models) for group, models in again[1].items()} == {
        group: as_bytes(models) for group, models in groups.items()
    }


@pytest.mark.parametrize("share", [0.25, 0.8, 1.0])
def test_samples_of_one_matrix_mark_the_rows_of_samples_with_their_own(share):
    training_sets = [dataclasses.replace(world()[0], device=device) for device in (CPU, SAYS_CUDA)]
    own, marked = (binned(training_set).samples(share) for training_set in training_sets)
    assert len({id(sample.bins) for sample in marked}) == 1 and len(own) == len(marked)
    for separate, shared in zip(own, marked, strict=True):
        X = np.concatenate([whole(rows.X) for rows in shared.blocks])
        kept = X if shared.counted is None else X[shared.counted]
        np.testing.assert_array_equal(kept, np.concatenate([whole(rows.X) for rows in separate.blocks]))
        ones = np.ones((len(X), 2), np.float32)
        counted = shared.zero_elsewhere(ones)
        assert counted.sum() == 2 * len(kept) and counted.dtype == np.float32


def test_cut_points_are_the_same_on_every_device(device):
    """They are found on the host, and matrices on a GPU take them from a matrix there."""
    rng = np.random.default_rng(4)
    X = rng.normal(size=(3000, 5)).astype(np.float32)
    X[rng.random(X.shape) < 0.1] = np.nan
    cuts = []
    for where in (CPU, device):
        fit = {"energy": RowView(dataset_of(X, device=where), np.arange(3000)[::-1].copy())}
        training_set = TrainingSet("final", fit, {}, TARGET, where, 32, "none", threads=1, seed=1)
        bins = binned(training_set)
        cuts.append([bins.cut_points.get_quantile_cut(), bins.samples(0.5)[0].bins.get_quantile_cut()])
    for pair in (cut for of_device in cuts for cut in of_device):
        for part, expected in zip(pair, cuts[0][0], strict=True):
            np.testing.assert_array_equal(part, expected)


def test_a_copy_on_another_device_has_the_cut_points_and_its_rows_in_one_array():
    training_set = dataclasses.replace(world()[0])
    there = training_set.on(SAYS_CUDA)
    assert there.source is training_set and there.on(CPU) is training_set and training_set.source is None
    assert binned(there).cut_points is binned(training_set).cut_points
    for views, others in ((there.fit, training_set.fit), (there.validation, training_set.validation)):
        (joined,) = in_few_arrays(list(views.values()))
        np.testing.assert_array_equal(joined, np.concatenate([whole(rows.X) for rows in others.values()]))
    some = there.of_columns(np.array([3, 1]))
    (joined,) = in_few_arrays(list(some.fit.values()))
    assert joined.shape == (4500, 2) and [len(part) for part in binned(some).samples(0.5)[0].parts] == [4500]


def test_a_resumed_booster_is_configured_anew_for_its_own_matrix(grown):
    """Its trees were grown on other rows; a parameter is set after it was cut, and none between its rounds."""
    bins, gradients = two_matrices()
    parameters = tree_model.parameters(Booster(depth=3, min_child_weight=1.0), CPU, 32, threads=1, seed=1)
    first = tree_model.vector_leaf(parameters, 1, bins[0])
    Grower(first, SAYS_CUDA).boost(bins[0], 0, gradients[0], np.ones_like(gradients[0]))
    resumed = tree_model.resume(first, 1, parameters)
    grower = Grower(resumed, SAYS_CUDA)
    for k in (1, 2):
        grower.boost(bins[1], k, gradients[1], np.ones_like(gradients[1]))
    assert changes(grown[resumed]) == (0, 0, 0) and resumed.num_boosted_rounds() == 3
