"""Datasets and networks for the tests of sequence models."""

from __future__ import annotations

import numpy as np

from gpupipe.dataset.dataset import Dataset
from gpupipe.targets.target import Target

TARGET = Target(("up",), "classes", (1,), ("down", "up"))


def dataset_of(X, offsets=None, y=None) -> Dataset:
    """A dataset of one symbol, or of several whose rows begin at `offsets`; y is 0 where it is not given."""
    n_rows = len(X)
    rows = np.arange(n_rows)
    return Dataset(
        "energy", X, tuple(f"x{k}" for k in range(X.shape[1])), np.zeros((n_rows, 1), np.int8) if y is None else y,
        TARGET, rows, rows + 1, np.ones(n_rows, bool), np.ones(n_rows, bool),
        np.array([0, n_rows] if offsets is None else offsets),
    )  # fmt: skip
