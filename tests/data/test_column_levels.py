"""Columns of two levels, as yfinance writes them: as CSV, as Parquet and as frames, in every order."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from gpupipe.data import DataError, load, read

PRICES = ("Adj Close", "Close", "High", "Low", "Open", "Volume")
SYMBOLS = ("C", "MSFT")  # the ticker of Citigroup is a spelling of close


def wide(tickers=SYMBOLS, *, by_ticker=False, adjusted=True, zone=None, intraday=False, named=True) -> pd.DataFrame:
    """Six bars of each ticker; the second has none at the third time, and starts a hundred higher."""
    name = ("Datetime" if intraday else "Date") if named else None
    index = pd.date_range("2024-05-20", periods=6, freq="h" if intraday else "B", tz=zone, name=name)
    values = {}
    for k, ticker in enumerate(tickers):
        close = 100.0 * k + np.arange(10, 16)
        bars = (close / 2, close, close + 1, close - 1, close, close * 1000)
        values |= {
            (price, ticker): bar for price, bar in zip(PRICES, bars, strict=True) if adjusted or price != PRICES[0]
        }
    frame = pd.DataFrame(values, index=index)
    frame.columns = pd.MultiIndex.from_tuples(frame.columns, names=["Price", "Ticker"] if named else [None, None])
    if len(tickers) > 1:
        frame.loc[frame.index[2], (slice(None), tickers[1])] = np.nan
    frame = frame.swaplevel(axis=1) if by_ticker else frame
    return frame.sort_index(axis=1)


def check(source, *, symbols=SYMBOLS, days=True, **options):
    panel, report = load(source, dict.fromkeys(symbols, "Energy"), device="cpu", **options)
    assert panel.symbols == symbols and report.findings == () and report.quarantine.num_rows == 0
    scale = 0.5 if options.get("adjusted") else 1.0
    first = np.arange(10, 16) * scale
    second = np.array([110, 111, 113, 114, 115]) * scale
    np.testing.assert_array_equal(panel.close, np.float32([*first, *second][: panel.n_rows]))
    np.testing.assert_array_equal(panel.volume, panel.close / np.float32(scale) * 1000)
    assert panel.n_rows == (6 if len(symbols) == 1 else 11)
    if days:
        assert str(panel.time_ns[:1].astype("M8[ns]").astype("M8[D]")[0]) == "2024-05-20"
    assert any("two levels, prices and symbols" in note for note in report.notes)
    return panel


FORMS = {
    "as it comes": wide(),
    "by ticker": wide(by_ticker=True),
    "adjusted": wide(adjusted=False),
    "without names": wide(named=False),
    "with a zone": wide(zone="America/New_York"),
    "time as a column": wide().reset_index(),
    "time as a column, by ticker": wide(by_ticker=True).reset_index(),
}


@pytest.mark.parametrize("form", FORMS)
def test_csv_parquet_and_frame(tmp_path, form):
    frame = FORMS[form]
    check(frame)
    frame.to_csv(tmp_path / "bars.csv")
    check(tmp_path / "bars.csv")
    frame.to_csv(tmp_path / "bars.csv", index=False) if "column" in form else frame.to_csv(
        tmp_path / "bars.csv", sep=";"
    )
    check(tmp_path / "bars.csv")
    frame.to_parquet(tmp_path / "bars.parquet")
    check(tmp_path / "bars.parquet")
    frame.set_axis(map(str, frame.columns), axis=1).to_feather(tmp_path / "bars.feather")
    if "column" in form:  # Feather keeps no index
        check(tmp_path / "bars.feather")


def test_names_made_of_tuples_in_any_frame():
    frame = wide().reset_index()
    tuples = frame.set_axis(frame.columns.to_flat_index(), axis=1)
    table = pa.Table.from_pandas(wide())
    for source in (tuples, wide().set_axis(wide().columns.to_flat_index(), axis=1), table, pl.from_arrow(table)):
        check(source)


def test_further_columns_of_yfinance_are_left_out(tmp_path):
    frame = wide(named=False)
    for name, value in {"Dividends": 0.0, "Repaired?": False, "Stock Splits": 0.0}.items():
        for ticker in SYMBOLS:
            frame.insert(0, (name, ticker), value)
    check(frame)
    frame.to_parquet(tmp_path / "bars.parquet")  # the index comes last, and has no name
    check(tmp_path / "bars.parquet")
    frame.to_csv(tmp_path / "bars.csv")
    check(tmp_path / "bars.csv")


def test_one_ticker_and_its_file_name(tmp_path):
    wide(("AAPL",)).to_csv(tmp_path / "download.csv")
    assert (
        (tmp_path / "download.csv").read_text().startswith("Price,Adj Close,Close,High,Low,Open,Volume\nTicker,AAPL,")
    )
    check(tmp_path / "download.csv", symbols=("AAPL",))
    wide(("AAPL",)).droplevel("Ticker", axis=1).to_csv(tmp_path / "AAPL.csv")  # multi_level_index=False
    panel = read(tmp_path / "AAPL.csv", {"AAPL": "Energy"}, device="cpu")
    np.testing.assert_array_equal(panel.close, np.float32(np.arange(10, 16)))


def test_adjusted_prices_and_times_of_day(tmp_path):
    wide().to_csv(tmp_path / "days.csv")
    check(tmp_path / "days.csv", adjusted=True)
    wide(intraday=True, zone="America/New_York").to_csv(tmp_path / "hours.csv")
    panel = check(tmp_path / "hours.csv", days=False)
    hours = panel.time_ns[:2].astype("M8[ns]").astype("M8[h]")
    assert [str(hour) for hour in hours] == ["2024-05-20T04", "2024-05-20T05"] and panel.local_ns is not None


def test_a_folder_of_downloads_of_which_one_failed(tmp_path):
    wide(("AAPL",)).to_csv(tmp_path / "AAPL.csv")
    (tmp_path / "GONE.csv").write_text(
        "Price,Adj Close,Close,High,Low,Open,Volume\nTicker" + ",GONE" * 6 + "\nDate,,,,,,\n"
    )
    panel, report = load(tmp_path, {"AAPL": "Energy"}, device="cpu")
    assert panel.symbols == ("AAPL",) and panel.n_rows == 6
    assert [(f.kind, f.action, f.rows, f.symbols, f.example) for f in report.findings] == [
        ("symbol has no bars", "skipped", 0, 1, "GONE")
    ]


def test_a_ticker_without_bars_is_a_finding(tmp_path):
    frame = wide()
    for price in PRICES:
        frame[(price, "GONE")] = np.nan
    frame.to_csv(tmp_path / "bars.csv")
    for source in (frame, tmp_path / "bars.csv"):
        panel, report = load(source, dict.fromkeys(SYMBOLS, "Energy"), device="cpu")
        assert panel.symbols == SYMBOLS and [(f.kind, f.example) for f in report.findings] == [
            ("symbol has no bars", "GONE")
        ]


def test_a_broken_cell_is_quarantined_alone(tmp_path):
    wide().to_csv(tmp_path / "bars.csv")
    text = (tmp_path / "bars.csv").read_text().replace("2024-05-24,7.0,57.0,14.0", "2024-05-24,7.0,57.0,oops", 1)
    assert "oops" in text
    (tmp_path / "bars.csv").write_text(text)
    panel, report = load(tmp_path / "bars.csv", dict.fromkeys(SYMBOLS, "Energy"), device="cpu")
    assert panel.n_rows == 10
    (row,) = report.quarantine.to_pylist()
    assert (row["symbol"], row["time"][:10], row["close"], row["reason"]) == (
        "C", "2024-05-24", "oops", "a price is not a number",
    )  # fmt: skip


def test_a_bar_without_a_date_is_no_second_line_of_names(tmp_path):
    (tmp_path / "A.csv").write_text("Date,Open,High,Low,Close,Volume\n,5,5,5,5,5\n2020-01-02,1,2,0.5,1,7\n")
    panel, report = load(tmp_path / "A.csv", {"A": "Energy"}, device="cpu")
    assert panel.n_rows == 1 and [f.kind for f in report.findings] == ["time is not known"]


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (wide()["Close"], "no column for .*open, high, low.*symbols with one price each"),
        (wide()[["Close"]], "Close.*prices .open, high, low, close, volume. in one|has open, high, low and close"),
        (wide().drop(columns="Volume", level=0), "no column for volume of any symbol"),
        (pd.concat({"x": wide()}, axis=1), "columns have 3 levels; give one row for each symbol and time"),
    ],
)
def test_other_shapes_are_refused(tmp_path, frame, words):
    with pytest.raises(DataError, match=words):
        read(frame, device="cpu")
    if frame.columns.nlevels < 3:
        frame.to_csv(tmp_path / "bars.csv")
        with pytest.raises(DataError, match=words):
            read(tmp_path / "bars.csv", device="cpu")


def test_a_column_that_comes_twice_is_refused():
    frame = wide()
    frame = pd.concat([frame, frame[[("Close", "C")]]], axis=1)
    with pytest.raises(DataError, match="column 'close' of symbol 'C' occurs 2 times"):
        read(frame, device="cpu")


def test_a_polars_frame_of_pairs_with_blanks_is_read():
    """Polars has views of texts, of which Arrow takes no rows."""
    days = [f"2021-01-{day:02d}" for day in range(1, 31)]
    blank = {"A": [1.0] * 30, "B": [None] * 5 + [1.0] * 25}
    names = ("Open", "High", "Low", "Close", "Volume")
    prices = {f"('{name}', '{symbol}')": values for symbol, values in blank.items() for name in names}
    panel, _ = load(pl.DataFrame({"('Date', '')": days, **prices}), device="cpu", no_sector="other")
    assert panel.offsets.tolist() == [0, 30, 55]
