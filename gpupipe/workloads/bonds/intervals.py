"""Fair spreads with intervals: by what a model's predictions were worth on validation, or by residuals of a fit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gpupipe.evaluation import block_bootstrap
from gpupipe.workloads.bonds.dates import less_mean_of_date
from gpupipe.workloads.bonds.models import scale_of

LEVEL = 0.9  # of the intervals
GROUPS, FEWEST_ROWS = 10, 50  # groups at most, and rows of each at least
LEAST_BLOCK = 2  # dates of a block, as in the evaluation


class Intervals(ABC):
    """How far a bond's fair spread is known."""

    kind: ClassVar[str]

    @abstractmethod
    def ends(
        self, change: np.ndarray, spread: np.ndarray, rating: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Fair spread, low and high end of its 90 % interval, float64 (n,), percent; NaN where they are not known.

        change, spread: float (n,), percent, the expected change, and the spread that is quoted.  rating: int64 (n,).
        """

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """In the types of JSON, with its kind; None for numbers that are not known."""

    @classmethod
    @abstractmethod
    def of_record(cls, record: Mapping[str, Any]) -> Intervals:
        """That of a record of its kind."""


@dataclass(frozen=True)
class Calibration(Intervals):
    """Of the mean move of bonds that a model predicted alike against the others of their date, on validation.

    Groups of equally many validation rows by rising prediction, and how their spreads moved against the others'.

    edges: float64 (n_groups - 1,), rising, predicted moves at which the next group begins.
    mean, low, high: float64 (n_groups,), of the moves that happened; low and high are the ends of the 90 % interval of
        the mean, NaN where the group's rows are of too few dates. All moves are in units of `scale_of` the spread, less
        the mean of their date.

        >>> edges, mean = np.array([0.0]), np.array([-0.02, 0.02])
        >>> found = Calibration(edges, mean, mean - 0.01, mean + 0.01)
        >>> spread = np.array([1.0, 1.0, 2.0])
        >>> found.ends(np.array([-0.5, 0.1, 0.5]), spread, np.zeros(3, np.int64))[0].round(3).tolist()
        [0.98, 1.02, 2.04]
    """

    kind: ClassVar = "calibration"

    edges: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(
        cls, predicted: np.ndarray, happened: np.ndarray, date: np.ndarray, horizon: int, seed: int
    ) -> Calibration:  # fmt: skip
        """From validation rows. predicted, happened: float (n,), moves.  date: int64 (n,).

        horizon: dates from a row to its target, at most.
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
        draws = block_bootstrap.draw(date, horizon, seed, LEAST_BLOCK)
        at, n_groups = np.searchsorted(draws.times, date), len(edges) + 1
        sums = np.zeros((2, len(draws.times), n_groups))
        np.add.at(sums[0], (at, group), happened)
        np.add.at(sums[1], (at, group), 1.0)
        total, count = draws.sums(sums[0]), draws.sums(sums[1])
        drawn = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
        mean = sums[0].sum(axis=0) / sums[1].sum(axis=0)
        blocks = (sums[1] > 0).sum(axis=0) / draws.block  # of the group's own dates
        ends = [block_bootstrap.interval(float(m), drawn[:, k], blocks[k], LEVEL) for k, m in enumerate(mean)]
        low, high = np.array(ends).T
        return cls(edges, mean, low, high)

    def ends(
        self, change: np.ndarray, spread: np.ndarray, rating: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Intervals`. All rows are of one date."""
        scale = scale_of(spread)
        group = self.group(less_mean_of_date(change / scale, np.zeros(len(change), np.int64)))
        fair, low, high = (spread + scale * move[group] for move in (self.mean, self.low, self.high))
        return fair, low, high

    def group(self, predicted: np.ndarray) -> np.ndarray:
        """int64 (n,): the group of each predicted move."""
        return np.searchsorted(self.edges, predicted, side="right")

    def record(self) -> dict[str, Any]:
        """See `Intervals`."""
        arrays = {name: getattr(self, name).tolist() for name in ("edges", "mean", "low", "high")}
        known = {name: [v if np.isfinite(v) else None for v in values] for name, values in arrays.items()}
        return {"kind": self.kind, "level": LEVEL, **known}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Calibration:
        """See `Intervals`."""
        return cls(*(np.array(record[name], np.float64) for name in ("edges", "mean", "low", "high")))


@dataclass(frozen=True)
class Residuals(Intervals):
    """Of what a fit leaves of quotes.

    by_rating: for each rating the quantiles of residuals, quoted less fitted, percent, that hold 90 % of them. -1
        stands for all ratings: those with fewer than `FEWEST_ROWS` quotes take it.

        >>> found = Residuals.of(np.linspace(-1, 1, 201), np.zeros(201, np.int64))
        >>> [end.round(2).tolist() for end in found.ends(np.array([-0.5]), np.array([2.0]), np.array([3]))]
        [[1.5], [0.6], [2.4]]
    """

    by_rating: Mapping[int, tuple[float, float]]
    kind: ClassVar = "residuals"

    @classmethod
    def of(cls, residual: np.ndarray, rating: np.ndarray) -> Residuals:
        """residual: float (n,), NaN is left out.  rating: int64 (n,)."""
        tail = (1 - LEVEL) / 2

        def ends(values: np.ndarray) -> tuple[float, float]:
            low, high = np.quantile(values, [tail, 1 - tail])
            return float(low), float(high)

        known = np.isfinite(residual)
        found = {-1: ends(residual[known]) if known.any() else (float("nan"), float("nan"))}
        for k, count in zip(*np.unique(rating[known], return_counts=True), strict=True):
            if count >= FEWEST_ROWS:
                found[int(k)] = ends(residual[known & (rating == k)])
        return cls(found)

    def ends(
        self, change: np.ndarray, spread: np.ndarray, rating: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Intervals`."""
        both = np.array([self.by_rating.get(int(k), self.by_rating[-1]) for k in rating]).reshape(-1, 2)
        fair = spread + change
        return fair, fair + both[:, 0], fair + both[:, 1]

    def record(self) -> dict[str, Any]:
        """See `Intervals`."""
        known = {str(k): [v if np.isfinite(v) else None for v in ends] for k, ends in self.by_rating.items()}
        return {"kind": self.kind, "level": LEVEL, "by_rating": known}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Residuals:
        """See `Intervals`."""
        ends = {int(k): np.array(both, np.float64).tolist() for k, both in record["by_rating"].items()}
        return cls({k: (low, high) for k, (low, high) in ends.items()})


def read(record: Mapping[str, Any]) -> Intervals:
    """The intervals of a record, of whichever kind."""
    return {cls.kind: cls for cls in (Calibration, Residuals)}[record["kind"]].of_record(record)
