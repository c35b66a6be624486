"""For any input, the readers return a Panel or raise a DataError of one line, and nothing else."""

import contextlib
import os
import sqlite3

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpupipe.data import DataError, load, simulate, time_limits
from gpupipe.data.panel import Panel
from gpupipe.data.table_file import read_table

# `python -m tests.support.fuzz` sets a larger number of examples, which are then random.
N_EXAMPLES = int(os.environ.get("GPUPIPE_FUZZ", 0))
SLOW = settings(
    deadline=None,
    max_examples=N_EXAMPLES or 60,
    derandomize=not N_EXAMPLES,
    database=None,
    suppress_health_check=list(HealthCheck),
)
NAMES = ("symbol", "date", "open", "high", "low", "close", "volume", "sector", "timeframe", "adj close")
RARE = ("time", "timestamp", "<VOL>")  # beside a date and a volume
TIMES = ("2021/1/4", "Jan 04, 2021", "04-Jan-21", "2021-01-04T09:30+09", "20210104 0930", "9999-12-31", "09:30", "0930")
DIGITS = (44_200, 18_631, 2_459_219, 210_104, 4_012_021, 2_021_004, 202_101_040_930, 1_609_718_400, 1_609_718_400_000)

words = st.one_of(
    st.sampled_from(["A", "B", " A ", "", "NaN", "1", "1.5", "-3", "1e400", "2020-01-02", "20200102", "energy", "\0"]),
    st.sampled_from(TIMES),
    st.sampled_from(DIGITS).map(str),
    st.text(max_size=6),
)
numbers = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 1.5, 3e38, 1e-46, float("nan"), float("inf"), 20200102.0, 1.6e9, 1e300]),
    st.sampled_from(DIGITS).map(lambda number: number + 0.5),
    st.floats(),
)
whole = st.one_of(
    st.sampled_from([0, 1, 2, 20200102, 20209999, 1_600_000_000, 2**62]),
    st.sampled_from(DIGITS),
    st.integers(-(2**63), 2**63 - 1),
)
arrow_types = {
    "text": (words, pa.string()),
    "large text": (words, pa.large_string()),
    "number": (numbers, pa.float64()),
    "short number": (st.sampled_from([1.0, 2.0, 0.5]), pa.float32()),
    "whole": (whole, pa.int64()),
    "unsigned": (st.integers(0, 2**64 - 1), pa.uint64()),
    "date": (st.dates(), pa.date32()),
    "seconds": (whole, pa.timestamp("s")),
    "zoned": (whole, pa.timestamp("ms", "Asia/Tokyo")),
    "time of day": (st.integers(0, 86_399), pa.time32("s")),
    "flag": (st.booleans(), pa.bool_()),
    "bytes": (st.binary(max_size=4), pa.binary()),
    "decimal": (st.decimals(-1000, 1000, places=2), pa.decimal128(10, 2)),
    "list": (st.lists(st.integers(0, 3), max_size=2), pa.list_(pa.int64())),
    "nothing": (st.none(), pa.null()),
}
TWO = pa.table(
    {
        "symbol": ["A", "B"],
        "date": ["2020-01-02", "2020-01-02"],
        **{name: [1.0, 2.0] for name in ("open", "high", "low", "close", "volume")},
    }
)


def check(source, **options):
    try:
        panel, report = load(source, device="cpu", **options)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(panel, Panel) and panel.n_rows == report.rows_kept > 0
        assert (panel.time_ns <= time_limits.latest_ns()).all() or str(source).startswith("simulated")
        assert report.to_json()


@st.composite
def tables(draw):
    n = draw(st.integers(0, 6))
    usual = {"symbol": "text", "date": "date", "sector": "text"}
    columns = {}
    for name in (*NAMES, *RARE):
        if draw(st.integers(0, 9)) in ((0,) if name in NAMES else range(8)):
            continue
        kind = usual.get(name, "short number") if draw(st.integers(0, 3)) else draw(st.sampled_from(list(arrow_types)))
        values, arrow_type = arrow_types[kind]
        array = pa.array(draw(st.lists(st.none() | values, min_size=n, max_size=n)), arrow_type)
        columns[name] = array.dictionary_encode() if kind in ("text", "date") and draw(st.booleans()) else array
    return pa.table(columns)


@SLOW
@given(
    tables(), st.sampled_from([None, {"A": "energy", "B": "my sector"}]), st.booleans(), st.sampled_from([0, 0.05, 1])
)
def test_frames(table, sector_map, adjusted, max_quarantined):
    check(table, sector_map=sector_map, adjusted=adjusted, max_quarantined=max_quarantined)
    try:
        frame = table.to_pandas(date_as_object=False, timestamp_as_object=True)
    except (ValueError, OverflowError, pa.ArrowException):
        return  # a time that pandas cannot hold
    check(frame, sector_map=sector_map)


@SLOW
@given(st.lists(st.lists(words, min_size=6, max_size=9).map(",".join), max_size=8).map("\n".join))
def test_csv_text(tmp_path_factory, body):
    path = tmp_path_factory.mktemp("csv") / "bars.csv"
    path.write_text("symbol,date,open,high,low,close,volume\n" + body, encoding="utf-8", errors="replace")
    check(path, sector_map={"A": "energy"})
    path.write_text(body, encoding="utf-8", errors="replace")
    check(path)


@SLOW
@given(st.sampled_from([".parquet", ".csv", ".csv.gz", ".feather", ".db"]), st.binary(max_size=300))
def test_bytes(tmp_path_factory, suffix, content):
    starts = {".parquet": b"PAR1", ".csv": b"symbol,date\n", ".csv.gz": b"\x1f\x8b", ".feather": b"ARROW1", ".db": b""}
    path = tmp_path_factory.mktemp("bytes") / f"bars{suffix}"
    for start in (b"", starts[suffix] or b"SQLite format 3\0"):
        path.write_bytes(start + content)
        check(path)


class Files(dict):
    """Contents by name. A test that fails is printed with its fixtures: in short, or that is a failure of its own."""

    def __repr__(self):
        return f"contents of {', '.join(self)}"


@pytest.fixture(scope="module")
def real_files(tmp_path_factory):
    table = simulate(2, 20).to_arrow()
    folder = tmp_path_factory.mktemp("real")
    pq.write_table(table, folder / "bars.parquet")
    pyarrow.feather.write_feather(table, folder / "bars.feather", compression="uncompressed")
    pa.csv.write_csv(table.cast(pa.schema([(f.name, pa.string()) for f in table.schema])), folder / "bars.csv")
    return Files({path.suffix: path.read_bytes() for path in folder.iterdir()})


@SLOW
@given(
    st.sampled_from([".parquet", ".feather", ".csv"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=5),
    st.floats(0.5, 1),
)
def test_damaged_files(real_files, tmp_path_factory, suffix, changes, kept):
    content = bytearray(real_files[suffix])
    for where, value in changes:
        content[int(where * len(content))] = value
    path = tmp_path_factory.mktemp("damaged") / f"bars{suffix}"
    path.write_bytes(bytes(content[: int(kept * len(content))] if kept < 0.75 else content))
    check(path)


def test_parquet_with_any_byte_of_its_texts_damaged(tmp_path):
    """Numbers that point outside of a page's dictionary are one of the faults that this makes."""
    path = tmp_path / "bars.parquet"
    pq.write_table(simulate(6, 5).to_arrow(), path)
    content, first = path.read_bytes(), pq.ParquetFile(path).metadata.row_group(0).column(0)
    end = first.dictionary_page_offset + first.total_compressed_size
    for at in range(first.dictionary_page_offset, end):
        for value in (0, 127, 255):
            path.write_bytes(content[:at] + bytes([value]) + content[at + 1 :])
            check(path)
            with contextlib.suppress(DataError):
                assert read_table(path)[0].to_pylist()


def test_prices_that_are_signalling_nans_are_nan(tmp_path):
    table = simulate(2, 5).to_arrow()
    low = table["low"].to_numpy().copy()
    low.view(np.uint32)[3] = 0x7F800001
    path = tmp_path / "bars.parquet"
    pq.write_table(table.set_column(table.column_names.index("low"), "low", pa.array(low)), path)
    panel, report = load(path, device="cpu")
    assert report.rows_kept == panel.n_rows == 9 and np.isfinite(panel.low).all()


anything = st.one_of(st.none(), words.map(lambda text: text.replace("\x00", "")), numbers, whole, st.binary(max_size=4))


@SLOW
@given(st.lists(st.lists(anything, min_size=9, max_size=9), max_size=6), st.sampled_from([None, "1d"]))
def test_sqlite_values(tmp_path_factory, rows, timeframe):
    path = tmp_path_factory.mktemp("sqlite") / "bars.db"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE candles (symbol, date, timeframe, open, high, low, close, volume, sector)")
        connection.executemany("INSERT INTO candles VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        connection.execute("INSERT INTO candles VALUES ('A', 1600000000, '1d', 1, 1, 1, 1, '1', 'energy')")
    connection.close()
    check(path, timeframe=timeframe)


@SLOW
@given(st.text(max_size=30))
def test_simulated_options(text):
    if any(character.isdigit() for character in text):
        text = "symbols=" + text[:2]
    check(f"simulated:{text},bars=5")


@SLOW
@given(st.lists(st.lists(words, min_size=1, max_size=4).map(",".join), max_size=6).map("\n".join), st.booleans())
def test_sector_maps(tmp_path_factory, body, headed):
    path = tmp_path_factory.mktemp("map") / "sectors.csv"
    path.write_text(("symbol,sector\n" if headed else "") + body, encoding="utf-8", errors="replace")
    check(TWO, sector_map=path)


@SLOW
@given(st.dictionaries(words | st.none(), words | numbers | st.none(), max_size=4))
def test_sector_maps_that_are_mappings(mapping):
    check(TWO, sector_map=mapping)


@pytest.fixture(scope="module")
def databases(tmp_path_factory):
    """The bytes of two SQLite files, the second in write-ahead mode."""
    contents = Files()
    for mode in ("delete", "wal"):
        path = tmp_path_factory.mktemp("real") / "bars.db"
        connection = sqlite3.connect(path)
        connection.execute(f"PRAGMA journal_mode={mode}")
        with connection:
            connection.execute("CREATE TABLE candles (symbol, date, open REAL, high, low, close, volume, sector)")
            connection.executemany(
                "INSERT INTO candles VALUES (?, ?, 1.5, 1.5, 1.5, 1.5, '7', 'energy')",
                [(f"S{k % 3}", 1_600_000_000 + 86_400 * k) for k in range(90)],
            )
        connection.close()
        contents[mode] = path.read_bytes()
    return contents


@SLOW
@given(
    st.sampled_from(["delete", "wal"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    st.floats(0.3, 1),
    st.booleans(),
)
def test_damaged_databases(databases, tmp_path_factory, mode, changes, kept, at_the_start):
    content = bytearray(databases[mode])
    for where, value in changes:
        content[int(where * (2048 if at_the_start else len(content)))] = value
    path = tmp_path_factory.mktemp("damaged") / "bars.db"
    path.write_bytes(bytes(content[: int(kept * len(content))] if kept < 0.6 else content))
    before = path.read_bytes()
    check(path)
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == ["bars.db"]
