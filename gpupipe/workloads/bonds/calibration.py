"""What a model's predictions were worth on validation: the mean move of bonds that it predicted alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.evaluation import block_bootstrap

LEVEL = 0.9  # of the intervals
GROUPS, FEWEST_ROWS = 10, 50  # groups at most, and rows of each at least
LEAST_BLOCK = 2  # dates of a block, as in the evaluation


@dataclass(frozen=True)
class Calibration:
    """Groups of equally many validation rows by rising prediction, and how their spreads moved against the others'.

    edges: float64 (n_groups - 1,), rising, relative moves at which the next group begins.
    mean, low, high: float64 (n_groups,), of the moves that happened, in units of `scale_of` the spread, less the mean
        of their date; low and high are the ends of the 90 % interval of the mean, NaN where there are too few dates.

        >>> edges, mean = np.array([0.0]), np.array([-0.02, 0.02])
        >>> found = Calibration(edges, mean, mean - 0.01, mean + 0.01)
        >>> found.group(np.array([-0.5, 0.0, 0.5])).tolist(), Calibration.read(found.record()).mean.tolist()
        ([0, 1, 1], [-0.02, 0.02])
    """

    edges: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, predicted: np.ndarray, happened: np.ndarray, date: np.ndarray, seed: int) -> Calibration:
        """From validation rows. predicted, happened: float (n,), relative moves.  date: int64 (n,).

        Without rows there is one group, whose mean and interval are not known.
        """
        known = np.isfinite(predicted) & np.isfinite(happened)
        predicted, happened, date = (column[known] for column in (predicted, happened, date))
        if not len(predicted):
            return cls(np.zeros(0), *(np.full(1, np.nan) for _ in range(3)))
        n_groups = int(np.clip(len(predicted) // FEWEST_ROWS, 1, GROUPS))
        # Of equal predictions all are in one group, so that there may be fewer groups.
        edges = np.unique(np.quantile(predicted, np.linspace(0, 1, n_groups + 1)[1:-1]))
        edges = edges[edges > predicted.min()]
        group = np.searchsorted(edges, predicted, side="right")
        draws = block_bootstrap.draw(date, 1, seed, LEAST_BLOCK)
        at, n_groups = np.searchsorted(draws.times, date), len(edges) + 1
        sums = np.zeros((2, len(draws.times), n_groups))
        np.add.at(sums[0], (at, group), happened)
        np.add.at(sums[1], (at, group), 1.0)
        total, count = draws.sums(sums[0]), draws.sums(sums[1])
        drawn = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
        mean = sums[0].sum(axis=0) / sums[1].sum(axis=0)
        ends = [block_bootstrap.interval(float(m), drawn[:, k], draws.n_blocks, LEVEL) for k, m in enumerate(mean)]
        low, high = np.array(ends).T
        return cls(edges, mean, low, high)

    def group(self, predicted: np.ndarray) -> np.ndarray:
        """int64 (n,): the group of each prediction, a relative move."""
        return np.searchsorted(self.edges, predicted, side="right")

    def record(self) -> dict[str, Any]:
        """In the types of JSON; None for what is not known."""
        arrays = {name: getattr(self, name).tolist() for name in ("edges", "mean", "low", "high")}
        return {"level": LEVEL} | {
            name: [value if np.isfinite(value) else None for value in values] for name, values in arrays.items()
        }

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Calibration:
        """That of a record."""
        return cls(*(np.array(record[name], np.float64) for name in ("edges", "mean", "low", "high")))
