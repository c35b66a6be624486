"""Intraday bars against an exchange's hours: early closes, breaks, clock changes, stamps at the begin or the end."""

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
    """The trading minutes of an exchange's calendar, as the oracle."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas warns about exchange-calendars' use of it
        calendar = xcals.get_calendar(name, start="2009-10-01", end="2010-02-01")
        ends = (pd.Timestamp(text, tz="UTC") for text in (f"{first} 00:00", f"{last} 23:59"))
        index = calendar.minutes_in_range(*ends)
    return index.tz_localize(None).to_numpy().astype("datetime64[ns]")


def bars(**times):
    """Flat bars of symbols at these times."""
    symbol = np.concatenate([[name] * len(symbol_times) for name, symbol_times in times.items()])
    n = len(symbol)
    prices = {name: np.full(n, 10.0) for name in ("open", "high", "low", "close")}
    table = {"symbol": symbol, "time": np.concatenate(list(times.values())), **prices}
    return pa.table({**table, "volume": np.full(n, 100.0), "sector": ["energy"] * n})


def findings(report):
    return report.outside, report.holes, report.silent, report.missing, report.closed


NOTHING = ((), (), (), (), ())


# Thanksgiving, an early close, and (New York) the end of summer time; Hong Kong has a break at noon.
@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("XNYS", "2009-11-23", "2009-11-30"),
        ("XNYS", "2009-10-29", "2009-11-03"),
        ("XHKG", "2009-12-23", "2009-12-29"),
        ("CMES", "2009-11-24", "2009-11-30"),
        ("24/7", "2009-11-28", "2009-11-30"),
    ],
)
def test_all_minutes_of_a_calendar_give_no_finding(tmp_path, name, first, last):
    time = minutes(name, first, last)
    report = ingest(bars(AAA=time), tmp_path / "begin", calendar=name)
    assert findings(report) == NOTHING and report.status == "OK"
    report = ingest(bars(AAA=time + MINUTE), tmp_path / "end", calendar=name)  # stamped with their end
    assert findings(report) == NOTHING


def test_bars_outside_the_hours_and_missing_bars_inside(tmp_path):
    time = minutes("XNYS", "2009-11-25", "2009-11-30")  # Thanksgiving on the 26th, and 13:00 on the 27th
    early = np.array(["2009-11-27T18:00", "2009-11-27T18:01", "2009-11-25T14:29"], "datetime64[ns]")  # EST is UTC - 5
    closed = np.array(["2009-11-26T15:00"], "datetime64[ns]")
    late = (time >= np.datetime64("2009-11-30T15:00")) & (time < np.datetime64("2009-11-30T15:05"))  # ingested later
    incomplete = time[~late & (time != np.datetime64("2009-11-27T17:59"))]
    report = ingest(bars(AAA=np.concatenate([incomplete, early, closed]), BBB=time[~late]), tmp_path / "store")
    assert report.outside == (("AAA", "2009-11-25", 1), ("AAA", "2009-11-27", 2))
    assert report.closed == ("2009-11-26",) and report.missing == ()
    assert report.holes == (("AAA", "2009-11-27", 1), ("AAA", "2009-11-30", 5), ("BBB", "2009-11-30", 5))
    assert report.silent == (("2009-11-30T15:00:00Z", 5),)
    assert "3 bars outside the hours of XNYS" in report.warnings
    assert "5 times in sessions at which no symbol has a bar" in report.warnings
    completed = ingest(bars(AAA=time[late]), tmp_path / "store")
    assert completed.new_bars == 5 and ("AAA", "2009-11-30", 5) not in completed.holes


def test_the_rest_of_an_unfinished_day_is_no_hole_and_a_missing_day_is_a_missing_session(tmp_path):
    time = minutes("XNYS", "2009-11-23", "2009-11-30")
    noon = time[time < np.datetime64("2009-11-30T17:00")]
    day = noon.astype("datetime64[D]")
    without = noon[day != np.datetime64("2009-11-24")]
    report = ingest(bars(AAA=noon, BBB=without, NEW=noon[-100:], SLOW=noon[:-20]), tmp_path / "store")
    assert report.missing == (("BBB", "2009-11-24"),)
    assert report.holes == (("SLOW", "2009-11-30", 20),) and report.silent == report.outside == ()


def test_hourly_bars_on_the_hour_match_a_session_that_opens_at_half_past(tmp_path):
    days = [f"2009-11-{day:02}" for day in (19, 20, 23, 24)]
    hours = [np.datetime64(f"{day}T{hour:02}:00").astype("datetime64[ns]") for day in days for hour in range(14, 21)]
    report = ingest(bars(AAA=np.array(hours), BBB=np.delete(hours, [3])), tmp_path / "store")
    assert report.holes == (("BBB", "2009-11-19", 1),) and report.outside == report.silent == ()


def test_four_hour_bars_are_checked_by_day_only(tmp_path):
    time = np.arange("2009-11-23T05", "2009-11-27T05", dtype="datetime64[h]")[::4].astype("datetime64[ns]")
    report = ingest(bars(AAA=time), tmp_path / "store")
    assert report.outside == report.holes == report.silent == () and report.closed == ("2009-11-26",)
