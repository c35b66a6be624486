"""A dataset of a matrix, for tests that read windows."""

from __future__ import annotations

import numpy as np

from gpupipe.dataset.dataset import Dataset
from gpupipe.runtime.device import pick
from gpupipe.targets.target import Target

CPU = pick("cpu")
TARGET = Target(("up",), "classes", (1,), ("down", "up"))


def dataset_of(X, offsets=None, device=CPU) -> Dataset:
    """A dataset of one symbol, or of several whose rows begin at `offsets`."""
    n_rows = len(X)
    rows, marks = np.arange(n_rows), np.ones(n_rows, bool)
    offsets = np.array([0, n_rows] if offsets is None else offsets)
    arrays = (X, np.zeros((n_rows, 1), np.int8), rows, rows + 1, marks, marks, offsets)
    X, y, *others = (device.asarray(array) for array in arrays)
    return Dataset("energy", X, tuple(f"x{k}" for k in range(X.shape[1])), y, TARGET, *others)
