"""A run of bonds leaves a page with its own sections, drawn from the files that it wrote."""

from __future__ import annotations

import html
import io
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("altair")
pytest.importorskip("optuna")

from gpupipe import report
from gpupipe.artifacts import summary
from gpupipe.artifacts.manifest import read_manifest
from gpupipe.cli import bond_tables, main
from gpupipe.cli.plain_console import plain_console
from gpupipe.report import bond_curves, bond_dates, bond_fair_values, bond_models, bond_steps, bond_tail, bond_words
from gpupipe.report.bond_page import bond_sections
from gpupipe.report.page import Figure, Table
from gpupipe.runtime import run_log, timeline
from gpupipe.workloads.bonds import last_date, models, recipe, results, signals
from gpupipe.workloads.bonds.ratings import RANKS
from gpupipe.workloads.bonds.steps import tail_risk
from tests.report.test_report import opened, specs

TINY = ("--n-bonds", "240", "--n-months", "36", "--set=search.trials=2", "--set=search.depths=3,5",
        "--set=forest.n_trees=25", "--set=network.epochs=5", "--set=boosting.rounds=20", "--jobs", "1",
        "--quiet")  # fmt: skip
SECTIONS = (
    "Verdict", "Rich and cheap bonds", "Fair values", "Models and baselines", "Predicted spreads of the sealed test",
    "Curve fit", "Key-rate risk", "Regimes and factors", "Tail risk", "Drift", "Fits and searches", "Steps", "Data",
    "Time and memory", "Run",
)  # fmt: skip


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bond_report") / "OUT"
    assert main.main(["bonds", *TINY, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def whole(out):
    return summary.read(out)


def rows_of(out, name):
    return pq.read_table(out / name).to_pylist()


def rows_of_spec(spec):
    """The rows of a chart, or of its first layer that has some."""
    return next(part["data"]["values"] for part in (spec, *spec.get("layer", ())) if "data" in part)


def sections_of(out, whole):
    log = timeline.find(run_log.read(out / run_log.FILE), whole["run_key"])
    return {section.title: section for section in bond_sections(out, whole, log) if section is not None}


def test_the_page_has_every_section_and_names_the_market_as_simulated(out, whole):
    files = (bond_fair_values.SIGNALS, bond_fair_values.PREDICTIONS, bond_curves.CURVES, bond_curves.RISK,
             bond_tail.RISK, bond_tail.LOSSES, bond_dates.DATES, bond_dates.LOADINGS)  # fmt: skip
    assert files == (results.SIGNALS, results.PREDICTIONS, results.CURVES, results.RISK,
                     results.RISK, results.LOSSES, results.DATES, results.LOADINGS)  # fmt: skip
    assert set(files) <= set(read_manifest(out)["files"])
    content = html.unescape((out / report.NAME).read_text())
    for title in SECTIONS:
        assert f">{title}</h2>" in content
    for title in ("Leaderboard", "By sector", "Split", "Signals", "Backtest"):
        assert f">{title}</h2>" not in content
    for sentence in (*bond_words.verdict_lines(whole), *bond_words.lead(whole), bond_words.market(whole["data"])):
        assert sentence in content
    assert content.count("Simulated market. ") == 5
    assert "quotes of " in content and " bars of " not in content and "of 0 models" not in content


@pytest.mark.parametrize("width", [1100, 400])
def test_every_figure_is_drawn_without_a_word_on_the_console(out, width):
    dom, console = opened(out / report.NAME, width)
    assert console == "" and f'data-drawn="{len(specs(out / report.NAME))}"' in dom


def test_the_summary_has_no_number_that_json_lacks(out):
    def finite(value):
        if isinstance(value, dict):
            return all(map(finite, value.values()))
        return all(map(finite, value)) if isinstance(value, list) else value is None or value == value

    assert finite(json.loads((out / summary.JSON).read_text())["bonds"])


def test_key_rates_add_up_to_the_duration_of_each_fixed_bond(out):
    rows = [row for row in rows_of(out, results.RISK) if row["type"] == "fixed"]
    rates = [[value for name, value in row.items() if name.startswith(last_date.KEY_RATE)] for row in rows]
    modified = np.array([row["modified"] for row in rows])
    # Both measure how the price answers to the yield; that of a bond which may be called depends on which end is worst.
    assert np.median(np.abs(np.sum(rates, axis=1) - modified)) < 0.2
    assert {row["grade"] for row in rows} <= set(last_date.GRADE_NAMES)
    assert all(row["var"] <= row["cvar"] for row in rows)


def test_fitted_curves_of_the_file_are_those_of_the_residuals(out):
    curves, risk = rows_of(out, results.CURVES), rows_of(out, results.RISK)
    par = [row for row in curves if row["curve"] == last_date.PAR and not row["fitted"]]
    assert [row["years"] for row in par] == sorted(row["years"] for row in par) and len(par) > 5
    line = [row for row in curves if row["curve"] == last_date.GRADE_NAMES[1] and row["fitted"]]
    bonds = [row for row in risk if row["grade"] == last_date.GRADE_NAMES[1]]
    years, yields = (np.array([row[name] for row in line]) for name in ("years", "rate"))
    at = np.interp([row["years"] for row in bonds], years, yields)
    assert np.abs(at - [row["fitted"] for row in bonds]).max() < 0.02


def test_losses_have_the_var_that_the_summary_has(out, whole):
    loss = np.array([row["loss"] for row in rows_of(out, results.LOSSES)])
    tail = whole["bonds"]["tail_risk"]
    assert len(loss) == tail["scenarios"]
    assert np.quantile(loss, 0.95) == pytest.approx(tail["all"]["var_95%"])
    rated = [row[1] for row in sections_of(out, whole)["Tail risk"].parts[-1].rows if row[0] == "by rating"]
    assert rated == sorted(tail["rating"], key=RANKS.__getitem__)


def test_steps_are_the_graph_of_the_run_and_have_their_bars(out, whole):
    found = whole["bonds"]["steps"]
    assert [step["number"] for step in found if step["number"]] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert {step["name"]: step["needs"] for step in found}["bayesian"] == ["rows", "automatic", "regimes", "factors"]
    assert set(bond_steps.ABOUT) == {step["name"] for step in found}
    section = sections_of(out, whole)["Steps"]
    bars = section.parts[0].spec["layer"][1]["data"]["values"]
    assert {bar["step"] for bar in bars} == {bond_steps.title_of(step) for step in found}
    assert {bar["group"] for bar in bars} == {"for all steps", "steps 1 to 4", "steps 5 to 8", "steps 9 to 11"}
    assert len(section.parts[1].rows) == 13 and "two or more ran in 0 %" in section.text[1]


def test_without_a_log_steps_are_a_table_alone(whole):
    section = bond_steps.steps(whole, None)
    assert [type(part) for part in section.parts] == [Table] and {row[-1] for row in section.parts[0].rows} == {
        "from the store"
    }


def test_two_runs_are_compared(out, whole, tmp_path):
    path = report.compare(out, out, tmp_path / "compared.html")
    content = html.unescape(path.read_text())
    assert ">Gains of models of bonds</h2>" in content and bond_words.dates_of_test(whole) in content
    assert bond_models.compared_models(("a", "b"), (whole, {"models": []})) == []
    (section,) = bond_models.compared_models(("a", "b"), (whole, whole))
    assert len(section.parts[0].rows) == 18 and all(row[2] == row[3] for row in section.parts[0].rows)


def test_a_summary_without_bonds_has_none_of_the_sections(out):
    assert not any(bond_sections(out, {"models": []}, None))
    assert bond_words.lead({}) == bond_words.verdict_lines({}) == []


def test_a_folder_without_the_files_leaves_out_what_they_show(tmp_path, whole):
    titles = {section.title for section in bond_sections(tmp_path, whole, None) if section is not None}
    assert titles == {"Models and baselines", "Tail risk", "Drift", "Fits and searches", "Steps"}


def test_bonds_whose_fair_value_is_not_known_are_not_drawn(out, whole, tmp_path):
    table = pq.read_table(out / results.SIGNALS)
    values = table["fair_clean"].to_pylist()
    values[0] = math.nan
    (tmp_path / results.FOLDER).mkdir()
    changed = table.set_column(table.column_names.index("fair_clean"), "fair_clean", pa.array(values))
    pq.write_table(changed, tmp_path / results.SIGNALS)
    section = bond_fair_values.fair_values(tmp_path, whole)
    points = section.parts[0].spec["data"]["values"]
    assert len(points) == 2 * (len(values) - 1) and all(math.isfinite(point["y"]) for point in points)
    assert bond_fair_values.rich_and_cheap(tmp_path, whole) is not None


@pytest.mark.parametrize("side", [signals.CHEAP, signals.RICH])
def test_rich_and_cheap_bonds_have_their_intervals(out, whole, tmp_path, side):
    table = pq.read_table(out / results.SIGNALS)
    n = table.num_rows
    (tmp_path / results.FOLDER).mkdir()
    changed = table.set_column(table.column_names.index("signal"), "signal", pa.array([side] * n))
    changed = changed.set_column(0, "bond", pa.array([f"A[b]{k}</script>" for k in range(n)]))
    pq.write_table(changed, tmp_path / results.SIGNALS)
    figure, listed, *others = bond_fair_values.rich_and_cheap(tmp_path, whole).parts
    assert isinstance(figure, Figure) and len(listed.rows) == min(n, bond_fair_values.MOST_LISTED) and not others
    assert {row[1] for row in listed.rows} == {side} and "[" in listed.rows[0][7].text
    bars = rows_of_spec(figure.spec)
    assert len(bars) == bond_fair_values.MOST_BONDS and bars[0]["bond"].startswith("A[b]0")


def test_models_without_intervals_have_points_and_no_skill_that_is_known(whole):
    bonds = json.loads(json.dumps(whole["bonds"]))
    for row in bonds["measured"]:
        row["gain_over"] = {name: [None, ends[1], None] for name, ends in row["gain_over"].items()}
        if row["kind"] == "model":
            row["skill"] = "not known"
    section = bond_models.models_and_baselines({**whole, "bonds": bonds})
    assert "Whether any model has skill is not known." in section.text[0]
    assert isinstance(section.parts[0], Figure) and "not known" in bond_words.skill_of_signals(bonds)
    assert bond_words.verdict(bonds).startswith(f"The model {bonds['chosen']}, chosen on validation, predicts")
    for row in bonds["measured"]:
        row["gain_over"] = {name: [None] * 3 for name in row["gain_over"]}
    assert [type(part) for part in bond_models.models_and_baselines({**whole, "bonds": bonds}).parts] == [Table]


def test_a_run_in_which_nothing_was_judged_says_so_everywhere(whole):
    bonds = json.loads(json.dumps(whole["bonds"]))
    for row in bonds["measured"]:
        row |= {"rows": 0, "rmse_bp": None, "gain_over": dict.fromkeys(row["gain_over"], [None] * 3)}
        row |= {"rank_correlation": None, "skill": "not known"} if row["kind"] == "model" else {}
    assert bond_words.verdict(bonds).endswith("of no sealed quote do all models and baselines have a prediction")
    section = bond_models.models_and_baselines({**whole, "bonds": bonds})
    assert [type(part) for part in section.parts] == [Table] and "0 sealed quotes" in section.text[0]
    console = io.StringIO()
    bond_tables.show_models(plain_console(console), bonds)
    lines = [line.split() for line in console.getvalue().splitlines() if "Svensson curve" in line or "basic" in line]
    assert [line[-1] for line in lines] == ["baseline", "known"] and all("-" in line for line in lines)


def test_tail_risk_without_a_past_says_so(out, whole):
    bonds = {**whole["bonds"], "tail_risk": {"scenarios": 0}}
    assert bond_tail.tail_risk(out, {**whole, "bonds": bonds}).text == [
        "Tail risk: no curve move of the past is known."
    ]


def test_tail_risk_that_is_not_known_is_no_number(out, whole, monkeypatch):
    nothing = dict.fromkeys(bond_tail.MEASURES.values())
    risk = whole["bonds"]["tail_risk"]
    sector, *_ = risk["sector"]
    some = {**whole["bonds"], "tail_risk": {**risk, "sector": {**risk["sector"], sector: nothing}}}
    *_, chart, table = bond_tail.tail_risk(out, {**whole, "bonds": some}).parts
    assert [row[2:] for row in table.rows if row[1] == sector.replace("_", " ")] == [[None] * 4]
    assert sector.replace("_", " ") not in {point["group"] for point in rows_of_spec(chart.spec)}
    groups = {name: dict.fromkeys(risk[name], nothing) for name in ("rating", "sector")}
    none = {**whole["bonds"], "tail_risk": {**risk, **dict.fromkeys(bond_tail.PORTFOLIOS, nothing), **groups}}
    monkeypatch.setattr(bond_tail, "read", lambda *_: [dict.fromkeys(tail_risk.PORTFOLIOS.values(), math.nan)])
    monkeypatch.setattr(bond_tail, "_rank_of", lambda _: len)
    section = bond_tail.tail_risk(out, {**whole, "bonds": none})
    assert [type(part) for part in section.parts] == [Table]
    assert "95 % VaR not known, CVaR not known; by the curve alone not known" in section.text[0]


def test_losses_of_all_portfolios_are_panels_with_their_var(out, whole):
    figure = bond_tail.tail_risk(out, whole).parts[0]
    points = figure.spec["data"]["values"]
    assert [*dict.fromkeys(point["panel"] for point in points)] == list(bond_tail.PORTFOLIOS.values())
    for name, title in bond_tail.PORTFOLIOS.items():
        own = [point for point in points if point["panel"] == title]
        marks = {point["what"]: point["at"] for point in own if point["kind"] == "mark"}
        loss = 100 * np.array([row[tail_risk.PORTFOLIOS[name]] for row in rows_of(out, results.LOSSES)])
        assert marks["VaR 95 %"] == pytest.approx(np.quantile(loss, 0.95))
        assert marks["CVaR 95 %"] == pytest.approx(loss[loss >= np.quantile(loss, 0.95)].mean())
        assert sum(point["scenarios"] for point in own if point["kind"] == "bar") == len(loss)


def test_names_that_the_report_repeats_are_those_of_the_workload():
    from gpupipe.report import bond_charts

    assert (bond_charts.CHEAP, bond_charts.RICH, bond_charts.FAIR) == (signals.CHEAP, signals.RICH, signals.FAIR)
    assert bond_fair_values.LEAST_SCALE == models.LEAST_SCALE
    assert tuple(bond_charts.GRADES) == (last_date.PAR, *last_date.GRADE_NAMES)
    assert bond_curves.KEY_RATE == last_date.KEY_RATE
    assert set(bond_steps.ABOUT) >= set(recipe.NAMES.values())
    assert {name: bond_tail.portfolio_of(column) for name, column in tail_risk.PORTFOLIOS.items()} == {
        name: name for name in bond_tail.PORTFOLIOS
    }  # fmt: skip


def test_a_run_without_plots_has_no_page_until_it_is_asked_for(out):
    content = (out / report.NAME).read_bytes()
    (out / report.NAME).unlink()
    assert main.main(["bonds", *TINY, "--out", str(out), "--skip-plots"]) == 0 and not (out / report.NAME).exists()
    assert main.main(["report", str(out)]) == 0
    assert (out / report.NAME).read_bytes() == content
