"""A position path by predicted returns; backtest.position_trades has its equity and trades."""

from __future__ import annotations

import numpy as np


def positions_of(predicted: np.ndarray, cost: float) -> np.ndarray:
    """int8 (n_rows,): 1 long, -1 short: the sign of the last prediction that exceeds what a fill costs; 0 before it.

    predicted: float64 (n_rows,), log-returns of the next bar; NaN keeps the position.
    cost: of a fill, as a share of its value. Predictions within it change nothing: turning costs two fills.

        >>> positions_of(np.array([0.0, 0.02, 0.001, -0.03, np.nan]), cost=0.01).tolist()
        [0, 1, 1, -1, -1]
    """
    clear = np.where(np.abs(predicted) > cost, np.sign(predicted), 0).astype(np.int8)
    row = np.maximum.accumulate(np.where(clear != 0, np.arange(len(clear)), -1))
    return np.where(row >= 0, clear[np.maximum(row, 0)], 0).astype(np.int8)
