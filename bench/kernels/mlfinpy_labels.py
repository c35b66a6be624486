"""Triple-barrier labels as mlfinpy computes them: `python bench/kernels/mlfinpy_labels.py BARS.parquet [--symbols 2]`.

It runs in an environment of its own (pip install mlfinpy==0.1.2 scikit-learn "pyarrow<20": it wants numpy 1), imports
nothing of gpupipe, and `python -m bench.kernels.comparison --mlfinpy PYTHON` calls it there. BARS holds
symbol, time (or date) and
close, sorted by symbol and time; the first symbols alone are labelled, because a label takes about a millisecond. What
is timed is `get_events` and `get_bins` for horizons 1, 2, 5 and thresholds 5 % and 10 %. The last line is JSON.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import time

import numpy as np
import pandas as pd

HORIZONS, THRESHOLDS = (1, 2, 5), (0.05, 0.10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bars")
    parser.add_argument("--values", help="write int8 (n_rows, 6) of the first symbols here: 0, 1, 2, and -1 not known")
    parser.add_argument("--symbols", type=int, default=2)
    chosen = parser.parse_args()
    from mlfinpy.labeling.labeling import get_bins, get_events

    bars = pd.read_parquet(chosen.bars)
    when = "time" if "time" in bars else "date"
    parts, seconds = [], 0.0
    for symbol in bars["symbol"].unique()[: chosen.symbols]:
        one = bars[bars["symbol"] == symbol]
        close = pd.Series(one["close"].to_numpy(np.float64), index=pd.DatetimeIndex(one[when]))
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
    if chosen.values:
        np.save(chosen.values, values)
    version = importlib.metadata.version("mlfinpy")
    print(json.dumps({"library": f"mlfinpy {version}", "seconds": seconds, "rows": len(values)}))


if __name__ == "__main__":
    main()
