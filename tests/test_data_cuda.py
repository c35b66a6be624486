"""The logic of the cuDF path, on stand-ins for its columns; test_data_readers.py has a `gpu` test with real ones."""

import types

import numpy as np
import pyarrow as pa
import pytest

from gpupipe.data import DataError, columns, on_cuda, simulate
from gpupipe.data import bars as bars_of
from gpupipe.data.sources import Part
from gpupipe.device import pick


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


def stand_in(table):
    frame = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        null = np.asarray(column.is_null())
        if pa.types.is_dictionary(column.type):
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
    return host, on_cuda.bars(Part(stand_in(table), found, "device"), sector_map or {}, pick("cpu"))


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
        on_cuda.bars(part, {}, pick("cpu"))
    assert on_cuda.bars(part, {"SIM0000": "Energy"}, pick("cpu")).sector_of == ("energy",)


def test_only_plain_columns_go_to_cudf():
    assert on_cuda._plain(pa.date32(), "time") and on_cuda._plain(pa.timestamp("ms", "UTC"), "time")
    assert on_cuda._plain(pa.dictionary(pa.int32(), pa.string()), "symbol") and on_cuda._plain(pa.int64(), "volume")
    for kind, meaning in ((pa.string(), "time"), (pa.timestamp("s", "Asia/Tokyo"), "time"), (pa.int64(), "time"),
                          (pa.int64(), "symbol"), (pa.string(), "close"), (pa.bool_(), "open")):
        assert not on_cuda._plain(kind, meaning)
