"""Sections of the report on small cases: signals, warnings, timeline, memory, calibration bins, and colour contrast."""

from __future__ import annotations

import json
import re

import pytest

from gpupipe.artifacts import summary
from gpupipe.cli import nightly
from gpupipe.estimators import registry
from gpupipe.estimators.contract import Estimator
from gpupipe.report import (
    charts,
    leaderboard,
    page,
    predictions,
    run_details,
    sentences,
    signals,
    trading,
    warnings_section,
)
from gpupipe.report.formatting import title_of_label
from gpupipe.runtime import device, timeline

pytest.importorskip("altair")


def themes() -> dict[str, dict[str, str]]:
    """Colours of the themes light, dark and print in page.css."""
    blocks = re.findall(r":root \{(.*?)\}", page._file("page.css"), re.S)
    light, dark, paper = (dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", block)) for block in blocks)
    return {"light": light, "dark": dark, "print": paper}


def luminance(colour: str) -> float:
    """WCAG 2, relative luminance."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(first: str, second: str) -> float:
    """WCAG 2, contrast ratio."""
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def test_text_and_lines_have_enough_contrast_to_their_background():
    assert contrast("#000000", "#ffffff") == pytest.approx(21) and contrast("#777777", "#ffffff") < 4.5
    for name, colours in themes().items():
        for text in ("text", "dim", "link"):
            for ground in ("ground", "panel"):
                assert contrast(colours[text], colours[ground]) >= 4.5, (name, text, ground)
        for mark in (*(f"m{k}" for k in range(1, 9)), "sell", "buy", "base"):
            assert contrast(colours[mark], colours["ground"]) >= 3, (name, mark)
        # Neighbours in one bar, which only a thin line separates.
        assert contrast(colours["sell"], colours["hold"]) >= 1.5 and contrast(colours["buy"], colours["hold"]) >= 1.5
    for k in range(11):  # the text of the heat map is black
        low, high = charts.LOSS_TO_GAIN[k // 5 : k // 5 + 2] if k < 10 else charts.LOSS_TO_GAIN[1:]
        part = k / 5 - k // 5 if k < 10 else 1.0
        mixed = [round((1 - part) * int(low[i : i + 2], 16) + part * int(high[i : i + 2], 16)) for i in (1, 3, 5)]
        assert contrast("#000000", "#" + "".join(f"{c:02x}" for c in mixed)) >= 4.5


def test_models_can_be_distinguished_without_colour():
    known = themes()["light"]
    models = [item.chart_style for item in registry.estimators()]
    assert len({shape for _, shape, _ in models}) == len(models)
    dashes = [dash for _, _, dash in (*models, Estimator.chart_style)]
    assert len(set(dashes)) == len(dashes)
    for colour, *_ in (*models, Estimator.chart_style):
        assert colour in known
    drawn = charts._model_styles(["linear", "prior_all"])
    assert drawn == (["var(--m6)", "var(--base)"], ["cross", "circle"], [[1, 3], [1, 1]])


def at(second: float, event: str, **fields) -> dict:
    return {"time": f"2026-01-01T00:00:{second:06.3f}Z", "run": "r", "event": event, "thread": "MainThread", **fields}


def unit(end: float, seconds: float, stage: str, **fields) -> dict:
    return at(end, "unit", stage=stage, unit=f"energy/final/{stage}/pool", seconds=seconds, device="cpu", **fields)


EVENTS = [
    at(1, "read", seconds=1.0, memory_bytes=100, memory_peak_bytes=100),
    at(1, "start", run_key="k"),
    at(1, "stage", stage="features and labels"),
    at(3, "features", stage="features", unit="energy", seconds=2.0, memory_bytes=300, memory_peak_bytes=400),
    at(4, "stage", stage="training"),
    at(3.5, "prepared", stage="bins", unit="final/bins", seconds=0.0, thread="t"),
    unit(8, 4, "linear", worker="a", thread="t", memory_bytes=250, memory_peak_bytes=400, device_peak_bytes=7),
    unit(6, 2, "linear", worker="b", thread="t"),
    unit(14, 6, "xgb_hist", worker="a", thread="t"),
    unit(14, 4, "xgb_hist", worker="b", thread="t"),
    unit(14, 0, "xgb_hist", worker="b", thread="t", reused=True),
    at(14, "warning", text="odd", where="x.py:1"),
    at(14.5, "warning", text="odd", where="x.py:1"),
    at(15, "stage", stage="evaluation"),
    at(18, "seconds", stage="evaluation", seconds=2.0),
    at(18, "published"),
    at(18, "end", status="done", lines_lost=2),
]


def test_lanes_of_workers_and_their_idle_time():
    log = timeline.find([*EVENTS, {**at(50, "start", run_key="other"), "run": "s"}], "k")
    assert timeline.find(EVENTS, "other") is None and timeline.find([], "k") is None
    first, second = timeline.shares(log)
    assert (first.name, first.units, first.busy_s, first.seconds) == ("worker a", 2, 10.0, 10.0) and first.idle == 0
    assert (second.name, second.units, second.busy_s) == ("worker b", 2, 6.0) and second.idle == pytest.approx(0.4)
    bars = timeline.bars(log)
    idle = [(bar.lane, bar.begin, bar.end) for bar in bars if bar.stage == timeline.IDLE]
    assert idle == [("worker b", 6.0, 10.0)]
    of_run = [(bar.stage, bar.begin, bar.end) for bar in bars if bar.lane == timeline.MAIN]
    assert of_run == [("read", 0, 1), ("features", 1, 3), ("evaluation", 15, 17), ("write", 17, 18)]
    assert {bar.unit for bar in bars if bar.stage == "linear"} == {"final/linear/pool"}
    section = run_details.time_and_memory(SUMMARY, log)
    assert "4 tasks ran in 10.0 s on 2 threads or workers, which were idle for 20.0 % of that time." in section.text


def test_threads_are_lanes_where_there_are_no_workers():
    events = [at(0, "start", run_key="k"), unit(2, 2, "a", thread="Pool-0_1"), unit(3, 1, "meta"),
              unit(2, 1, "b", thread="Pool-0_0"),
              unit(1, 1, "b", thread="u", worker="tcp://10.0.0.1:40000")]  # fmt: skip
    log = timeline.find(events, "k")
    assert list(timeline.lanes(log).values()) == ["thread 1", "run", "thread 2", "worker 1"]
    binned = at(1, "prepared", stage="bins", unit="final/bins", seconds=1.0, thread="t7")
    served = timeline.find([at(0, "start", run_key="k"), binned, unit(2, 1, "b", thread="t7", worker=0)], "k")
    (lane,) = timeline.shares(served)
    assert (lane.name, lane.units, lane.busy_s, lane.idle) == ("worker 0", 1, 2.0, 0.0)
    two = [unit(1, 1, "b", thread=f"t{k}", worker="w") for k in (1, 2)]
    log = timeline.find([at(0, "start", run_key="k"), *two], "k")
    assert list(timeline.lanes(log).values()) == ["worker w, thread 1", "worker w, thread 2"]


SUMMARY = {
    "run_key": "k", "elapsed_s": 18.0, "jobs": 2, "rows_per_second": 5.0, "peak_bytes": 2**30, "device_peak_bytes": 0,
    "seconds": {"linear": 6.0},
    "bus_bytes": {"to_device": {"gather": 3 * 2**20, "": 2**20}, "to_host": {"gather": 2**19}},
    "data": {"findings": [{"kind": "zero volume", "action": "flagged", "rows": 9, "symbols": 2, "example": "A"}]},
    "skipped": [],
}  # fmt: skip


def test_memory_by_stage_and_bytes_over_the_bus():
    log = timeline.find(EVENTS, "k")
    rows = {row[0]: row[1:] for row in timeline.held_by_phase(log)}
    assert rows["read"] == [1.0, 100, 100, None, None] and rows["features and labels"] == [3.0, 300, 400, None, None]
    assert rows["training"] == [11.0, 250, 400, 7, None]
    assert ("resident", 3.0, 300) in timeline.held(log) and ("pool's largest so far", 8.0, 7) in timeline.held(log)
    parts = run_details.time_and_memory(SUMMARY, log).parts
    tables = {part.caption: part for part in parts if isinstance(part, page.Table)}
    bus_rows = [["gather", 3.0, 0.5], ["outside of stages", 1.0, 0.0], ["all", 4.0, 0.5]]
    assert tables["Bytes over the bus"].rows == bus_rows
    assert len(tables["Memory by stage: the largest value logged in the stage, and peaks since the start"].columns) == 6
    none = run_details.time_and_memory({**SUMMARY, "bus_bytes": {"to_device": {}, "to_host": {}}}, None)
    assert "Nothing crossed a bus: the device was the CPU." in none.text and len(none.parts) == 1


PLACEMENT = {
    "stages": {
        "xgb_joint.pool": {"device": "cuda", "reason": "faster", "expected_s": {"cuda": 1, "cpu": 4}, "took_s": 2.0},
        "linear.pool": {"device": "cpu", "reason": "the same bits", "expected_s": {}, "took_s": 0.5},
    },
    "rates": {"measured": [], "when": ""}, "bus": {"copy_s": {}, "share": None}, "idle": {"cuda": 0.5, "cpu": 0.25},
}  # fmt: skip


def test_what_ran_where_and_why_is_a_table_of_runs_with_a_gpu():
    section = run_details.time_and_memory({**SUMMARY, "placement": PLACEMENT}, None)
    table = next(part for part in section.parts if part.caption == "Where each stage ran")
    assert table.rows[0] == ["xgb_joint.pool", "cuda", "faster", 1, 4, 2.0]
    assert table.rows[1] == ["linear.pool", "cpu", "the same bits", None, None, 0.5]
    text = " ".join(section.text)
    assert "On the GPU: xgb_joint.pool; on CPU threads: linear.pool. Idle: GPU 50 %, threads 25 %." in text
    assert "estimates: gpupipe doctor --measure" in text
    measured = {"rates": {"measured": ["cpu", "cuda"], "when": "2026-01-02"}, "bus": {"copy_s": {}, "share": 0.01}}
    text = " ".join(run_details.time_and_memory({**SUMMARY, "placement": {**PLACEMENT, **measured}}, None).text)
    assert "measured on 2026-01-02" in text and "take 1.00 % of the run's time" in text
    of_cpu = run_details.time_and_memory(SUMMARY, None)
    assert all(part.caption != "Where each stage ran" for part in of_cpu.parts)


def test_memory_of_the_process_and_of_the_pool(monkeypatch):
    counts = {"current_bytes": 5, "peak_bytes": 9, "current_count": 2}
    memory = device.held()
    assert memory["memory_peak_bytes"] > 10**7 and "device_bytes" not in memory
    monkeypatch.setattr(device, "pool_statistics", lambda: counts)
    memory = device.held()
    assert [memory[f"device_{name}"] for name in ("bytes", "peak_bytes", "allocations")] == [5, 9, 2]


def test_every_warning_is_there_once(tmp_path):
    (tmp_path / "nightly.jsonl").write_text(
        json.dumps({"night": "1", "steps": [{"name": "scan", "status": "FAIL", "detail": "old"}]}) + "\n{half\n"
        + "".join(json.dumps({"night": "2", "name": name, "status": status, "detail": why}) + "\n"
                  for name, status, why in (("ingest", "WARN", "gaps"), ("train", "OK", ""), ("scan", "SKIPPED", "x")))
    )  # fmt: skip
    earlier = [{**event, "run": "q"} for event in (at(0, "start", run_key="k"), at(0, "end", status="interrupted"))]
    foreign = [{**event, "run": "s"} for event in (at(0, "start", run_key="other"), at(0, "warning", text="foreign"))]
    (table,) = warnings_section.warnings(tmp_path, SUMMARY, [*earlier, *foreign, *EVENTS]).parts
    assert table.rows == [
        ["the run", "odd (x.py:1)", 2], ["the run", "an earlier session was interrupted", 1],
        ["the log", "2 lines could not be written", 1], ["the data", "zero volume: flagged, 2 symbols, such as A", 9],
        ["nightly step ingest: WARN", "gaps", 1], ["nightly step scan: SKIPPED", "x", 1],
    ]  # fmt: skip
    quiet = {**SUMMARY, "data": {}}
    assert "not known" in warnings_section.warnings(tmp_path / "none", quiet, []).text[0]
    assert "No warnings" in warnings_section.warnings(tmp_path / "none", quiet, [at(0, "start", run_key="k")]).text[0]


MONEY = {"p_buy": 0.3, "base_buy": 0.2, "p_sell": 0.1, "base_sell": 0.15, "expected_net_return": 0.002,
         "uncertainty": 0.001}  # fmt: skip


def test_signals_name_their_date_and_their_models(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from gpupipe.serving.scan import ABOUT

    assert (signals.SIGNALS, signals.ACTIVE) == (nightly.SIGNALS, nightly.ACTIVE)
    nothing = signals.signals(tmp_path, SUMMARY)
    assert "No scan" in nothing.text[0] and not nothing.parts
    row = {"symbol": "A", "sector": "energy", "time": "2026-01-05T00:00:00", "side": "BUY", "horizon": 5,
           "threshold": 0.05, **MONEY, "agreement": 1.0, "close": 10.0, "model": "linear",
           "entry_low": 9.0, "entry_high": 11.0, "stop": 8.0, "target": 15.0}  # fmt: skip
    rows = [row, {**row, "horizon": 1, "side": "SELL", "expected_net_return": 0.001},
            {**row, "symbol": "B", "side": "HOLD"},
            {**row, "symbol": "OLD", "time": "2025-12-24T00:00:00", "expected_net_return": 0.9}]  # fmt: skip
    about = {"run_key": SUMMARY["run_key"], "call": "profit", "degenerate": ["linear 5d_5pct predicts one thing"],
             "without_calls": ["--call profit calls nothing for linear_1d_5pct: no cutoff paid."]}  # fmt: skip

    def written(**changes):
        table = pa.Table.from_pylist(rows).replace_schema_metadata({ABOUT: json.dumps({**about, **changes})})
        pq.write_table(table, tmp_path / signals.SIGNALS)
        return signals.signals(tmp_path, SUMMARY)

    section = written()
    (table,) = section.parts
    assert [line[:5] for line in table.rows] == [["A", "energy", "2026-01-05", "BUY", "5 bars, 5 %"]]
    assert "1 BUY and 0 SELL" in section.text[0] and "1 of 2 symbols are HOLD" in section.text[0]
    assert "that paid best on validation, or never" in section.text[0]
    assert "no cutoff paid" in section.text[1]
    assert table.rows[0][5:11] == pytest.approx([0.2, 0.1, 30, 20, 10, 15])
    assert "Left out: 1 symbols" in section.text[2] and not any("Other models" in line for line in section.text)
    assert section.text[-1] == "linear 5d_5pct predicts one thing."
    assert any("Other models than the ones in this folder" in line for line in written(run_key="another").text)
    rows[2] |= {"side": "SELL"}
    assert "1 BUY and 1 SELL" in written(call="score").text[0]
    assert "is not a file of gpupipe scan" in written(call="of a newer gpupipe").text[0]
    about = ["nonsense"]
    pq.write_table(pa.Table.from_pylist(rows).replace_schema_metadata({ABOUT: json.dumps(about)}),
                   tmp_path / signals.SIGNALS)  # fmt: skip
    assert "is not a file of gpupipe scan" in signals.signals(tmp_path, SUMMARY).text[0]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / signals.SIGNALS)  # without the metadata of a scan
    assert "is not a file of gpupipe scan" in signals.signals(tmp_path, SUMMARY).text[0]
    (tmp_path / signals.SIGNALS).write_text("no table")
    assert "is not a file of gpupipe scan" in signals.signals(tmp_path, SUMMARY).text[0]


def test_signals_show_the_digits_of_their_prices_and_the_zone_of_their_bars(tmp_path):
    import sqlite3

    import pyarrow as pa
    import pyarrow.parquet as pq

    from gpupipe.serving.active_signals import TABLE
    from gpupipe.serving.scan import ABOUT

    row = {"symbol": "COIN", "sector": "[b]<i>&", "time": "2026-01-05T14:00:00", "side": "BUY", "horizon": 5,
           "threshold": 0.05, **MONEY, "agreement": 1.0, "close": 2.013e-05,
           "model": "linear", "entry_low": 1.99e-05, "entry_high": 2.03e-05, "stop": 1.9e-05,
           "target": None}  # fmt: skip
    tokyo = {**row, "symbol": "[/ES]", "time": "2026-01-05T22:00:00", "close": 187.25, "entry_low": 186.677,
             "entry_high": 187.823, "stop": 184.0, "target": 195.0, "expected_net_return": None}  # fmt: skip
    display = {"intraday": True, "utc_offset_s": {"[/ES]": 32400}, "decimals": {}}
    about = {"run_key": SUMMARY["run_key"], "call": "profit", "degenerate": [], "without_calls": [],
             "display": display}  # fmt: skip

    def written(*rows):
        table = pa.Table.from_pylist(rows).replace_schema_metadata({ABOUT: json.dumps(about)})
        pq.write_table(table, tmp_path / signals.SIGNALS)
        return signals.signals(tmp_path, SUMMARY)

    with sqlite3.connect(tmp_path / signals.ACTIVE) as database:
        database.execute(TABLE)
        database.execute(
            "insert into active_signals (symbol, status, side, created, updated) values ('[/ES]', 'CREATED', 'BUY', "
            "'2026-01-05T21:00:00', '2026-01-05T22:00:00')"
        )
    database.close()
    section = written(row, tokyo, {**row, "symbol": "NEW", "time": "2026-01-06T01:00:00", "side": "HOLD"})
    strongest, active = section.parts
    (es,) = strongest.rows  # of the newest session, which for this symbol is a day later than in UTC
    assert es[:3] == ["[/ES]", "[b]<i>&", "2026-01-06 07:00 +09:00"]
    assert [page._cell(value, 2) for value in es[12:]] == ["187.25", "186.68", "187.82", "184.00", "195.00"]
    assert "On the bars of 2026-01-06" in section.text[0] and "Left out: 1 symbols" in " ".join(section.text)
    assert active.rows == [["CREATED", "[/ES]", "BUY", "2026-01-06 06:00 +09:00", "2026-01-06 07:00 +09:00"]]
    content = page.render("t", [], [section]).replace(page.library(), "")
    assert '<td class="number" data-value="187.25">187.25</td>' in content
    assert "<td>[b]&lt;i&gt;&amp;</td>" in content and "<td>[/ES]</td>" in content
    (coin,) = written({**row, "time": "2026-01-06T01:00:00"}, {**tokyo, "side": "HOLD"}).parts[0].rows
    assert coin[2] == "2026-01-06 01:00 UTC"
    expected = ["0.00002013", "0.00001990", "0.00002030", "0.00001900", "–"]
    assert [page._cell(value, 2) for value in coin[12:]] == expected


def test_a_leaderboard_without_events_has_words_in_place_of_gains():
    known = {"label": "label_5d_10pct", "model": "linear", "sectors": 3, "sectors_without_events": 1,
             "test_gain_over_prior": 0.25, "test_skill": "skill", "test_log_loss": 1.0,
             "test_prior_log_loss": 1.0}  # fmt: skip
    unknown = {**known, "test_gain_over_prior": None, "test_skill": "no events", "sectors_without_events": 3}
    models = [{**known, "kind": "model", "sector": "a"}, {**unknown, "kind": "model", "sector": "b"}]
    whole = {"models": models, "averages": [known, {**unknown, "model": "xgb_hist"}]}
    section = leaderboard.leaderboard(whole)
    figure, table = section.parts
    assert [row["gain"] for row in figure.spec["data"]["values"]] == [25.0]
    assert [line[2] for line in table.rows] == [25.0, None] and table.rows[1][3] == "no events"
    assert "left out of the averages: " in section.text[-1]
    sectors = leaderboard.by_sector(whole)
    assert sectors.text == ["1 of 1 models have skill on the sealed test of their sector.",
                            "1 more have no gain, as the test rows of their sector hold a single class."]  # fmt: skip
    nothing = {"models": [models[1]], "averages": [unknown]}
    assert [type(part) for part in leaderboard.leaderboard(nothing).parts] == [page.Table]
    assert [type(part) for part in leaderboard.by_sector(nothing).parts] == [page.Table]


def test_calibration_bins_have_their_row_counts():
    about = {"sector": "energy", "label": "label_5d_10pct", "model": "linear", "side": "buy"}
    lines = [{**about, "bin": k, "rows": 10, "happened": k, "probability": k / 10} for k in range(4)]
    section = predictions.probabilities(lines)
    (table,) = [part for part in section.parts if isinstance(part, page.Table)]
    assert table.rows == [["5 bars, 10 %", "linear", k + 1, 10.0 * k, 10.0 * k, 10, k] for k in range(4)]
    assert predictions.spread(lines) == [{"probability": 0.05, "rows": 20}, {"probability": 0.25, "rows": 20}]
    assert predictions.probabilities(None) is None


def test_tables_and_titles_hold_what_the_rows_have():
    columns = [leaderboard.Column("model", "model", "text"), leaderboard.Column("gain, %", "gain", "percent"),
               leaderboard.Column("BUY calls", "calls"), leaderboard.Column("skill", "skill", "text")]  # fmt: skip
    table = leaderboard.measures_table("t", [{"model": "a", "gain": 0.25}, {"model": "b", "skill": "skill"}], columns)
    assert table.columns == [("model", False), ("gain, %", True), ("skill", False)]
    assert table.rows == [["a", 25.0, ""], ["b", None, "skill"]]
    rows = [{"label": "label_1d_2.5pct", "horizon": 1, "threshold": 0.025}, {"label": "next_price", "horizon": 1},
            {"label": "label_5d_2vol", "horizon": 5, "multiple": 2.0}]  # fmt: skip
    titles = ["1 bar, 2.5 %", "next_price", "5 bars, 2 x volatility"]
    assert [summary.title_of(row) for row in rows] == [title_of_label(row["label"]) for row in rows] == titles
    row = {"kind": "model", "model": "linear", "test_prior_squared_error": 2.0, "test_squared_error": 1.0}
    baseline = {**row, "kind": "baseline", "model": "last"}
    whole = {"models": [row, baseline, baseline]}
    assert summary.loss_name(whole) == "squared_error" and summary.baseline_names(whole) == ("last",)
    assert not summary.has_calls(whole) and summary.has_calls({"models": [{**row, "cutoff_buy": 0.5}]})


def test_a_verdict_names_its_references():
    over_prior = {"above_prior": -0.02, "above_prior_low": -0.1, "above_prior_high": 0.1, "above_tables": -0.02}
    verdict = {"label": "next_price", "model": "linear", **over_prior, "beats_all": False, "beats_all_clearly": False}
    (sentence,) = sentences.verdict_sentences([verdict], 1)
    assert sentence == (
        "linear beats the prior on 0 of 1 labels, on 0 of them with its 95 % interval above 0; it falls short on "
        "next_price by 2.00 points of the prior's loss (sealed test)."
    )
    for baselines in (("sector", "all"), ("all", "sector")):  # as measured, and as summary.json sorts its keys
        tables = {f"above_table_{of}{end}": 0.0 for of in baselines for end in ("", "_low", "_high")}
        (sentence,) = sentences.verdict_sentences([{**verdict, **tables, "beats_all": True}], 3)
        assert "the class prior and both volatility baselines on 1 of 1" in sentence and "all three 95 %" in sentence


def test_long_curves_are_thinned_and_keep_their_largest_drawdown():
    import datetime

    days = [datetime.datetime(2020, 1, 1) + datetime.timedelta(k) for k in range(1000)]
    equity = [1.0] * 500 + [0.5] + [1.0] * 499
    points = trading.thinned([{"time": d, "equity": e} for d, e in zip(days, equity, strict=True)], most=100)
    assert len(points) == 100 and min(point["drawdown"] for point in points) == -50
    assert points[-1]["time"] == "2022-09-26" and {point["equity"] for point in points} == {1.0}
