"""The rows of a model as the predecessor makes them: the file read anew, columns in pandas, labels row by row."""

from __future__ import annotations

import pathlib

import numpy as np
import pandas as pd

from bench.predecessor.features import features_of_symbol
from gpupipe.targets.barriers import barrier_prices

WARM_UP = 61  # first rows of each symbol that are left out; longer windows are filled with 0, as usual


def loaded(path: pathlib.Path, sector: str) -> pd.DataFrame:
    """The rows of one sector, by symbol and time, of the whole file that pandas reads."""
    frame = pd.read_parquet(path)
    frame = frame[frame["sector"] == sector].copy()
    frame["symbol"] = frame["symbol"].astype(str)
    return frame.sort_values(["symbol", "time"], ignore_index=True)


def with_features(frame: pd.DataFrame) -> pd.DataFrame:
    """symbol, time and 172 columns."""
    parts = []
    for symbol, bars in frame.groupby("symbol", sort=True):
        columns = features_of_symbol(bars)
        columns.insert(0, "time", bars["time"])
        columns.insert(0, "symbol", symbol)
        parts.append(columns)
    return pd.concat(parts, ignore_index=True)


def names_of(features: pd.DataFrame) -> list[str]:
    return list(features.columns.drop(["symbol", "time"]))


def with_labels(frame: pd.DataFrame, horizon: int, threshold: float, window: str) -> pd.DataFrame:
    """symbol, time and label, -1 where it is not known."""
    parts = []
    for symbol, bars in frame.groupby("symbol", sort=True):
        y = labels_of_symbol(bars, horizon, threshold, window)
        parts.append(pd.DataFrame({"symbol": symbol, "time": bars["time"], "label": y}))
    return pd.concat(parts, ignore_index=True)


def labels_of_symbol(bars: pd.DataFrame, horizon: int, threshold: float, window: str = "calendar") -> np.ndarray:
    """int8 (n,): a class of gpupipe.targets.classes for each row of one symbol's bars, one row after the other.

    2 if a high of the window reaches close * (1 + threshold), else 0 if a low reaches close * (1 - threshold), else 1.
    window: "calendar": bars dated entry < d <= entry + horizon days, none gives 1, and the end of the history is not
    marked. "bars": the next `horizon` bars; -1 with fewer left. Prices are float32, barriers those of our labels.

    A plain loop over lists, kinder to the old way than the more usual filter of the frame for every row.
    """
    days = bars["time"].dt.tz_convert(None).to_numpy().astype("datetime64[D]").astype(np.int64).tolist()
    highs, lows = bars["high"].tolist(), bars["low"].tolist()
    closes = np.ascontiguousarray(bars["close"].to_numpy(np.float32))
    ups, downs = (prices.tolist() for prices in barrier_prices(closes, threshold))
    n = len(days)
    labels = []
    for i in range(n):
        if window == "bars" and i + horizon >= n:
            labels.append(-1)
            continue
        label, j = 1, i + 1
        while j < n and (days[j] - days[i] <= horizon if window == "calendar" else j <= i + horizon):
            if highs[j] >= ups[i]:
                label = 2
                break
            if lows[j] <= downs[i]:
                label = 0
            j += 1
        labels.append(label)
    return np.array(labels, np.int8)


def merged(features: pd.DataFrame, labels: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(X float32 (n, 172), y int8 (n,), whether the row can be used) of all rows, in order."""
    both = features.merge(labels, on=["symbol", "time"], how="left", validate="one_to_one")
    y = both.pop("label").to_numpy(np.int8)
    warm = both.groupby("symbol").cumcount().to_numpy() >= WARM_UP
    X = both.drop(columns=["symbol", "time"]).fillna(0.0).to_numpy(np.float32)
    return X, y, warm & (y >= 0)
