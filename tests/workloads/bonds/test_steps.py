"""Steps of a run by themselves: depth, stack, regimes, factors, evaluation, drift, tuning."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from gpupipe.estimators.fit_context import NO_CONTEXT
from gpupipe.evaluation.block_bootstrap import NO_SKILL, NOT_KNOWN, SKILL
from gpupipe.workloads.bonds import models, recipe
from gpupipe.workloads.bonds.baselines import LAST, RATING, SVENSSON
from gpupipe.workloads.bonds.families import registry
from gpupipe.workloads.bonds.families.contract import mean_squared
from gpupipe.workloads.bonds.found import Found
from gpupipe.workloads.bonds.steps import (
    automatic,
    basic,
    bayesian,
    drift,
    enhanced,
    evaluation,
    stacked,
    tuning,
)
from tests.support.bond_run import made_rows, small_settings

SETTINGS = small_settings("search.depths=1,2,5,12", "forest.least_leaf=5")


@pytest.fixture(scope="module")
def rows():
    return made_rows(1)


@pytest.fixture(scope="module")
def steps(rows):
    """The models of steps 1 to 4 by name."""
    made = {"basic": basic, "enhanced": enhanced, "stacked": stacked, "automatic": automatic}
    return {name: step.run(rows, SETTINGS, NO_CONTEXT) for name, step in made.items()}


def with_other_test(rows):
    """The rows with other targets in the sealed test."""
    change = rows.change.copy()
    change[rows.split.test] += 5.0 * np.random.default_rng(8).standard_normal(len(rows.split.test))
    return dataclasses.replace(rows, change=change)


def test_targets_are_moves_against_the_mean_of_their_date():
    rows = made_rows(4)
    spread = np.linspace(0.1, 3.0, len(rows.change))  # of which the smallest count as LEAST_SCALE
    rows = dataclasses.replace(rows, spread=spread)
    for part in (rows.split.train, rows.split.validation, rows.split.train[::3]):
        moves = rows.change[part] / np.maximum(spread[part], models.LEAST_SCALE)
        date = rows.date[part]
        expected = [move - moves[date == on].mean() for move, on in zip(moves, date, strict=True)]
        assert np.allclose(rows.target(part), expected, atol=1e-6) and rows.target(part).dtype == np.float32
    # A move that all bonds of a date share, in units of the spread, changes no target.
    moved = dataclasses.replace(rows, change=(rows.change + 0.3 * rows.date * rows.scale).astype(np.float32))
    assert np.allclose(moved.target(rows.split.train), rows.target(rows.split.train), atol=1e-5)


@pytest.mark.parametrize("name", ["basic", "enhanced", "stacked", "automatic"])
def test_a_step_predicts_from_validation_on_and_tells_its_loss(rows, steps, name):
    found = steps[name]
    assert np.flatnonzero(np.isfinite(found["change"])).tolist() == rows.judged.tolist()
    predicted = found["change"] / rows.scale
    loss = mean_squared(predicted[rows.split.validation], rows.target(rows.split.validation))
    assert found.facts["validation_loss"] == pytest.approx(loss, rel=1e-5) and found.facts["columns"] == list(
        rows.names
    )
    assert loss < np.var(rows.target(rows.split.validation))
    again = registry.load(found.facts["kind"], found.files).predict(rows.X[rows.judged])
    assert np.array_equal((rows.scale[rows.judged] * again).astype(np.float32), found["change"][rows.judged])


@pytest.mark.parametrize("name", ["basic", "enhanced", "stacked", "automatic", "bayesian"])
def test_targets_of_test_rows_change_no_model(rows, steps, name):
    step = {"basic": basic, "enhanced": enhanced, "stacked": stacked, "automatic": automatic}.get(name)
    if step is None:
        first, other = (bayesian.run(r, "boosting", SETTINGS, NO_CONTEXT) for r in (rows, with_other_test(rows)))
    else:
        first, other = steps[name], step.run(with_other_test(rows), SETTINGS, NO_CONTEXT)
    assert first.files == other.files and first.facts == other.facts


def test_the_depth_is_the_best_on_validation(steps):
    facts = steps["enhanced"].facts
    tried = dict(map(tuple, facts["depths"]))
    assert facts["depth"] == min(tried, key=tried.get) and facts["validation_loss"] == min(tried.values())
    assert list(tried) == sorted(tried) and set(tried) <= {1, 2, 5, 12} and len(tried) >= 3
    assert tried[1] > tried[facts["depth"]] and facts["depth"] > 1


def test_the_search_of_depths_stops_where_nothing_is_gained(rows):
    noise = np.random.default_rng(2).standard_normal(len(rows.change)).astype(np.float32)
    change = np.where(np.isfinite(rows.change), noise, np.nan)
    found = enhanced.run(dataclasses.replace(rows, change=change), small_settings("search.depths=1,2,3,4,5,6,7,8"),
                         NO_CONTEXT)  # fmt: skip
    losses = [loss for _, loss in found.facts["depths"]]
    assert len(losses) == int(np.argmin(losses)) + 1 + enhanced.PATIENCE < 8


def test_weights_of_the_stack_are_of_predictions_out_of_fold(rows, steps, monkeypatch):
    given = []
    weights = stacked.meta_weights
    monkeypatch.setattr(stacked, "meta_weights", lambda *a: given.append(a) or weights(*a))
    again = stacked.run(rows, SETTINGS, NO_CONTEXT)
    assert again.files == steps["stacked"].files
    predictions, y, _, _ = given[0]
    folds = rows.folds(SETTINGS.search.folds)
    at = np.concatenate([fold.predict for fold in folds])
    assert np.array_equal(y, rows.target(at)) and len(set(at)) == len(at) == again.facts["rows_out_of_fold"]
    assert set(at) <= set(rows.split.train)
    for k, name in enumerate(registry.FAMILIES):
        expected = [
            registry.FAMILIES[name]
            .fit(rows.fit_rows(fold.fit, rows.split.validation, stacked.NUMBER), getattr(SETTINGS, name))
            .predict(rows.X[fold.predict])
            for fold in folds
        ]
        assert np.array_equal(predictions[k], np.concatenate(expected))


def test_the_searches_values_are_those_fitted(rows, steps):
    facts = steps["automatic"].facts
    found = facts["search"]
    model = models.fit(rows, found["family"], SETTINGS, automatic.NUMBER, found["values"])
    assert model.files() == steps["automatic"].files and facts["kind"] == found["family"]
    fixed = bayesian.run(rows, "forest", SETTINGS, NO_CONTEXT)
    assert fixed.facts["search"]["family"] == "forest"
    other = models.fit(rows, "forest", SETTINGS, bayesian.NUMBER)
    assert (
        fixed.files == models.fit(rows, "forest", SETTINGS, 8, fixed.facts["search"]["values"]).files() != other.files()
    )


# Evaluation.


def predictions(rows, **by_name):
    return {name: Found({"change": np.asarray(change, np.float32)}, {"validation_loss": 1.0, "kind": "forest"})
            for name, change in by_name.items()}  # fmt: skip


def measured(rows, baselines=None, **by_name):
    known = np.nan_to_num(rows.change)
    given = {LAST: rows.spread, RATING: rows.spread + 0.1, SVENSSON: rows.spread - 0.1}
    made = predictions(rows, **{name: make(known) for name, make in by_name.items()})
    found = evaluation.measure(rows, made, baselines or given, rows.split.test, SETTINGS)
    return {row["model"]: row for row in found}


@pytest.fixture(scope="module")
def long_rows():
    return made_rows(2, n_dates=60)


def test_errors_and_gains_are_those_of_loops(long_rows):
    rows = long_rows
    found = measured(rows, half=lambda change: 0.5 * change)
    test = rows.split.test
    y = rows.change[test].astype(float)
    assert found["half"]["rmse_bp"] == pytest.approx(100 * np.sqrt(np.mean((0.5 * y) ** 2)), rel=1e-5)
    assert found["half"]["rows"] == len(test)
    date, offset = rows.date[test], np.linspace(-0.1, 0.1, len(rows.spread))
    given = {LAST: rows.spread, RATING: rows.spread + offset, SVENSSON: rows.spread - 2 * offset}
    found = measured(rows, given, half=lambda change: 0.5 * change)

    def squared(errors):
        return np.mean(np.concatenate([(errors[date == k] - errors[date == k].mean()) ** 2 for k in np.unique(date)]))

    for name, expected in ((LAST, 0 * offset), (RATING, offset), (SVENSSON, -2 * offset)):
        gain = 1 - squared(0.5 * y) / squared(y - expected[test])
        low, estimate, high = found["half"]["gain_over"][name]
        assert estimate == pytest.approx(gain, rel=1e-5) and low <= estimate <= high
    assert found[LAST]["gain_over"][LAST] == [0, 0, 0] and found[LAST]["kind"] == "baseline"
    assert "skill" not in found[LAST]


def test_skill_is_only_where_all_baselines_are_beaten(long_rows):
    rows = long_rows
    found = measured(rows, oracle=lambda change: change, none=np.zeros_like, worse=lambda change: -change)
    assert found["oracle"]["skill"] == SKILL and found["oracle"]["rank_correlation"] == pytest.approx(1)
    assert found["none"]["skill"] == found["worse"]["skill"] == NO_SKILL
    assert found["none"]["rank_correlation"] is None and found["worse"]["rank_correlation"] == pytest.approx(-1)
    near = {LAST: rows.spread, RATING: rows.spread + 0.9 * np.nan_to_num(rows.change), SVENSSON: rows.spread}
    beaten = measured(rows, near, half=lambda change: 0.5 * change)
    assert beaten["half"]["gain_over"][LAST][0] > 0 and beaten["half"]["skill"] == NO_SKILL


def test_skill_needs_intervals_that_hold_for_all_models_together(long_rows):
    rows = long_rows
    assert len([*recipe.MODELS, "tuning"]) == evaluation.COMPARED
    noise = np.random.default_rng(3).standard_normal(len(rows.change))
    shares = np.linspace(0, 0.5, 101)
    found = measured(rows, **{f"{w:.3f}": lambda change, w=w: w * change + 0.3 * change.std() * noise for w in shares})
    able = [row["skill"] == SKILL for row in found.values() if row["kind"] == "model"]
    lows = np.array([[ends[0] for ends in found[f"{w:.3f}"]["gain_over"].values()] for w in shares]).min(axis=1)
    between = [bool(low > 0) and not skill for low, skill in zip(lows, able, strict=True)]
    assert not able[0] and able[-1] and any(between) and all(lows[able] > 0)


def test_blocks_of_dates_span_the_targets(monkeypatch):
    """Quotes on every tenth date: neighbouring dates share moves of ten dates."""
    rows = made_rows(2, n_dates=60)
    rows = dataclasses.replace(rows, date=10 * rows.date)
    asked = []
    draw = evaluation.block_bootstrap.draw
    monkeypatch.setattr(evaluation.block_bootstrap, "draw", lambda *given: asked.append(given[1]) or draw(*given))
    measured(rows, half=lambda change: 0.5 * change)
    assert asked == [10] and rows.horizon(rows.split.test) == 10


def test_few_dates_or_no_rows_are_not_known(long_rows):
    rows = long_rows
    few = rows.split.test[rows.date[rows.split.test] < rows.split.first[1] + 2]
    made = predictions(rows, half=0.5 * np.nan_to_num(rows.change))
    given = {LAST: rows.spread, RATING: rows.spread, SVENSSON: rows.spread}
    for test in (few, few[:0]):
        row = evaluation.measure(rows, made, given, test, SETTINGS)[-1]
        assert row["skill"] == NOT_KNOWN and row["rows"] == len(test)


def test_rank_correlation_is_spearmans_by_date(long_rows):
    rng = np.random.default_rng(1)
    date = np.repeat(np.arange(5), [10, 7, 2, 8, 9])
    a, b = rng.integers(0, 5, 36).astype(float), rng.standard_normal(36)
    expected = np.mean([stats.spearmanr(a[date == k], b[date == k])[0] for k in (0, 1, 3, 4)])
    assert evaluation.rank_correlation(a, b, date) == pytest.approx(expected)


def test_the_chosen_model_is_the_best_on_validation(long_rows):
    made = predictions(long_rows, a=np.zeros(len(long_rows.change)), b=np.zeros(len(long_rows.change)))
    made["b"] = dataclasses.replace(made["b"], facts={**made["b"].facts, "validation_loss": 0.5})
    given = {LAST: long_rows.spread, RATING: long_rows.spread, SVENSSON: long_rows.spread}
    assert evaluation.run(long_rows, made, given, long_rows.split.test, SETTINGS).facts["chosen"] == "b"


# Drift.


def naive_psi(before, after, bins=10):
    edges = np.unique(np.quantile(before[np.isfinite(before)], np.linspace(0, 1, bins + 1)[1:-1]))
    total = 0.0
    counts = []
    for sample in (before, after):
        own = [
            sum(1 for x in sample if np.isfinite(x) and sum(x >= e for e in edges) == k) for k in range(len(edges) + 1)
        ]
        own.append(sum(1 for x in sample if not np.isfinite(x)))
        counts.append([(n + 0.5) / (sum(own) + 0.5 * len(own)) for n in own])
    for a, b in zip(*counts, strict=True):
        total += (b - a) * np.log(b / a)
    return total


@pytest.mark.parametrize("seed", range(3))
def test_the_stability_index_is_that_of_a_loop(seed):
    rng = np.random.default_rng(seed)
    before, after = rng.standard_normal(120), rng.standard_normal(70) * 1.3 + 0.4
    before[:9], after[:3] = np.nan, np.inf
    assert drift.stability_index(before, after) == pytest.approx(naive_psi(before, after))
    ties = np.round(before)
    assert drift.stability_index(ties, after) == pytest.approx(naive_psi(ties, after))
    found = drift.compare(before, after)
    expected = stats.ks_2samp(before[9:], after[3:], method="asymp")
    assert (found["ks"], found["p"]) == (expected.statistic, expected.pvalue)
    known = np.sort(before[9:])
    steps = np.concatenate([known, after[3:]])
    distance = max(abs(np.mean(known <= x) - np.mean(after[3:] <= x)) for x in steps)
    assert found["ks"] == pytest.approx(distance)


def test_nothing_known_has_no_drift():
    assert drift.compare(np.array([]), np.ones(3)) == {"psi": None, "ks": None, "p": None}
    assert np.isnan(drift.stability_index(np.full(3, np.nan), np.ones(3)))


def test_inputs_that_moved_are_named(rows, steps):
    X = rows.X.copy()
    X[rows.split.test, 2] += 3
    found = drift.run(dataclasses.replace(rows, X=X), steps, rows.split.test).facts
    drifted = {name for name, of in found["inputs"].items() if of["psi"] > 1}
    assert drifted == {"x2"} and found["inputs_drifted"] >= 0.2
    assert set(found["residuals"]) == set(steps) and found["benchmark"] in steps


def test_test_rows_do_not_name_the_benchmark(rows, steps):
    other = with_other_test(rows)
    first, second = (drift.run(r, steps, r.split.test).facts for r in (rows, other))
    assert first["benchmark"] == second["benchmark"] and first["residuals"] != second["residuals"]


def test_a_model_that_drifts_within_validation_is_not_the_benchmark():
    """Residuals known in advance: of one model alike in both halves of validation, of the other one wider later."""
    rows = made_rows(3, bonds_by_issuer=40)
    validation = rows.split.validation
    happened = np.nan_to_num(rows.change)
    noise = np.random.default_rng(2).normal(0, 0.1, len(happened))
    date = rows.date[validation]
    for on in np.unique(date):
        at = validation[date == on]
        noise[at] = np.linspace(-0.1, 0.1, len(at))
    shifted = noise.copy()
    shifted[validation[date >= np.median(date)]] *= 40  # a shift of all bonds of a date would be none
    made = predictions(rows, steady=happened + noise, shifted=happened + shifted)
    made["shifted"].facts["validation_loss"] = 0.0  # it would be chosen, if it did not drift
    found = drift.run(rows, made, rows.split.test).facts
    psi = {name: of["validation"]["psi"] for name, of in found["residuals"].items()}
    assert psi["steady"] < drift.DRIFTED < psi["shifted"] and found["benchmark"] == "steady"
    alone = drift.run(rows, {"shifted": made["shifted"]}, rows.split.test).facts
    assert alone["benchmark"] == "shifted"  # where every one drifted, the smallest loss


# Tuning.


def test_tuning_searches_and_fits_on_the_later_half_of_training(rows, steps, monkeypatch):
    seen = []
    fit = tuning.fit
    monkeypatch.setattr(tuning, "fit", lambda given, *a: seen.append(given) or fit(given, *a))
    given = {LAST: rows.spread, RATING: rows.spread, SVENSSON: rows.spread}
    found = tuning.run(rows, "automatic", steps["automatic"], given, rows.split.test, SETTINGS, NO_CONTEXT)
    train = seen[0].split.train
    assert rows.date[train].min() >= np.median(rows.date[rows.split.train]) and len(train) < len(rows.split.train)
    assert [row["model"] for row in found.facts["rows"]] == ["tuned"]
    assert found.facts["search"]["family"] == steps["automatic"].facts["kind"] == found.facts["family"]
    other = with_other_test(rows)
    again = tuning.run(other, "automatic", steps["automatic"], given, rows.split.test, SETTINGS, NO_CONTEXT)
    assert again.files == found.files and again.facts["search"] == found.facts["search"]


def test_a_stack_is_tuned_by_its_heaviest_member():
    facts = {"kind": "stack", "weights": {"intercept": 9.0, "forest": 0.2, "boosting": -0.7, "network": 0.3}}
    assert tuning.family_of(Found({}, facts)) == "boosting"
    assert tuning.family_of(Found({}, {"kind": "network"})) == "network"


def test_the_models_of_the_graph_are_these():
    assert recipe.MODELS == ("basic", "enhanced", "stacked", "automatic", "bayesian") and len(recipe.NAMES) == 11
