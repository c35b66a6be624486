"""A whole run of bonds: its graph, what it computes again, its sealed test, and what it publishes."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from gpupipe.artifacts.manifest import entry_of
from gpupipe.config import values_of
from gpupipe.pipeline import upkeep
from gpupipe.runtime import run_log
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import Store
from gpupipe.workloads.bonds import BONDS, recipe, results, scan, signals
from gpupipe.workloads.bonds.families import registry
from gpupipe.workloads.bonds.models import scale_of
from gpupipe.workloads.bonds.ratings import RANKS
from gpupipe.workloads.bonds.split import PARTS
from gpupipe.workloads.bonds.steps import drift, factors
from tests.support import kill
from tests.support.bond_run import N_MONTHS, lasting, market, run_bonds, small_settings

STEPS = (recipe.VALUES, recipe.ROWS, *recipe.NAMES.values())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(OUT, its summary) of a run with two jobs."""
    out = tmp_path_factory.mktemp("bonds") / "OUT"
    whole, worked = run_bonds(out)
    assert worked
    return out, whole


def made_again(out) -> set[str]:
    """The steps that the last run in OUT computed."""
    lines = [line for line in run_log.read(out / run_log.FILE) if line["event"] == "unit"]
    return {line["stage"] for line in lines[-len(STEPS) :] if not line["reused"]}


def copy_of(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "OUT")


def table(out, name):
    return pq.read_table(out / name).to_pydict()


def test_the_edges_are_what_steps_read():
    steps = {step.name: step for step in recipe.steps(market().panel, small_settings())}
    assert tuple(steps) == STEPS
    for name in ("basic", "enhanced", "stacked", "automatic", "regimes", "factors"):
        assert steps[name].needs == (recipe.ROWS,)  # side by side
    assert steps["tail_risk"].needs == (recipe.VALUES, recipe.ROWS)
    assert steps["bayesian"].needs == (recipe.ROWS, "automatic", "regimes", "factors")
    assert steps["evaluation"].needs == steps["drift"].needs == (recipe.ROWS, *recipe.MODELS)
    assert set(steps["tuning"].needs) == {recipe.ROWS, "drift", "regimes", "factors", *recipe.MODELS}
    assert {name for name, step in steps.items() if step.reads_panel} == {recipe.VALUES, recipe.ROWS, "tail_risk"}


def test_one_job_makes_the_same_files_as_two(finished, tmp_path):
    run_bonds(tmp_path / "OUT", jobs=1)
    assert lasting(tmp_path / "OUT") == lasting(finished[0])


def test_the_same_run_again_has_nothing_to_do(finished):
    assert run_bonds(finished[0])[1] is False


JUDGED = {"evaluation", "drift", "tuning"}
SEARCHED = {"automatic", "bayesian", *JUDGED}


@pytest.mark.parametrize(
    ("setting", "again"),
    [
        ("bonds.sample=3", JUDGED),
        ("bonds.n_regimes=1", {"regimes", "bayesian", *JUDGED}),  # 9 and 10 judge the model of 8, too
        ("bonds.n_factors=1", {"factors", "bayesian", *JUDGED}),
        ("bonds.tail_dates=9", {"tail_risk"}),
        ("forest.max_depth=3", {"basic", "enhanced", "stacked", *SEARCHED}),
        ("boosting.learning_rate=0.5", {"stacked", *SEARCHED}),
        ("network.epochs=2", {"stacked", *SEARCHED}),
        ("search.depths=1,2", {"enhanced", *JUDGED}),
        ("search.trials=2", SEARCHED),
        ("search.folds=3", {"stacked", *SEARCHED}),
        ("bonds.convention=quantlib", set(STEPS)),
        ("bonds.train=0.55", set(STEPS) - {"values"}),
    ],
)
def test_a_setting_computes_again_only_what_reads_it(finished, tmp_path, setting, again):
    out = copy_of(finished, tmp_path)
    run_bonds(out, setting)
    assert made_again(out) == again


@pytest.mark.parametrize("setting", ["bonds.sample=3", "bonds.n_regimes=1", "network.epochs=2", "search.trials=2"])
def test_what_is_computed_again_makes_the_files_of_a_fresh_run(finished, tmp_path, setting):
    out = copy_of(finished, tmp_path)
    run_bonds(out, setting)
    run_bonds(tmp_path / "fresh", setting)
    assert lasting(out) == lasting(tmp_path / "fresh")


def test_steps_have_no_settings_but_those_of_their_context():
    """The context holds the declared ones alone, see `pipeline.steps`; the graph itself reads none."""
    steps = recipe.steps(market().panel, None)
    declared = {name for step in steps for name in values_of(small_settings(), step.sections)}
    every = {
        f"{section}.{field.name}"
        for section, own in BONDS.catalogue().sections.items() for field in dataclasses.fields(own.kind)
    }  # fmt: skip
    assert declared == every


def test_one_more_month_leaves_what_it_does_not_change(finished, tmp_path):
    """All rows are judged anew with a month more, as the parts are shares of the dates; nothing is left of the old."""
    panel = market().panel
    before = panel.take(panel.time_ns < panel.time_ns.max())
    run_bonds(tmp_path / "OUT", panel=before)
    run_bonds(tmp_path / "OUT")
    assert lasting(tmp_path / "OUT") == lasting(finished[0])
    assert not kill.unaccounted(tmp_path / "OUT")


def with_other_targets_in_the_test(panel, found):
    """The panel with other prices on all test dates but those of bonds of other parts, and the last date's."""
    rng = np.random.default_rng(5)
    clean = panel.clean.copy()
    rows = found["next_row"][found["test"]]
    clean[rows] *= rng.uniform(0.9, 1.1, len(rows))
    return panel.replace(clean=clean)


def found_rows(panel):
    """What the step of rows finds."""
    settings = small_settings()
    values = recipe._values(_Context(panel, settings), {})
    return recipe._rows(_Context(panel, settings), {recipe.VALUES: values})


class _Context:
    def __init__(self, panel, settings):
        self.panel, self.settings = panel, settings


def test_quotes_of_the_test_choose_nothing(finished, tmp_path):
    """Other targets of test rows: the chosen model, the benchmark, all values found, and all files of models stay."""
    panel = market().panel
    whole, _ = run_bonds(tmp_path / "OUT", panel=with_other_targets_in_the_test(panel, found_rows(panel)))
    before, after = finished[1]["bonds"], whole["bonds"]
    assert after["chosen"] == before["chosen"] and after["searches"] == before["searches"]
    assert after["drift"]["benchmark"] == before["drift"]["benchmark"]
    assert after["measured"] != before["measured"] and after["regimes"] == before["regimes"]
    old, new = lasting(finished[0]), lasting(tmp_path / "OUT")
    models = [name for name in old if "/models/" in name and not name.endswith(".json")]
    assert len(models) > 8 and all(old[name] == new[name] for name in models)
    assert old[results.STATES] == new[results.STATES] and old[results.INTERVALS] == new[results.INTERVALS]


def test_issuers_of_the_sealed_test_are_in_no_other_part(finished):
    """By the texts of the panel and the published file: no issuer is on two sides, and no date of a row or target."""
    panel = market().panel
    found = found_rows(panel)
    issuer = np.array(panel.attributes["issuer"])[panel.symbol_of_row]
    issuers = {part: set(issuer[found[part]]) for part in PARTS}
    assert all(len(own) > 1 for own in issuers.values())
    assert len(set.union(*issuers.values())) == sum(len(own) for own in issuers.values())
    for before, after in itertools.pairwise(PARTS):
        targets = panel.time_ns[found["next_row"][found[before]]]
        assert targets.max() < panel.time_ns[found[after]].min()
    predictions = table(finished[0], results.PREDICTIONS)
    own = dict(zip(panel.symbols, panel.attributes["issuer"], strict=True))
    assert {own[bond] for bond in predictions["bond"]} == issuers["test"]
    dates = np.array(predictions["date"], "datetime64[ns]").astype(np.int64)
    assert len(dates) == len(found["test"]) and dates.min() > panel.time_ns[found["validation"]].max()


def test_every_model_loads_and_predicts_what_was_published(finished):
    out = finished[0]
    panel = market().panel
    found = found_rows(panel)
    predictions = table(out, results.PREDICTIONS)
    names = list(found.facts["names"])
    for name in ("basic", "enhanced", "stacked", "automatic"):
        about = json.loads((out / f"bonds/models/{name}.json").read_text())
        place = out / "bonds" / "models"
        files = {p.name.removeprefix(name): p.read_bytes() for p in place.glob(f"{name}.*") if p.suffix != ".json"}
        assert about["columns"] == names
        spread = found["spread"][found["test"]]
        change = scale_of(spread) * registry.load(about["kind"], files).predict(found["X"][found["test"]])
        assert np.allclose(predictions[name], spread + change, atol=1e-6)


def test_the_summary_tells_of_all_steps(finished):
    whole = finished[1]["bonds"]
    models = [row["model"] for row in whole["measured"] if row["kind"] == "model"]
    assert models == [*recipe.MODELS, "tuned"] and whole["chosen"] in recipe.MODELS
    assert whole["dates"] == N_MONTHS and set(whole["searches"]) == {"automatic", "bayesian", "tuning"}
    assert whole["tail_risk"]["scenarios"] > 20 and whole["tail_risk"]["all"]["cvar_95%"] > 0
    assert sum(whole["signals"].values()) == len(table(finished[0], results.SIGNALS)["bond"])


def test_the_states_of_dates_are_published(finished):
    dates = table(finished[0], results.DATES)
    assert len(dates["date"]) == N_MONTHS and {"regime", "curve_level", "factor_1"} <= set(dates)


# The caller's process.


@pytest.fixture
def blas_threads():
    """The numbers of threads that BLAS has, which are 2 before the test."""
    with threadpool_limits(2, "blas"):
        yield lambda: {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.mark.parametrize("jobs", [1, 2])
def test_steps_have_one_blas_thread_and_the_caller_keeps_its_own(blas_threads, tmp_path, monkeypatch, jobs):
    seen, drifted = [], drift.run
    monkeypatch.setattr(drift, "run", lambda *given: seen.append(blas_threads()) or drifted(*given))
    run_bonds(tmp_path / "OUT", jobs=jobs)
    assert seen == [{1}] and blas_threads() == {2}


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_step_that_fails_leaves_the_caller_its_blas_threads(blas_threads, tmp_path, monkeypatch, jobs):
    def fails(*given):
        raise UserError("no such curve")

    monkeypatch.setattr(factors, "run", fails)
    with pytest.raises(UserError, match="no such curve"):
        run_bonds(tmp_path / "OUT", jobs=jobs)
    for _ in range(1_000):  # the steps that run when another one fails work on to their end
        if blas_threads() == {2}:
            break
        time.sleep(0.01)
    assert blas_threads() == {2}


# Signals.


def test_signals_are_quote_against_prediction_with_intervals(finished):
    found = table(finished[0], results.SIGNALS)
    spread, low, high = (np.array(found[name]) for name in ("spread", "fair_low", "fair_high"))
    expected = np.where(high < spread, signals.CHEAP, np.where(low > spread, signals.RICH, signals.FAIR))
    assert found["signal"] == expected.tolist()
    distance = np.abs(spread - np.array(found["predicted_spread"])) / scale_of(spread)
    assert (np.diff(distance) < 1e-6).all() and len(set(found["date"])) == 1
    # A higher fair spread is a lower fair price.
    gap = np.array(found["fair_spread"]) - spread
    assert (np.sign(np.array(found["difference"])) == np.sign(gap))[np.abs(gap) > 1e-3].all()


def test_the_rating_of_a_signal_is_that_of_its_day(finished):
    panel = market().panel
    found = table(finished[0], results.SIGNALS)
    last = np.flatnonzero(panel.time_ns == panel.time_ns.max())
    names = {rank: name for name, rank in RANKS.items()}
    of_day = {panel.symbols[panel.symbol_of_row[i]]: names[int(panel.columns["rating_rank"][i])] for i in last}
    assert dict(zip(found["bond"], found["rating"], strict=True)) == {bond: of_day[bond] for bond in found["bond"]}
    undated = dict(zip(panel.symbols, panel.attributes["rating"], strict=True))
    assert any(undated[bond] != rating for bond, rating in of_day.items())


def test_the_latest_rows_are_of_the_last_date_that_has_any():
    time, known = np.array([1, 2, 3, 2]), np.array([True, True, False, True])
    assert signals.latest(time, known).tolist() == [1, 3]
    assert signals.latest(time, np.zeros(4, bool)).tolist() == []


# Scan.


def same_signals(first, second):
    first, second = first.to_pydict(), second.to_pydict()
    assert first["bond"] == second["bond"] and first["signal"] == second["signal"]
    for name in ("spread", "predicted_spread", "fair_spread", "fair_low", "fair_high", "fair_clean", "clean"):
        assert np.allclose(first[name], second[name], rtol=0, atol=2e-6), name


@pytest.mark.parametrize("name", recipe.MODELS)
def test_a_scan_of_the_same_quotes_is_the_runs_own_whichever_model_was_chosen(finished, tmp_path, name):
    """Each model in turn is the chosen one: it predicts from files what the run predicted."""
    out = copy_of(finished, tmp_path)
    summary = json.loads((out / "summary.json").read_text())
    summary["bonds"]["chosen"] = name
    (out / "summary.json").write_text(json.dumps(summary))
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["files"]["summary.json"] = entry_of((out / "summary.json").read_bytes())
    (out / "manifest.json").write_text(json.dumps(manifest))
    panel = market().panel
    found = scan.of_panel(out, panel)
    if name == finished[1]["bonds"]["chosen"]:
        same_signals(found, scan.of_run(out))
    own = found.to_pydict()
    expected = {}
    for step in (name,):
        values = _values_of(out, step)
        last = np.flatnonzero(panel.time_ns == panel.time_ns.max())
        expected = {panel.symbols[panel.symbol_of_row[i]]: float(values[i]) for i in last if np.isfinite(values[i])}
    change = np.array(own["predicted_spread"]) - np.array(own["spread"])
    assert np.allclose(change, [expected[bond] for bond in own["bond"]], rtol=0, atol=2e-6)


def _values_of(out, step):
    """float32 (n_rows,): the change that a step of a finished run predicts, from the store."""
    from gpupipe.workloads.bonds.found import load

    store = Store(out)
    for path in (out / ".gpupipe" / "units").glob("*.json"):
        record = json.loads(path.read_bytes())
        if record["name"] == f"bonds//{step}":
            return load(store, record)["change"]
    raise AssertionError(step)


def test_a_scan_of_a_later_date_needs_no_new_run(finished):
    panel = market().panel
    early = panel.take(panel.time_ns <= np.unique(panel.time_ns)[-3])
    found = scan.of_panel(finished[0], early).to_pydict()
    assert len(found["bond"]) > 20 and set(found["date"]) != set(table(finished[0], results.SIGNALS)["date"])


def test_a_scan_without_prices_or_with_another_curve_says_so(finished):
    panel = market().panel
    with pytest.raises(UserError, match="no bond has a price and a curve"):
        scan.of_panel(finished[0], panel.replace(clean=np.full(panel.n_rows, np.nan)))


def test_a_folder_without_a_run_of_bonds_has_no_signals(tmp_path):
    with pytest.raises(UserError, match="holds no finished run of bonds"):
        scan.of_run(tmp_path)
    assert list(tmp_path.iterdir()) == []


# The sample and upkeep.


def test_a_sample_judges_fewer_bonds_and_changes_no_model(finished, tmp_path):
    out = copy_of(finished, tmp_path)
    whole, _ = run_bonds(out, "bonds.sample=3")
    assert len(set(table(out, results.PREDICTIONS)["bond"])) == 3
    assert whole["bonds"]["chosen"] == finished[1]["bonds"]["chosen"]
    old, new = lasting(finished[0]), lasting(out)
    models = [name for name in old if "/models/" in name and not name.endswith(".json")]
    assert all(old[name] == new[name] for name in models)


def test_after_a_clean_all_kept_results_are_still_there(finished, tmp_path):
    out = copy_of(finished, tmp_path)
    upkeep.clean(out)
    (out / "manifest.json").unlink()
    run_bonds(out)
    assert not made_again(out) and lasting(out) == lasting(finished[0])


@pytest.mark.parametrize("step", ["basic", "stacked", "automatic"])
def test_a_kept_model_that_is_cut_in_half_is_made_again(finished, tmp_path, step):
    out = copy_of(finished, tmp_path)
    records = [json.loads(path.read_bytes()) for path in (out / ".gpupipe" / "units").glob("*.json")]
    (record,) = (record for record in records if record["name"] == f"bonds//{step}")
    path = out / ".gpupipe" / "objects" / next(iter(record["models"][0]["files"].values()))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (out / "manifest.json").unlink()
    run_bonds(out)
    assert step in made_again(out) and lasting(out) == lasting(finished[0])


def test_out_is_whole(finished):
    out = finished[0]
    assert not kill.broken_promises(out) and not kill.broken_store(out) and not kill.unaccounted(out)
    assert not upkeep.verify(out).wrong
