"""The baselines to beat: class shares in 20 bins of one column (NATR 14, the last return) of the training part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpupipe.targets.classes import N_CLASSES

N_BINS = 20
PSEUDO_ROWS = 10.0


@dataclass(frozen=True)
class ShareTable:
    """edges: float32 (19,), quantiles of the column.  shares: float64 (n_labels, 20, 3)."""

    edges: np.ndarray
    shares: np.ndarray

    def predict(self, column: np.ndarray) -> np.ndarray:
        """float64 (n_rows, n_labels, 3), of the column, float32 (n_rows,); NaN falls into the last bin."""
        return self.shares[:, np.searchsorted(self.edges, column, side="right")].transpose(1, 0, 2)


def fit(column: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> ShareTable:
    """Learn from blocks of rows: the column, float32 (n,), y int8 (n, n_labels), -1 left out.

    Each bin has ten pseudo-rows with the overall shares (which have half a row of each class), so that a class
    not seen in a bin is not called impossible.
    """
    values, labels = np.concatenate(column), np.concatenate(y).astype(np.int64)
    edges = np.quantile(values[~np.isnan(values)], np.arange(1, N_BINS) / N_BINS).astype(np.float32)
    row_bin = np.searchsorted(edges, values, side="right")
    shares = np.empty((labels.shape[1], N_BINS, N_CLASSES))
    for k in range(labels.shape[1]):
        known = labels[:, k] >= 0
        cell = row_bin[known] * N_CLASSES + labels[known, k]
        counts = np.bincount(cell, minlength=N_BINS * N_CLASSES).reshape(N_BINS, N_CLASSES)
        overall = counts.sum(axis=0) + 0.5
        smoothed = counts + PSEUDO_ROWS * overall / overall.sum()
        shares[k] = smoothed / smoothed.sum(axis=1, keepdims=True)
    return ShareTable(edges, shares)
