"""The built-in features, one module a family; importing this package registers them, in the order of "all"."""

from __future__ import annotations

import importlib

from gpupipe.features.formulas.registry import FAMILIES, FEATURES, SET_APART, Feature, feature, panel_feature

__all__ = ["ATB9", "CORE", "FAMILIES", "FEATURES", "SESSION", "SET_APART", "Feature", "feature", "panel_feature"]

MODULES = (
    "trend", "momentum", "volatility", "ranges", "volume", "candle", "calendar", "cross_sectional", "alpha158",
    "levels", "intraday",
)  # fmt: skip
for _module in MODULES:
    importlib.import_module(f"gpupipe.features.formulas.{_module}")

# The columns that the presets train on: one of each group of nearly equal columns (rank correlation above 0.96).
CORE = [
    "sma_ratio_5", "sma_ratio_10", "sma_ratio_20", "sma_ratio_50", "sma_ratio_100", "sma_ratio_200", "ema_ratio_20",
    "ema_ratio_50", "macd_line_ratio", "macd_hist_ratio", "adx_14", "plus_di_14", "minus_di_14", "aroon_up_25",
    "aroon_down_25", "roc_1", "roc_5", "roc_10", "roc_20", "roc_60", "roc_120", "roc_250", "rsi_7", "rsi_14",
    "willr_14", "stoch_slowd_14", "cci_20", "natr_14", "log_natr_5", "log_natr_20", "log_range_60", "vol_of_vol_20",
    "vol_of_vol_60", "volatility_5", "volatility_10", "volatility_20", "volatility_60", "volatility_120",
    "downside_volatility_20", "max_abs_return_20", "max_abs_return_60", "skewness_60", "kurtosis_60",
    "autocorrelation_60", "volatility_ratio_5_20", "volatility_ratio_5_60", "volatility_ratio_20_60",
    "gap_volatility_20", "max_abs_gap_60", "parkinson_20", "rogers_satchell_20", "yang_zhang_20", "bb_percent_20",
    "bb_width_20", "range_ratio_20", "high_distance_20", "low_distance_20", "high_distance_60", "low_distance_60",
    "bars_since_high_60", "bars_since_low_60", "volume_ratio_1_20", "volume_ratio_1_60", "volume_ratio_5_60",
    "volume_variation_20", "volume_variation_60", "mfi_14", "cmf_20", "obv_slope_20", "body", "upper_shadow",
    "lower_shadow", "bar_range", "bar_return", "gap", "weekday", "sector_rank_roc_1", "sector_excess_roc_1",
    "sector_mean_roc_1", "sector_rank_roc_5", "sector_excess_roc_5", "sector_mean_roc_5", "sector_rank_roc_20",
    "sector_excess_roc_20", "sector_mean_roc_20", "sector_dispersion_roc_1", "sector_rank_natr_14",
    "sector_mean_natr_14", "sector_natr_ratio_60",
]  # fmt: skip

# Prices, volume, three moving averages and Wilder's RSI: the usual inputs of a recurrent network on one series.
ATB9 = [
    "level_open", "level_high", "level_low", "level_close", "level_volume", "level_sma_7", "level_sma_14",
    "level_sma_30", "rsi_14",
]  # fmt: skip

# What an agent that trades one instrument within the day observes: every column is known after 60 bars.
SESSION = [
    "roc_1", "roc_5", "bar_return", "session_return", "roc_10", "roc_20", "rsi_7", "rsi_14", "natr_14",
    "range_ratio_20", "adx_14", "plus_di_14", "minus_di_14", "body", "upper_shadow", "lower_shadow", "time_sine",
    "time_cosine", "macd_line_ratio", "macd_signal_ratio", "macd_hist_ratio", "stoch_slowk_14", "stoch_slowd_14",
    "session_vwap_ratio", "session_asia", "session_london", "session_new_york", "session_overlap",
    "round_distance_10", "round_distance_100", "sma_ratio_20", "sma_ratio_50", "sma_cross_5_20",
    "volume_profile_60", "willr_14", "cci_20",
]  # fmt: skip
