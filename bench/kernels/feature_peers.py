"""TA-Lib's 44 arrays in other libraries. A peer takes a panel on the host and gives a `Peer`, or is skipped.

Each computes `talib_columns.ARRAYS` of every symbol; our 42 columns are more than that, for they are also divided by
prices. `matrix` gives, for a symbol, its number, the first bar from which on the two are compared, and its arrays.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bench.kernels.label_peers import Peer
from bench.kernels.talib_columns import talib_arrays
from bench.predecessor.features import ema, place, strength, true_range, wilder, wilder_total
from bench.runs import library
from bench.timing import cores
from gpupipe.data.panel import Panel

Bars = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
# Of each symbol, for a peer that begins an average otherwise: by then MACD's signal, of 9 bars, has forgotten how.
SETTLED_BARS = 120
# Modules of ml4t.engineer.features with the compiled functions.
ML4T = (
    "math.max", "math.min", "momentum.adx", "momentum.aroon", "momentum.cci", "momentum.directional", "momentum.macd",
    "momentum.mfi", "momentum.roc", "momentum.rsi", "momentum.stochastic", "momentum.willr", "statistics.stddev",
    "trend.ema", "trend.sma", "volatility.atr", "volatility.bollinger_bands", "volume.obv",
)  # fmt: skip


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

    bars = pd.DataFrame({"high": h, "low": l, "close": c, "volume": v})
    high, low, close, volume = (bars[name] for name in bars)
    arrays = [close.rolling(n).mean() for n in (5, 10, 20, 50, 100, 200)]
    arrays += [ema(close, n) for n in (5, 10, 20, 50, 100, 200)]
    arrays += [strength(close, n) for n in (7, 14, 21)]
    line = ema(close, 12, 14) - ema(close, 26)
    signal = ema(line, 9)
    arrays += [line + 0 * signal, signal, line - signal]
    for n in (20, 50):
        middle, spread = close.rolling(n).mean(), 2 * close.rolling(n).std(ddof=0)
        arrays += [middle + spread, middle, middle - spread]
    move, up, down = close.diff(), high.diff(), -low.diff()
    plus, minus, span = (
        wilder_total(x, 14)
        for x in (up.clip(lower=0).mask(up <= down, 0.0), down.clip(lower=0).mask(down <= up, 0.0), true_range(bars))
    )
    arrays += [wilder(true_range(bars), 14), wilder(100 * (plus - minus).abs() / (plus + minus), 14)]
    arrays += [100 * x / span for x in (plus, minus)]
    fast = place(close, high, low, 14)
    slow = fast.rolling(3).mean()
    arrays += [slow, slow.rolling(3).mean()]
    typical = (high + low + close) / 3
    deviation = _of_windows(typical.to_numpy(), 20, lambda x: np.abs(x - x.mean(axis=1, keepdims=True)).mean(axis=1))
    arrays += [(typical - typical.rolling(20).mean()) / (0.015 * deviation), fast - 100]
    arrays += [100 * (close / close.shift(n) - 1) for n in (5, 10, 20)]
    flow, turn = typical * volume, typical.diff()
    rising, falling = flow.where(turn > 0, 0.0).rolling(14).sum(), flow.where(turn < 0, 0.0).rolling(14).sum()
    arrays += [(np.sign(move).fillna(1.0) * volume).cumsum()]
    arrays += [(100 * rising / (rising + falling)).where(close.index >= 14)]
    arrays += [close.rolling(n).std(ddof=0) for n in (10, 20, 50)]
    arrays += [high.rolling(20).max(), low.rolling(20).min()]
    arrays += [_of_windows(l, 26, lambda x: 4.0 * (25 - x[:, ::-1].argmin(axis=1)))]
    arrays += [_of_windows(h, 26, lambda x: 4.0 * (25 - x[:, ::-1].argmax(axis=1)))]
    return [np.asarray(x) for x in arrays]


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
    compiled = {}
    for path in ML4T:
        module = importlib.import_module(f"ml4t.engineer.features.{path}")
        compiled |= {name: function for name, function in vars(module).items() if name.endswith("_numba")}

    def each(names: str, *given: Any) -> list[np.ndarray]:
        return [compiled[f"{name}_numba"](*given) for name in names.split()]

    def arrays(h: np.ndarray, l: np.ndarray, c: np.ndarray, v: np.ndarray) -> list[np.ndarray]:  # noqa: E741
        made = [*(x for name in ("sma", "ema") for n in (5, 10, 20, 50, 100, 200) for x in each(name, c, n))]
        made += [x for n in (7, 14, 21) for x in each("rsi", c, n)]
        made += each("macd macd_signal macd_histogram", c, 12, 26, 9)
        made += [x for n in (20, 50) for x in compiled["bollinger_bands_numba"](c, n, 2.0, 2.0)]
        made += each("atr adx plus_di minus_di", h, l, c, 14)
        made += [
            *compiled["stochastic_numba"](h, l, c, 14, 3, 3),
            *each("cci", h, l, c, 20),
            *each("willr", h, l, c, 14),
        ]
        made += [x for n in (5, 10, 20) for x in each("roc", c, n)] + each("obv", c, v) + each("mfi", h, l, c, v, 14)
        made += [x for n in (10, 20, 50) for x in each("stddev", c, n, 1.0, 0)]
        return [*made, *each("max", h, 20), *each("min", l, 20), *compiled["aroon_numba"](h, l, 25)]

    yield _in_a_loop(f"{name} in a loop", panel, arrays, SETTLED_BARS)


IN_TALIB = (talib_pool, talib_loop)
IN_LIBRARIES = (*IN_TALIB, polars_talib, pandas_loop, ml4t_loop)
