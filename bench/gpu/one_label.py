"""One of our estimators on one label of made rows, as the job fits it on the pool."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpupipe.dataset.dataset import Dataset
from gpupipe.dataset.row_view import RowView
from gpupipe.estimators import columns, registry
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.runtime.device import Device
from gpupipe.targets.target import Target
from gpupipe.workloads import equity


def fitted(
    family: str, X: np.ndarray, y: np.ndarray, n_fit: int, device: Device, settings: Sequence[str] = ()
) -> tuple[float, np.ndarray]:
    """Seconds of a second fit on the first n_fit rows, and the probabilities (n, 3) of the others.

    settings: of the job, beyond those of the preset balanced.

    The last eighth of the fitted rows chooses what the family chooses on validation.
    """
    n_rows, usable = len(X), np.ones(len(X), bool)
    rows = np.arange(n_rows)
    dataset = Dataset(
        "all", device.asarray(X), tuple(f"x{k}" for k in range(X.shape[1])), device.asarray(y.astype(np.int8)[:, None]),
        Target(("label",), "classes", (1,), ("sell", "hold", "buy")), device.asarray(rows), device.asarray(rows + 1),
        device.asarray(usable), device.asarray(usable), device.asarray(np.array([0, n_rows])),
    )  # fmt: skip
    config = equity.make("balanced", settings=settings)
    cut = n_fit * 7 // 8
    estimator = registry.estimator(family)

    def fit() -> tuple[float, list[Any]]:
        training_set = TrainingSet(
            "final", {"all": RowView(dataset, rows[:cut])}, {"all": RowView(dataset, rows[cut:n_fit])}, dataset.target,
            device, config.training.max_bin, "none", threads=1, seed=1,
        )  # fmt: skip
        device.sync()
        began = time.perf_counter()
        models = columns.fit_pool(estimator, training_set, registry.readable(config, family), None)
        device.sync()
        return time.perf_counter() - began, models

    fit()
    seconds, models = fit()
    probability = columns.predict(estimator, models, RowView(dataset, rows[n_fit:]).features)
    return seconds, device.to_host(probability)[:, 0]
