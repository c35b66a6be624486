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


HOURS = np.repeat(DAYS[:10], 6) + np.tile(np.arange(9, 15), 10).astype("m8[h]")
NS = HOURS.astype("M8[ns]").astype(np.int64)


def utc(hours):
    """Instants as texts with Z; other texts give no zone."""
    return [f"{time}:00:00Z" for time in HOURS + np.timedelta64(hours, "h")]


@pytest.mark.parametrize("lag_ns", [7 * 60 * 10**9, 3_600 * 10**9, np.arange(1, 61) * 10**9])
@pytest.mark.parametrize("as_text", [True, False])
def test_two_times_of_day_of_intraday_bars_are_refused(lag_ns, as_text):
    """The lag may be that of a receiver, or of the end of a bar."""
    later = NS + lag_ns
    words = r"columns 'timestamp' and 'datetime' both give a time of day, and these differ in 60 of 60 rows \(first 20"
    with pytest.raises(DataError, match=words):
        read(bars(datetime=text(HOURS), timestamp=text(later.astype("M8[ns]")) if as_text else later))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"timestamp": NS + 5 * 3_600 * 10**9, "datetime": text(HOURS)}, 5),  # instants beside the clock of New York
        ({"timestamp": utc(5), "datetime": text(HOURS)}, 5),
        ({"timestamp": text(HOURS), "datetime": [f"{time}:00:00-05:00" for time in HOURS]}, 5),
        ({"timestamp": NS // 10**6, "datetime": text(HOURS)}, 0),
        ({"timestamp": (NS + 350 * 10**6) // 10**6, "datetime": text(HOURS)}, 0),
        ({"timestamp": text(HOURS), "datetime": pa.array([None, *text(HOURS)[1:]])}, 0),
        ({"timestamp": pa.array([None, *text(HOURS)[1:]]), "datetime": text(HOURS)}, 0),
    ],
)
def test_times_of_day_that_tell_the_same_instants(columns, expected):
    times, report = read(bars(**columns), "h")
    np.testing.assert_array_equal(times, HOURS + np.timedelta64(expected, "h"))
    assert report.quarantine.num_rows == 0


def test_a_date_is_no_time_of_an_intraday_bar():
    times, report = read(bars(date=text(HOURS.astype("M8[D]")), timestamp=[*text(HOURS)[:-1], None]), "h")
    np.testing.assert_array_equal(times, HOURS[:-1])
    assert report.quarantine.num_rows == 1


@pytest.mark.parametrize("stamp", ["T21:00:00Z", "T22:15:{:02d}Z"])
@pytest.mark.parametrize("every", [1, 25])
@pytest.mark.parametrize("missing", ["date", "timestamp", None])
def test_daily_bars_with_a_date_and_a_stamp(stamp, every, missing):
    values = {"date": text(DAYS), "timestamp": [f"{day}{stamp.format(k)}" for k, day in enumerate(DAYS)]}
    if missing and every > 1:
        values[missing] = [None if k % every == 0 else value for k, value in enumerate(values[missing])]
    panel, report = load(bars(**values), device="cpu")
    np.testing.assert_array_equal(panel.time_ns.astype("M8[ns]"), DAYS.astype("M8[ns]"))
    assert report.quarantine.num_rows == 0
    moments = "column 'date' gives the time of the bars; 'timestamp' has too many times of day for daily bars"
    assert any(moments in note for note in report.notes) == ("{" in stamp)


def test_digits_up_to_2400():
    hours = np.tile(np.arange(1, 13) * 200, 5)
    times, _ = read(bars(date=text(np.repeat(DAYS[:5], 12)), time=hours), "h")
    np.testing.assert_array_equal(times, np.repeat(DAYS[:5], 12) + (hours // 100).astype("m8[h]"))
    np.testing.assert_array_equal(read(bars(date=text(DAYS), time=[2400] * 60))[0], DAYS)  # the end of a session


@pytest.mark.parametrize("hours", [np.tile(np.arange(1, 13) * 2, 5), [str(9 + k % 12) for k in range(60)]])
def test_whole_numbers_up_to_24_are_hours_or_minutes(hours):
    with pytest.raises(
        DataError, match=r"such as \d+ beside the dates of 'date' may be hours or minutes: write .* 09:30"
    ):
        read(bars(date=text(np.repeat(DAYS[:5], 12)), time=hours))
    days, report = read(bars(date=text(DAYS), time=hours))
    np.testing.assert_array_equal(days, DAYS)
    assert "column 'time' holds no times, and was not used" in report.notes
    times, _ = read(bars(date=text(HOURS.astype("M8[D]")), timestamp=text(HOURS), t=np.tile(np.arange(6), 10)), "h")
    np.testing.assert_array_equal(times, HOURS)
    assert len(read(bars(date=["2021-01-04"] * 60, time=[f"00{k % 60:02d}" for k in range(60)]), "m")[0]) == 60


MIDNIGHTS = pa.array(HOURS.astype("M8[D]").astype("M8[s]").astype(np.int64) - 9 * 3_600)  # in Tokyo
CLOCKS = [f"{9 + k}:00" for k in range(6)] * 10


@pytest.mark.parametrize(
    "date",
    [
        [f"{hour.astype('M8[D]')}T00:00:00+09:00" for hour in HOURS],
        MIDNIGHTS.cast(pa.timestamp("s", "Asia/Tokyo")),
        MIDNIGHTS.cast(pa.timestamp("s", "+09:00")),
    ],
)
def test_a_time_of_day_is_on_the_clock_of_the_dates_zone(date):
    panel, _ = load(bars(date=date, time=CLOCKS), device="cpu")
    np.testing.assert_array_equal(panel.local_ns, NS)
    np.testing.assert_array_equal(panel.time_ns, NS - 9 * 3_600 * 10**9)


def test_clocks_change_after_midnight():
    days = pa.array([datetime.datetime(2021, 3, 14, 5)] * 3).cast(pa.timestamp("us", "America/New_York"))
    times, _ = read(bars(3, date=days, time=["01:00", "03:00", "09:30"]), "m")
    assert times.tolist() == [datetime.datetime(2021, 3, 14, *hour) for hour in ((6, 0), (7, 0), (13, 30))]


@pytest.mark.parametrize("clock", [0.395, 93_000_000, "09:30:00-05:00", "09:30 EST", "9h30"])
def test_what_a_time_of_day_is_written_like(clock):
    with pytest.raises(DataError, match=f"{clock}' beside the dates of 'date' is no time of day: write .* as 09:30:00"):
        read(bars(3, date=["2021-01-04"] * 3, time=[clock] * 3))


def test_most_times_of_day_are_missing():
    panel, report = load(
        bars(date=text(HOURS.astype("M8[D]")), time=[None] * 40 + CLOCKS[40:]), device="cpu", max_quarantined=1
    )
    np.testing.assert_array_equal(panel.time_ns, NS[40:])
    assert report.quarantine.num_rows == 40


def test_times_of_day_without_a_colon():
    times, _ = read(bars(3, date=["2021-01-04"] * 3, time=["1230 AM", "9 am", "0130 PM"]), "m")
    assert times.tolist() == [datetime.datetime(2021, 1, 4, *hour) for hour in ((0, 30), (9, 0), (13, 30))]
