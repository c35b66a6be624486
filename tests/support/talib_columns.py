"""Which of our columns hold what TA-Lib computes: 44 arrays of a symbol, and the 42 columns that follow from them."""

from __future__ import annotations

import numpy as np

# The middle Bollinger bands are two of the simple averages.
ARRAYS = (
    *(f"sma_{n}" for n in (5, 10, 20, 50, 100, 200)), *(f"ema_{n}" for n in (5, 10, 20, 50, 100, 200)),
    "rsi_7", "rsi_14", "rsi_21", "macd_line", "macd_signal", "macd_hist",
    "upper_20", "middle_20", "lower_20", "upper_50", "middle_50", "lower_50",
    "atr_14", "adx_14", "plus_di_14", "minus_di_14", "stoch_slowk_14", "stoch_slowd_14", "cci_20", "willr_14",
    "roc_5", "roc_10", "roc_20", "obv", "mfi_14", "std_10", "std_20", "std_50", "max_20", "min_20",
    "aroon_down_25", "aroon_up_25",
)  # fmt: skip
# Of ours that hold them.
OUR_COLUMNS = (
    *(f"sma_ratio_{n}" for n in (5, 10, 20, 50, 100, 200)), *(f"ema_ratio_{n}" for n in (5, 10, 20, 50, 100, 200)),
    "rsi_7", "rsi_14", "rsi_21", "macd_line_ratio", "macd_signal_ratio", "macd_hist_ratio",
    "bb_percent_20", "bb_width_20", "bb_percent_50", "bb_width_50", "natr_14", "adx_14", "plus_di_14", "minus_di_14",
    "stoch_slowk_14", "stoch_slowd_14", "cci_20", "willr_14", "roc_5", "roc_10", "roc_20", "obv_slope_20", "mfi_14",
    "std_ratio_10", "std_ratio_20", "std_ratio_50", "high_distance_20", "low_distance_20", "aroon_up_25",
    "aroon_down_25",
)  # fmt: skip


def talib_arrays(h: np.ndarray, l: np.ndarray, c: np.ndarray, v: np.ndarray) -> list[np.ndarray]:  # noqa: E741
    """ARRAYS of one symbol by TA-Lib, of its high, low, close and volume as float64."""
    import talib

    made = [talib.SMA(c, n) for n in (5, 10, 20, 50, 100, 200)] + [talib.EMA(c, n) for n in (5, 10, 20, 50, 100, 200)]
    made += [talib.RSI(c, n) for n in (7, 14, 21)] + [*talib.MACD(c, 12, 26, 9)]
    made += [*talib.BBANDS(c, 20, 2, 2), *talib.BBANDS(c, 50, 2, 2)]
    made += [talib.ATR(h, l, c, 14), talib.ADX(h, l, c, 14), talib.PLUS_DI(h, l, c, 14), talib.MINUS_DI(h, l, c, 14)]
    made += [*talib.STOCH(h, l, c, 14, 3, 0, 3, 0), talib.CCI(h, l, c, 20), talib.WILLR(h, l, c, 14)]
    made += [talib.ROC(c, n) for n in (5, 10, 20)] + [talib.OBV(c, v), talib.MFI(h, l, c, v, 14)]
    made += [talib.STDDEV(c, n) for n in (10, 20, 50)] + [talib.MAX(h, 20), talib.MIN(l, 20), *talib.AROON(h, l, 25)]
    return made


def our_columns(arrays: list[np.ndarray], c: np.ndarray, v: np.ndarray) -> dict[str, np.ndarray]:
    """OUR_COLUMNS of one symbol, from its ARRAYS, close and volume: what compute_features gives under these names."""
    a = dict(zip(ARRAYS, arrays, strict=True))
    for n in (5, 10, 20, 50, 100, 200):
        a[f"sma_ratio_{n}"], a[f"ema_ratio_{n}"] = c / a[f"sma_{n}"] - 1, c / a[f"ema_{n}"] - 1
    for part in ("line", "signal", "hist"):
        a[f"macd_{part}_ratio"] = a[f"macd_{part}"] / c
    for n in (20, 50):
        upper, middle, lower = (a[f"{band}_{n}"] for band in ("upper", "middle", "lower"))
        a[f"bb_percent_{n}"], a[f"bb_width_{n}"] = (c - lower) / (upper - lower), (upper - lower) / middle
    for n in (10, 20, 50):
        a[f"std_ratio_{n}"] = a[f"std_{n}"] / a[f"sma_{n}"]
    a["natr_14"] = 100 * a["atr_14"] / c
    a["high_distance_20"], a["low_distance_20"] = c / a["max_20"] - 1, c / a["min_20"] - 1
    traded = np.concatenate([[0.0], np.cumsum(v)])
    a["obv_slope_20"] = change(a["obv"], 20) / change(traded, 20)[1:]
    return {name: a[name] for name in OUR_COLUMNS}


def change(x: np.ndarray, n: int) -> np.ndarray:
    """x - x[n], NaN in the first n."""
    return np.concatenate([np.full(min(n, len(x)), np.nan), x[n:] - x[:-n]])
