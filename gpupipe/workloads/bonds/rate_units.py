"""Percent or fractions: decided for a whole column by its values, told, or refused."""

from __future__ import annotations

import numpy as np

from gpupipe.data.errors import DataError

AUTO, PERCENT, FRACTION = CHOICES = ("auto", "percent", "fraction")
# Sizes that nine tenths of a column's rates stay below. As fractions, rates above 60 % are not believed of a whole
# column; as percent, nine coupons in ten below a quarter of a percent are not.
_SURELY_PERCENT, _MAY_BE_FRACTION = 0.6, 0.25
_STEP, _ENOUGH = 0.01, 3  # percent is often given with two decimals; a fraction with two is a whole number of percent
_PRICES_OF_ONE = (0.2, 2.0)  # of par 1 instead of 100


def check_choice(rates: str) -> None:
    """Raise DataError unless `rates` is one of CHOICES."""
    if rates not in CHOICES:
        raise DataError(f"rates is {rates!r}, expected {', '.join(CHOICES)}")


def unit_of_rates(values: np.ndarray, where: str, rates: str = AUTO, *, stepped: bool = False) -> str:
    """Decide whether rates are percent or fractions; "percent" where no value tells.

    values: float64, any shape, NaN where not known.  where: names the column in messages.
    rates: "percent" or "fraction" decides, "auto" goes by the values: of the sizes of those that are not 0, 90 % are
        below q. They are percent if q > 0.6, fractions if q <= 0.25, and refused between these, because a market of low
        rates and one of very high ones look alike.
    stepped: also refuse values that fit q <= 0.25 where at least three of them differ and all are multiples of 0.01:
        percent with two decimals, near zero, looks like that.

    Raises DataError for values that may be either.

    >>> unit_of_rates(np.array([4.5, 5.0, 0.1]), "coupon"), unit_of_rates(np.array([0.045, 0.05, np.nan]), "coupon")
    ('percent', 'fraction')
    """
    check_choice(rates)
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    if rates != AUTO:
        return rates
    if not sizes.size:
        return PERCENT
    nine_tenths = float(np.quantile(sizes, 0.9))
    if nine_tenths > _SURELY_PERCENT:
        return PERCENT
    distinct = np.unique(sizes) / _STEP
    in_steps = stepped and len(distinct) >= _ENOUGH and bool((np.abs(distinct - np.rint(distinct)) < 1e-6).all())
    if nine_tenths > _MAY_BE_FRACTION or in_steps:
        shown = values[np.isfinite(values) & (values != 0)].flat[0]
        raise DataError(
            f"{where}: rates such as {shown:.6g} may be percent or fractions: say which with "
            "--rates percent or --rates fraction (rates='percent' or 'fraction')"
        )
    return FRACTION


def in_percent(values: np.ndarray, unit: str) -> np.ndarray:
    """Rates of a unit in percent, rounded to 12 decimals where they were fractions: 0.07 is 7, not 7.000000000000001.

    >>> in_percent(np.array([0.07, np.nan]), "fraction")
    array([ 7., nan])
    """
    return np.round(values * 100.0, 12) if unit == FRACTION else values


def note_on(unit: str, what: str) -> tuple[str, ...]:
    """The sentence that tells of fractions; nothing for percent."""
    return (f"{what} were read as fractions, and multiplied by 100",) if unit == FRACTION else ()


def prices_in_percent(clean: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Prices in percent of par, and a note if nine tenths of them were near 1 and so are multiplied by 100.

    >>> prices_in_percent(np.array([0.985, 1.02, np.nan]))
    (array([ 98.5, 102. ,   nan]), ('prices were read as shares of par, and multiplied by 100',))
    """
    known = clean[np.isfinite(clean)]
    low, high = _PRICES_OF_ONE
    if not known.size or float(((known >= low) & (known < high)).mean()) < 0.9:
        return clean, ()
    return np.round(clean * 100.0, 12), ("prices were read as shares of par, and multiplied by 100",)
