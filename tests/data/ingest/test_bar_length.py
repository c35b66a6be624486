"""A source of few bars is judged by the store; bars of another length are refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gpupipe.data import DataError
from gpupipe.data.ingest import ingest
from tests.data.ingest.test_session_keys import bars, part, put
from tests.support.ingested import same, with_column

HOUR, DAY = 3_600 * 10**9, 86_400 * 10**9


def on(table, days):
    """The bars of certain dates."""
    date = table["time"].to_numpy().astype("M8[ns]").astype("M8[D]")
    return table.filter(pa.array(np.isin(date, np.array(days, "M8[D]"))))


def without(table, days):
    date = table["time"].to_numpy().astype("M8[ns]").astype("M8[D]")
    return table.filter(pa.array(~np.isin(date, np.array(days, "M8[D]"))))


def every(step_ns, n, start="2024-03-04T14:30"):
    """Bars of three symbols at equal distances."""
    time = np.datetime64(start, "ns").astype(np.int64) + np.arange(n) * step_ns
    return with_column(bars(n=n), "time", pa.array(np.tile(time, 3)).cast(pa.timestamp("ns")))


def trading_hours(n_days=20):
    """Hourly bars from 14:30 to 20:30 UTC on weekdays."""
    day = np.busday_offset("2024-03-04", np.arange(n_days)).astype("M8[ns]").astype(np.int64)
    time = (day[:, None] + 14 * HOUR + HOUR // 2 + np.arange(7) * HOUR).ravel()
    return with_column(bars(n=len(time)), "time", pa.array(np.tile(time, 3)).cast(pa.timestamp("ns")))


@pytest.mark.parametrize(
    "dates",
    [
        ["2024-04-12", "2024-04-15"],  # Friday and Monday
        ["2024-04-11", "2024-04-16"],  # Thursday to Tuesday
        ["2024-04-15"],
        ["2024-04-11", "2024-04-12", "2024-04-15"],
        ["2024-04-15", "2024-04-18"],  # only new ones
    ],
)
def test_nights_over_a_weekend_are_daily_bars(tmp_path, dates):
    whole = without(bars(), ["2024-04-15"] if "2024-04-15" not in dates else [])
    history = whole.filter(pa.array(whole["time"].to_numpy().astype("M8[ns]") < np.datetime64("2024-04-15")))
    put(history, tmp_path / "store")
    put(on(whole, dates), tmp_path / "store")
    expected = np.union1d(history["time"].to_numpy().astype("M8[ns]").astype("M8[D]"), np.array(dates, "M8[D]"))
    assert same(tmp_path / "store", on(whole, expected))


@pytest.mark.parametrize("dates", [["2024-04-05", "2024-04-15"], ["2024-04-08", "2024-04-15"], ["2024-04-15"]])
def test_the_first_day_after_a_closed_week(tmp_path, dates):
    closed = [f"2024-04-{day:02}" for day in range(9 if "2024-04-08" in dates else 8, 15 - 2)]
    whole = without(bars(), closed)
    history = whole.filter(pa.array(whole["time"].to_numpy().astype("M8[ns]") < np.datetime64("2024-04-13")))
    put(history, tmp_path / "store")
    assert put(on(whole, dates), tmp_path / "store").new_bars == 3


def test_a_calendar_explains_a_week_without_an_overlap(tmp_path):
    table = bars(n=5)
    history = np.arange("2001-09-03", "2001-09-08", dtype="M8[D]").astype("M8[ns]").astype(np.int64)
    put(with_column(table, "time", pa.array(np.tile(history, 3)).cast(pa.timestamp("ns"))), tmp_path / "store")
    two = np.array(["2001-09-10", "2001-09-17"], "M8[ns]").astype(np.int64)  # New York was closed in between
    source = with_column(bars(n=2), "time", pa.array(np.tile(two, 3)).cast(pa.timestamp("ns")))
    with pytest.raises(DataError, match="holds bars of 1 day and the source bars of 1 week"):
        put(source, tmp_path / "store")
    assert put(source, tmp_path / "store", calendar="XNYS").new_bars == 6


@pytest.mark.parametrize("n", [2, 12])
@pytest.mark.parametrize(
    ("step", "words"), [(7 * DAY, "1 week"), (HOUR, "1 hour"), (4 * HOUR, "4 hours"), (60 * 10**9, "1 minute")]
)
def test_another_length_is_refused_by_a_daily_store(tmp_path, step, words, n):
    put(bars(), tmp_path / "store")
    source = every(step, n, "2024-05-06T14:30" if step < DAY else "2024-05-06")
    with pytest.raises(DataError, match=f"holds bars of 1 day and the source bars of {words}: use another --store"):
        put(source, tmp_path / "store")


def test_two_dates_a_week_apart_are_no_weekly_store(tmp_path):
    whole = bars()
    put(on(whole, ["2024-03-08", "2024-03-15"]), tmp_path / "store")
    put(whole, tmp_path / "store")
    assert same(tmp_path / "store", whole)
    put(every(7 * DAY, 3, "2024-01-05"), tmp_path / "weekly")
    with pytest.raises(DataError, match="holds bars of 1 week and the source bars of 1 day"):
        put(whole, tmp_path / "weekly")


def test_every_fifth_day_is_a_week_although_its_bars_are_equal(tmp_path):
    whole = bars()
    put(part(whole, 0, 30), tmp_path / "store")
    mondays = whole.filter(pa.array(np.arange(whole.num_rows) % 40 % 5 == 0))
    with pytest.raises(DataError, match="holds bars of 1 day and the source bars of 1 week"):
        put(mondays, tmp_path / "store")
    assert put(part(whole, 28, 40), tmp_path / "store").new_bars == 30
    with_gaps = without(whole, ["2024-03-06", "2024-03-12", "2024-03-13", "2024-03-20"])
    assert not put(with_gaps, tmp_path / "store").changed


@pytest.mark.parametrize("step", [4 * HOUR, DAY, 7 * DAY, 60 * 10**9])
@pytest.mark.parametrize("n", [2, 12])
def test_another_length_is_refused_by_an_hourly_store(tmp_path, step, n):
    put(trading_hours(), tmp_path / "store")
    with pytest.raises(DataError, match="holds bars of 1 hour and the source bars of"):
        put(every(step, n, "2024-05-06T14:30" if step < DAY else "2024-05-06"), tmp_path / "store")
    if n == 2 and step == DAY:
        with pytest.raises(DataError, match="holds bars of 1 hour and the source bars of 1 day"):
            put(every(step, 1, "2024-05-06"), tmp_path / "store")


def test_few_hourly_bars_over_a_night_and_a_weekend(tmp_path):
    whole = trading_hours()
    hours = whole["time"].to_numpy().astype("M8[ns]")
    store = tmp_path / "store"
    put(whole.filter(pa.array(hours <= np.datetime64("2024-03-22T19:30"))), store)
    for first, last in (("03-22T20:30", "03-22T20:30"), ("03-22T20:30", "03-25T14:30"), ("03-25T20:30", "03-26T14:30")):
        chosen = (hours >= np.datetime64(f"2024-{first}")) & (hours <= np.datetime64(f"2024-{last}"))
        put(whole.filter(pa.array(chosen)), store)
    put(whole, store)
    assert same(store, whole)


def test_bars_of_three_days_are_no_daily_bars(tmp_path):
    put(every(3 * DAY, 20, "2024-01-01"), tmp_path / "store")
    assert put(every(3 * DAY, 2, "2024-03-01"), tmp_path / "store").new_bars == 6
    with pytest.raises(DataError, match="holds bars of 3 days and the source bars of 1 day"):
        put(part(bars(), 0, 10), tmp_path / "store")


def test_a_store_of_one_bar_a_symbol_takes_daily_bars_and_no_hourly_ones(tmp_path):
    whole = bars()
    put(part(whole, 0, 1), tmp_path / "store")
    with pytest.raises(DataError, match="holds bars of 1 day and the source bars of 1 hour"):
        put(every(HOUR, 12), tmp_path / "store")
    put(part(whole, 1, 2), tmp_path / "store")
    put(part(whole, 2, 9), tmp_path / "store")
    assert same(tmp_path / "store", part(whole, 0, 9))


def test_sessions_are_not_asked_of_weekly_bars(tmp_path):
    report = ingest(every(7 * DAY, 12, "2024-01-01"), tmp_path / "store", calendar="XNYS")
    assert report.missing == report.closed == () and report.status == "OK"


def test_round_the_clock_a_bar_at_midnight_is_one_of_five_minutes_and_no_day(tmp_path):
    whole = every(300 * 10**9, 600, "2024-03-04T00:05")
    time = whole["time"].to_numpy().astype("M8[ns]")
    put(whole.filter(pa.array(time < np.datetime64("2024-03-06"))), tmp_path / "store")
    put(whole.filter(pa.array(time == np.datetime64("2024-03-06"))), tmp_path / "store")
    assert same(tmp_path / "store", whole.filter(pa.array(time <= np.datetime64("2024-03-06"))))
    for n in (1, 2, 12):
        with pytest.raises(DataError, match="holds bars of 5 minutes and the source bars of 1 day"):
            put(every(DAY, n, "2024-03-05"), tmp_path / "store")
