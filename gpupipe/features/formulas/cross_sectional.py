"""Cross-sectional: a symbol compared with its sector at the same time, and the sector compared with its past."""

from __future__ import annotations

from gpupipe.features.expressions import Across, Bar, Series, across, lag, mean, where
from gpupipe.features.formulas.candle import upper_shadow
from gpupipe.features.formulas.momentum import relative_strength, willr
from gpupipe.features.formulas.registry import feature
from gpupipe.features.formulas.trend import macd_hist_ratio
from gpupipe.features.formulas.volatility import average_range

RANK, EXCESS, MEAN, DISPERSION, AGAINST_PAST, SCORE = range(6)  # outputs of kernels.cross_section


def rate(bar: Bar, n: int) -> Series:
    """Return over n bars, in per cent."""
    return 100.0 * (bar.close / lag(bar.close, n) - 1)


def activity(bar: Bar, n: int) -> Series:
    """Volume divided by its mean over n bars; 1 where that mean is 0."""
    average = mean(bar.volume, n)
    return where(average > 0.0, bar.volume / average, 1.0)


@feature("cross_sectional", "rank", [1, 5, 20, 60], extra=[250])
def sector_rank_roc(bar: Bar, n: int) -> Across:
    """rank of roc_{n} in the sector at the time, 0 to 1"""
    return across(rate(bar, n), RANK)


@feature("cross_sectional", "excess return", [1, 5, 20, 60])
def sector_excess_roc(bar: Bar, n: int) -> Across:
    """roc_{n} less its mean in the sector at the time"""
    return across(rate(bar, n), EXCESS)


@feature("cross_sectional", "standard score", [1, 5, 20])
def sector_score_roc(bar: Bar, n: int) -> Across:
    """(roc_{n} - mean) / std in the sector at the time; 0 without any deviation"""
    return across(rate(bar, n), SCORE)


@feature("cross_sectional", "sector return", [1, 5, 20, 60])
def sector_mean_roc(bar: Bar, n: int) -> Across:
    """mean of roc_{n} in the sector at the time"""
    return across(rate(bar, n), MEAN)


@feature("cross_sectional", "cross-sectional dispersion", [1, 5], extra=[20])
def sector_dispersion_roc(bar: Bar, n: int) -> Across:
    """std of roc_{n} in the sector at the time"""
    return across(rate(bar, n), DISPERSION)


@feature("cross_sectional", "rank", [14])
def sector_rank_natr(bar: Bar, n: int) -> Across:
    """rank of natr_{n} in the sector at the time, 0 to 1"""
    return across(average_range(bar, n), RANK)


@feature("cross_sectional", "sector volatility", [14])
def sector_mean_natr(bar: Bar, n: int) -> Across:
    """mean of natr_{n} in the sector at the time"""
    return across(average_range(bar, n), MEAN)


@feature("cross_sectional", "volatility regime", [60])
def sector_natr_ratio(bar: Bar, n: int) -> Across:
    """mean of natr_14 in the sector at the time / its mean of the last {n} times"""
    return across(average_range(bar, 14), AGAINST_PAST, n)


@feature("cross_sectional", "rank", [20])
def sector_rank_volume(bar: Bar, n: int) -> Across:
    """rank of volume / its mean of {n} in the sector at the time, 0 to 1"""
    return across(activity(bar, n), RANK)


@feature("cross_sectional", "rank", [14])
def sector_rank_rsi(bar: Bar, n: int) -> Across:
    """rank of rsi_{n} in the sector at the time, 0 to 1"""
    return across(relative_strength(bar, n), RANK)


@feature("cross_sectional", "rank", periods=(), extra=[14])
def sector_rank_willr(bar: Bar, n: int) -> Across:
    """rank of willr_{n} in the sector at the time, 0 to 1"""
    return across(willr(bar, n), RANK)


@feature("cross_sectional", "rank", periods=(), extra=((),))
def sector_rank_macd_hist_ratio(bar: Bar) -> Across:
    """rank of macd_hist_ratio in the sector at the time, 0 to 1"""
    return across(macd_hist_ratio(bar), RANK)


@feature("cross_sectional", "rank", periods=(), extra=((),))
def sector_rank_upper_shadow(bar: Bar) -> Across:
    """rank of upper_shadow in the sector at the time, 0 to 1"""
    return across(upper_shadow(bar), RANK)


@feature("cross_sectional", "breadth", [20])
def sector_breadth(bar: Bar, n: int) -> Across:
    """share of the sector's symbols that close above their SMA({n})"""
    return across(bar.close > mean(bar.close, n), MEAN)
