"""The Panel of bonds: a row is the quote of a bond on a date, with the par curve known on that date."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.data.panel import NS_PER_DAY, Panel
from gpupipe.workloads.bonds.par_curve import COLUMN_PREFIX, interpolated, tenor_years

NO_DAY = int(np.datetime64("NaT", "D").astype(np.int64))  # of a date that a bond does not have; NaT as datetime64[D]
MAX_CURVE_AGE = 7  # days: a curve day before a weekend with holidays on both of its sides is still known
FIXED, ZERO, FLOATING = TYPES = ("fixed", "zero", "floating")
DAY_COUNTS = ("act/act", "30/360", "act/360", "act/365")
DAYS = ("issue", "maturity", "first_coupon", "call_date")
ATTRIBUTES = ("type", "rating", "issuer", "sector", "day_count", "callable")

# Takes a table as `bond_table` makes it, with a column `yield`, and returns the clean prices, float64 (n,); NaN where
# a yield cannot be turned into a price.
PriceOfYield = Callable[[Mapping[str, np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Instruments:
    """Bonds, one an item of each field, sorted by id.

    id: names, without duplicates.  type: fixed, zero or floating.  rating: AAA ... D, Treasury or NR.
    issuer, sector: texts.  day_count: one of DAY_COUNTS.  callable: "yes" or "no".
    coupon: float64 (n_bonds,), percent a year; NaN of a floating bond whose coupon follows the curve (`panel_of`).
    margin: float64, percent a year over the curve, of floating bonds; 0 of others.
    frequency: int64, coupons a year: 1, 2, 4 or 12; of a zero-coupon bond, the periods a year in which its yield is
        compounded, where 0 is once a year, too.
    issue, maturity, first_coupon, call_date: int64, days since 1970-01-01; NO_DAY where the bond has none. Interest
        runs from `issue`.
    call_price: float64, percent of par; NaN without a call.

    >>> texts = {"type": ("zero",), "rating": ("AAA",), "issuer": ("A",), "sector": ("energy",),
    ...          "day_count": ("act/act",), "callable": ("no",)}
    >>> day = np.int64([18_000])
    >>> bonds = Instruments(("A1",), **texts, coupon=np.zeros(1), margin=np.zeros(1), frequency=np.int64([2]),
    ...                     issue=day, maturity=day + 3_650, first_coupon=np.int64([NO_DAY]),
    ...                     call_date=np.int64([NO_DAY]), call_price=np.array([np.nan]))
    >>> len(bonds.id), bonds.maturity.astype("M8[D]")
    (1, array(['2029-04-11'], dtype='datetime64[D]'))
    """

    id: tuple[str, ...]
    type: tuple[str, ...]
    rating: tuple[str, ...]
    issuer: tuple[str, ...]
    sector: tuple[str, ...]
    day_count: tuple[str, ...]
    callable: tuple[str, ...]
    coupon: np.ndarray
    margin: np.ndarray
    frequency: np.ndarray
    issue: np.ndarray
    maturity: np.ndarray
    first_coupon: np.ndarray
    call_date: np.ndarray
    call_price: np.ndarray


@dataclass(frozen=True)
class Quotes:
    """Quotes of bonds, sorted by bond and then day, one for each bond and day.

    bond: int64 (n_quotes,), position in `Instruments.id`.  day: int64, days since 1970-01-01; also the settlement.
    clean: float64, percent of par.  yield_: float64, percent a year, compounded as often as the bond pays.
    At least one of the two is known; NaN where it is not quoted.
    traded: int64, the day on which price and yield were set: `day` or an earlier one.
    rating_rank: int64, the rating known on that day, see `ratings.RANKS`.
    coupon: float64, percent a year: of a floating bond, the coupon that runs on that day; NaN where it is not quoted.
        Of other bonds it is not read.

    >>> day = np.int64([18_000])
    >>> quotes = Quotes(np.int64([0]), day, np.array([99.5]), np.array([np.nan]), day, np.int64([1]),
    ...                 np.array([np.nan]))
    >>> quotes.clean
    array([99.5])
    """

    bond: np.ndarray
    day: np.ndarray
    clean: np.ndarray
    yield_: np.ndarray
    traded: np.ndarray
    rating_rank: np.ndarray
    coupon: np.ndarray


@dataclass(frozen=True)
class Curve:
    """A par curve by day.

    day: int64 (n_days,), days since 1970-01-01, strictly increasing.  tenors: names such as "m1" and "y10", by length.
    rates: float64 (n_days, n_tenors), percent a year; NaN where none was published.

    >>> Curve(np.int64([18_000]), ("m3", "y10"), np.array([[2.0, 2.5]])).rates.shape
    (1, 2)
    """

    day: np.ndarray
    tenors: tuple[str, ...]
    rates: np.ndarray


def panel_of(
    instruments: Instruments,
    quotes: Quotes,
    curve: Curve,
    price_of_yield: PriceOfYield,
    *,
    max_curve_age: int = MAX_CURVE_AGE,
    group_by: str = "sector",
) -> Panel:
    """The Panel of bonds. Symbols are the bonds that have a quote; `time_ns` is midnight UTC of the quote's day.

    Columns, each (n_rows,):

    clean: float64, percent of par: the quoted price; where only a yield is quoted, what `price_of_yield` makes of it;
        NaN where it makes nothing.
    yield: float64, percent a year: the quoted yield, NaN where none is.
    coupon: float64, percent a year. Of a floating bond the coupon that runs on that day: the quoted one, else the
        instrument's, else the curve at one coupon period + margin, from the curve known on that day; NaN without one.
    margin, call_price: float64.  frequency, issue, maturity, first_coupon, call_date: int64. As in `Instruments`.
    rating_rank: int64, known on that day.
    curve_m1 ... curve_y30, one for each tenor of the curve: float64, percent a year: the rates of the last curve day on
        or before the day on which the quote was set; NaN where the curve has none, or is more than `max_curve_age` days
        old.
    curve_age: int64, days from that curve day to the day on which the quote was set; -1 before the first curve day.

    Attributes: type, rating, issuer, sector, day_count, callable. Unlike rating_rank, `rating` has no date.

    Nothing in a row depends on later quotes or curve days.
    """
    present = np.unique(quotes.bond)
    offsets = np.searchsorted(quotes.bond, np.append(present, len(instruments.id)))
    bond = quotes.bond
    rates, age = _known_rates(curve, quotes.traded, max_curve_age)
    per_bond = {name: getattr(instruments, name)[bond] for name in ("margin", "frequency", *DAYS, "call_price")}
    columns: dict[str, Any] = {
        "clean": quotes.clean,
        "yield": quotes.yield_,
        "coupon": _running_coupons(instruments, quotes, curve, rates),
        **per_bond,
        "rating_rank": quotes.rating_rank,
        **{f"{COLUMN_PREFIX}{tenor}": rates[:, k].copy() for k, tenor in enumerate(curve.tenors)},
        "curve_age": age,
    }
    panel = Panel(
        columns,
        quotes.day * NS_PER_DAY,
        offsets.astype(np.int64),
        tuple(instruments.id[k] for k in present),
        {name: tuple(getattr(instruments, name)[k] for k in present) for name in ATTRIBUTES},
        group_by,
    )
    return _with_prices(panel, price_of_yield)


def _known_rates(curve: Curve, day: np.ndarray, max_age: int) -> tuple[np.ndarray, np.ndarray]:
    """`(rates of the last curve day on or before each day, float64 (n, n_tenors); its age in days, int64 (n,))`."""
    position = np.searchsorted(curve.day, day, side="right") - 1
    age = np.where(position >= 0, day - curve.day[np.maximum(position, 0)], -1)
    rates = curve.rates[np.maximum(position, 0)]
    rates[(position < 0) | (age > max_age)] = np.nan
    return rates, age


def _running_coupons(instruments: Instruments, quotes: Quotes, curve: Curve, rates: np.ndarray) -> np.ndarray:
    """The column `coupon` of `panel_of`."""
    is_floating = (np.array(instruments.type) == FLOATING)[quotes.bond]
    quoted = is_floating & ~np.isnan(quotes.coupon)
    coupon = np.where(quoted, quotes.coupon, instruments.coupon[quotes.bond])
    rows = np.flatnonzero(np.isnan(coupon))
    if rows.size:
        bond = quotes.bond[rows]
        period = 1.0 / np.maximum(instruments.frequency[bond], 1)
        coupon[rows] = interpolated(tenor_years(curve.tenors), rates[rows], period) + instruments.margin[bond]
    return coupon


def _with_prices(panel: Panel, price_of_yield: PriceOfYield) -> Panel:
    """The panel with clean prices for rows of which only the yield is quoted."""
    rows = np.flatnonzero(np.isnan(panel.clean) & ~np.isnan(panel.columns["yield"]))
    if not rows.size:
        return panel
    table = {**bond_table(panel, rows), "yield": panel.columns["yield"][rows]}
    clean = panel.clean.copy()
    clean[rows] = price_of_yield(table)
    return panel.replace(clean=clean)


def bond_table(panel: Panel, rows: Any = None) -> dict[str, np.ndarray]:
    """The columns by which a bond is valued, as `gpupipe.bonds.value` takes them, without price and yield.

    rows: int64, row numbers; None for all rows.

    type: "fixed" or "zero". A floating bond is a fixed one with the coupon that runs on the row's day, as for the
        street's discount margin: its yield less the rate of its coupon period.
    day_count: texts (n,).  coupon, margin, call_price: float64.  frequency: int64.
    issue, maturity, first_coupon, call_date: datetime64[D], NaT where a bond has none.
    settlement: datetime64[D], the row's own day.
    """
    chosen = slice(None) if rows is None else rows
    symbol = panel.symbol_of_row[chosen]
    types = [FIXED if name == FLOATING else name for name in panel.attributes["type"]]
    table = {"type": np.array(types)[symbol], "day_count": np.array(panel.attributes["day_count"])[symbol]}
    table |= {name: panel.columns[name][chosen] for name in ("coupon", "margin", "call_price", "frequency")}
    table |= {name: panel.columns[name][chosen].astype("datetime64[D]") for name in DAYS}
    return {**table, "settlement": days_of(panel)[chosen].astype("datetime64[D]")}


def days_of(panel: Panel) -> np.ndarray:
    """int64 (n_rows,): the day of each quote, in days since 1970-01-01."""
    days: np.ndarray = panel.time_ns // NS_PER_DAY
    return days


def reference_rate(panel: Panel) -> np.ndarray:
    """float64 (n_rows,): the par rate, in percent, over which a row's spread is counted.

    The curve of the row, at the time from its day to maturity in years of 365.25 days; of a floating bond
    at one coupon period, as its coupons follow the curve. Linear between tenors, constant beyond the first and the last
    one. NaN where no rate is known.

    spread = yield - reference_rate(panel)
    """
    is_floating = (np.array(panel.attributes["type"]) == FLOATING)[panel.symbol_of_row]
    period = 1.0 / np.maximum(panel.frequency, 1)
    return _rate_at(panel, np.where(is_floating, period, _years_to_maturity(panel)))


def rate_at_maturity(panel: Panel) -> np.ndarray:
    """float64 (n_rows,), percent: as `reference_rate`, but at the time to maturity also of floating bonds.

    spread + rate_at_maturity is the yield by which bonds of one curve are compared: a floating bond's own yield is one
    of its coupon period.
    """
    return _rate_at(panel, _years_to_maturity(panel))


def row_curves(panel: Panel) -> np.ndarray:
    """float64 (n_rows, n_tenors), percent: the par curve of each row, at `curve_tenors`."""
    return np.stack([panel.columns[f"{COLUMN_PREFIX}{tenor}"] for tenor in curve_tenors(panel)], axis=1)


def _years_to_maturity(panel: Panel) -> np.ndarray:
    years: np.ndarray = (panel.maturity - days_of(panel)) / 365.25
    return years


def _rate_at(panel: Panel, years: np.ndarray) -> np.ndarray:
    return interpolated(tenor_years(curve_tenors(panel)), row_curves(panel), years)


def curve_tenors(panel: Panel) -> tuple[str, ...]:
    """The tenors of a panel's curve, such as ("m1", "y10"), by length."""
    columns = (name for name in panel.columns if name.startswith(COLUMN_PREFIX) and name != "curve_age")
    return tuple(name.removeprefix(COLUMN_PREFIX) for name in columns)
