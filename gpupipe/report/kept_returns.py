"""Rows of OUT/returns.parquet: predicted and realised returns of the test bars of each symbol, with its positions."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

import numpy as np

FILE = "returns.parquet"  # in OUT, written by the workload


@dataclass(frozen=True)
class KeptReturns:
    """Test bars of one symbol, rising in time.

    folds: names of the folds that the bars are of; one name for a single split.
    time_ns: int64 (n_rows,).  realised, predicted: float64 (n_rows,), log-returns of the next bar.
    position: int8 (n_rows,), 1 long, 0 flat, -1 short.  equity, buy_and_hold: float64 (n_rows,), from 1 on.

        >>> none = np.zeros(0)
        >>> KeptReturns(("",), np.zeros(0, np.int64), none, none, np.zeros(0, np.int8), none, none).n
        0
    """

    folds: tuple[str, ...]
    time_ns: np.ndarray
    realised: np.ndarray
    predicted: np.ndarray
    position: np.ndarray
    equity: np.ndarray
    buy_and_hold: np.ndarray

    @property
    def n(self) -> int:
        """Number of bars."""
        return len(self.time_ns)


def read(out: pathlib.Path) -> dict[str, KeptReturns] | None:
    """The rows by symbol, in the order of the file; None where OUT has no such file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = out / FILE
    if not path.exists():
        return None
    names = ["symbol", "fold", "time", "realised", "predicted", "position", "equity", "buy_and_hold"]
    table = pq.read_table(path, columns=names)
    columns = {name: table[name].to_numpy() for name in names if name not in ("time", "symbol", "fold")}
    time_ns = table["time"].cast(pa.timestamp("ns", "UTC")).cast(pa.int64()).to_numpy()
    symbols, folds = (np.array(table[name].to_pylist(), dtype=object) for name in ("symbol", "fold"))
    found = {}
    for symbol in dict.fromkeys(symbols):
        of_symbol = np.flatnonzero(symbols == symbol)
        at = of_symbol[np.argsort(time_ns[of_symbol], kind="stable")]
        kept = {name: values[at] for name, values in columns.items()}
        found[symbol] = KeptReturns(tuple(dict.fromkeys(folds[at])), time_ns[at], **kept)
    return found
