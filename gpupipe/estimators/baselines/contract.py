"""The contract of a baseline: what every model is compared with on the same rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from gpupipe.dataset.dataset import Dataset

# Of the rows of a dataset, by number: predictions float64 (n_rows, n_targets, n_outputs).
Predict = Callable[[Dataset, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class TrainingRows:
    """The training rows of several groups, on the host.

    datasets: of each group.  rows: of each group, the numbers of its training rows.
    """

    datasets: Mapping[str, Dataset]
    rows: Mapping[str, np.ndarray]

    def y(self) -> dict[str, np.ndarray]:
        """Targets of each group, (n, n_targets)."""
        return {group: dataset.device.to_host(dataset.y)[self.rows[group]] for group, dataset in self.datasets.items()}

    def extra(self, name: str) -> dict[str, np.ndarray]:
        """One extra column of each group, (n,)."""
        return {
            group: dataset.device.to_host(dataset.extra[name])[self.rows[group]]
            for group, dataset in self.datasets.items()
        }


class Baseline(ABC):
    """A simple rule that is learned from training rows and predicts without an estimator.

    name: as the summary and reports show it.
    short_name: the heading of its column in console tables; its name if empty.
    reference_table: whether the verdict asks models to beat it (the best of several such tables counts).
    """

    name: str
    short_name: str = ""
    reference_table: bool = False

    @abstractmethod
    def learn(self, rows: TrainingRows) -> Predict:
        """Learn from the training rows of all groups; the predictions of any rows of their datasets."""
