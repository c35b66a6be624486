"""Columns of a table of bonds as arrays of the types that the kernels take, on the device of the table."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.kernels.bond_dates import EARLIEST
from gpupipe.kernels.bonds import KIND, MISSING
from gpupipe.runtime.device import Device, pick
from gpupipe.runtime.errors import UserError

DAY_COUNTS = ("act/act", "30/360", "act/360", "act/365")  # by the numbers of kernels.bond_dates
TYPES = ("fixed", "zero", "floating")
REQUIRED = ("coupon", "frequency", "issue", "maturity", "settlement", "day_count")
OPTIONAL = ("type", "first_coupon", "call_date", "call_price", "margin", "curve", "spread")
_NUMBERS = ("coupon", "call_price", "margin", "spread", "yield", "clean")
_DATES = ("issue", "maturity", "settlement", "first_coupon", "call_date")
_TEXTS = {"day_count": DAY_COUNTS, "type": TYPES}


@dataclass(frozen=True)
class BondColumns:
    """The columns of bonds: float64, dates int64 (days since 1970-01-01), texts int8 (their number, -1 unknown).

    arrays: by name, each (n_bonds,), C order, on `device`. An optional column that the table lacks is absent.

    >>> table = {"coupon": 5.0, "frequency": 2, "issue": np.datetime64("2020-01-15"), "day_count": "30/360",
    ...          "maturity": np.array(["2030-01-15", "2031-01-15"], "datetime64[D]"),
    ...          "settlement": np.datetime64("2021-03-01"), "clean": np.array([99.5, 98.0])}
    >>> columns = BondColumns.of(table, "clean")
    >>> columns.n_bonds, columns.arrays["day_count"].tolist(), columns.arrays["maturity"].dtype.name
    (2, [1, 1], 'int64')
    """

    arrays: dict[str, Any]
    device: Device
    n_bonds: int

    @staticmethod
    def of(table: Any, *names: str) -> BondColumns:
        """The columns of a mapping or table that valuation reads, and those named; a scalar counts for every bond.

        Raises UserError for a column that is missing, has another length, or does not hold what it should.
        """
        given, present = _readers(table)
        wanted = [*REQUIRED, *names]
        if missing := [name for name in wanted if name not in present]:
            raise UserError(
                f"the table of bonds lacks {', '.join(missing)}; it needs {', '.join(wanted)} and has "
                f"{', '.join(map(str, present)) or 'no columns'}"
            )
        raw = {name: given(name) for name in dict.fromkeys([*wanted, *OPTIONAL]) if name in present}
        device = _device_of(raw)
        arrays = {name: _array(name, column, device) for name, column in raw.items()}
        n_bonds = _length(arrays)
        full = {name: _whole(array, n_bonds, device) for name, array in arrays.items()}
        return BondColumns(full, device, n_bonds)

    def part(self, begin: int, end: int) -> BondColumns:
        """The bonds [begin, end), without a copy."""
        return BondColumns({name: a[begin:end] for name, a in self.arrays.items()}, self.device, end - begin)

    def get(self, name: str, otherwise: float) -> Any:
        """A column, or one that holds a number in every row where the table lacks it."""
        if name in self.arrays:
            return self.arrays[name]
        return self.device.xp.full(self.n_bonds, otherwise)

    def dates(self, name: str) -> Any:
        """An optional column of dates, or one that holds none."""
        if name in self.arrays:
            return self.arrays[name]
        return self.device.xp.full(self.n_bonds, np.iinfo(np.int64).min, np.int64)

    @property
    def floating(self) -> Any:
        """bool (n_bonds,): whether the coupons are projected from a curve."""
        xp = self.device.xp
        kinds = self.arrays.get("type")
        return xp.zeros(self.n_bonds, bool) if kinds is None else kinds == TYPES.index("floating")

    @property
    def coupons(self) -> Any:
        """float64 (n_bonds,): percent a year; 0 of zeros."""
        xp, kinds = self.device.xp, self.arrays.get("type")
        coupon = self.arrays["coupon"]
        return coupon if kinds is None else xp.where(kinds == TYPES.index("zero"), 0.0, coupon)

    @property
    def status(self) -> Any:
        """int8 (n_bonds,): what is wrong with the optional columns: an unknown type, a call that has no price or that
        cannot be valued (of a floating bond, or of frequency 0).
        """  # fmt: skip
        xp = self.device.xp
        status = xp.zeros(self.n_bonds, np.int8)
        if "type" in self.arrays:
            status[self.arrays["type"] < 0] = KIND
        if "call_date" in self.arrays:
            called = self.arrays["call_date"] > EARLIEST
            status[called & xp.isnan(self.get("call_price", np.nan))] = MISSING
            status[called & (self.floating | (self.arrays["frequency"] == 0))] = KIND
        return status


def _readers(table: Any) -> tuple[Any, list[str]]:
    """How to get a column of a table by name, and the names of its columns."""
    if isinstance(table, Mapping):
        return table.__getitem__, list(table)
    if type(table).__module__.split(".")[0] == "pandas":
        return lambda name: _pandas(table[name]), list(table.columns)
    if hasattr(table, "__arrow_c_stream__") or hasattr(table, "column_names"):
        import pyarrow as pa

        read = table if isinstance(table, (pa.Table, pa.RecordBatch)) else pa.table(table)
        return lambda name: _arrow(read.column(name)), list(read.schema.names)
    raise UserError(
        f"a {type(table).__name__} is no table of bonds; give a mapping of arrays, or a pyarrow, pandas or polars table"
    )


def _pandas(series: Any) -> Any:
    import pyarrow as pa

    if series.dtype.kind in "biufM" and isinstance(series.dtype, np.dtype):
        return series.to_numpy()
    try:
        return _arrow(pa.array(series, from_pandas=True))
    except (pa.ArrowException, TypeError, ValueError):
        return series.to_numpy()


def _arrow(column: Any) -> Any:
    """An Arrow column as numpy: dates as datetime64, nulls as NaN, NaT or None; texts stay Arrow's."""
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) == "string_view":
        return column
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        days = column.cast(pa.timestamp("s", getattr(kind, "tz", None)), safe=False).cast(pa.int64())
        seconds = days.fill_null(np.iinfo(np.int64).min)
        return seconds.to_numpy(**_copying(seconds)).astype("datetime64[s]")
    return column.to_numpy(**_copying(column))


def _copying(column: Any) -> dict[str, bool]:
    """The option by which an Array may be copied into numpy; a ChunkedArray always may."""
    import pyarrow as pa

    return {"zero_copy_only": False} if isinstance(column, pa.Array) else {}


def _device_of(raw: dict[str, Any]) -> Device:
    on_device = {name for name, column in raw.items() if hasattr(column, "__cuda_array_interface__")}
    if not on_device:
        return pick("cpu")
    host = [name for name, column in raw.items() if np.ndim(column) and name not in on_device and name not in _TEXTS]
    if host:
        raise UserError(
            f"the columns {', '.join(sorted(on_device))} are on a GPU and {', '.join(host)} are not; move all of them"
        )
    return pick("cuda")


def _array(name: str, column: Any, device: Device) -> Any:
    """A column as an array of its type, of 1 dimension, or of none for a scalar."""
    if name in _TEXTS:
        return device.asarray(_numbers_of(name, column))
    if name in _DATES:
        return _days(name, column)
    array = column if hasattr(column, "dtype") else np.asarray(column)
    if array.dtype.kind not in "iuf" or array.ndim > 1:
        raise UserError(f"column {name!r} is {array.dtype} of {array.ndim} dimensions; expected numbers, one a bond")
    if name in _NUMBERS:
        return array.astype(np.float64, copy=False)
    if array.dtype.kind == "f":  # a missing or broken number is no number of coupons a year
        xp = device.xp
        array = xp.where(xp.isfinite(array) & (array == xp.floor(array)), array, -1)
    return array.astype(np.int64, copy=False)


def _days(name: str, column: Any) -> Any:
    """Dates as int64 days; datetime64 in days without a copy."""
    array = column if hasattr(column, "dtype") else np.asarray(column)
    if array.dtype.kind == "O":
        items = array.reshape(-1).tolist()
        if not all(item is None or isinstance(item, (datetime.date, np.datetime64)) for item in items):
            raise UserError(f"column {name!r} holds {type(items[0]).__name__}; expected dates, as datetime64[D]")
        array = array.astype("datetime64[D]")
    if array.ndim > 1 or array.dtype.kind not in "Mi":
        raise UserError(
            f"column {name!r} is {array.dtype} of {array.ndim} dimensions; expected dates, as datetime64[D] or as "
            "int64 days since 1970-01-01"
        )
    if array.dtype.kind == "i":
        return array.astype(np.int64, copy=False)
    return array.astype("datetime64[D]", copy=False).view(np.int64)


def _numbers_of(name: str, column: Any) -> np.ndarray | Any:
    """The numbers of texts in the list of those known, -1 for others; numbers stay."""
    known = _TEXTS[name]
    if isinstance(column, str):
        return _number_of(column, known)
    if getattr(getattr(column, "dtype", None), "kind", "") in ("i", "u"):
        inside = (column >= 0) & (column < len(known))
        return (inside * (column + 1) - 1).astype(np.int8)
    import pyarrow as pa
    import pyarrow.compute

    try:
        texts = column if isinstance(column, (pa.Array, pa.ChunkedArray)) else pa.array(column, pa.string())
    except (pa.ArrowException, TypeError):
        kind = getattr(column, "dtype", type(column).__name__)
        raise UserError(f"column {name!r} is {kind}; expected texts: {', '.join(known)}") from None
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    if not pa.types.is_dictionary(texts.type):
        texts = texts.dictionary_encode()
    numbers = np.array([*(_number_of(text, known) for text in texts.dictionary.to_pylist()), -1], np.int8)
    return numbers[texts.indices.fill_null(len(numbers) - 1).to_numpy(zero_copy_only=False).astype(np.int64)]


def _number_of(text: str | None, known: tuple[str, ...]) -> np.int8:
    """The number of a text in the list of those known, -1 for others."""
    lowered = str(text).strip().lower()
    return np.int8(known.index(lowered) if lowered in known else -1)


def _length(arrays: dict[str, Any]) -> int:
    """The length that all columns have in common; UserError where they differ."""
    lengths = {name: len(array) for name, array in arrays.items() if np.ndim(array)}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UserError(f"the columns of the bonds have different lengths: {shown}")
    return next(iter(lengths.values()), 1)


def _whole(array: Any, n_bonds: int, device: Device) -> Any:
    """A contiguous array of all bonds."""
    xp = device.xp
    return xp.ascontiguousarray(array) if np.ndim(array) else xp.full(n_bonds, array, array.dtype)
