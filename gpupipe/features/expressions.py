"""The language of feature formulas: import what a formula needs from here.

    from gpupipe import feature
    from gpupipe.features.expressions import deviation, mean

    @feature("volatility", source="my own", periods=[10, 20])
    def mid_volatility(bar, n):
        "std of {n} mid prices / their mean"
        mid = (bar.high + bar.low) / 2
        return deviation(mid, n) / mean(mid, n)

`series` has the columns of a bar and element-wise functions, `rolling` windows and recursive averages, `lowering` the
compiler. All functions look back only, so a formula cannot look ahead.
"""

from __future__ import annotations

from gpupipe.features.lowering import STORED_TOGETHER, Program, lower, reach, warm_up
from gpupipe.features.rolling import (
    absolute_deviation,
    bars_since_highest,
    bars_since_lowest,
    central_moment,
    comoment,
    deviation,
    ema,
    highest,
    lowest,
    mean,
    quantile,
    rank,
    total,
    total_since,
    weighted_total,
    wilder,
    wilder_total,
)
from gpupipe.features.series import (
    BAR,
    Across,
    Bar,
    Series,
    across,
    as_series,
    change,
    equal,
    fill,
    floor,
    lag,
    log,
    maximum,
    minimum,
    sign,
    sine,
    sqrt,
    where,
)

__all__ = [
    "BAR",
    "STORED_TOGETHER",
    "Across",
    "Bar",
    "Program",
    "Series",
    "absolute_deviation",
    "across",
    "as_series",
    "bars_since_highest",
    "bars_since_lowest",
    "central_moment",
    "change",
    "comoment",
    "deviation",
    "ema",
    "equal",
    "fill",
    "floor",
    "highest",
    "lag",
    "log",
    "lower",
    "lowest",
    "maximum",
    "mean",
    "minimum",
    "quantile",
    "rank",
    "reach",
    "sign",
    "sine",
    "sqrt",
    "total",
    "total_since",
    "warm_up",
    "weighted_total",
    "where",
    "wilder",
    "wilder_total",
]
