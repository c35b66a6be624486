"""A position path: long, flat or short in each bar by the predicted return, filled at opens, after costs."""

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


def equity_of(position: np.ndarray, open_: np.ndarray, cost: float) -> np.ndarray:
    """float64 (n_rows,): equity from 1 on, with each row's position filled at the next row's open.

    position: int8 (n_rows,), decided at the close of the row.  open_: float64 (n_rows,), above 0.
    cost: of a fill, as a share of its value; turning from long to short is two fills.
    equity[i] is the equity at the open of row i, after its fill: the first rows are 1 and 1 less the first fill. A
    position earns its side times the change from one open to the next; an equity that falls to 0 stays there.
    NaN:     an open that is not known, or not above 0, is taken for the one before: nothing is earned in that bar.

        >>> equity_of(np.int8([1, 1, 0, 0]), np.array([100.0, 100.0, 110.0, 121.0]), cost=0.0).round(3).tolist()
        [1.0, 1.0, 1.1, 1.21]
    """
    n = len(position)
    price = _known(open_)
    held = np.concatenate([[0], position[:-1]]).astype(np.float64)  # from the open of the row on
    change = np.abs(np.diff(held, prepend=0.0))
    factors = np.ones(n)
    factors[1:] = 1 + held[:-1] * (price[1:] / price[:-1] - 1)
    factors *= 1 - cost * change
    equity: np.ndarray = np.cumprod(np.maximum(factors, 0.0))
    return equity


def buy_and_hold(open_: np.ndarray, cost: float) -> np.ndarray:
    """float64 (n_rows,): equity of one position that is bought at the second open, as `equity_of` fills its first.

    >>> buy_and_hold(np.array([100.0, 100.0, 110.0]), cost=0.0).round(3).tolist()
    [1.0, 1.0, 1.1]
    """
    return equity_of(np.ones(len(open_), np.int8), open_, cost)


def _known(price: np.ndarray) -> np.ndarray:
    """Prices in which an unknown one is the one before it; the first known one before that."""
    known = np.isfinite(price) & (price > 0)
    if not known.any():
        return np.ones(len(price))
    row = np.maximum.accumulate(np.where(known, np.arange(len(price)), -1))
    first = int(np.argmax(known))
    filled: np.ndarray = price[np.where(row >= 0, row, first)]
    return filled
