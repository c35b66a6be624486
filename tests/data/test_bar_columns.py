"""Of several columns with one meaning, the values decide which is the bar's."""

import datetime

import numpy as np
import pyarrow as pa
import pytest

from gpupipe.data import DataError, load

DAYS = np.busday_offset("2021-01-04", np.arange(60))


def bars(n=60, **columns):
    prices = {name: [1.0] * n for name in ("open", "high", "low", "close")}
    given = {name: values if isinstance(values, pa.Array) else pa.array(values) for name, values in columns.items()}
    return pa.table({"symbol": ["A"] * n, "sector": ["energy"] * n, **prices, "volume": [5.0] * n} | given)


def read(table, unit="D"):
    panel, report = load(table, device="cpu")
    return panel.time_ns.astype("M8[ns]").astype(f"M8[{unit}]"), report


def text(days):
    return [str(day) for day in days]


MINUTES = [f"2024-02-01T10:{k:02d}:00" for k in range(60)]
BATCHES = [f"2024-02-{1 + k // 20:02d}T10:{k:02d}:07" for k in range(60)]


@pytest.mark.parametrize("fetched", [MINUTES, BATCHES, MINUTES[::-1], ["2024-02-01T10:00:00"] * 60])
@pytest.mark.parametrize("name", ["timestamp", "datetime", "Time", "ts"])
def test_the_time_of_a_download_is_not_the_bars(fetched, name):
    days, report = read(bars(date=text(DAYS), **{name: fetched}))
    np.testing.assert_array_equal(days, DAYS)
    note = f"column 'date' gives the time of the bars; '{name}' has other dates in 60 rows, and was not used"
    assert note in report.notes


def test_downloads_that_go_back_while_bars_go_on():
    fetched = [f"2024-02-{1 + k % 28:02d}T10:00:07" for k in range(60)]
    np.testing.assert_array_equal(read(bars(date=text(DAYS), timestamp=fetched))[0], DAYS)


def test_columns_that_differ_without_a_reason_are_refused():
    later = [f"{day}T02:00:00" for day in DAYS + 1]
    words = (
        r"columns 'timestamp' and 'date' both give a time, and their dates differ in 60 of 60 rows \(first 2021-01-05"
    )
    with pytest.raises(DataError, match=words):
        read(bars(date=text(DAYS), timestamp=later))
    with pytest.raises(DataError, match=r"'date' and 'trade_date' both give a time, .* in 1 of 60 rows"):
        read(bars(date=text(DAYS), trade_date=[*text(DAYS[:-1]), "2021-03-27"]))


def test_equal_dates_need_no_choice():
    hours = [f"{day}T16:00:00" for day in DAYS]
    days, report = read(bars(date=text(DAYS), timestamp=hours))
    np.testing.assert_array_equal(days, DAYS)
    assert report.notes == ()
    intraday = [f"2021-01-04T{9 + k // 6:02d}:{k % 6}0:00" for k in range(60)]
    times, _ = read(bars(date=["2021-01-04"] * 60, timestamp=intraday), "m")
    assert times[0] == np.datetime64("2021-01-04T09:00") and len(np.unique(times)) == 60


def test_a_session_date_beside_intraday_times():
    """Bars from 18:00 on belong to the next session; their own time counts."""
    stamps = [np.datetime64("2021-01-04T17:00", "m") + 10 * k for k in range(60)]
    sessions = [str((stamp + 6 * 60).astype("M8[D]")) for stamp in stamps]
    times, report = read(bars(date=sessions, timestamp=[str(stamp) for stamp in stamps]), "m")
    np.testing.assert_array_equal(times, stamps)
    assert any("column 'timestamp' gives the time of the bars" in note for note in report.notes)


@pytest.mark.parametrize(
    "clock",
    [
        ["09:30", "10:00", "15:30"],
        ["9:30:00", "10:00:00", "15:30:00"],
        ["9:30 AM", "10:00 AM", "3:30 PM"],
        [930, 1000, 1530],
        [93_000, 100_000, 153_000],
        ["093000", "100000", "153000"],
        pa.array([datetime.time(9, 30), datetime.time(10), datetime.time(15, 30)], pa.time64("us")),
    ],
)
@pytest.mark.parametrize("date", ["2021.01.04", "20210104", 20210104])
def test_a_date_and_a_time_of_day_are_joined(clock, date):
    times, _ = read(bars(3, **{"<DATE>": [date] * 3, "<TIME>": clock}), "m")
    assert times.tolist() == [datetime.datetime(2021, 1, 4, *of_day) for of_day in ((9, 30), (10, 0), (15, 30))]


def test_an_export_of_a_terminal_in_a_file(tmp_path):
    lines = [f"2021.01.04\t{9 + k}:00:00\t1\t1\t1\t1\t{k + 1}\t0\t10" for k in range(8)]
    head = "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n"
    (tmp_path / "EURUSD.csv").write_text(head + "\n".join(lines))
    panel, report = load(tmp_path / "EURUSD.csv", {"EURUSD": "fx"}, device="cpu")
    assert panel.time_ns.astype("M8[ns]").astype("M8[h]").tolist() == [
        datetime.datetime(2021, 1, 4, 9 + k) for k in range(8)
    ]
    np.testing.assert_array_equal(panel.volume, np.arange(1, 9))
    assert "column '<VOL>' holds no volume above zero: '<TICKVOL>' was taken" in report.notes


def test_the_first_volume_counts_if_it_has_values():
    table = bars(3, date=text(DAYS[:3]), volume=[0.0, 2.0, 3.0], tickvol=[7.0, 8.0, 9.0])
    panel, report = load(table, device="cpu")
    assert panel.volume.tolist() == [0, 2, 3] and report.notes == ()
    both_zero = bars(3, date=text(DAYS[:3]), volume=[0.0] * 3, tickvol=[0.0] * 3)
    assert load(both_zero, device="cpu")[0].volume.tolist() == [0, 0, 0]


def test_a_column_that_holds_no_times_is_left_out():
    days, report = read(bars(date=text(DAYS), day=["Monday"] * 60))
    np.testing.assert_array_equal(days, DAYS)
    assert "column 'day' holds no times, and was not used" in report.notes
    with pytest.raises(DataError, match="column 't': numbers such as 0 are not understood as times"):
        read(bars(t=np.arange(60)))
    np.testing.assert_array_equal(read(bars(date=text(DAYS), t=np.arange(60)))[0], DAYS)


@pytest.mark.parametrize(
    ("date", "words"),
    [
        (["03/02/2021"] * 60, "column 'date': dates as '03/02/2021' have the day or the month first"),
        (["4. Januar 2021"] * 60, "column 'date': '4. Januar 2021' is not understood as a time"),
        (list(range(60)), "column 'date': numbers such as 0 are not understood as times"),
    ],
)
def test_the_time_of_a_download_does_not_replace_a_date_that_cannot_be_read(date, words):
    with pytest.raises(DataError, match=words):
        read(bars(date=date, timestamp=MINUTES))


def test_an_empty_column_is_left_out():
    days, report = read(bars(date=text(DAYS), timestamp=pa.nulls(60, pa.string())))
    np.testing.assert_array_equal(days, DAYS)
    assert "column 'timestamp' holds no times, and was not used" in report.notes


def test_digits_of_minutes_are_no_years():
    """93000 to 93059 are half past nine, though all but the first are days of 1993 as well."""
    times, _ = read(bars(date=[20210104] * 60, time=[93_000 + k for k in range(60)]), "s")
    assert times[-1] == np.datetime64("2021-01-04T09:30:59")
