"""Terms of bonds at their settlement: what prices and yields are computed from, made from the dates once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from gpupipe.kernels.bond_closed import measure_closed, price_closed, yield_closed
from gpupipe.kernels.bond_yields import measure_flows, price_flows, rate_of_flows, yield_of_rate
from gpupipe.kernels.bonds import ACCRUED, N_TERMS, bond_flows, bond_terms
from gpupipe.runtime.errors import UserError
from gpupipe.workloads.bonds.valuation.columns import BondColumns
from gpupipe.workloads.bonds.valuation.conversion import plain

Convention = Literal["street", "quantlib", "treasury"]
MEASURES = ("macaulay", "modified", "convexity")
BONDS_AT_ONCE = {"cpu": 1024, "cuda": 1}  # of an item of a kernel of closed forms
BONDS_OF_FLOWS = {"cpu": 64, "cuda": 1}  # of an item of a kernel over flows
_NO_MAPPING = "out has to be the result of an earlier call: a mapping of arrays by name"
FLOWS_AT_ONCE = 1 << 22  # flows that are written out together: some 150 MB


@dataclass(frozen=True)
class Flows:
    """The flows of some bonds, as `kernels.bonds.bond_flows` writes them.

    bonds: int64 (n,), rows of the table; offsets: int64 (n + 1,); first_exit: int64 (n,), and first_value: float64
        (n,), exit in these rows; the others (offsets[n],), of which discount is scratch memory of the kernels that read
        the flows.
    at_once: bonds of an item of these kernels.

    >>> of_one = np.array([[0.5], [2.0], [100.0]])
    >>> ends = np.array([0]), of_one[2]
    >>> flows = Flows(np.array([3]), np.array([0, 1]), *ends, *of_one, np.array([18_000]), np.empty(1), 64)
    >>> flows.n, flows.blocks
    (1, (1, np.int64(64)))
    """

    bonds: Any
    offsets: Any
    first_exit: Any
    first_value: Any
    exponent: Any
    amount: Any
    exit: Any
    date: Any
    discount: Any
    at_once: int

    @property
    def n(self) -> int:
        """The number of bonds."""
        return len(self.bonds)

    @property
    def arrays(self) -> tuple[Any, ...]:
        """bonds, offsets, first_exit, first_value, exponent, amount, exit: in the order of the kernels."""
        ends = self.first_exit, self.first_value
        return self.bonds, self.offsets, *ends, self.exponent, self.amount, self.exit

    @property
    def blocks(self) -> tuple[int, Any]:
        """How many items a kernel over the flows has, and the bonds of an item."""
        return -(-self.n // self.at_once), np.int64(self.at_once)


@dataclass(frozen=True)
class Terms:
    """Bonds prepared for valuation at their settlement.

    columns: of the table.  convention: its number in `Convention`.
    terms: float64 (N_TERMS, n_bonds), n_flows int64, by_flows bool, status int8 (n_bonds,): of
        `kernels.bonds.bond_terms`.
    flows: of the bonds that are not priced in closed form, in parts of some million flows. All of them are kept: 40
        bytes a flow, and 50 a bond for the terms; 100,000 such bonds with 60 flows hold 240 MB. `value` holds those of
        a block of bonds at a time.

    >>> import gpupipe.bonds as bonds
    >>> day = np.datetime64
    >>> table = {"coupon": 5.0, "frequency": 2, "issue": day("2020-01-15"), "maturity": day("2030-01-15"),
    ...          "settlement": np.array([day("2020-01-15"), day("2025-04-15")]), "day_count": "30/360"}
    >>> terms = bonds.prepare(table)
    >>> clean, dirty = terms.price(np.array([5.0, 5.0]))
    >>> clean.round(6).tolist(), dirty.round(6).tolist()
    ([100.0, 99.992284], [100.0, 101.242284])
    """

    columns: BondColumns
    convention: int
    terms: Any
    n_flows: Any
    by_flows: Any
    status: Any
    flows: tuple[Flows, ...] = ()

    @staticmethod
    def of(columns: BondColumns, convention: Convention = "street") -> Terms:
        """The terms of bonds. Raises UserError for an unknown convention."""
        if convention not in get_args(Convention):
            raise UserError(f"convention {convention!r} is unknown; expected {', '.join(get_args(Convention))}")
        xp, n = columns.device.xp, columns.n_bonds
        number = get_args(Convention).index(convention)
        terms, n_flows = xp.empty((N_TERMS, n)), xp.empty(n, np.int64)
        by_flows, status = xp.empty(n, bool), columns.status
        bond_terms(n, *_dates(columns), columns.floating, np.int64(number), terms, n_flows, by_flows, status)
        closed = Terms(columns, number, terms, n_flows, by_flows, status)
        return dataclasses.replace(closed, flows=tuple(closed.written(by_flows)))

    def written(self, which: Any) -> Iterator[Flows]:
        """The flows of the bonds that `which`, bool (n_bonds,), marks and that can be valued, in parts."""
        xp, columns = self.columns.device.xp, self.columns
        bonds = xp.flatnonzero(which & (self.n_flows > 0)).astype(np.int64)
        if not len(bonds):
            return
        ends = xp.cumsum(self.n_flows[bonds])
        edges = np.searchsorted(columns.device.to_host(ends), np.arange(0, int(ends[-1]), FLOWS_AT_ONCE), side="right")
        for begin, end in zip(edges, [*edges[1:], len(bonds)], strict=True):
            if begin == end:
                continue
            part = bonds[begin:end]
            offsets = xp.zeros(len(part) + 1, np.int64)
            xp.cumsum(self.n_flows[part], out=offsets[1:])
            size, first_exit = int(offsets[-1]), xp.empty(len(part), np.int64)
            exponent, amount, exit_, date, scratch = (xp.empty(size, kind) for kind in ("f8", "f8", "f8", "i8", "f8"))
            bond_flows(
                len(part), part, offsets, *_dates(columns), columns.get("call_price", np.nan), columns.floating,
                columns.get("margin", 0.0), np.int64(self.convention), exponent, amount, exit_, date,
                first_exit,
            )  # fmt: skip
            at_once = BONDS_OF_FLOWS[columns.device.kind]
            yield Flows(part, offsets, first_exit, exit_[first_exit], exponent, amount, exit_, date, scratch, at_once)

    @property
    def n_bonds(self) -> int:
        """The number of bonds."""
        return self.columns.n_bonds

    @property
    def _blocks(self) -> tuple[int, Any]:
        """How many items a kernel of closed forms has, and the bonds of an item."""
        at_once = BONDS_AT_ONCE[self.columns.device.kind]
        return -(-self.n_bonds // at_once), np.int64(at_once)

    @property
    def accrued(self) -> Any:
        """float64 (n_bonds,): interest accrued at settlement, percent of par."""
        return self.terms[ACCRUED]

    def _given(self, values: Any, name: str) -> Any:
        """Numbers of all bonds, float64 (n_bonds,), C order, from those given, or from one number."""
        device, n = self.columns.device, self.n_bonds
        on_device = hasattr(values, "__cuda_array_interface__")
        if on_device != (device.kind == "cuda") and np.ndim(values):
            raise UserError(f"{name} is {'' if on_device else 'not '}on a GPU, unlike the bonds; move it there")
        array = values if on_device else np.asarray(plain(values))
        if array.dtype.kind not in "iuf" or array.shape not in ((), (n,)):
            raise UserError(
                f"{name} is {array.dtype} of shape {tuple(array.shape)}; expected numbers, ({n},): one a bond, or one "
                "for all bonds"
            )
        if array.shape == ():
            return device.xp.full(n, float(array))
        return device.xp.ascontiguousarray(array, dtype=np.float64)

    def _outputs(self, names: Sequence[str], out: Any) -> list[Any]:
        """Arrays to write to: new ones, or those given, which have to be float64 (n_bonds,), C order, of the device."""
        xp, n = self.columns.device.xp, self.n_bonds
        if out is None:
            return [xp.empty(n) for _ in names]
        arrays = list(out) if isinstance(out, (tuple, list)) else []
        if len(arrays) != len(names):
            raise UserError(f"out is {type(out).__name__}; expected arrays of {', '.join(names)}")
        for name, array in zip(names, arrays, strict=True):
            fits = isinstance(array, xp.ndarray) and array.dtype == np.float64 and array.shape == (n,)
            if not (fits and array.flags.c_contiguous and getattr(array.flags, "writeable", True)):
                raise UserError(f"out of {name} has to be a float64 array ({n},), C order, on the device of the bonds")
        return arrays

    def price(self, rate: Any, out: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
        """Clean and dirty prices, percent of par, float64 (n_bonds,), from yields in percent a year.

        rate: numbers (n_bonds,) on the device of the table, or one number for all bonds.
        NaN where the bond has a status, or the yield is NaN or outside -90 to 900 percent a period.
        out: the result of an earlier call, to be written again: new memory costs as much as the prices.

        Raises UserError for another shape or type, or another device.
        """
        rate, clean, dirty = self._given(rate, "rate"), *self._outputs(("clean", "dirty"), out)
        price_closed(*self._blocks, self.terms, self.n_flows, rate, np.int64(self.convention), clean, dirty)
        for part in self.flows:
            price_flows(*part.blocks, *part.arrays, self.terms, rate, part.discount, clean, dirty)
        return clean, dirty

    def measure(self, rate: Any, out: dict[str, Any] | None = None) -> dict[str, Any]:
        """Clean and dirty price, Macaulay and modified duration, and convexity from yields, and workout.

        DV01 is modified * dirty / 10,000.

        workout: int64 days, the date at which the bond is valued to end: of a bond that can be called the worst.
        rate, out, errors: as in `price`; out has the names of the result.
        """
        xp, names = self.columns.device.xp, ("clean", "dirty", *MEASURES)
        if isinstance(out, Mapping) and not (missing := set(names) - set(out)):
            given: Any = [out[name] for name in names]
        elif out is None:
            given = None
        else:
            raise UserError(f"out lacks {', '.join(sorted(missing))}" if isinstance(out, Mapping) else _NO_MAPPING)
        rate, results = self._given(rate, "rate"), dict(zip(names, self._outputs(names, given), strict=True))
        measure_closed(*self._blocks, self.terms, self.n_flows, rate, np.int64(self.convention), *results.values())
        workout = self.columns.arrays["maturity"].copy() if "call_date" in self.columns.arrays else None
        for part in self.flows:
            last = xp.empty(part.n, np.int64)
            measure_flows(*part.blocks, *part.arrays, self.terms, rate, part.discount, *results.values(), last)
            if workout is not None:
                ended = last >= 0
                workout[part.bonds[ended]] = part.date[last[ended]]
        if workout is not None:
            results["workout"] = workout
        return results

    def yields(self, clean: Any) -> tuple[Any, Any]:
        """Yields in percent a year, float64 (n_bonds,), from clean prices, and the status, int8.

        A bond that can be called has its yield to worst. NaN where the price is, and with a status other than VALUED.
        clean, errors: as the rate in `price`.
        """
        xp, n, clean = self.columns.device.xp, self.n_bonds, self._given(clean, "clean")
        rate, status, dirty = xp.empty(n), self.status.copy(), clean + self.terms[ACCRUED]
        yield_closed(
            *self._blocks, self.terms, self.n_flows, self.by_flows, dirty, np.int64(self.convention), xp.empty(n), rate,
            status,
        )  # fmt: skip
        for part in self.flows:
            rate_of_flows(*part.blocks, *part.arrays, dirty, np.float64(np.nan), part.discount, rate, status)
            yield_of_rate(part.n, part.bonds, self.terms, rate)
        return rate, status


def prepare(table: Any, convention: Convention = "street") -> Terms:
    """The terms of a table of bonds, from which prices and yields are computed again and again.

    table, convention: as in `gpupipe.bonds.value`; floating bonds need a curve, and are refused here.

    Raises UserError as `BondColumns.of`, and for floating bonds.
    """
    columns = BondColumns.of(table)
    if "type" in columns.arrays and bool(columns.floating.any()):
        raise UserError("floating bonds have no flows without a curve: use bonds.value(..., curve=...)")
    return Terms.of(columns, convention)


def _dates(columns: BondColumns) -> tuple[Any, ...]:
    """The columns that make a schedule, in the order of the kernels."""
    named = (columns.arrays[name] for name in ("frequency", "issue", "maturity", "settlement", "day_count"))
    return columns.coupons, *named, columns.dates("first_coupon"), columns.dates("call_date")
