"""Expected moves of a scan: those of the run's correction, stops placed by them, and what a quiet scan still tells."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import shutil

import numpy as np
import pytest
from rich.console import Console

from gpupipe.artifacts.load import load
from gpupipe.backtest.calling import registry
from gpupipe.cli import main
from gpupipe.cli import scan as command
from gpupipe.evaluation.expected_move import Scale, implied_volatility
from gpupipe.runtime.errors import UserError
from gpupipe.serving.expected_moves import expected_moves, likely_sentence
from gpupipe.serving.levels import Levels
from gpupipe.serving.scan import Scanned, Signal, scan
from gpupipe.workloads import equity
from tests.support import tiny
from tests.support.tiny import QUICK, SOURCE, tiny_market


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    out = tmp_path_factory.mktemp("moves") / "OUT"
    settings = equity.make("fast", settings=[*QUICK, "training.models=linear,meta_learner"])
    tiny.execute(tiny_market(), None, settings, out)
    return load(out)


def test_a_move_is_the_corrected_volatility_of_the_horizon(models):
    whole = models.predict(tiny_market(), ["linear"])
    last = tiny_market().offsets[1:] - 1
    lines = json.loads((models.out / "summary.json").read_text())["volatility_value"]["lines"]
    scanned = scan(models, tiny_market(), "linear")
    assert len(scanned.signals) == 4 * tiny_market().n_symbols
    for horizon in (1, 3):
        (line,) = (line for line in lines if (line["horizon"], line["model"]) == (horizon, "linear"))
        touch = [1 - whole.of(f"linear_{horizon}d_{t}pct")[last, 1].astype(float) for t in (2, 4)]
        volatility = implied_volatility(np.stack(touch, axis=1), (0.02, 0.04), horizon)
        moves = Scale(line["factor"], line["exponent"]).of(volatility) * math.sqrt(horizon)
        for signal in (signal for signal in scanned.signals if signal.horizon == horizon):
            assert signal.expected_move == pytest.approx(moves[tiny_market().symbols.index(signal.symbol)], rel=1e-4)
            assert 0.002 < signal.expected_move < 0.3


def test_a_symbol_without_a_prediction_has_no_move(models):
    values = np.full((2, len(models.columns()), 3), 1 / 3, np.float32)
    values[1] = np.nan
    moves = expected_moves(models, values, "linear")
    assert set(moves) == {1, 3}
    assert all(np.isfinite(move[0]) and np.isnan(move[1]) for move in moves.values())


@pytest.mark.parametrize("spoil", ["no summary", "no section", "another run"])
def test_without_the_runs_own_correction_there_are_no_moves(models, tmp_path, spoil, capsys):
    out = tmp_path / "OUT"
    shutil.copytree(models.out, out)
    summary = json.loads((out / "summary.json").read_text())
    if spoil == "no section":
        del summary["volatility_value"]
    summary["run_key"] = "another" if spoil == "another run" else summary["run_key"]
    (out / "summary.json").unlink() if spoil == "no summary" else (out / "summary.json").write_text(json.dumps(summary))
    older = dataclasses.replace(models, out=out)
    scanned = scan(older, tiny_market(), "linear", levels=Levels(stop_moves=1.0), rule=registry.rule("top:3"))
    assert all(np.isnan(signal.expected_move) and np.isnan(signal.stop) for signal in scanned.signals)


def test_stops_are_placed_by_moves_on_request(models):
    rule = registry.rule("top:5")
    by_atr = scan(models, tiny_market(), "linear", rule=rule).top(99)
    by_move = scan(models, tiny_market(), "linear", rule=rule, levels=Levels(stop_moves=1.5)).top(99)
    assert by_move and [signal.symbol for signal in by_move] == [signal.symbol for signal in by_atr]
    for signal, other in zip(by_move, by_atr, strict=True):
        sign = 1 if signal.side == "BUY" else -1
        assert sign * (signal.close - signal.stop) == pytest.approx(1.5 * signal.expected_move * signal.close)
        assert sign * (signal.target - signal.close) == pytest.approx(2.5 * 1.5 * signal.expected_move * signal.close)
        assert (signal.entry_low, signal.entry_high) == (other.entry_low, other.entry_high)
        assert signal.stop != other.stop and signal.expected_move == other.expected_move


def test_levels_by_hand():
    assert Levels(stop_moves=2.0, target=3.0).prices(1, 100.0, 4.0, 0.05) == (99.0, 101.0, 90.0, 130.0)
    assert np.isnan(Levels().prices(0, 100.0, 4.0, 0.05)).all()
    assert np.isnan(Levels().prices(1, 100.0, math.nan, 0.05)).all()
    low, high, stop, target = Levels(stop_moves=2.0).prices(1, 100.0, 4.0, math.nan)
    assert (low, high) == (99.0, 101.0) and math.isnan(stop) and math.isnan(target)
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(UserError, match="--stop-moves"):
            Levels(stop_moves=wrong)


def of_symbol(symbol, p_touch, usual, horizon=5, side="HOLD"):
    shares = [1 - p_touch, p_touch / 2, 1 - p_touch, p_touch / 2, usual / 2, usual / 2]
    unknown = [math.nan] * 7
    return Signal(symbol, "energy", "2020-06-30", 100.0, "linear", horizon, 0.05, side, *shares, *unknown)


def test_a_quiet_scan_names_the_symbols_most_likely_to_move():
    rare = [of_symbol("Z", 0.05, 0.001, horizon=1)]  # of a label that next to no row reaches
    five = [of_symbol(name, p, 0.4) for name, p in (("A", 0.4), ("B", 0.62), ("C", 0.6), ("D", 0.5))]
    quiet = Scanned((*rare, *five), (), ())
    expected = (
        "Most likely to move 5 % or more, up or down, within 5 bars: B (62 %, usually 40 %), C (60 %, usually 40 %), "
        "D (50 %, usually 40 %)."
    )
    assert likely_sentence(quiet) == expected
    without_usual_shares = (of_symbol("A", 0.4, math.nan),)
    assert all(likely_sentence(Scanned(signals, (), ())) == "" for signals in ((), without_usual_shares))
    printed = io.StringIO()
    command.show(Console(file=printed, width=400), quiet, 5)
    assert expected in printed.getvalue() and "None of 5 symbols" in printed.getvalue()
    called = Scanned((*five[:1], of_symbol("C", 0.6, 0.4, side="BUY")), (), ())
    printed = io.StringIO()
    command.show(Console(file=printed, width=400), called, 5)
    assert "Most likely" not in printed.getvalue() and "move %" in printed.getvalue()


def test_the_command_takes_stops_by_moves(models, capsys):
    base = ["scan", "--models", str(models.out), "--data", SOURCE, "--family", "linear", "--json", "--call", "top:3"]
    signals = []
    for more in ([], ["--stop-moves", "2"]):
        assert main.main([*base, *more]) == 0
        signals.append(json.loads(capsys.readouterr().out))
    for signal in signals[1]:
        distance = abs(signal["close"] - signal["stop"])
        assert distance == pytest.approx(2 * signal["expected_move"] * signal["close"])
    assert [one["symbol"] for one in signals[0]] == [one["symbol"] for one in signals[1]]
    assert main.main([*base, "--stop-moves", "0"]) != 0
    assert "--stop-moves 0.0: expected a number above 0" in capsys.readouterr().err
