"""The features there are: one row each, with the kernel, the inputs and the periods that make it."""

from __future__ import annotations

import functools
import hashlib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpupipe.kernels.compile import Kernel

CROSS_SECTION = "cross_section.cross_section"
FAMILIES = ("trend", "momentum", "volatility", "range", "volume", "candle", "calendar", "cross_sectional")

# Columns that say nearly what a default column says (rank correlation above 0.96, or a sum or longer window of others):
# computed when they are asked for by name, family, glob or "all".
NOT_DEFAULT = frozenset([
    "ema_ratio_5", "ema_ratio_10", "macd_signal_ratio", "roc_2", "rsi_21", "stoch_slowk_14", "log_natr_14",
    "volatility_250", "downside_volatility_60", "max_abs_return_5", "max_abs_gap_20", "garman_klass_20",
    "volume_ratio_1_5", "sector_dispersion_roc_20", "elapsed_days",
])  # fmt: skip


@dataclass(frozen=True)
class Feature:
    """One column.

    kernel: module and name in gpupipe.kernels, "trend.macd"; a name, so that the table can be read without numba.
    inputs: what the kernel reads, in the order of its arguments: Panel columns, "log_return" or "log_gap" (see
        kernels.series.returns); for the cross-sectional kernel the name of one other feature.
    output: which of the kernel's outputs this is, as its docstring numbers them.  periods: its set of periods.
    warm_up_bars: the first row of a symbol that can be known, counted from 0; the rows before it are NaN.
    """

    name: str
    family: str
    formula: str
    source: str
    warm_up_bars: int
    kernel: str
    inputs: tuple[str, ...]
    periods: tuple[int, ...]
    output: int

    @property
    def definition(self) -> str:
        """What fixes the column's values, as text: formula, inputs, periods and a hash of the code that it runs."""
        code = [load_kernel(self.kernel).definition]
        if {"log_return", "log_gap"}.intersection(self.inputs):
            code.append(load_kernel("series.returns").definition)
        code += [FEATURES[name].definition for name in self.inputs if name in FEATURES]
        digest = hashlib.sha256("\n\n".join(code).encode()).hexdigest()
        return f"{self.formula} | {','.join(self.inputs)} | {self.periods} | {self.kernel} {self.output} {digest}"


@functools.cache
def load_kernel(name: str) -> Kernel:
    """The kernel called "module.name" in gpupipe.kernels."""
    module, _, attribute = name.partition(".")
    kernel: Kernel = getattr(importlib.import_module(f"gpupipe.kernels.{module}"), attribute)
    return kernel


_CLOSE, _RETURN, _GAP = ("close",), ("log_return",), ("log_gap",)
_BAR = ("high", "low", "close")
_OPEN_BAR = ("open", *_BAR)


def _trend() -> Iterator[Feature]:
    for n in (5, 10, 20, 50, 100, 200):
        yield Feature(f"sma_ratio_{n}", "trend", f"close / SMA({n}) - 1", "TA-Lib SMA",
                      n - 1, "trend.moving_average", _CLOSE, (n,), 0)  # fmt: skip
    for n in (5, 10, 20, 50):
        yield Feature(f"ema_ratio_{n}", "trend", f"close / EMA({n}) - 1", "TA-Lib EMA",
                      n - 1, "trend.moving_average", _CLOSE, (n,), 1)  # fmt: skip
    for output, name in enumerate(("macd_line", "macd_signal", "macd_hist")):
        yield Feature(f"{name}_ratio", "trend", f"MACD(12, 26, 9) {name[5:]} / close", "TA-Lib MACD",
                      33, "trend.macd", _CLOSE, (12, 26, 9), output)  # fmt: skip
    for output, (name, formula) in enumerate({
        "adx": "Wilder's mean of 100 |+DI - -DI| / (+DI + -DI)",
        "plus_di": "100 * rises of the high / true range, Wilder's sums",
        "minus_di": "100 * falls of the low / true range, Wilder's sums",
    }.items()):  # fmt: skip
        yield Feature(f"{name}_14", "trend", f"{formula}, n = 14", f"TA-Lib {name.upper()}",
                      27 if output == 0 else 14, "trend.directional", _BAR, (14,), output)  # fmt: skip
    for output, side in enumerate(("up", "down"), start=4):
        extreme = {"up": "highest high", "down": "lowest low"}[side]
        yield Feature(f"aroon_{side}_25", "trend", f"100 * (25 - bars since the {extreme} of 26) / 25", "TA-Lib AROON",
                      25, "trend.extremes", _BAR, (26,), output)  # fmt: skip


def _momentum() -> Iterator[Feature]:
    for n in (1, 2, 5, 10, 20, 60, 120, 250):
        yield Feature(f"roc_{n}", "momentum", f"100 * (close / close[{n}] - 1)", "TA-Lib ROC",
                      n, "momentum.rate_of_change", _CLOSE, (n,), 0)  # fmt: skip
    for n in (7, 14, 21):
        yield Feature(f"rsi_{n}", "momentum", f"100 * gain / (gain + loss), Wilder's averages, n = {n}", "TA-Lib RSI",
                      n, "momentum.relative_strength", _CLOSE, (n,), 0)  # fmt: skip
    raw = "100 * (close - lowest 14) / (highest 14 - lowest 14)"
    yield Feature("willr_14", "momentum", f"{raw} - 100", "TA-Lib WILLR",
                  13, "momentum.stochastic", _BAR, (14, 3, 3), 0)  # fmt: skip
    yield Feature("stoch_slowk_14", "momentum", f"SMA 3 of {raw}", "TA-Lib STOCH",
                  15, "momentum.stochastic", _BAR, (14, 3, 3), 1)  # fmt: skip
    yield Feature("stoch_slowd_14", "momentum", f"SMA 3 of SMA 3 of {raw}", "TA-Lib STOCH",
                  17, "momentum.stochastic", _BAR, (14, 3, 3), 2)  # fmt: skip
    yield Feature("cci_20", "momentum", "(typical - SMA 20) / (0.015 * mean absolute deviation)", "TA-Lib CCI",
                  19, "momentum.channel_index", _BAR, (20,), 0)  # fmt: skip


def _volatility() -> Iterator[Feature]:
    yield Feature("natr_14", "volatility", "100 * ATR(14) / close", "TA-Lib NATR",
                  14, "volatility.average_true_range", _BAR, (14,), 0)  # fmt: skip
    for n in (5, 14, 20, 60):
        yield Feature(f"log_natr_{n}", "volatility", f"ln(max(100 * ATR({n}) / close, 1e-4))", "ln of TA-Lib NATR",
                      n, "volatility.average_true_range", _BAR, (n,), 1)  # fmt: skip
    for n in (20, 60):
        yield Feature(f"vol_of_vol_{n}", "volatility", f"std / mean of {n} true ranges over close[1]",
                      "coefficient of variation", n, "volatility.average_true_range", _BAR, (n,), 3)  # fmt: skip
    for n in (5, 10, 20, 60, 120, 250):
        yield Feature(f"volatility_{n}", "volatility", f"sqrt(mean of {n} r^2), r = ln(close / close[1])",
                      "realised volatility", n, "volatility.return_statistics", _RETURN, (n,), 0)  # fmt: skip
    for n in (20, 60):
        yield Feature(f"downside_volatility_{n}", "volatility", f"sqrt(mean of {n} min(r, 0)^2)",
                      "semideviation", n, "volatility.return_statistics", _RETURN, (n,), 1)  # fmt: skip
    for n in (5, 20, 60):
        yield Feature(f"max_abs_return_{n}", "volatility", f"max of {n} |r|",
                      "MAX effect, Bali, Cakici and Whitelaw (2011)",
                      n, "volatility.return_statistics", _RETURN, (n,), 2)  # fmt: skip
    for output, name in enumerate(("skewness", "kurtosis", "autocorrelation"), start=3):
        yield Feature(f"{name}_60", "volatility", f"{name} of 60 r", "population moments",
                      60, "volatility.return_statistics", _RETURN, (60,), output)  # fmt: skip
    for short, long in ((5, 20), (5, 60), (20, 60)):
        yield Feature(f"volatility_ratio_{short}_{long}", "volatility", f"volatility_{short} / volatility_{long}",
                      "ratio of realised volatilities",
                      long, "volatility.volatility_ratio", _RETURN, (short, long), 0)  # fmt: skip
    yield Feature("gap_volatility_20", "volatility", "sqrt(mean of 20 g^2), g = ln(open / close[1])",
                  "realised volatility", 20, "volatility.return_statistics", _GAP, (20,), 0)  # fmt: skip
    for n in (20, 60):
        yield Feature(f"max_abs_gap_{n}", "volatility", f"max of {n} |g|", "largest overnight move",
                      n, "volatility.return_statistics", _GAP, (n,), 2)  # fmt: skip
    for output, (name, source) in enumerate({
        "parkinson": "Parkinson (1980)", "garman_klass": "Garman and Klass (1980)",
        "rogers_satchell": "Rogers and Satchell (1991)", "yang_zhang": "Yang and Zhang (2000)",
    }.items()):  # fmt: skip
        yield Feature(f"{name}_20", "volatility", f"{name} volatility of 20 bars", source,
                      20 if output == 3 else 19, "volatility.range_volatility", _OPEN_BAR, (20,), output)  # fmt: skip
    yield Feature("bb_percent_20", "volatility", "(close - lower) / (upper - lower), bands SMA 20 -+ 2 std",
                  "TA-Lib BBANDS", 19, "volatility.bollinger", _CLOSE, (20,), 0)  # fmt: skip
    yield Feature("bb_width_20", "volatility", "(upper - lower) / SMA 20, bands SMA 20 -+ 2 std",
                  "TA-Lib BBANDS", 19, "volatility.bollinger", _CLOSE, (20,), 1)  # fmt: skip


def _range() -> Iterator[Feature]:
    yield Feature("range_ratio_20", "range", "true range / close[1], over its mean of 20", "relative true range",
                  20, "volatility.average_true_range", _BAR, (20,), 2)  # fmt: skip
    for n in (20, 60):
        for output, (side, extreme) in enumerate({"high": "highest high", "low": "lowest low"}.items()):
            yield Feature(f"{side}_distance_{n}", "range", f"close / {extreme} of {n} - 1", "TA-Lib MAX, MIN",
                          n - 1, "trend.extremes", _BAR, (n,), output)  # fmt: skip
    for output, (side, extreme) in enumerate({"high": "highest high", "low": "lowest low"}.items(), start=2):
        yield Feature(f"bars_since_{side}_60", "range", f"bars since the {extreme} of 60", "TA-Lib MAXINDEX, MININDEX",
                      59, "trend.extremes", _BAR, (60,), output)  # fmt: skip


def _volume() -> Iterator[Feature]:
    for short, long in ((1, 5), (1, 20), (1, 60), (5, 60)):
        yield Feature(f"volume_ratio_{short}_{long}", "volume", f"mean volume, {short} / {long} bars", "two means",
                      long - 1, "volume.volume_statistics", ("volume",), (short, long), 0)  # fmt: skip
    for n in (20, 60):
        yield Feature(f"volume_variation_{n}", "volume", f"std / mean of {n} volumes", "coefficient of variation",
                      n - 1, "volume.volume_statistics", ("volume",), (1, n), 1)  # fmt: skip
    flow = (*_BAR, "volume")
    yield Feature("mfi_14", "volume", "100 * rising / (rising + falling) of 14 typical * volume", "TA-Lib MFI",
                  14, "volume.money_flow", flow, (14,), 0)  # fmt: skip
    yield Feature("cmf_20", "volume", "sum of 20 place of the close in the range * volume / sum of volume",
                  "Chaikin; TA-Lib AD", 19, "volume.money_flow", flow, (20,), 1)  # fmt: skip
    yield Feature("obv_slope_20", "volume", "(OBV - OBV[20]) / sum of 20 volumes", "TA-Lib OBV",
                  20, "volume.money_flow", flow, (20,), 2)  # fmt: skip


def _candle() -> Iterator[Feature]:
    for output, (name, formula) in enumerate({
        "body": "(close - open) / (high - low)",
        "upper_shadow": "(high - max(open, close)) / (high - low)",
        "lower_shadow": "(min(open, close) - low) / (high - low)",
        "bar_range": "(high - low) / close",
        "bar_return": "close / open - 1",
    }.items()):  # fmt: skip
        yield Feature(name, "range" if name == "bar_range" else "candle", formula, "TA-Lib candle settings",
                      0, "candle.candle", _OPEN_BAR, (), output)  # fmt: skip
    yield Feature("gap", "candle", "open / close[1] - 1", "overnight return",
                  1, "candle.candle", _OPEN_BAR, (), 5)  # fmt: skip


def _calendar() -> Iterator[Feature]:
    yield Feature("weekday", "calendar", "day of the week in UTC, 0 is Monday", "calendar",
                  0, "candle.calendar", ("time_ns",), (), 0)  # fmt: skip
    yield Feature("elapsed_days", "calendar", "days since the bar before", "calendar",
                  1, "candle.calendar", ("time_ns",), (), 1)  # fmt: skip


def _cross_sectional() -> Iterator[Feature]:
    kernel, family = CROSS_SECTION, "cross_sectional"
    for n in (1, 5, 20):
        of = f"roc_{n} in the sector at the time"
        yield Feature(f"sector_rank_roc_{n}", family, f"rank of {of}, 0 to 1", "rank", n, kernel, (f"roc_{n}",), (), 0)
        yield Feature(f"sector_excess_roc_{n}", family, f"less the mean of {of}", "excess return",
                      n, kernel, (f"roc_{n}",), (), 1)  # fmt: skip
        yield Feature(f"sector_mean_roc_{n}", family, f"mean of {of}", "sector return",
                      n, kernel, (f"roc_{n}",), (), 2)  # fmt: skip
    for n in (1, 20):
        yield Feature(f"sector_dispersion_roc_{n}", family, f"std of roc_{n} in the sector at the time",
                      "cross-sectional dispersion", n, kernel, (f"roc_{n}",), (), 3)  # fmt: skip
    natr = ("natr_14",)
    yield Feature("sector_rank_natr_14", family, "rank of natr_14 in the sector at the time, 0 to 1", "rank",
                  14, kernel, natr, (), 0)  # fmt: skip
    yield Feature("sector_mean_natr_14", family, "mean of natr_14 in the sector at the time", "sector volatility",
                  14, kernel, natr, (), 2)  # fmt: skip
    yield Feature("sector_natr_ratio_60", family, "sector_mean_natr_14 / its mean of the last 60 times",
                  "volatility regime", 73, kernel, natr, (60,), 4)  # fmt: skip


FEATURES: dict[str, Feature] = {
    feature.name: feature
    for group in (_trend, _momentum, _volatility, _range, _volume, _candle, _calendar, _cross_sectional)
    for feature in group()
}
