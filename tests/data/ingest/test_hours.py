"""Bars within a day against an exchange's hours: early closes, breaks, clocks that change, both ends as stamps."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from gpupipe.data.ingest import ingest

xcals = pytest.importorskip("exchange_calendars")
MINUTE = np.timedelta64(1, "m")


def minutes(name, first, last):
    """The times of all bars that the exchange's calendar asks for: its own trading minutes, as oracle."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pandas, about what exchange-calendars does with it
        calendar = xcals.get_calendar(name, start="2009-10-01", end="2010-02-01")
        ends = (pd.Timestamp(text, tz="UTC") for text in (f"{first} 00:00", f"{last} 23:59"))
        found = calendar.minutes_in_range(*ends)
    return found.tz_localize(None).to_numpy().astype("datetime64[ns]")


def bars(**times):
    """Flat bars of symbols at these times."""
    symbol = np.concatenate([[name] * len(own) for name, own in times.items()])
    n = len(symbol)
    prices = {name: np.full(n, 10.0) for name in ("open", "high", "low", "close")}
    table = {"symbol": symbol, "time": np.concatenate(list(times.values())), **prices}
    return pa.table({**table, "volume": np.full(n, 100.0), "sector": ["energy"] * n})


def found(report):
    return report.outside, report.holes, report.silent, report.missing, report.closed


NOTHING = ((), (), (), (), ())


# Thanksgiving, an early close, and (New York) the end of summer time; Hong Kong has a break at noon.
@pytest.mark.parametrize(
    ("name", "first", "last"),
    [("XNYS", "2009-11-23", "2009-11-30"), ("XNYS", "2009-10-29", "2009-11-03"), ("XHKG", "2009-12-23", "2009-12-29"),
     ("CMES", "2009-11-24", "2009-11-30"), ("24/7", "2009-11-28", "2009-11-30")],
)  # fmt: skip
def test_the_minutes_of_a_calendar_lack_nothing_and_none_is_outside(tmp_path, name, first, last):
    time = minutes(name, first, last)
    report = ingest(bars(AAA=time), tmp_path / "begin", calendar=name)
    assert found(report) == NOTHING and report.status == "OK"
    report = ingest(bars(AAA=time + MINUTE), tmp_path / "end", calendar=name)  # stamped with their end
    assert found(report) == NOTHING


def test_bars_outside_and_missing_within_are_told_apart(tmp_path):
    time = minutes("XNYS", "2009-11-25", "2009-11-30")  # Thanksgiving on the 26th, and 13:00 on the 27th
    early = np.array(["2009-11-27T18:00", "2009-11-27T18:01", "2009-11-25T14:29"], "datetime64[ns]")  # EST is UTC - 5
    closed = np.array(["2009-11-26T15:00"], "datetime64[ns]")
    gone = (time >= np.datetime64("2009-11-30T15:00")) & (time < np.datetime64("2009-11-30T15:05"))
    one = time[~gone & (time != np.datetime64("2009-11-27T17:59"))]
    report = ingest(bars(AAA=np.concatenate([one, early, closed]), BBB=time[~gone]), tmp_path / "store")
    assert report.outside == (("AAA", "2009-11-25", 1), ("AAA", "2009-11-27", 2))
    assert report.closed == ("2009-11-26",) and report.missing == ()
    assert report.holes == (("AAA", "2009-11-27", 1), ("AAA", "2009-11-30", 5), ("BBB", "2009-11-30", 5))
    assert report.silent == (("2009-11-30T15:00:00Z", 5),)
    assert "3 bars outside of the hours of XNYS" in report.warnings
    assert "5 times within sessions of which no symbol has a bar" in report.warnings
    whole = ingest(bars(AAA=time[gone]), tmp_path / "store")  # sent later
    assert whole.new_bars == 5 and ("AAA", "2009-11-30", 5) not in whole.holes


def test_a_day_that_is_not_over_has_no_holes_to_come_and_a_whole_day_is_a_missing_session(tmp_path):
    time = minutes("XNYS", "2009-11-23", "2009-11-30")
    noon = time[time < np.datetime64("2009-11-30T17:00")]
    day = noon.astype("datetime64[D]")
    without = noon[day != np.datetime64("2009-11-24")]
    report = ingest(bars(AAA=noon, BBB=without, NEW=noon[-100:], SLOW=noon[:-20]), tmp_path / "store")
    assert report.missing == (("BBB", "2009-11-24"),)
    assert report.holes == (("SLOW", "2009-11-30", 20),) and report.silent == report.outside == ()


def test_hourly_bars_on_whole_hours_meet_a_session_that_begins_at_half_past(tmp_path):
    days = [f"2009-11-{day:02}" for day in (19, 20, 23, 24)]
    hours = [np.datetime64(f"{day}T{hour:02}:00").astype("datetime64[ns]") for day in days for hour in range(14, 21)]
    report = ingest(bars(AAA=np.array(hours), BBB=np.delete(hours, [3])), tmp_path / "store")
    assert report.holes == (("BBB", "2009-11-19", 1),) and report.outside == report.silent == ()


def test_four_hours_and_days_are_looked_at_by_day_alone(tmp_path):
    time = np.arange("2009-11-23T05", "2009-11-27T05", dtype="datetime64[h]")[::4].astype("datetime64[ns]")
    report = ingest(bars(AAA=time), tmp_path / "store")
    assert report.outside == report.holes == report.silent == () and report.closed == ("2009-11-26",)
