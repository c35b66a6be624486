"""Cutoffs by profit are those that paid best on validation by the backtest's trades; the test part chooses nothing."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest

from gpupipe import load, train
from gpupipe.backtest import OutOfSample, Rules, backtest, cutoffs
from gpupipe.backtest.cutoffs import FEWEST, LEAST_T, NEVER, Side, candidates, choose, kept, sentences
from gpupipe.backtest.sources import time_ns_of
from gpupipe.cli.main import main
from gpupipe.data.panel import BARS
from gpupipe.runtime.errors import UserError
from gpupipe.serving.scan import scan
from tests.support.tiny import QUICK, SECTORS, SOURCE, cut, tiny_market

FREE = Rules(commission_bps=0, spread_bps=0, slippage_bps=0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("cutoffs") / "OUT"
    train(tiny_market(), "fast", out, settings=QUICK, jobs=1, training__models=("xgb_joint", "linear"))
    return out


@pytest.fixture(scope="module")
def models(trained):
    return load(trained)


@pytest.fixture(scope="module")
def chosen(models):
    return choose(models, tiny_market(), FREE)


def dates_of(models, part) -> tuple[int, int]:
    return tuple(time_ns_of(text) for text in models.metadata["energy"]["dates"][part])


def test_bars_from_the_sealed_test_on_choose_nothing(models, chosen):
    market = tiny_market()
    begin, _ = dates_of(models, "test")
    later = market.time_ns >= begin
    assert 0 < later.sum() < market.n_rows / 2
    columns = {name: getattr(market, name) for name in BARS}
    mixed = {name: np.where(later, column[::-1].copy(), column) for name, column in columns.items()}
    assert choose(models, market.replace(**mixed), FREE).sides == chosen.sides
    gone = cut(market, lambda k, bars: market.time_ns[market.offsets[k] + bars] < begin)
    assert choose(models, gone, FREE).sides == chosen.sides
    # And that they are chosen from validation is seen by changing that.
    first, last = dates_of(models, "validation")
    there = (market.time_ns >= first) & (market.time_ns <= last)
    other = {name: np.where(there, column[::-1].copy(), column) for name, column in columns.items()}
    assert choose(models, market.replace(**other), FREE).sides != chosen.sides


@pytest.mark.parametrize("rules", [FREE, Rules(entry="close", both_in_bar="target"), Rules(overlapping=True)])
def test_trades_of_the_chosen_cutoffs_are_those_of_the_backtest_on_validation(models, rules):
    """The engine is given the validation bars as if nobody had seen them, and the chosen cutoffs."""
    market = tiny_market()
    best_sides = choose(models, market, rules)
    (first, last), (begin, _) = dates_of(models, "validation"), dates_of(models, "test")
    panel = cut(market, lambda k, bars: market.time_ns[market.offsets[k] + bars] < begin)
    columns, compared = list(best_sides.sides), 0
    predictions = models.predict(panel, None, (panel.time_ns >= first) & (panel.time_ns <= last)).values
    for number, side in enumerate(("long", "short")):
        both = np.full((len(columns), len(SECTORS), 2), NEVER, np.float32)
        for m, key in enumerate(columns):
            both[m, :, number] = best_sides.sides[key][number].cutoff
        source = OutOfSample(
            predictions, both, tuple(h for _, h, _ in columns), tuple(t for *_, t in columns),
            tuple(f for f, *_ in columns), np.full(3, first), np.full(3, begin), "validation, for a test", panel,
        )  # fmt: skip
        trades = backtest(source, dataclasses.replace(rules, side=side)).trades
        for m, key in enumerate(columns):
            net = trades.net[(trades.model == m) & (trades.reason != 5)]
            best = best_sides.sides[key][number]
            if best.cutoff < NEVER:
                assert len(net) == best.trades >= FEWEST and best.t >= LEAST_T
                assert net.mean() == pytest.approx(best.mean) and best.mean > 0
                compared += 1
            else:
                assert len(net) == 0
    assert compared >= 3


def test_t_is_that_of_blocks_of_dates_beyond_entries_on_every_row():
    count = np.array([[100.0, 100.0, 100.0], [50.0, 40.0, 30.0]])
    total = np.array([[3.0, 5.0, 4.0], [4.0, 4.0, 4.0]])
    gained = total - 0.01 * count  # 2, 4, 3 and 3.5, 3.6, 3.7
    values = gained[1]
    expected = values.mean() / (values.std(ddof=1) / np.sqrt(3))
    best = cutoffs._best(np.array([0.2, 0.3], np.float32), count, total, gained)
    assert best == Side(pytest.approx(0.3), 120, pytest.approx(0.1), pytest.approx(expected))
    few = cutoffs._best(np.array([0.2, 0.3], np.float32), count * [[1], [0.5]], total, gained)
    assert few.cutoff == pytest.approx(0.2)  # of the other there are 60 trades
    assert cutoffs._best(np.array([0.2], np.float32), count[:1], -total[:1], gained[:1]).cutoff == NEVER
    assert cutoffs._best(np.array([0.2], np.float32), count[:1], total[:1], gained[:1] - 3).cutoff == NEVER
    assert cutoffs._best(np.array([0.2], np.float32), count[:1, :1], total[:1, :1], gained[:1, :1]).cutoff == NEVER


def test_cutoffs_tried_call_from_all_rows_down_to_the_fewest():
    probability = np.random.default_rng(0).random(10_000).astype(np.float32)
    tried = candidates(probability)
    called = [(probability >= cutoff).sum() for cutoff in tried]
    assert called[0] == 10_000 and FEWEST <= called[-1] <= 1.3 * FEWEST
    assert np.allclose(np.array(called[:-1]) / called[1:], 2 ** (1 / 3), rtol=0.02)
    assert candidates(probability[: FEWEST - 1]).size == 0
    assert candidates(np.full(500, 0.5, np.float32)).tolist() == [0.5]


def test_costs_above_every_gain_call_nothing(models, chosen):
    assert any(side.cutoff < NEVER for sides in chosen.sides.values() for side in sides)
    dear = choose(models, tiny_market(), Rules(commission_bps=500))
    assert all(side == Side(NEVER) or side.cutoff == NEVER for sides in dear.sides.values() for side in sides)
    scanned = scan(dear.of(models), tiny_market(), "linear")
    assert {signal.side for signal in scanned.signals} == {"HOLD"} and scanned.top(9) == []
    assert any("SELL never, as no cutoff paid" in line for line in sentences(dear, "linear"))
    # Of models that are not asked, nothing changes.
    assert models.cutoffs == load(models.out).cutoffs


def test_a_choice_is_kept_for_its_models_bars_and_costs(trained, chosen, tmp_path, monkeypatch):
    out = shutil.copytree(trained, tmp_path / "OUT")
    models, market, work = load(out), tiny_market(), []

    def counting(models, panel, rules):
        work.append(rules)
        return choose(models, panel, rules)

    monkeypatch.setattr(cutoffs, "choose", counting)
    first = kept(models, market, FREE)
    same = json.dumps([[list(key), [dataclasses.asdict(side) for side in sides]] for key, sides in first.sides.items()])
    again = kept(models, market, dataclasses.replace(FREE, side="short", sizing="concentrated"))
    assert len(work) == 1 and first.of(models).cutoffs == chosen.of(models).cutoffs
    assert same == json.dumps(
        [[list(key), [dataclasses.asdict(side) for side in sides]] for key, sides in again.sides.items()]
    )
    begin, _ = dates_of(models, "test")
    gone = cut(market, lambda k, bars: market.time_ns[market.offsets[k] + bars] < begin)
    kept(models, gone, FREE)  # tomorrow's bars are no reason
    assert len(work) == 1
    kept(models, market, Rules())
    kept(models, market.replace(close=market.close * np.float32(1.01)), Rules())
    assert len(work) == 3
    (out / cutoffs.FILE).write_text("{")
    kept(models, market, Rules())
    assert len(work) == 4


def test_the_commands(trained, tmp_path, capsys):
    out = shutil.copytree(trained, tmp_path / "OUT")
    data = ["--models", str(out), "--data", SOURCE]
    assert main(["scan", *data, "--family", "linear", "--call", "profit"]) == 0
    output = capsys.readouterr().out
    assert "Cutoffs of linear by profit, on validation (" in output and "6 basis points a trade" in output
    assert output.count(" %: BUY ") == 4
    assert main(["backtest", *data, "--sectors", ",".join(SECTORS), "--call", "f1", "--json"]) == 0
    before = json.loads(capsys.readouterr().out)
    assert main(["backtest", *data, "--sectors", ",".join(SECTORS), "--call", "profit"]) == 0
    assert "from the cutoff that paid best on validation" in " ".join(capsys.readouterr().out.split())
    after = json.loads((out / "backtest" / "statistics.json").read_bytes())
    assert (before["call"], after["call"], len(after["tried"])) == ("f1", "profit", 2)
    rows = {name: sum(row.get("trades") or 0 for row in whole["statistics"]) for name, whole in
            (("f1", before), ("profit", after))}  # fmt: skip
    assert rows["f1"] != rows["profit"]
    assert {row["trials"] for row in after["statistics"] if "trials" in row} == {2 * 8, 2 * 24}
    capsys.readouterr()
    for name, more, words in (
        ("backtest", ["--source", "walk-forward", "--call", "profit"], "are not kept"),
        ("scan", ["--call", "profit", "--commission", "-1"], "commission_bps -1"),
    ):
        assert main([name, *data, *more]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


def test_data_without_validation_bars_are_refused(models):
    market = tiny_market()
    begin, _ = dates_of(models, "test")
    late = cut(market, lambda k, bars: market.time_ns[market.offsets[k] + bars] >= begin)
    with pytest.raises(UserError, match="--call profit: the data hold no bar of"):
        choose(models, late, FREE)
