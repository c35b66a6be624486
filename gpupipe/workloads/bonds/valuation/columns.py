"""Columns of a table of bonds as arrays of the types that the kernels take, on the device of the table."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.kernels.bond_dates import EARLIEST
from gpupipe.kernels.bonds import FREQUENCY, MISSING, MOST_FLOWS
from gpupipe.runtime.device import Device, device_of, pick
from gpupipe.runtime.errors import UserError
from gpupipe.workloads.bonds.valuation.conversion import (
    ABSENT,
    UNKNOWN,
    counts_of,
    days_of,
    numbers_of,
    reader_of,
    texts_of,
)
from gpupipe.workloads.bonds.valuation.result import CALL, CALL_PRICE, TYPE

DAY_COUNTS = ("act/act", "30/360", "act/360", "act/365")  # by the numbers of kernels.bond_dates
TYPES = ("fixed", "zero", "floating")
CALL_PRICES = (50.0, 200.0)  # percent of par
REQUIRED = ("coupon", "frequency", "issue", "maturity", "settlement", "day_count")
OPTIONAL = ("type", "first_coupon", "call_date", "call_price", "margin", "curve", "spread")
_CLOSE = 0.85  # ratio of letters in common from which a name is taken as misspelt
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
        given, present = reader_of(table)
        wanted = [*REQUIRED, *names]
        _check_names(wanted, [str(name) for name in present])
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
    def most_flows(self) -> Any:
        """int64 (n_bonds,): at least as many flows as each bond has after its settlement; 0 where it has no dates."""
        xp, maturity, settlement = self.device.xp, self.arrays["maturity"], self.arrays["settlement"]
        known = (maturity > EARLIEST) & (settlement > EARLIEST) & (settlement < maturity)
        months = xp.where(known, maturity - settlement, 0) // 28  # the shortest
        frequency = xp.clip(self.arrays["frequency"], 0, 12)
        return xp.minimum(xp.where(known, months * frequency // 12 + 3, 0), MOST_FLOWS)

    @property
    def status(self) -> Any:
        """int8 (n_bonds,): what is wrong with a row that the kernels do not see, by the numbers of `result`."""
        xp = self.device.xp
        frequency, floating = self.arrays["frequency"], self.floating
        status = xp.zeros(self.n_bonds, np.int8)
        pays = floating | ((self.coupons != 0) & ~xp.isnan(self.coupons))
        status[(frequency == 0) & pays] = FREQUENCY
        if "call_date" in self.arrays:
            called = self.arrays["call_date"] > EARLIEST
            price = self.get("call_price", np.nan)
            status[called & ~((price >= CALL_PRICES[0]) & (price <= CALL_PRICES[1]))] = CALL_PRICE
            status[called & xp.isnan(price)] = MISSING
            status[called & (floating | (frequency == 0))] = CALL
        for name in ("type", "day_count"):
            if name in self.arrays:
                status[self.arrays[name] == ABSENT] = MISSING
        status[frequency == ABSENT] = MISSING
        if "type" in self.arrays:
            status[self.arrays["type"] == UNKNOWN] = TYPE
        return status


def _check_names(wanted: list[str], present: list[str]) -> None:
    """Raise UserError for columns that are missing or there twice, and for names that are nearly those of others."""
    used = [*wanted, *OPTIONAL]
    if twice := sorted({name for name in used if present.count(name) > 1}):
        raise UserError(f"the table of bonds has more than one column {', '.join(twice)}; leave out all but one")
    if missing := [name for name in wanted if name not in present]:
        others = [name for name in present if name not in used]
        close = {name: difflib.get_close_matches(name, others, 1, 0.6) for name in missing}
        hints = [f"{found[0]!r} looks like {name}" for name, found in close.items() if found]
        raise UserError(
            f"the table of bonds lacks {', '.join(missing)}{_in_brackets(hints)}; it needs {', '.join(wanted)} and has "
            f"{', '.join(present) or 'no columns'}"
        )
    for name in OPTIONAL:
        if name in present:
            continue
        for other in present:
            if other not in used and _is_misspelt(other, name):
                raise UserError(f"column {other!r} is not read: rename it to {name!r} if it is that, else leave it out")


def _in_brackets(hints: list[str]) -> str:
    return f" ({', '.join(hints)}: rename it)" if hints else ""


def _is_misspelt(name: str, known: str) -> bool:
    """Whether a name is nearly a known one: another spelling, or a letter away; z_spread is no spread."""
    plain, of_known = (re.sub(r"[\W_]+", "", text).lower() for text in (name, known))
    if plain in (of_known, f"{of_known}date"):
        return True
    is_part = plain.endswith(of_known)
    return not is_part and difflib.SequenceMatcher(None, plain, of_known).ratio() > _CLOSE


def _device_of(raw: dict[str, Any]) -> Device:
    on_device = {name for name, column in raw.items() if hasattr(column, "__cuda_array_interface__")}
    if not on_device:
        return pick("cpu")
    host = [name for name, column in raw.items() if np.ndim(column) and name not in on_device and name not in _TEXTS]
    if host:
        raise UserError(
            f"the columns {', '.join(sorted(on_device))} are on a GPU and {', '.join(host)} are not; move all of them"
        )
    return device_of(raw[min(on_device)])


def _array(name: str, column: Any, device: Device) -> Any:
    """A column as an array of its type, of 1 dimension, or of none for a scalar."""
    if name in _TEXTS:
        return device.asarray(texts_of(name, column, _TEXTS[name]))
    if name in _DATES:
        return days_of(name, column)
    if name in _NUMBERS:
        return numbers_of(name, column).astype(np.float64, copy=False)
    return counts_of(name, column, device.xp)


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
