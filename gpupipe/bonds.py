"""Valuation of bonds: prices, yields and risk of a million bonds in a call.

from gpupipe import bonds

valued = bonds.value(table, given="clean")                     # yields, durations, convexity, DV01
valued = bonds.value(table, given="curve", curve=bonds.Curve(tenors, rates))
terms = bonds.prepare(table)                                   # dates once, prices again and again
valued.to_arrow().to_pandas()
bonds.key_rate_durations(table, bonds.Curve(tenors, rates))

Importing it loads no compiler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from gpupipe.workloads.bonds.valuation import STATUS as STATUS
    from gpupipe.workloads.bonds.valuation import BondWarning as BondWarning
    from gpupipe.workloads.bonds.valuation import Curve as Curve
    from gpupipe.workloads.bonds.valuation import Terms as Terms
    from gpupipe.workloads.bonds.valuation import Valuation as Valuation

__all__ = ["STATUS", "BondWarning", "Curve", "Terms", "Valuation", "key_rate_durations", "prepare", "value"]


def value(
    table: Any,
    given: Literal["yield", "clean", "curve"] = "clean",
    convention: Literal["street", "quantlib", "treasury"] = "street",
    curve: Curve | None = None,
    errors: Literal["warn", "raise", "ignore"] = "warn",
) -> Valuation:
    """Value bonds at their settlement: prices, yield, durations, convexity, DV01.

    table: a mapping of arrays (numpy or CuPy), series or lists, where a scalar counts for every bond, or a pyarrow,
        pandas or polars table. Coupons, yields and spreads are percent, not fractions: 5.0, not 0.05. It has
        coupon        percent a year; of a floating bond that of the current period
        frequency     coupons a year: 1, 2, 4 or 12; 0: no coupons, the yield compounded once a year
        issue, maturity, settlement   datetime64[D], or int64 days since 1970-01-01, from 1800 to 2300 (maturity: to
                      9999); NaT where one is missing; of a time with a zone, the date on that zone's clock
        day_count     "act/act" (ICMA), "30/360" (bond basis), "act/360" or "act/365", or their numbers 0 to 3
        yield, clean  the given one: percent a year, compounded `frequency` times; percent of par
    and, where wanted,
        type          "fixed", "zero" or "floating" (coupons projected from the curve, plus the margin)
        first_coupon  a date of the schedule, for a long first period; NaT or without it the first period is short
        call_date, call_price   callable then (NaT: not callable) and on each coupon date after it: yields are to worst;
                      the price is percent of par, 50 to 200
        margin        of floating bonds, percent a year
        curve         the row of a bond's curve;  spread: over the curve, percent a year, with given="curve"
        Masked values are missing. Other columns are not read, but names that are nearly one of these are refused.
    given: what the prices follow from.
    convention: all count on the schedule backwards from maturity, not moved for holidays.
        "street": the exponents of flows are whole coupon periods and the share of the current one that is left; the
            yield is compounded in the last period, too. Coupons of Act/Act and 30/360 are coupon / frequency, and the
            share of a coupon that has accrued is days over the days of its period: by 30/360 from 28 February 2021 to
            15 May, of a period until 31 August, 77 / 183 of it, so that at the end of a period all of it has accrued.
        "quantlib": exponents and coupons by the year fractions of QuantLib's FixedRateBond; by 30/360, 77 / 360 of the
            coupon of a year. Market practice for accrued interest of US corporate bonds is this one.
        "treasury": street with simple interest until the next coupon, as the US Treasury prices its auctions; of fixed
            bonds with equal coupons alone.
        Where the maturity is the last day of its month, so are all coupons. But where the first coupon, or without one
        the issue, is on the maturity's day in a longer month (28 August, of a maturity on 28 February), "street"
        and "treasury" keep the day; "quantlib" keeps month ends, as a schedule with endOfMonth does.
    curve: a `Curve`; its time is days / 365.25. With it there are also the columns curve_clean, the clean price on the
        curve, and spread, in percent a year over its zero rates, compounded continuously. A bond that can be called is
        worth the least of its ends there: its option has no value of its own, and spreads are not adjusted for it.
    errors: bonds that cannot be valued have NaN and a status; "warn" says how many, and how many that are valued have
        no spread to the curve (there is none for their settlement, or none gives the price); "raise" raises UserError
        for both, with the first row and its reason.

    The coupons of a floating bond are projected from the curve once. Its yield, modified, convexity and dv01 hold them
    fixed, as if its yield alone moved; how its price answers to the curve, `key_rate_durations` says.

    Returns a mapping of columns, on the device of the table: clean, dirty, accrued (percent of par), yield (percent),
    macaulay, modified (years), convexity (years squared), dv01 (percent of par for 0.01 percent of yield), status
    (int8, 0 for valued; its meanings are in `STATUS`), and workout, the date of the worst end, where there are calls.

    Raises UserError for missing columns, for lengths, types and names that do not fit, and for days that are no dates.

    >>> import numpy as np
    >>> day = np.datetime64
    >>> note = {"coupon": 2.25, "frequency": 2, "issue": day("2017-11-15"), "maturity": day("2027-11-15"),
    ...         "settlement": day("2017-11-15"), "day_count": "act/act", "yield": np.array([2.314])}
    >>> valued = value(note, given="yield")
    >>> round(float(valued["clean"][0]), 4), round(float(valued["modified"][0]), 4), str(valued)
    (99.4316, 8.9039, '1 bonds')
    >>> valued.to_arrow().to_pandas()[["clean", "yield", "status"]].round(4).values.tolist()
    [[99.4316, 2.314, 0.0]]
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
    curve: of a par curve the par rate of a tenor moves, and discounts are bootstrapped again; of a zero curve its zero
        rate. Its tenors need different names. The coupons of a floating bond move with it.

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

    table, convention: as in `value`, without a price or yield.

    Returns `Terms`: `price(yields)` and `yields(clean)` take and give percent a year and percent of par, `measure`
    also durations in years and convexity in years squared; `status`, int8, says by `STATUS` which bonds have NaN. All
    flows of bonds without a closed form are kept, 40 bytes each; `value` holds less.

    Raises UserError as `value`, and for floating bonds, which need a curve.

    >>> import numpy as np
    >>> day = np.datetime64
    >>> bond = {"coupon": 5.0, "frequency": 2, "issue": day("2020-01-15"), "day_count": "act/act",
    ...         "maturity": np.array([day("2030-01-15"), day("NaT")]), "settlement": day("2020-01-15")}
    >>> terms = prepare(bond)
    >>> clean, dirty = terms.price(4.0)
    >>> clean.round(4).tolist(), terms.status.tolist(), terms.yields(clean)[0].round(6).tolist()
    ([108.1757, nan], [0, 6], [4.0, nan])
    """
    from gpupipe.workloads.bonds.valuation import prepare as prepared

    return prepared(table, convention)


def __getattr__(name: str) -> Any:
    if name in ("Curve", "STATUS", "BondWarning", "Terms", "Valuation"):
        from gpupipe.workloads.bonds import valuation

        return getattr(valuation, name)
    raise AttributeError(f"module 'gpupipe.bonds' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
