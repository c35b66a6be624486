"""Valuation of bonds: prices, yields and risk of a million bonds in a call.

from gpupipe import bonds

valued = bonds.value(table, given="clean")                     # yields, durations, convexity, DV01
valued = bonds.value(table, given="curve", curve=bonds.Curve(tenors, rates))
terms = bonds.prepare(table)                                   # dates once, prices again and again
bonds.key_rate_durations(table, bonds.Curve(tenors, rates))

Importing it loads no compiler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from gpupipe.workloads.bonds.valuation import Curve as Curve
    from gpupipe.workloads.bonds.valuation import Terms, Valuation


def value(
    table: Any,
    given: Literal["yield", "clean", "curve"] = "clean",
    convention: Literal["street", "quantlib", "treasury"] = "street",
    curve: Curve | None = None,
    errors: Literal["warn", "raise", "ignore"] = "warn",
) -> Valuation:
    """Value bonds at their settlement: prices, yield, durations, convexity, DV01.

    table: a mapping of arrays (numpy or CuPy; a scalar counts for every bond) or a pyarrow, pandas or polars table with
        coupon        percent a year; of a floating bond that of the current period
        frequency     coupons a year: 1, 2, 4 or 12; 0: no coupons, the yield compounded once a year
        issue, maturity, settlement   datetime64[D], or int64 days since 1970-01-01
        day_count     "act/act" (ICMA), "30/360" (bond basis), "act/360" or "act/365", or their numbers 0 to 3
        yield, clean  the given one: percent a year, compounded `frequency` times; percent of par
    and, where wanted,
        type          "fixed", "zero" or "floating" (coupons projected from the curve, plus the margin)
        first_coupon  a date of the schedule, for a long first period; without it the first period is short
        call_date, call_price   callable then and on each coupon date after it: yields are to worst
        margin        of floating bonds, percent a year
        curve         the row of a bond's curve;  spread: over the curve, percent a year, with given="curve"
    given: what the prices follow from.
    convention: "street" counts the exponents of flows in whole coupon periods, "quantlib" by the year fractions of
        QuantLib's FixedRateBond; both on the schedule backwards from maturity, not moved for holidays. Coupons of
        Act/Act, and in street of 30/360, are coupon / frequency; others follow their days. "treasury" is street with
        simple interest until the next coupon, as the US Treasury prices its auctions; of fixed bonds with equal
        coupons alone.
    curve: a `Curve`. With it there are also the columns curve_clean, the clean price on the curve, and spread, in
        percent a year over its zero rates, compounded continuously.
    errors: bonds that cannot be valued have NaN and a status; "warn" says how many, "raise" raises UserError.

    Returns a mapping of columns, on the device of the table: clean, dirty, accrued (percent of par), yield (percent),
    macaulay, modified (years), convexity (years squared), dv01 (percent of par for 0.01 percent of yield), status
    (int8, 0 for valued; its meanings are in `STATUS`), and workout, the date of the worst end, where there are calls.

    Raises UserError for missing columns, and for lengths, types and names that do not fit.

    >>> import numpy as np
    >>> day = np.datetime64
    >>> note = {"coupon": 2.25, "frequency": 2, "issue": day("2017-11-15"), "maturity": day("2027-11-15"),
    ...         "settlement": day("2017-11-15"), "day_count": "act/act", "yield": np.array([2.314])}
    >>> valued = value(note, given="yield")
    >>> round(float(valued["clean"][0]), 4), round(float(valued["modified"][0]), 4), str(valued)
    (99.4316, 8.9039, '1 bonds')
    """
    from gpupipe.workloads.bonds.valuation import value as valued

    return valued(table, given, convention, curve, errors)


def key_rate_durations(
    table: Any,
    curve: Curve,
    convention: Literal["street", "quantlib", "treasury"] = "street",
    errors: Literal["warn", "raise", "ignore"] = "warn",
) -> Valuation:
    """How the prices of bonds on a curve answer to the rate of each of its tenors, in years.

    table: as in `value`, without a price or yield; `spread` is kept.

    Returns a mapping of columns: curve_clean, duration (the sum over all tenors), status, and one for each tenor, such
    as m3 or y10: (price with its rate 0.01 percent lower - higher) / (0.0002 price).

    Raises UserError as `value`.

    >>> import numpy as np
    >>> from gpupipe import bonds
    >>> day = np.datetime64
    >>> zero = {"coupon": 0.0, "frequency": 0, "issue": day("2020-01-15"), "maturity": np.array([day("2030-01-15")]),
    ...         "settlement": day("2020-01-15"), "day_count": "act/act"}
    >>> durations = key_rate_durations(zero, bonds.Curve([2.0, 10.0, 30.0], [1.0, 2.0, 2.5], "zero"))
    >>> [name for name in durations if name.startswith("y")], durations["y10"].round(3).tolist()
    (['y2', 'y10', 'y30'], [9.999])
    """
    from gpupipe.workloads.bonds.valuation import key_rate_durations as durations

    return durations(table, curve, convention, errors)


def prepare(table: Any, convention: Literal["street", "quantlib", "treasury"] = "street") -> Terms:
    """The terms of bonds, made from their dates once: their `price`, `measure` and `yields` take arrays of all bonds.

    table, convention: as in `value`.  Raises UserError as `value`, and for floating bonds.
    """
    from gpupipe.workloads.bonds.valuation import prepare as prepared

    return prepared(table, convention)


def __getattr__(name: str) -> Any:
    if name in ("Curve", "STATUS", "BondWarning"):
        from gpupipe.workloads.bonds import valuation

        return getattr(valuation, name)
    raise AttributeError(f"module 'gpupipe.bonds' has no attribute {name!r}")
