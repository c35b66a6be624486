"""Alpha158: the 158 columns of Qlib, under its names and by its published expressions.

Two differences: Qlib's windows start with the first value (min_periods = 1), ours are NaN until they are full; and a
Panel has no $vwap, so the typical price replaces it. Source: microsoft/qlib, qlib/contrib/data/loader.py, Alpha158DL.
"""

from __future__ import annotations

from collections.abc import Callable

from gpupipe.features.expressions import (
    Bar,
    Series,
    as_series,
    bars_since_highest,
    bars_since_lowest,
    central_moment,
    change,
    comoment,
    highest,
    lag,
    log,
    lowest,
    maximum,
    mean,
    minimum,
    quantile,
    rank,
    sqrt,
    total,
    where,
)
from gpupipe.features.formulas.registry import feature
from gpupipe.features.formulas.trend import slope

TINY = 1e-12
# Qlib treats a smaller standard deviation as 0, and a division by it as NaN.
NO_DEVIATION = 2e-5
UNKNOWN = as_series(float("nan"))


def without_window(function: Callable[[Bar], Series]) -> Callable[[Bar], Series]:
    """Decorator: a column without a window."""
    return feature("alpha158", "Qlib Alpha158", periods=(), extra=((),))(function)


def windows(function: Callable[[Bar, int], Series]) -> Callable[[Bar, int], Series]:
    """Decorator: a column for each of Qlib's windows."""
    return feature("alpha158", "Qlib Alpha158", periods=(), extra=(5, 10, 20, 30, 60), separator="")(function)


def std(x: Series, n: int) -> Series:
    """Sample standard deviation."""
    return sqrt(central_moment(x, n, 2) * (n / (n - 1)))


def correlation(x: Series, y: Series, n: int) -> Series:
    """Pearson's correlation; NaN where x or y is nearly constant."""
    moves = (std(x, n) > NO_DEVIATION) * (std(y, n) > NO_DEVIATION)
    spread = sqrt(central_moment(x, n, 2) * central_moment(y, n, 2))
    return where(moves > 0.0, comoment(x, y, n) / spread, UNKNOWN)


def span(bar: Bar) -> Series:
    """high - low + 1e-12."""
    return bar.high - bar.low + TINY


@without_window
def KMID(bar: Bar) -> Series:
    """(close - open) / open"""
    return (bar.close - bar.open) / bar.open


@without_window
def KLEN(bar: Bar) -> Series:
    """(high - low) / open"""
    return (bar.high - bar.low) / bar.open


@without_window
def KMID2(bar: Bar) -> Series:
    """(close - open) / (high - low + 1e-12)"""
    return (bar.close - bar.open) / span(bar)


@without_window
def KUP(bar: Bar) -> Series:
    """(high - max(open, close)) / open"""
    return (bar.high - maximum(bar.open, bar.close)) / bar.open


@without_window
def KUP2(bar: Bar) -> Series:
    """(high - max(open, close)) / (high - low + 1e-12)"""
    return (bar.high - maximum(bar.open, bar.close)) / span(bar)


@without_window
def KLOW(bar: Bar) -> Series:
    """(min(open, close) - low) / open"""
    return (minimum(bar.open, bar.close) - bar.low) / bar.open


@without_window
def KLOW2(bar: Bar) -> Series:
    """(min(open, close) - low) / (high - low + 1e-12)"""
    return (minimum(bar.open, bar.close) - bar.low) / span(bar)


@without_window
def KSFT(bar: Bar) -> Series:
    """(2 * close - high - low) / open"""
    return (2.0 * bar.close - bar.high - bar.low) / bar.open


@without_window
def KSFT2(bar: Bar) -> Series:
    """(2 * close - high - low) / (high - low + 1e-12)"""
    return (2.0 * bar.close - bar.high - bar.low) / span(bar)


@without_window
def OPEN0(bar: Bar) -> Series:
    """open / close"""
    return bar.open / bar.close


@without_window
def HIGH0(bar: Bar) -> Series:
    """high / close"""
    return bar.high / bar.close


@without_window
def LOW0(bar: Bar) -> Series:
    """low / close"""
    return bar.low / bar.close


@without_window
def VWAP0(bar: Bar) -> Series:
    """typical price / close"""
    return (bar.high + bar.low + bar.close) / 3.0 / bar.close


@windows
def ROC(bar: Bar, d: int) -> Series:
    """close[{d}] / close"""
    return lag(bar.close, d) / bar.close


@windows
def MA(bar: Bar, d: int) -> Series:
    """mean of {d} closes / close"""
    return mean(bar.close, d) / bar.close


@windows
def STD(bar: Bar, d: int) -> Series:
    """sample std of {d} closes / close"""
    return std(bar.close, d) / bar.close


@windows
def BETA(bar: Bar, d: int) -> Series:
    """slope of the line through {d} closes / close"""
    return slope(bar.close, d) / bar.close


@windows
def RSQR(bar: Bar, d: int) -> Series:
    """R squared of the line through {d} closes; unknown where they hardly deviate"""
    explained = slope(bar.close, d) * slope(bar.close, d) * ((d * d - 1) / 12)
    return where(std(bar.close, d) > NO_DEVIATION, explained / central_moment(bar.close, d, 2), UNKNOWN)


@windows
def RESI(bar: Bar, d: int) -> Series:
    """last residual of the line through {d} closes / close"""
    return (bar.close - mean(bar.close, d) - slope(bar.close, d) * ((d - 1) / 2)) / bar.close


@windows
def MAX(bar: Bar, d: int) -> Series:
    """highest high of {d} / close"""
    return highest(bar.high, d) / bar.close


@windows
def MIN(bar: Bar, d: int) -> Series:
    """lowest low of {d} / close"""
    return lowest(bar.low, d) / bar.close


@windows
def QTLU(bar: Bar, d: int) -> Series:
    """0.8-quantile of {d} closes / close"""
    return quantile(bar.close, d, 0.8) / bar.close


@windows
def QTLD(bar: Bar, d: int) -> Series:
    """0.2-quantile of {d} closes / close"""
    return quantile(bar.close, d, 0.2) / bar.close


@windows
def RANK(bar: Bar, d: int) -> Series:
    """rank of the close among {d}, 1 / {d} to 1"""
    return rank(bar.close, d)


@windows
def RSV(bar: Bar, d: int) -> Series:
    """(close - lowest low of {d}) / (highest high of {d} - lowest low of {d} + 1e-12)"""
    low = lowest(bar.low, d)
    return (bar.close - low) / (highest(bar.high, d) - low + TINY)


@windows
def IMAX(bar: Bar, d: int) -> Series:
    """place of the highest high in {d} bars, the oldest 1, the oldest of equal ones, / {d}"""
    return (d - bars_since_highest(bar.high, d, oldest=True)) / d


@windows
def IMIN(bar: Bar, d: int) -> Series:
    """place of the lowest low in {d} bars, the oldest 1, the oldest of equal ones, / {d}"""
    return (d - bars_since_lowest(bar.low, d, oldest=True)) / d


@windows
def IMXD(bar: Bar, d: int) -> Series:
    """(place of the highest high - place of the lowest low) / {d}"""
    return (bars_since_lowest(bar.low, d, oldest=True) - bars_since_highest(bar.high, d, oldest=True)) / d


@windows
def CORR(bar: Bar, d: int) -> Series:
    """correlation of close and ln(volume + 1) over {d} bars"""
    return correlation(bar.close, log(bar.volume + 1), d)


@windows
def CORD(bar: Bar, d: int) -> Series:
    """correlation of close / close[1] and ln(volume / volume[1] + 1) over {d} bars"""
    return correlation(bar.close / lag(bar.close, 1), log(bar.volume / lag(bar.volume, 1) + 1), d)


def rises(bar: Bar, d: int) -> Series:
    """Share of the last d bars that closed above the previous bar."""
    return mean(bar.close > lag(bar.close, 1), d)


def falls(bar: Bar, d: int) -> Series:
    """Share of the last d bars that closed below the previous bar."""
    return mean(lag(bar.close, 1) > bar.close, d)


@windows
def CNTP(bar: Bar, d: int) -> Series:
    """share of {d} bars that closed higher"""
    return rises(bar, d)


@windows
def CNTN(bar: Bar, d: int) -> Series:
    """share of {d} bars that closed lower"""
    return falls(bar, d)


@windows
def CNTD(bar: Bar, d: int) -> Series:
    """share of {d} bars that closed higher, less that of lower"""
    return rises(bar, d) - falls(bar, d)


def share_of_moves(x: Series, d: int, direction: float) -> Series:
    """Sum of the rises (direction 1) or falls (-1) of x over d bars, divided by the sum of absolute changes."""
    return total(maximum(direction * change(x), 0.0), d) / (total(abs(change(x)), d) + TINY)


@windows
def SUMP(bar: Bar, d: int) -> Series:
    """sum of {d} rises of the close / sum of its moves"""
    return share_of_moves(bar.close, d, 1.0)


@windows
def SUMN(bar: Bar, d: int) -> Series:
    """sum of {d} falls of the close / sum of its moves"""
    return share_of_moves(bar.close, d, -1.0)


@windows
def SUMD(bar: Bar, d: int) -> Series:
    """SUMP{d} - SUMN{d}"""
    return share_of_moves(bar.close, d, 1.0) - share_of_moves(bar.close, d, -1.0)


@windows
def VMA(bar: Bar, d: int) -> Series:
    """mean of {d} volumes / volume"""
    return mean(bar.volume, d) / (bar.volume + TINY)


@windows
def VSTD(bar: Bar, d: int) -> Series:
    """sample std of {d} volumes / volume"""
    return std(bar.volume, d) / (bar.volume + TINY)


@windows
def WVMA(bar: Bar, d: int) -> Series:
    """sample std / mean of {d} |close / close[1] - 1| * volume"""
    weighed = abs(bar.close / lag(bar.close, 1) - 1) * bar.volume
    return std(weighed, d) / (mean(weighed, d) + TINY)


@windows
def VSUMP(bar: Bar, d: int) -> Series:
    """sum of {d} rises of the volume / sum of its moves"""
    return share_of_moves(bar.volume, d, 1.0)


@windows
def VSUMN(bar: Bar, d: int) -> Series:
    """sum of {d} falls of the volume / sum of its moves"""
    return share_of_moves(bar.volume, d, -1.0)


@windows
def VSUMD(bar: Bar, d: int) -> Series:
    """VSUMP{d} - VSUMN{d}"""
    return share_of_moves(bar.volume, d, 1.0) - share_of_moves(bar.volume, d, -1.0)
