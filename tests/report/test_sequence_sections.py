"""Sections of a run of sequence: loss curves, the next bar's return, positions; for one symbol and for ten."""

from __future__ import annotations

import datetime
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpupipe.backtest import PositionRules
from gpupipe.backtest.position_trades import equity_of_path
from gpupipe.evaluation import next_return as judged
from gpupipe.evaluation.next_return import NextReturns
from gpupipe.evaluation.position_path import positions_of
from gpupipe.report import kept_returns, loss_curves, next_return, page, position_paths
from gpupipe.report.formatting import titles_in_sentences
from gpupipe.report.group_words import in_symbols, of_symbols
from gpupipe.report.kept_returns import KeptReturns
from tests.report.test_report import opened

pytest.importorskip("altair")
HOUR = 3_600_000_000_000
COST = 0.0003
TEN = [f"S{k}/USD" for k in range(9)] + ["A_LONG_NAME_OF_A_SYMBOL_1h"]


def epochs_of(symbol, n=5, best=3, start=1, **changes):
    """Rows of history.parquet whose lowest validation loss is in epoch `best`."""
    return [
        {"symbol": symbol, "epoch": k, "rate": 0.008 * 0.5 ** (k // 4), "loss": 0.9 - 0.01 * k,
         "validation_loss": 0.7 + 0.01 * abs(k - best), "label_1d_1pct": 0.5 + 0.01 * k, "log_return_1": 1.0}
        | changes
        for k in range(start, n + start)
    ]  # fmt: skip


def returns_of(n=400, seed=0, signal=0.0, folds=("",)):
    """(measures as the summary has them, KeptReturns) of hourly bars; predictions hold `signal` of the return."""
    rng = np.random.default_rng(seed)
    realised = rng.normal(scale=0.01, size=n)
    predicted = signal * realised + (1 - signal) * rng.normal(scale=0.002, size=n)
    close = 100 * np.exp(np.concatenate([[0], np.cumsum(realised)]))[:n]
    times = np.arange(n) * HOUR
    last = np.concatenate([[0.0], realised[:-1]])
    rows = NextReturns(times, close, realised, predicted, last, np.full(n, 1e-4))
    position = positions_of(predicted, COST)
    paths = (position, np.ones_like(position))
    equity, held = (equity_of_path(path, close, close, PositionRules()) for path in paths)
    measures = {
        **judged.measures(rows, seed=1),
        "positions": {"cost_of_a_fill": COST, "final_equity": float(equity[-1]) if n else 1.0,
                      "final_buy_and_hold": float(held[-1]) if n else 1.0,
                      "fills": int(np.abs(np.diff(position, prepend=0)).sum())},
    }  # fmt: skip
    measures = json.loads(json.dumps(measures, sort_keys=True).replace("NaN", "null"))  # as summary.json holds them
    return measures, KeptReturns(folds, times, realised, predicted, position, equity, held)


def run_of(symbols, **how):
    parts = {symbol: returns_of(seed=k, **how) for k, symbol in enumerate(symbols)}
    whole = {"settings": {"seed": 1}, "returns": {symbol: measures for symbol, (measures, _) in parts.items()}}
    return whole, {symbol: rows for symbol, (_, rows) in parts.items()}


def figures(section):
    return [part for part in section.parts if isinstance(part, page.Figure)]


def tables(section):
    return [part for part in section.parts if isinstance(part, page.Table)]


def values(figure):
    return figure.spec["data"]["values"]


def test_nothing_is_shown_without_the_files(tmp_path):
    assert kept_returns.read(tmp_path) is None
    assert loss_curves.loss_curves(None) is None and loss_curves.loss_curves([]) is None
    whole, rows = run_of(["A"])
    for section in (next_return.next_return, position_paths.position_paths):
        assert section(whole, None) is None and section({**whole, "returns": {}}, rows) is None
        assert section({"settings": {"seed": 1}}, rows) is None and section(whole, {}) is None


def test_the_kept_epoch_is_the_best_of_validation_and_is_marked():
    section = loss_curves.loss_curves(epochs_of("A", n=6, best=4))
    losses, rates, heads = figures(section)
    marked = [(row["what"], row["epoch"]) for row in values(losses) if row["best"]]
    assert marked == [("validation", 4)]
    assert {row["what"] for row in values(losses)} == {"training", "validation"} and len(values(losses)) == 12
    assert [row["rate"] for row in values(rates)] == [0.008] * 3 + [0.004] * 3
    assert {row["head"] for row in values(heads)} == {"1 bar, 1 %", "return of the next bar"}
    assert not heads.interactive and losses.spec["columns"] == 1
    (table,) = tables(section)
    assert table.rows[0][:5] == ["A", 6, 4, pytest.approx(0.86), pytest.approx(0.7)]
    assert [rate.text for rate in table.rows[0][5:]] == ["0.00800", "0.00400"]
    assert not any("last epoch" in line for line in section.text)
    assert any("is best in its last epoch" in line for line in loss_curves.loss_curves(epochs_of("A", best=5)).text)


def test_losses_that_are_not_known_are_gaps_and_without_validation_the_last_epoch_is_kept():
    lines = epochs_of("A", n=4, best=0, start=0)  # epoch 0: the network that a training went on from
    lines[0]["loss"] = math.nan
    section = loss_curves.loss_curves(lines)
    (first, *_) = [row for row in values(figures(section)[0]) if row["what"] == "training"]
    assert first["loss"] is None and tables(section)[0].rows[0][1:4] == [3, 0, None]
    assert "1 of 1 is kept, because no epoch was better." in section.text[1]
    assert [row["epoch"] for row in values(figures(section)[1])] == [1, 2, 3]  # no rate of epoch 0
    page.render("t", [], [section])  # NaN in a chart would be no JSON
    section = loss_curves.loss_curves(epochs_of("A", validation_loss=math.nan))
    assert {row["what"] for row in values(figures(section)[0])} == {"training"}
    assert [row["epoch"] for row in values(figures(section)[0]) if row["best"]] == [5]
    assert figures(section)[2].caption.startswith("Training loss of each head")
    section = loss_curves.loss_curves(epochs_of("A", n=1, best=1), n_groups=3)
    assert any("3 symbols share one network" in line for line in section.text)


def test_long_trainings_are_thinned_and_keep_their_best_epoch():
    lines = epochs_of("A", n=1000, best=333)
    section = loss_curves.loss_curves(lines)
    losses, _, heads = figures(section)
    assert [row["epoch"] for row in values(losses) if row["best"]] == [333]
    assert len(values(losses)) <= 2 * (loss_curves.MOST_EPOCHS + 2)
    assert len(values(heads)) <= 2 * (loss_curves.MOST_EPOCHS_OF_HEADS + 2)
    assert {row["epoch"] for row in values(heads)} >= {1, 333, 1000}


def test_heads_of_several_symbols_have_a_control():
    section = loss_curves.loss_curves([line for symbol in TEN for line in epochs_of(symbol)])
    heads = figures(section)[2]
    assert heads.interactive and heads.spec["params"][0]["bind"]["options"] == TEN
    assert figures(section)[0].spec["columns"] == 3


@pytest.mark.parametrize(("signal", "skill"), [(0.0, "without skill"), (0.9, "with skill")])
def test_the_next_return_is_shown_beside_its_references_with_skill_in_words(signal, skill):
    whole, rows = run_of(["A"], signal=signal)
    section = next_return.next_return(whole, rows)
    measures = whole["returns"]["A"]
    assert any(f"predicted {skill}: gain in squared error over zero return" in line for line in section.text)
    gains, tenths = figures(section)
    shown = {row["reference"]: row for row in values(gains)}
    assert set(shown) == {"over zero return", "over the last return again", "over the mean return"}
    for name, words in judged.WORDS.items():
        expected = {part: 100 * value for part, value in measures["gain"][name].items()}
        assert {part: shown[f"over {words}"][part] for part in expected} == pytest.approx(expected)
    assert shown["over zero return"]["skill"] == ("skill" if signal else "no skill")
    assert len(values(tenths)) == 10 and sum(row["rows"] for row in values(tenths)) == rows["A"].n
    assert all(row["low"] < row["realised"] < row["high"] for row in values(tenths))
    errors, signs, _ = tables(section)
    assert [row[1] for row in errors.rows] == ["the network", *judged.WORDS.values()]
    for row, name in zip(errors.rows, (judged.MODEL, *judged.REFERENCES), strict=True):
        assert row[2] == pytest.approx(100 * measures["rmse_return"][name])
        assert (row[3].value, row[4]) == (measures["rmse_price"][name], measures["mape_price"][name])
    assert errors.rows[0][5:] == [None] * 3 and errors.rows[1][5] == pytest.approx(shown["over zero return"]["gain"])
    assert signs.rows[0][:2] == ["A", measures["skill"]]


def test_symbols_without_enough_rows_are_said_to_be_not_known():
    whole, rows = run_of(["A", "B"])
    measures, few = returns_of(n=15)
    whole["returns"]["few"], rows["few"] = measures, few
    measures, none = returns_of(n=0)
    whole["returns"]["none"], rows["none"] = measures, none
    section = next_return.next_return(whole, rows)
    assert "with skill for 0 of 4 symbols (not known for 2)." in " ".join(section.text)
    assert sum(line.startswith("A: ") for line in section.text) == 0  # more than SPOKEN: the tables have them
    skills = {row[0]: row[1] for row in tables(section)[1].rows}
    assert skills == {"A": "no skill", "B": "no skill", "few": "not known", "none": "not known"}
    assert "none" not in {row["symbol"] for row in values(figures(section)[0])}
    page.render("t", [], [section, position_paths.position_paths(whole, rows)])
    assert {row[0] for row in tables(position_paths.position_paths(whole, rows))[0].rows} == {"A", "B", "few"}
    assert any("too few rows (0)" in line for line in next_return.sentences({"none": measures}))
    alone = next_return.next_return({**whole, "returns": {"none": measures}}, {"none": none})
    assert figures(alone) == [] and "too few rows" in " ".join(alone.text)


def test_walk_forward_rows_are_said_to_be_of_all_folds():
    whole, rows = run_of(["A"], folds=("origin1", "origin2"))
    assert "the test bars of 2 folds together" in next_return.next_return(whole, rows).text[0]


def test_equity_after_costs_is_thinned_and_logarithmic_over_decades():
    whole, rows = run_of(["A"], n=2000)
    section = position_paths.position_paths(whole, rows)
    (figure,) = figures(section)
    assert "logarithmic" not in figure.caption
    lines = {what: [row for row in values(figure) if row["what"] == what] for what in ("positions", "buy and hold")}
    for what, equity in (("positions", rows["A"].equity), ("buy and hold", rows["A"].buy_and_hold)):
        assert len(lines[what]) == position_paths.MOST_POINTS
        assert lines[what][-1]["equity"] == equity[-1] and lines[what][-1]["time"] == "1970-03-25T07:00"
    positions = whole["returns"]["A"]["positions"]
    assert f"{positions['fills']:,} fills of 0.03 % each" in section.text[1] and "costs 0.03 %" in section.text[0]
    (row,) = tables(section)[0].rows
    assert row[0] == "A" and row[5] == positions["fills"] and sum(row[6:9]) == pytest.approx(100)
    assert row[3] == pytest.approx(100 * position_paths.largest_loss(rows["A"].equity)) and row[3] < 0
    ruined = {"A": KeptReturns(**{**vars(rows["A"]), "equity": np.linspace(2, 0, 2000)})}
    (figure,) = figures(position_paths.position_paths(whole, ruined))
    assert "logarithmic" in figure.caption and min(row["equity"] for row in values(figure)) > 0


def test_kept_returns_are_read_by_symbol_in_the_order_of_time(tmp_path):
    n = 6
    start = datetime.datetime(2021, 1, 1, tzinfo=datetime.UTC)
    times = [start + datetime.timedelta(hours=h) for h in (1, 0, 2, 0, 1, 2)]
    columns = {
        "symbol": ["B"] * 3 + ["A"] * 3, "fold": ["2", "1", "2", "1", "1", "1"], "time": times,
        "close": np.ones(n), "realised": np.arange(n, dtype=float), "predicted": np.arange(n, dtype=float),
        "position": np.arange(n, dtype=np.int8), "equity": np.ones(n), "buy_and_hold": np.ones(n),
    }  # fmt: skip
    table = pa.table(columns)
    table = table.set_column(2, "time", table["time"].cast(pa.timestamp("ns", "UTC")))
    pq.write_table(table, tmp_path / kept_returns.FILE)
    found = kept_returns.read(tmp_path)
    assert list(found) == ["B", "A"] and found["B"].folds == ("1", "2")
    assert found["B"].realised.tolist() == [1, 0, 2] and found["A"].n == 3
    assert np.diff(found["B"].time_ns).tolist() == [HOUR, HOUR]


def test_a_page_of_symbols_says_symbol_and_keeps_the_names_of_models():
    assert of_symbols("sectors of the sector; bisector") == "symbols of the symbol; bisector"
    spec = {"params": [{"bind": {"name": "sector ", "options": ["all sectors", "sector"]}, "value": "all sectors"}],
            "encoding": {"tooltip": [{"field": "sector", "type": "nominal"}], "y": {"field": "sector", "title": None}},
            "data": {"values": [{"sector": "all sectors"}, {"sector": "energy"}]}}  # fmt: skip
    picture = page.Picture("of each sector", "<text>all sectors</text>")
    section = in_symbols(page.Section("By sector", [], [page.Figure("in each sector", spec), picture]))
    figure, drawn = section.parts
    assert (section.anchor, figure.caption, drawn.caption) == ("by-symbol", "in each symbol", "of each symbol")
    assert drawn.svg == "<text>all symbols</text>"
    bind = figure.spec["params"][0]
    assert bind == {"bind": {"name": "symbol ", "options": ["all symbols", "sector"]}, "value": "all symbols"}
    assert figure.spec["data"]["values"] == [{"sector": "all symbols"}, {"sector": "energy"}]
    encoding = figure.spec["encoding"]
    assert encoding["tooltip"][0]["title"] == "symbol" and encoding["y"] == {"field": "sector", "title": None}


def test_titles_stand_in_sentences_where_a_name_says_too_little():
    rows = [{"label": "label_1d_1vol", "horizon": 1, "multiple": 1.0}, {"label": "log_return_1"}]
    assert titles_in_sentences({"models": rows}) == {
        "label_1d_1vol": "1 bar, 1 x volatility", "log_return_1": "return of the next bar"
    }  # fmt: skip


@pytest.mark.parametrize("width", [1100, 400])
@pytest.mark.parametrize("symbols", [["BTCUSD"], TEN])
def test_every_figure_is_drawn_within_the_page(symbols, width, tmp_path):
    whole, rows = run_of(symbols)
    lines = [line for k, symbol in enumerate(symbols) for line in epochs_of(symbol, n=3 + 60 * (k % 2), best=2)]
    sections = [loss_curves.loss_curves(lines, len(symbols)), next_return.next_return(whole, rows),
                position_paths.position_paths(whole, rows)]  # fmt: skip
    path = tmp_path / "page.html"
    probe = """<script>const waiting = setInterval(() => {
      if (document.documentElement.dataset.drawn === undefined) return;
      clearInterval(waiting);
      document.documentElement.dataset.wide = document.documentElement.scrollWidth - innerWidth;
    }, 50);</script>"""
    path.write_text(page.render("t", [], sections) + probe)
    dom, console = opened(path, width)
    n_figures = sum(len(figures(section)) for section in sections)
    assert console == "" and f'data-drawn="{n_figures}"' in dom and n_figures == 6
    assert 'data-wide="0"' in dom or 'data-wide="-' in dom
    for symbol in symbols:
        assert dom.count(f">{symbol}<") >= 5  # panels of losses, rates, tenths and equity; rows of gains and tables
