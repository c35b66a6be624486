"""What a model has to be better than: the last spread, the mean of the rating, a Nelson-Siegel-Svensson curve."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from gpupipe.workloads.bonds.dates import group_mean, positions

LAST, RATING, SVENSSON = "last spread", "rating mean", "Nelson-Siegel-Svensson"
# Years at which the humps of a curve may lie; all pairs are tried, and for each the rest is linear.
TAUS = (0.5, 1.0, 2.0, 3.5, 5.0, 8.0, 12.0)
GRADES = (0, 4)  # ratings up to which bonds share a curve: Treasuries, investment grade; the others have a third
FEWEST = 8  # quotes of a curve: fewer are predicted by their mean


def baselines(
    spread: np.ndarray, at_maturity: np.ndarray, years: np.ndarray, rating: np.ndarray, date: np.ndarray
) -> Mapping[str, np.ndarray]:
    """For each baseline float64 (n_rows,): the spread it expects at the next date, from the quotes of the row's date.

    spread, at_maturity: percent; the second as `schema.rate_at_maturity`.  years: to maturity.  rating, date: int64.
    """
    bucket = positions(date * (int(rating.max(initial=0)) + 1) + rating)[1]
    return {
        LAST: spread,
        RATING: group_mean(spread, bucket),
        SVENSSON: svensson_by_date(spread + at_maturity, years, rating, date) - at_maturity,
    }


def svensson_by_date(yields: np.ndarray, years: np.ndarray, rating: np.ndarray, date: np.ndarray) -> np.ndarray:
    """float64 (n_rows,): the yield of the curve of the row's date and grade at its years."""
    grade = np.searchsorted(GRADES, rating)
    group = positions(date * (len(GRADES) + 1) + grade)[1]
    fitted = np.full(len(yields), np.nan)
    known = np.isfinite(yields) & np.isfinite(years)
    order = np.argsort(group, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        own = rows[known[rows]]
        if len(own) < FEWEST:
            fitted[rows] = yields[own].mean() if len(own) else np.nan
            continue
        fitted[own] = svensson(years[own], yields[own], years[own])
    return fitted


def svensson(years: np.ndarray, yields: np.ndarray, at: np.ndarray) -> np.ndarray:
    """float64 like `at`: yields of the Nelson-Siegel-Svensson curve that fits best by least squares.

        y(t) = b0 + b1 g(t / tau1) + b2 (g(t / tau1) - e^(-t / tau1)) + b3 (g(t / tau2) - e^(-t / tau2))

    with g(x) = (1 - e^-x) / x; tau1 < tau2 are chosen among `TAUS`. A small ridge keeps b finite where maturities are
    few.
    Source: Svensson (1994), Estimating and Interpreting Forward Interest Rates; Nelson and Siegel (1987).
    """
    best, answer = np.inf, np.full(len(at), float(yields.mean()))
    for tau1, tau2 in itertools.combinations(TAUS, 2):
        X = _terms(years, tau1, tau2)
        b = np.linalg.solve(X.T @ X + 1e-6 * len(X) * np.eye(4), X.T @ yields)
        error = float(((X @ b - yields) ** 2).sum())
        if error < best:
            best, answer = error, _terms(at, tau1, tau2) @ b
    return answer


def _terms(years: np.ndarray, tau1: float, tau2: float) -> np.ndarray:
    def slope(x: np.ndarray) -> np.ndarray:
        return -np.expm1(-x) / x

    first, second = np.maximum(years, 1e-6) / tau1, np.maximum(years, 1e-6) / tau2
    return np.stack(
        [np.ones(len(years)), slope(first), slope(first) - np.exp(-first), slope(second) - np.exp(-second)], axis=1
    )
