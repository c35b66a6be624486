"""Labels in other libraries. A peer takes a panel on the host, brings the bars into its own form, and gives a `Peer`.

Only `run` is timed: the form that a library wants its bars in is made before, and its result becomes a matrix of our
shape after. Only numpy's labels consider unknown prices: a panel that has been read holds none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from bench.runs import library
from bench.timing import cores
from gpupipe.data.panel import Panel
from gpupipe.targets.barriers import barrier_prices

HORIZONS, THRESHOLDS = (1, 2, 5), (0.05, 0.10)
TOUCHES = ("touch", "touch_bars", "realised_return")
FIELDS = ("y", *TOUCHES, "tp", "dd", "forward_return", "exit_row")  # of Labels
IN_BLOCKS = f"numpy {np.__version__} in blocks on {cores()} threads"
BLOCK_ROWS = 32_768  # of numpy's arrays: what is worked on at once stays in the cache


class Peer(NamedTuple):
    """A way to compute what we compute.

    name: library and version.  run: what is timed.
    matrix: what `run` returned as rows of the panel, in the shape of ours.
    """

    name: str
    run: Callable[[], Any]
    matrix: Callable[[Any], Any]


def numpy_rows_left(panel: Panel) -> np.ndarray:
    """int64 (n_rows,): rows of the same symbol after each row."""
    lengths = np.diff(panel.offsets)
    return np.repeat(panel.offsets[1:], lengths) - np.arange(panel.n_rows) - 1


def barrier_columns(panel: Panel) -> dict[str, np.ndarray]:
    """The barrier prices of every row, "up 0.05", "down 0.05", ...: every peer is given ours."""
    columns = {}
    for t in THRESHOLDS:
        columns[f"up {t}"], columns[f"down {t}"] = barrier_prices(panel.close, t)
    return columns


def numpy_label_cube(
    panel: Panel,
    fields: Sequence[str] = FIELDS,
    horizons: Sequence[int] = HORIZONS,
    thresholds: Sequence[float] = THRESHOLDS,
    block_rows: int = BLOCK_ROWS,
) -> dict[str, np.ndarray]:
    """The fields of Labels under "take_profit_first" over bars, in numpy: blocks of rows, on all cores.

    Running extremes over the ragged array; a barrier's first touch is the number of bars whose running extreme has
    not reached it. Shapes and types are those of Labels; columns are contiguous (Fortran order). The others are

    touch: int8 (n_rows, n_labels); 0 none, 1 the upper price first, 2 the lower, 3 both in one bar, -1 not known.
    touch_bars: int16 (n_rows, n_labels); bars to the first touch, 0 where there is none or it is not known.
    realised_return: float32 (n_rows, n_labels); price of the barrier touched first (lower if both) / close - 1, else
        forward_return; NaN where not known.
    """
    n, n_horizons, n_labels = panel.n_rows, len(horizons), len(horizons) * len(thresholds)
    shapes = {
        "y": (n_labels, np.int8), "tp": (n_horizons, np.float32), "dd": (n_horizons, np.float32),
        "forward_return": (n_horizons, np.float32), "exit_row": (n_horizons, np.int64), "touch": (n_labels, np.int8),
        "touch_bars": (n_labels, np.int16), "realised_return": (n_labels, np.float32),
    }  # fmt: skip
    out = {name: np.empty((columns, n), dtype) for name, (columns, dtype) in shapes.items() if name in fields}
    left = numpy_rows_left(panel)

    def block(first: int) -> None:
        rows = slice(first, min(first + block_rows, n))
        _fill(panel, left, rows, horizons, thresholds, {name: values[:, rows] for name, values in out.items()})

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(block, range(0, n, block_rows)))
    return {name: values.T for name, values in out.items()}


@np.errstate(divide="ignore", invalid="ignore")  # a close of 0 or NaN is marked as not known
def _fill(
    panel: Panel,
    left: np.ndarray,
    rows: slice,
    horizons: Sequence[int],
    thresholds: Sequence[float],
    out: dict[str, np.ndarray],
) -> None:
    """A block of rows of numpy_label_cube; out: (n_columns, rows of the block) by name."""
    n, reach = rows.stop - rows.start, min(rows.stop + horizons[-1], panel.n_rows)
    # Rows after the end of the array are not known, like those after the end of a symbol: see `left`.
    high, low, close = (
        np.concatenate([x[rows.start : reach], np.full(rows.stop + horizons[-1] - reach, np.nan, np.float32)])
        for x in (panel.high, panel.low, panel.close)
    )
    entry, left = close[:n], left[rows]
    known_bar = ~(np.isnan(high) | np.isnan(low) | np.isnan(close))
    known = entry > 0
    top, bottom = np.full(n, -np.inf, np.float32), np.full(n, np.inf, np.float32)
    ups, downs = zip(*(barrier_prices(entry, t) for t in thresholds), strict=True)
    touches = any(name in out for name in TOUCHES)
    before_up, before_down = (np.zeros((len(thresholds), n), np.int16) for _ in range(2))  # bars before the barrier
    reached = 0
    for k, h in enumerate(horizons):
        for j in range(reached + 1, h + 1):
            np.maximum(top, high[j : j + n], out=top)
            np.minimum(bottom, low[j : j + n], out=bottom)
            known &= known_bar[j : j + n]
            for m in range(len(thresholds)) if touches else ():
                before_up[m] += top < ups[m]
                before_down[m] += bottom > downs[m]
        reached = h
        measured = known & (left >= h)

        def put(name: str, column: int, values: Any, unknown: Any, measured: np.ndarray = measured) -> None:
            if name in out:
                out[name][column] = np.where(measured, values, unknown)

        nan, ahead = np.float32(np.nan), close[h : h + n]
        for name, price in (("tp", top), ("dd", bottom), ("forward_return", ahead)):
            if name in out:
                put(name, k, price / entry - np.float32(1), nan)
        if "exit_row" in out:
            out["exit_row"][k] = np.arange(rows.start, rows.stop) + np.minimum(left, h)
        for m, (up, down) in enumerate(zip(ups, downs, strict=True)):
            column = k * len(thresholds) + m
            put("y", column, np.where(top >= up, np.int8(2), (bottom > down).view(np.int8)), np.int8(-1))
            if touches:
                upper, lower = before_up[m] < before_down[m], before_down[m] < before_up[m]
                both = (before_up[m] == before_down[m]) & (before_up[m] < h)
                touch = upper.view(np.int8) + 2 * lower.view(np.int8) + 3 * both.view(np.int8)
                put("touch", column, touch, np.int8(-1))
                bars = np.minimum(before_up[m], before_down[m]) + np.int16(1)
                put("touch_bars", column, np.where(bars <= h, bars, np.int16(0)), np.int16(0))
                price = np.where(upper, up, np.where(lower | both, down, ahead))
                put("realised_return", column, price / entry - np.float32(1), nan)


def in_numpy(panel: Panel) -> Peer:
    """Running extremes of whole arrays."""
    whole = max(panel.n_rows, 1)
    return Peer(f"numpy {np.__version__}", lambda: numpy_label_cube(panel, ("y",), block_rows=whole)["y"], lambda y: y)


def in_numpy_blocks(panel: Panel) -> Peer:
    """Running extremes of blocks of rows, on all cores."""
    return Peer(IN_BLOCKS, lambda: numpy_label_cube(panel, ("y",))["y"], lambda y: y)


def in_polars(panel: Panel) -> Peer:
    """Shifted columns in one lazy query. `.over("symbol")` would be slower: the rows left of a symbol say the same."""
    pl, name = library("polars", "polars")
    left = {"left": numpy_rows_left(panel).astype(np.int32)}
    frame, columns = pl.DataFrame({"high": panel.high, "low": panel.low} | left | barrier_columns(panel)), []
    extremes = {f"top_{h}": pl.max_horizontal([pl.col("high").shift(-j) for j in range(1, h + 1)]) for h in HORIZONS}
    extremes |= {f"bottom_{h}": pl.min_horizontal([pl.col("low").shift(-j) for j in range(1, h + 1)]) for h in HORIZONS}
    for h in HORIZONS:
        for t in THRESHOLDS:
            up, down = pl.col(f"up {t}"), pl.col(f"down {t}")
            label = pl.when(pl.col("left") < h).then(pl.lit(-1, pl.Int8))
            label = label.when(pl.col(f"top_{h}") >= up).then(pl.lit(2, pl.Int8))
            label = label.when(pl.col(f"bottom_{h}") <= down).then(pl.lit(0, pl.Int8)).otherwise(pl.lit(1, pl.Int8))
            columns.append(label.alias(f"{h} {t}"))
    query = frame.lazy().with_columns(**extremes).select(columns)
    return Peer(name, query.collect, lambda frame: frame.to_numpy())


def in_pandas(panel: Panel) -> Peer:
    """Shifted columns of groups. Reversed rolling windows of groups give the same, eight times slower."""
    pd, name = library("pandas", "pandas")
    frame = pd.DataFrame(
        {"symbol": np.asarray(panel.symbols)[panel.symbol_of_row], "high": panel.high, "low": panel.low}
    ).astype({"symbol": "category"})
    barriers = {name: pd.Series(prices) for name, prices in barrier_columns(panel).items()}

    def run() -> Any:
        by_symbol = frame.groupby("symbol", sort=False, observed=True)
        columns, top, bottom, reached = {}, None, None, 0
        for h in HORIZONS:
            for j in range(reached + 1, h + 1):
                high, low = by_symbol["high"].shift(-j), by_symbol["low"].shift(-j)
                top = high if top is None else np.maximum(top, high)
                bottom = low if bottom is None else np.minimum(bottom, low)
            reached = h
            for t in THRESHOLDS:
                y = pd.Series(1, index=frame.index, dtype="int8")
                y = y.mask(bottom <= barriers[f"down {t}"], 0).mask(top >= barriers[f"up {t}"], 2)
                columns[f"{h} {t}"] = y.mask(top.isna(), -1)
        return pd.DataFrame(columns)

    return Peer(name, run, lambda frame: frame.to_numpy())


def in_vectorbt(panel: Panel) -> Peer:
    """FMAX of the highs and FMIN of the lows of all horizons, over a frame of one column a symbol.

    Its own labels (BOLB and the others) look at closes alone. Every symbol's bars begin in the first row, so that a
    window holds the next bars of that symbol; what is timed ends with the wide labels.
    """
    vbt, name = library("vectorbt", "vectorbt")
    import pandas as pd

    bar = np.arange(panel.n_rows) - panel.offsets[:-1][panel.symbol_of_row]
    cells = (bar, panel.symbol_of_row)
    longest = int(np.diff(panel.offsets).max())
    wide = {}
    for column, prices in {"high": panel.high, "low": panel.low, **barrier_columns(panel)}.items():
        wide[column] = np.full((longest, panel.n_symbols), np.nan, np.float32)
        wide[column][cells] = prices
    high, low = pd.DataFrame(wide["high"]), pd.DataFrame(wide["low"])

    def run() -> list[np.ndarray]:
        top = vbt.FMAX.run(high, window=list(HORIZONS)).fmax.to_numpy()
        bottom = vbt.FMIN.run(low, window=list(HORIZONS)).fmin.to_numpy()
        labels = []
        for k in range(len(HORIZONS)):
            columns = slice(k * panel.n_symbols, (k + 1) * panel.n_symbols)
            highest, lowest = top[:, columns], bottom[:, columns]
            for t in THRESHOLDS:
                sells = np.where(lowest <= wide[f"down {t}"], np.int8(0), np.int8(1))
                y = np.where(highest >= wide[f"up {t}"], np.int8(2), sells)
                labels.append(np.where(np.isnan(highest), np.int8(-1), y))
        return labels

    return Peer(f"{name}, FMAX and FMIN", run, lambda labels: np.stack([y[cells] for y in labels], axis=1))


def in_ml4t(panel: Panel) -> Peer:
    """ml4t-engineer's triple barrier over highs and lows, once for each label: what we call "first_touch" and "sell".

    It multiplies in float64. Distances that give our barrier prices, less a hair, go in as columns, so that a high
    or low that is exactly there counts on both sides. It labels the end of the history too: those rows are set to -1.
    """
    labeling, name = library("ml4t.engineer.labeling", "ml4t-engineer")
    import polars as pl
    from ml4t.engineer.config import LabelingConfig

    close = panel.close.astype(np.float64)
    distances = {}
    for t in THRESHOLDS:
        up, down = barrier_prices(panel.close, t)
        distances[f"up {t}"] = up / close * (1 - 1e-12) - 1
        distances[f"down {t}"] = 1 - down / close * (1 + 1e-12)
    frame = pl.DataFrame({
        "symbol": np.asarray(panel.symbols)[panel.symbol_of_row],
        "time": pl.Series(panel.time_ns).cast(pl.Datetime("ns")),
        "high": panel.high.astype(np.float64), "low": panel.low.astype(np.float64), "close": close, **distances,
    })  # fmt: skip
    configs = [
        LabelingConfig.triple_barrier(upper_barrier=f"up {t}", lower_barrier=f"down {t}", max_holding_period=h)
        for h in HORIZONS
        for t in THRESHOLDS
    ]
    columns = {"price_col": "close", "high_col": "high", "low_col": "low", "timestamp_col": "time"}

    def matrix(frames: list[Any]) -> np.ndarray:
        y = np.stack([frame["label"].to_numpy() + 1 for frame in frames], axis=1).astype(np.int8)
        y[numpy_rows_left(panel)[:, None] < np.repeat(HORIZONS, len(THRESHOLDS))] = -1
        return y

    def run() -> list[Any]:
        return [labeling.triple_barrier_labels(frame, label, group_col="symbol", **columns) for label in configs]

    return Peer(f"{name}, triple barrier", run, matrix)


FASTEST = (in_numpy, in_numpy_blocks, in_polars)
IN_LIBRARIES = (*FASTEST, in_pandas, in_vectorbt)
