"""Prices with the digits that tell them apart, times of bars, and which symbols are too old, by session date."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpupipe.data.panel import BARS, NS_PER_DAY, Panel
from gpupipe.serving.display import Display
from gpupipe.serving.latest_bars import newest, until
from gpupipe.serving.price_text import decimals_of, price_text, quoted_decimals
from gpupipe.serving.scan import Scanned
from gpupipe.serving.signal_table import left_out_sentences

HOUR = 3_600 * 10**9


@pytest.mark.parametrize(
    ("prices", "quoted", "expected"),
    [
        ((187.25, 186.68, 184.0, 195.866), 2, ["187.25", "186.68", "184.00", "195.87"]),  # a stock
        ((43210.57, 43100.1), 0, ["43,210.57", "43,100.10"]),
        ((1.08345, 1.08305, 1.0811), 5, ["1.08345", "1.08305", "1.08110"]),  # a currency pair
        ((1.08345, 1.08305, 1.0811), 0, ["1.08345", "1.08305", "1.08110"]),  # the same without its quotes
        ((151.234, 150.9), 3, ["151.234", "150.900"]),
        ((2.013e-05, 2.005e-05, 1.9e-05), 0, ["0.00002013", "0.00002005", "0.00001900"]),  # a coin
        ((2.013158e-05, 2.013121e-05), 0, ["0.00002013158", "0.00002013121"]),  # until they differ
        ((12.0, 12.01, 11.99), 0, ["12.000", "12.010", "11.990"]),
        ((12.0, 12.03, 11.97), 0, ["12.00", "12.03", "11.97"]),
        ((1.5e-08, 1.4e-08, 0.0), 0, ["0.00000001500", "0.00000001400", "0.00000000000"]),
        ((3.2e-10, 3.1e-10), 0, ["3.2e-10", "3.1e-10"]),
        ((91.5, 91.4951, 91.5049), 2, ["91.5000", "91.4951", "91.5049"]),  # an ETF of bills: a band of half a cent
        ((0.5234, 0.51), 0, ["0.5234", "0.5100"]),
        ((12.0, float("nan"), float("inf")), 0, ["12.00", "–", "–"]),
        ((float("nan"),), 0, ["–"]),
        ((10.0, np.float32(10.0) * (1 + 5e-8)), 0, ["10.00", "10.00"]),  # equal but for rounding
    ],
)  # fmt: skip
def test_prices_that_are_read_together_differ_where_they_differ(prices, quoted, expected):
    decimals = decimals_of(prices, quoted)
    assert [price_text(price, decimals) for price in prices] == expected


def test_a_quote_is_told_from_a_computed_price():
    assert quoted_decimals([1.08345, 1.0834]) == 5 and quoted_decimals([2750.0, 2751.0]) == 0
    assert quoted_decimals([0.00002013]) == 8 and quoted_decimals([float("nan"), 187.25]) == 2
    rng = np.random.default_rng(0)
    closes = np.float32(50 * np.exp(np.cumsum(rng.normal(0, 0.02, (200, 10)), axis=1)))
    assert [quoted_decimals(row.tolist()) for row in closes] == [0] * 200  # adjusted prices are shown as ever


def panel_of(bars: dict[str, list[tuple[str, int | None]]], closes=(1.08345, 1.0834)) -> Panel:
    """A panel of symbols with these times (UTC), and the hours that their clock is ahead; None for all: no clock."""
    symbols = tuple(sorted(bars))
    times = [np.array([time for time, _ in bars[name]], "M8[ns]").astype(np.int64) for name in symbols]
    hours = [np.array([hour or 0 for _, hour in bars[name]]) * HOUR for name in symbols]
    time_ns = np.concatenate(times)
    known = any(hour is not None for rows in bars.values() for _, hour in rows)
    close = np.resize(np.float32(closes), len(time_ns))
    return Panel.of_bars(
        **dict.fromkeys(BARS, close), time_ns=time_ns,
        offsets=np.concatenate([[0], np.cumsum([len(time) for time in times])]), symbols=symbols,
        sector=("energy",) * len(symbols), local_ns=time_ns + np.concatenate(hours) if known else None,
    )  # fmt: skip


def hours_of(day: str, first: int, last: int, ahead: int | None) -> list[tuple[str, int | None]]:
    return [(f"{day}T{hour:02}:00", ahead) for hour in range(first, last + 1)]


def test_a_panel_says_how_its_signals_are_shown():
    hourly = panel_of({"BTC": hours_of("2024-03-21", 0, 3, 0), "XOM": hours_of("2024-03-21", 14, 20, -4)})
    display = Display.of(hourly)
    assert display == Display(True, {"XOM": -4 * 3600}, {"BTC": 5, "XOM": 5})
    assert display.bar("XOM", "2024-03-21T20:00:00") == "2024-03-21 16:00 -04:00"
    assert display.bar("BTC", "2024-03-22T00:00:00") == "2024-03-22 00:00 UTC"  # an hourly bar at midnight
    assert display.bar("BTC", "2024-03-22T00:00:30Z") == "2024-03-22 00:00:30 UTC"
    assert display.session("XOM", "2024-03-22T01:00:00") == "2024-03-21"  # its session is not over
    daily = Display.of(panel_of({"A": [("2024-03-20", None), ("2024-03-21", None)]}, (187.25, 188.0)))
    assert daily == Display(False, {}, {}) and daily.bar("A", "2024-03-21T00:00:00") == "2024-03-21"
    assert Display.from_json(display.to_json()) == display
    assert Display.from_json(None) == Display.from_json({"of": "another version"}) == Display()
    assert Display().bar("A", "2024-03-21T14:30:00") == "2024-03-21 14:30 UTC"
    assert Display().bar("A", "soon") == "soon"


def test_a_bar_of_tokyo_is_as_new_as_one_of_new_york_of_the_same_date():
    """Hourly bars: those of New York come after the last of Tokyo, so by the instant Tokyo would be too old."""
    days = ("2024-03-18", "2024-03-19", "2024-03-20", "2024-03-21")
    tokyo = [bar for day in days for bar in hours_of(day, 0, 6, 9)]
    new_york = [bar for day in days for bar in hours_of(day, 14, 20, -4)]
    both = panel_of({"7203.T": tokyo, "OLD.T": tokyo[:14], "XOM": new_york})
    for max_age, first in ((1, "2024-03-21T00:00"), (2, "2024-03-20T00:00"), (9, "2024-03-18T00:00")):
        since, end = np.array(newest(both, max_age)).astype("M8[ns]")
        assert since == np.datetime64(first) and end == np.datetime64("2024-03-21T20:00")
    since, _ = newest(both, 2)
    last = both.time_ns[both.offsets[1:] - 1]
    assert dict(zip(both.symbols, last >= since, strict=True)) == {"7203.T": True, "OLD.T": False, "XOM": True}
    alone = panel_of({"HES": new_york[:-3], "XOM": new_york})  # one zone: by the times of the data
    assert np.datetime64(newest(alone, 3)[0], "ns") == np.datetime64("2024-03-21T18:00")


def test_the_sentence_on_symbols_that_are_too_old_counts_what_was_counted():
    since = int(np.datetime64("2024-03-20T00:00", "ns").astype(np.int64))
    scanned = Scanned((), (), (), stale=("OLD.T",), max_age=2, since_ns=since, display=Display(True))
    (by_time,) = left_out_sentences(scanned)
    assert by_time.startswith(
        "1 symbol without a bar at the last 2 times of the data (since 2024-03-20 00:00 UTC), not"
    )
    (by_session,) = left_out_sentences(dataclasses.replace(scanned, by_session=True))
    assert "at the last 2 session dates of the data" in by_session and "how many session dates." in by_session


def test_a_zone_is_one_zone_in_winter_and_in_summer():
    """A symbol that left in winter has another offset, and is as old as it is."""
    gone = panel_of({"GONE": hours_of("2024-03-08", 15, 21, -5), "XOM": hours_of("2024-03-11", 14, 20, -4)})
    assert np.datetime64(newest(gone, 3)[0], "ns") == np.datetime64("2024-03-11T18:00")


def test_as_of_a_day_takes_the_bars_of_that_session():
    late = panel_of({"XOM": [("2024-03-21T22:00", -4), ("2024-03-22T01:00", -4), ("2024-03-22T13:00", -4)]})
    assert until(late, "2024-03-21").n_rows == 2  # 21:00 in New York is still that day
    assert until(late, "2024-03-22T01").n_rows == 2 and until(late, "2024-03").n_rows == 3
    plain = panel_of({"BTC": [("2024-03-21T22:00", None), ("2024-03-22T01:00", None)]})
    assert until(plain, "2024-03-21").n_rows == 1 and int(plain.session_day[-1]) == plain.time_ns[-1] // NS_PER_DAY
