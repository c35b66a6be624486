"""Numbers become the times that they stand for, or are refused; never another time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpupipe.data import DataError, time_limits
from gpupipe.data.number_times import UNITS, times_of_numbers
from gpupipe.data.time_limits import UNKNOWN_TIME
from tests.data.test_fuzz import SLOW

DAY_NS = 86_400 * 10**9
NOW = np.datetime64("2024-06-14T20:00", "ns").astype(np.int64)


@pytest.fixture(autouse=True)
def now(monkeypatch):
    monkeypatch.setattr(time_limits, "now_ns", lambda: int(NOW))


def weekdays(n, start="2021-01-04"):
    return np.busday_offset(start, np.arange(n), roll="forward")


def dates(numbers):
    return times_of_numbers(np.asarray(numbers), "here").time_ns.astype("M8[ns]").astype("M8[m]")


def written(days, layout):
    """The numbers that a strftime layout makes of days."""
    return np.array([int(day.strftime(layout)) for day in days.astype(object)])


def day_numbers(days):
    return days.astype("M8[D]").astype(np.int64)


LAYOUTS = ("%Y%m%d", "%Y%j", "%y%m%d", "%y%j", "%d%m%Y", "%m%d%Y", "%d%m%y", "%m%d%y")
CLOCKS = ("%Y%m%d0930", "%Y%m%d093000", "%Y%m%d093000000", "%y%m%d0930", "%y%m%d093000", "%d%m%Y0930", "%m%d%Y0930")
KINDS = {
    "spreadsheet": lambda days: day_numbers(days) + 25_569,
    "since 1970": day_numbers,
    "Julian": lambda days: day_numbers(days) + 2_440_588,
    "Julian from noon": lambda days: day_numbers(days) + 2_440_587.5,
    **{name: lambda days, unit=unit: day_numbers(days) * (DAY_NS // unit) for name, unit in UNITS.items()},
    **{layout: lambda days, layout=layout: written(days, layout) for layout in LAYOUTS},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_quarter_of_weekdays_is_read(kind):
    days = weekdays(60)
    np.testing.assert_array_equal(dates(KINDS[kind](days)), days)
    np.testing.assert_array_equal(dates(KINDS[kind](days).astype(np.float64)), days)


@pytest.mark.parametrize("layout", CLOCKS)
def test_digits_with_a_time_of_day(layout):
    days = weekdays(60)
    np.testing.assert_array_equal(dates(written(days, layout)), days.astype("M8[m]") + np.timedelta64(570, "m"))


@pytest.mark.parametrize(("zero", "first"), [(25_569, "2021-01-04"), (0, "2021-01-04"), (2_440_587.5, "1995-01-02")])
def test_fractions_of_day_numbers_are_times_of_day(zero, first):
    expected = weekdays(60, first).astype("M8[m]") + np.timedelta64(9 * 60 + 35, "m")
    numbers = expected.astype("M8[m]").astype(np.float64) / 1440 + zero
    np.testing.assert_array_equal(dates(numbers), expected)


@SLOW
@given(
    st.sampled_from(sorted(KINDS)),
    st.dates(
        min_value=np.datetime64("1969-01-02").astype(object), max_value=np.datetime64("2024-06-01").astype(object)
    ),
    st.integers(1, 400),
    st.booleans(),
)
def test_a_number_is_read_as_what_it_is_or_not_at_all(kind, first, n, every_day):
    earliest = "1990-01-01" if kind in (*UNITS, "spreadsheet", "since 1970") else "1969-01-02"
    first = max(np.datetime64(first), np.datetime64(earliest))
    days = first + np.arange(n) if every_day else weekdays(n, first)
    days = days[days <= np.datetime64("2024-06-14")]
    try:
        read = dates(KINDS[kind](days))
    except DataError as error:
        assert "write them as 2024-01-31" in str(error)
        assert kind not in ("%Y%m%d", "Julian", "Julian from noon", *UNITS)  # which are never in doubt
    else:
        np.testing.assert_array_equal(read, days)


@pytest.mark.parametrize("unit", ["seconds", "milliseconds", "microseconds"])
@pytest.mark.parametrize("last", ["1989-06-01", "2024-06-01"])
def test_daily_bars_reach_back_before_1970(unit, last):
    days = weekdays(20_000, "1950-01-03")
    days = days[days <= np.datetime64(last)]
    np.testing.assert_array_equal(dates(KINDS[unit](days)), days)


@pytest.mark.parametrize(("one", "other"), [("milliseconds", "microseconds"), ("seconds", "milliseconds")])
def test_a_unit_is_judged_row_by_row(one, other):
    days = weekdays(100)
    numbers = np.where(np.arange(100) < 60, KINDS[one](days), KINDS[other](days))
    for values in (numbers, numbers.astype(np.float64)):
        times = times_of_numbers(values, "here")
        np.testing.assert_array_equal(times.time_ns, day_numbers(days) * DAY_NS)
        assert times.other_unit.tolist() == list(range(60, 100)) and times.units == f"{other} beside {one}"


def test_missing_and_senseless_numbers_among_times():
    numbers = KINDS["milliseconds"](weekdays(40)).astype(np.float64)
    numbers[[3, 5, 7]] = np.nan, np.inf, 0
    times = times_of_numbers(numbers, "here").time_ns
    assert (times == UNKNOWN_TIME).nonzero()[0].tolist() == [3, 5] and times[7] == 0  # validation sets 1970 aside
    numbers[[3, 5, 7]] = -1, 20_210_104, 44_200  # would be bars of 1969 and 1970
    assert (times_of_numbers(numbers, "here").time_ns == UNKNOWN_TIME).nonzero()[0].tolist() == [3, 5, 7]
    serials = KINDS["spreadsheet"](weekdays(60))
    serials[[3, 7]] = 0, 2_958_465
    assert (times_of_numbers(serials, "here").time_ns == UNKNOWN_TIME).nonzero()[0].tolist() == [3, 7]
    digits = KINDS["%Y%m%d"](weekdays(40))
    digits[[3, 7]] = 0, 99_991_231
    assert (times_of_numbers(digits, "here").time_ns == UNKNOWN_TIME).nonzero()[0].tolist() == [3, 7]


def month_starts(n, first, step=1):
    return (np.datetime64(first, "M") + step * np.arange(n)).astype("M8[D]")


@pytest.mark.parametrize(
    ("n", "first", "step", "layout"),
    [
        (60, "2015-02", 1, "%y%m%d"), (60, "2005-01", 3, "%y%m%d"), (30, "2020-01", 1, "%d%m%Y"),
        (144, "2001-01", 1, "%Y%m"), (48, "2001-01", 1, "%Y%m"), (24, "2019-06", 1, "%Y%m"), (3, "2021-01", 3, "%Y%m"),
        (900, "1949-01", 1, "%Y%m"), (60, "2015-02", 1, "%Y%m%d"), (60, "2015-02", 1, "%Y%j"),
    ],
)  # fmt: skip
def test_first_days_of_months(n, first, step, layout):
    days = month_starts(n, first, step)
    np.testing.assert_array_equal(dates(written(days, layout)), days)
    if n > 50:
        np.testing.assert_array_equal(dates(written(days, layout)[np.arange(n) != 30]), days[np.arange(n) != 30])


@pytest.mark.parametrize(
    ("n", "first", "step", "layout"),
    [
        (12, "2020-01", 1, "%d%m%Y"), (12, "2020-01", 1, "%m%d%Y"), (12, "2010-01", 12, "%y%m%d"),
        (18, "2015-01", 1, "%y%m%d"), (24, "2001-01", 1, "%Y%m"),
        (12, "2001-01", 1, "%Y%m"), (2, "2021-01", 1, "%Y%m"), (5, "2021-03", 1, "%y%m"), (60, "2015-02", 1, "%y%m"),
    ],
)  # fmt: skip
def test_months_that_may_be_days_are_refused(n, first, step, layout):
    with pytest.raises(DataError, match="write them as 2024-01-31"):
        dates(written(month_starts(n, first, step), layout))


@pytest.mark.parametrize("layout", ["%y%m%d", "%d%m%y", "%m%d%y", "%d%m%Y", "%m%d%Y"])
def test_days_of_a_year_are_no_months(layout, monkeypatch):
    """In 2032, days of 2001 written as 010131 are first days of months as well."""
    monkeypatch.setattr(time_limits, "now_ns", lambda: int(np.datetime64("2032-06-01", "ns").astype(np.int64)))
    days = weekdays(261, "2001-01-01")
    np.testing.assert_array_equal(dates(written(days, layout)), days)


def ticks(moments):
    return moments.astype("M8[s]").astype(np.int64) * 10**7 + 621_355_968 * 10**9


@pytest.mark.parametrize("n", [1, 2, 250])
@pytest.mark.parametrize("clock_s", [0, 34_200, 57_599])
def test_ticks_of_net(n, clock_s):
    moments = weekdays(n).astype("M8[s]") + clock_s
    for numbers in (ticks(moments), ticks(moments).astype(np.float64)):
        np.testing.assert_array_equal(times_of_numbers(numbers, "here").time_ns, moments.astype("M8[ns]").astype(int))
    if n > 1:
        missing = times_of_numbers(np.append(ticks(moments), [0, UNKNOWN_TIME]), "here").time_ns
        assert (missing == UNKNOWN_TIME).nonzero()[0].tolist() == [n, n + 1]


def test_nanoseconds_of_1990_are_no_ticks():
    days = weekdays(60, "1990-01-02")
    hours = (days.astype("M8[h]")[:, None] + np.arange(9, 16)).ravel()
    for moments in (
        days,
        days.astype("M8[s]") + 86_399,
        hours,
        hours[:1].astype("M8[D]"),
        np.append(days, np.datetime64("2021-01-04")),
    ):
        time_ns = moments.astype("M8[ns]").astype(np.int64)
        np.testing.assert_array_equal(times_of_numbers(time_ns, "here").time_ns, time_ns)
    with pytest.raises(DataError, match=r"nanoseconds since 1970 \(1990-03-14\) or ticks of .NET \(2021-01-08\)"):
        dates(ticks(np.array(["2021-01-08T12:00:00"], "M8[s]")))


def test_a_few_ticks_among_seconds_are_not_known():
    seconds = KINDS["seconds"](weekdays(60))
    for numbers in (np.append(seconds, ticks(weekdays(3))), np.append(seconds + 0.5, ticks(weekdays(3)))):
        assert (times_of_numbers(numbers, "here").time_ns == UNKNOWN_TIME).nonzero()[0].tolist() == [60, 61, 62]


def test_seconds_keep_their_fractions():
    time_ns = times_of_numbers(np.array([1.6e9 + 0.25, 1.6e9 + 0.5]), "here").time_ns
    assert (time_ns - 1_600_000_000 * 10**9).tolist() == [250_000_000, 500_000_000]


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (np.arange(60), "numbers such as 0 are not understood as times"),  # row numbers
        (np.arange(1, 300), "numbers such as 1 are not understood as times"),
        (np.arange(1, 15_000), "numbers such as 1 are not understood"),  # as days since 1970, up to 2011
        (weekdays(60).astype(np.int64) + 719_529, "numbers such as 737"),  # days of another calendar
        (np.array([210_104]), r"210104 may be yymmdd \(2021-01-04\) or ddmmyy \(2004-01-21\)"),
        (np.array([1_042_021, 2_042_021]), r"may be ddmmyyyy \(2021-04-01\) or mmddyyyy \(2021-01-04\)"),
        (weekdays(900, "1950-01-03").astype(np.int64) + 25_569, r"1950-01-03\) or days since 1970 \(2020-01-05"),
        (
            np.append(written(weekdays(40), "%Y%j"), 2_021_366),
            "as 2021366 are not understood as times, where most are yyyyddd",
        ),
        (
            np.append(np.repeat(day_numbers(weekdays(40)) + 25_569, 2), np.full(6, 99_000)),
            r"as 99000 are not .* a spreadsheet's day",
        ),
        (np.array([44_200.5, 7.25]), "numbers such as 44200.5 are not understood"),
    ],
)
def test_what_is_not_sure_is_refused(numbers, words):
    if "737" in words:
        words = f"numbers such as {numbers[0]} are not understood"
    with pytest.raises(DataError, match=words):
        times_of_numbers(numbers, "here")


@pytest.mark.parametrize("digits", [6, 7])
@pytest.mark.parametrize("unit", UNITS)
def test_counts_that_lost_their_digits_are_refused(unit, digits):
    whole = KINDS[unit](weekdays(60))
    rounded = np.array([float(f"{number:.{digits - 1}e}") for number in whole])
    with pytest.raises(DataError, match=r"numbers such as 1.?6097\d+(e\+1\d)? were rounded, as a spreadsheet"):
        times_of_numbers(rounded, "here")
    np.testing.assert_array_equal(dates([float(f"{number:.7e}") for number in whole]), weekdays(60))


@pytest.mark.parametrize("seconds", [np.arange(60) * 1_000, np.arange(60) * 86_400, np.zeros(60), np.arange(2) * 100])
def test_odd_seconds_at_regular_steps_are_kept(seconds):
    assert dates(1_600_000_000 + seconds)[0] == np.datetime64("2020-09-13T12:26")


def test_seconds_that_may_be_digits_of_a_minute():
    """1501020930 is 2 January 2015, 09:30, though it is a second of 2017 as well."""
    minutes = np.concatenate([written(weekdays(250, "2015-01-02"), f"%y%m%d{hour:02d}30") for hour in range(9, 16)])
    assert dates(minutes)[0] == np.datetime64("2015-01-02T09:30")
    with pytest.raises(DataError, match=r"nanoseconds since 1970 \(2017-07-25\) or yymmddHHMM \(2015-01-02\)"):
        dates(minutes[:20])
    assert dates([1_501_020_930])[0] == np.datetime64("2017-07-25T22:15")  # one number cannot tell
