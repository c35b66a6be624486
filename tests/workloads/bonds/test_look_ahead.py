"""Nothing up to a date depends on what comes after it: reading, columns of states, baselines, models."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow.parquet as pq
import pytest

from gpupipe.estimators.fit_context import NO_CONTEXT
from gpupipe.workloads.bonds import recipe, results
from tests.support.bond_run import lasting, market, run_bonds, small_settings
from tests.support.bond_tables import BONDS, CURVE, QUOTES, changed, read
from tests.workloads.bonds.test_columns import changed_after


class _Context:
    def __init__(self, panel, *settings):
        self.panel, self.settings, self.fit = panel, small_settings(*settings), NO_CONTEXT


def states_found(panel):
    """(rows, regimes, factors, all columns of models by name) of the graph."""
    context, values = _Context(panel), {}
    for name, make in (("values", recipe._values), ("rows", recipe._rows), ("regimes", recipe._regimes),
                       ("factors", recipe._factors)):  # fmt: skip
        values[name] = make(context, values)
    rows = recipe.with_states(recipe._rows_of(context, values), values)
    return values, dict(zip(rows.names, rows.X.T, strict=True))


@functools.cache
def states_of_market():
    return states_found(market().panel)


def dates_of_market():
    """The distinct times, and the positions of the first dates of validation and test."""
    return np.unique(market().panel.time_ns), states_of_market()[0]["rows"].facts["first"]


@pytest.mark.parametrize("part", ["validation", "test", "late"])
def test_columns_of_regimes_and_factors_are_blind_to_later_dates(part):
    dates, (validation, test) = dates_of_market()
    cut = dates[{"validation": validation - 1, "test": test, "late": len(dates) - 3}[part]]
    panel = market().panel
    (before, columns), (after, other) = states_of_market(), states_found(changed_after(panel, cut))
    until = panel.time_ns <= cut
    states = set(columns) - set(before["rows"].facts["names"])
    assert {"regime_1", "loading_1", "factor_move_1"} <= states
    for name, column in columns.items():
        assert np.array_equal(column[until], other[name][until], equal_nan=True), name
    moved = {name for name in states if not np.array_equal(columns[name], other[name], equal_nan=True)}
    assert {"factor_move_1", "factor_move_2", "factor_move_3"} <= moved
    assert "regime_1" in moved or part != "validation"  # a few dates may keep their regime
    for step, arrays in (("regimes", ("mean", "scale", "centers")), ("factors", ("loading", "mean"))):
        for name in arrays:  # fitted before the first date of validation
            assert np.array_equal(before[step][name], after[step][name]), (step, name)
        assert before[step].facts == after[step].facts


def test_the_parts_of_rows_known_until_a_date_are_the_same_whatever_comes():
    """Targets and parts of all rows whose target is known by then, and the baselines."""
    dates, (_, test) = dates_of_market()
    cut, panel = dates[test + 4], market().panel
    before, after = states_of_market()[0]["rows"], states_found(changed_after(panel, cut))[0]["rows"]
    next_row = before["next_row"]
    known = (next_row >= 0) & (panel.time_ns[next_row] <= cut)
    assert np.array_equal(next_row[known], after["next_row"][known])
    assert np.array_equal(before["change"][known], after["change"][known])
    for part in ("train", "validation"):
        assert np.array_equal(before[part], after[part])
    for part in (before, after):
        assert np.isin(np.flatnonzero(known), part["test"]).sum() > 20
    assert np.array_equal(
        np.intersect1d(before["test"], np.flatnonzero(known)), np.intersect1d(after["test"], np.flatnonzero(known))
    )
    for name in recipe.BASELINES:
        column, other = before[f"baseline/{name}"], after[f"baseline/{name}"]
        assert np.array_equal(column[panel.time_ns <= cut], other[panel.time_ns <= cut], equal_nan=True), name


def predicted(out, cut):
    """{column: values} of the published predictions of dates up to `cut`, ns, without the next spread."""
    table = pq.read_table(out / results.PREDICTIONS).to_pydict()
    kept = np.array(table["date"], "datetime64[ns]").astype(np.int64) <= cut
    return {name: np.array(column)[kept] for name, column in table.items() if name != "next_spread"}


def test_predictions_and_models_of_a_run_are_blind_to_later_dates(tmp_path):
    """Other prices, ratings and curves late in the test: no model, choice or earlier prediction moves by a bit."""
    dates, (_, test) = dates_of_market()
    cut, panel = dates[test + 4], market().panel
    whole, _ = run_bonds(tmp_path / "whole")
    other, _ = run_bonds(tmp_path / "other", panel=changed_after(panel, cut))
    # The target of a row of the last date lies after the cut, so that it may be no test row any more.
    first, second = (predicted(tmp_path / name, dates[test + 3]) for name in ("whole", "other"))
    assert len(first["bond"]) > 20 and set(first) >= {*results.MODEL_STEPS, "date", "spread"}
    for name, column in first.items():
        assert np.array_equal(column, second[name]), name
    late = (predicted(tmp_path / name, dates[-1])["basic"] for name in ("whole", "other"))
    assert not np.array_equal(*late)
    old, new = lasting(tmp_path / "whole"), lasting(tmp_path / "other")
    models = [name for name in old if "/models/" in name and not name.endswith(".json")]
    assert len(models) > 8 and all(old[name] == new[name] for name in [*models, results.STATES, results.INTERVALS])
    assert whole["bonds"]["chosen"] == other["bonds"]["chosen"]
    assert whole["bonds"]["searches"] == other["bonds"]["searches"]


@pytest.mark.parametrize("cut", ["2020-01-02", "2020-01-03"])
def test_reading_a_longer_history_leaves_the_rows_of_a_shorter_one(cut):
    """Files that end on a date make the rows that longer files make until then."""

    def until(table):
        kept = [day <= cut for day in table["date"]]
        return {name: [v for v, keep in zip(values, kept, strict=True) if keep] for name, values in table.items()}

    rating = changed(QUOTES, rating=["AA", "D", "BBB", "BB", "CCC"])
    whole, _ = read(BONDS, rating, CURVE)
    part, _ = read(BONDS, until(rating), until(CURVE))
    kept = whole.time_ns <= np.datetime64(cut, "ns").astype(np.int64)
    assert part.n_rows == kept.sum() == 3 and part.symbols == whole.symbols
    for name, column in part.columns.items():
        assert np.array_equal(column, whole.columns[name][kept], equal_nan=True), name


def test_a_row_has_the_curve_of_its_day_or_of_the_last_one_before():
    quotes = changed(QUOTES, date=["2020-01-02", "2020-01-05", "2020-01-03", "2020-01-04", "2020-01-06"])
    panel, _ = read(BONDS, quotes, CURVE)
    days = panel.time_ns.astype("datetime64[ns]").astype("datetime64[D]").astype(str)
    expected = {"2020-01-02": 1.88, "2020-01-03": 1.80, "2020-01-04": 1.80, "2020-01-05": 1.80, "2020-01-06": 1.54}
    assert panel.columns["curve_y10"].tolist() == [expected[day] for day in days]
    assert panel.columns["curve_age"].max() == 2
