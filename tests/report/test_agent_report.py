"""A run of the agent leaves a page with its own sections, drawn from the files that it wrote."""

from __future__ import annotations

import html

import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch", reason="the policies of a run are trained with Torch")
pytest.importorskip("safetensors")
pytest.importorskip("altair")

from gpupipe import report
from gpupipe.artifacts import summary
from gpupipe.cli import main
from gpupipe.data import simulate
from gpupipe.report import agent_charts, agent_learning, agent_positions, agent_sealed
from gpupipe.workloads.agent import chain, results
from tests.report.test_report import opened, specs

PPO = ("size=8", "n_environments=8", "rollout=32", "minibatch=64")
TINY = (
    "--profile", "ultra_fast", "--spread", "0", "--commission", "0", "--slippage", "0", "--features", "roc_1,rsi_14",
    "--initial-window", "300", "--step-size", "100", "--total-timesteps", "512", "--min-timesteps", "256",
    "--eval-freq", "256", *(f"--set=ppo.{setting}" for setting in PPO), "--set=market.most_gap_days=10",
    "--jobs", "1", "--skip-onnx", "--quiet",
)  # fmt: skip
SECTIONS = ("Verdict", "Sealed tests", "Drawdown of the sealed tests", "Positions of the agent",
            "Training of the policies", "Optimisations", "Data", "Time and memory", "Run")  # fmt: skip


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    place = tmp_path_factory.mktemp("agent_report")
    pq.write_table(simulate(n_symbols=1, n_bars=560, seed=7).to_arrow(), place / "bars.parquet")
    assert main.main(["agent", *TINY, "--data", str(place / "bars.parquet"), "--out", str(place / "OUT")]) == 0
    return place / "OUT"


def test_the_page_shows_what_the_run_left(out):
    assert (agent_sealed.FILE, agent_sealed.RANDOM) == (results.EQUITY, results.RANDOM)
    assert (agent_positions.FILE, agent_positions.TRADES) == (results.POSITIONS, results.TRADES)
    assert agent_learning.FILE == results.HISTORY
    assert (agent_charts.AGENT, agent_charts.ORIGINAL) == (chain.AGENT, chain.ORIGINAL)
    content = html.unescape((out / report.NAME).read_text())
    whole = summary.read(out)
    for title in SECTIONS:
        assert f">{title}</h2>" in content
    for title in ("Leaderboard", "By sector", "By symbol", "Gains", "Split"):
        assert f">{title}</h2>" not in content
    for sentence in (*agent_sealed.sentences(whole["agent"]["sealed"]), agent_sealed.verdict_sentence(whole)):
        assert sentence in content
    assert "of 0 models" not in content and "no speed-up is claimed" in content


def test_random_entries_are_kept_by_time(out):
    rows = pq.read_table(out / results.RANDOM).to_pylist()
    trades = pq.read_table(out / results.TRADES).num_rows
    assert bool(rows) == bool(trades) and len(rows) <= chain.MOST_TIMES
    assert all(row["low"] <= row["median"] <= row["high"] for row in rows)


def test_every_figure_of_the_page_is_drawn(out):
    dom, console = opened(out / report.NAME)
    assert console == "" and f'data-drawn="{len(specs(out / report.NAME))}"' in dom


def test_a_run_without_plots_has_no_page_until_it_is_asked_for(out, tmp_path):
    content = (out / report.NAME).read_bytes()
    (out / report.NAME).unlink()
    arguments = ["agent", *TINY, "--data", str(out.parent / "bars.parquet"), "--out", str(out)]
    assert main.main([*arguments, "--skip-plots"]) == 0 and not (out / report.NAME).exists()
    assert main.main(["report", str(out)]) == 0
    assert len((out / report.NAME).read_bytes()) == pytest.approx(len(content), rel=0.05)
