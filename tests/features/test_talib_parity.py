"""Columns that TA-Lib also has, against TA-Lib on real bars; as a script it prints the table of errors."""

from __future__ import annotations

import os
import pathlib
import sys

import numpy as np
import talib

from gpupipe.features.matrix import compute_features, warm_up_of
from tests.support import market

# We compute in float64 and round to float32 once, at the end: 6e-8. A volatility also sums squares of float32 returns.
LARGEST_RELATIVE = 5e-7


def talib_columns(bars: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our columns of one symbol, derived from TA-Lib's functions of float64 bars: those that are timed, and more."""
    from tests.support.talib_columns import change, our_columns, talib_arrays  # a script finds tests through sys.path

    h, l, c, v = (bars[name].astype(np.float64) for name in ("high", "low", "close", "volume"))  # noqa: E741
    columns = our_columns(talib_arrays(h, l, c, v), c, v)
    for n in (1, 2, 60, 120, 250):
        columns[f"roc_{n}"] = talib.ROC(c, n)
    # If both K and D are requested, TA-Lib's slow K starts only where D does.
    columns["stoch_slowk_14"] = talib.STOCH(h, l, c, 14, 3, 0, 1, 0)[0]
    for n in (5, 14, 20, 60):
        columns[f"log_natr_{n}"] = np.log(talib.NATR(h, l, c, n))
    columns["high_distance_60"], columns["low_distance_60"] = c / talib.MAX(h, 60) - 1, c / talib.MIN(l, 60) - 1
    for n in (20, 60):
        columns[f"volume_variation_{n}"] = talib.STDDEV(v, n) / talib.SMA(v, n)
    for short, long in ((1, 5), (1, 20), (1, 60), (5, 60)):
        columns[f"volume_ratio_{short}_{long}"] = (talib.SMA(v, short) if short > 1 else v) / talib.SMA(v, long)
    columns["cmf_20"] = change(np.concatenate([[0], talib.AD(h, l, c, v)]), 20)[1:] / talib.SUM(v, 20)
    returns = np.concatenate([[np.nan], np.log(c[1:] / c[:-1])])
    for n in (5, 10, 20, 60, 120, 250):
        columns[f"volatility_{n}"] = np.sqrt(_sum(returns**2, n) / n)
    return columns


def _sum(x: np.ndarray, n: int) -> np.ndarray:
    return np.concatenate([[np.nan], talib.SUM(x[1:], n)]) if len(x) > n else np.full(len(x), np.nan)


def largest_errors(panel) -> list[tuple[str, int, float, float, int]]:
    """(name, values compared, largest absolute error, largest relative error, values that are NaN on one side only).

    The relative error is relative to the value or, if larger, a thousandth of the column's standard deviation.
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
        unpaired = int((np.isnan(ours) != np.isnan(their)).sum())
        if not both.any():
            table.append((name, 0, 0.0, 0.0, unpaired))
            continue
        error = np.abs(ours[both] - their[both])
        relative = error / np.maximum(np.abs(their[both]), 1e-3 * their[both].std())
        table.append((name, int(both.sum()), float(error.max()), float(relative.max()), unpaired))
    return table


def as_text(table: list[tuple[str, int, float, float, int]]) -> str:
    lines = [f"{'column':20s} {'values':>8s} {'absolute':>9s} {'relative':>9s} {'unpaired':>8s}"]
    lines += [f"{name:20s} {n:8d} {error:9.1e} {relative:9.1e} {odd:8d}" for name, n, error, relative, odd in table]
    return "\n".join(lines)


def check(panel) -> None:
    table = largest_errors(panel)
    print(as_text(table))
    longest = int(np.diff(panel.offsets).max())
    assert sum(n_values > 0 for _, n_values, *_ in table) >= 45
    for name, n_values, _, relative, unpaired in table:
        assert n_values > 5_000 or longest < warm_up_of(name) + 60, name
        assert relative < LARGEST_RELATIVE, (name, relative)
        assert unpaired == 0, (name, unpaired)  # the warm-up rows equal TA-Lib's


def test_columns_equal_talib_on_the_demo():
    check(market.demo_panel(120))


def test_columns_equal_talib_on_all_real_stocks(sp500_folder):
    check(market.sp500_panel(sp500_folder))


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
    folder = os.environ.get("GPUPIPE_DATA")
    print(as_text(largest_errors(market.sp500_panel(pathlib.Path(folder)) if folder else market.demo_panel())))
