"""The kernels that estimators and the equity recipe declare are those that they call: a run compiles no others."""

from __future__ import annotations

import numpy as np
import pytest

from gpupipe.estimators import registry
from gpupipe.kernels.compile import Kernel
from gpupipe.workloads.equity import EQUITY
from tests.support.fitting import CPU, FAMILIES, SETTINGS, fit_all, predict, world
from tests.support.panels import random_panel


@pytest.fixture
def called(monkeypatch) -> set[str]:
    """Full names of the kernels that are called."""
    names: set[str] = set()
    alone, together = Kernel.__call__, Kernel.together

    def call(kernel, n, *arguments):
        names.add(kernel.full_name)
        alone(kernel, n, *arguments)

    def call_together(kernel, calls):
        names.add(kernel.full_name)
        together(kernel, calls)

    monkeypatch.setattr(Kernel, "__call__", call)
    monkeypatch.setattr(Kernel, "together", call_together)
    return names


@pytest.mark.parametrize("name", FAMILIES)
def test_of_a_family(name, called):
    training_set, tests, _ = world()
    _, groups = fit_all(name, training_set, SETTINGS)
    for group, models in groups.items():
        predict(name, models, tests[group].X)
    assert called == set(registry.estimator(name).kernels)


def test_of_the_meta_learner(called):
    rng, learner = np.random.default_rng(1), registry.estimator("meta_learner")
    predictions = {"energy": rng.dirichlet((1, 2, 1), (2, 60, 1)).astype(np.float32)}
    y = {"energy": rng.integers(0, 3, (60, 1)).astype(np.int8)}
    settings = registry.readable(SETTINGS, "meta_learner")
    models = learner.fit_stack(("xgb_joint", "linear"), predictions, y, settings, CPU)
    models["energy"][0].predict(list(predictions["energy"][:, :, 0]), CPU)
    assert called == set(learner.kernels)


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ([], {"cross_section.cross_section", "cross_section.group_means"}),
        (["features.names=rsi_14,natr_14,roc_1"], set()),
        (["features.names=rsi_14", "labels.window=calendar"], {"labels.calendar_ends"}),
        (["features.names=rsi_14", "training.sample_weight=uniqueness"], {"labels.average_uniqueness"}),
    ],
)
def test_of_the_equity_recipe(settings, more, called):
    chosen = EQUITY.settings("fast", settings=settings)
    panel = random_panel((90, 70))
    features, labels = EQUITY.features(panel, chosen, None), EQUITY.labels(panel, chosen)
    dataset = EQUITY.dataset(panel, features, labels, "energy", chosen)
    EQUITY.trades(panel, dataset.target)
    always = {"labels.label_cube", "program.run_program", "backtest.trade_outcomes"}
    assert called == {*always, *more} == set(EQUITY.kernels(chosen))


def test_a_default_run_needs_sixteen_of_the_kernels():
    assert EQUITY.kernels_of(EQUITY.settings("fast")) == (
        "backtest.trade_outcomes",
        "cross_section.cross_section", "cross_section.group_means", "digests.row_digest", "elementary.logarithms",
        "labels.label_cube", "linear.linear_margin", "linear.scaled_margin", "program.run_program",
        "softmax.activity_gradient", "softmax.softmax_gradient", "softmax.softmax_log_loss",
        "softmax.softmax_probability", "sums.column_sums", "trees.add_leaf_activity", "trees.leaves_of_trees",
    )  # fmt: skip
