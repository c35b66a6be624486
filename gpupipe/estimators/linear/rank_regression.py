"""Ridge regression of a row's rank within its time, as a linear score of scaled columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.evaluation.ranking import ranks_by
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
    _, time, count = np.unique(time_ns[known], return_inverse=True, return_counts=True)
    among, n = ranks_by(time, values[known]), count[time]
    ranks[known] = np.where(n >= FEWEST_ROWS, (among.least + among.ties / 2) / n - 0.5, np.nan)
    return ranks


@dataclass(frozen=True)
class Moments:
    """Sums over the rows of each part, from which a ridge regression on any parts is solved.

    square: float64 (n_parts, n_inputs, n_inputs), sums of Z^T Z.  product: (n_parts, n_inputs), of Z^T target.
    rows: int64 (n_parts,), known ones.

        >>> from gpupipe.runtime.device import pick
        >>> Z, target = np.float32([[1], [-1], [5], [1]]), np.array([0.5, -0.5, np.nan, 0.7])
        >>> moments = moments_of([Z], [target], [np.array([0, 0, 0, 1])], n_parts=2, device=pick("cpu"))
        >>> moments.rows.tolist(), moments.ridge(np.ones(1), [0]).tolist()
        ([2, 1], [0.25])
    """

    square: np.ndarray
    product: np.ndarray
    rows: np.ndarray

    def ridge(self, penalty: np.ndarray, parts: Sequence[int]) -> np.ndarray:
        """float64 (n_inputs,): the coefficients b that minimise mean((target - Z b)^2) + sum(penalty * b^2).

        penalty: float64 (n_inputs,), > 0; 1 halves the coefficient of a column of variance 1 that no other explains.
        parts: whose rows count. Without any row all are 0.
        """
        at = list(parts)
        n_rows = self.rows[at].sum()
        if n_rows == 0:
            return np.zeros(len(penalty))
        square = self.square[at].sum(axis=0) / n_rows
        return np.linalg.solve(square + np.diag(penalty), self.product[at].sum(axis=0) / n_rows)


def moments_of(
    blocks: Iterable[Any], targets: Sequence[np.ndarray], parts: Sequence[np.ndarray], n_parts: int, device: Device
) -> Moments:
    """The moments of each part.

    blocks: Z of each group, float32 (n_rows, n_inputs) on the device, one held at a time.
    targets: float64 (n_rows,) of each; rows with NaN are left out.  parts: int64 (n_rows,), numbers of parts.
    """
    squares: list[list[np.ndarray]] = [[] for _ in range(n_parts)]
    products: list[list[np.ndarray]] = [[] for _ in range(n_parts)]
    rows = np.zeros(n_parts, np.int64)
    for Z, target, part in zip(blocks, targets, parts, strict=True):
        for k in range(n_parts):
            at = np.flatnonzero((part == k) & ~np.isnan(target))
            inputs = Z[device.asarray(at)]
            squares[k].append(device.to_host(inputs.T @ inputs).astype(np.float64))
            products[k].append(device.to_host(inputs.T @ device.asarray(target[at].astype(np.float32))).astype(float))
            rows[k] += len(at)
    return Moments(np.sum(squares, axis=1), np.sum(products, axis=1), rows)


def parts_in_time(time_ns: np.ndarray, n_parts: int, gap: int) -> np.ndarray:
    """int64 (n,): the number of a row's part, of n_parts of equally many times; n_parts for rows in a gap.

    gap: how many times at the beginning of each part but the first belong to none, because labels of the part before
        reach into them.

        >>> parts_in_time(np.arange(8), n_parts=2, gap=1).tolist()
        [0, 0, 0, 0, 2, 1, 1, 1]
    """
    times, position = np.unique(time_ns, return_inverse=True)
    part = np.arange(len(times)) * n_parts // max(len(times), 1)
    first = np.searchsorted(part, part)
    part[(part > 0) & (np.arange(len(times)) - first < gap)] = n_parts
    return part[position]
