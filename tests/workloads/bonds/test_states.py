"""Regimes and factors: fitted on training dates alone, and the columns that they give."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpupipe.estimators.fit_context import NO_CONTEXT
from gpupipe.workloads.bonds.steps import (
    factors,
    regimes,
)
from tests.support.bond_run import made_rows, rows_of_market, small_settings


def market_rows():
    """ModelRows of the small market; its first part are the dates before 20."""
    _, fair, made = rows_of_market()
    base = made_rows(0)
    split = dataclasses.replace(base.split, first=(20, 28))
    return made, dataclasses.replace(
        base, X=made.X, names=made.names, spread=fair.spread, date=made.date, split=split
    ), fair  # fmt: skip


def run_regimes(rows, n_dates, **changed):
    return regimes.run(rows, n_dates, small_settings(*(f"bonds.{k}={v}" for k, v in changed.items())), NO_CONTEXT)


def test_regimes_are_fitted_on_training_dates_alone():
    made, rows, _ = market_rows()
    n_dates = len(made.dates)
    found = run_regimes(rows, n_dates)
    assert found.facts["dates_fitted"] == 20 and len(found["regime"]) == n_dates
    X, spread = rows.X.copy(), rows.spread.copy()
    X[rows.date >= 20] *= 3
    spread[rows.date >= 20] *= 2
    other = run_regimes(dataclasses.replace(rows, X=X, spread=spread), n_dates)
    for name in ("mean", "scale", "centers"):
        assert np.array_equal(found[name], other[name])
    assert np.array_equal(found["regime"][:20], other["regime"][:20]) and found.facts == other.facts


def test_two_planted_regimes_are_found_and_numbered_by_spread():
    made, rows, _ = market_rows()
    X, spread = rows.X.copy(), rows.spread.copy()
    stressed = (rows.date % 10) >= 6
    names = list(rows.names)
    rng = np.random.default_rng(0)
    for name in regimes.STATE:  # two clouds of dates
        noise = rng.normal(0, 0.05, len(made.dates))[rows.date]
        X[:, names.index(name)] = (5.0 if name == "market_spread" else 1.0) * stressed + noise
    spread = np.where(stressed, 2.0, 1.0) * np.abs(spread)
    found = run_regimes(dataclasses.replace(rows, X=X, spread=spread), len(made.dates), n_regimes=2)
    assert found.facts["regimes"] == 2 and np.array_equal(found["regime"], (np.arange(len(made.dates)) % 10) >= 6)
    columns = regimes.columns(found["regime"], 2, rows.date)
    assert list(columns) == ["regime_1"] and np.array_equal(columns["regime_1"], stressed.astype(np.float32))


@pytest.mark.parametrize("states", [1, 2, 3])
def test_no_more_clusters_than_distinct_states_are_tried(states):
    made, rows, _ = market_rows()
    X = np.repeat((rows.date % states)[:, None], rows.X.shape[1], axis=1).astype(np.float32)
    split = dataclasses.replace(rows.split, first=(36, 38))
    found = run_regimes(
        dataclasses.replace(rows, X=X, spread=1.0 + rows.date % states, split=split), len(made.dates)
    )  # fmt: skip
    assert found.facts["regimes"] == states
    assert list(found.facts["silhouettes"]) == [str(k) for k in range(2, states + 1)]


@pytest.mark.parametrize("seed", [2**31, 2**32 - 1, 10**12])
def test_any_seed_clusters(seed):
    made, rows, _ = market_rows()
    assert run_regimes(dataclasses.replace(rows, seed=seed), len(made.dates)).facts["silhouettes"]


def test_one_regime_is_asked_for_or_all_that_few_dates_allow():
    made, rows, _ = market_rows()
    found = run_regimes(rows, len(made.dates), n_regimes=1)
    assert found.facts["regimes"] == 1 and not found["regime"].any() and found.facts["silhouettes"] == {}
    few = dataclasses.replace(rows, split=dataclasses.replace(rows.split, first=(15, 28)))
    assert run_regimes(few, len(made.dates)).facts["regimes"] == 1
    assert regimes.columns(found["regime"], 1, rows.date) == {}


def test_factors_are_principal_components_of_the_changes_of_training():
    made, rows, fair = market_rows()
    curve = made.curves.rates
    found = factors.run(rows, curve, made.curves.years, small_settings(), NO_CONTEXT)
    change = np.diff(curve[:20], axis=0)
    centered = change - change.mean(axis=0)
    _, singular, vectors = np.linalg.svd(centered, full_matrices=False)
    for k, loading in enumerate(found["loading"]):
        assert np.abs(loading @ vectors[k]) == pytest.approx(1) and loading[np.abs(loading).argmax()] > 0
    assert found.facts["explained"] == pytest.approx((singular**2 / (singular**2).sum())[:3])
    later = curve.copy()
    later[20:] += np.random.default_rng(0).normal(0, 1, later[20:].shape)
    other = factors.run(rows, later, made.curves.years, small_settings(), NO_CONTEXT)
    assert np.array_equal(other["loading"], found["loading"]) and np.array_equal(
        other["score"][:20], found["score"][:20], equal_nan=True
    )
    columns = factors.columns(found.arrays, found["score"], rows.date, fair.years)
    i = int(np.flatnonzero(rows.date == 7)[0])
    own = np.interp(fair.years[i], made.curves.years, found["loading"][1])
    assert columns["loading_2"][i] == pytest.approx(own)
    assert columns["factor_move_2"][i] == pytest.approx(own * found["score"][7, 1])


def test_a_curve_that_never_moves_together_with_no_dates_has_no_factors():
    made, rows, fair = market_rows()
    curve = np.full_like(made.curves.rates, np.nan)
    found = factors.run(rows, curve, made.curves.years, small_settings(), NO_CONTEXT)
    assert found["loading"].shape[0] == 0 and found["score"].shape == (len(curve), 0)
    assert factors.columns(found.arrays, found["score"], rows.date, fair.years) == {}
