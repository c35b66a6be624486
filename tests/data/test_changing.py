"""Sources that change while they are read, files with false metadata, and files that must not be written."""

from __future__ import annotations

import hashlib
import os
import sqlite3

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from gpupipe.data import DataError, load, simulate, sources, sqlite_arrow

TABLE = simulate(4, 60).to_arrow()
CANDLES = [("A", 1_600_000_000 + 86_400 * k, "1d", 10.0, 11.5, 9.25, 10.1, 100.0 + k, "energy") for k in range(30)]


@pytest.fixture
def parquet(tmp_path):
    pq.write_table(TABLE, tmp_path / "bars.parquet")
    return tmp_path / "bars.parquet"


def append(path):
    with path.open("ab") as stream:
        stream.write(b"x")


def same_size(path):
    with path.open("r+b") as stream:
        stream.seek(200)
        stream.write(b"\0\0")
    os.utime(path, ns=(1, 1))  # and a false mtime


def truncate(path):
    os.truncate(path, 100)


def replace(path):
    other = path.with_name(".new")
    other.write_bytes(path.read_bytes())
    status = path.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("change", [append, same_size, truncate, replace, os.unlink])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_file_that_changes_while_it_is_read(parquet, monkeypatch, change, when):
    real = sources._parquet

    def read_and_change(path, required):
        if when == "before":
            change(path)
        result = real(path, required)
        if when == "after":
            change(path)
        return result

    monkeypatch.setattr(sources, "_parquet", read_and_change)
    with pytest.raises(DataError, match=r"bars.parquet: changed while it was read: give the command again once"):
        load(parquet, device="cpu")


def test_a_folder_that_gets_another_file_while_it_is_read(parquet, monkeypatch):
    real = sources._parquet

    def read_and_add(path, required):
        pq.write_table(TABLE, path.with_name("more.parquet"))
        return real(path, required)

    monkeypatch.setattr(sources, "_parquet", read_and_add)
    with pytest.raises(DataError, match=r"more.parquet: changed while it was read"):
        load(parquet.parent, device="cpu")


def test_an_arrow_file_may_be_truncated_after_it_was_read(tmp_path, monkeypatch):
    """The table must not be memory-mapped: an access would kill the process (SIGBUS)."""
    path = tmp_path / "bars.feather"
    pyarrow.feather.write_feather(TABLE, path, compression="uncompressed")
    table, _ = sources._arrow(path, [])
    os.truncate(path, 0)
    assert table["close"].to_pylist() == TABLE["close"].to_pylist()


def test_a_page_that_fails_its_checksum(tmp_path):
    path = tmp_path / "bars.parquet"
    pq.write_table(TABLE, path, compression="none", use_dictionary=False, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    close = TABLE["close"].combine_chunks().buffers()[1].to_pybytes()[:64]
    at = content.find(close)
    assert at > 0
    content[at + 2] ^= 1  # another price, in the last bits of its mantissa
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"cannot be read as Parquet .*CRC"):
        load(path, device="cpu")


def with_schema(table, schema):
    """The bytes of a Parquet file of the table, with another Arrow schema in its metadata."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, store_schema=True)
    content = sink.getvalue().to_pybytes()
    import base64

    original = pq.read_metadata(pa.BufferReader(content)).metadata[b"ARROW:schema"]
    false = base64.b64encode(schema.serialize().to_pybytes())
    assert len(false) <= len(original) and content.count(original) == 1
    return content.replace(original, false.ljust(len(original), b"="))


@pytest.mark.parametrize("column", ["close", "time", "symbol"])
@pytest.mark.parametrize("kind", [pa.string(), pa.int8(), pa.float64(), pa.timestamp("s", "UTC"), pa.bool_()])
def test_a_parquet_file_with_a_false_schema_is_read_correctly_or_refused(tmp_path, column, kind):
    """The pages decide: no price is read from the bits of another type."""
    types = [pa.string() if pa.types.is_dictionary(field.type) else field.type for field in TABLE.schema]
    plain = TABLE.cast(pa.schema(list(zip(TABLE.column_names, types, strict=True))))
    position = plain.schema.get_field_index(column)
    schema = plain.schema.set(position, pa.field(column, kind))
    path = tmp_path / "bars.parquet"
    try:
        path.write_bytes(with_schema(plain, schema))
    except AssertionError:
        pytest.skip("the false schema is longer than the original")
    expected = load(plain, device="cpu")[0]
    try:
        panel, report = load(path, device="cpu")
    except DataError as error:
        assert "\n" not in str(error)
        return
    assert report.rows_kept == expected.n_rows and panel.symbols == expected.symbols
    assert (panel.close == expected.close).all() and (panel.time_ns == expected.time_ns).all()


def test_false_statistics_change_nothing(tmp_path):
    """No row is skipped because of the minimum and maximum in the footer."""
    path = tmp_path / "bars.parquet"
    pq.write_table(TABLE, path, use_dictionary=False, compression="none")
    expected = load(path, device="cpu")[1].data_hash
    content = path.read_bytes()
    column = pq.read_metadata(path).row_group(0).column(TABLE.column_names.index("close"))
    import struct

    footer = len(content) - 8 - struct.unpack("<I", content[-8:-4])[0]
    for value in (column.statistics.min, column.statistics.max):
        statistic = struct.pack("<f", value)
        assert statistic in content[footer:]
        content = content[:footer] + content[footer:].replace(statistic, struct.pack("<f", -1e30))
    path.write_bytes(content)
    assert pq.read_metadata(path).row_group(0).column(TABLE.column_names.index("close")).statistics.max < 0
    assert load(path, device="cpu")[1].data_hash == expected


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("in_use", [False, True])
@pytest.mark.parametrize("adbc", [True, False])
def test_an_sqlite_file_is_left_as_it_was(tmp_path, monkeypatch, mode, in_use, adbc):
    """Equal bytes and times, and no new log or journal next to it: SQLite itself would create two to read a file."""
    if not adbc:

        def refuse(*arguments):
            raise sqlite_arrow.UnsuitableError("for the test")

        monkeypatch.setattr(sqlite_arrow, "read", refuse)
    path = tmp_path / "bars.db"
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode={mode}")
    connection.execute("CREATE TABLE candles (symbol, timestamp, timeframe, open, high, low, close, volume, sector)")
    with connection:
        connection.executemany("INSERT INTO candles VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", CANDLES)
    if not in_use:
        connection.close()

    def state():
        files = [file for file in tmp_path.iterdir() if not file.name.endswith("-shm")]
        return {file.name: (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns) for file in files}

    before, names = state(), sorted(os.listdir(tmp_path))
    assert load(path, device="cpu")[1].rows_kept == len(CANDLES)
    assert state() == before and sorted(os.listdir(tmp_path)) == names
    connection.close()


def test_text_is_never_executed(tmp_path):
    """Text columns are parsed as decimal numbers; rows with an expression are quarantined."""
    trap = tmp_path / "run"
    texts = ["1+1", "0x10", "1_000", "eval('2')", "$(touch x)", "=1+1", "load_extension('x')"]
    texts = [f"__import__('pathlib').Path({str(trap)!r}).touch()", *texts]
    names = ("symbol", "date", "open", "high", "low", "close", "volume", "sector")
    rows = [("A", f"2020-01-{k + 1:02d}", "10", "10", "10", text, "5", "energy") for k, text in enumerate(texts)]
    rows.append(("A", "2020-02-01", "10", "10", "10", "10", "5", "energy"))
    table = pa.table({name: pa.array([row[k] for row in rows], pa.string()) for k, name in enumerate(names)})
    pq.write_table(table, tmp_path / "bars.parquet")
    connection = sqlite3.connect(tmp_path / "bars.db")
    with connection:
        connection.execute(f"CREATE TABLE candles ({', '.join(names)})")
        connection.executemany(f"INSERT INTO candles VALUES ({', '.join('?' * len(names))})", rows)
    connection.close()
    (tmp_path / "bars.csv").write_text("\n".join(";".join(row) for row in [names, *rows]))
    for name in ("bars.parquet", "bars.db", "bars.csv"):
        panel, report = load(tmp_path / name, device="cpu", max_quarantined=1)
        assert panel.n_rows == 1 and report.quarantine.num_rows == len(texts), name
        assert report.quarantine["close"].to_pylist() == texts
    assert not trap.exists()
