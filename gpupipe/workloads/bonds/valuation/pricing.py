"""`value`: prices, yields and risk of a table of bonds, in blocks; key-rate durations on a curve."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import numpy as np

from gpupipe.kernels.bond_curves import discount_flows, key_rates, price_on_curve
from gpupipe.kernels.bond_yields import rate_of_flows
from gpupipe.kernels.bonds import ACCRUED, MISSING, NO_CURVE, VALUED
from gpupipe.runtime.device import device_of
from gpupipe.runtime.errors import UserError
from gpupipe.workloads.bonds.valuation.columns import BondColumns
from gpupipe.workloads.bonds.valuation.curves import TOO_OLD, Curve
from gpupipe.workloads.bonds.valuation.result import BAD_CURVE, OLD_CURVE, STATUS, YIELD_RANGE, Valuation
from gpupipe.workloads.bonds.valuation.terms import MEASURES, Convention, Flows, Terms

Given = Literal["yield", "clean", "curve"]
Errors = Literal["warn", "raise", "ignore"]
BLOCK, BLOCK_FLOWS = 1 << 17, 1 << 23  # bonds, and their flows, that are valued at once: some 700 MB at most
_RESULTS = ("clean", "dirty", "accrued", "yield", "macaulay", "modified", "convexity", "dv01")


class BondWarning(UserWarning):
    """Some bonds of a table could not be valued."""


def value(
    table: Any,
    given: Given = "clean",
    convention: Convention = "street",
    curve: Curve | None = None,
    errors: Errors = "warn",
) -> Valuation:
    """Value the bonds of a table; the contract is that of `gpupipe.bonds.value`."""
    if given not in get_args(Given):
        raise UserError(f"given={given!r} is unknown; expected yield, clean or curve")
    if errors not in get_args(Errors):
        raise UserError(f"errors={errors!r} is unknown; expected warn, raise or ignore")
    columns = BondColumns.of(table, *(() if given == "curve" else (given,)))
    needs_curve = given == "curve" or ("type" in columns.arrays and bool(columns.floating.any()))
    if curve is None and needs_curve:
        raise UserError("the curve is missing: floating bonds, and given='curve', need bonds.value(..., curve=Curve())")
    market = None if curve is None else Market.of(curve, columns)
    results = _in_blocks(columns, lambda part, rows: _block(part, rows, given, convention, market))
    return _reported(_with_dates(results, columns), errors)


def key_rate_durations(
    table: Any, curve: Curve, convention: Convention = "street", errors: Errors = "warn"
) -> Valuation:
    """Key-rate durations of a table of bonds; the contract is that of `gpupipe.bonds.key_rate_durations`."""
    if errors not in get_args(Errors):
        raise UserError(f"errors={errors!r} is unknown; expected warn, raise or ignore")
    columns = BondColumns.of(table)
    market = Market.of(curve, columns, bumped=True)
    names = [tenor_name(tenor) for tenor in curve.tenors]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"tenors of the curve have one name, {', '.join(repeated)}; leave out all but one of each")

    def block(part: BondColumns, rows: Any) -> dict[str, Any]:
        return _key_rates_of_block(Terms.of(part, convention), rows, market)

    results = _in_blocks(columns, block)
    by_tenor = results.pop("key_rates")
    for k, name in enumerate(names):
        results[name] = columns.device.xp.ascontiguousarray(by_tenor[:, k])
    return _reported(results, errors)


def tenor_name(years: float) -> str:
    """The name of a tenor: m3 for a quarter of a year, y10 for ten years, or the years with decimals.

    >>> tenor_name(0.25), tenor_name(10.0), tenor_name(1 / 12), tenor_name(2.3)
    ('m3', 'y10', 'm1', 'y2.3')
    """
    months = years * 12
    if years < 1 and abs(months - round(months)) < 1e-3:
        return f"m{round(months)}"
    return f"y{years:g}"


@dataclasses.dataclass(frozen=True)
class Market:
    """The discounts of a curve, and the row of each bond's curve.

    times: float64 (n_nodes,); log_discount: float64 (n, n_nodes), as `Curve.nodes`; rows: int64 (n_bonds,).

    >>> bond = {"coupon": 0.0, "frequency": 1, "issue": 0, "maturity": 365, "settlement": 1, "day_count": "act/365"}
    >>> market = Market.of(Curve([1.0], [2.0], "zero"), BondColumns.of(bond))
    >>> market.log_discount.tolist(), market.rows.tolist()
    ([[-0.02]], [0])
    """

    times: Any
    log_discount: Any
    rows: Any
    n_curves: int

    @staticmethod
    def of(curve: Curve, columns: BondColumns, bumped: bool = False) -> Market:
        """The curve on the device of the bonds. bumped: as in `Curve.nodes`. Raises UserError for what is no Curve."""
        if not isinstance(curve, Curve):
            raise UserError(f"curve is a {type(curve).__name__}; expected bonds.Curve(tenors, rates)")
        rows = curve.rows(columns.arrays["settlement"], columns.arrays.get("curve")).astype(np.int64)
        return Market(*curve.nodes(columns.device, bumped), rows, curve.n_curves)

    def discounted(self, part: Flows, terms: Terms, rows: Any) -> tuple[Any, Any, Any]:
        """Years, discounted coupons and discounted ends of flows; coupons of floating bonds are projected in place."""
        columns = terms.columns
        outputs = tuple(columns.device.xp.empty(len(part.date)) for _ in range(3))
        discount_flows(
            part.n, part.bonds, part.offsets, part.date, columns.arrays["settlement"], columns.floating, rows,
            self.times, self.log_discount, part.amount, part.exit, *outputs,
        )  # fmt: skip
        return outputs


def _in_blocks(columns: BondColumns, block: Callable[[BondColumns, slice], dict[str, Any]]) -> dict[str, Any]:
    """The results of all blocks, in arrays that are allocated once."""
    xp, n = columns.device.xp, columns.n_bonds
    results: dict[str, Any] = {}
    for rows in _blocks(columns):
        for name, array in block(columns.part(rows.start, rows.stop), rows).items():
            if name not in results:
                results[name] = xp.empty((n, *array.shape[1:]), array.dtype)
            results[name][rows] = array
    return results


def _blocks(columns: BondColumns) -> Iterator[slice]:
    """Rows of at most BLOCK bonds, which have at most BLOCK_FLOWS flows, or of one bond."""
    n = columns.n_bonds
    if not n:
        yield slice(0, 0)
    for first in range(0, n, BLOCK):
        part = columns.part(first, min(first + BLOCK, n))
        ends = columns.device.to_host(part.most_flows.cumsum())
        begin = 0
        while begin < len(ends):
            done = ends[begin - 1] if begin else 0
            end = max(begin + 1, int(np.searchsorted(ends, done + BLOCK_FLOWS, side="right")))
            yield slice(first + begin, first + end)
            begin = end


def _block(
    columns: BondColumns, rows: slice, given: Given, convention: Convention, market: Market | None
) -> dict[str, Any]:
    """The columns of results of one block."""
    xp, terms = columns.device.xp, Terms.of(columns, convention)
    curve_rows = None if market is None else market.rows[rows]
    if market is not None and "type" in columns.arrays:
        for part in terms.flows:
            market.discounted(part, terms, curve_rows)
    results: dict[str, Any] = {}
    status = terms.status
    if market is not None:
        results, status = _on_curve(terms, curve_rows, given, market)
    if given == "yield":
        rate = columns.arrays["yield"]
    else:
        clean = results["curve_clean"] if given == "curve" else columns.arrays["clean"]
        rate, found = dataclasses.replace(terms, status=status).yields(clean)
        status = xp.where(status == VALUED, found, status)
    measured = terms.measure(rate)
    measured["dv01"] = measured["modified"] * measured["dirty"] * 1e-4  # a yield 0.01 percent higher costs it
    if given != "yield":  # the given price, not the one that the yield found gives back
        known = status == VALUED
        measured["clean"] = xp.where(known, clean, np.nan)
        measured["dirty"] = xp.where(known, clean + terms.terms[ACCRUED], np.nan)
    status = xp.where((status == VALUED) & xp.isnan(rate), np.int8(MISSING), status)
    without = ~(xp.isfinite(measured["dirty"]) & xp.isfinite(measured["convexity"]))
    status = xp.where((status == VALUED) & without, np.int8(YIELD_RANGE), status)
    if bool(without.any()):
        for name in ("clean", "dirty", *MEASURES, "dv01"):
            measured[name][without] = np.nan
    valued = {"accrued": terms.accrued, "yield": xp.where(status == VALUED, rate, np.nan), **measured}
    ordered = {name: valued[name] for name in _RESULTS} | {"status": status}
    return ordered | {name: valued[name] for name in valued if name not in ordered} | results


def _on_curve(
    terms: Terms, curve_rows: Any, given: Given, market: Market
) -> tuple[dict[str, Any], Any]:  # fmt: skip
    """The clean price of each bond on its curve, its spread to it, and the status of bonds without a curve."""
    columns = terms.columns
    xp, n = columns.device.xp, columns.n_bonds
    needs = columns.floating if given != "curve" else True
    status = _without_curve(terms.status, curve_rows, needs)
    given_spread = columns.get("spread", 0.0) / 100 if given == "curve" else xp.zeros(n)
    on_curve, spread = xp.full(n, np.nan), xp.full(n, np.nan)
    accrued = terms.terms[ACCRUED]
    dirty = columns.arrays["clean"] + accrued if given == "clean" else None
    if given == "yield":
        dirty = terms.price(columns.arrays["yield"])[1]
    for part in terms.written(xp.ones(n, bool)):
        flows = market.discounted(part, terms, curve_rows)
        last = xp.empty(part.n, np.int64)
        price_on_curve(part.n, part.bonds, part.offsets, *flows, given_spread, on_curve, last)
        if dirty is not None:
            found = xp.where(curve_rows < 0, np.int8(NO_CURVE), status)
            rate_of_flows(
                *part.blocks, part.bonds, part.offsets, part.first_exit, flows[2][part.first_exit], *flows, dirty,
                np.float64(0), part.discount, spread, found,
            )  # fmt: skip
    needed = (status == VALUED) & needs & xp.isfinite(given_spread)
    status = xp.where(needed & xp.isnan(on_curve), np.int8(BAD_CURVE), status)
    spread = given_spread * 100 if dirty is None else spread * 100
    return {"curve_clean": on_curve - accrued, "spread": spread}, status


def _without_curve(status: Any, curve_rows: Any, needs: Any) -> Any:
    """The status of bonds, with what keeps from one the curve that it needs."""
    xp = device_of(status).xp
    status = xp.where((status == VALUED) & needs & (curve_rows == TOO_OLD), np.int8(OLD_CURVE), status)
    return xp.where((status == VALUED) & needs & (curve_rows < 0), np.int8(NO_CURVE), status)


def _key_rates_of_block(terms: Terms, rows: slice, market: Market) -> dict[str, Any]:
    """The key-rate durations of one block, (n_bonds, n_tenors), their sum, and the status."""
    columns = terms.columns
    xp, n, curve_rows = columns.device.xp, columns.n_bonds, market.rows[rows]
    n_tenors = (len(market.log_discount) // market.n_curves - 1) // 2
    spread, dirty = columns.get("spread", 0.0) / 100, xp.full(n, np.nan)
    durations, total = xp.full((n, n_tenors), np.nan), xp.full(n, np.nan)
    for part in terms.written(xp.ones(n, bool)):
        margins = part.amount.copy()
        flows = market.discounted(part, terms, curve_rows)
        last = xp.empty(part.n, np.int64)
        price_on_curve(part.n, part.bonds, part.offsets, *flows, spread, dirty, last)
        key_rates(
            part.n, part.bonds, part.offsets, flows[0], margins, part.exit, columns.floating, curve_rows, last, spread,
            market.times, market.log_discount, np.int64(market.n_curves), durations, total,
        )  # fmt: skip
    status = _without_curve(terms.status, curve_rows, True)
    status = xp.where((status == VALUED) & ~xp.isfinite(spread), np.int8(MISSING), status)
    status = xp.where((status == VALUED) & xp.isnan(dirty), np.int8(BAD_CURVE), status)
    clean = dirty - terms.terms[ACCRUED]
    return {"curve_clean": clean, "duration": total, "key_rates": durations, "status": status}


def _with_dates(results: dict[str, Any], columns: BondColumns) -> dict[str, Any]:
    if "workout" in results and columns.device.kind == "cpu":
        results["workout"] = results["workout"].view("datetime64[D]")
    return results


def _reported(results: dict[str, Any], errors: Errors) -> Valuation:
    """The results; which bonds could not be valued, or have no spread, is warned of, or raised."""
    valuation = Valuation(results)
    texts = []
    if valuation.problems:
        texts.append(f"{valuation}; the column status has it by bond")
        status = results["status"]
        row = int(device_of(status).xp.flatnonzero(status)[0])
        first = f"; the first is row {row} (from 0): {STATUS[int(status[row])]}"
        texts[0] += first if errors == "raise" else ""
    if valuation.n_without_spread:
        texts.append(f"{valuation.n_without_spread:,} of {valuation.n_bonds:,} bonds are valued, but have no spread")
    if texts and errors == "raise":
        raise UserError("; ".join(texts))
    if texts and errors == "warn":
        warnings.warn("; ".join(texts), BondWarning, stacklevel=4)
    return valuation
