"""Ridge regression of a row's rank within its time, as a linear score of scaled columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gpupipe.runtime.device import Device

FEWEST_ROWS = 10  # of a time, for its ranks to tell anything


def ranks_within(values: np.ndarray, time_ns: np.ndarray) -> np.ndarray:
    """float64 (n,): the rank of each value among those of its time, from -0.5 to 0.5 with mean 0 at each time.

    Of n values, the one with k lower ones and m equal ones (itself included) has (k + m / 2) / n - 0.5.

    values: float (n,).  time_ns: int64 (n,).
    NaN: a NaN value has none and counts for no other; nor have the rows of a time with fewer than ten known values.

        >>> ranks_within(np.append(np.arange(10.0), 7.0), np.append(np.zeros(10), 1)).round(2).tolist()
        [-0.45, -0.35, -0.25, -0.15, -0.05, 0.05, 0.15, 0.25, 0.35, 0.45, nan]
    """
    ranks = np.full(len(values), np.nan)
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        return ranks
    order = known[np.lexsort((values[known], time_ns[known]))]
    time, value = time_ns[order], values[order]
    new_time = np.r_[True, time[1:] != time[:-1]]
    first, n = _runs(new_time)
    first_equal, n_equal = _runs(new_time | np.r_[True, value[1:] != value[:-1]])
    ranks[order] = np.where(n >= FEWEST_ROWS, (first_equal - first + n_equal / 2) / n - 0.5, np.nan)
    return ranks


def _runs(begins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(position of the first item, number of items) of each item's run, int64 (n,); begins: whether a run does."""
    starts = np.flatnonzero(begins)
    lengths = np.diff(np.append(starts, len(begins)))
    return np.repeat(starts, lengths), np.repeat(lengths, lengths)


def ridge(blocks: Iterable[Any], targets: Sequence[np.ndarray], penalty: np.ndarray, device: Device) -> np.ndarray:
    """float64 (n_inputs,): the coefficients b that minimise mean((target - Z b)^2) + sum(penalty * b^2).

    blocks: Z of each group, float32 (n_rows, n_inputs) on the device, one held at a time.
    targets: float64 (n_rows,) of each; rows with NaN are left out.
    penalty: float64 (n_inputs,), > 0; 1 halves the coefficient of a column of variance 1 that no other explains.
    Without any known row all are 0.

        >>> from gpupipe.runtime.device import pick
        >>> Z = np.float32([[1], [-1], [5]])
        >>> ridge([Z], [np.array([0.5, -0.5, np.nan])], np.ones(1), pick("cpu")).tolist()
        [0.25]
    """
    xp, n = device.xp, len(penalty)
    square, product, n_rows = np.zeros((n, n)), np.zeros(n), 0
    for Z, target in zip(blocks, targets, strict=True):
        known = np.flatnonzero(~np.isnan(target))
        inputs = Z[device.asarray(known)]
        square += device.to_host(inputs.T @ inputs)
        product += device.to_host(inputs.T @ xp.asarray(device.asarray(target[known].astype(np.float32))))
        n_rows += len(known)
    if n_rows == 0:
        return np.zeros(n)
    return np.linalg.solve(square / n_rows + np.diag(penalty), product / n_rows)
