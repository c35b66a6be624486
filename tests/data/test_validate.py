"""Every kind of finding, on hand-written rows."""

import datetime
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpupipe.data import HEADER, DataError, jumps, load, save, simulate, summary, table_rows, validate
from gpupipe.data.bars import Bars

GOOD = (10.0, 11.0, 9.0, 10.5, 100.0)


def bars(*rows):
    """Rows (symbol, day of January 2020, open, high, low, close, volume) as a table."""
    names = ("symbol", "day", "open", "high", "low", "close", "volume")
    columns = {name: [row[k] for row in rows] for k, name in enumerate(names)}
    days = [None if day is None else datetime.date(2020, 1, day) for day in columns.pop("day")]
    return pa.table({**columns, "date": pa.array(days, pa.date32()), "sector": ["energy"] * len(rows)})


def validated(table, **options):
    panel, report = load(table, device="cpu", **options)
    return panel, report, {f.kind: f for f in report.findings}


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ((None, 2, *GOOD), "symbol is not known"),
        (("  ", 2, *GOOD), "symbol is not known"),
        (("A", None, *GOOD), "time is not known"),
        (("A", 2, None, 11.0, 9.0, 10.5, 1.0), "a price is not a number"),
        (("A", 2, 10.0, float("inf"), 9.0, 10.5, 1.0), "a price is not a number"),
        (("A", 2, 10.0, 11.0, 9.0, float("nan"), 1.0), "a price is not a number"),
        (("A", 2, 10.0, 1e39, 9.0, 10.5, 1.0), "a price is not a number"),
        (("A", 2, 10.0, 11.0, 0.0, 10.5, 1.0), "a price is not positive"),
        (("A", 2, -10.0, 11.0, -11.0, 10.5, 1.0), "a price is not positive"),
        (("A", 2, 10.0, 10.4, 9.0, 10.5, 1.0), "high is below open or close"),
        (("A", 2, 10.0, 11.0, 10.1, 10.5, 1.0), "low is above open or close"),
        (("A", 2, 10.0, 11.0, 3e38, 10.5, 1.0), "low is above open or close"),
    ],
)
def test_quarantined(wrong, reason):
    panel, report, kinds = validated(bars(("A", 1, *GOOD), wrong, ("A", 3, *GOOD), ("B", 3, *GOOD)))
    assert panel.n_rows == 3 and panel.symbols == ("A", "B")
    assert kinds.keys() == {reason} and (kinds[reason].action, kinds[reason].rows) == ("quarantined", 1)
    (row,) = report.quarantine.to_pylist()
    assert (row["row"], row["reason"], row["source"]) == (1, reason, "pyarrow Table")
    assert row["open"] == (None if wrong[2] is None else f"{wrong[2]:g}")


def test_the_first_reason_that_applies_is_reported():
    _, report, kinds = validated(bars((None, None, None, 1.0, 2.0, -1.0, 1.0), ("A", 1, *GOOD)))
    assert kinds.keys() == {"symbol is not known"} and report.quarantine.num_rows == 1


def test_equal_duplicates_are_merged_and_conflicting_rows_quarantined():
    other = (10.0, 11.0, 9.0, 10.25, 100.0)
    table = bars(
        ("A", 1, *GOOD),
        ("A", 1, *GOOD),
        ("A", 1, *GOOD),
        ("A", 2, *GOOD),
        ("A", 2, *other),
        ("A", 2, *GOOD),
        ("A", 3, *GOOD),
        ("A", 3, 10.0, 11.0, 9.0, None, 1.0),
        ("B", 1, *GOOD),
        ("B", 2, 10.0, 11.0, 9.0, 10.5, None),
        ("B", 2, 10.0, 11.0, 9.0, 10.5, None),
    )
    panel, report, kinds = validated(table, max_quarantined=0.5)
    assert kinds["repeats another row"].rows == 3 and kinds["repeats another row"].symbols == 2
    assert kinds["conflicts with another row of its time"].rows == 3
    assert kinds["a price is not a number"].rows == 1  # the bad row of day 3 does not affect the good one
    assert report.quarantine["row"].to_pylist() == [3, 4, 5, 7]
    assert panel.n_rows == 4 and np.diff(panel.offsets).tolist() == [2, 2]


def test_unsorted():
    table = bars(("B", 1, *GOOD), ("A", 3, *GOOD), ("B", 2, *GOOD), ("A", 1, *GOOD), ("A", 2, *GOOD))
    panel, _, kinds = validated(table)
    finding = kinds["goes back in time"]
    assert (finding.rows, finding.symbols, finding.example, finding.action) == (1, 1, "A 2020-01-01", "sorted")
    assert panel.symbols == ("A", "B") and bool((np.diff(panel.time_ns[:3]) > 0).all())


def test_volumes():
    rows = [("A", day, 10.0, 11.0, 9.0, 10.5, v) for day, v in enumerate((0.0, None, -5.0, float("inf"), -0.0, 7.0), 1)]
    panel, report, kinds = validated(bars(*rows))
    assert kinds["volume is zero"].rows == 2 and kinds["volume is not known"].rows == 3
    assert report.quarantine.num_rows == 0 and panel.n_rows == 6
    np.testing.assert_array_equal(panel.volume, np.float32([0, np.nan, np.nan, np.nan, 0, 7]))
    assert not np.signbit(panel.volume[4])


def test_rounding_of_the_source_is_repaired():
    step = float(np.spacing(np.float32(10.5)))
    table = bars(("A", 1, 10.0, 10.5 - step, 10.0 + step, 10.5, 1.0), ("A", 2, 10.0, 10.5 - 8 * step, 9.0, 10.5, 1.0))
    panel, _, kinds = validated(table)
    assert kinds["high or low off by rounding"].rows == 1 and kinds["high is below open or close"].rows == 1
    assert panel.high[0] == np.float32(10.5) and panel.low[0] == np.float32(10.0)
    negligible = bars(("A", 1, 10.0, 10.5 - 1e-12, 9.0, 10.5, 1.0))  # below float32 precision: nothing to repair
    assert not validated(negligible)[2]


def jump(factor, back_after=None, n=12, at=6):
    prices = np.full(n, 100.0)
    prices[at : back_after if back_after is not None else n] *= factor
    return bars(*(("A", day + 1, p, p * 1.01, p * 0.99, p, 5.0) for day, p in enumerate(prices)))


@pytest.mark.parametrize("factor", [1 / 2, 2, 2 / 3, 3 / 2, 1 / 3, 3, 1 / 10, 8, 0.52, 0.3758])
def test_split_is_flagged(factor):
    panel, _, kinds = validated(jump(factor))
    finding = kinds["looks like an unadjusted split"]
    assert (finding.rows, finding.action, finding.example) == (1, "flagged", "A 2020-01-07") and panel.n_rows == 12


@pytest.mark.parametrize("factor", [0.75, 1.3, 0.9, 0.57, 1.8])
def test_news_is_not_a_split(factor):
    assert not validated(jump(factor))[2]


def test_a_bad_tick_is_not_a_split_but_a_last_bar_may_be_one():
    assert not validated(jump(0.5, back_after=7))[2]
    assert validated(jump(0.5, at=11))[2]["looks like an unadjusted split"].rows == 1
    two = bars(("A", 1, *GOOD), ("B", 2, *(value * 2 for value in GOOD)))
    assert not validated(two)[2]  # not across symbols


def test_strict():
    for table, words in (
        (jump(0.5), "flagged: looks like an unadjusted split"),
        (bars(("A", 1, *GOOD), ("A", 1, *GOOD)), "1 row merged: repeats another row"),
        (bars(("A", 2, *GOOD), ("A", 1, *GOOD)), "1 row sorted: goes back in time"),
        (bars(("A", 1, *GOOD), ("A", 2, 1.0, 0.5, 0.5, 1.0, 1.0)), "quarantined: high is below open or close"),
    ):
        with pytest.raises(DataError, match=f"^strict: .*{words}"):
            load(table, device="cpu", strict=True)
    assert load(bars(("A", 1, *GOOD)), device="cpu", strict=True)[1].clean


def test_malformed_lines_of_a_csv_are_kept_in_the_quarantine(tmp_path):
    head = "symbol,date,open,high,low,close,volume,sector\n"
    lines = ["A,2020-01-02,1,1,1,1,1,energy", "A,2020-01-03,1,1", "A,2020-01-06,abc,1,1,1,1,energy"]
    (tmp_path / "bars.csv").write_text(head + "\n".join(lines))
    panel, report, kinds = validated(tmp_path / "bars.csv")
    assert panel.n_rows == 1 and kinds["is not a row"].rows == 1 and kinds["a price is not a number"].rows == 1
    bad, broken = report.quarantine.to_pylist()
    assert (bad["open"], bad["row"]) == ("abc", 1)
    assert broken["reason"] == "is not a row: 4 fields instead of 8: A,2020-01-03,1,1" and broken["row"] is None


def test_row_numbers_point_into_their_source(tmp_path):
    rows = [("A", 1, *GOOD), ("A", 2, *GOOD), ("A", 3, 1.0, 0.5, 0.5, 1.0, 1.0)]
    pq.write_table(bars(*rows), tmp_path / "one.parquet")
    pq.write_table(bars(("B", 1, 0.0, 0.5, 0.5, 1.0, 1.0), ("B", 2, *GOOD)), tmp_path / "two.parquet")
    _, report, _ = validated(tmp_path)
    where = [(row["source"].split("/")[-1], row["row"], row["symbol"]) for row in report.quarantine.to_pylist()]
    assert where == [("one.parquet", 2, "A"), ("two.parquet", 0, "B")]


@pytest.mark.parametrize("seed", range(24))
def test_shortcuts_do_not_change_the_result(seed, monkeypatch):
    """Rows in order are not sorted again, and rows are validated in blocks: the results do not change."""
    rng = np.random.default_rng(seed)
    panel = simulate(5, 30, seed=seed)
    columns = {name: getattr(panel, name).copy() for name in (*validate.PRICES, "volume", "time_ns")}
    order = np.arange(panel.n_rows) if seed % 3 else rng.permutation(panel.n_rows)
    columns["volume"][rng.integers(0, panel.n_rows, seed % 4)] = [0.0, -0.0, np.nan][: seed % 4]
    split = rng.integers(panel.offsets[2] + 4, panel.offsets[3] - 4)
    for name in validate.PRICES:
        columns[name][split : panel.offsets[3]] *= 2
    for name in rng.choice(validate.PRICES, seed % 5):
        columns[name][rng.integers(panel.n_rows)] *= rng.choice([np.nan, -1, 2, 1 + 2.0**-23])
    rows = Bars(
        symbol=panel.symbol_of_row[order],
        names=panel.symbols,
        sectors=panel.sector,
        **{name: values[order] for name, values in columns.items()},
    )
    short = validate.validate_bars(rows)
    assert seed % 5 or validate.SPLIT in {finding.kind for finding in short.findings}
    monkeypatch.setattr(validate, "_is_sorted", lambda bars: False)
    for block_rows in (7, 10**6):
        monkeypatch.setattr(jumps, "_BLOCK_ROWS", block_rows)
        long = validate.validate_bars(rows)
        assert short.findings == long.findings and short.reasons == long.reasons
        np.testing.assert_array_equal(short.quarantined_rows, long.quarantined_rows)
        for name in ("symbol", *columns):
            values, expected = getattr(short.bars, name), getattr(long.bars, name)
            assert values.dtype == expected.dtype and values.tobytes() == expected.tobytes()


def test_report_is_saved(tmp_path):
    table = bars(("A", 1, *GOOD), ("A", 2, 1.0, 0.5, 0.5, 1.0, 1.0), ("A", 3, *GOOD))
    _, report, _ = validated(table)
    paths = save(report, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["data_report.json", "quarantine.parquet"]
    assert sorted(path.name for path in paths) == ["data_report.json", "quarantine.parquet"]
    saved = json.loads((tmp_path / "out" / "data_report.json").read_text())
    assert saved["rows_read"] == 3 and saved["rows_kept"] == 2 and saved["rows_quarantined"] == 1
    assert saved["data_hash"] == report.data_hash and saved["sectors"] == {"energy": 1}
    assert saved["findings"][0] == {
        "kind": "high is below open or close",
        "action": "quarantined",
        "rows": 1,
        "symbols": 1,
        "example": "A 2020-01-02",
    }
    assert pq.read_table(tmp_path / "out" / "quarantine.parquet").equals(report.quarantine)
    _, clean, _ = validated(bars(("A", 1, *GOOD)))
    save(clean, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["data_report.json"]
    assert table_rows(clean) == [("nothing to report", "", "0", "0", "")]
    assert table_rows(report) == [("high is below open or close", "quarantined", "1", "1", "A 2020-01-02")]
    assert len(HEADER) == len(table_rows(clean)[0])
    assert summary(report) == "2 of 3 rows, 1 symbol, 1 sector, 2020-01-01 to 2020-01-03"
    assert report.to_json() == validated(table)[1].to_json()


def test_hash_changes_with_any_value():
    base = ("A", 1, *GOOD)
    hashes = {validated(bars(base, ("A", 2, *GOOD)))[1].data_hash}
    for k, value in enumerate((10.1, 11.1, 9.1, 10.4, 101.0), start=2):
        changed = ["A", 2, *GOOD]
        changed[k] = value
        hashes.add(validated(bars(base, changed))[1].data_hash)
    hashes.add(validated(bars(base, ("A", 3, *GOOD)))[1].data_hash)
    hashes.add(validated(bars(base, ("B", 2, *GOOD)))[1].data_hash)
    hashes.add(validated(bars(base, ("A", 2, *GOOD)), sector_map={"A": "technology"})[1].data_hash)
    assert len(hashes) == 9
