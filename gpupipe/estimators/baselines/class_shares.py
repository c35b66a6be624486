"""Class shares as a baseline: plain, of all groups together, or in bins of one column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpupipe.dataset.dataset import Dataset
from gpupipe.estimators.baselines.contract import Baseline, Predict, TrainingRows

N_BINS = 20
PSEUDO_ROWS = 10.0


def class_shares(y: np.ndarray, n_classes: int) -> np.ndarray:
    """float64 (n_targets, n_classes), of y int8 (n_rows, n_targets), half a row of each class added; -1 left out."""
    counts = np.stack([np.bincount(column[column >= 0], minlength=n_classes) for column in y.T]) + 0.5
    return counts / counts.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class ShareTable:
    """Class shares in bins of one column. edges: float32 (19,), its quantiles.  shares: (n_targets, 20, n_classes).

    >>> natr = np.arange(40, dtype=np.float32)
    >>> table = fit_table([natr], [np.int8(natr >= 20)[:, None]], n_classes=2)
    >>> table.edges.shape, table.shares.shape, table.predict(np.float32([1, 30]))[:, 0].round(2).tolist()
    ((19,), (1, 20, 2), [[0.58, 0.42], [0.42, 0.58]])
    """

    edges: np.ndarray
    shares: np.ndarray

    def predict(self, column: np.ndarray) -> np.ndarray:
        """float64 (n_rows, n_targets, n_classes), of the column, float32 (n_rows,); NaN falls into the last bin."""
        return self.shares[:, np.searchsorted(self.edges, column, side="right")].transpose(1, 0, 2)


def fit_table(column: Sequence[np.ndarray], y: Sequence[np.ndarray], n_classes: int) -> ShareTable:
    """Learn from blocks of rows: the column, float32 (n,), y int8 (n, n_targets), -1 left out.

    Each bin has ten pseudo-rows with the overall shares (which have half a row of each class), so that a class
    not seen in a bin is not called impossible. Where the column is NaN in all rows, every row has the overall shares.
    """
    values, labels = np.concatenate(column), np.concatenate(y).astype(np.int64)
    known_values = values[~np.isnan(values)]
    if not known_values.size:
        values = known_values = np.zeros_like(values)
    edges = np.quantile(known_values, np.arange(1, N_BINS) / N_BINS).astype(np.float32)
    row_bin = np.searchsorted(edges, values, side="right")
    shares = np.empty((labels.shape[1], N_BINS, n_classes))
    for k in range(labels.shape[1]):
        known = labels[:, k] >= 0
        cell = row_bin[known] * n_classes + labels[known, k]
        counts = np.bincount(cell, minlength=N_BINS * n_classes).reshape(N_BINS, n_classes)
        overall = counts.sum(axis=0) + 0.5
        smoothed = counts + PSEUDO_ROWS * overall / overall.sum()
        shares[k] = smoothed / smoothed.sum(axis=1, keepdims=True)
    return ShareTable(edges, shares)


@dataclass(frozen=True)
class PooledPrior(Baseline):
    """Class shares of the training rows of all groups together.

    >>> from gpupipe.targets.target import Target
    >>> all_true, rows = np.ones(4, bool), np.arange(4)
    >>> dataset = Dataset(
    ...     "energy", np.zeros((4, 1), np.float32), ("x",), np.int8([[0], [1], [1], [1]]),
    ...     Target(("up",), "classes", (1,), ("down", "up")), rows, rows + 1, all_true, all_true, np.array([0, 4]))
    >>> predict = PooledPrior().learn(TrainingRows({"energy": dataset}, {"energy": rows}))
    >>> predict(dataset, np.array([0])).tolist()
    [[[0.3, 0.7]]]
    """

    name: str = "prior_all"
    short_name: str = "prior all"

    def learn(self, rows: TrainingRows) -> Predict:
        """See Baseline."""
        n_classes = next(iter(rows.datasets.values())).target.n_classes
        prior = class_shares(np.concatenate(list(rows.y().values())), n_classes)
        return lambda dataset, at: np.broadcast_to(prior, (len(at), *prior.shape))


@dataclass(frozen=True)
class TableOfColumn(Baseline):
    """Class shares in 20 bins of one extra column of the dataset, of all groups together or of each alone.

    column: name of the extra column.  pooled: whether one table serves all groups.

        >>> from gpupipe.workloads.equity import EQUITY
        >>> [(table.name, table.column, table.pooled) for table in EQUITY.baselines[1:3]]
        [('volatility_table_sector', 'natr', False), ('volatility_table_all', 'natr', True)]
    """

    name: str
    column: str
    pooled: bool
    reference_table: bool = False
    short_name: str = ""

    def learn(self, rows: TrainingRows) -> Predict:
        """See Baseline."""
        n_classes = next(iter(rows.datasets.values())).target.n_classes
        values, y = rows.extra(self.column), rows.y()
        if self.pooled:
            table = fit_table(list(values.values()), list(y.values()), n_classes)
            tables = dict.fromkeys(values, table)
        else:
            tables = {group: fit_table([values[group]], [y[group]], n_classes) for group in values}

        def predict(dataset: Dataset, at: np.ndarray) -> np.ndarray:
            column = dataset.device.to_host(dataset.extra[self.column])[at]
            return tables[dataset.group].predict(column)

        return predict
