"""Columns in standard deviations from their mean in training, for families that weigh columns against each other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gpupipe.workloads.bonds.families.contract import Imputer

FARTHEST = np.float32(8.0)  # standard deviations to which inputs are clipped


def scales_of(X: np.ndarray) -> dict[str, np.ndarray]:
    """What standardises: medians for missing values, and mean and scale of columns, whose scale is never 0."""
    imputer = Imputer.of(X)
    filled = imputer(X).astype(np.float64)
    scale = filled.std(axis=0)
    return {
        "median": imputer.median,
        "mean": filled.mean(axis=0),
        "scale": np.where(scale > 0, scale, 1.0),
    }


def standardised(X: np.ndarray, scales: Mapping[str, np.ndarray]) -> np.ndarray:
    """float32 like X: without missing values, clipped to `FARTHEST`.  scales: as `scales_of`."""
    filled = Imputer(scales["median"])(X)
    return np.clip((filled - scales["mean"]) / scales["scale"], -FARTHEST, FARTHEST).astype(np.float32)
