"""TA-Lib's 44 arrays in other libraries. A peer takes a panel on the host and gives a `Peer`, or is skipped.

Each computes `talib_columns.ARRAYS` of every symbol; our 42 columns are more than that, for they are also divided by
prices. `matrix` gives, for a symbol, its number, the first bar from which on the two are compared, and its arrays.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bench.kernels.label_peers import Peer, library
from bench.kernels.talib_columns import talib_arrays
from bench.timing import cores
from gpupipe.data.panel import Panel

Bars = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
# Of each symbol, for a peer that begins an average otherwise: by then MACD's signal, of 9 bars, has forgotten how.
SETTLED_BARS = 120


def bars_of(panel: Panel) -> list[Bars]:
    """High, low, close and volume of every symbol, float64."""
    columns = [getattr(panel, name).astype(np.float64) for name in ("high", "low", "close", "volume")]
    return [
        tuple(x[a:b] for x in columns)  # type: ignore[misc]
        for a, b in zip(panel.offsets[:-1], panel.offsets[1:], strict=True)
    ]


def _in_a_loop(name: str, panel: Panel, arrays: Callable[..., list[np.ndarray]], settled: int = 0) -> Peer:
    bars = bars_of(panel)

    def matrix(made: list[list[np.ndarray]]) -> Iterator[tuple[int, int, list[np.ndarray]]]:
        return ((k, settled, one) for k, one in enumerate(made))

    return Peer(name, lambda: [arrays(*one) for one in bars], matrix)


@contextlib.contextmanager
def talib_loop(panel: Panel) -> Iterator[Peer]:
    """TA-Lib, one symbol after the other."""
    _, name = library("talib", "TA-Lib")
    yield _in_a_loop(f"{name} in a loop", panel, talib_arrays)


_of_process: list[Bars] = []


def _give(bars: list[Bars]) -> None:
    _of_process[:] = bars


def _talib_range(edges: tuple[int, int]) -> int:
    return sum(len(talib_arrays(*bars)) for bars in _of_process[edges[0] : edges[1]])


@contextlib.contextmanager
def talib_pool(panel: Panel) -> Iterator[Peer]:
    """TA-Lib in processes that stand and have the bars already; they send back counts, not the arrays.

    So its answers are those of the loop, computed once more for the check.
    """
    _, name = library("talib", "TA-Lib")
    bars, n = bars_of(panel), cores()
    parts = [(len(bars) * k // (8 * n), len(bars) * (k + 1) // (8 * n)) for k in range(8 * n)]
    with multiprocessing.get_context("fork").Pool(n, _give, (bars,)) as pool:

        def matrix(counts: list[int]) -> Iterator[tuple[int, int, list[np.ndarray]]]:
            assert sum(counts) == 44 * len(bars)
            return ((k, 0, talib_arrays(*one)) for k, one in enumerate(bars))

        yield Peer(
            f"{name} in a standing pool of {n} processes", lambda: pool.map(_talib_range, parts, chunksize=1), matrix
        )


@contextlib.contextmanager
def polars_talib(panel: Panel) -> Iterator[Peer]:
    """The plugin's expressions in one lazy query, aggregated by symbol: faster than `.over("symbol")`."""
    ta, name = library("polars_talib", "polars-talib")
    import polars as pl

    h, l, c, v = (pl.col(name) for name in ("high", "low", "close", "volume"))  # noqa: E741
    one = [ta.sma(c, n) for n in (5, 10, 20, 50, 100, 200)] + [ta.ema(c, n) for n in (5, 10, 20, 50, 100, 200)]
    one += [ta.rsi(c, n) for n in (7, 14, 21)] + [ta.macd(c, 12, 26, 9), ta.bbands(c, 20, 2, 2), ta.bbands(c, 50, 2, 2)]
    one += [ta.atr(h, l, c, 14), ta.adx(h, l, c, 14), ta.plus_di(h, l, c, 14), ta.minus_di(h, l, c, 14)]
    one += [ta.stoch(h, l, c, 14, 3, 0, 3, 0), ta.cci(h, l, c, 20), ta.willr(h, l, c, 14)]
    one += [ta.roc(c, n) for n in (5, 10, 20)] + [ta.obv(c, v), ta.mfi(h, l, c, v, 14)]
    one += [ta.stddev(c, n, 1) for n in (10, 20, 50)] + [ta.max(h, 20), ta.min(l, 20), ta.aroon(h, l, 25)]
    columns = {name: getattr(panel, name).astype(np.float64) for name in ("high", "low", "close", "volume")}
    frame = pl.DataFrame({"symbol": panel.symbol_of_row, **columns})
    named = [expression.alias(f"column {k}") for k, expression in enumerate(one)]
    grouped = frame.lazy().group_by("symbol", maintain_order=True).agg(named)
    query = grouped.explode(pl.all().exclude("symbol")).select(pl.all().exclude("symbol"))

    def matrix(made: Any) -> Iterator[tuple[int, int, list[np.ndarray]]]:
        flat = [
            column
            for series in made.get_columns()
            for column in (series.struct.unnest().get_columns() if series.dtype == pl.Struct else [series])
        ]
        arrays = [series.fill_null(np.nan).to_numpy() for series in flat]
        for k, (a, b) in enumerate(zip(panel.offsets[:-1], panel.offsets[1:], strict=True)):
            yield k, 0, [array[a:b] for array in arrays]

    yield Peer(name, query.collect, matrix)


def _pandas_arrays(h: np.ndarray, l: np.ndarray, c: np.ndarray, v: np.ndarray) -> list[np.ndarray]:  # noqa: E741
    """ARRAYS of one symbol by pandas: windows and exponential averages, each started as TA-Lib starts it."""
    import pandas as pd

    high, low, close, volume = (pd.Series(x) for x in (h, l, c, v))
    before = close.shift(1)

    def average(x: pd.Series, n: int, alpha: float, first: int = 0) -> pd.Series:
        """Exponential average whose first value is the mean of n values, the first of them in row `first`."""
        x = x.copy()
        begin = x[first : first + n].mean()
        x[: first + n - 1] = np.nan
        if len(x) >= first + n:
            x[first + n - 1] = begin
        return x.ewm(alpha=alpha, adjust=False).mean()

    def wilder(x: pd.Series, n: int, first: int = 1) -> pd.Series:
        return average(x, n, 1 / n, first)

    def wilder_sum(x: pd.Series, n: int) -> pd.Series:
        """Wilder's sum: it starts as the sum of n - 1 values; as an average of n, it starts with 0 in row 0."""
        return wilder(pd.concat([pd.Series([0.0]), x[1:]]), n, 0) * n

    made = [close.rolling(n).mean() for n in (5, 10, 20, 50, 100, 200)]
    made += [average(close, n, 2 / (n + 1)) for n in (5, 10, 20, 50, 100, 200)]
    move = close - before
    for n in (7, 14, 21):
        gain, loss = wilder(move.clip(lower=0), n), wilder(-move.clip(upper=0), n)
        made.append(100 * gain / (gain + loss))
    line = average(close, 12, 2 / 13, 14) - average(close, 26, 2 / 27)
    signal = average(line, 9, 2 / 10, 25)
    made += [line + 0 * signal, signal, line - signal]
    for n in (20, 50):
        middle, spread = close.rolling(n).mean(), 2 * close.rolling(n).std(ddof=0)
        made += [middle + spread, middle, middle - spread]
    true_range = np.maximum(high, before) - np.minimum(low, before)
    up, down = high.diff(), -low.diff()
    plus, minus = up.where((up > down) & (up > 0), 0.0), down.where((down > up) & (down > 0), 0.0)
    plus, minus, span = wilder_sum(plus, 14), wilder_sum(minus, 14), wilder_sum(true_range, 14)
    # The directional index is known from row 14 on, after the sums have taken in one more row.
    index = (100 * (plus - minus).abs() / (plus + minus)).where(close.index >= 14)
    made += [wilder(true_range, 14), wilder(index, 14, 14)]
    made += [(100 * x / span).where(close.index >= 14) for x in (plus, minus)]
    highest, lowest = high.rolling(14).max(), low.rolling(14).min()
    fast = 100 * (close - lowest) / (highest - lowest)
    slow = fast.rolling(3).mean()
    made += [slow, slow.rolling(3).mean()]
    typical = (high + low + close) / 3
    deviation = _of_windows(typical.to_numpy(), 20, lambda x: np.abs(x - x.mean(axis=1, keepdims=True)).mean(axis=1))
    made += [(typical - typical.rolling(20).mean()) / (0.015 * deviation), fast - 100]
    made += [100 * (close / close.shift(n) - 1) for n in (5, 10, 20)]
    flow, turn = typical * volume, typical.diff()
    rising, falling = flow.where(turn > 0, 0.0).rolling(14).sum(), flow.where(turn < 0, 0.0).rolling(14).sum()
    made += [(np.sign(move).fillna(1.0) * volume).cumsum()]
    made += [(100 * rising / (rising + falling)).where(close.index >= 14)]
    made += [close.rolling(n).std(ddof=0) for n in (10, 20, 50)]
    made += [high.rolling(20).max(), low.rolling(20).min()]
    made += [_of_windows(l, 26, lambda x: 4.0 * (25 - x[:, ::-1].argmin(axis=1)))]
    made += [_of_windows(h, 26, lambda x: 4.0 * (25 - x[:, ::-1].argmax(axis=1)))]
    return [np.asarray(x) for x in made]


def _of_windows(x: np.ndarray, n: int, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """What pandas has no rolling function for: `function` of all windows of n at once, NaN before the first."""
    if len(x) < n:
        return np.full(len(x), np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(x, n)
    return np.concatenate([np.full(n - 1, np.nan), function(windows)])


@contextlib.contextmanager
def pandas_loop(panel: Panel) -> Iterator[Peer]:
    """pandas, one symbol after the other."""
    _, name = library("pandas", "pandas")
    yield _in_a_loop(f"{name} in a loop", panel, _pandas_arrays)


@contextlib.contextmanager
def ml4t_loop(panel: Panel) -> Iterator[Peer]:
    """ml4t-engineer's compiled functions, one symbol after the other. It starts MACD's signal and %D otherwise."""
    _, name = library("ml4t.engineer", "ml4t-engineer")
    from ml4t.engineer.features.math.max import max_numba
    from ml4t.engineer.features.math.min import min_numba
    from ml4t.engineer.features.momentum.adx import adx_numba
    from ml4t.engineer.features.momentum.aroon import aroon_numba
    from ml4t.engineer.features.momentum.cci import cci_numba
    from ml4t.engineer.features.momentum.directional import minus_di_numba, plus_di_numba
    from ml4t.engineer.features.momentum.macd import macd_histogram_numba, macd_numba, macd_signal_numba
    from ml4t.engineer.features.momentum.mfi import mfi_numba
    from ml4t.engineer.features.momentum.roc import roc_numba
    from ml4t.engineer.features.momentum.rsi import rsi_numba
    from ml4t.engineer.features.momentum.stochastic import stochastic_numba
    from ml4t.engineer.features.momentum.willr import willr_numba
    from ml4t.engineer.features.statistics.stddev import stddev_numba
    from ml4t.engineer.features.trend.ema import ema_numba
    from ml4t.engineer.features.trend.sma import sma_numba
    from ml4t.engineer.features.volatility.atr import atr_numba
    from ml4t.engineer.features.volatility.bollinger_bands import bollinger_bands_numba
    from ml4t.engineer.features.volume.obv import obv_numba

    def arrays(h: np.ndarray, l: np.ndarray, c: np.ndarray, v: np.ndarray) -> list[np.ndarray]:  # noqa: E741
        made = [f(c, n) for f in (sma_numba, ema_numba) for n in (5, 10, 20, 50, 100, 200)]
        made += [rsi_numba(c, n) for n in (7, 14, 21)]
        made += [f(c, 12, 26, 9) for f in (macd_numba, macd_signal_numba, macd_histogram_numba)]
        made += [*bollinger_bands_numba(c, 20, 2.0, 2.0), *bollinger_bands_numba(c, 50, 2.0, 2.0)]
        made += [f(h, l, c, 14) for f in (atr_numba, adx_numba, plus_di_numba, minus_di_numba)]
        made += [*stochastic_numba(h, l, c, 14, 3, 3), cci_numba(h, l, c, 20), willr_numba(h, l, c, 14)]
        made += [roc_numba(c, n) for n in (5, 10, 20)] + [obv_numba(c, v), mfi_numba(h, l, c, v, 14)]
        made += [stddev_numba(c, n, 1.0, 0) for n in (10, 20, 50)]
        return [*made, max_numba(h, 20), min_numba(l, 20), *aroon_numba(h, l, 25)]

    yield _in_a_loop(f"{name} in a loop", panel, arrays, SETTLED_BARS)


IN_TALIB = (talib_pool, talib_loop)
COLUMNS_ELSEWHERE = (*IN_TALIB, polars_talib, pandas_loop, ml4t_loop)
