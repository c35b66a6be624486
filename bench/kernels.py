"""Labels and features against other libraries: `python -m bench.kernels [--data FILE --sector-map FILE] [--times 15]`.

Every comparison first checks that both sides say the same, then times both in this process, alternately; reported are
medians. A peer that is not installed is skipped with a word. The last lines are JSON, one for each comparison.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from gpupipe.features import compute_features, feature_names
from gpupipe.labels import barrier_classes, tp_dd_labels
from gpupipe.panel import Panel

HORIZONS, THRESHOLDS = (1, 2, 5), (0.05, 0.10)
# What TA-Lib computes too. Its 44 arrays are held by these columns: the middle Bollinger bands are two of the SMA.
SHARED = (
    *(f"sma_ratio_{n}" for n in (5, 10, 20, 50, 100, 200)), *(f"ema_ratio_{n}" for n in (5, 10, 20, 50, 100, 200)),
    "rsi_7", "rsi_14", "rsi_21", "macd_line_ratio", "macd_signal_ratio", "macd_hist_ratio",
    "bb_percent_20", "bb_width_20", "bb_percent_50", "bb_width_50", "natr_14", "adx_14", "plus_di_14", "minus_di_14",
    "stoch_slowk_14", "stoch_slowd_14", "cci_20", "willr_14", "roc_5", "roc_10", "roc_20", "obv_slope_20", "mfi_14",
    "std_ratio_10", "std_ratio_20", "std_ratio_50", "high_distance_20", "low_distance_20", "aroon_up_25",
    "aroon_down_25",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="demo")
    parser.add_argument("--sector-map")
    parser.add_argument("--times", type=int, default=15)
    chosen = parser.parse_args()
    from gpupipe.data import load

    panel, _ = load(chosen.data, chosen.sector_map, "all", "cpu")
    about = {
        "rows": panel.n_rows, "symbols": panel.n_symbols, "times": chosen.times,
        "cores": len(os.sched_getaffinity(0)), "machine": platform.machine(), "python": platform.python_version(),
    }  # fmt: skip
    copy_rate = memory_copy(chosen.times)
    print(f"memory copy: {copy_rate / 1e9:.1f} GB/s, read and written")
    lines = []
    for compare in (labels, everything_of_labels, shared_columns, default_columns, alpha158):
        for line in compare(panel, chosen.times):
            line |= {"share_of_memory_copy": round(line.pop("bytes") / line["seconds"] / copy_rate, 3)}
            words = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in line.items())
            print(", ".join(words), flush=True)
            lines.append({"benchmark": "kernels", **line, **about})
    for line in lines:
        print(json.dumps(line))
    return 0


def alternate(times: int, **sides: Callable[[], Any]) -> dict[str, float]:
    """Median seconds of each side, run in turn after one run of each to warm up."""
    for side in sides.values():
        side()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(times):
        for name, side in sides.items():
            began = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def memory_copy(times: int) -> float:
    """Bytes a second, read and written, of copying 256 MB on all cores."""
    source = np.ones(1 << 25, dtype=np.float64)
    target = np.zeros_like(source)
    from concurrent.futures import ThreadPoolExecutor

    n = len(os.sched_getaffinity(0))
    edges = [len(source) * k // n for k in range(n + 1)]
    with ThreadPoolExecutor(n) as pool:

        def copy() -> None:
            list(pool.map(lambda a, b: np.copyto(target[a:b], source[a:b]), edges[:-1], edges[1:]))

        seconds = alternate(max(3, times // 3), copy=copy)["copy"]
    return 2 * source.nbytes / seconds


def numpy_labels(panel: Panel) -> np.ndarray:
    """int8 (n_rows, 6): running maxima in numpy over the ragged array, the fastest peer there is for y alone."""
    n = panel.n_rows
    stop = np.repeat(panel.offsets[1:], np.diff(panel.offsets))
    rows = np.arange(n)
    y = np.empty((n, len(HORIZONS) * len(THRESHOLDS)), np.int8)
    top, bottom = np.full(n, -np.inf, np.float32), np.full(n, np.inf, np.float32)
    bad = np.isnan(panel.high) | np.isnan(panel.low) | np.isnan(panel.close)
    unknown = bad | ~(panel.close > 0)
    reached = 0
    for k, h in enumerate(HORIZONS):
        for j in range(reached + 1, h + 1):
            np.maximum(top[:-j], panel.high[j:], out=top[:-j])
            np.minimum(bottom[:-j], panel.low[j:], out=bottom[:-j])
            unknown[:-j] |= bad[j:]
        reached = h
        for m, t in enumerate(THRESHOLDS):
            column = y[:, k * len(THRESHOLDS) + m]
            column[:] = 1
            column[bottom <= panel.close * np.float32(1 - t)] = 0
            column[top >= panel.close * np.float32(1 + t)] = 2
            column[unknown | (rows + h >= stop)] = -1
    return y


def labels(panel: Panel, times: int):
    """Six labels, y alone."""
    same = np.array_equal(barrier_classes(panel, HORIZONS, THRESHOLDS), numpy_labels(panel))
    if not same:
        raise SystemExit("labels: numpy says otherwise")
    seconds = alternate(
        times, ours=lambda: barrier_classes(panel, HORIZONS, THRESHOLDS), numpy=lambda: numpy_labels(panel)
    )  # fmt: skip
    yield {
        "what": "six labels, y alone", "peer": f"numpy {np.__version__}", "seconds": seconds["ours"],
        "peer_seconds": seconds["numpy"], "ratio": seconds["numpy"] / seconds["ours"],
        "rows_per_s": panel.n_rows / seconds["ours"], "bytes": panel.n_rows * (12 + 6),
    }  # fmt: skip


def everything_of_labels(panel: Panel, times: int):
    """Labels with all that goes with them."""
    made = tp_dd_labels(panel, HORIZONS, THRESHOLDS)
    size = sum(getattr(made, name).nbytes for name in ("y", "tp", "dd", "forward_return", "exit_row"))
    seconds = alternate(times, ours=lambda: tp_dd_labels(panel, HORIZONS, THRESHOLDS))["ours"]
    yield {
        "what": "six labels with tp, dd, return and exit row", "seconds": seconds, "rows_per_s": panel.n_rows / seconds,
        "bytes": panel.n_rows * 12 + size,
    }  # fmt: skip


def talib_of_symbol(bars: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """44 columns of one symbol: high, low, close, volume float64."""
    import talib

    h, l, c, v = bars  # noqa: E741
    made = [talib.SMA(c, n) for n in (5, 10, 20, 50, 100, 200)] + [talib.EMA(c, n) for n in (5, 10, 20, 50, 100, 200)]
    made += [talib.RSI(c, n) for n in (7, 14, 21)] + [*talib.MACD(c, 12, 26, 9)]
    made += [*talib.BBANDS(c, 20, 2, 2), *talib.BBANDS(c, 50, 2, 2)]
    made += [talib.ATR(h, l, c, 14), talib.ADX(h, l, c, 14), talib.PLUS_DI(h, l, c, 14), talib.MINUS_DI(h, l, c, 14)]
    made += [*talib.STOCH(h, l, c, 14, 3, 0, 3, 0), talib.CCI(h, l, c, 20), talib.WILLR(h, l, c, 14)]
    made += [talib.ROC(c, n) for n in (5, 10, 20)] + [talib.OBV(c, v), talib.MFI(h, l, c, v, 14)]
    made += [talib.STDDEV(c, n) for n in (10, 20, 50)] + [talib.MAX(h, 20), talib.MIN(l, 20), *talib.AROON(h, l, 25)]
    return made


_of_process: list[tuple[np.ndarray, ...]] = []


def _give(bars: list[tuple[np.ndarray, ...]]) -> None:
    _of_process[:] = bars


def _talib_range(edges: tuple[int, int]) -> int:
    return sum(len(talib_of_symbol(bars)) for bars in _of_process[edges[0] : edges[1]])


def shared_columns(panel: Panel, times: int):
    """The columns that TA-Lib computes too."""
    try:
        import talib
    except ImportError:
        print("TA-Lib is not installed: skipped (pip install TA-Lib)")
        return
    columns = [getattr(panel, name).astype(np.float64) for name in ("high", "low", "close", "volume")]
    edges = zip(panel.offsets[:-1], panel.offsets[1:], strict=True)
    bars = [tuple(x[a:b] for x in columns) for a, b in edges if b - a > 1]
    check_talib(panel, bars)
    n = len(os.sched_getaffinity(0))
    parts = [(len(bars) * k // (8 * n), len(bars) * (k + 1) // (8 * n)) for k in range(8 * n)]
    with multiprocessing.get_context("fork").Pool(n, _give, (bars,)) as pool:
        seconds = alternate(
            times, ours=lambda: compute_features(panel, SHARED),
            pool=lambda: pool.map(_talib_range, parts, chunksize=1),
            loop=lambda: [talib_of_symbol(one) for one in bars],
        )  # fmt: skip
    for peer, label in (("pool", f"in a standing pool of {n} processes"), ("loop", "in a loop")):
        yield {
            "what": f"{len(SHARED)} columns that hold TA-Lib's 44", "peer": f"TA-Lib {talib.__version__} {label}",
            "seconds": seconds["ours"], "peer_seconds": seconds[peer], "ratio": seconds[peer] / seconds["ours"],
            "values_per_s": panel.n_rows * len(SHARED) / seconds["ours"],
            "bytes": panel.n_rows * (20 + 4 * len(SHARED)),
        }  # fmt: skip


def check_talib(panel: Panel, bars: list) -> None:
    """A few columns against TA-Lib's; the tests compare all of them."""
    import talib

    features = compute_features(panel, SHARED)
    edges = zip(panel.offsets[:-1], panel.offsets[1:], strict=True)
    rows = np.concatenate([np.arange(a, b) for a, b in edges if b - a > 1])
    for name, function in {
        "ema_ratio_200": lambda h, l, c, v: c / talib.EMA(c, 200) - 1,  # noqa: E741
        "adx_14": lambda h, l, c, v: talib.ADX(h, l, c, 14),  # noqa: E741
        "cci_20": lambda h, l, c, v: talib.CCI(h, l, c, 20),  # noqa: E741
        "mfi_14": lambda h, l, c, v: talib.MFI(h, l, c, v, 14),  # noqa: E741
        "bb_width_50": lambda h, l, c, v: 4 * talib.STDDEV(c, 50) / talib.SMA(c, 50),  # noqa: E741
    }.items():
        theirs = np.concatenate([function(*one) for one in bars])
        ours = features.column(name)[rows]
        if not np.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.nanstd(theirs), equal_nan=True):
            raise SystemExit(f"{name}: TA-Lib says otherwise")


def default_columns(panel: Panel, times: int):
    """The whole default set."""
    n = len(feature_names("default"))
    seconds = alternate(times, ours=lambda: compute_features(panel))["ours"]
    yield {
        "what": f"default set, {n} columns", "seconds": seconds, "values_per_s": panel.n_rows * n / seconds,
        "bytes": panel.n_rows * (28 + 4 * n),
    }  # fmt: skip


def alpha158(panel: Panel, times: int):
    """Qlib's Alpha158."""
    seconds = alternate(times, ours=lambda: compute_features(panel, "alpha158"))["ours"]
    line = {
        "what": "Alpha158", "seconds": seconds, "values_per_s": panel.n_rows * 158 / seconds,
        "bytes": panel.n_rows * (20 + 4 * 158),
    }  # fmt: skip
    try:
        line["qlib_installed"] = importlib.metadata.version("pyqlib")
    except importlib.metadata.PackageNotFoundError:
        print("pyqlib is not installed: Alpha158 is timed alone")
    yield line


if __name__ == "__main__":
    sys.exit(main())
