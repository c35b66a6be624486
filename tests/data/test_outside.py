"""Columns from outside: what a bar knows at its end, what is left out with a sentence, and what is refused."""

from __future__ import annotations

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpupipe.data import DataError, data_hash, load, outside, simulate
from gpupipe.data.panel import Panel
from gpupipe.features.formulas.registry import FeatureError
from gpupipe.features.matrix import compute_features, feature_names
from gpupipe.features.outside import register_of, require

HOUR = 3_600 * 10**9


def hourly(n_bars=6, symbols=("A", "B")) -> Panel:
    """Bars from midnight of 2020-01-01 on; their closes are of no matter."""
    n = n_bars * len(symbols)
    start = np.datetime64("2020-01-01", "ns").astype(np.int64)
    price = np.full(n, 10, np.float32)
    return Panel.of_bars(
        open=price, high=price, low=price, close=price, volume=price,
        time_ns=np.tile(start + HOUR * np.arange(n_bars), len(symbols)),
        offsets=np.arange(0, n + 1, n_bars), symbols=symbols, sector=("x",) * len(symbols),
    )  # fmt: skip


def frame(minutes, values, symbols=None, name="mood") -> pa.Table:
    start = np.datetime64("2020-01-01", "ns")
    times = start + np.array([int(60 * m) for m in minutes], "timedelta64[s]")
    columns = {"time": pa.array(times), name: pa.array(values)}
    return pa.table(columns if symbols is None else {**columns, "symbol": symbols})


def joined(panel, table, least=None, name="with_mood"):
    return outside.join(panel, table, least)[0].columns[name].tolist()


def test_a_bar_knows_the_last_value_before_its_end():
    nan = pytest.approx(np.nan, nan_ok=True)
    # Known a minute before the first bar ends; at the end of the third; after the last.
    table = frame([59, 180, 359, 361], [1.0, 2.0, 3.0, 4.0])
    assert joined(hourly(symbols=("A",)), table) == [1, 1, 1, 2, 2, 3]
    assert joined(hourly(symbols=("A",)), frame([60, 61], [1.0, 2.0])) == [nan, 2, 2, 2, 2, 2]  # 60: the second bar's


def test_values_are_those_of_the_symbol_where_there_is_a_column_for_it():
    nan = pytest.approx(np.nan, nan_ok=True)
    table = frame([10, 10, 70, 130], [1.0, 5.0, 2.0, 6.0], ["A", "B", "A", "C"])
    assert joined(hourly(3), table) == [1, 2, 2, 5, 5, 5]
    assert joined(hourly(3), frame([70, 130], [1.0, 2.0], ["B", "B"])) == [nan, nan, nan, nan, 1, 2]
    with pytest.raises(DataError, match="no symbol of the data: it has C"):
        outside.join(hourly(), frame([1], [1.0], ["C"]))


def test_a_date_without_a_clock_is_known_when_the_day_is_over(tmp_path):
    panel = hourly(30, ("A",))
    text = tmp_path / "macro.csv"
    text.write_text("date,rate\n2020-01-01,1.5\n2020-01-02,2.5\n")
    days = pa.table({"date": pa.array([18262, 18263], pa.int32()).cast(pa.date32()), "rate": [1.5, 2.5]})
    digits = pa.table({"date": [20200101, 20200102], "rate": [1.5, 2.5]})
    for source in (text, days, digits):
        values = outside.join(panel, source, None)[0].columns["with_rate"]
        assert np.isnan(values[:23]).all() and (values[23:] == 1.5).all(), source  # from the bar that ends at midnight
    # Of daily bars, the bar of a day has the value of that day, never of the next.
    daily = simulate(n_symbols=1, n_bars=3)
    dates = np.array(daily.time_ns, "datetime64[ns]").astype("datetime64[D]")
    for times in (pa.array(dates), pa.array(dates.astype("datetime64[ns]"))):
        assert joined(daily, pa.table({"time": times, "mood": [1.0, 2.0, 3.0]})) == [1, 2, 3]


def test_unknown_values_count_for_nothing_and_the_later_of_two_rows_counts():
    table = frame([10, 20, 70, 70, 80], [1.0, np.nan, 2.0, 3.0, np.inf])
    assert joined(hourly(3, ("A",)), table) == [1, 3, 3]
    assert joined(hourly(3, ("A",)), frame([70, 10], [2.0, 1.0])) == [1, 2, 2]  # in any order


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 400), st.integers(-5, 5), st.sampled_from("AB")), min_size=2, max_size=25),
    cut=st.integers(0, 6), keep=st.booleans(), seed=st.integers(0, 9),
)  # fmt: skip
def test_the_future_of_a_file_changes_no_earlier_row(rows, cut, keep, seed):
    panel = hourly()
    rows = [(0, 1, "A"), *rows]  # a row that stays
    end = 60 * cut  # minutes; bars that end by then are compared
    rng = np.random.default_rng(seed)
    changed = [(m, v, s) if m < end or m == 0 else (m + int(rng.integers(0, 50)), int(rng.integers(9)), s)
               for m, v, s in rows if keep or m < end or m == 0]  # fmt: skip
    before, after = (
        outside.join(panel, frame(*zip(*((m, float(v), s) for m, v, s in r), strict=True)), None)[0]
        for r in (rows, changed)
    )
    ended = np.tile(np.arange(6) < cut, 2)
    np.testing.assert_array_equal(before.columns["with_mood"][ended], after.columns["with_mood"][ended])


def test_a_later_text_changes_no_earlier_row(tmp_path):
    panel = hourly(30, ("A",))
    values = []
    for later in ("", "2020-01-09T07:00:00Z,9\n", "2020-01-09,oops\n"):
        path = tmp_path / f"macro{len(later)}.csv"
        path.write_text(f"date,rate\n2020-01-01,1.5\n{later}")
        values.append(outside.join(panel, path, None)[0].columns["with_rate"])
    for other in values[1:]:
        np.testing.assert_array_equal(values[0], other)


def test_coverage_and_age_are_reported():
    panel = hourly(4, ("A",))
    _, [column] = outside.join(panel, frame([90, 150], [1.0, 2.0]), 0.5)
    assert column == outside.OutsideColumn("with_mood", 0.75, 0.5, 1.5)
    assert column.sentence == "with_mood: known for 75.0 % of the rows; age 0.5 bars (median), 1.5 at most"


def test_what_cannot_be_used_is_left_out_with_a_sentence(tmp_path):
    path = tmp_path / "mixed.csv.gz"
    lines = ["time,Funding Rate,word,flat,empty,rare"]
    lines += [f"2020-01-01T00:{10 * k:02d}:00Z,0.{k},abc,1.5,," for k in range(6)]
    path.write_bytes(gzip.compress("\n".join([*lines, "2020-01-01T05:30:00Z,0.9,abc,1.5,,7"]).encode()))
    panel, report = load(hourly().to_arrow().drop_columns(["sector"]), group_by="symbol", device="cpu")
    joined_panel, told = outside.join_reported(panel, report, path)
    assert outside.names_in(joined_panel) == ("with_funding_rate",)
    notes = "\n".join(told.notes)
    for sentence in (
        "from mixed.csv.gz, with_funding_rate: known for 100.0 % of the rows",
        "with_word was left out: it holds text, and no numbers", "with_flat was left out: it is 1.5 in all rows",
        "with_empty was left out: no value is known",
        "with_rare was left out: known for 16.7 % of the rows, and 50 % are required",
    ):  # fmt: skip
        assert sentence in notes, notes
    assert told.data_hash == data_hash(joined_panel) != report.data_hash
    only, _ = outside.join(panel, path, None, ("with_flat",))  # for a prediction, nothing is judged
    assert outside.names_in(only) == ("with_flat",)


def test_what_cannot_be_read_is_refused(tmp_path):
    panel = hourly()
    text = tmp_path / "a.csv"
    for content, message in (
        ("time,word\n2020-01-01T00:10:00Z,abc\n", "no column can be joined: with_word was left out"),
        ("mood,word\n1,abc\n", "no column for time"),
        ("time,mood\nnever,1\n", "no time is known"),
        ("time,mood\n", "holds no rows"),
        ("time,mood,Mood\n2020-01-01T00:10:00Z,1,2\n", "a second column with_mood"),
    ):  # fmt: skip
        text.write_text(content)
        with pytest.raises(DataError, match=message):
            outside.join(panel, text, None)
    with pytest.raises(DataError, match="cannot be opened"):
        outside.join(panel, tmp_path / "none.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more, PAR1")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        outside.join(panel, tmp_path / "b.parquet")
    with pytest.raises(DataError, match="no symbol has two bars"):
        outside.join(hourly(1), frame([1], [1.0]))
    with pytest.raises(ValueError, match="expected a share between 0 and 1"):
        outside.join(panel, frame([1], [1.0]), 50)
    once, _ = outside.join(panel, frame([1], [1.0]), None)
    with pytest.raises(DataError, match="a second column with_mood"):
        outside.join(once, frame([1], [1.0]), None)


def test_files_and_frames_of_all_kinds_give_the_same(tmp_path):
    import pandas as pd

    table, panel = frame([10, 70], [1.0, 2.0]), hourly(3)
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as stream, pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "a.csv").write_text("time;mood\n2020-01-01T00:10:00;1\n2020-01-01T01:10:00;2\n")
    data = pd.DataFrame({"mood": [1.0, 2.0]}, index=pd.DatetimeIndex(table["time"].to_pandas(), name=None))
    expected = joined(panel, table)
    assert expected == [1, 2, 2] * 2
    for source in (*(tmp_path / f"a.{end}" for end in ("parquet", "arrow", "csv")), data, data.reset_index(names="t")):
        assert joined(panel, source) == expected, source


def test_the_length_of_a_bar_is_the_usual_step_or_the_smallest():
    panel = hourly(8, ("A",))
    gap = panel.take(np.array([1, 1, 0, 0, 1, 1, 1, 1], bool))
    assert outside.bar_length_ns(gap).tolist() == [HOUR]
    uneven = panel.take(np.array([1, 0, 0, 1, 1, 0, 1, 0], bool))  # steps of 3, 1 and 2 hours
    assert outside.bar_length_ns(uneven).tolist() == [HOUR]
    one = hourly(8).take(np.array([1] * 8 + [1] + [0] * 7, bool))
    assert outside.bar_length_ns(one).tolist() == [HOUR, HOUR]


def test_columns_from_outside_are_features_of_no_set():
    panel, _ = outside.join(hourly(70), frame([10, 70], [1.0, 2.0]))
    assert register_of(panel) == ("with_mood",)
    features = compute_features(panel, ["roc_5", "with_mood"])
    np.testing.assert_array_equal(features.column("with_mood"), panel.columns["with_mood"])
    for name in ("all", "default", "core", "*"):
        assert "with_mood" not in feature_names(name)
    assert "with_mood" in feature_names("outside") and feature_names("with_*")
    with pytest.raises(FeatureError, match=r"the models need the column from outside with_mood, .*by --with FILE"):
        require(hourly(), ["roc_5", "with_mood"])
    with pytest.raises(FeatureError, match="need the column from outside with_mood"):
        compute_features(hourly(), ["with_mood"])
