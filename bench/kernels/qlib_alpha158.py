"""Alpha158 as Qlib computes it: `python bench/kernels/qlib_alpha158.py BARS.parquet [--values FILE.npy]
[--processes 2]`.

It runs in an environment with pyqlib (pip install pyqlib==0.9.7), which need not be ours: it imports nothing of
gpupipe, and `python -m bench.kernels.comparison --qlib PYTHON` calls it there. BARS holds symbol, time (or
date), open, high, low,
close and volume, sorted by symbol and time. The bars are first written in Qlib's own storage; $vwap, which they do not
hold, is the typical price. A symbol's n-th bar goes to the n-th day of the calendar, so that a day that it lacks makes
no hole in its windows. What is timed is `D.features` of all 158 expressions. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile
import time

import numpy as np
import pandas as pd


def write_provider(folder: pathlib.Path, bars: pd.DataFrame) -> list[str]:
    """Qlib's storage: calendars/day.txt, instruments/all.txt, features/CODE/FIELD.day.bin (start, then float32)."""
    longest = int(bars.groupby("symbol", sort=False, observed=True).size().max())
    days = [str(day.date()) for day in pd.bdate_range("1990-01-01", periods=longest)]
    for name in ("calendars", "instruments", "features"):
        (folder / name).mkdir(parents=True)
    (folder / "calendars" / "day.txt").write_text("\n".join(days) + "\n")
    codes, lines = [], []
    for k, (_, one) in enumerate(bars.groupby("symbol", sort=False, observed=True)):
        codes.append(f"S{k:05d}")
        lines.append(f"{codes[-1]}\t{days[0]}\t{days[len(one) - 1]}")
        columns = {name: one[name].to_numpy(np.float32) for name in ("open", "high", "low", "close", "volume")}
        columns["vwap"] = (columns["high"] + columns["low"] + columns["close"]) / np.float32(3)
        own = folder / "features" / codes[-1].lower()
        own.mkdir()
        for name, values in columns.items():
            np.concatenate([[0], values]).astype("<f4").tofile(own / f"{name}.day.bin")
    (folder / "instruments" / "all.txt").write_text("\n".join(lines) + "\n")
    return codes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bars")
    parser.add_argument("--values", help="write float32 (n_rows, 158) here, in the order of the file")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--times", type=int, default=1)
    chosen = parser.parse_args()
    import qlib
    from qlib.contrib.data.handler import Alpha158
    from qlib.data import D

    bars = pd.read_parquet(chosen.bars)
    fields, names = Alpha158.get_feature_config(object.__new__(Alpha158))
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place, "provider")
        codes = write_provider(folder, bars)
        qlib.init(
            provider_uri=str(folder), region="us", kernels=chosen.processes, expression_cache=None, dataset_cache=None
        )
        seconds = []
        for _ in range(chosen.times):
            began = time.perf_counter()
            frame = D.features(codes, fields, freq="day")
            seconds.append(time.perf_counter() - began)
    if chosen.values:
        values = frame.sort_index().to_numpy(np.float32)  # the codes rise as the symbols do
        assert values.shape == (len(bars), len(names))
        np.save(chosen.values, values)
    print(json.dumps({
        "library": f"pyqlib {qlib.__version__} in {chosen.processes} processes", "seconds": float(np.median(seconds)),
        "rows": len(bars), "names": list(names),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
