"""Every column that TA-Lib has too, against TA-Lib on real bars; run as a script it prints the table of errors."""

from __future__ import annotations

import os
import pathlib

import market
import numpy as np
import talib

from gpupipe.features import compute_features, warm_up_of

# We compute in float64 and round to float32 once, at the end: 6e-8. A volatility also sums squares of float32 returns.
LARGEST_RELATIVE = 5e-7


def talib_columns(bars: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our columns of one symbol, derived from TA-Lib's functions of float64 bars."""
    h, l, c, v = (bars[name].astype(np.float64) for name in ("high", "low", "close", "volume"))  # noqa: E741
    columns = {}
    for n in (5, 10, 20, 50, 100, 200):
        columns[f"sma_ratio_{n}"] = c / talib.SMA(c, n) - 1
    for n in (5, 10, 20, 50):
        columns[f"ema_ratio_{n}"] = c / talib.EMA(c, n) - 1
    line, signal, hist = talib.MACD(c, 12, 26, 9)
    columns |= {"macd_line_ratio": line / c, "macd_signal_ratio": signal / c, "macd_hist_ratio": hist / c}
    columns |= {"adx_14": talib.ADX(h, l, c, 14)}
    columns |= {"plus_di_14": talib.PLUS_DI(h, l, c, 14), "minus_di_14": talib.MINUS_DI(h, l, c, 14)}
    columns["aroon_down_25"], columns["aroon_up_25"] = talib.AROON(h, l, 25)
    for n in (1, 2, 5, 10, 20, 60, 120, 250):
        columns[f"roc_{n}"] = talib.ROC(c, n)
    for n in (7, 14, 21):
        columns[f"rsi_{n}"] = talib.RSI(c, n)
    columns["willr_14"] = talib.WILLR(h, l, c, 14)
    columns["stoch_slowk_14"] = talib.STOCH(h, l, c, 14, 3, 0, 1, 0)[0]
    columns["stoch_slowd_14"] = talib.STOCH(h, l, c, 14, 3, 0, 3, 0)[1]
    columns["cci_20"] = talib.CCI(h, l, c, 20)
    columns["natr_14"] = talib.NATR(h, l, c, 14)
    for n in (5, 14, 20, 60):
        columns[f"log_natr_{n}"] = np.log(talib.NATR(h, l, c, n))
    upper, middle, lower = talib.BBANDS(c, 20, 2, 2)
    columns |= {"bb_percent_20": (c - lower) / (upper - lower), "bb_width_20": (upper - lower) / middle}
    for n in (20, 60):
        columns[f"high_distance_{n}"] = c / talib.MAX(h, n) - 1
        columns[f"low_distance_{n}"] = c / talib.MIN(l, n) - 1
        columns[f"volume_variation_{n}"] = talib.STDDEV(v, n) / talib.SMA(v, n)
    for short, long in ((1, 5), (1, 20), (1, 60), (5, 60)):
        columns[f"volume_ratio_{short}_{long}"] = (talib.SMA(v, short) if short > 1 else v) / talib.SMA(v, long)
    columns["mfi_14"] = talib.MFI(h, l, c, v, 14)
    traded = talib.SUM(v, 20)
    columns["obv_slope_20"] = _change(talib.OBV(c, v), 20) / traded
    columns["cmf_20"] = _change(np.concatenate([[0], talib.AD(h, l, c, v)]), 20)[1:] / traded
    returns = np.concatenate([[np.nan], np.log(c[1:] / c[:-1])])
    for n in (5, 10, 20, 60, 120, 250):
        columns[f"volatility_{n}"] = np.sqrt(_sum(returns**2, n) / n)
    return columns


def _change(x: np.ndarray, n: int) -> np.ndarray:
    return np.concatenate([np.full(min(n, len(x)), np.nan), x[n:] - x[:-n]])


def _sum(x: np.ndarray, n: int) -> np.ndarray:
    return np.concatenate([[np.nan], talib.SUM(x[1:], n)]) if len(x) > n else np.full(len(x), np.nan)


def largest_errors(panel) -> list[tuple[str, int, float, float, int]]:
    """(name, compared values, largest absolute error, largest relative error, values only one of the two has).

    The relative error is against the larger of the value and a thousandth of the column's spread.
    """
    first = talib_columns({name: getattr(panel, name)[:400] for name in ("high", "low", "close", "volume")})
    features = compute_features(panel, list(first))
    theirs = np.full(features.values.shape, np.nan)
    for a, b in zip(panel.offsets[:-1], panel.offsets[1:], strict=True):
        if b - a > 1:
            bars = {name: getattr(panel, name)[a:b] for name in ("high", "low", "close", "volume")}
            theirs[a:b] = np.column_stack(list(talib_columns(bars).values()))
    table = []
    for k, name in enumerate(features.names):
        ours, their = features.values[:, k].astype(np.float64), theirs[:, k]
        both = ~np.isnan(ours) & ~np.isnan(their)
        only_one = int((np.isnan(ours) != np.isnan(their)).sum())
        if not both.any():
            table.append((name, 0, 0.0, 0.0, only_one))
            continue
        error = np.abs(ours[both] - their[both])
        relative = error / np.maximum(np.abs(their[both]), 1e-3 * their[both].std())
        table.append((name, int(both.sum()), float(error.max()), float(relative.max()), only_one))
    return table


def as_text(table: list[tuple[str, int, float, float, int]]) -> str:
    lines = [f"{'column':20s} {'values':>8s} {'absolute':>9s} {'relative':>9s} {'unpaired':>8s}"]
    lines += [f"{name:20s} {n:8d} {error:9.1e} {relative:9.1e} {one:8d}" for name, n, error, relative, one in table]
    return "\n".join(lines)


def check(panel) -> None:
    table = largest_errors(panel)
    print(as_text(table))
    longest = int(np.diff(panel.offsets).max())
    assert sum(n_values > 0 for _, n_values, *_ in table) >= 45
    for name, n_values, _, relative, unpaired in table:
        assert n_values > 5_000 or longest < warm_up_of(name) + 60, name
        assert relative < LARGEST_RELATIVE, (name, relative)
        assert unpaired == 0, (name, unpaired)  # warm-up rows are TA-Lib's, too


def test_columns_equal_talib_on_the_demo():
    check(market.demo_panel(120))


def test_columns_equal_talib_on_all_real_stocks(sp500_folder):
    check(market.sp500_panel(sp500_folder))


if __name__ == "__main__":
    folder = os.environ.get("GPUPIPE_DATA")
    print(as_text(largest_errors(market.sp500_panel(pathlib.Path(folder)) if folder else market.demo_panel())))
