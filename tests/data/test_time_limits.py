"""Rows whose time no bar can have are set aside, each with a reason of its own; too many of them stop the reading."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpupipe.data import DataError, data_hash, load, simulate, time_limits

NOW = "2024-06-14T20:00"


@pytest.fixture(autouse=True)
def now(monkeypatch):
    monkeypatch.setattr(time_limits, "now_ns", lambda: int(np.datetime64(NOW, "ns").astype(np.int64)))


def bars(times, **columns):
    n = len(times)
    prices = {name: [1.0] * n for name in ("open", "high", "low", "close", "volume")}
    return pa.table({"symbol": ["A"] * n, "sector": ["energy"] * n, "date": times, **prices} | columns)


def set_aside(times, **options):
    """`{row: reason}`"""
    quarantine = load(bars(times), device="cpu", **options)[1].quarantine
    return dict(zip(quarantine["row"].to_pylist(), quarantine["reason"].to_pylist(), strict=True))


DAYS = [str(day) for day in np.busday_offset("2024-03-01", np.arange(60))]
HOURS = [str(np.datetime64("2024-06-10T09:00", "s") + 3_600 * k) for k in range(60)]


@pytest.mark.parametrize(
    ("late", "reason"),
    [
        ("2024-06-15", None),  # tomorrow
        ("2024-06-17", "time is in the future"),
        ("2052-01-03", "time is in the future"),
        ("9999-12-31", "time is not known"),  # nanoseconds end in 2262
        ("1970-01-01", "time stands for a missing one, as 1970-01-01"),
        ("1969-12-31", "time stands for a missing one, as 1970-01-01"),
        ("1900-01-01", "time stands for a missing one, as 1970-01-01"),
        ("1753-01-01", "time stands for a missing one, as 1970-01-01"),
        ("1965-03-08", None),
    ],
)
def test_single_days(late, reason):
    assert set_aside([*DAYS, late]) == ({60: reason} if reason else {})
    panel, report = load(bars([*DAYS, late]), device="cpu")
    if reason == "time is in the future":
        assert report.findings[0].example == f"A {late}" and panel.n_rows == 60
    assert load(bars(DAYS), device="cpu")[1].clean


@pytest.mark.parametrize(
    ("time", "reason"),
    [
        ("2024-06-16T09:30:00", None),
        ("2024-06-17T09:30:00", "time is in the future"),
        ("1989-12-29T15:30:00", "time is before 1990, and bars are intraday"),
        ("1970-01-01T00:00:01", "time is before 1990, and bars are intraday"),
        ("1990-01-02T09:30:00", None),
    ],
)
def test_single_intraday_bars(time, reason):
    if time == "2024-06-16T09:30:00":  # a day from now, and 14 hours for zones
        assert set_aside([*HOURS, "2024-06-16T09:59:59"]) == {}
    assert set_aside([*HOURS, time]) == ({60: reason} if reason else {})


def test_1970_is_a_year_like_any_other_where_there_are_bars():
    days = [str(day) for day in np.arange("1969-12-20", "1970-01-20", dtype="M8[D]")]
    assert load(bars(days), device="cpu")[1].clean


def test_a_unit_that_was_lost_before_the_file_was_written():
    """Milliseconds stored as nanoseconds: all bars lie within an hour of 1970."""
    wrong = pa.array(np.array(DAYS, "M8[ms]").astype(np.int64), pa.timestamp("ns"))
    with pytest.raises(DataError, match="no row is left; 60 rows quarantined: time is before 1990, and bars are intra"):
        load(bars(wrong), device="cpu")


def test_a_mixture_of_units_is_a_finding_that_names_both():
    numbers = np.array(DAYS, "M8[ms]").astype(np.int64)
    numbers[40:] *= 1000
    panel, report = load(bars(numbers), device="cpu")
    assert [str(day) for day in panel.time_ns.astype("M8[ns]").astype("M8[D]")] == DAYS
    (finding,) = report.findings
    assert (finding.kind, finding.action) == ("times in microseconds beside milliseconds", "repaired")
    assert (finding.rows, finding.symbols, finding.example) == (20, 1, f"A {DAYS[40]}")
    with pytest.raises(DataError, match="strict: 20 rows repaired: times in microseconds beside milliseconds"):
        load(bars(numbers), device="cpu", strict=True)


def test_a_simulated_market_may_reach_into_the_future():
    assert load("simulated:symbols=1,bars=4000", device="cpu")[1].clean  # until 2030


def test_int96_does_not_wrap(tmp_path):
    times = pa.array(
        [*(np.datetime64(day, "us") for day in DAYS), np.datetime64("9999-12-31", "us")], pa.timestamp("us")
    )
    pq.write_table(bars(times), tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    assert pq.read_schema(tmp_path / "a.parquet").field("date").type == pa.timestamp("ns")
    panel, report = load(tmp_path / "a.parquet", device="cpu")
    assert report.quarantine["reason"].to_pylist() == ["time is not known"]
    assert report.quarantine["date"].to_pylist() == ["9999-12-31 00:00:00.000000"]
    assert data_hash(panel) == data_hash(load(bars(DAYS), device="cpu")[0])


def unreadable(n_bad, n=60):
    return bars([*DAYS[: n - n_bad], *(f"someday {k}" for k in range(n_bad))])


def test_reading_stops_when_too_many_rows_are_quarantined():
    assert load(unreadable(3), device="cpu")[1].quarantine.num_rows == 3  # 5 %
    with pytest.raises(DataError) as caught:
        load(unreadable(4), device="cpu")
    assert str(caught.value) == (
        "a pyarrow Table: 4 of 60 rows would be quarantined, a share of 0.0667 where 0.05 may be: "
        "4 rows quarantined: time is not known (first A 'someday 0'); it reads 'someday 0', 'someday 1', 'someday 2'; "
        "correct them, or read the rest with --max-quarantined 0.07 (max_quarantined=0.07)"
    )
    assert load(unreadable(4), device="cpu", max_quarantined=0.07)[0].n_rows == 56
    assert load(unreadable(59), device="cpu", max_quarantined=1)[0].n_rows == 1
    with pytest.raises(DataError, match="1 of 60 rows would be quarantined"):
        load(unreadable(1), device="cpu", max_quarantined=0)


def test_two_bad_rows_of_few_do_not_stop_it():
    assert load(unreadable(2, 10), device="cpu")[0].n_rows == 8
    with pytest.raises(DataError, match="3 of 10 rows would be quarantined"):
        load(unreadable(3, 10), device="cpu")


def test_rows_of_other_sectors_do_not_count():
    sector = ["utilities"] * 50 + ["energy"] * 10
    table = unreadable(10).set_column(1, "sector", pa.array(sector)).set_column(0, "symbol", pa.array(sector))
    assert load(table, None, "utilities", "cpu")[0].n_rows == 50
    with pytest.raises(DataError, match="10 of 60 rows"):
        load(table, device="cpu")


def test_rows_of_a_csv_that_are_no_rows_count(tmp_path):
    lines = [f"A,{day},1,1,1,1,1,energy" for day in DAYS[:20]] + ["A,2024-01-01"] * 3
    (tmp_path / "a.csv").write_text("symbol,date,open,high,low,close,volume,sector\n" + "\n".join(lines))
    with pytest.raises(DataError, match=r"3 of 23 rows would be quarantined.*: 3 rows quarantined: is not a row"):
        load(tmp_path / "a.csv", device="cpu")


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_none(share):
    with pytest.raises(DataError, match=r"max_quarantined is .*, expected a share of rows in 0..1"):
        load(simulate(1, 3).to_arrow(), device="cpu", max_quarantined=share)
