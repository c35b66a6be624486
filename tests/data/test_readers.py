"""Every kind of source gives the same Panel, bit for bit, from the same bars."""

import datetime
import gzip
import importlib.util
import sqlite3
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from gpupipe.data import DataError, columns, csv_file, data_hash, load, read, simulate, time_column

PANEL = simulate(6, 40, seed=3)
HASH = data_hash(PANEL)


@pytest.fixture
def table() -> pa.Table:
    return PANEL.to_arrow()


def same(source, **options):
    panel, report = load(source, device="cpu", **options)
    assert report.data_hash == HASH == data_hash(panel)
    assert report.clean and report.rows_kept == report.rows_read == PANEL.n_rows
    return report


def plain(table: pa.Table) -> pa.Table:
    return table.cast(
        pa.schema([(f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type) for f in table.schema])
    )


def test_parquet_file(table, tmp_path):
    pq.write_table(table, tmp_path / "bars.parquet", row_group_size=50)
    report = same(tmp_path / "bars.parquet")
    assert report.kind == "parquet" and "pyarrow" in report.reader and report.path.endswith("bars.parquet")
    pq.write_table(plain(table), tmp_path / "plain.pq")
    same(str(tmp_path / "plain.pq"))


@pytest.mark.parametrize("keys", [["sector"], ["symbol"], ["sector", "symbol"]])
def test_hive_folders(table, tmp_path, keys):
    pq.write_to_dataset(plain(table), tmp_path / "hive", partition_cols=keys)
    (tmp_path / "hive" / "_SUCCESS").write_text("")
    same(tmp_path / "hive")


def test_folder_of_files_named_after_their_symbols(table, tmp_path):
    sectors = dict(zip(PANEL.symbols, PANEL.sector, strict=True))
    for symbol in PANEL.symbols:
        symbol_rows = plain(table).filter(pa.compute.equal(plain(table)["symbol"], symbol))
        pa.csv.write_csv(symbol_rows.drop_columns(["symbol", "sector"]), tmp_path / f"{symbol}.csv")
    report = same(tmp_path, sector_map=sectors)
    assert any("name is its symbol" in note for note in report.notes)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv(table, tmp_path, delimiter):
    pa.csv.write_csv(plain(table), tmp_path / "bars.csv", pa.csv.WriteOptions(delimiter=delimiter))
    same(tmp_path / "bars.csv")
    (tmp_path / "bars.csv.gz").write_bytes(gzip.compress((tmp_path / "bars.csv").read_bytes()))
    same(tmp_path / "bars.csv.gz")


def test_csv_keeps_symbols_that_look_like_null(tmp_path):
    lines = [f"{symbol},2020-01-0{day},1,1,1,1,1,energy" for symbol in ("NA", "nan", "TRUE", "1") for day in (1, 2)]
    (tmp_path / "a.csv").write_text("\ufeffTicker,Date,Open,High,Low,Close,Volume,Sector\n" + "\n".join(lines) + "\n")
    assert read(tmp_path / "a.csv", device="cpu").symbols == ("1", "NA", "TRUE", "nan")


def test_arrow_file_stream_and_feather(table, tmp_path):
    pyarrow.feather.write_feather(table, tmp_path / "bars.feather")
    with pa.OSFile(str(tmp_path / "bars.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=37)
    for name in ("bars.feather", "bars.arrow"):
        assert same(tmp_path / name).kind == "arrow"


def sqlite_file(path, rows, columns="symbol, timestamp, timeframe, open, high, low, close, volume, sector"):
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE candles ({columns})")
        connection.executemany(f"INSERT INTO candles VALUES ({', '.join('?' * len(columns.split(',')))})", rows)
    connection.close()


def rows_of(table, timeframe="1d", convert=lambda value: value):
    for row in plain(table).to_pylist():
        prices = [convert(row[name]) for name in ("open", "high", "low", "close", "volume")]
        yield (row["symbol"], int(row["time"].timestamp()) * 1000, timeframe, *prices, row["sector"])


@pytest.mark.parametrize("convert", [float, repr, lambda value: repr(value).encode()])
def test_sqlite(table, tmp_path, convert):
    sqlite_file(tmp_path / "bars.db", rows_of(table, convert=convert))
    before = (tmp_path / "bars.db").read_bytes()
    assert same(tmp_path / "bars.db").kind == "sqlite"
    assert (tmp_path / "bars.db").read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["bars.db"]


def test_sqlite_without_adbc(table, tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "adbc" in name else find_spec(name))
    sqlite_file(tmp_path / "bars.db", rows_of(table))
    assert same(tmp_path / "bars.db").reader == "read by sqlite3 (adbc-driver-sqlite is not installed)"


def test_sqlite_timeframes(table, tmp_path):
    sqlite_file(tmp_path / "bars.sqlite", [*rows_of(table, "1d"), *rows_of(table, "1h")])
    with pytest.raises(DataError, match="bars of 1d, 1h; choose one with timeframe="):
        read(tmp_path / "bars.sqlite", device="cpu")
    with pytest.raises(DataError, match="no bars of timeframe '5m'"):
        read(tmp_path / "bars.sqlite", device="cpu", timeframe="5m")
    same(tmp_path / "bars.sqlite", timeframe="1h")


def test_sqlite_text_is_data(tmp_path):
    good = ("A", "2020-01-02", "1d", "1", 2.0, 1, "1.5", "10", "energy")
    evil = ("A", "2020-01-03", "1d", "1+1", "__import__('os')", 1, "1); DROP TABLE candles", 1, "energy")
    sqlite_file(tmp_path / "bars.db", [good, evil])
    panel, report = load(tmp_path / "bars.db", device="cpu")
    assert panel.n_rows == 1 and panel.close[0] == 1.5
    (row,) = report.quarantine.to_pylist()
    assert row["open"] == "1+1" and row["reason"] == "a price is not a number" and row["row"] == 1


def test_frames(table):
    frame = table.to_pandas()
    same(table)
    same(table.combine_chunks().to_batches()[0])
    same(pl.from_arrow(table))
    same(frame)
    same(frame.set_index("time"))
    same(frame.set_index(["symbol", "time"]))
    same(frame.astype({"symbol": str, "sector": str}))
    unnamed = frame.set_index("time")
    unnamed.index.name = None
    same(unnamed)
    objects = frame.astype({"close": object, "sector": object})
    same(objects)


def test_order_of_rows_does_not_matter(table):
    rows = np.random.default_rng(0).permutation(table.num_rows)
    _, report = load(table.take(pa.array(rows)), device="cpu")
    assert report.data_hash == HASH
    assert [f.kind for f in report.findings] == ["goes back in time"]
    by_date = plain(table).sort_by([("time", "ascending"), ("symbol", "descending")])
    same(by_date)  # interleaved symbols are no finding


@pytest.mark.parametrize(
    "convert",
    [
        lambda t: t.cast(pa.date32()),
        lambda t: t.cast(pa.date64()),
        lambda t: t.cast(pa.timestamp("s", "UTC")),
        lambda t: t.cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us", "America/New_York")),
        lambda t: t.cast(pa.date32()).cast(pa.string()),
        lambda t: pa.array([str(value).replace("-", "/") for value in t.cast(pa.date32()).to_pylist()]),
        lambda t: pa.array([value.isoformat() for value in t.to_pandas()]),
        lambda t: pa.array([value.isoformat().replace("T", " ").removesuffix("+00:00") for value in t.to_pandas()]),
        lambda t: pa.array([value.tz_convert("Asia/Tokyo").isoformat() for value in t.to_pandas()]),
        lambda t: pa.array([int(value.strftime("%Y%m%d")) for value in t.to_pandas()]),
        lambda t: pa.array([value.strftime("%Y%m%d") for value in t.to_pandas()]),
        lambda t: pa.array([float(value.strftime("%Y%m%d")) for value in t.to_pandas()]),
        *(lambda t, n=n: pa.array([value // 10**n for value in t.cast(pa.int64()).to_pylist()]) for n in (0, 3, 6, 9)),
        lambda t: pa.array([str(value // 10**6) for value in t.cast(pa.int64()).to_pylist()]),
        lambda t: pa.array([value / 10**9 for value in t.cast(pa.int64()).to_pylist()]),
        lambda t: t.cast(pa.date32()).cast(pa.string()).dictionary_encode(),
    ],
)
def test_times(table, convert):
    same(table.set_column(1, "Date", convert(table["time"].combine_chunks())))


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_days_that_nanoseconds_cannot_hold_are_unknown(kind):
    days = [datetime.date(1970, 1, 2), datetime.date(2262, 4, 11), datetime.date(2300, 1, 1), datetime.date(1, 1, 1)]
    for values in (days, [*days, None]):
        times = time_column.parse(pa.chunked_array([pa.array(values, kind)]), "here").time_ns
        expected = [86_400 * 10**9, 106_751 * 86_400 * 10**9] + [time_column.UNKNOWN_TIME] * (len(values) - 2)
        assert times.dtype == np.int64 and times.tolist() == expected


def test_dictionaries_in_any_order_and_width_give_the_same_codes():
    for names in (["A", "B", "C"], ["C", "A", "B"], ["A", " B", "C "], ["B", "A ", "C", None]):
        text = ["A", "C", "B", "A", "C"]
        index = [[str(name).strip() for name in names].index(value) for value in text]
        for width in (pa.int8(), pa.int32(), pa.int64()):
            encoded = pa.DictionaryArray.from_arrays(pa.array(index, width), pa.array(names, pa.string()))
            code, sorted_names = columns.encode_names(pa.chunked_array([encoded, encoded]), "here")
            assert sorted_names == ("A", "B", "C")
            assert code.dtype == np.int32 and code.tolist() == [0, 2, 1, 0, 2] * 2


def test_seconds_with_a_fraction():
    rows = {**bar_columns(2), "t": [1.6e9 + 0.25, 1.6e9 + 0.5]}
    assert (read(pa.table(rows), device="cpu").time_ns - 1_600_000_000 * 10**9).tolist() == [250_000_000, 500_000_000]


SUMMER = [str(time) for time in pd.date_range("2021-06-01", periods=30, tz="Europe/London")]


@pytest.mark.parametrize("first", [
    "2021-01-01T00:00:00Z", "2021-01-01 00:00:00+00:00", "2021-01-01T00:00:00.000Z", "", "2021-01-01", "20210101"
])  # fmt: skip
@pytest.mark.parametrize("head", ["symbol,sector,date", "symbol,date,sector"])
@pytest.mark.parametrize("sector", ["energy", '"oil, gas"'])
def test_a_csv_file_keeps_offsets_after_its_first_lines(first, head, sector, tmp_path):
    cells = [(f"S{k:04d}", first) for k in range(3000)] + [("S", time) for time in SUMMER]
    order = [("symbol", "sector", "date").index(name) for name in head.split(",")]
    lines = [",".join([(symbol, sector, time)[k] for k in order] + ["2", "3", "1", "2", "9"]) for symbol, time in cells]
    (tmp_path / "a.csv").write_text("\n".join([head + ",open,high,low,close,volume", *lines]))
    panel, report = load(tmp_path / "a.csv", device="cpu", max_quarantined=1.0)
    days = panel.time_ns[panel.offsets[0] :].astype("M8[ns]").astype("M8[D]")
    assert panel.n_rows == 30 + 3000 * bool(first) and report.quarantine.num_rows == 3000 * (not first)
    np.testing.assert_array_equal(days[:30], np.arange("2021-06-01", "2021-07-01", dtype="M8[D]"))


def test_times_that_end_in_z_are_read_once(tmp_path, monkeypatch):
    lines = [f"S,2021-01-{4 + k:02d}T10:00:00Z,2021-01-{4 + k:02d},1,1,1,1,1" for k in range(9)] + ["S,,,1,1,1,1,1"]
    (tmp_path / "a.csv").write_text("symbol,timestamp,date,open,high,low,close,volume\n" + "\n".join(lines))
    read_csv, types = pa.csv.read_csv, []
    monkeypatch.setattr(pa.csv, "read_csv", lambda *args, **options: types.append(1) or read_csv(*args, **options))
    table, matches, _ = csv_file.read(tmp_path / "a.csv", ["time"])
    assert table[matches["time"]].type == pa.timestamp("ns", "UTC") and table["date"].type == pa.date32()
    assert table["timestamp"].null_count == 1 and len(types) == 1


NAIVE = pd.date_range("2021-03-10", periods=6)  # the clocks of New York change on 14 March
CLOCKS = {zone: NAIVE.tz_localize(zone) for zone in ("America/New_York", "Asia/Tokyo", "UTC")}
CLOCKS["parsed"] = [datetime.datetime.fromisoformat(str(time)) for time in CLOCKS["America/New_York"]]
CLOCKS["naive"], CLOCKS["dates"] = NAIVE, [time.date() for time in NAIVE]


@pytest.mark.parametrize("clocks", [("America/New_York", "Asia/Tokyo"), ("parsed",), ("UTC", "parsed"),
                                    ("naive", "Asia/Tokyo"), ("dates", "naive"), ("dates", "Asia/Tokyo")])  # fmt: skip
@pytest.mark.parametrize("change", [
    lambda frame: frame,
    lambda frame: frame.set_index(["symbol", "date"]),
    lambda frame: frame.assign(date=frame["date"].astype("category")),
])  # fmt: skip
def test_every_datetime_object_keeps_its_offset(clocks, change):
    """Arrow takes the zone of the first one for all."""
    frame = pd.DataFrame(bar_columns(6 * len(clocks)))
    frame["symbol"] = np.repeat([f"S{k}" for k in range(len(clocks))], 6)
    frame["date"] = pd.Series([time for name in clocks for time in CLOCKS[name]], dtype=object)
    panel = read(change(frame), device="cpu")
    np.testing.assert_array_equal(panel.time_ns, np.tile(NAIVE.as_unit("ns").asi8, len(clocks)))


def test_datetime_objects_of_a_day_when_clocks_change():
    hours = pd.date_range("2021-03-14 00:30", periods=6, freq="h", tz="America/New_York")
    parsed = pd.Series([datetime.datetime.fromisoformat(str(hour)) for hour in hours], dtype=object)
    panel = read(pd.DataFrame({**bar_columns(6), "time": parsed}), device="cpu")
    np.testing.assert_array_equal(panel.time_ns, hours.as_unit("ns").asi8)
    np.testing.assert_array_equal(panel.local_ns, hours.tz_localize(None).as_unit("ns").asi8)


def test_a_date_object_before_a_datetime_does_not_cut_it():
    times = [datetime.datetime(2021, 1, 4, 9 + k) for k in range(6)]
    frame = pd.DataFrame({**bar_columns(7), "time": pd.Series([datetime.date(2021, 1, 4), *times], dtype=object)})
    assert read(frame, device="cpu").time_ns[1:].astype("M8[ns]").astype("M8[us]").tolist() == times


def bar_columns(n):
    prices = {name: [1.0] * n for name in ("open", "high", "low", "close", "volume")}
    return {"symbol": ["A"] * n, "sector": ["energy"] * n, **prices}


@pytest.mark.parametrize(
    "names",
    [
        ("Ticker", "Date", "Open", "High", "Low", "Close", "Volume", "GICS Sector"),
        ("SYMBOL", "<DATE>", "<OPEN>", "<HIGH>", "<LOW>", "<CLOSE>", "<VOL>", "Sector"),
        ("name", "timestamp", "o", "h", "l", "c", "v", "sector_name"),
        ("Instrument", "Open time", "open_price", "high_price", "low_price", "PX_LAST", "tick_volume", "sector"),
    ],
)
def test_spellings(table, names):
    order = ["symbol", "time", "open", "high", "low", "close", "volume", "sector"]
    same(table.select(order).rename_columns(list(names)))


def test_adjusted_close(table):
    factor = np.full(PANEL.n_rows, 0.5)
    with_adjusted = table.append_column("Adj Close", pa.array(PANEL.close.astype(np.float64) * factor))
    report = same(with_adjusted)
    assert any("was not used" in note for note in report.notes)
    panel = read(with_adjusted, device="cpu", adjusted=True)
    for name in ("open", "high", "low", "close"):
        np.testing.assert_array_equal(getattr(panel, name), getattr(PANEL, name) * np.float32(0.5))
    np.testing.assert_array_equal(panel.volume, PANEL.volume)
    with pytest.raises(DataError, match="no column for adj_close"):
        read(table, device="cpu", adjusted=True)


def test_sector_maps(table, tmp_path):
    bare = table.drop_columns(["sector"])
    sectors = dict(zip(PANEL.symbols, PANEL.sector, strict=True))
    lines = [f"{symbol},{sector},A Company Inc" for symbol, sector in sectors.items()]
    (tmp_path / "sectors.csv").write_text("symbol,sector,name\n" + "\n".join(lines))
    frame = pd.DataFrame({"Ticker": sectors.keys(), "Sector": sectors.values()})
    for given in (sectors, tmp_path / "sectors.csv", frame):
        same(bare, sector_map=given)
    mapped = read(table, sector_map={PANEL.symbols[0]: "Information Technology"}, device="cpu")
    assert mapped.sector == ("technology", *PANEL.sector[1:])


def test_sectors_are_selected_by_their_canonical_names(table):
    names = {"consumer_staples": "Consumer Defensive", "energy": "Energy ", "financials": "My own / Sector"}
    renamed = table.drop_columns(["sector"])
    mapping = {s: names.get(k, k) for s, k in zip(PANEL.symbols, PANEL.sector, strict=True)}
    panel, report = load(renamed, mapping, "Energy, my own sector", device="cpu")
    assert panel.groups == ("energy", "my_own_sector") and report.rows_read == 240 and report.rows_selected == 80
    assert read(renamed, mapping, ["consumer staples"], device="cpu").groups == ("consumer_staples",)


def test_real_file_in_time(sp500_folder):
    import time

    started = time.process_time()
    panel, report = load(sp500_folder / "sp500_daily.parquet", sp500_folder / "sectors.csv", device="cpu")
    elapsed_s = time.process_time() - started
    assert (panel.n_rows, panel.n_symbols, len(panel.groups)) == (619_018, 505, 11)
    assert (report.first_time, report.last_time) == ("2013-02-08", "2018-02-07")
    # Flagged are three takeovers that look like splits, repaired is the low of a crash that lasted minutes.
    assert [(f.action, f.rows) for f in report.findings] == [("repaired", 1), ("flagged", 3)]
    assert report.quarantine.num_rows == 0
    assert elapsed_s < 5  # about 0.4 s of processor time alone on a core; room for a busy machine


def test_import_loads_nothing_heavy():
    code = (
        "import sys, gpupipe.data; "
        "print([m for m in ('pandas', 'polars', 'pyarrow', 'scipy', 'numba', 'cupy', 'cudf') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.gpu
def test_cudf_reads_the_same_bits(device, table, tmp_path):
    cudf = pytest.importorskip("cudf")
    if device.kind == "cpu":
        pytest.skip("the host readers are tested above")
    pq.write_table(plain(table).set_column(1, "time", table["time"].cast(pa.timestamp("ns"))), tmp_path / "a.parquet")
    for source in (tmp_path / "a.parquet", cudf.read_parquet(tmp_path / "a.parquet")):
        panel, report = load(source, device=device)
        assert panel.device.kind == "cuda" and report.data_hash == HASH and "cuDF" in report.reader


@pytest.mark.gpu
def test_cudf_reads_a_bar_store(device, tmp_path):
    pytest.importorskip("cudf")
    if device.kind == "cpu":
        pytest.skip("the host readers are tested above, and the logic in test_cuda.py")
    from gpupipe.data.ingest import ingest

    ingest(PANEL.to_arrow(), tmp_path / "store", calendar="none")
    _, report = load(tmp_path / "store", device=device)
    assert report.data_hash == HASH and report.reader == "read by cuDF, validated on the device"
    on_device, on_host = (
        load(tmp_path / "store", sectors=PANEL.sector[0], device=place)[1] for place in (device, "cpu")
    )
    assert on_device.data_hash == on_host.data_hash
