"""Peers that do not go together with gpupipe, in an environment of their own.

    python tests/support/foreign_peers.py qlib BARS VALUES      pip install pyqlib==0.9.7
    python tests/support/foreign_peers.py mlfinpy BARS VALUES   pip install mlfinpy==0.1.2 scikit-learn "pyarrow<20"

It imports nothing of gpupipe; bench.kernels.comparison calls it with the interpreters of --qlib and --mlfinpy. BARS
(Parquet) holds symbol, time, open, high, low, close and volume, sorted by symbol and time. Peers write their values to
VALUES (.npy); the last line is JSON.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import sys
import tempfile
import time
from typing import Any

import numpy as np
import pandas as pd

HORIZONS, THRESHOLDS = (1, 2, 5), (0.05, 0.10)
SYMBOLS = 2  # of mlfinpy, whose labels take about a millisecond each


def mlfinpy(bars: pd.DataFrame) -> tuple[np.ndarray, dict[str, Any]]:
    """Triple-barrier labels int8 (n_rows, 6) of the first symbols: 0, 1, 2, -1 not known. It wants numpy 1.

    Timed are `get_events` and `get_bins` for horizons 1, 2, 5 and thresholds 5 % and 10 %.
    """
    from mlfinpy.labeling.labeling import get_bins, get_events

    parts, seconds = [], 0.0
    for symbol in bars["symbol"].unique()[:SYMBOLS]:
        own = bars[bars["symbol"] == symbol]
        close = pd.Series(own["close"].to_numpy(np.float64), index=pd.DatetimeIndex(own["time"]))
        y = np.full((len(close), len(HORIZONS) * len(THRESHOLDS)), -1, np.int8)
        for k, h in enumerate(HORIZONS):
            ends = pd.Series(close.index[h:], index=close.index[:-h])
            for m, t in enumerate(THRESHOLDS):
                target = pd.Series(t, index=ends.index)
                began = time.perf_counter()
                events = get_events(close, ends.index, [1, 1], target, 0.0, 1, ends, verbose=False)
                bins = get_bins(events, close)["bin"]
                seconds += time.perf_counter() - began
                y[close.index.get_indexer(bins.index), k * len(THRESHOLDS) + m] = bins.to_numpy() + 1
        parts.append(y)
    values = np.concatenate(parts)
    return values, {"library": f"mlfinpy {importlib.metadata.version('mlfinpy')}", "seconds": seconds}


def write_provider(folder: pathlib.Path, bars: pd.DataFrame) -> list[str]:
    """Qlib's storage: calendars/day.txt, instruments/all.txt, features/CODE/FIELD.day.bin (start, then float32).

    $vwap, which the bars do not hold, is the typical price. A symbol's n-th bar goes to the n-th day of the calendar,
    so that a day that it lacks makes no hole in its windows.
    """
    longest = int(bars.groupby("symbol", sort=False, observed=True).size().max())
    days = [str(day.date()) for day in pd.bdate_range("1990-01-01", periods=longest)]
    for name in ("calendars", "instruments", "features"):
        (folder / name).mkdir(parents=True)
    (folder / "calendars" / "day.txt").write_text("\n".join(days) + "\n")
    codes, lines = [], []
    for k, (_, own) in enumerate(bars.groupby("symbol", sort=False, observed=True)):
        codes.append(f"S{k:05d}")
        lines.append(f"{codes[-1]}\t{days[0]}\t{days[len(own) - 1]}\n")
        columns = {name: own[name].to_numpy(np.float32) for name in ("open", "high", "low", "close", "volume")}
        columns["vwap"] = (columns["high"] + columns["low"] + columns["close"]) / np.float32(3)
        place = folder / "features" / codes[-1].lower()
        place.mkdir()
        for name, values in columns.items():
            np.concatenate([[0], values]).astype("<f4").tofile(place / f"{name}.day.bin")
    (folder / "instruments" / "all.txt").write_text("".join(lines))
    return codes


def qlib(bars: pd.DataFrame) -> tuple[np.ndarray, dict[str, Any]]:
    """Alpha158 float32 (n_rows, 158), in the order of the bars. Timed is `D.features` of all expressions."""
    import qlib
    from qlib.contrib.data.handler import Alpha158
    from qlib.data import D

    fields, names = Alpha158.get_feature_config(object.__new__(Alpha158))
    processes = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place, "provider")
        codes = write_provider(folder, bars)
        qlib.init(provider_uri=str(folder), region="us", kernels=processes, expression_cache=None, dataset_cache=None)
        began = time.perf_counter()
        frame = D.features(codes, fields, freq="day")
        seconds = time.perf_counter() - began
    values = frame.sort_index().to_numpy(np.float32)  # the codes rise as the symbols do
    assert values.shape == (len(bars), len(names))
    library = f"pyqlib {qlib.__version__} in {processes} processes"
    return values, {"library": library, "seconds": seconds, "names": list(names)}


def main() -> None:
    peer, bars, target = sys.argv[1:]
    values, facts = {"qlib": qlib, "mlfinpy": mlfinpy}[peer](pd.read_parquet(bars))
    np.save(target, values)
    print(json.dumps({**facts, "rows": len(values)}))


if __name__ == "__main__":
    main()
