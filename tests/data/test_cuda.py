"""The logic of the cuDF path, on stubs of cuDF's types; test_readers.py has `gpu` tests with the real ones."""

import importlib.machinery
import sys
import types

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpupipe.data import DataError, columns, on_cuda, reading, simulate, time_column, time_limits, validate
from gpupipe.data import bars as bars_module
from gpupipe.data.sources import RawTable
from gpupipe.runtime.device import pick
from tests.support.ingested import days, edited, market, stored_panel


class Column:
    """The methods of cudf.Series that on_cuda calls, over numpy values and a mask of nulls."""

    def __init__(self, values, null):
        self.values, self.null, self.dtype = values, null, values.dtype

    def astype(self, dtype):
        return self if dtype == "str" else Column(self.values.astype(dtype), self.null)

    def to_cupy(self, dtype=None, copy=False, na_value=None):
        assert na_value is not None or not self.null.any()
        return np.where(self.null, self.values.dtype.type(na_value), self.values)

    def factorize(self, sort=False, use_na_sentinel=True):
        unique = list(dict.fromkeys(self.values[~self.null]))
        code = [-1 if null else unique.index(value) for value, null in zip(self.values, self.null, strict=True)]
        return np.array(code, np.int64), types.SimpleNamespace(to_arrow=lambda: pa.array(unique))


class Frame(dict):
    """The methods of cudf.DataFrame that are called."""

    __module__ = "cudf.core.dataframe"

    def __init__(self, table):
        self.table = table

    def __len__(self):
        return self.table.num_rows

    def take(self, indices):
        return Frame(self.table.take(pa.array(indices)))

    def to_arrow(self, *, preserve_index=None):
        assert preserve_index is False  # else the row numbers become a column
        return self.table


def stub_frame(table):
    frame = Frame(table)
    for name in table.column_names:
        column = table[name].combine_chunks()
        null = np.asarray(column.is_null())
        if pa.types.is_dictionary(column.type) or pa.types.is_string(column.type):
            values = np.array(column.to_pylist(), object)
        elif pa.types.is_timestamp(column.type):
            values = column.cast(pa.int64()).fill_null(0).to_numpy().astype(f"datetime64[{column.type.unit}]")
        else:
            values = np.array(column.fill_null(0))
        frame[name] = Column(values, null)
    return frame


def on_both(table, sector_map=None):
    """The Bars of a table, read on the host and by the cuDF path."""
    matches = columns.find(table.column_names, columns.REQUIRED, "test")
    host = bars_module.from_tables([RawTable(table, matches, "host")], sector_map, None, adjusted=False)
    return host, on_cuda.to_bars([RawTable(stub_frame(table), matches, "device")], sector_map or {}, pick("cpu"))


def test_same_bars_as_the_host():
    table = simulate(3, 8).to_arrow().set_column(1, "time", simulate(3, 8).to_arrow()["time"].cast(pa.timestamp("s")))
    is_known = pa.array([k % 5 != 0 for k in range(table.num_rows)])
    for name in table.column_names:
        if name == "sector":
            continue
        column = pa.compute.if_else(is_known, table[name], pa.scalar(None, table[name].type))
        table = table.set_column(table.column_names.index(name), name, column)
    host, device = on_both(table)
    assert device.names == host.names and device.sectors == host.sectors
    for name in ("symbol", "time_ns", "open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(getattr(device, name), getattr(host, name))
        assert getattr(device, name).dtype == getattr(host, name).dtype
    assert (device.time_ns == time_column.UNKNOWN_TIME).sum() == (device.symbol == -1).sum() == 5


def test_times_outside_the_range_are_unknown():
    table = simulate(1, 3).to_arrow()
    times = pa.array([2**40, 0, -(2**40)], pa.timestamp("s"))
    host, device = on_both(table.set_column(1, "time", times))
    assert device.time_ns.tolist() == host.time_ns.tolist() == [time_column.UNKNOWN_TIME, 0, time_column.UNKNOWN_TIME]


def test_the_limits_of_times_are_the_same():
    stamps = ["2024-01-03", "1970-01-01", "2300-01-01", "2052-01-03", "1965-01-03", "1700-01-01"]
    table = simulate(1, 6).to_arrow().set_column(1, "time", pa.array(np.array(stamps, "M8[s]")))
    judged = [validate.validate_bars(bars, time_limits.limits_of(bars)) for bars in on_both(table)]
    missing = "time stands for a missing one, as 1970-01-01"
    assert [of.reasons for of in judged] == [[missing, "time is not known", "time is in the future", missing]] * 2


def test_two_sectors_for_one_symbol():
    table = simulate(1, 3).to_arrow().drop_columns(["sector"])
    table = table.append_column("sector", pa.array(["energy", "energy", "utilities"]).dictionary_encode())
    with pytest.raises(DataError, match="has two sectors, energy and utilities"):
        on_both(table)
    matches = columns.find(table.column_names, columns.REQUIRED, "test")
    raw = RawTable(stub_frame(table), matches, "device")
    with pytest.raises(DataError, match="has two sectors, energy and utilities"):
        on_cuda.to_bars([raw], {}, pick("cpu"))
    assert on_cuda.to_bars([raw], {"SIM0000": "Energy"}, pick("cpu")).sectors == ("energy",)


def test_cudf_reads_only_plainly_typed_columns():
    assert on_cuda._is_plain(pa.date32(), "time") and on_cuda._is_plain(pa.timestamp("ms", "UTC"), "time")
    assert on_cuda._is_plain(pa.dictionary(pa.int32(), pa.string()), "symbol") and on_cuda._is_plain(
        pa.int64(), "volume"
    )
    for kind, meaning in (
        (pa.string(), "time"),
        (pa.timestamp("s", "Asia/Tokyo"), "time"),
        (pa.int64(), "time"),
        (pa.int64(), "symbol"),
        (pa.string(), "close"),
        (pa.bool_(), "open"),
    ):
        assert not on_cuda._is_plain(kind, meaning)


@pytest.fixture
def cudf(monkeypatch):
    """A stub of cuDF that reads with pyarrow and records its calls; test_rapids_signatures.py has real signatures."""
    module = types.ModuleType("cudf")
    module.__spec__ = importlib.machinery.ModuleSpec("cudf", None)
    module.calls = []

    def read_parquet(paths, *, columns, use_pandas_metadata, dataset_kwargs):
        # With partitioning, cuDF would read each folder sector=... separately and add its name as a column.
        assert not use_pandas_metadata and dataset_kwargs == {"format": "parquet", "partitioning": None}
        module.calls.append(paths)
        return stub_frame(pa.concat_tables([pq.ParquetFile(path).read(columns=columns) for path in paths]))

    module.read_parquet = read_parquet
    monkeypatch.setitem(sys.modules, "cudf", module)
    return module


GPU = types.SimpleNamespace(kind="cuda", xp=np, to_host=np.asarray, asarray=np.asarray)


def read_on_gpu(path, sectors=None, sector_map=None):
    return reading._open_path(path, reading._Request(sector_map or {}, sectors, None, False, GPU))


@pytest.fixture
def store(tmp_path):
    from gpupipe.data.ingest import ingest

    folder = tmp_path / "store"
    ingest(days(market(), 0, 25), folder, calendar="none")
    ingest(days(market(), 25, 40), folder, calendar="none")
    return folder


def test_a_store_is_read_sector_by_sector_and_gives_the_same_bars_as_on_the_host(store, cudf):
    raw = read_on_gpu(store)
    assert [len(paths) for paths in cudf.calls] == [2, 2] and "read by cuDF, validated on the device" in raw.reader
    assert raw.description == "store (Parquet, 2 sectors)"
    kept, panel = validate.validate_bars(raw.bars).bars, stored_panel(store)
    assert kept.names == panel.symbols and kept.sectors == panel.sector
    np.testing.assert_array_equal(kept.symbol, panel.symbol_of_row)
    for name in ("time_ns", "open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(panel, name))


def test_only_the_requested_sectors_of_a_store_are_read(store, cudf):
    bars = read_on_gpu(store, ("energy",)).bars
    assert len(cudf.calls) == 1 and {"sector=energy" in path for path in cudf.calls[0]} == {True}
    assert bars.names == ("S001", "S003") and set(bars.sectors) == {"energy"}
    assert len(reading.load(store, None, "energy", "cpu")[1].sectors) == 1
    with pytest.raises(DataError, match="no symbol has sector 'enrgy'; did you mean 'energy'"):
        reading.load(store, None, "enrgy", "cpu")
    read_on_gpu(store, ("energy",), {"S000": "energy"})  # a map may override the store's sectors: all are read
    assert len(cudf.calls) == 3


def test_quarantined_rows_are_copied_to_the_host(tmp_path, cudf):
    bad = edited(edited(market(), "S001", 3, high=0.5), "S002", 39, close=-1.0)
    pq.write_table(bad, tmp_path / "bars.parquet")
    raw = read_on_gpu(tmp_path / "bars.parquet")
    quarantine = reading._quarantine(raw, validate.validate_bars(raw.bars))
    expected = reading.load(tmp_path / "bars.parquet", None, "all", "cpu")[1].quarantine
    assert quarantine.num_rows == 2 and quarantine.to_pylist() == expected.to_pylist()


def test_the_host_reads_what_cudf_cannot(tmp_path, store, cudf):
    pq.write_table(market().set_column(1, "time", pa.array(["2020-01-01"] * 160)), tmp_path / "text.parquet")
    pq.write_table(market(), tmp_path / "int96.parquet", use_deprecated_int96_timestamps=True)
    pq.write_table(market().append_column("date", market()["time"]), tmp_path / "two_times.parquet")
    pq.write_table(market().append_column("tickvol", market()["volume"]), tmp_path / "two_volumes.parquet")
    (tmp_path / "folder").mkdir()
    pq.write_table(market(), tmp_path / "folder" / "bars.parquet")
    names = ("text.parquet", "int96.parquet", "two_times.parquet", "two_volumes.parquet", "folder", "none")
    for path in (tmp_path / name for name in names):
        assert on_cuda.read_path(path) == [] and not cudf.calls


def test_a_store_some_of_whose_files_have_the_exchanges_clock_is_read_on_the_host(tmp_path, cudf):
    from gpupipe.data.ingest import ingest

    hours = market().set_column(
        1, "time", pa.array((np.tile(np.arange(40), 4) + 450_000) * 3_600 * 10**9).cast(pa.timestamp("ns"))
    )
    zoned = hours.set_column(1, "time", hours["time"].cast(pa.timestamp("ns", "Asia/Tokyo")))
    early = pa.array(np.tile(np.arange(40) < 30, 4))
    ingest(hours.filter(early), tmp_path / "store", calendar="none")
    ingest(zoned.filter(pa.compute.invert(early)), tmp_path / "store", calendar="none")
    assert on_cuda.read_path(tmp_path / "store") == [] and not cudf.calls
    clock = stored_panel(tmp_path / "store").local_ns - stored_panel(tmp_path / "store").time_ns
    assert clock.reshape(4, 40)[:, 30:].tolist() == [[9 * 3_600 * 10**9] * 10] * 4 and not clock[:30].any()
