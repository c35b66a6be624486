"""A run with too few rows for models: fair values by the curve fit, risk, and one sentence that says why."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("optuna")

from gpupipe.pipeline import job, upkeep
from gpupipe.report import bond_words
from gpupipe.runtime.errors import UserError
from gpupipe.workloads.bonds import (
    BONDS,
    columns,
    curve_fit,
    fair_values,
    intervals,
    markets,
    recipe,
    results,
    scan,
    schema,
)
from gpupipe.workloads.bonds.baselines import FEWEST, GRADES, svensson
from tests.support import kill
from tests.support.bond_run import market, run_bonds, small_settings


@pytest.fixture(scope="module")
def treasuries(tmp_path_factory):
    """(OUT, its summary) of a run on the auctions of US Treasuries."""
    out = tmp_path_factory.mktemp("treasuries") / "OUT"
    panel, report = markets.treasuries()
    settings = small_settings("bonds.least_rows=200")
    return out, job.execute(BONDS, panel, report, settings, out, job.JobOptions(jobs=2))[0]


def first_dates(n_dates, n_bonds=None):
    panel = market().panel
    keep = panel.time_ns <= np.unique(panel.time_ns)[n_dates - 1]
    return panel.take(keep if n_bonds is None else keep & (panel.symbol_of_row < n_bonds))


def table(out, name):
    return pq.read_table(out / name).to_pydict()


def test_the_run_says_that_no_model_was_fitted_and_why(treasuries):
    bonds = treasuries[1]["bonds"]
    assert bonds["chosen"] is None and bonds["measured"] == [] and bonds["drift"] == {}
    sentence, curve, _ = bond_words.verdict_lines(treasuries[1])
    assert sentence.startswith("No model was fitted, and fair values are those of the curve fit: the quotes give ")
    assert "bonds.least_rows = 200" in sentence and "more quotes of each bond would help" in sentence
    assert "0 rows of training" in sentence and "400 quotes" in curve
    assert "no forecast" in bond_words.skill_of_signals(bonds)


def test_only_the_steps_without_models_are_named(treasuries):
    named = [step["name"] for step in treasuries[1]["bonds"]["steps"]]
    assert named == ["values", "rows", "regimes", "factors", "tail_risk"]
    assert set(named) == {recipe.VALUES, recipe.ROWS, *recipe.NAMES.values()} - set(recipe.OF_MODELS)


def test_curve_risk_and_signals_are_published(treasuries):
    out, whole = treasuries
    files = {path.name for path in (out / "bonds").iterdir()}
    assert files == {"signals.parquet", "quotes.parquet", "dates.parquet", "curves.parquet", "risk.parquet",
                     "losses.parquet", "loadings.parquet", "intervals.json", "states.npz"}  # fmt: skip
    quotes, risk, found = table(out, results.QUOTES), table(out, results.RISK), table(out, results.SIGNALS)
    residual = 100 * (np.array(quotes["yield"]) - np.array(quotes["fitted"]))
    assert (
        len(residual) == 400 and np.median(np.abs(residual)) < 6
    )  # basis points; to the par curve itself they are 1.6
    assert whole["bonds"]["curve_fit"]["rmse_bp"] == pytest.approx(float(np.sqrt((residual**2).mean())))
    assert found["bond"] and set(found["bond"]) == set(risk["bond"]) and whole["bonds"]["tail_risk"]["scenarios"] > 100
    assert np.isfinite(risk["key_rate_y10"]).all() and np.isfinite(risk["var"]).all()
    fitted = dict(zip(risk["bond"], risk["fitted"], strict=True))
    curve = np.array(found["yield"]) - np.array(found["spread"])
    expected = np.array(found["fair_spread"]) + curve
    assert np.allclose(expected, [fitted[bond] for bond in found["bond"]], rtol=0, atol=1e-6)


def test_signals_hold_their_share_of_the_residuals(treasuries):
    quotes = table(treasuries[0], results.QUOTES)
    residual = np.array(quotes["yield"]) - np.array(quotes["fitted"])
    kept = json.loads((treasuries[0] / results.INTERVALS).read_text())
    low, high = kept["by_rating"]["-1"]
    assert np.mean((residual >= low) & (residual <= high)) == pytest.approx(intervals.LEVEL, abs=0.01)


def test_a_scan_of_the_same_quotes_is_the_runs_own(treasuries):
    own, found = scan.of_run(treasuries[0]), scan.of_panel(treasuries[0], markets.treasuries()[0])
    assert own.to_pydict() == found.to_pydict()


def test_the_same_run_again_has_nothing_to_do_and_out_is_whole(treasuries):
    out = treasuries[0]
    panel, report = markets.treasuries()
    settings = small_settings("bonds.least_rows=200")
    assert job.execute(BONDS, panel, report, settings, out, job.JobOptions(jobs=1))[1] is False
    assert not kill.broken_promises(out) and not kill.broken_store(out) and not kill.unaccounted(out)
    assert not upkeep.verify(out).wrong


def test_the_fit_is_that_of_the_grade_or_of_the_par_curve():
    """Against a naive loop over dates and grades."""
    panel = market().panel
    panel = panel.take(panel.symbol_of_row % 8 < 3)  # so that grades of some dates are too small
    fair = fair_values.fair_values(panel, "street")
    rows = columns.rows_of(panel, fair)
    at_maturity = schema.rate_at_maturity(panel)
    yields = fair.spread + at_maturity
    fitted = curve_fit.fitted_spreads(panel, fair, rows)
    grade = np.searchsorted(GRADES, rows.rating)
    few = 0
    for date in np.unique(rows.date):
        for k in np.unique(grade):
            own = np.flatnonzero((rows.date == date) & (grade == k) & np.isfinite(yields))
            if not len(own):
                continue
            if len(own) >= FEWEST:
                expected = svensson(fair.years[own], yields[own], fair.years[own]) - at_maturity[own]
            else:
                few += 1
                expected = 0.0 if k == 0 else fair.spread[own].mean()
            assert np.allclose(fitted[own], expected, rtol=0, atol=1e-9)
    assert few > 3 and np.isnan(fitted[np.isnan(fair.yield_)]).all()


@pytest.mark.parametrize(("n_dates", "n_bonds"), [(1, None), (2, 3), (5, 1), (4, None)])
def test_very_few_quotes_have_fair_values(tmp_path, n_dates, n_bonds):
    panel = first_dates(n_dates, n_bonds)
    whole, _ = run_bonds(tmp_path / "OUT", panel=panel)
    assert bond_words.no_models(whole["bonds"]) and table(tmp_path / "OUT", results.SIGNALS)["bond"]
    found = scan.of_panel(tmp_path / "OUT", panel)
    assert found.to_pydict() == scan.of_run(tmp_path / "OUT").to_pydict()


def test_bonds_of_one_issuer_have_fair_values(tmp_path):
    panel = market().panel
    panel = panel.replace(attributes={**panel.attributes, "issuer": ("One",) * panel.n_symbols})
    whole, _ = run_bonds(tmp_path / "OUT", panel=panel)
    assert "rows of" in whole["bonds"]["no_models"] and not whole["bonds"]["fits"]


def test_more_quotes_give_models_and_leave_nothing_of_the_curve_run(tmp_path):
    out = tmp_path / "OUT"
    run_bonds(out, panel=first_dates(4))
    whole, _ = run_bonds(out)
    assert whole["bonds"]["chosen"] and whole["bonds"]["no_models"] == "" and not (out / results.QUOTES).exists()
    run_bonds(out, panel=first_dates(4))
    assert not (out / results.PREDICTIONS).exists() and not (out / "bonds" / "models").exists()
    assert not kill.unaccounted(out)


@pytest.mark.parametrize("what", ["clean", "curve"])
def test_without_any_spread_there_is_one_line_and_the_earlier_run_stays(tmp_path, what):
    out, panel = tmp_path / "OUT", first_dates(3)
    run_bonds(out, panel=panel)
    before = {path: path.read_bytes() for path in (out / "bonds").iterdir()}
    names = [name for name in panel.columns if name == "clean" or (what == "curve" and name.startswith("curve_"))]
    names = [name for name in names if name not in ("curve_age", *({"clean"} if what == "curve" else ()))]
    nothing = panel.replace(columns={**panel.columns, **{name: np.full(panel.n_rows, np.nan) for name in names}})
    with pytest.raises(UserError, match=r"none of the \d+ quotes has a spread: .* give prices") as error:
        run_bonds(out, panel=nothing)
    assert "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in (out / "bonds").iterdir()} == before and not kill.broken_promises(out)


def test_a_split_is_a_fact_of_the_rows():
    panel, settings = first_dates(4), small_settings()
    fair = fair_values.fair_values(panel, "street")
    rows = columns.rows_of(panel, fair)
    split, sizes, reason = recipe._split(rows, np.full(panel.n_rows, -1), np.zeros(panel.n_rows), settings)
    assert split.sizes == sizes == {"train": 0, "validation": 0, "test": 0} and split.first == (4, 4) and reason
