"""What a scan says about its signals in sentences, and the order of signals in the scan and in the report."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpupipe import load, train
from gpupipe.backtest.calling import registry
from gpupipe.cli import main
from gpupipe.report import signals
from gpupipe.serving import signal_table
from gpupipe.serving.scan import Scanned, Signal, scan
from tests.support.tiny import QUICK, SECTORS, SOURCE, tiny_market


@pytest.fixture(scope="module")
def market():
    return tiny_market()


@pytest.fixture(scope="module")
def models(market, tmp_path_factory):
    out = tmp_path_factory.mktemp("sentences") / "OUT"
    train(market, "fast", out, settings=QUICK, jobs=1, training__models=("linear", "random_forest", "meta_learner"))
    return load(out)


def signal(symbol: str, side: str, earned: float) -> Signal:
    numbers = [0.5, 0.2, 0.3, 0.5, 0.1, 0.1, earned, 0.001, 1.0, 9.9, 10.1, 9.0, 12.5]
    return Signal(symbol, "energy", "2024-01-02T00:00:00", 10.0, "linear", 2, 0.02, side, *numbers)


def test_a_run_without_expected_returns_is_not_said_to_find_no_trade_worth_its_costs(models, market):
    """As a run of an older gpupipe has none: the scan says what to do, and that rule calls."""
    older = dataclasses.replace(models, expected_returns={})
    scanned = scan(older, market, "linear")
    assert not scanned.top(9) and "costs" not in signal_table.called_sentence(scanned)
    assert "it has no expected return" in scanned.without_calls[0] and "run gpupipe again" in scanned.without_calls[0]
    assert "--call f1, which needs none" in scanned.without_calls[0]
    assert scan(older, market, "linear", rule=registry.rule("f1")).top(9)
    low = {key: (1e-9, 1.0) for key in models.cutoffs}
    refused = scan(dataclasses.replace(older, cutoffs=low), market, "linear", rule=registry.rule("f1"))
    assert refused.without_calls[0].endswith("which chooses nothing.")  # no better rule could call anything there
    nothing = scan(models, market, "linear", rule=registry.rule("score:1e9"))
    assert "no trade is worth its costs" in signal_table.called_sentence(nothing)


def test_a_scan_that_finds_nothing_shows_the_symbols_nearest_to_a_call_and_its_date(models, market, capsys):
    nothing = scan(models, market, "linear", rule=registry.rule("score:1e9"))
    assert not nothing.top(9)
    nearest = nothing.nearest(4)
    assert [item.side for item in nearest] == ["HOLD"] * 4 and len({item.symbol for item in nearest}) == 4
    best = max(item.expected_net_return for item in nothing.signals)
    assert nearest[0].expected_net_return == best >= nearest[3].expected_net_return
    options = ["scan", "--models", str(models.out), "--data", SOURCE, "--sectors", ",".join(SECTORS)]
    assert main.main([*options[:5], "--family", "linear", "--call", "score:1e9", "--top", "3"]) == 0
    output = capsys.readouterr().out
    assert "nearest to a call" in output and output.count(" HOLD ") == 3
    assert ", on bars until 20" in " ".join(output.split())


def test_a_scan_of_bars_that_the_models_have_seen_says_so(models, market, capsys):
    begin = models.metadata[SECTORS[0]]["dates"]["test"][0]
    late, first = scan(models, market, "linear"), scan(models, market, "linear", as_of=begin)
    assert signal_table.seen_sentence(late) == signal_table.seen_sentence(first) == ""
    seen = scan(models, market, "linear", as_of=str(np.datetime64(begin) - 1))
    assert f"before {begin}, where the sealed test begins" in signal_table.seen_sentence(seen)
    early = str(market.time_ns[3].astype("datetime64[ns]").astype("datetime64[D]"))  # nothing is predicted there
    options = ["--models", str(models.out), "--data", SOURCE, "--family", "linear", "--as-of", early]
    assert main.main(["scan", *options, "--stop-moves", "1", "--call", "topk-dropout:3,1"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "No signal." in printed and "the 3 best-ranked ones count as held" in printed


def test_scan_and_report_have_one_order_of_signals(tmp_path):
    """Also of those without an expected return: by how much more probable than usual their class is."""
    unknown = dict(expected_net_return=float("nan"), uncertainty=float("nan"))
    made = [
        dataclasses.replace(signal(symbol, side, earned), **more)
        for symbol, side, earned, more in (
            ("A", "BUY", 0.01, unknown), ("B", "SELL", 0.02, {}), ("C", "BUY", 0.0, {**unknown, "base_buy": 0.05}),
            ("D", "BUY", 0.03, {}), ("E", "SELL", 0.0, {**unknown, "base_sell": float("nan")}),
        )
    ]  # fmt: skip
    scanned = Scanned(tuple(made), (), ())
    about = {"run_key": "k", "call": "f1", "degenerate": [], "without_calls": []}
    signal_table.write(tmp_path / signals.SIGNALS, scanned, about)
    section = signals.signals(tmp_path, {"run_key": "k"})
    assert [row[0] for row in section.parts[0].rows] == [one.symbol for one in scanned.top(9)] == list("DBCAE")
