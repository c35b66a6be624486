"""`gpupipe backtest` on a finished run: what it refuses, writes and prints."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from gpupipe import load, train
from gpupipe.backtest import Rules, backtest, sealed_test
from gpupipe.backtest.sources import InSampleError
from gpupipe.cli.backtest import show
from gpupipe.cli.main import main
from gpupipe.data.panel import PRICES
from gpupipe.evaluation.metrics import calls
from tests.support.tiny import QUICK, SECTORS, SOURCE, cut, tiny_market


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("backtest") / "OUT"
    chosen = ("xgb_joint", "linear")
    train(tiny_market(), "fast", out, settings=QUICK, jobs=1, training__models=chosen)
    return out


@pytest.fixture
def out(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "OUT")


def command(out, *more):
    return main(
        ["backtest", "--models", str(out), "--data", SOURCE, "--sectors", ",".join(SECTORS), "--call", "f1", *more]
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_command_writes_tables_and_does_nothing_twice(out, capsys):
    assert command(out) == 0
    output = capsys.readouterr().out
    assert "buy and hold" in output and "SELL calls" in output and "one position a symbol" in output
    folder = out / "backtest"
    first = contents(folder)
    tables = ("trades", "equity", "by_year", "statistics")
    assert set(first) == {*(f"{name}.parquet" for name in tables), "statistics.json"}
    stamps = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert command(out, "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads(first["statistics.json"])
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == stamps
    (folder / "trades.parquet").write_bytes(b"altered")
    assert command(out, "--quiet") == 0
    assert contents(folder) == first

    trades, statistics = pq.read_table(folder / "trades.parquet"), json.loads(first["statistics.json"])
    tests = json.loads((out / "summary.json").read_bytes())["split"]["test_from"]
    assert str(min(trades["call_time"].to_pylist()).date()) >= tests
    rows = {(row["sector"], row["model"], row["label"]): row for row in statistics["statistics"]}
    assert len(rows) == 4 * (2 * 4 + 1)
    frame = trades.to_pandas()
    of = frame[(frame.model == "linear") & (frame.label == "label_3d_2pct")]
    assert len(of) == rows["all", "linear", "label_3d_2pct"]["trades"] > 0
    assert (of.entry_time > of.call_time).all() and (of.exit_time >= of.entry_time).all()
    equity = pq.read_table(folder / "equity.parquet").to_pandas()
    curve = equity[(equity.model == "linear") & (equity.label == "label_3d_2pct") & (equity.sector == "all")]
    assert curve.equity.iloc[-1] - 1 == pytest.approx(rows["all", "linear", "label_3d_2pct"]["total_return"])


def test_no_figure_or_word_of_a_table_is_cut_short_in_a_narrow_window(out):
    assert command(out, "--quiet") == 0
    whole = json.loads((out / "backtest" / "statistics.json").read_bytes())
    rows = [row for row in whole["statistics"] if "skill" in row]
    for row in rows:
        row |= {"skill": "not known", "trades": 1_234_567}
    shown = io.StringIO()
    show(Console(file=shown, width=60), whole, out)
    together = sum(row["sector"] == "all" for row in rows)
    assert shown.getvalue().count("not known") == shown.getvalue().count("1,234,567") == together > 3


def test_other_rules_count_as_more_trials(out, capsys):
    assert command(out, "--quiet") == 0
    assert command(out, "--entry", "close", "--commission", "5", "--json") == 0
    after = json.loads(capsys.readouterr().out)
    assert after["rules"]["entry"] == "close" and len(after["rules_tried"]) == 2
    assert {row["trials"] for row in after["statistics"] if "trials" in row} == {2 * 8, 2 * 24}


def test_dates_before_the_sealed_test_are_refused(out, capsys):
    begins = json.loads((out / "summary.json").read_bytes())["split"]["test_from"]
    day_before = str(np.datetime64(begins, "D") - 1)
    assert command(out, "--since", day_before) == 2
    error = capsys.readouterr().err
    assert "before the sealed test" in error and error.count("\n") == 1
    assert command(out, "--since", "soon") == 2
    capsys.readouterr()
    assert command(out, "--since", "2031-01-01") == 2
    assert "--since 2031-01-01 lies after the last bar, of 2015-12-31" in capsys.readouterr().err
    assert not (out / "backtest").exists()
    later = str(np.datetime64(begins, "D") + 20)
    assert command(out, "--since", later, "--json") == 0
    assert json.loads(capsys.readouterr().out.partition("{")[2].join(("{", "")))["from"] >= later


def test_in_sample_probabilities_cannot_be_smuggled_in(trained):
    panel, models = tiny_market(), load(trained)
    source = sealed_test(models, panel)
    everything = models.predict(panel).values
    assert np.isnan(source.values[~source.unseen()]).all()
    np.testing.assert_array_equal(source.values[source.unseen()], everything[source.unseen()])
    with pytest.raises(InSampleError, match="only out-of-sample"):
        dataclasses.replace(source, values=everything)


def test_calls_are_those_of_the_cutoffs_chosen_on_validation(trained):
    panel = tiny_market()
    result = backtest(source := sealed_test(load(trained), panel), Rules(side="both"))
    rows = json.loads((trained / "summary.json").read_bytes())["models"]
    at = source.unseen()
    sector = np.array(panel.sector)[panel.symbol_of_row][at]
    for m in range(len(source.families)):
        for s in panel.groups:
            row = next(r for r in rows if (r["model"], r["sector"], r["horizon"], r["threshold"])
                       == (source.families[m], s, source.horizons[m], source.thresholds[m]))  # fmt: skip
            cutoffs = {"buy": row["cutoff_buy"], "sell": row["cutoff_sell"]}
            values = source.values[at][sector == s, m]
            called = np.where(np.isnan(values[:, 0]), 1, calls(np.nan_to_num(values), cutoffs))
            np.testing.assert_array_equal(result.calls[m][sector == s], np.array([2, 0, 1])[called])


def test_data_that_are_not_the_run_s(out, tmp_path, capsys):
    assert main(["backtest", "--models", str(out), "--data", "demo", "--sectors", "materials"]) == 2
    assert "none for materials" in capsys.readouterr().err
    early = cut(tiny_market(), lambda k, bars: bars < 120)
    pq.write_table(early.to_arrow(), tmp_path / "early.parquet")
    assert main(["backtest", "--models", str(out), "--data", str(tmp_path / "early.parquet")]) == 2
    assert "the sealed test begins" in capsys.readouterr().err
    assert main(["backtest", "--models", str(tmp_path / "none"), "--data", "demo", "--families", "x"]) == 2
    assert not (tmp_path / "none").exists()


def test_a_later_bar_changes_no_trade_that_was_closed(trained):
    panel, models = tiny_market(), load(trained)
    earlier = cut(panel, lambda k, bars: bars < len(bars) - 5)
    whole, part = (backtest(sealed_test(models, bars)) for bars in (panel, earlier))
    assert part.panel.n_rows < whole.panel.n_rows

    def closed(result):
        t, p = result.trades, result.panel
        symbol = p.symbol_of_row[t.row]
        ends = t.reason != 5
        return set(zip(t.model[ends].tolist(), symbol[ends].tolist(), p.time_ns[t.row[ends]].tolist(),
                       p.time_ns[t.last_row[ends]].tolist(), t.net[ends].tolist(), strict=True))  # fmt: skip

    assert len(closed(part)) > 50
    assert closed(part) <= closed(whole)
    for name in PRICES:
        assert getattr(part.panel, name).dtype == np.float32
