"""Realised returns of rows in groups of rising predicted return, with intervals by blocks of times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpupipe.evaluation import block_bootstrap

TENTHS = 10


@dataclass(frozen=True)
class ReturnGroup:
    """Rows of one group.

    rows: their number.  predicted, realised: means over the rows.
    low, high: the 95 % interval of the mean realised return; NaN with fewer than three blocks of times.

        >>> ReturnGroup(2, predicted=0.01, realised=0.02, low=float("nan"), high=float("nan")).rows
        2
    """

    rows: int
    predicted: float
    realised: float
    low: float
    high: float


def by_prediction(
    time_ns: np.ndarray, predicted: np.ndarray, realised: np.ndarray, seed: int, groups: int = TENTHS
) -> list[ReturnGroup]:
    """Cut rows into groups of about equally many, by rising prediction.

    time_ns: int64 (n_rows,), a row's bar.  predicted, realised: float64 (n_rows,); rows where one of them is NaN are
        left out.  seed: of the bootstrap, whose blocks are those of the gains of `next_return.measures`.
    Rows with equal predictions are in one group, so that there can be fewer groups: a single one for a constant
    prediction, none without rows.

        >>> predicted, realised = np.array([0.3, 0.1, 0.4, 0.2]), np.array([3.0, 1.0, 4.0, 2.0])
        >>> found = by_prediction(np.arange(4), predicted, realised, seed=0, groups=2)
        >>> [(group.rows, round(group.predicted, 2), group.realised) for group in found]
        [(2, 0.15, 1.5), (2, 0.35, 3.5)]
    """
    known = np.isfinite(predicted) & np.isfinite(realised)
    time_ns, predicted, realised = time_ns[known], predicted[known], realised[known]
    if not len(predicted):
        return []
    edges = np.unique(np.quantile(predicted, np.arange(1, groups) / groups))
    _, group = np.unique(np.searchsorted(edges, predicted, side="right"), return_inverse=True)
    n_groups = int(group.max()) + 1
    members = group[:, None] == np.arange(n_groups)
    draws = block_bootstrap.draw(time_ns, 1, seed)
    at = np.searchsorted(draws.times, time_ns)
    values = np.zeros((len(draws.times), 2 * n_groups))
    np.add.at(values, at, np.concatenate([members, members * realised[:, None]], axis=1))
    sums = draws.sums(values)
    counts = np.where(sums[:, :n_groups] > 0, sums[:, :n_groups], np.nan)
    drawn = sums[:, n_groups:] / counts
    found = []
    for k in range(n_groups):
        of_group = members[:, k]
        mean = float(realised[of_group].mean())
        low, high = block_bootstrap.interval(mean, drawn[:, k], draws.n_blocks)
        found.append(ReturnGroup(int(of_group.sum()), float(predicted[of_group].mean()), mean, low, high))
    return found
