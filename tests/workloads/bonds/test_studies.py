"""Searches: conditional parameters, pruning, and the same trials after a stop at any of them."""

from __future__ import annotations

import dataclasses
import json
import logging

import numpy as np
import pytest

from gpupipe.estimators.fit_context import NO_CONTEXT, FitContext
from gpupipe.runtime.errors import UserError
from gpupipe.workloads.bonds import studies
from gpupipe.workloads.bonds.families import registry
from gpupipe.workloads.bonds.families.contract import mean_squared
from gpupipe.workloads.bonds.studies import Study
from tests.support.bond_run import made_rows, small_settings

FAMILIES = tuple(registry.FAMILIES)
N_TRIALS = 9  # more than the random ones, so that TPE draws from what came before


class Stopped(BaseException):
    """What a kill is to a study: nothing after it runs."""


def study(names=FAMILIES, trials=N_TRIALS, rows=None):
    return Study(names, rows or made_rows(1), small_settings(f"search.trials={trials}"), 4)


def context(folder, key="ab"):
    return FitContext(folder, key, lambda text: None)


@pytest.fixture(scope="module")
def whole():
    return study().run(NO_CONTEXT)


def test_a_search_ends_with_the_best_of_its_trials(whole):
    losses = [loss for loss in whole["losses"] if loss is not None]
    assert whole["trials"] == N_TRIALS and whole["loss"] <= min(losses)
    assert set(whole["values"]) <= set(vars(getattr(small_settings(), whole["family"])))
    json.dumps(whole)


def test_the_same_search_makes_the_same_trials(whole):
    assert study().run(NO_CONTEXT) == whole


@pytest.mark.parametrize("seed", [4_294_968, 2**31, 2**32 - 1, 10**12])
def test_any_seed_searches(seed):
    rows = dataclasses.replace(made_rows(1), seed=seed)
    assert study(("linear",), trials=5, rows=rows).run(NO_CONTEXT)["trials"] == 5


@pytest.mark.parametrize("stop_at", [1, 4, 5, 8])
@pytest.mark.parametrize("names", [FAMILIES, ("boosting",)])
def test_a_study_that_was_stopped_goes_on_with_the_same_trials(tmp_path, monkeypatch, whole, stop_at, names):
    expected = whole if names == FAMILIES else study(names).run(NO_CONTEXT)
    made, loss = [], Study.loss

    def counted(self, trial):
        if len(made) == stop_at:
            raise Stopped
        made.append(trial.number)
        return loss(self, trial)

    monkeypatch.setattr(Study, "loss", counted)
    with pytest.raises(Stopped):
        study(names).run(context(tmp_path))
    assert len(json.loads((tmp_path / "trials.json").read_text())["trials"]) == stop_at
    made.clear()
    stop_at = N_TRIALS + 1
    assert study(names).run(context(tmp_path)) == expected
    assert made[0] == N_TRIALS - len(made)  # the trials before it were not made again


def test_trials_of_another_key_are_not_taken(tmp_path, whole):
    study(trials=2).run(context(tmp_path, "other"))
    assert study().run(context(tmp_path, "ab")) == whole


@pytest.mark.parametrize("damage", ["cut", "changed", "no JSON", "another shape", "other trials"])
def test_damaged_trials_are_ignored_with_a_warning(tmp_path, whole, caplog, damage):
    study(trials=3).run(context(tmp_path))
    path = tmp_path / "trials.json"
    content = json.loads(path.read_text())
    text = json.dumps(content)
    content["trials"][0]["value"] = 0.0  # the best of all, if it were true
    path.write_text(
        {"cut": text[: len(text) // 2], "changed": json.dumps(content), "no JSON": "\0\0\0", "another shape": "[]",
         "other trials": json.dumps({**content, "trials": {"a": 1}})}[damage]
    )  # fmt: skip
    with caplog.at_level(logging.WARNING, "gpupipe"):
        assert study().run(context(tmp_path)) == whole
    assert [r.getMessage() for r in caplog.records] == [f"{path} is damaged; its trials are made again"]


def test_parameters_depend_on_the_family():
    drawn = []

    class Recorded(Study):
        def loss(self, trial):
            loss = super().loss(trial)
            drawn.append(trial.params)
            return loss

    Recorded(FAMILIES, made_rows(1), small_settings("search.trials=8"), 4).run(NO_CONTEXT)
    families = {params["family"] for params in drawn}
    assert len(families) > 1
    for params in drawn:
        own = {name for name in params if name != "family"}
        assert own and all(name.startswith(f"{params['family']}.") for name in own)


def test_a_trial_is_judged_on_later_dates_of_other_issuers():
    rows, settings = made_rows(1), small_settings()
    drawn = {"max_depth": 3, "max_features": 0.5, "least_leaf": 9}
    import optuna

    found = Study(("forest",), rows, settings, 4).loss(_Fixed(optuna.trial.FixedTrial(drawn)))
    errors, counts = [], []
    for fold in rows.forward(settings.search.folds):
        own = dataclasses.replace(settings.forest, **drawn)
        model = registry.FAMILIES["forest"].fit(rows.fit_rows(fold.fit, rows.split.validation, 4), own)
        errors.append(mean_squared(model.predict(rows.X[fold.predict]), rows.target(fold.predict)))
        counts.append(len(fold.predict))
    assert found == float(np.average(errors, weights=counts))


class _Fixed:
    """A FixedTrial that is never pruned."""

    def __init__(self, trial):
        self.trial = trial

    def __getattr__(self, name):
        return getattr(self.trial, name)

    def should_prune(self):
        return False


def test_bad_trials_are_pruned():
    """The medians of the first blocks stop trials that are worse; their state and no loss is kept."""
    found = study(("network",), trials=14).run(NO_CONTEXT)
    assert 0 < found["pruned"] < 14 - studies.STARTUP
    assert found["loss"] is not None


def test_values_of_test_and_validation_rows_do_not_decide_trials():
    """A trial's loss is of training rows; validation only stops its models early."""
    rows = made_rows(1)
    rows.change[rows.split.test] = 99.0
    assert study(rows=rows).run(NO_CONTEXT) == study().run(NO_CONTEXT)


def test_no_trial_with_a_loss_is_an_error(monkeypatch):
    monkeypatch.setattr(Study, "loss", lambda self, trial: float("nan"))
    with pytest.raises(UserError, match="no trial of step 4 has a finite loss"):
        study(trials=2).run(NO_CONTEXT)
