"""The columns that models read: of a bond, its quotes until a date, its peers, and the curve of the date."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.data.panel import NS_PER_DAY, Panel
from gpupipe.workloads.bonds.dates import earlier, group_mean, mean_of_last, mean_so_far, positions, total_so_far
from gpupipe.workloads.bonds.fair_values import DAYS_OF_YEAR, FairValues
from gpupipe.workloads.bonds.par_curve import interpolated, tenor_years
from gpupipe.workloads.bonds.schema import COLUMN_PREFIX, NO_DAY, curve_tenors

# What each column is. All of it is known at the row's date: quotes and curves up to it, terms, and the rating.
COLUMNS = {
    "spread": "yield less the par curve at the remaining years, percent",
    "spread_change_1": "spread less that of the last quote",
    "spread_change_2": "spread less that of two quotes ago",
    "spread_change_3": "spread less that of three quotes ago",
    "spread_less_own": "spread less its mean over the last six quotes",
    "spread_less_rating": "spread less the mean of the others of the date with the same rating",
    "spread_less_peers": "spread less the mean of the others of the date with the same rating and band of years",
    "spread_less_sector": "spread less the mean of the others of the date in the same sector",
    "spread_less_issuer": "spread less the mean of the issuer's other bonds of the date",
    "level_own": "log spread less its mean over the last twelve quotes",
    "level_rating": "log spread less the mean of the rating's others, less the mean of that over twelve quotes",
    "level_peers": "the same against the others with the same rating and band of years",
    "level_sector": "the same against the others of the sector",
    "level_issuer": "the same against the issuer's other bonds",
    "level_rating_24": "level_rating over 24 quotes",
    "level_rating_all": "level_rating over all quotes until the row",
    "level_peers_24": "level_peers over 24 quotes",
    "level_peers_all": "level_peers over all quotes until the row",
    "level_sector_24": "level_sector over 24 quotes",
    "level_sector_all": "level_sector over all quotes until the row",
    "level_issuer_24": "level_issuer over 24 quotes",
    "level_issuer_all": "level_issuer over all quotes until the row",
    "index_issuer": "log spread less the index of the issuer's other bonds, less the mean of that over twelve quotes",
    "index_issuer_24": "index_issuer over 24 quotes",
    "index_issuer_all": "index_issuer over all quotes until the row",
    "market_spread": "mean spread of the date",
    "market_change": "market_spread less that of the date before",
    "rating_rank": "0 Treasury, 1 AAA, 2 AA, ...",
    "rating_change": "rating_rank less that of three quotes ago",
    "years": "to maturity",
    "age_years": "since issue",
    "modified": "modified duration, years",
    "convexity": "years squared",
    "coupon": "percent a year",
    "clean": "clean price",
    "callable": "1 where the issuer may call it",
    "days_since_quote": "days since the bond's last quote",
    "unchanged": "how many of its last three quotes had the price before them",
    "curve_level": "par yield of 10 years, percent",
    "curve_slope": "10 years less 2 years",
    "curve_bend": "twice 5 years less 2 and 10 years",
    "curve_change": "curve_level less that of the date before",
}
LEAST_SPREAD = 0.05  # percent, whose logarithm smaller and negative spreads get
LEVEL_QUOTES, MORE_QUOTES = 12, 24
BANDS = (1.0, 3.0, 5.0, 7.0, 10.0, 20.0)  # years, at which bands of peers begin


@dataclass(frozen=True)
class Curves:
    """Par curves by date. years: float64 (n_tenors,), rising.  rates: float64 (n_dates, n_tenors), percent.

    >>> Curves(np.array([1.0, 2.0]), np.array([[1.0, 3.0]])).at(np.array([0]), np.array([1.5])).tolist()
    [2.0]
    """

    years: np.ndarray
    rates: np.ndarray

    def at(self, date: np.ndarray, years: np.ndarray) -> np.ndarray:
        """float64 (n,), percent: on the dates int64 (n,), at the maturities float64 (n,)."""
        return interpolated(self.years, self.rates[date], years)


@dataclass(frozen=True)
class BondRows:
    """The rows of a run, on the host. A row is a quote.

    X: float32 (n_rows, n_columns), NaN is missing.  names: of its columns.
    date: int64 (n_rows,), the position of each row's date in `dates`, int64 (n_dates,), UTC ns.
    issuer, rating: int64 (n_rows,), codes.  curves: of the dates.

        >>> day, curves = np.zeros(1, np.int64), Curves(np.ones(1), np.ones((1, 1)))
        >>> BondRows(np.zeros((1, 1), np.float32), ("spread",), day, day, day, day, curves).n_rows
        1
    """

    X: np.ndarray
    names: tuple[str, ...]
    date: np.ndarray
    dates: np.ndarray
    issuer: np.ndarray
    rating: np.ndarray
    curves: Curves

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.X)


def rows_of(panel: Panel, values: FairValues) -> BondRows:
    """The columns of all rows."""
    to_host = panel.device.to_host
    own = {name: np.asarray(to_host(column), np.float64) for name, column in panel.columns.items()}
    time_ns, offsets = to_host(panel.time_ns), to_host(panel.offsets)
    symbol = to_host(panel.symbol_of_row)
    dates, date = positions(time_ns)
    codes = {name: positions(np.asarray(panel.attributes[name]))[1][symbol] for name in ("issuer", "sector")}
    rating = own["rating_rank"].astype(np.int64)
    group = _Groups(date, len(dates))
    spread = values.spread
    band = np.searchsorted(BANDS, values.years, side="right")
    found: dict[str, Any] = {"spread": spread, "spread_less_own": spread - mean_of_last(spread, offsets, 6)}
    for k in (1, 2, 3):
        found[f"spread_change_{k}"] = spread - earlier(spread, offsets, k)
    log_spread = np.log(np.maximum(spread, LEAST_SPREAD))
    found["level_own"] = log_spread - mean_of_last(log_spread, offsets, LEVEL_QUOTES)
    for name, key in (
        ("rating", group.of(rating)), ("peers", group.of(rating, band)), ("sector", group.of(codes["sector"])),
        ("issuer", group.of(codes["issuer"])),
    ):  # fmt: skip
        found[f"spread_less_{name}"] = spread - group_mean(spread, key, leave_out_own=True)
        # What is particular to the bond, such as its duration, is in the mean of the level, and not in its difference.
        level = log_spread - group_mean(log_spread, key, leave_out_own=True)
        found |= _less_means(f"level_{name}", level, offsets)
    index = peers_index(log_spread, date, offsets, codes["issuer"])
    found |= _less_means("index_issuer", log_spread - index, offsets)
    curves = curve_by_date(panel, date, len(dates))
    found |= _of_market(curves, spread, date)
    days = time_ns / NS_PER_DAY
    clean = own["clean"]
    same = (clean == earlier(clean, offsets, 1)).astype(np.int64)
    found |= {
        "rating_rank": own["rating_rank"],
        "rating_change": own["rating_rank"] - earlier(own["rating_rank"], offsets, 3),
        "years": values.years,
        "age_years": np.where(own["issue"] > NO_DAY, days - own["issue"], np.nan) / DAYS_OF_YEAR,
        "modified": values.modified,
        "convexity": values.convexity,
        "coupon": own["coupon"],
        "clean": clean,
        "callable": np.asarray([text == "yes" for text in panel.attributes["callable"]], np.float64)[symbol],
        "days_since_quote": days - earlier(days, offsets, 1),
        "unchanged": sum(same if k == 0 else earlier(same, offsets, k) == 1 for k in range(3)),
    }
    X = np.stack([found[name] for name in COLUMNS], axis=1).astype(np.float32)
    return BondRows(X, tuple(COLUMNS), date, dates, codes["issuer"], rating, curves)


def _less_means(name: str, level: np.ndarray, offsets: np.ndarray) -> dict[str, np.ndarray]:
    """A level less its means over fewer, more and all quotes until the row: where it comes back to, a model learns.

    A short mean follows a lasting change sooner; a long one is less of the deviation itself.
    """
    return {
        name: level - mean_of_last(level, offsets, LEVEL_QUOTES),
        f"{name}_{MORE_QUOTES}": level - mean_of_last(level, offsets, MORE_QUOTES),
        f"{name}_all": level - mean_so_far(level, offsets),
    }


def peers_index(value: np.ndarray, date: np.ndarray, offsets: np.ndarray, group: np.ndarray) -> np.ndarray:
    """float64 (n_rows,): how far the others of a bond's group have moved since its first quote, summed date by date.

    value: float64 (n_rows,), such as log spreads.  date, group: int64 (n_rows,).
    On each date the others' mean change from the date before is added; 0 where none of them has both quotes. So bonds
    that appear, mature or miss a quote move no index, as they move the mean of a group.
    """
    n_dates = int(date.max(initial=-1)) + 1
    before = earlier(date.astype(np.float64), offsets, 1)
    follows = date - before == 1
    change = np.where(follows, value - earlier(value, offsets, 1), np.nan)
    mean_of_all = np.zeros((int(group.max(initial=-1)) + 1, n_dates))
    mean_of_all[group, date] = np.nan_to_num(group_mean(change, group * n_dates + date))
    path = np.cumsum(mean_of_all, axis=1)
    of_others = np.nan_to_num(group_mean(change, group * n_dates + date, leave_out_own=True))
    known = np.isfinite(before)
    # Over a gap in its own quotes the bond is in none of the means, so that they are of the others.
    over_gap = path[group, date] - path[group, np.where(known, before, 0).astype(np.int64)]
    return total_so_far(np.where(known, np.where(follows, of_others, over_gap), 0.0), offsets)


@dataclass(frozen=True)
class _Groups:
    """Numbers of groups within a date."""

    date: np.ndarray
    n_dates: int

    def of(self, *codes: np.ndarray) -> np.ndarray:
        number = self.date
        for code in codes:
            number = number * (int(code.max(initial=0)) + 1) + code
        return positions(number)[1]


def curve_by_date(panel: Panel, date: np.ndarray, n_dates: int) -> Curves:
    """The newest par curve that the rows of each date carry, with missing tenors on the line between their neighbours.

    Rows of one date have different curves where their quotes were set on different days, and none where it is too old.
    """
    tenors, to_host = curve_tenors(panel), panel.device.to_host
    carried = np.stack([to_host(panel.columns[COLUMN_PREFIX + tenor]) for tenor in tenors], axis=1)
    has_curve = np.flatnonzero(np.isfinite(carried).any(axis=1))
    oldest_first = has_curve[np.argsort(-to_host(panel.columns["curve_age"])[has_curve], kind="stable")]
    rates = np.full((n_dates, len(tenors)), np.nan)
    rates[date[oldest_first]] = carried[oldest_first]  # the last one stays
    years = tenor_years(tenors)
    filled = [interpolated(years, rates, np.full(n_dates, at)) for at in years]
    return Curves(years, np.stack(filled, axis=1))


def _of_market(curves: Curves, spread: np.ndarray, date: np.ndarray) -> dict[str, Any]:
    """Columns that all rows of a date share."""
    n_dates = len(curves.rates)
    two, five, ten = (curves.at(np.arange(n_dates), np.full(n_dates, years)) for years in (2.0, 5.0, 10.0))
    market = np.full(n_dates, np.nan)
    market[date] = group_mean(spread, date)
    by_date = {
        "market_spread": market, "market_change": _change(market), "curve_level": ten, "curve_slope": ten - two,
        "curve_bend": 2 * five - two - ten, "curve_change": _change(ten),
    }  # fmt: skip
    return {name: column[date] for name, column in by_date.items()}


def _change(column: np.ndarray) -> np.ndarray:
    """From the date before; NaN on the first."""
    return np.append(np.nan, np.diff(column)) if len(column) else column
