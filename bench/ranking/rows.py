"""The rows that all rankers are compared on: one table of all sectors, and the walk-forward folds as row numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpupipe.config import Config
from gpupipe.cross_validation.folds import make_folds
from gpupipe.cross_validation.split import split
from gpupipe.data.panel import Panel
from gpupipe.features.matrix import compute_features
from gpupipe.workloads.equity import recipe

YEAR, MONTH, WEEK = 252, 21, 5  # bars
PEERS = ("momentum 12-1", "reversal 5", "low volatility")


@dataclass(frozen=True)
class FoldRows:
    """A fold of the walk-forward as row numbers into `Rows`, int64, purged like those of a training run.

    >>> FoldRows("origin1", np.arange(60), np.arange(65, 80), np.arange(85, 100)).test[0]
    np.int64(85)
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Rows:
    """All rows of a panel, sector after sector, symbol after symbol; row-aligned arrays on the host.

    X: float32 (n_rows, n_names), columns `names`; NaN is missing.
    time_ns: int64, UTC.  symbol, sector: int64, numbers of the symbol and its sector.
    forward: by horizon in bars, float64: close[+h] / close - 1, NaN where not known.
    label: float64, close[+2] / close[+1] - 1: Qlib's standard label, from the close at which one could first buy.
    peers: by name, float64: scores of one column, high means buy; NaN before enough bars.
    folds: of the walk-forward, in the order of time.
    """

    names: tuple[str, ...]
    X: np.ndarray
    time_ns: np.ndarray
    symbol: np.ndarray
    sector: np.ndarray
    forward: dict[int, np.ndarray]
    label: np.ndarray
    peers: dict[str, np.ndarray]
    folds: tuple[FoldRows, ...]


def rows_of(panel: Panel, settings: Config, names: Sequence[str], horizons: Sequence[int]) -> Rows:
    """The rows of a panel, with the folds of settings.split.walk_forward.

    names: of the feature columns.  Folds are cut, and their rows are usable, as in a run of these settings.
    """
    to_host = panel.device.to_host
    parts: dict[str, list[np.ndarray]] = {}
    datasets, firsts, n_rows, n_symbols = [], [], 0, 0
    for number, group in enumerate(panel.groups):
        own = panel.of_group(group)
        datasets.append(
            recipe.join(own, recipe.features_of(own, settings, None), recipe.labels_of(own, settings), group)
        )
        firsts.append(n_rows)
        close, symbol = to_host(own.close).astype(np.float64), to_host(own.symbol_of_row)
        volatility = to_host(compute_features(own, ("volatility_20",)).values)[:, 0]
        columns = {
            "X": to_host(compute_features(own, names).values),
            "time_ns": to_host(own.time_ns),
            "symbol": symbol + n_symbols,
            "sector": np.full(own.n_rows, number),
            "label": shifted(close, symbol, 2) / shifted(close, symbol, 1) - 1,
            PEERS[0]: shifted(close, symbol, -MONTH) / shifted(close, symbol, -YEAR) - 1,
            PEERS[1]: 1 - close / shifted(close, symbol, -WEEK),
            PEERS[2]: -volatility.astype(np.float64),
            **{str(h): shifted(close, symbol, h) / close - 1 for h in horizons},
        }
        for name, column in columns.items():
            parts.setdefault(name, []).append(column)
        n_rows, n_symbols = n_rows + own.n_rows, n_symbols + own.n_symbols
    folds = []
    for times in make_folds(datasets, settings.split).walk_forward:
        splits = [split(dataset, times) for dataset in datasets]
        row_numbers = (
            np.concatenate([getattr(part, name) + first for part, first in zip(splits, firsts, strict=True)])
            for name in ("train", "validation", "test")
        )
        folds.append(FoldRows(times.name, *row_numbers))
    whole = {name: np.concatenate(columns) for name, columns in parts.items()}
    return Rows(
        tuple(names), whole["X"], whole["time_ns"], whole["symbol"], whole["sector"],
        {h: whole[str(h)] for h in horizons}, whole["label"], {name: whole[name] for name in PEERS}, tuple(folds),
    )  # fmt: skip


def shifted(values: np.ndarray, symbol: np.ndarray, bars: int) -> np.ndarray:
    """float64 (n_rows,): values[i + bars], NaN where that is a row of another symbol or none.

    >>> shifted(np.array([1.0, 2.0, 3.0]), np.array([0, 0, 1]), 1).tolist()
    [2.0, nan, nan]
    """
    source = np.arange(len(values)) + bars
    inside = (source >= 0) & (source < len(values))
    inside[inside] = symbol[source[inside]] == symbol[inside]
    return np.where(inside, values[np.where(inside, source, 0)], np.nan)
