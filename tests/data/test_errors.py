"""Each error that the user must correct is one clear line, and nothing is written."""

import gzip
import sqlite3
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpupipe.data import DataError, load, read, simulate
from gpupipe.data.sectors import GICS, canonical

PANEL = simulate(4, 10)


@pytest.fixture
def table():
    return PANEL.to_arrow()


def refused(source, words, **options):
    with pytest.raises(DataError, match=words) as caught:
        read(source, device="cpu", **options)
    assert isinstance(caught.value, ValueError) and "\n" not in str(caught.value)
    return str(caught.value)


def test_paths(tmp_path, table):
    refused(tmp_path / "none.parquet", "no such file or folder")
    refused(tmp_path, "the folder holds no file that ends in .parquet, .pq, .csv")
    (tmp_path / "bars.xlsx").write_bytes(b"PK")
    refused(tmp_path / "bars.xlsx", "expected a name that ends in .parquet")
    (tmp_path / "empty.csv").write_bytes(b"")
    refused(tmp_path / "empty.csv", "the file is empty")
    pq.write_table(table, tmp_path / "bars.parquet")
    refused(tmp_path, r"the folder mixes CSV|the file is empty")
    (tmp_path / "empty.csv").write_bytes(b"a,b\n")
    refused(tmp_path, r"the folder mixes CSV \(empty.csv\) and Parquet \(bars.parquet\)")


def test_files_whose_content_does_not_match_their_names(tmp_path, table):
    pq.write_table(table, tmp_path / "bars.csv")
    refused(tmp_path / "bars.csv", "named like CSV, but it holds Parquet")
    (tmp_path / "bars.parquet").write_text("symbol,date\n")
    refused(tmp_path / "bars.parquet", "named like Parquet, but it holds CSV")
    (tmp_path / "bars.csv.gz").write_text("symbol,date\n")
    refused(tmp_path / "bars.csv.gz", "named like gzipped CSV, but it holds CSV")
    (tmp_path / "bars.feather").write_bytes(b"FEA1" + bytes(100))
    refused(tmp_path / "bars.feather", "named like Arrow, but it holds Feather version 1")
    (tmp_path / "bars.db").write_bytes(bytes(range(256)))
    refused(tmp_path / "bars.db", "named like SQLite, but it holds binary data")


def test_damaged_files(tmp_path, table):
    pq.write_table(table, tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "a.parquet", "cannot be read as Parquet")
    (tmp_path / "a.arrow").write_bytes(b"ARROW1" + bytes(50))
    refused(tmp_path / "a.arrow", "cannot be read as Arrow")
    (tmp_path / "a.db").write_bytes(b"SQLite format 3\0" + bytes(200))
    refused(tmp_path / "a.db", "cannot be read as an SQLite file|no table 'candles'")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"symbol,date,open,high,low,close,volume\n" * 99)[:40])
    refused(tmp_path / "a.csv.gz", "not a CSV text|cannot be read as CSV")
    (tmp_path / "latin.csv").write_bytes("symbol,date,öpen\n".encode("latin-1"))
    refused(tmp_path / "latin.csv", "not a CSV text in UTF-8")


def test_sqlite_without_candles(tmp_path):
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("CREATE TABLE prices (symbol, close)")
    connection.close()
    refused(tmp_path / "a.db", "no table 'candles'; the file has 'prices'")
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("CREATE TABLE candles (symbol, close)")
    connection.close()
    refused(tmp_path / "a.db", "no column for time, open, high, low, volume")


def test_columns(table):
    message = refused(table.drop_columns(["close", "volume"]), "no column for close, volume")
    assert "'symbol', 'time', 'sector', 'open', 'high', 'low'" in message and "volume as volume, vol" in message
    refused(table.append_column("close", table["open"]), "column 'close' occurs 2 times")
    refused(table.set_column(3, "open", pa.array([True] * 40)), "column 'open' has type bool, expected numbers")
    refused(table.set_column(1, "time", pa.array([True] * 40)), "column 'time' has type bool, expected dates")
    refused(table.set_column(0, "symbol", pa.array([1.5] * 40)), "column 'symbol' has type double, expected text")
    refused(table, "no bars of timeframe '1h'; the data have no timeframes", timeframe="1h")
    refused([1, 2], "cannot read a builtins list; expected a path")


@pytest.mark.parametrize("name", ["symbol", "time", "sector", "close"])
def test_texts_that_are_not_utf8(table, name):
    """Arrow and Parquet files hold the bytes that their writer gave them."""
    ends, latin1 = struct.pack("<2i", 0, 2), b"B\xfc"
    wrong = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(ends), pa.py_buffer(latin1)])
    texts = pa.concat_arrays([pa.array(["A"] * 39), wrong])
    for column in (texts, texts.dictionary_encode()):
        changed = table.set_column(table.column_names.index(name), name, column)
        refused(changed, f"column '{name}' holds a text that is not UTF-8: write the file again, or repair it")
    by_symbol = pa.table({"symbol": texts[38:], "sector": ["energy", "energy"]})
    refused(table, "sector map: column 'symbol' holds a text that is not UTF-8", sector_map=by_symbol)


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_times_that_python_cannot_hold_are_shown_as_numbers(table, unit):
    far = pa.array([2**62] * 40, pa.int64()).cast(pa.timestamp(unit))
    two = table.set_column(1, "date", far).append_column("timestamp", pa.nulls(40, pa.float64()))
    refused(two, f"'{2**62}' is not understood as a time")


def test_sectors(table, tmp_path):
    bare = table.drop_columns(["sector"])
    message = refused(bare, "4 of 4 symbols have no sector: 'SIM0000', 'SIM0001', 'SIM0002', 'SIM0003'; give --sector-")
    assert "CSV" in message
    refused(bare, "1 of 4 symbols have no sector: 'SIM0003'", sector_map=dict.fromkeys(PANEL.symbols[:3], "energy"))
    refused(table, "no symbol has sector 'enregy'; did you mean 'energy'", sectors="enregy")
    refused(table, r"no symbol has sector 'utilities' \(the data have communication_services", sectors=["utilities"])
    refused(table, "no sector is named", sectors=" , ")
    refused(table, "sectors must be names", sectors=[1])
    refused(table, "sector map .*nothing.csv: no such file", sector_map=tmp_path / "nothing.csv")
    (tmp_path / "map.csv").write_text("symbol,sector\nA,energy\nA,technology\n")
    refused(bare, "symbol 'A' has two sectors, 'energy' and 'technology'", sector_map=tmp_path / "map.csv")
    (tmp_path / "map.csv").write_text("symbol,field\nA,energy\n")
    refused(bare, "no column for sector", sector_map=tmp_path / "map.csv")
    (tmp_path / "map.csv").write_text("symbol,sector\nA,energy,more\n")
    refused(bare, "a row has 3 fields instead of 2", sector_map=tmp_path / "map.csv")
    two = table.drop_columns(["sector"]).append_column("sector", pa.array(["energy"] * 39 + ["utilities"]))
    refused(two, "symbol 'SIM0003' has two sectors, energy and utilities; settle it with --sector-map")
    assert read(two, {"SIM0003": "energy"}, device="cpu").groups == ("energy",)


def test_empty_results(table):
    refused(table.slice(0, 0), "the data hold no rows")
    none = table.set_column(3, "open", pa.array([-1.0] * 40))
    refused(none, "no row is left; 40 rows quarantined: a price is not positive")
    days = table.set_column(1, "time", pa.array(["someday"] * 40))
    refused(days, "no row is left; 40 rows quarantined: time is not known")


def test_ambiguous_columns_are_refused_with_the_fix(tmp_path, table):
    for text in ("02/08/2013", "31.12.2013", "1-2-13", "02/08/2013 16:00"):
        days = table.set_column(1, "time", pa.array([text] * 40))
        words = refused(days, f"column 'time': dates as '{text}' have the day or the month first")
        assert "write them as 2024-01-31" in words
    for text in ("1,5", "1.501,5", "1,501.5"):
        prices = table.set_column(3, "open", pa.array([text if k % 2 else "2" for k in range(40)]))
        refused(prices, f"column 'open': numbers are written with commas, as '{text}': write them as 1501.5")
    (tmp_path / "bars.csv").write_text("symbol;sector;date;open;high;low;close;volume\nA;x;2020-01-31;1,5;2;1;1,5;7\n")
    refused(tmp_path / "bars.csv", r"bars\.csv: column 'open': numbers are written with commas, as '1,5'.*decimal=','")
    few = table.set_column(3, "open", pa.array(["1,5", *map(str, table["open"].to_pylist()[1:])]))
    report = load(pa.concat_tables([few, *[few.slice(1)] * 4]), device="cpu")[1]  # 1 row of 196 is broken
    quarantined = [(finding.kind, finding.rows) for finding in report.findings if finding.action == "quarantined"]
    assert quarantined == [("a price is not a number", 1)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("simulated:rows=5", "'rows=5' is not understood"),
        ("simulated:symbol=5", "did you mean symbols="),
        ("simulated:bars=many", "bars='many' is not a number"),
        ("simulated:bars=0", "at least 1"),
        ("simulated:signal=2", "signal must be in 0..1, got 2.0"),
        ("simulated:signal=nan", "signal must be in 0..1"),
        ("simulated:bar=5min", "bar must be 1d or 1min"),
        ("simulated:seed=-1", "seed must be at least 0"),
    ],
)
def test_simulated_options(options, words):
    refused(options, words)


def test_built_in_sources_take_no_reading_options():
    refused("simulated", "timeframe and adjusted apply to files and frames", timeframe="1d")
    with pytest.raises(ValueError, match="device 'tpu' is unknown"):
        load("simulated", device="tpu")


def test_gics_names_have_a_canonical_spelling():
    official = (
        "Communication Services",
        "Consumer Discretionary",
        "Consumer Staples",
        "Energy",
        "Financials",
        "Health Care",
        "Industrials",
        "Materials",
        "Real Estate",
        "Information Technology",
        "Utilities",
    )
    assert tuple(map(canonical, official)) == GICS == tuple(map(canonical, GICS))
    assert canonical("Telecommunications Services") == "communication_services"
    assert canonical("../Crypto & FX") == "crypto_and_fx" and canonical("  ") == ""
