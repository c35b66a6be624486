"""Daily bars are keyed by session date, whatever their stamps; intraday bars keep their instants."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from gpupipe import compute_features, tp_dd_labels
from gpupipe.data import load, read
from gpupipe.data.session_dates import REPLACED

N = 30
DAYS = np.busday_offset("2024-01-02", np.arange(N), roll="forward")


def table(times, symbol="A", seed=0):
    """Bars of one symbol at these times."""
    n = len(times)
    close = 50 + np.random.default_rng(seed).normal(0, 1, n).cumsum()
    values = {"open": close, "high": close + 1, "low": close - 1, "close": close, "volume": np.arange(n) + 100.0}
    times = times if isinstance(times, (pa.Array, pa.ChunkedArray)) else pa.array(times)
    return pa.table({"symbol": [symbol] * n, "time": times, "sector": ["energy"] * n, **values})


def dates(panel):
    return panel.time_ns.astype("M8[ns]")


def in_zone(zone, hour=0):
    """The bars' local times on their days, as Arrow timestamps of that zone."""
    import pyarrow.compute as pc

    local = pa.array((DAYS + np.timedelta64(hour, "h")).astype("M8[ns]"))
    return pc.assume_timezone(local, zone)


@pytest.mark.parametrize(
    "times",
    [
        [f"{day} 00:00:00-05:00" for day in DAYS],
        [f"{day} 00:00:00+09:00" for day in DAYS],
        [f"{day}T16:00:00-0500" for day in DAYS],
        [f"{day}T21:00:00Z" for day in DAYS],
        in_zone("America/New_York"),
        in_zone("Asia/Tokyo"),
        in_zone("Asia/Tokyo").cast(pa.timestamp("ns", "UTC")),
        in_zone("Australia/Sydney").cast(pa.timestamp("ns", "UTC")),
        in_zone("Australia/Sydney", 16).cast(pa.timestamp("ns", "UTC")),
        in_zone("America/New_York", 16).cast(pa.timestamp("ns", "UTC")),
    ],
)
def test_a_daily_bar_has_its_session_date(times):
    panel, report = load(table(times))
    assert dates(panel).tolist() == DAYS.astype("M8[ns]").tolist() and panel.local_ns is None and report.clean
    assert report.data_hash == load(table([str(day) for day in DAYS]))[1].data_hash


def test_a_shift_by_a_day_is_noted():
    notes = load(table(in_zone("Asia/Tokyo").cast(pa.timestamp("ns", "UTC"))))[1].notes
    assert any("1 symbol are midnight of a zone east of UTC" in note for note in notes)
    assert load(table([str(day) for day in DAYS]))[1].notes == ()


def test_every_day_of_the_week_in_the_afternoon_stays_that_day():
    """A coin whose day ends at 20:00 UTC has bars on Fridays and Saturdays: its dates are not shifted."""
    days = np.datetime64("2024-01-01") + np.arange(40)
    panel = read(table([f"{day}T20:00:00Z" for day in days]))
    assert dates(panel).tolist() == days.astype("M8[ns]").tolist()


def utc(days, zone, close="00:00:00"):
    """Local times on these days as Arrow timestamps in UTC."""
    import pyarrow.compute as pc

    local = pa.array((days.astype("M8[s]") + pd.Timedelta(close).to_timedelta64()).astype("M8[ns]"))
    return pc.assume_timezone(local, zone, ambiguous="earliest", nonexistent="latest").cast(pa.timestamp("ns", "UTC"))


def exchange_days(start, n, weekmask="1111100"):
    return np.busday_offset(start, np.arange(n), roll="forward", weekmask=weekmask)


YEAR = exchange_days("2021-01-04", 250)
GULF = exchange_days("2021-01-03", 250, "1111001")  # Sunday to Thursday
MONTHS = np.arange("2010-01", "2015-01", dtype="M8[M]").astype("M8[D]")


@pytest.mark.parametrize(
    ("days", "zone", "close"),
    [
        *((YEAR, zone, "00:00:00") for zone in ("Europe/London", "Europe/Lisbon", "Pacific/Auckland", "Asia/Kolkata")),
        (exchange_days("2000-01-04", 500), "Australia/Sydney", "00:00:00"),
        *((GULF, zone, "00:00:00") for zone in ("Asia/Riyadh", "Asia/Jerusalem", "Asia/Dhaka")),
        (exchange_days("2021-01-02", 250, "1110011"), "Asia/Tehran", "00:00:00"),
        *((MONTHS, zone, "00:00:00") for zone in ("Asia/Tokyo", "Europe/Berlin", "Europe/London")),
        (np.arange("2021-01-04", "2023-01-01", 7, "M8[D]"), "Asia/Tokyo", "00:00:00"),
        (GULF, "Asia/Jerusalem", "17:25:00"),
        (GULF, "Asia/Riyadh", "15:00:00"),
        (GULF, "Africa/Cairo", "14:30:00"),
        (np.arange("2021-01-03", "2022-12-01", 7, "M8[D]"), "UTC", "23:59:59"),
        (np.arange("2021-01-08", "2022-12-01", 7, "M8[D]"), "America/New_York", "16:00:00"),
        (YEAR, "America/New_York", "16:00:00"),
        (YEAR, "Africa/Johannesburg", "17:00:00"),
        (YEAR[1:5], "Africa/Johannesburg", "17:00:00"),
        (MONTHS[1:] - 1, "America/New_York", "16:00:00"),
        (np.arange("2024-01-06", "2024-01-11", dtype="M8[D]"), "UTC", "20:00:00"),
    ],
)
def test_a_time_in_utc_is_a_midnight_in_the_east_only_where_that_is_sure(days, zone, close):
    panel, report = load(table(utc(days, zone, close)))
    assert dates(panel).tolist() == days.astype("M8[ns]").tolist() and report.clean
    assert any("zone east" in note for note in report.notes) == (close == "00:00:00")


@pytest.mark.parametrize("odd", ["2021-12-20T02:11:07Z", "2021-12-24T15:00:00Z", "2021-12-20T15:25:00Z"])
def test_one_odd_row_does_not_move_the_others(odd):
    midnights = [f"{time}Z" for time in YEAR.astype("M8[h]") - np.timedelta64(9, "h")]
    panel = read(table([f"{time[:13]}:00:00Z" for time in midnights] + [odd]))
    assert dates(panel)[:-1].tolist() == YEAR.astype("M8[ns]").tolist()
    assert dates(panel)[-1] == (np.datetime64(odd[:-1], "ns") + np.timedelta64(9, "h")).astype("M8[D]")


def test_an_odd_hour_does_not_move_the_other_rows_of_new_zealand():
    midnights = utc(YEAR, "Pacific/Auckland").cast(pa.int64()).to_numpy().astype("M8[ns]")
    panel = read(table(np.append(midnights, np.datetime64("2022-01-05T13:00", "ns"))))
    assert dates(panel)[:-1].tolist() == YEAR.astype("M8[ns]").tolist()


@pytest.mark.parametrize(("beside", "moved"), [((), 0), (("T",), 1), (("J",), 0), (("T", "J"), 0)])
def test_four_bars_of_one_week_are_read_as_the_other_symbols(beside, moved):
    times = {"T": utc(YEAR, "Asia/Tokyo"), "J": utc(YEAR, "Africa/Johannesburg", "17:00:00")}
    panel = read(pa.concat_tables([*(table(times[k], k) for k in beside), table(utc(YEAR[1:5], "Asia/Tokyo"), "A")]))
    assert dates(panel)[:4].tolist() == (YEAR[:4] + moved).astype("M8[ns]").tolist()


@pytest.mark.parametrize("start", ["1985-01-07", "2021-01-04"])
def test_one_bar_a_day_with_other_seconds_is_daily(start):
    days = exchange_days(start, 250)
    seconds = np.random.default_rng(1).integers(0, 90, 250).astype("m8[s]")
    panel, report = load(table(utc(days, "UTC", "15:59:00").cast(pa.int64()).to_numpy().astype("M8[ns]") + seconds))
    assert dates(panel).tolist() == days.astype("M8[ns]").tolist() and report.clean


def test_one_bar_a_day_at_any_minute_is_intraday():
    minutes = np.random.default_rng(1).integers(9 * 60, 17 * 60, 250).astype("m8[m]")
    assert dates(read(table(YEAR.astype("M8[ns]") + minutes))).tolist() == (YEAR.astype("M8[ns]") + minutes).tolist()


def test_symbols_of_two_exchanges_are_compared_by_session_date():
    zoned = pa.concat_tables([
        table([f"{day} 00:00:00{'+09:00' if k % 2 else '-05:00'}" for day in DAYS], f"S{k}", seed=k) for k in range(4)
    ])  # fmt: skip
    plain = pa.concat_tables([table([str(day) for day in DAYS], f"S{k}", seed=k) for k in range(4)])
    names = ["weekday", "sector_rank_roc_1", "day_of_month"]
    values = [compute_features(read(source), names).values for source in (zoned, plain)]
    np.testing.assert_array_equal(*values)
    assert set(values[0][:, 0].tolist()) == {0.0, 1.0, 2.0, 3.0, 4.0}


@pytest.mark.parametrize("live", ["2024-02-12T18:35:07Z", "2024-02-12 13:35:07-05:00"])
def test_the_bar_at_midnight_replaces_one_that_was_taken_live(live):
    whole = table([str(day) for day in DAYS])
    taken_live = table([live], seed=9)
    panel, report = load(pa.concat_tables([whole, taken_live]))
    assert panel.n_rows == N and panel.close.tolist() == read(whole).close.tolist()
    (finding,) = report.findings
    assert (finding.kind, finding.action, finding.rows) == (REPLACED, "merged", 1)


@pytest.mark.parametrize("time", ["21:00:00", "T21:00:00Z", " 16:00:00-05:00"])
def test_many_days_stamped_in_two_ways_stand_there_once(time):
    plain, stamped = [str(day) for day in DAYS], [f"{day} {time}".replace(" T", "T") for day in DAYS[20:]]
    panel, report = load(table(plain + stamped).append_column("sorted", pa.array(range(N + 10))), device="cpu")
    assert dates(panel).tolist() == DAYS.astype("M8[ns]").tolist()
    assert [(item.kind, item.rows) for item in report.findings if item.kind == REPLACED] == [(REPLACED, 10)]


def test_bars_of_twelve_hours_are_intraday():
    times = (DAYS[:, None] + np.array([0, 12], "m8[h]")).ravel().astype("M8[ns]")
    assert load(table(times), device="cpu")[0].n_rows == 2 * N


def test_of_two_live_bars_the_later_is_kept():
    whole = table([str(day) for day in DAYS[:-1]])
    early, late = (table([f"{DAYS[-1]}T{hour}:00:02Z"], seed=hour) for hour in (15, 20))
    panel = read(pa.concat_tables([late, whole, early]))
    assert panel.n_rows == N and panel.close[-1] == np.float32(late["close"][0].as_py())


def test_a_row_without_a_time_is_quarantined_as_before():
    rows = pa.concat_tables([table([f"{day} 00:00:00-05:00" for day in DAYS]), table(["x"])])
    report = load(rows)[1]
    assert report.quarantine["reason"].to_pylist().count("time is not known") == 1


def hourly(offset):
    """Hourly bars of a local morning, stamped with an offset from UTC."""
    return table([f"{day} {hour}:00:00{offset}" for day in DAYS for hour in ("09", "10", "11")])


def test_intraday_bars_keep_their_instants_and_their_clock():
    panel, report = load(hourly("+11:00"))
    assert dates(panel)[0] == np.datetime64("2024-01-01T22:00") and panel.n_rows == 3 * N
    assert panel.local_ns.astype("M8[ns]")[0] == np.datetime64("2024-01-02T09:00")
    assert np.unique(panel.session_day).size == N and report.notes == ()
    utc = read(hourly("+00:00"))
    names = ["weekday", "hour", "day_of_month"]
    values = [compute_features(bars, names).values for bars in (panel, utc)]
    np.testing.assert_array_equal(*values)
    assert utc.local_ns is None and utc.time_ns[0] - panel.time_ns[0] == 11 * 3_600 * 10**9


def test_calendar_windows_of_labels_go_by_the_session_date():
    panel, utc = read(hourly("+11:00")), read(hourly("+00:00"))
    labels = [tp_dd_labels(bars, horizons=(1,), thresholds=(0.02,), window="calendar").y for bars in (panel, utc)]
    np.testing.assert_array_equal(*labels)


def test_the_clock_is_part_of_the_hash_and_survives_selection():
    panel, report = load(hourly("+11:00"))
    assert report.data_hash != load(hourly("+10:00"))[1].data_hash
    some = panel.take(panel.time_ns > panel.time_ns[5])
    assert some.local_ns.tolist() == panel.local_ns[6:].tolist()
    assert panel.to(panel.device).local_ns is panel.local_ns


def test_one_bar_a_symbol_is_daily_only_where_the_caller_says_so():
    row = table(["2024-02-12T21:00:02Z"])
    assert dates(read(row))[0] == np.datetime64("2024-02-12T21:00:02")
    assert dates(load(row, daily=True)[0])[0] == np.datetime64("2024-02-12")
    assert dates(load(hourly("+00:00"), daily=False)[0])[0] == np.datetime64("2024-01-02T09:00")
