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

        >>> from gpupipe.targets.target import Target
        >>> rows, all_true = np.arange(3), np.ones(3, bool)
        >>> dataset = Dataset(
        ...     "energy", np.zeros((3, 1), np.float32), ("x",), np.int8([[0], [1], [1]]),
        ...     Target(("up",), "classes", (1,), ("down", "up")), rows, rows + 1, all_true, all_true, np.array([0, 3]),
        ...     extra={"natr": np.float32([1, 2, 3])})
        >>> training_rows = TrainingRows({"energy": dataset}, {"energy": np.array([0, 2])})
        >>> training_rows.y()["energy"].tolist(), training_rows.extra("natr")["energy"].tolist()
        ([[0], [1]], [1.0, 3.0])
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

        >>> from gpupipe.workloads.equity import EQUITY
        >>> [(baseline.name, baseline.reference_table) for baseline in EQUITY.baselines[:2]]
        [('prior_all', False), ('volatility_table_sector', True)]
    """

    name: str
    short_name: str = ""
    reference_table: bool = False

    @abstractmethod
    def learn(self, rows: TrainingRows) -> Predict:
        """Learn from the training rows of all groups; the predictions of any rows of their datasets."""
