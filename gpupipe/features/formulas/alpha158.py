"""Alpha158: Qlib's set of 158 columns, by its names and its published expressions.

Qlib's windows begin with what there is (min_periods = 1); ours are NaN until they are full. Its $vwap is no column of a
Panel, and is the typical price here. Source: microsoft/qlib, qlib/contrib/data/loader.py, Alpha158DL.
"""

from __future__ import annotations

from collections.abc import Callable

from gpupipe.features.expressions import (
    Bar,
    Series,
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
# Qlib calls a standard deviation below this 0, and what is divided by it unknown.
NO_DEVIATION = 2e-5


def one(function: Callable[[Bar], Series]) -> Callable[[Bar], Series]:
    """A column without a window."""
    return feature("alpha158", "Qlib Alpha158", periods=(), extra=((),))(function)


def windows(function: Callable[[Bar, int], Series]) -> Callable[[Bar, int], Series]:
    """A column of each of Qlib's windows."""
    return feature("alpha158", "Qlib Alpha158", periods=(), extra=(5, 10, 20, 30, 60), separator="")(function)


def std(x: Series, n: int) -> Series:
    """Standard deviation of the sample."""
    return sqrt(central_moment(x, n, 2) * (n / (n - 1)))


def correlation(x: Series, y: Series, n: int) -> Series:
    """Pearson's, unknown where one of the two hardly deviates."""
    moves = (std(x, n) > NO_DEVIATION) * (std(y, n) > NO_DEVIATION)
    spread = sqrt(central_moment(x, n, 2) * central_moment(y, n, 2))
    return where(moves > 0.0, comoment(x, y, n) / spread, unknown())


def unknown() -> Series:
    """NaN."""
    from gpupipe.features.expressions import as_series

    return as_series(float("nan"))


def span(bar: Bar) -> Series:
    """high - low + 1e-12."""
    return bar.high - bar.low + TINY


@one
def KMID(bar: Bar) -> Series:
    """(close - open) / open"""
    return (bar.close - bar.open) / bar.open


@one
def KLEN(bar: Bar) -> Series:
    """(high - low) / open"""
    return (bar.high - bar.low) / bar.open


@one
def KMID2(bar: Bar) -> Series:
    """(close - open) / (high - low + 1e-12)"""
    return (bar.close - bar.open) / span(bar)


@one
def KUP(bar: Bar) -> Series:
    """(high - max(open, close)) / open"""
    return (bar.high - maximum(bar.open, bar.close)) / bar.open


@one
def KUP2(bar: Bar) -> Series:
    """(high - max(open, close)) / (high - low + 1e-12)"""
    return (bar.high - maximum(bar.open, bar.close)) / span(bar)


@one
def KLOW(bar: Bar) -> Series:
    """(min(open, close) - low) / open"""
    return (minimum(bar.open, bar.close) - bar.low) / bar.open


@one
def KLOW2(bar: Bar) -> Series:
    """(min(open, close) - low) / (high - low + 1e-12)"""
    return (minimum(bar.open, bar.close) - bar.low) / span(bar)


@one
def KSFT(bar: Bar) -> Series:
    """(2 * close - high - low) / open"""
    return (2.0 * bar.close - bar.high - bar.low) / bar.open


@one
def KSFT2(bar: Bar) -> Series:
    """(2 * close - high - low) / (high - low + 1e-12)"""
    return (2.0 * bar.close - bar.high - bar.low) / span(bar)


@one
def OPEN0(bar: Bar) -> Series:
    """open / close"""
    return bar.open / bar.close


@one
def HIGH0(bar: Bar) -> Series:
    """high / close"""
    return bar.high / bar.close


@one
def LOW0(bar: Bar) -> Series:
    """low / close"""
    return bar.low / bar.close


@one
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
    return where(std(bar.close, d) > NO_DEVIATION, explained / central_moment(bar.close, d, 2), unknown())


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
    """Share of bars that closed higher."""
    return mean(bar.close > lag(bar.close, 1), d)


def falls(bar: Bar, d: int) -> Series:
    """Share of bars that closed lower."""
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


def gained(x: Series, d: int, direction: float) -> Series:
    """Sum of d rises (or falls) of x over the sum of its moves."""
    return total(maximum(direction * change(x), 0.0), d) / (total(abs(change(x)), d) + TINY)


@windows
def SUMP(bar: Bar, d: int) -> Series:
    """sum of {d} rises of the close / sum of its moves"""
    return gained(bar.close, d, 1.0)


@windows
def SUMN(bar: Bar, d: int) -> Series:
    """sum of {d} falls of the close / sum of its moves"""
    return gained(bar.close, d, -1.0)


@windows
def SUMD(bar: Bar, d: int) -> Series:
    """SUMP{d} - SUMN{d}"""
    return gained(bar.close, d, 1.0) - gained(bar.close, d, -1.0)


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
    return gained(bar.volume, d, 1.0)


@windows
def VSUMN(bar: Bar, d: int) -> Series:
    """sum of {d} falls of the volume / sum of its moves"""
    return gained(bar.volume, d, -1.0)


@windows
def VSUMD(bar: Bar, d: int) -> Series:
    """VSUMP{d} - VSUMN{d}"""
    return gained(bar.volume, d, 1.0) - gained(bar.volume, d, -1.0)
