"""Par curves: names of tenors, and rates between them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

COLUMN_PREFIX = "curve_"  # of a panel's columns
_WORDS = {"m": "m", "mo": "m", "month": "m", "months": "m", "mth": "m", "y": "y", "yr": "y", "year": "y", "years": "y"}
_NUMBER = r"(?P<number>\d{1,3}(?:[._]\d+)?)"
_UNIT = rf"(?P<unit>{'|'.join(sorted(_WORDS, key=len, reverse=True))})"
_PREFIX = r"(?:dgs|bc_?|gs|par_?|curve_?|tenor_?|ust_?|cmt_?|rate_?)?"
_FORMS = (
    rf"{_PREFIX}{_UNIT}_?{_NUMBER}",  # m1, Y10, BC_MONTH1
    rf"{_PREFIX}{_NUMBER}[\s_-]*{_UNIT}",  # 1m, 10Y, 1 Mo, 10 Yr, DGS3MO, BC_10YEAR
    rf"dgs{_NUMBER}",  # DGS10, of years
)
_LONGEST_YEARS = 100.0


def tenor_of(name: str) -> str:
    """The tenor that a column's name spells, as "m1" or "y10"; "" for another name. 12 months are y1.

    >>> [tenor_of(name) for name in ("m1", "1M", "1 Mo", "10Y", "y10", "DGS10", "DGS3MO", "BC_2YEAR", "1.5 Month", "x")]
    ['m1', 'm1', 'm1', 'y10', 'y10', 'y10', 'm3', 'y2', 'm1_5', '']
    """
    for form in _FORMS:
        found = re.fullmatch(form, name.strip().strip("<>\"'").lower())
        if not found:
            continue
        unit = _WORDS[found.groupdict().get("unit") or "y"]
        number = float(found["number"].replace("_", "."))
        if unit == "m" and number >= 12 and number % 12 == 0:
            unit, number = "y", number / 12
        years = number if unit == "y" else number / 12
        return f"{unit}{number:g}".replace(".", "_") if 0 < years <= _LONGEST_YEARS else ""
    return ""


def tenor_years(tenors: Sequence[str]) -> np.ndarray:
    """float64 (n_tenors,): years of tenors such as "m1" and "y10".

    >>> tenor_years(("m3", "y10"))
    array([ 0.25, 10.  ])
    """
    numbers = np.array([float(name[1:].replace("_", ".")) for name in tenors])
    return np.where([name[0] == "m" for name in tenors], numbers / 12, numbers)


def interpolated(tenors: np.ndarray, rates: np.ndarray, years: np.ndarray) -> np.ndarray:
    """Rates at `years`, float64 (n,): linear between the known tenors of a row, constant beyond them.

    tenors: float64 (n_tenors,), years, increasing.  rates: float64 (n, n_tenors), NaN where not known.
    NaN in a row without any rate, and where years is NaN.

    >>> interpolated(np.array([1.0, 2.0, 4.0]), np.array([[1.0, np.nan, 4.0]] * 3), np.array([0.5, 2.0, 30.0]))
    array([1., 2., 4.])
    """
    n_rows = len(rates)
    low, high = np.full(n_rows, np.nan), np.full(n_rows, np.nan)  # the nearest known rates on both sides
    low_years, high_years = np.full(n_rows, np.nan), np.full(n_rows, np.nan)
    for k, tenor in enumerate(tenors):
        known = ~np.isnan(rates[:, k])
        below = known & (tenor <= years)
        low[below], low_years[below] = rates[below, k], tenor
        above = known & (tenor >= years) & np.isnan(high)
        high[above], high_years[above] = rates[above, k], tenor
    width = high_years - low_years
    with np.errstate(invalid="ignore", divide="ignore"):
        between = low + (high - low) * np.where(width > 0, (years - low_years) / width, 0.0)
    return np.where(np.isnan(low), high, np.where(np.isnan(high), low, between))
