"""Sections of a run of the agent, from made summaries and files: with trades, without, with the original way."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpupipe.backtest import PositionPath, PositionRules, backtest_positions, position_statistics
from gpupipe.backtest.position_tables import equity_table, trades_table
from gpupipe.report import agent_learning, agent_positions, agent_savings, agent_sealed, page, sections
from gpupipe.report.agent_charts import MOST_PANELS
from tests.report.test_report import opened
from tests.support.panels import random_panel

pytest.importorskip("altair")
N = 600
QUARTER = 900 * 10**9
ON = dict.fromkeys(
    ("adaptive_timesteps", "warm_start", "convergence_stop", "progressive", "cache_environments", "adaptive_evaluation",
     "fast_comparison"), True,
)  # fmt: skip
SAVED = {
    "on": ON, "steps": 47_104, "steps_per_second": 20_000.0, "iterations": 3,
    "seconds": {"training": 2.0, "evaluation": 0.1, "comparison": 0.01},
    "adaptive_timesteps": {"steps_saved": 14_504, "seconds_saved": 0.7},
    "warm_start": {"iterations": 2, "seconds_saved": None},
    "convergence_stop": {"candidates": 1, "steps_saved": 4_000, "seconds_saved": 0.2},
    "progressive": {"seconds_saved": None},
    "cache_environments": {"asked": 42, "found": 34, "hit_rate": 34 / 42, "seconds_saved": 1.2},
    "adaptive_evaluation": {"evaluations": 21, "seconds_saved": None}, "original": None,
}  # fmt: skip


def history(n_iterations=3, n_candidates=1, way="agent", n=4, warm=True):
    """Rows of training.parquet; the last candidate's third evaluation is the best of each iteration."""
    rows = []
    for iteration in range(n_iterations):
        for candidate in range(n_candidates):
            about = {"way": way, "iteration": iteration, "candidate": candidate}
            values = dict.fromkeys(("learning_rate", "entropy_weight", "entropy", "clip", "epochs"))
            rows += [
                {**about, "kind": "evaluation", "steps": 1000 * (k + (not (warm and iteration))), **values,
                 "score": 0.001 * (candidate - abs(k - 2))}
                for k in range(n)
            ] + [
                {**about, "kind": "update", "steps": 500 * (k + 1), "learning_rate": 3e-4 / (k + 1), "clip": 0.2,
                 "entropy_weight": 0.01, "entropy": 1.38 - 0.01 * k, "epochs": 4, "score": None}
                for k in range(2 * n)
            ]  # fmt: skip
    return rows


def run_of(out, positions, way=None, n_iterations=3, n_candidates=1, **costs):
    """OUT with the files of an agent whose positions over random bars are these; the summary, as JSON holds it."""
    panel = random_panel((N,))
    panel = panel.replace(time_ns=np.arange(N) * QUARTER * 8)  # 50 days
    paths = {"agent": positions} | ({} if way is None else {"original way": way})
    stacked = np.stack([np.asarray(path, np.int8) for path in paths.values()])
    path = PositionPath(stacked, tuple(paths), panel, 0, 2**62, "sealed tests")
    traded = backtest_positions(path, PositionRules(**{"commission_bps": 1.0, "slippage_bps": 1.0, **costs}))
    pq.write_table(trades_table(traded), out / "trades.parquet")
    pq.write_table(equity_table(traded), out / "equity.parquet")
    times = pa.array(panel.time_ns, pa.timestamp("ns", "UTC"))
    made = pa.table({"time": times, "position": pa.array(stacked[0]), "close": pa.array(panel.close)})
    pq.write_table(made, out / "positions.parquet")
    ends = {"low": 0.8, "median": 0.98, "high": 1.1}
    band = pa.table({"time": times[::10]} | {name: np.linspace(1, end, N // 10) for name, end in ends.items()})
    pq.write_table(band if stacked[0].any() else band.slice(0, 0), out / "random.parquet")
    lines = history(n_iterations, n_candidates) + (history(1, 1, "original way", warm=False) if way is not None else [])
    pq.write_table(pa.Table.from_pylist(lines), out / "training.parquet")
    cuts = np.datetime_as_string((np.linspace(0, N - 1, n_iterations + 1).astype(int) * QUARTER * 8)
                                 .astype("datetime64[ns]"), unit="s")  # fmt: skip
    iterations = [
        {"name": f"iteration_{k:03d}", "test": [f"{cuts[k]}Z", f"{cuts[k + 1]}Z"], "validation_score": 0.001,
         "test_growth": -0.01, "steps": [10_240] * n_candidates, "stopped": ["converged"] * n_candidates, "chosen": 0}
        for k in range(n_iterations)
    ]  # fmt: skip
    saved = SAVED | ({} if way is None else {"original": {"seconds": 20.0, "speedup": 10.0}})
    sealed = position_statistics(traded, seed=1, trials=3, n_draws=50)
    agent = {"iterations": iterations, "sealed": sealed, "optimisations": saved, "bars_left": 0}
    text = json.dumps({"agent": agent, "models": [], "averages": []}, sort_keys=True).replace("NaN", "null")
    return json.loads(text)


def sections_of(out, whole):
    made = [agent_sealed.sealed_tests(out, whole), agent_sealed.drawdowns(out, whole),
            agent_positions.positions(out, whole), agent_learning.learning_curves(out, whole),
            agent_savings.savings(whole)]  # fmt: skip
    return [section for section in made if section is not None]


def turning(seed=0, n=N, every=7):
    return np.repeat(np.random.default_rng(seed).integers(-1, 2, n // every + 1), every)[:n] * (np.arange(n) < n - 1)


def rows_of(spec):
    """All rows of a chart's layers."""
    found = []
    for layer in spec.get("layer", [spec]):
        found.append(layer.get("data", {}).get("values", []))
    return found


def test_a_summary_without_an_agent_has_none_of_the_sections(tmp_path):
    assert sections_of(tmp_path, {"models": []}) == []
    assert agent_sealed.lead_sentence({}) == agent_sealed.verdict_sentence({}) == ""


def test_an_agent_whose_files_are_gone_still_has_its_savings(tmp_path):
    whole = run_of(tmp_path, turning())
    for path in tmp_path.iterdir():
        path.unlink()
    assert [section.title for section in sections_of(tmp_path, whole)] == ["Optimisations"]


def test_an_agent_without_a_trade_says_so(tmp_path):
    whole = run_of(tmp_path, np.zeros(N))
    sealed, _, positions, *_ = sections_of(tmp_path, whole)
    assert sections.verdict(whole).text[0].startswith("No trade: in the sealed tests the agent stayed out")
    assert "made no trade" in sealed.text[1] and "Buy and hold returned" in sealed.text[2]
    assert "Shaded" not in sealed.parts[0].caption and "stayed out" in positions.text[0]
    (figure,) = positions.parts
    assert figure.caption == "Close of the sealed bars" and len(figure.spec["layer"]) == 1
    measures = {row[0]: row[1:] for row in sealed.parts[1].rows}
    assert measures["trades"][0].text == "0" and measures["mean trade, %"] == [None, None]


def test_no_skill_is_said_with_intervals_p_and_deflated_sharpe(tmp_path):
    whole = run_of(tmp_path, turning())
    sealed = agent_sealed.sealed_tests(tmp_path, whole)
    row = whole["agent"]["sealed"]["statistics"][0]
    assert row["skill"] == "no skill" and sections.verdict(whole).text[0].startswith("No skill: in the sealed tests")
    text = sealed.text[1]
    assert f"a 95 % interval of {1e4 * row['day_return_low']:.1f} to {1e4 * row['day_return_high']:.1f}" in text
    assert (
        f"No skill: p = {row['p_value']:.3f} against 50 draws of random entries" in text and "Deflated Sharpe" in text
    )
    assert f"in {row['trades']} trades" in text and "against buy and hold" in text
    assert "Shaded: 95 % of 50 draws" in sealed.parts[0].caption
    assert len(sealed.parts[2].rows) == 3 and sealed.parts[2].rows[0][0] == "iteration 000"


@pytest.mark.parametrize("low, high, where", [(-0.02, -0.01, "lies below 0"), (-0.01, 0.02, "includes 0"),
                                              (0.01, 0.02, "lies above 0")])  # fmt: skip
def test_where_an_interval_lies(low, high, where):
    held = {"path": "buy_and_hold", "total_return": 0.1, "day_return": (low + high) / 2, "day_return_low": low,
            "day_return_high": high}  # fmt: skip
    (text,) = agent_sealed.sentences({"statistics": [held]})
    assert text.endswith(f", which {where}.")


def test_few_days_leave_skill_unknown(tmp_path):
    whole = run_of(tmp_path, turning())
    row = whole["agent"]["sealed"]["statistics"][0]
    row |= {"skill": "not known", "p_value": None, "day_return_low": None, "day_return_high": None, "over_hold": None}
    assert "Whether it has skill is not known" in agent_sealed.sentences(whole["agent"]["sealed"])[0]
    assert agent_sealed.verdict_sentence(whole).startswith("Skill is not known")


def test_the_original_way_is_a_line_a_column_and_a_measured_speed_up(tmp_path):
    whole = run_of(tmp_path, turning(), way=turning(1))
    sealed, drawdown, _, learning, savings = sections_of(tmp_path, whole)
    named = {row["what"] for rows in rows_of(sealed.parts[0].spec) for row in rows if "what" in row}
    assert named == {"agent", "original way", "buy and hold", "random entries, 95 %"}
    assert [name for name, _ in sealed.parts[1].columns] == ["", "agent", "original way", "buy and hold"]
    assert "original way" in drawdown.text[0] and "10.0 times as long" in savings.text[1]
    titles = {row["iteration"] for row in learning.parts[0].spec["data"]["values"]}
    assert titles == {"iteration 0", "iteration 1", "iteration 2", "original way, iteration 0"}


def test_without_the_original_way_no_speed_up_is_claimed():
    savings = agent_savings.savings({"agent": {"optimisations": SAVED}})
    assert "no speed-up is claimed" in savings.text[1]
    rows = {row[0]: row for row in savings.parts[0].rows}
    assert list(rows) == [name.replace("_", " ") for name in ON]
    unknown = {name for name, row in rows.items() if row[4] == agent_savings.UNKNOWN}
    assert unknown == {"warm start", "progressive", "adaptive evaluation", "fast comparison"}
    assert rows["adaptive timesteps"][3:] == [14_504, 0.7] and rows["cache environments"][4] == 1.2
    off = agent_savings.rows(SAVED | {"on": ON | {"warm_start": False}})
    assert off[1] == ["warm start", "off", "", None, ""]


def test_equity_is_logarithmic_over_decades_and_lines_are_thinned(tmp_path):
    whole = run_of(tmp_path, turning())
    section = agent_sealed.sealed_tests(tmp_path, whole)
    assert "logarithmic" not in section.parts[0].caption
    assert max(map(len, rows_of(section.parts[0].spec))) <= 2 * agent_sealed.MOST_POINTS
    table = pq.read_table(tmp_path / "equity.parquet").to_pylist()
    for k, row in enumerate(table):
        row["equity"] *= 0.0 if k == N - 1 else 20.0 if N // 2 < k < N - 1 else 1.0
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "equity.parquet")
    figure = agent_sealed.sealed_tests(tmp_path, whole).parts[0]
    assert "logarithmic" in figure.caption
    assert all(row["equity"] > 0 for rows in rows_of(figure.spec) for row in rows if "equity" in row)


def test_drawdown_keeps_the_largest_loss(tmp_path):
    whole = run_of(tmp_path, turning())
    figure = agent_sealed.drawdowns(tmp_path, whole).parts[0]
    lines = [row for rows in rows_of(figure.spec) for row in rows if row.get("what") == "agent"]
    worst = 100 * whole["agent"]["sealed"]["statistics"][0]["max_drawdown"]
    assert -min(row["drawdown"] for row in lines) == pytest.approx(worst, abs=0.05)


@pytest.mark.parametrize("every, marks", [(100, True), (1, False)])
def test_positions_are_shaded_and_few_entries_marked(every, marks, tmp_path):
    whole = run_of(tmp_path, turning(3, every=every))
    section = agent_positions.positions(tmp_path, whole)
    figure = section.parts[0]
    shaded = rows_of(figure.spec)[0]
    assert ("triangles" in figure.caption) == marks and 0 < len(shaded) <= agent_positions.MOST_SPANS
    assert {row["side"] for row in shaded} == {"long", "short"}
    trades = pq.read_table(tmp_path / "trades.parquet").num_rows
    assert f"{trades} trade" in section.text[0] and sum(row[2] for row in section.parts[1].rows) == trades


def test_spans_of_many_runs_are_parts_of_the_bars():
    path = np.tile(np.int8([1, 0]), 1000)
    found = agent_positions.spans(np.arange(2000) * QUARTER, path, most=50)
    assert len(found) == 50 and {span["share"] for span in found} == {0.5}
    none = agent_positions.spans(np.arange(5) * QUARTER, np.zeros(5, np.int8))
    assert none == []


def test_the_kept_policy_is_marked_once_an_iteration(tmp_path):
    whole = run_of(tmp_path, turning(), n_candidates=2)
    section = agent_learning.learning_curves(tmp_path, whole)
    rows = section.parts[0].spec["data"]["values"]
    kept = [row for row in rows if row["kept"]]
    assert [(row["iteration"], row["candidate"], row["steps"]) for row in kept] == [
        ("iteration 0", "candidate 2", 3000), ("iteration 1", "candidate 2", 2000), ("iteration 2", "candidate 2", 2000)
    ]  # fmt: skip
    assert "score above 0: 3 of 3" in section.text[1] and "better of it: 0 of 2" in section.text[1]
    values = section.parts[1].spec["data"]["values"]
    rates = [row for row in values if row["what"] == "learning rate"]
    assert len(rates) == 24 and rates[-1]["steps"] == 12_000 and rates[8]["value"] == 3e-4


def test_of_many_iterations_one_is_shown_and_lines_are_thinned(tmp_path):
    lines = history(40, 2, n=300)
    runs = agent_learning.by_candidate(lines)
    kept = agent_learning.kept_candidates(runs)
    points = agent_learning.score_points(runs, kept)
    assert len(points) < 1.1 * agent_learning.MOST_POINTS and sum(point["kept"] for point in points) == 40
    values = agent_learning.value_points([line for line in lines if line["kind"] == "update"], kept)
    assert len(values) <= agent_learning.MOST_POINTS
    whole = run_of(tmp_path, turning(), n_iterations=MOST_PANELS + 1)
    figure = agent_learning.learning_curves(tmp_path, whole).parts[0]
    assert figure.interactive and "facet" not in figure.spec


@pytest.mark.parametrize("width", [1100, 400])
@pytest.mark.parametrize("n_iterations", [3, MOST_PANELS + 1])
def test_every_figure_is_drawn_within_the_page(n_iterations, width, tmp_path):
    whole = run_of(tmp_path, turning(), way=turning(1), n_iterations=n_iterations, n_candidates=2)
    made = sections_of(tmp_path, whole)
    path = tmp_path / "page.html"
    probe = """<script>const waiting = setInterval(() => {
      if (document.documentElement.dataset.drawn === undefined) return;
      clearInterval(waiting);
      document.documentElement.dataset.wide = document.documentElement.scrollWidth - innerWidth;
    }, 50);</script>"""
    path.write_text(page.render("t", [], made) + probe)
    dom, console = opened(path, width)
    assert console == "" and 'data-drawn="5"' in dom
    assert 'data-wide="0"' in dom or 'data-wide="-' in dom


def test_two_runs_of_agents_are_compared_without_gains(tmp_path):
    whole = run_of(tmp_path, turning())
    facts = {
        "n_models": 0, "n_models_wanted": 0, "data": {"rows_kept": N, "symbols": 1}, "split": {}, "elapsed_s": 1.0,
        "settings": {"preset": "balanced"}, "device": {"kind": "cpu", "name": "x"}, "peak_bytes": 1 << 30,
    }  # fmt: skip
    runs, *verdicts = sections.comparison_sections(["a", "b"], [whole | facts] * 2)
    assert runs.title == "Runs" and [section.title for section in verdicts] == ["Verdict of a", "Verdict of b"]
    lead, tests, verdict = verdicts[0].text
    assert lead == "600 bars of 1 symbol, preset balanced, in 1 s on cpu (x)."
    assert tests.startswith("3 iterations of training, validation and sealed test.") and "skill" in verdict.lower()
    assert "600 bars, 1970-01-01 to 1970-02-19: no policy" in tests
    assert runs.text == ["Both runs were judged on the same rows."]
    later = {**whole["agent"]["sealed"], "from": "1970-01-05T00:00:00Z"}
    other = whole | facts | {"agent": whole["agent"] | {"sealed": later}}
    assert "on different rows" in sections.comparison_sections(["a", "b"], [whole | facts, other])[0].text[0]
