"""The section on ranking, that on calibration by slice, and the console's table, on small cases."""

from __future__ import annotations

import datetime
import io
import json

import numpy as np
import pytest

from gpupipe.cli import ranking_table
from gpupipe.cli.tables import ModelNames
from gpupipe.evaluation import block_bootstrap, calibration, calibration_slices, rank_summary, ranking
from gpupipe.report import calibration_slices as slices_section
from gpupipe.report import page, tear_sheet
from gpupipe.store.content_store import dump_json
from gpupipe.training import rank_measures

pytest.importorskip("altair")
DAY_NS = 86_400_000_000_000
TITLE = rank_measures.PROBABILITY_DIFFERENCE.title


def finished(folder, n_symbols=60, n_dates=90, strength=0.3, models=("linear", "meta_learner")):
    """A summary with "ranking" as JSON gives it back, and ranking.parquet in the folder."""
    rng = np.random.default_rng(0)
    date, symbol = (x.ravel() for x in np.indices((n_dates, n_symbols)))
    forward_return = 0.02 * rng.normal(size=len(date))
    first = int(np.datetime64("2019-11-01", "D").astype(int))
    sections = ranking.cross_sections((first + date) * DAY_NS, symbol, symbol % 3, forward_return, 5)
    draws = block_bootstrap.draw(sections.times, 5, seed=0)
    rows, measured = [], []
    for model in models:
        for label in ("label_1d_5pct", "label_5d_10pct"):
            score = strength * forward_return / 0.02 + rng.normal(size=len(date))
            by_date = ranking.measure_by_date(score, sections)
            about = {"label": label, "model": model, "score": "probability_difference", "title": TITLE,
                     "horizon": int(label[6]), "threshold": 0.05}  # fmt: skip
            rows.append({**rank_summary.summarise(by_date, draws, np.arange(n_dates) % 2), **about})
            measured.append((label, model, "probability_difference", by_date))
    folder.mkdir(exist_ok=True)
    (folder / rank_measures.FILE).write_bytes(rank_measures.parquet(measured))
    return json.loads(dump_json({"ranking": rows, "verdict": [{"model": "meta_learner"}]}))


def printed(whole, width=110):
    from rich.console import Console

    to = Console(file=io.StringIO(), width=width)
    ranking_table.show_ranking(to, whole, ModelNames({"meta_learner": "meta"}, (), ()))
    return to.file.getvalue()


def test_the_stacking_model_comes_first_and_every_model_is_in_a_table(tmp_path):
    whole = finished(tmp_path)
    section = tear_sheet.ranking(tmp_path, whole)
    figures = [part for part in section.parts if isinstance(part, page.Figure)]
    first, parts, every = (part for part in section.parts if isinstance(part, page.Table))
    assert len(figures) == 5 and "meta_learner" in figures[1].caption
    assert [row[1] for row in first.rows] == ["meta_learner"] * 2 and not first.folded
    assert [row[1] for row in every.rows] == ["linear"] * 2 + ["meta_learner"] * 2
    assert [row[1] for row in parts.rows] == ["2019", "2020", "low volatility", "middle volatility"] * 2
    measures = dict(zip([title for title, _ in first.columns], first.rows[0], strict=True))
    row = next(row for row in whole["ranking"] if row["model"] == "meta_learner")
    assert measures["rank IC"] == row["rank_ic"] and measures["spread, %"] == pytest.approx(100 * row["spread"])
    text = " ".join(section.text)
    assert "into deciles" in text and "above 0 with its whole 95 % interval on 2 of 2 labels" in text
    assert "No skill" not in text
    html = page.render("t", [], [section])  # NaN in a chart would raise
    assert html.count('class="chart') >= 5


def test_no_skill_is_said_and_few_symbols_have_no_quantiles(tmp_path):
    whole = finished(tmp_path, n_symbols=8, strength=0.0)
    text = " ".join(tear_sheet.ranking(tmp_path, whole).text)
    assert "on 0 of 2 labels" in text and "No skill in ranking is shown." in text
    assert "only 8 symbols (median), too few for quantiles" in text
    assert len([p for p in tear_sheet.ranking(tmp_path, whole).parts if isinstance(p, page.Figure)]) == 3
    assert "quintiles" in tear_sheet._how(finished(tmp_path, n_symbols=30)["ranking"])


def test_a_negative_score_is_called_below_0(tmp_path):
    sentence = tear_sheet.rank_sentences(finished(tmp_path, strength=-0.3)["ranking"], ["linear", "unknown"])
    assert len(sentence) == 1 and "on 2 it is below 0" in sentence[0]


def test_summaries_without_ranking_have_no_section_and_no_table(tmp_path):
    assert tear_sheet.ranking(tmp_path, {"verdict": []}) is None and printed({"verdict": []}) == ""


def test_without_the_file_the_figures_by_date_are_left_out(tmp_path):
    whole = finished(tmp_path)
    (tmp_path / rank_measures.FILE).unlink()
    assert len([p for p in tear_sheet.ranking(tmp_path, whole).parts if isinstance(p, page.Figure)]) == 2


def test_rolling_means_start_with_the_first_whole_window():
    day = datetime.datetime(2020, 1, 1)
    dates = [{"time": day + datetime.timedelta(k), "rank_ic": 0.1 * (k % 2)} for k in range(40)]
    points = tear_sheet.rolling_means([*dates[:5], {"time": day, "rank_ic": None}, *dates[5:]], 1)
    assert len(points) == 40 and points[19]["mean"] is None
    expected = np.array([0.1 * (k % 2) for k in range(21)])
    error = expected.std(ddof=1) / np.sqrt(21)
    assert points[20]["mean"] == pytest.approx(expected.mean())
    assert points[20]["high"] - points[20]["mean"] == pytest.approx(1.96 * error)
    assert tear_sheet.rolling_means(dates, 11)[20]["mean"] is None  # two horizons
    assert len(tear_sheet.rolling_means([{**dates[0]}] * 1000, 1)) <= tear_sheet.MOST_DATES


def test_the_console_has_a_line_for_each_label_of_the_judged_model(tmp_path):
    whole = finished(tmp_path)
    text = printed(whole)
    assert text.count("meta") == 2 and "linear" not in text and max(map(len, text.splitlines())) <= 110
    row = next(row for row in whole["ranking"] if row["model"] == "meta_learner")
    assert f"{row['rank_ic']:.3f} [{row['rank_ic_low']:.3f}, {row['rank_ic_high']:.3f}]" in text
    short = printed(finished(tmp_path, n_symbols=8, n_dates=12))
    assert "few for quantiles" in short and " - " in short + " "  # neither interval nor spread


def lines_of(rng, wrong=0.0):
    time_ns = np.repeat(np.arange(60), 30) * DAY_NS
    p = 0.1
    y = rng.choice(3, len(time_ns), p=[p - wrong, 1 - 2 * p, p + wrong]).astype(np.int8)
    volatility = rng.lognormal(size=len(y))
    slices = [calibration_slices.by_month(time_ns), calibration_slices.by_volatility(volatility, volatility)]
    probability = np.tile([p, 1 - 2 * p, p], (len(y), 1))
    lines = []
    for model in ("linear", "meta_learner"):
        key = {"label": "label_5d_10pct", "model": model}
        lines += calibration_slices.slice_lines(key, probability, y, time_ns, slices, 5)
    return lines


def test_calibration_names_the_slice_that_is_furthest_off():
    lines = lines_of(np.random.default_rng(1), wrong=0.05)
    section = slices_section.calibration_by_slice(lines)
    assert section.title == "Calibration by month and volatility" and len(section.parts) == 3
    of_model = [line for line in lines if line["model"] == "meta_learner"]
    worst = calibration_slices.furthest_off(of_model)
    sentence = section.text[1]
    assert f"{worst['slice']}, {worst['side'].upper()} of 5 bars, 10 %" in sentence
    off = calibration_slices.errors_off(worst)
    assert f"{abs(off):.1f} standard errors {'above' if off > 0 else 'below'}" in sentence and abs(off) > 3
    assert len(section.parts[-1].rows) == len(lines)
    page.render("t", [], [section])


def test_lines_as_parquet_gives_them_back_and_slices_without_errors_are_drawn(tmp_path):
    import pyarrow.parquet as pq

    lines = [{**line, "error": float("nan")} for line in lines_of(np.random.default_rng(2))]
    path = tmp_path / "lines.parquet"
    path.write_bytes(calibration.parquet(lines))
    section = slices_section.calibration_by_slice(pq.read_table(path).to_pylist())
    assert section.text[1] == "No slice has enough dates and events for a standard error."
    page.render("t", [], [section])
    assert slices_section.calibration_by_slice(None) is None and slices_section.calibration_by_slice([]) is None


def test_a_second_score_has_a_table_and_figures_of_its_own(tmp_path):
    whole = finished(tmp_path)
    other = [{**row, "score": "expected_return", "title": "expected return"} for row in whole["ranking"]]
    both = {**whole, "ranking": [*whole["ranking"], *other]}
    assert printed(both).count("ranking by the ") == 2 and "ranking by the expected return" in printed(both)
    assert len(tear_sheet.ranking(tmp_path, both).parts) > len(tear_sheet.ranking(tmp_path, whole).parts) + 3
    narrow = printed(whole, 80)
    assert "within sectors" not in narrow and "within sectors" in printed(whole)
    assert max(map(len, narrow.splitlines())) <= 80
