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
from bench.runs import library
from bench.timing import cores
from gpupipe.data.panel import Panel
from tests.support.talib_columns import talib_arrays

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

    def matrix(by_symbol: list[list[np.ndarray]]) -> Iterator[tuple[int, int, list[np.ndarray]]]:
        return ((k, settled, columns) for k, columns in enumerate(by_symbol))

    return Peer(name, lambda: [arrays(*bars_of_symbol) for bars_of_symbol in bars], matrix)


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
            return ((k, 0, talib_arrays(*bars_of_symbol)) for k, bars_of_symbol in enumerate(bars))

        name = f"{name} in a standing pool of {n} processes"
        yield Peer(name, lambda: pool.map(_talib_range, parts, chunksize=1), matrix)


@contextlib.contextmanager
def polars_talib(panel: Panel) -> Iterator[Peer]:
    """The plugin's terms in one lazy query, aggregated by symbol: faster than `.over("symbol")`."""
    ta, name = library("polars_talib", "polars-talib")
    import polars as pl

    h, l, c, v = (pl.col(name) for name in ("high", "low", "close", "volume"))  # noqa: E741
    terms = [ta.sma(c, n) for n in (5, 10, 20, 50, 100, 200)] + [ta.ema(c, n) for n in (5, 10, 20, 50, 100, 200)]
    terms += [ta.rsi(c, n) for n in (7, 14, 21)] + [
        ta.macd(c, 12, 26, 9),
        ta.bbands(c, 20, 2, 2),
        ta.bbands(c, 50, 2, 2),
    ]
    terms += [ta.atr(h, l, c, 14), ta.adx(h, l, c, 14), ta.plus_di(h, l, c, 14), ta.minus_di(h, l, c, 14)]
    terms += [ta.stoch(h, l, c, 14, 3, 0, 3, 0), ta.cci(h, l, c, 20), ta.willr(h, l, c, 14)]
    terms += [ta.roc(c, n) for n in (5, 10, 20)] + [ta.obv(c, v), ta.mfi(h, l, c, v, 14)]
    terms += [ta.stddev(c, n, 1) for n in (10, 20, 50)] + [ta.max(h, 20), ta.min(l, 20), ta.aroon(h, l, 25)]
    columns = {name: getattr(panel, name).astype(np.float64) for name in ("high", "low", "close", "volume")}
    frame = pl.DataFrame({"symbol": panel.symbol_of_row, **columns})
    named = [expression.alias(f"column {k}") for k, expression in enumerate(terms)]
    grouped = frame.lazy().group_by("symbol", maintain_order=True).agg(named)
    query = grouped.explode(pl.all().exclude("symbol")).select(pl.all().exclude("symbol"))

    def matrix(frame: Any) -> Iterator[tuple[int, int, list[np.ndarray]]]:
        flat = [
            column
            for series in frame.get_columns()
            for column in (series.struct.unnest().get_columns() if series.dtype == pl.Struct else [series])
        ]
        arrays = [series.fill_null(np.nan).to_numpy() for series in flat]
        for k, (a, b) in enumerate(zip(panel.offsets[:-1], panel.offsets[1:], strict=True)):
            yield k, 0, [array[a:b] for array in arrays]

    yield Peer(name, query.collect, matrix)


@contextlib.contextmanager
def ml4t_loop(panel: Panel) -> Iterator[Peer]:
    """ml4t-engineer's compiled functions, one symbol after the other. It starts MACD's signal and %D otherwise."""
    _, name = library("ml4t.engineer", "ml4t-engineer")
    compiled = {}
    for path in ML4T:
        module = importlib.import_module(f"ml4t.engineer.features.{path}")
        compiled |= {name: function for name, function in vars(module).items() if name.endswith("_numba")}

    def each(names: str, *inputs: Any) -> list[np.ndarray]:
        return [compiled[f"{name}_numba"](*inputs) for name in names.split()]

    def arrays(h: np.ndarray, l: np.ndarray, c: np.ndarray, v: np.ndarray) -> list[np.ndarray]:  # noqa: E741
        columns = [*(x for name in ("sma", "ema") for n in (5, 10, 20, 50, 100, 200) for x in each(name, c, n))]
        columns += [x for n in (7, 14, 21) for x in each("rsi", c, n)]
        columns += each("macd macd_signal macd_histogram", c, 12, 26, 9)
        columns += [x for n in (20, 50) for x in compiled["bollinger_bands_numba"](c, n, 2.0, 2.0)]
        columns += each("atr adx plus_di minus_di", h, l, c, 14)
        columns += compiled["stochastic_numba"](h, l, c, 14, 3, 3)
        columns += each("cci", h, l, c, 20) + each("willr", h, l, c, 14)
        columns += [x for n in (5, 10, 20) for x in each("roc", c, n)] + each("obv", c, v) + each("mfi", h, l, c, v, 14)
        columns += [x for n in (10, 20, 50) for x in each("stddev", c, n, 1.0, 0)]
        return [*columns, *each("max", h, 20), *each("min", l, 20), *compiled["aroon_numba"](h, l, 25)]

    yield _in_a_loop(f"{name} in a loop", panel, arrays, SETTLED_BARS)


IN_TALIB = (talib_pool, talib_loop)
IN_LIBRARIES = (*IN_TALIB, polars_talib, ml4t_loop)
