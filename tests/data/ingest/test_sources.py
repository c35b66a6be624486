"""Sources of ingest (files, SQLite, yfinance's frame), and the check against an exchange's calendar."""

from __future__ import annotations

import importlib.machinery
import json
import pathlib
import sqlite3
import sys
import types

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from gpupipe.data import DataError
from gpupipe.data.ingest import SourceOptions, ingest, sessions, yahoo
from tests.support.ingested import days, market, same, stored_panel

ANSWER = pathlib.Path(__file__).parents[2] / "support" / "yfinance_answer.json"


def recorded() -> pd.DataFrame:
    answer = json.loads(ANSWER.read_text())
    columns = pd.MultiIndex.from_tuples([tuple(pair) for pair in answer["columns"]], names=answer["column_names"])
    index = pd.DatetimeIndex(answer["index"], name=answer["index_name"])
    return pd.DataFrame(answer["data"], index=index, columns=columns, dtype="float64")


@pytest.fixture
def calls(monkeypatch):
    """The recorded calls of a stub of yfinance, which returns the recorded frame."""
    calls = []
    module = types.ModuleType("yfinance")
    module.__spec__ = importlib.machinery.ModuleSpec("yfinance", None)

    def download(tickers, **options):
        calls.append({"tickers": tickers, **options})
        return recorded()

    module.download = download
    monkeypatch.setitem(sys.modules, "yfinance", module)
    return calls


def test_yfinances_frame_becomes_bars(tmp_path, calls):
    (tmp_path / "symbols.csv").write_text("symbol,sector\nAAA,Technology\nBBB,Energy\nGONE,Energy\n")
    source = f"yfinance:@{tmp_path / 'symbols.csv'}"
    report = ingest(source, tmp_path / "store", SourceOptions(since="2010-01-01"))
    assert calls[0]["tickers"] == ["AAA", "BBB", "GONE"] and calls[0]["start"] == "2010-01-01"
    assert calls[0]["auto_adjust"] is False and calls[0]["interval"] == "1d"
    assert report.new_bars == 7 and report.without_bars == ("GONE",) and report.missing == ()
    panel = stored_panel(tmp_path / "store")
    assert panel.symbols == ("AAA", "BBB") and panel.sector == ("technology", "energy")
    np.testing.assert_array_equal(panel.close, np.float32([10.0, 10.5, 10.7, 10.8, 20.0, 20.2, 20.1]))
    np.testing.assert_array_equal(panel.volume[:2], np.float32([1000, 1100]))
    again = ingest("yfinance:AAA,BBB", tmp_path / "store")  # the store knows sectors and days
    assert calls[1]["start"] == "2009-12-24" and not again.changed
    with pytest.raises(DataError, match="has no bars of NEW: give the first day with --since"):
        ingest("yfinance:AAA,NEW", tmp_path / "store")


def test_yfinances_adjusted_close_is_used_if_requested(tmp_path, calls):
    options = SourceOptions(sector_map={"AAA": "x", "BBB": "x"}, adjusted=True, since="2010-01-01")
    ingest("yfinance:AAA,BBB", tmp_path / "store", options)
    panel = stored_panel(tmp_path / "store")
    np.testing.assert_allclose(panel.close[:2], [9.9, 10.4], rtol=1e-6)
    np.testing.assert_allclose(panel.open[:1], [9.8 * 0.99], rtol=1e-6)


def test_the_recorded_frame_has_yfinances_shape(monkeypatch):
    yfinance = pytest.importorskip("yfinance", reason="yfinance is not installed (the extra yfinance)")

    def history(self, start, interval, auto_adjust, actions, **_):
        """The recorded bars of one ticker in the form that Yahoo sends: only the download is replaced."""
        assert (start, interval, auto_adjust, actions) == ("2010-01-01", "1d", False, False)
        bars = recorded().xs(self.ticker, axis=1, level="Ticker").dropna(how="all")
        return bars.tz_localize("America/New_York").astype({"Volume": "int64"}).rename_axis(None, axis=1)

    monkeypatch.setattr(yfinance.Ticker, "history", history)
    answer = yahoo.download(("AAA", "BBB", "GONE"), "2010-01-01", "1d")
    expected, expected_without = yahoo.to_rows(recorded())
    rows, without = yahoo.to_rows(answer)
    assert rows.to_pydict() == expected.to_pydict() and without == expected_without == ("GONE",)


def test_another_shape_or_an_empty_answer_is_refused():
    with pytest.raises(DataError, match="expected columns of the levels Price and Ticker"):
        yahoo.to_rows(recorded().droplevel("Ticker", axis=1))
    with pytest.raises(DataError, match="expected columns of the levels Price and Ticker"):
        yahoo.to_rows(None)
    with pytest.raises(DataError, match="no bars came for GONE; is there a network"):
        yahoo.to_rows(recorded().xs("GONE", axis=1, level="Ticker", drop_level=False))
    swapped = recorded().swaplevel(axis=1)
    assert yahoo.to_rows(swapped)[0].equals(yahoo.to_rows(recorded())[0])


def test_without_yfinance_the_message_names_the_extra(monkeypatch):
    monkeypatch.setattr(yahoo.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install -e '\.\[yfinance\]'"):
        yahoo.download(("AAA",), "2010-01-01", "1d")


def test_a_file_of_each_kind_continues_the_previous_one(tmp_path):
    whole, store = market(), tmp_path / "store"
    pq.write_table(days(whole, 0, 20), tmp_path / "a.parquet")
    text = days(whole, 18, 30).to_pandas()
    text["symbol"] = text["symbol"].astype(str)
    text.to_csv(tmp_path / "b.csv.gz", index=False)
    with sqlite3.connect(tmp_path / "candles.db") as connection:
        names = "symbol, timestamp, timeframe, open, high, low, close, volume"
        connection.execute(f"CREATE TABLE candles ({names})")
        for timeframe in ("1d", "1h"):
            rows = days(whole, 28, 40).drop_columns(["sector"]).to_pylist()
            connection.executemany(
                f"INSERT INTO candles ({names}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        row["symbol"],
                        row["time"].value // 10**6,
                        timeframe,
                        *(row[name] for name in ("open", "high", "low", "close", "volume")),
                    )
                    for row in rows
                ],
            )
    connection.close()
    for name, timeframe in (("a.parquet", None), ("b.csv.gz", None), ("candles.db", "1d")):
        report = ingest(tmp_path / name, store, SourceOptions(timeframe=timeframe), calendar="none")
        assert not report.changes and report.new_bars
    assert same(store, whole)
    with pytest.raises(DataError, match="bars of 1d, 1h; choose one"):
        ingest(tmp_path / "candles.db", store, calendar="none")


def test_every_other_kind_that_the_job_reads(tmp_path):
    whole, store = market(), tmp_path / "store"
    feather.write_feather(days(whole, 0, 10), tmp_path / "a.feather")
    with pa.OSFile(str(tmp_path / "b.arrow"), "wb") as sink, pa.ipc.new_stream(sink, whole.schema) as writer:
        writer.write_table(days(whole, 8, 20))
    pq.write_to_dataset(days(whole, 18, 30), tmp_path / "c", partition_cols=["sector", "symbol"])
    pa.csv.write_csv(plain_text(days(whole, 28, 35)), tmp_path / "d.csv")
    paths = [tmp_path / name for name in ("a.feather", "b.arrow", "c", "d.csv")]
    for source in (*paths, days(whole, 33, 38).to_pandas(), days(whole, 36, 40)):
        report = ingest(source, store, calendar="none")
        assert report.new_bars and not report.changes and not report.unchecked
    assert same(store, whole)
    again = tmp_path / "again"
    assert ingest(store, again, calendar="none").new_bars == whole.num_rows  # a store is a source too
    assert same(again, whole)


def test_an_empty_file_and_a_doubtful_symbol_are_warnings(tmp_path):
    text = "date,open,high,low,close,volume\n2020-01-02,1,2,0.5,1,7\n2020-01-03,1,2,0.5,1,7\n"
    for name, content in {"A.csv": text, "prices.csv": text, "GONE.csv": ""}.items():
        (tmp_path / name).write_text(content)
    report = ingest(tmp_path, tmp_path / "store", SourceOptions(no_sector="other"), calendar="none")
    assert report.status == "WARN" and report.warnings == (
        "file holds no rows (GONE.csv)",
        "symbol is a file's name that looks like no ticker (prices)",
    )
    assert stored_panel(tmp_path / "store").symbols == ("A", "prices")


def plain_text(table):
    for name in ("symbol", "sector"):
        table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.string()))
    return table


def weekdays(first, last, symbols=("AAA", "BBB"), without=(), hour=0, closed=()):
    """Flat bars at an hour UTC on weekdays (and on `closed`), except (symbol, day) in `without`."""
    keys = {"symbol": [], "time": []}
    for symbol in symbols:
        for day in np.arange(first, last, dtype="datetime64[D]"):
            is_open = (np.is_busday(day) and str(day) not in HOLIDAYS) or str(day) in closed
            if is_open and (symbol, str(day)) not in without:
                keys["symbol"].append(symbol)
                keys["time"].append(day.astype("datetime64[ns]") + np.timedelta64(hour, "h"))
    n = len(keys["symbol"])
    prices = {name: np.full(n, 10.0) for name in ("open", "high", "low", "close")}
    return pa.table({**keys, **prices, "volume": np.full(n, 1000.0), "sector": ["energy"] * n})


HOLIDAYS = ("2009-11-26", "2009-12-25", "2010-01-01", "2010-01-18")


@pytest.mark.parametrize("hour", [0, 5, 21])
def test_a_holiday_is_not_a_missing_day(tmp_path, hour):
    removed = (("AAA", "2009-12-02"), ("AAA", "2010-01-19"), ("BBB", "2010-01-19"), ("BBB", "2010-01-29"))
    report = ingest(weekdays("2009-11-20", "2010-01-30", without=removed, hour=hour), tmp_path / "store")
    assert report.missing == (("AAA", "2009-12-02"), ("AAA", "2010-01-19"), ("BBB", "2010-01-19"))
    assert report.closed == () and report.stale == ("BBB",) and report.last_session == "2010-01-29"
    assert report.calendar == "XNYS" and report.status == "WARN"


def test_bars_on_closed_days_and_other_calendars(tmp_path):
    bars = weekdays("2009-11-20", "2009-12-05", closed=("2009-11-26", "2009-11-28"))
    assert ingest(bars, tmp_path / "a").closed == ("2009-11-26", "2009-11-28")
    always = ingest(bars, tmp_path / "b", calendar="24/7")
    assert always.closed == () and {day for _, day in always.missing} == {"2009-11-21", "2009-11-22", "2009-11-29"}
    assert ingest(bars, tmp_path / "c", calendar="none").warnings == ()
    with pytest.raises(DataError, match="--calendar NYSX: not known to exchange-calendars"):
        ingest(bars, tmp_path / "d", calendar="NYSX")


def test_skipped_nights_and_symbols_that_stopped(tmp_path):
    whole, store = weekdays("2009-11-02", "2009-12-12"), tmp_path / "store"
    time = whole["time"].to_numpy()
    ingest(whole.filter(pa.array(time < np.datetime64("2009-11-28"))), store)
    last = pa.array((time >= np.datetime64("2009-12-02")) & (whole["symbol"].to_numpy() == "AAA"))
    report = ingest(whole.filter(last), store)
    assert report.missing == (("AAA", "2009-11-30"), ("AAA", "2009-12-01"))  # sessions from the 27th to the 2nd
    assert report.stale == report.newly_stale == ("BBB",) and "1 symbol newly stale" in report.warnings
    later = ingest(whole.filter(last), store, as_of="2009-12-13")  # a Sunday
    assert later.last_session == "2009-12-11" and later.stale == ("BBB",) and later.newly_stale == ()
    assert ingest(whole.filter(last), store, as_of="2009-12-26").last_session == "2009-12-24"
    with pytest.raises(DataError, match="--as-of someday: expected a day"):
        ingest(whole, store, as_of="someday")


def test_without_the_package_the_report_says_that_there_is_no_calendar(tmp_path, monkeypatch):
    monkeypatch.setattr(sessions, "installed", lambda: False)
    report = ingest(weekdays("2009-11-20", "2009-12-05"), tmp_path / "a")
    assert report.calendar.startswith("none: exchange-calendars is not installed") and report.status == "OK"
    with pytest.raises(DataError, match=r"--calendar XLON: .*\[calendars\]"):
        ingest(weekdays("2009-11-20", "2009-12-05"), tmp_path / "b", calendar="XLON")
    assert not (tmp_path / "b").exists()
