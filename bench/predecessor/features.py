"""Features as they are usually written: pandas, symbol by symbol.

Every column is one of gpupipe's default set by name and by definition, so that the two can be compared; the 23
cross-sectional ones are left out, because this way sees one symbol at a time.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

SMALLEST_VARIANCE = 1e-15  # of returns, as gpupipe.features.formulas has it
Columns = dict[str, Any]


def features_of_symbol(bars: pd.DataFrame) -> pd.DataFrame:
    """172 columns float64 of one symbol's bars (time, open, high, low, close, volume), oldest first; NaN in warm-up."""
    b = bars[["open", "high", "low", "close", "volume"]].astype(np.float64)
    columns = {
        **trend(b), **momentum(b), **volatility(b), **ranges(b), **volume(b), **candle(b), **calendar(bars["time"]),
    }  # fmt: skip
    return pd.DataFrame(columns, index=bars.index)


def ratio(above: Any, below: Any, otherwise: float) -> Any:
    """above / below, `otherwise` where below is 0 or less; NaN stays NaN."""
    return (above / below).mask(below <= 0, otherwise)


def seeded(x: pd.Series, n: int, alpha: float, skip: int = 0, take: int | None = None) -> pd.Series:
    """Exponential average that begins with the mean of n values after the unknown ones and `skip`, as TA-Lib has it."""
    first = int(np.argmax(x.notna().to_numpy())) + skip
    start = x.copy()
    begin = first + (take or n) - 1
    if begin >= len(x) or x.isna().all():
        return x * np.nan
    start.iloc[:begin] = np.nan
    start.iloc[begin] = x.iloc[first : begin + 1].sum() / n
    return start.ewm(alpha=alpha, adjust=False).mean()


def ema(x: pd.Series, n: int, skip: int = 0) -> pd.Series:
    return seeded(x, n, 2 / (n + 1), skip)


def wilder(x: pd.Series, n: int) -> pd.Series:
    return seeded(x, n, 1 / n)


def wilder_total(x: pd.Series, n: int) -> pd.Series:
    """Wilder's sum of n: begins with the sum of n - 1 values, which itself is not given out."""
    total = n * seeded(x, n, 1 / n, take=n - 1)
    if (first := total.first_valid_index()) is not None:
        total.loc[first] = np.nan
    return total


def true_range(b: pd.DataFrame) -> pd.Series:
    before = b.close.shift(1)
    return np.maximum(b.high, before) - np.minimum(b.low, before)


def place_in_range(x: pd.Series, high: pd.Series, low: pd.Series, n: int) -> pd.Series:
    top, bottom = high.rolling(n).max(), low.rolling(n).min()
    return ratio(100 * (x - bottom), top - bottom, 50.0)


def strength(close: pd.Series, n: int) -> pd.Series:
    """RSI."""
    move = close.diff()
    gain, loss = wilder(move.clip(lower=0), n), wilder(-move.clip(upper=0), n)
    return ratio(100 * gain, gain + loss, 50.0)


def since(x: pd.Series, n: int, best: Any) -> pd.Series:
    """Bars since the extreme of n, the newest of equal ones."""
    return x.rolling(n).apply(lambda w: float(best(w[::-1])), raw=True)


def slope(x: pd.Series, n: int) -> pd.Series:
    """Slope of the least-squares line through n values."""
    t = np.arange(n) - (n - 1) / 2
    t = t / (t @ t)
    return x.rolling(n).apply(lambda w: w @ t, raw=True)


def trend(b: pd.DataFrame) -> Columns:
    c: Columns = {}
    close, high, low = b.close, b.high, b.low
    c |= {f"sma_ratio_{n}": close / close.rolling(n).mean() - 1 for n in (5, 10, 20, 50, 100, 200)}
    c |= {f"ema_ratio_{n}": close / ema(close, n) - 1 for n in (5, 10, 20, 50)}
    for n in (10, 20, 50):
        weights = np.arange(1, n + 1) / (n * (n + 1) / 2)
        c[f"wma_ratio_{n}"] = close / close.rolling(n).apply(lambda w, weights=weights: w @ weights, raw=True) - 1
    once = ema(close, 20)
    c["dema_ratio_20"] = close / (2 * once - ema(once, 20)) - 1
    c["trix_15"] = 100 * ema(ema(ema(close, 15), 15), 15).pct_change(fill_method=None)
    line = ema(close, 12, 14) - ema(close, 26)
    signal = ema(line, 9)
    c["macd_line_ratio"] = (line + 0 * signal) / close
    c["macd_signal_ratio"] = signal / close
    c["macd_hist_ratio"] = (line - signal) / close
    up, down = high.diff(), -low.diff()
    plus, minus = up.clip(lower=0).mask(up <= down, 0.0), down.clip(lower=0).mask(down <= up, 0.0)
    for n in (14, 28):
        rises, falls = wilder_total(plus, n), wilder_total(minus, n)
        c[f"adx_{n}"] = wilder(ratio(100 * (rises - falls).abs(), rises + falls, 0.0), n)
        if n == 14:
            span = wilder_total(true_range(b), n)
            c["plus_di_14"], c["minus_di_14"] = ratio(100 * rises, span, 0.0), ratio(100 * falls, span, 0.0)
    c["aroon_up_25"] = 100 * (1 - since(high, 26, np.argmax) / 25)
    c["aroon_down_25"] = 100 * (1 - since(low, 26, np.argmin) / 25)
    c |= {f"slope_ratio_{n}": 100 * slope(close, n) / close.rolling(n).mean() for n in (10, 20, 60)}
    for n in (20, 60):
        explained = slope(close, n) ** 2 * ((n * n - 1) / 12)
        c[f"trend_r2_{n}"] = ratio(explained, close.rolling(n).var(ddof=0), 0.0)
    for n in (10, 20, 60):
        c[f"efficiency_ratio_{n}"] = ratio(close.diff(n).abs(), close.diff().abs().rolling(n).sum(), 0.0)
    span = true_range(b).rolling(14).sum()
    rise, fall = (high - low.shift(1)).abs().rolling(14).sum(), (low - high.shift(1)).abs().rolling(14).sum()
    c["vortex_14"] = ratio(rise - fall, span, 0.0)
    for short, long in ((5, 20), (20, 60), (50, 200)):
        c[f"sma_cross_{short}_{long}"] = close.rolling(short).mean() / close.rolling(long).mean() - 1
    return c


def momentum(b: pd.DataFrame) -> Columns:
    c: Columns = {}
    close, high, low = b.close, b.high, b.low
    move = close.diff()
    c |= {f"roc_{n}": 100 * (close / close.shift(n) - 1) for n in (1, 2, 3, 5, 10, 20, 40, 60, 120, 250)}
    c |= {f"roc_between_20_{n}": 100 * (close.shift(20) / close.shift(n) - 1) for n in (120, 250)}
    c |= {f"rsi_{n}": strength(close, n) for n in (7, 14, 21)}
    rsi = c["rsi_14"]
    c["stochrsi_14"] = place_in_range(rsi, rsi, rsi, 14)
    fast = place_in_range(close, high, low, 14)
    c["willr_14"] = fast - 100
    c["stoch_slowk_14"] = fast.rolling(3).mean()
    c["stoch_slowd_14"] = fast.rolling(3).mean().rolling(3).mean()
    c["stoch_fastk_5"] = place_in_range(close, high, low, 5)
    price = (high + low + close) / 3
    for n in (14, 20):
        spread = price.rolling(n).apply(lambda w: np.abs(w - w.mean()).mean(), raw=True)
        c[f"cci_{n}"] = ratio(price - price.rolling(n).mean(), 0.015 * spread, 0.0)
    c["momentum_balance_14"] = ratio(100 * close.diff(14), move.abs().rolling(14).sum(), 0.0)
    pressure, span = close - np.minimum(low, close.shift(1)), true_range(b)
    part = {n: ratio(pressure.rolling(n).sum(), span.rolling(n).sum(), 0.5) for n in (7, 14, 28)}
    c["ultosc_7_14_28"] = 100 / 7 * (4 * part[7] + 2 * part[14] + part[28])
    rising = move.gt(0).astype(float).where(move.notna())
    c |= {f"up_share_{n}": rising.rolling(n).mean() for n in (10, 20, 60)}
    r = np.log(close / close.shift(1))
    for n in (20, 60, 120):
        spread = r.rolling(n).std(ddof=0)
        c[f"return_ratio_{n}"] = (r.rolling(n).mean() / spread).mask(spread <= 3e-8, 0.0)
    c |= {f"acceleration_{n}": c[f"roc_{n}"].diff(n) for n in (5, 20)}
    return c


def root_mean_square(x: pd.Series, n: int) -> pd.Series:
    return np.sqrt((x * x).rolling(n).mean().clip(lower=0))


def autocorrelation(r: pd.Series, n: int) -> pd.Series:
    def at_lag_1(w: np.ndarray) -> float:
        d = w - w.mean()
        square = d @ d
        return (d[1:] @ d[:-1]) / square if square > n * SMALLEST_VARIANCE else 0.0

    return r.rolling(n).apply(at_lag_1, raw=True)


def volatility(b: pd.DataFrame) -> Columns:
    c: Columns = {}
    close = b.close
    before = close.shift(1)
    r, gap, body = np.log(close / before), np.log(b.open / before), np.log(close / b.open)
    up, down = np.log(b.high / b.open), np.log(b.low / b.open)
    span = true_range(b)
    relative = span / before
    natr = {n: 100 * wilder(span, n) / close for n in (5, 14, 20)}
    c["natr_14"] = natr[14]
    c |= {f"log_natr_{n}": np.log(natr[n].clip(lower=1e-4)) for n in (5, 20)}
    c["log_range_60"] = np.log((100 * relative.rolling(60).mean()).clip(lower=1e-4))
    c |= {f"vol_of_vol_{n}": ratio(relative.rolling(n).std(ddof=0), relative.rolling(n).mean(), 0.0) for n in (20, 60)}
    c |= {f"volatility_{n}": root_mean_square(r, n) for n in (5, 10, 20, 60, 120)}
    for n in (20, 60):
        c[f"downside_volatility_{n}"] = root_mean_square(r.clip(upper=0), n)
        down2 = (r.clip(upper=0) ** 2).rolling(n).mean()
        c[f"downside_share_{n}"] = ratio(down2, (r * r).rolling(n).mean(), 0.5)
    c |= {f"max_abs_return_{n}": r.abs().rolling(n).max() for n in (5, 20, 60)}
    c["max_return_20"] = r.rolling(20).max()
    for n in (20, 60):
        c[f"skewness_{n}"] = r.rolling(n).skew() * ((n - 2) / math.sqrt(n * (n - 1)))
        c[f"kurtosis_{n}"] = (r.rolling(n).kurt() * ((n - 2) * (n - 3) / (n - 1)) - 6) / (n + 1)
        c[f"autocorrelation_{n}"] = autocorrelation(r, n)
    for short, long in ((5, 20), (5, 60), (20, 60), (20, 120)):
        c[f"volatility_ratio_{short}_{long}"] = ratio(root_mean_square(r, short), root_mean_square(r, long), 1.0)
    c["gap_volatility_20"] = root_mean_square(gap, 20)
    for n in (20, 60):
        c[f"gap_share_{n}"] = ratio((gap**2).rolling(n).mean(), (gap**2 + body**2).rolling(n).mean(), 0.5)
        c[f"max_abs_gap_{n}"] = gap.abs().rolling(n).max()
        c[f"parkinson_{n}"] = np.sqrt(((up - down) ** 2).rolling(n).mean().clip(lower=0) / (4 * math.log(2)))
    garman = 0.5 * (up - down) ** 2 - (2 * math.log(2) - 1) * body**2
    c["garman_klass_20"] = np.sqrt(garman.rolling(20).mean().clip(lower=0))
    satchell = up * (up - body) + down * (down - body)
    c["rogers_satchell_20"] = np.sqrt(satchell.rolling(20).mean().clip(lower=0))
    for n in (20, 60):
        k = 0.34 / (1.34 + (n + 1) / (n - 1))
        variance = gap.rolling(n).var() + k * body.rolling(n).var() + (1 - k) * satchell.rolling(n).mean()
        c[f"yang_zhang_{n}"] = np.sqrt(variance.clip(lower=0))
    for n in (20, 50):
        average, spread = close.rolling(n).mean(), close.rolling(n).std(ddof=0)
        c[f"bb_percent_{n}"] = ratio(close - average, 4 * spread, 0.0) + 0.5
        c[f"bb_width_{n}"] = 4 * spread / average
    c["std_ratio_10"] = close.rolling(10).std(ddof=0) / close.rolling(10).mean()
    c |= {f"ulcer_{n}": root_mean_square(100 * (close / close.rolling(n).max() - 1), n) for n in (20, 60)}
    c["leverage_60"] = r.shift(1).rolling(60).corr(r.abs())
    return c


def ranges(b: pd.DataFrame) -> Columns:
    c: Columns = {}
    relative = true_range(b) / b.close.shift(1)
    c["range_ratio_20"] = ratio(relative, relative.rolling(20).mean(), 1.0)
    for n in (5, 20, 60, 120, 250):
        c[f"high_distance_{n}"] = b.close / b.high.rolling(n).max() - 1
        c[f"low_distance_{n}"] = b.close / b.low.rolling(n).min() - 1
    for n in (20, 60):
        c[f"bars_since_high_{n}"] = since(b.high, n, np.argmax)
        c[f"bars_since_low_{n}"] = since(b.low, n, np.argmin)
        c[f"donchian_width_{n}"] = (b.high.rolling(n).max() - b.low.rolling(n).min()) / b.close
    c["donchian_place_60"] = place_in_range(b.close, b.high, b.low, 60)
    c["bar_range"] = (b.high - b.low) / b.close
    return c


def volume(b: pd.DataFrame) -> Columns:
    c: Columns = {}
    close, traded = b.close, b.volume
    move, price, width = close.diff(), (b.high + b.low + b.close) / 3, b.high - b.low
    r = np.log(close / close.shift(1))
    mean = {n: traded.rolling(n).mean() for n in (1, 5, 20, 60, 120)}
    for short, long in ((1, 5), (1, 20), (1, 60), (5, 20), (5, 60), (20, 120)):
        c[f"volume_ratio_{short}_{long}"] = ratio(mean[short], mean[long], 1.0)
    for n in (20, 60):
        spread = traded.rolling(n).std(ddof=0)
        c[f"volume_variation_{n}"] = ratio(spread, mean[n], 0.0)
        c[f"volume_score_{n}"] = ratio(traded - mean[n], spread, 0.0)
        c[f"volume_return_correlation_{n}"] = r.abs().rolling(n).corr(traded)
    c["volume_rank_60"] = traded.rolling(60).rank(pct=True)
    flow, step = price * traded, price.diff()
    rising = flow.where(step > 0, 0.0).where(step.notna()).rolling(14).sum()
    falling = flow.where(step < 0, 0.0).where(step.notna()).rolling(14).sum()
    c["mfi_14"] = ratio(100 * rising, rising + falling, 50.0)
    accumulation = ratio(2 * close - b.high - b.low, width, 0.0) * traded
    c |= {f"cmf_{n}": ratio(accumulation.rolling(n).sum(), traded.rolling(n).sum(), 0.0) for n in (20, 60)}
    adosc = ema(accumulation, 3, 7) - ema(accumulation, 10)
    c["adosc_ratio_3_10"] = ratio(adosc, traded.rolling(10).mean(), 0.0)
    signed = np.sign(move) * traded
    for n in (5, 20, 60):
        total = traded.rolling(n).sum()
        c[f"obv_slope_{n}"] = ratio(signed.rolling(n).sum(), total, 0.0)
        c[f"vwap_ratio_{n}"] = ratio(close * total, (price * traded).rolling(n).sum(), 1.0) - 1
    illiquidity = ratio(r.abs(), close * traded, 0.0)
    near, far = illiquidity.rolling(5).mean(), illiquidity.rolling(60).mean()
    c["illiquidity_ratio_5_60"] = np.log(ratio(near, far, 1.0).clip(lower=1e-3))
    risen = traded.where(move > 0, 0.0).where(move.notna())
    c["up_volume_share_20"] = ratio(risen.rolling(20).sum(), traded.rolling(20).sum(), 0.5)
    return c


def candle(b: pd.DataFrame) -> Columns:
    c: Columns = {}
    width, before = b.high - b.low, b.close.shift(1)
    top, bottom = np.maximum(b.open, b.close), np.minimum(b.open, b.close)
    c["body"] = ratio(b.close - b.open, width, 0.0)
    c["upper_shadow"] = ratio(b.high - top, width, 0.0)
    c["lower_shadow"] = ratio(bottom - b.low, width, 0.0)
    c["bar_return"] = b.close / b.open - 1
    c["gap"] = b.open / before - 1
    c |= {f"body_mean_{n}": c["body"].rolling(n).mean() for n in (5, 20)}
    c["shadow_balance_5"] = (c["lower_shadow"] - c["upper_shadow"]).rolling(5).mean()
    shared = (np.minimum(b.high, b.high.shift(1)) - np.maximum(b.low, b.low.shift(1))).clip(lower=0)
    c["overlap"] = ratio(shared, width, 0.0)
    return c


def calendar(time: pd.Series) -> Columns:
    return {
        "weekday": time.dt.day_of_week.astype(float), "month": time.dt.month.astype(float),
        "day_of_month": time.dt.day.astype(float),
    }  # fmt: skip
