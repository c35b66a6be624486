"""The logic of the cuDF path, on stand-ins for its columns; test_data_readers.py has a `gpu` test with real ones."""

import importlib.machinery
import sys
import types

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpupipe.data import DataError, columns, on_cuda, reading, simulate, validate
from gpupipe.data import bars as bars_of
from gpupipe.data.sources import Part
from gpupipe.runtime.device import pick
from tests.support.ingested import days, edited, held, market


class Column:
    """The few methods of cudf.Series that on_cuda calls, over numpy: values and a mask of nulls."""

    def __init__(self, values, null):
        self.values, self.null, self.dtype = values, null, values.dtype

    def astype(self, dtype):
        return self if dtype == "str" else Column(self.values.astype(dtype), self.null)

    def to_cupy(self, dtype=None, copy=False, na_value=None):
        assert na_value is not None or not self.null.any()
        return np.where(self.null, self.values.dtype.type(na_value), self.values)

    def factorize(self, sort=False, use_na_sentinel=True):
        unique = list(dict.fromkeys(self.values[~self.null]))
        code = [-1 if gone else unique.index(value) for value, gone in zip(self.values, self.null, strict=True)]
        return np.array(code, np.int64), types.SimpleNamespace(to_arrow=lambda: pa.array(unique))


class Frame(dict):
    """The few methods of cudf.DataFrame that are called."""

    __module__ = "cudf.core.dataframe"

    def __init__(self, table):
        self.table = table

    def __len__(self):
        return self.table.num_rows

    def take(self, indices):
        return Frame(self.table.take(pa.array(indices)))

    def to_arrow(self, *, preserve_index=None):
        assert preserve_index is False  # numbers of rows would be a column
        return self.table


def stand_in(table):
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


def both(table, sector_map=None):
    found = columns.find(table.column_names, columns.REQUIRED, "test")
    host = bars_of.of_parts([Part(table, found, "host")], sector_map, None, adjusted=False)
    return host, on_cuda.bars([Part(stand_in(table), found, "device")], sector_map or {}, pick("cpu"))


def test_same_bars_as_the_host():
    table = simulate(3, 8).to_arrow().set_column(1, "time", simulate(3, 8).to_arrow()["time"].cast(pa.timestamp("s")))
    holes = pa.array([k % 5 != 0 for k in range(table.num_rows)])
    for name in table.column_names:
        if name == "sector":
            continue
        column = pa.compute.if_else(holes, table[name], pa.scalar(None, table[name].type))
        table = table.set_column(table.column_names.index(name), name, column)
    host, device = both(table)
    assert device.names == host.names and device.sector_of == host.sector_of
    for name in ("symbol", "time_ns", "open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(getattr(device, name), getattr(host, name))
        assert getattr(device, name).dtype == getattr(host, name).dtype
    assert (device.time_ns == columns.NOT_KNOWN).sum() == (device.symbol == -1).sum() == 5


def test_times_outside_the_range_are_not_known():
    table = simulate(1, 3).to_arrow()
    times = pa.array([2**40, 0, -(2**40)], pa.timestamp("s"))
    host, device = both(table.set_column(1, "time", times))
    assert device.time_ns.tolist() == host.time_ns.tolist() == [columns.NOT_KNOWN, 0, columns.NOT_KNOWN]


def test_two_sectors_for_one_symbol():
    table = simulate(1, 3).to_arrow().drop_columns(["sector"])
    table = table.append_column("sector", pa.array(["energy", "energy", "utilities"]).dictionary_encode())
    with pytest.raises(DataError, match="has two sectors, energy and utilities"):
        both(table)
    found = columns.find(table.column_names, columns.REQUIRED, "test")
    part = Part(stand_in(table), found, "device")
    with pytest.raises(DataError, match="has two sectors, energy and utilities"):
        on_cuda.bars([part], {}, pick("cpu"))
    assert on_cuda.bars([part], {"SIM0000": "Energy"}, pick("cpu")).sector_of == ("energy",)


def test_only_plain_columns_go_to_cudf():
    assert on_cuda._plain(pa.date32(), "time") and on_cuda._plain(pa.timestamp("ms", "UTC"), "time")
    assert on_cuda._plain(pa.dictionary(pa.int32(), pa.string()), "symbol") and on_cuda._plain(pa.int64(), "volume")
    for kind, meaning in (
        (pa.string(), "time"),
        (pa.timestamp("s", "Asia/Tokyo"), "time"),
        (pa.int64(), "time"),
        (pa.int64(), "symbol"),
        (pa.string(), "close"),
        (pa.bool_(), "open"),
    ):
        assert not on_cuda._plain(kind, meaning)


@pytest.fixture
def cudf(monkeypatch):
    """cuDF in name, which reads by pyarrow; what it was asked for is kept. The snapshot holds its real signature."""
    module = types.ModuleType("cudf")
    module.__spec__ = importlib.machinery.ModuleSpec("cudf", None)
    module.asked = []

    def read_parquet(paths, *, columns, use_pandas_metadata, dataset_kwargs):
        # With `partitioning` on, cuDF makes a read of its own and a column of each folder sector=...
        assert not use_pandas_metadata and dataset_kwargs == {"format": "parquet", "partitioning": None}
        module.asked.append(paths)
        return stand_in(pa.concat_tables([pq.ParquetFile(path).read(columns=columns) for path in paths]))

    module.read_parquet = read_parquet
    monkeypatch.setitem(sys.modules, "cudf", module)
    return module


GPU = types.SimpleNamespace(kind="cuda", xp=np, to_host=np.asarray, asarray=np.asarray)


def opened(path, wanted=None, sector_map=None):
    return reading._open_path(path, sector_map or {}, wanted, None, GPU, adjusted=False)


@pytest.fixture
def store(tmp_path):
    from gpupipe.data.ingest import ingest

    folder = tmp_path / "store"
    ingest(days(market(), 0, 25), folder, calendar="none")
    ingest(days(market(), 25, 40), folder, calendar="none")
    return folder


def test_a_store_is_one_read_a_sector_and_the_same_bars_as_on_the_host(store, cudf):
    found = opened(store)
    assert [len(paths) for paths in cudf.asked] == [2, 2] and "read by cuDF, judged on the device" in found.reader
    assert found.description == "store (Parquet, 2 sectors)"
    kept, panel = validate.judge(found.bars).bars, held(store)
    assert kept.names == panel.symbols and kept.sector_of == panel.sector
    np.testing.assert_array_equal(kept.symbol, panel.symbol_of_row)
    for name in ("time_ns", "open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(panel, name))


def test_of_a_store_only_the_files_of_the_wanted_sectors_are_read(store, cudf):
    found = opened(store, ("energy",))
    assert len(cudf.asked) == 1 and {"sector=energy" in path for path in cudf.asked[0]} == {True}
    assert found.bars.names == ("S001", "S003") and set(found.bars.sector_of) == {"energy"}
    assert len(reading.load(store, None, "energy", "cpu")[1].sectors) == 1
    with pytest.raises(DataError, match="no symbol is of sector 'enrgy'; did you mean 'energy'"):
        reading.load(store, None, "enrgy", "cpu")
    opened(store, ("energy",), {"S000": "energy"})  # a map may say otherwise: all are read
    assert len(cudf.asked) == 3


def test_rows_that_are_set_aside_come_to_the_host(tmp_path, cudf):
    bad = edited(edited(market(), "S001", 3, high=0.5), "S002", 39, close=-1.0)
    pq.write_table(bad, tmp_path / "bars.parquet")
    found = opened(tmp_path / "bars.parquet")
    aside = reading._quarantine(found, validate.judge(found.bars))
    host = reading.load(tmp_path / "bars.parquet", None, "all", "cpu")[1].quarantine
    assert aside.num_rows == 2 and aside.to_pylist() == host.to_pylist()


def test_what_cudf_does_not_read_is_left_to_the_host(tmp_path, store, cudf):
    pq.write_table(market().set_column(1, "time", pa.array(["2020-01-01"] * 160)), tmp_path / "text.parquet")
    (tmp_path / "folder").mkdir()
    pq.write_table(market(), tmp_path / "folder" / "bars.parquet")
    for path in (tmp_path / "text.parquet", tmp_path / "folder", tmp_path / "none"):
        assert on_cuda.of_path(path) == [] and not cudf.asked
