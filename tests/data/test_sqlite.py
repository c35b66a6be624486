"""SQLite read by ADBC equals SQLite read value by value, bit for bit, and the report names the reader."""

import sqlite3
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpupipe.data import DataError, load, sqlite_arrow, sqlite_file

NAMES = ("symbol", "timestamp", "timeframe", "open", "high", "low", "close", "volume")
TYPED = "symbol TEXT, timestamp INTEGER, timeframe TEXT, open REAL, high REAL, low REAL, close REAL, volume REAL"
PLAIN = ", ".join(NAMES)
CLEAN = [(f"S{k // 50}", 1_600_000_000 + 60 * k, "1m", 10.0, 11.5, 9.25, 10.1, 100.0 + k) for k in range(200)]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    pytest.importorskip("adbc_driver_sqlite", reason="adbc-driver-sqlite is not installed")
    monkeypatch.setattr(sqlite_arrow, "_ROWS_AT_ONCE", 16)  # so that small tables come in several batches
    monkeypatch.setattr(sqlite_file, "_ROWS_AT_ONCE", 24)


def written(path, rows, columns=PLAIN):
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(f"CREATE TABLE candles ({columns})")
        connection.executemany(f"INSERT INTO candles VALUES ({', '.join('?' * len(rows[0]))})", rows)
    connection.close()
    return path


def both_ways(path, timeframe=None):
    """The reader of the file, after a check that reading value by value gives the same types, values and nulls."""
    table, matches, reader = sqlite_file.read(path, timeframe)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_arrow, "read", refuse)
        expected, expected_matches, fallback = sqlite_file.read(path, timeframe)
    assert fallback == "sqlite3 (for the test)" and matches == expected_matches
    assert table.schema == expected.schema
    assert repr(table.to_pydict()) == repr(expected.to_pydict())  # repr: -0.0 is not 0.0
    return reader


def refuse(*_):
    raise sqlite_arrow.UnsuitableError("for the test")


@pytest.mark.parametrize("columns", [TYPED, PLAIN])
@pytest.mark.parametrize("timeframe", [None, "1m", "1h"])
def test_adbc_reads_clean_tables(tmp_path, columns, timeframe):
    path = written(tmp_path / "a candle?.db", [*CLEAN, ("S9", 1, "1h", 1.0, 1.0, 1.0, 1.0, 1.0)], columns)
    before = path.read_bytes()
    assert both_ways(path, timeframe) == "ADBC"
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    assert sqlite_file.read(path, timeframe)[0].num_rows == {None: 201, "1m": 200, "1h": 1}[timeframe]


def replaced(row, column, value):
    rows = [list(values) for values in CLEAN]
    rows[row][NAMES.index(column)] = value
    return rows


@pytest.mark.parametrize("row", [0, 1, 20, 199])
@pytest.mark.parametrize(
    ("column", "value", "reader"),
    [
        ("close", None, "ADBC"),
        ("close", float("inf"), "ADBC"),
        ("close", float("nan"), "ADBC"),  # SQLite has no NaN: it is null
        ("close", 2**62 + 1, "ADBC"),  # rounded to float64 either way
        ("symbol", None, "ADBC"),
        ("symbol", "S\0 é", "ADBC"),
        ("symbol", "", "ADBC"),
        ("close", "10.1", "sqlite3"),
        ("close", "1+1", "sqlite3"),
        ("close", b"10.1", "sqlite3"),
        ("symbol", 7, "sqlite3"),
        ("symbol", 7.25, "sqlite3"),
        ("symbol", b"S1", "sqlite3"),
        ("symbol", b"\xff", "sqlite3"),
        ("timeframe", 60, "sqlite3"),
        ("timestamp", "2020-01-02", "sqlite3"),
        ("timestamp", b"\0", "sqlite3"),
    ],
)
def test_a_value_of_another_type(tmp_path, row, column, value, reader):
    assert both_ways(written(tmp_path / "a.db", replaced(row, column, value))).startswith(reader)


def test_a_fraction_among_whole_numbers_is_kept(tmp_path):
    for row in (0, 20, 199):  # the driver decides after the first batch, and fails on what comes later
        path = written(tmp_path / "a.db", replaced(row, "timestamp", 1_600_000_000.25))
        both_ways(path)
        assert sqlite_file.read(path, None)[0]["timestamp"][row].as_py() == 1_600_000_000.25


def test_text_that_is_not_utf8(tmp_path):
    path = written(tmp_path / "a.db", CLEAN, TYPED)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE candles SET symbol = CAST(x'41ff' AS TEXT) WHERE volume = 150")
    connection.close()
    assert both_ways(path).startswith("sqlite3")


def test_columns_without_a_value_and_tables_without_a_row(tmp_path):
    rows = [(*row[:4], *[None] * 4) for row in CLEAN]
    assert both_ways(written(tmp_path / "a.db", rows)) == "ADBC"
    late = [*rows[:100], *CLEAN[100:]]  # only nulls in the first batches
    both_ways(written(tmp_path / "a.db", late))
    path = written(tmp_path / "a.db", CLEAN)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("DELETE FROM candles")
    connection.close()
    assert both_ways(path) == "ADBC"


def test_committed_rows_in_the_write_ahead_log_are_read(tmp_path):
    path = written(tmp_path / "a.db", CLEAN)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("INSERT INTO candles SELECT * FROM candles LIMIT 3")
    writer.execute("BEGIN")
    writer.execute("DELETE FROM candles")  # not committed
    assert both_ways(path) == "ADBC" and sqlite_file.read(path, None)[0].num_rows == 203
    writer.execute("ROLLBACK")
    writer.close()


def test_names_are_quoted(tmp_path):
    columns = '"Symbol", "time stamp", "time""frame", "OPEN", "High", "low price", "select", "px_close", "vol"'
    path = written(tmp_path / "a.db", [(*row[:6], 1, *row[6:]) for row in CLEAN], columns.replace("time stamp", "Date"))
    assert both_ways(path) == "ADBC"


values = st.one_of(
    st.none(),
    st.floats(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(max_size=4),
    st.binary(max_size=4),
    st.sampled_from([1, 1.0, -0.0, "1", b"1", "A", "1m"]),
)
columns_of_values = st.one_of(
    st.sampled_from([st.just("A"), st.floats(), st.integers(0, 9), st.none() | st.floats(), st.text(max_size=3)]),
    st.just(values),
)


@settings(deadline=None, max_examples=100, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(st.data(), st.integers(1, 40), st.booleans(), st.sampled_from([None, "1m"]))
def test_any_values(tmp_path_factory, data, n_rows, typed, timeframe):
    columns = [data.draw(st.lists(data.draw(columns_of_values), min_size=n_rows, max_size=n_rows)) for _ in NAMES]
    path = tmp_path_factory.mktemp("any") / "a.db"
    both_ways(written(path, list(zip(*columns, strict=True)), TYPED if typed else PLAIN), timeframe)


def test_the_file_is_opened_read_only(tmp_path, monkeypatch):
    addresses, read = [], sqlite_arrow.read

    def recording(address, *rest):
        addresses.append(address)
        return read(address, *rest)

    monkeypatch.setattr(sqlite_arrow, "read", recording)
    path = written(tmp_path / "a?mode=rwc&b.db", CLEAN)
    assert sqlite_file.read(path, None)[2] == "ADBC"
    (address,) = addresses
    adbc = pytest.importorskip("adbc_driver_manager")
    with (
        pytest.importorskip("adbc_driver_sqlite").connect(address) as database,
        adbc.AdbcConnection(database) as connection,
        pytest.raises(adbc.Error, match="readonly"),
    ):
        sqlite_arrow._rows(connection, "DELETE FROM candles")


def test_reading_loads_no_other_library(tmp_path):
    path = written(tmp_path / "a.db", CLEAN)
    code = (
        "import sys, pathlib; from gpupipe.data import sqlite_file; "
        f"reader = sqlite_file.read(pathlib.Path({str(path)!r}), None)[2]; "
        "print(reader, [name for name in ('pandas', 'polars') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "ADBC []"


@pytest.mark.parametrize(("expression", "trusted"), [("close", True), ("load_extension('x')", False)])
def test_the_schema_of_the_file_is_not_trusted(tmp_path, expression, trusted):
    path = written(tmp_path / "a.db", CLEAN)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(f"CREATE VIEW trap AS SELECT {expression} AS close FROM candles")
    connection.close()
    if trusted:
        assert sqlite_arrow.read(f"file:{path}?mode=ro", ["close"], [False], "FROM trap", ()).num_rows == 200
    else:
        with pytest.raises(sqlite_arrow.UnsuitableError, match="unsafe use of load_extension"):
            sqlite_arrow.read(f"file:{path}?mode=ro", ["close"], [False], "FROM trap", ())


def test_the_report_names_the_reader(tmp_path):
    sector_map = {f"S{k}": "energy" for k in range(4)}
    _, report = load(written(tmp_path / "a.db", CLEAN), sector_map, device="cpu")
    assert report.reader == "read by ADBC"
    _, dirty = load(written(tmp_path / "a.db", replaced(50, "symbol", b"S1")), sector_map, device="cpu")
    assert dirty.reader == "read by sqlite3 (the values of a column differ in type)"
    assert dirty.data_hash == report.data_hash


def test_a_damaged_file_is_an_error(tmp_path):
    path = written(tmp_path / "a.db", CLEAN * 20)
    content = bytearray(path.read_bytes())
    content[8192:12288] = b"\xff" * 4096
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as an SQLite file"):
        sqlite_file.read(path, None)


@pytest.mark.parametrize("version_to_write", [0, 2])
def test_a_file_in_write_ahead_mode_is_read_and_none_is_left_beside_it(tmp_path, version_to_write):
    path = tmp_path / "bars.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=wal")
    with connection:
        connection.execute("CREATE TABLE candles (symbol, date, open, high, low, close, volume, sector)")
        connection.execute("INSERT INTO candles VALUES ('A', '2020-01-02', 1, 1, 1, 1, 1, 'energy')")
    connection.close()
    content = bytearray(path.read_bytes())
    content[18] = version_to_write  # SQLite looks at the version to read, the next byte, alone
    path.write_bytes(bytes(content))
    assert load(path, device="cpu")[0].n_rows == 1 and [file.name for file in tmp_path.iterdir()] == ["bars.db"]
