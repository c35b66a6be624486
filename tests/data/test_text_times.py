"""Texts of usual forms are read; the text of any other is shown."""

import re

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from gpupipe.data import DataError, load, time_column
from gpupipe.data.time_limits import UNKNOWN_TIME

HALF_PAST_NINE = np.datetime64("2021-01-04T09:30", "ns").astype(np.int64)
HOUR_NS = 3_600 * 10**9


def parse(*texts):
    return time_column.parse(pa.chunked_array([pa.array(texts, pa.string())]), "here")


@pytest.mark.parametrize(
    "text",
    [
        "2021-01-04", "2021/01/04", "2021.01.04", "2021-1-4", "2021/1/4", "2021. 1. 4.", "2021年1月4日", "20210104",
        "Jan 04, 2021", "Jan 4 2021", "January 4th, 2021", "Mon Jan 04 2021", "04-Jan-2021", "4-Jan-21", "04JAN2021",
        "4 January 2021", "2021-Jan-04", " 2021-01-04 ",
    ],
)  # fmt: skip
def test_dates(text):
    midnight = HALF_PAST_NINE - 9 * HOUR_NS - HOUR_NS // 2
    assert parse(text).time_ns.tolist() == [midnight]
    assert parse(text, "2021-01-05", None).time_ns.tolist() == [midnight, midnight + 24 * HOUR_NS, UNKNOWN_TIME]


@pytest.mark.parametrize(
    "text",
    [
        "2021-01-04 09:30", "2021-01-04T09:30Z", "2021/1/4 9:30", "2021.01.04 09:30:00", "20210104 09:30",
        "20210104  09:30:00", "20210104-09:30:00.000", "20210104 0930", "20210104T093000Z", "202101040930",
        "2021-01-04 9:30 AM", "Jan 04, 2021, 9:30:00 AM", "04JAN2021:09:30:00", "Mon, 04 Jan 2021 09:30:00 GMT",
        "Mon Jan  4 09:30:00 2021", "2021-01-04 09:30:00 UTC", "2021-01-04 09:30:00 +0000 UTC",
    ],
)  # fmt: skip
def test_times_of_day(text):
    times = parse(text)
    assert times.time_ns.tolist() == [HALF_PAST_NINE] and times.local_ns is None


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("2021-01-04T09:30+09", 9), ("2021-01-04 09:30:00-04", -4), ("2021-01-04 09:30:00.0-0500", -5),
        ("2021/1/4 9:30 +09:00", 9), ("2021-01-04T09:30-05:00[America/New_York]", -5),
        ("Mon, 04 Jan 2021 09:30:00 -0500 EST", -5), ("Mon Jan 04 2021 09:30:00 GMT-0500 (Eastern Standard Time)", -5),
    ],
)  # fmt: skip
def test_offsets_of_zones_keep_the_clock(text, hours):
    times = parse(text)
    assert times.local_ns.tolist() == [HALF_PAST_NINE]
    assert times.time_ns.tolist() == [HALF_PAST_NINE - hours * HOUR_NS]


@pytest.mark.parametrize(
    "text", ["2021-02-30", "2021-13-01", "9999-12-31", "0001-01-01", "2021-01-04 24:00", "Juno 4, 2021",
     "2021-01-04T00:00:00+99:00", "2021-01-04T00:00:00-14:01", "2021-01-04T00:00:00+09:75", "2021/1/4 9:30 +09:60"]
)  # fmt: skip
def test_what_is_no_time_is_unknown(text):
    texts = [f"2021-1-{day}" for day in range(1, 32)] * 4
    assert parse(*texts, text).time_ns[-1] == UNKNOWN_TIME


def test_numbers_among_dates():
    days = parse("2021-01-04", "20210105", "n/a", "20210106", "7 Jan 2021").time_ns
    assert days[[0, 1, 3, 4]].astype("M8[ns]").astype("M8[D]").astype(int).tolist() == [18_631, 18_632, 18_633, 18_634]
    assert days[2] == UNKNOWN_TIME
    nanoseconds = parse("1609718400000000000", "1609804800000000000").time_ns
    assert nanoseconds.tolist() == [1_609_718_400 * 10**9, 1_609_804_800 * 10**9]


@pytest.mark.parametrize("number", ["2021", "20", "020121", "1009843200", "2021.0", "63745315200"])
def test_a_number_far_from_the_dates_beside_it_is_not_known(number):
    texts = [f"2021-01-{day:02d}" for day in range(1, 29)]
    assert (parse(*texts, number).time_ns == UNKNOWN_TIME).tolist() == [False] * 28 + [True]


def test_numbers_may_go_on_where_dates_end():
    days = [str(day) for day in np.busday_offset("2000-01-03", np.arange(2_000), roll="forward")]
    texts = [day if k < 1_200 else day.replace("-", "") for k, day in enumerate(days)]
    assert parse(*texts).time_ns.astype("M8[ns]").astype("M8[D]").astype(str).tolist() == days
    for few in (10, 1_900):  # full dates of another time are what they say
        texts = [
            day if k >= few else "19" + day[2:].replace("-", "") for k, day in enumerate(days) if "-02-29" not in day
        ]
        assert UNKNOWN_TIME not in parse(*texts).time_ns


def test_times_of_day_without_a_date_are_refused():
    for column in (pa.array(["09:30", "10:30"]), pa.array([34_200, 37_800], pa.time32("s"))):
        with pytest.raises(DataError, match=r"here holds times of day, as '09:30.*', without a date: add a column"):
            time_column.parse(pa.chunked_array([column]), "here")


HEAD = "symbol,date,open,high,low,close,volume,sector\n"


def test_an_offset_in_a_csv_is_kept_wherever_it_begins(tmp_path):
    """London's clock is UTC in winter; the first bar of summer comes late in the file."""
    days = np.busday_offset("2023-10-30", np.arange(200), roll="forward")
    offsets = ["+00:00" if day < np.datetime64("2024-03-31") else "+01:00" for day in days]
    lines = [f"A,{day} 00:00:00{offset},1,1,1,1,1,energy" for day, offset in zip(days, offsets, strict=True)]
    for cut in (None, -3):  # hours and minutes, hours alone
        (tmp_path / "a.csv").write_text(
            HEAD + "\n".join(line.replace(":00,1", ",1") if cut else line for line in lines)
        )
        panel, _ = load(tmp_path / "a.csv", device="cpu")
        np.testing.assert_array_equal(panel.time_ns.astype("M8[ns]").astype("M8[D]"), days)


@pytest.mark.parametrize(("offset", "hours"), [("+14:00", 14), ("-12:00", -12), ("+05:45", 5.75), ("+15:00", None)])
def test_an_offset_is_of_a_zone_or_no_offset(offset, hours):
    utc = parse("2021-01-04T09:30:00" + offset, "2021-01-05T09:30:00+00:00").time_ns[0]
    assert utc == (UNKNOWN_TIME if hours is None else HALF_PAST_NINE - int(hours * HOUR_NS))


@pytest.mark.parametrize("zone", ["EDT", "Foo/Bar", "UTC+9", "+09"])
def test_a_zone_that_is_not_known_is_named(zone):
    column = pa.chunked_array([pa.array([int(HALF_PAST_NINE)], pa.timestamp("ns", tz=zone))])
    with pytest.raises(DataError, match=rf"here has the time zone '{re.escape(zone)}', which is not known: convert"):
        time_column.parse(column, "here")


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_a_dictionary_of_texts_is_read(kind):
    """A polars Categorical or Enum is a dictionary of views."""
    texts = pa.array(["2021-01-04 09:30", None], kind)
    column = pa.chunked_array([pa.DictionaryArray.from_arrays(pa.array([0, None, 0, 1], pa.uint32()), texts)])
    assert time_column.parse(column, "here").time_ns.tolist() == [HALF_PAST_NINE, UNKNOWN_TIME] * 2


def test_an_unreadable_text_is_shown(tmp_path):
    lines = [f"A,2021-01-{day:02d},1,1,1,1,1,energy" for day in range(1, 31)]
    lines[4] = "A,someday,1,1,1,1,1,energy"
    (tmp_path / "a.csv").write_text(HEAD + "\n".join(lines))
    (finding,) = load(tmp_path / "a.csv", device="cpu")[1].findings
    assert (finding.kind, finding.example) == ("time is not known", "A 'someday'")


@pytest.mark.parametrize("kind", [pl.String, pl.Categorical, pl.Enum([f"2021-01-{day:02d}" for day in range(1, 31)])])
def test_a_row_of_polars_texts_is_set_aside(kind):
    """Polars has views of texts, of which Arrow takes no rows."""
    days = [f"2021-01-{day:02d}" for day in range(1, 31)]
    prices = dict.fromkeys(("open", "high", "low", "close", "volume"), [1.0] * 30)
    frame = pl.DataFrame(
        {"symbol": ["A"] * 30, "date": [*days[:4], None, *days[5:]], "sector": ["energy"] * 30, **prices}
    )
    panel, report = load(frame.with_columns(pl.col("date").cast(kind)), device="cpu")
    assert panel.n_rows == 29 and report.findings[0].kind == "time is not known"
