"""`gpupipe backtest --portfolio` on a finished run: what it refuses, writes, prints and reports."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from gpupipe import load, train
from gpupipe.artifacts import summary
from gpupipe.backtest import Rules, sealed_test
from gpupipe.backtest.rank_portfolio import rank_portfolio
from gpupipe.backtest.rank_rules import RankRules
from gpupipe.cli.main import main
from gpupipe.report.portfolio import portfolio
from tests.support.tiny import QUICK, SECTORS, SOURCE, tiny_market


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("portfolio") / "OUT"
    settings = (*QUICK, "split.walk_forward=2")
    train(
        tiny_market(), "fast", out, settings=settings, jobs=1, training__models=("xgb_joint", "linear", "meta_learner")
    )
    return out


@pytest.fixture
def out(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "OUT")


def command(out, *more):
    return main(["backtest", "--models", str(out), "--data", SOURCE, "--sectors", ",".join(SECTORS), *more])


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_command_writes_tables_and_does_nothing_twice(out, capsys):
    chosen = ("--portfolio", "long", "--hold", "top:4")
    assert command(out, *chosen) == 0
    output = capsys.readouterr().out
    assert "buy and hold" in output and "top:4 (equal)" in output and "expected return of a long trade" in output
    folder = out / "backtest" / "portfolio"
    first = contents(folder)
    assert set(first) == {"trades.parquet", "equity.parquet", "statistics.parquet", "statistics.json"}
    stamps = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert command(out, *chosen, "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads(first["statistics.json"])
    assert command(out, *chosen) == 0
    assert "Nothing to do" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == stamps
    (folder / "equity.parquet").write_bytes(b"altered")
    assert command(out, *chosen, "--quiet") == 0
    assert contents(folder) == first

    source = sealed_test(load(out), tiny_market())
    result = rank_portfolio(source, RankRules(hold="top:4"))
    rows = json.loads(first["statistics.json"])["statistics"]
    assert len(rows) == len(source.names) + 1 == 13
    equity = pq.read_table(folder / "equity.parquet").to_pandas()
    trades = pq.read_table(folder / "trades.parquet").to_pandas()
    for m, row in enumerate(rows[:-1]):
        own = [(table.model == row["model"]) & (table.label == row["label"]) for table in (equity, trades)]
        np.testing.assert_array_equal(equity[own[0]].equity, result.equity[m])
        assert row["rebalance"] == source.horizons[m] and own[1].sum() == row["trades"] > 0
    tests = json.loads((out / "summary.json").read_bytes())["split"]["test_from"]
    assert str(trades.call_time.min().date()) >= tests and (trades.entry_time > trades.call_time).all()


def test_other_rules_sources_and_calls_count_as_more_trials(out, capsys):
    def trials(*more):
        assert command(out, *more, "--json") == 0
        return {row["trials"] for row in json.loads(capsys.readouterr().out)["statistics"] if "trials" in row}

    assert trials("--portfolio", "long") == {12}
    assert trials("--portfolio", "long", "--volume-share", "5%") == {12}  # decides no return
    assert trials("--portfolio", "long-short", "--weighting", "inverse-volatility", "--rebalance", "2") == {24}
    assert command(out, "--quiet") == 0
    assert trials("--portfolio", "long", "--hold", "topk-dropout:6,2") == {48}  # one backtest of calls among them
    assert trials("--portfolio", "long", "--source", "walk-forward") == {60}
    whole = json.loads((out / "backtest" / "portfolio" / "statistics.json").read_bytes())
    assert whole["source"] == "walk-forward of 2 folds" and len(whole["tried"]) == 4 and whole["calls_tried"] == 1


def test_what_cannot_be_is_one_line_and_nothing_is_written(out, capsys):
    for more, words in {
        ("--hold", "top:3"): "only with --portfolio",
        ("--portfolio", "long", "--hold", "best"): "--hold best",
        ("--portfolio", "long", "--volume-share", "much"): "--volume-share much",
        ("--portfolio", "long", "--rebalance", "0"): "--rebalance 0",
        ("--portfolio", "long", "--overlapping"): "--overlapping",
        ("--portfolio", "long", "--call", "profit"): "--call profit",
        ("--portfolio", "long", "--since", "2015-02-02"): "before the sealed test",
        ("--portfolio", "long", "--source", "cpcv"): "--source cpcv",
        ("--portfolio", "long", "--families", "none"): "none",
    }.items():
        assert command(out, *more, "--quiet") == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    assert not (out / "backtest").exists()


def test_costs_and_entry_are_those_of_the_options(out, capsys):
    fills = ("--entry", "close", "--commission", "7", "--spread", "0", "--slippage", "3", "--halts", "fill")
    assert command(out, "--portfolio", "long", *fills, "--json") == 0
    whole = json.loads(capsys.readouterr().out)
    rules = RankRules(fills=Rules(entry="close", commission_bps=7, spread_bps=0, slippage_bps=3, halts="fill"))
    assert RankRules.of_dict(whole["rules"]) == rules
    result = rank_portfolio(sealed_test(load(out), tiny_market()), rules)
    assert whole["statistics"][0]["total_return"] == pytest.approx(result.equity[0, -1] - 1)


def test_the_report_has_the_portfolios(out):
    whole = summary.read(out)
    section = portfolio(out, whole)
    assert len(section.text) == 1 and "gpupipe backtest --portfolio" in section.text[0] and not section.parts
    assert command(out, "--portfolio", "long-short", "--quiet") == 0
    section = portfolio(out, whole)
    *figures, table = section.parts
    assert len(figures) == 2 and len(table.rows) == 13 and "dollar neutral" in section.text[1]
    assert {row[1] for row in table.rows} == {"xgb_joint", "linear", "meta_learner", "buy_and_hold"}
    other = portfolio(out, {**whole, "run_key": "another"})
    assert "other models" in other.text[0] and not other.parts
