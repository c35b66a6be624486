"""Predictions of a walk-forward fold for its test window, as the out-of-sample store keeps them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpupipe.artifacts.out_of_sample_store import Said
from gpupipe.cross_validation.splits import Boundaries
from gpupipe.dataset.dataset import Dataset
from gpupipe.estimators import registry
from gpupipe.evaluation import metrics
from gpupipe.targets.classes import BUY, N_CLASSES, SELL
from gpupipe.training.cache_keys import META
from gpupipe.training.groups import Trained, Work, predict_meta


def of_fold(work: Work, at: Boundaries, trained: Sequence[Trained]) -> list[Said]:
    """What the models of a fold say of its test window; the rows without known labels are predicted for it."""
    to_host = work.device.to_host
    learned = max(
        int(to_host(work.datasets[one.sector].end_time_ns)[rows].max())
        for one in trained
        for rows in (work.splits[one.sector].train, work.splits[one.sector].validation)
    )
    found = []
    for one in trained:
        dataset, cut = work.datasets[one.sector], work.splits[one.sector]
        time, y = to_host(dataset.time_ns), to_host(dataset.y)
        inside = np.zeros(len(time), bool)
        for block in at.test:
            inside |= (time >= block.start) & (time < block.stop)
        rows = np.flatnonzero(inside & to_host(dataset.warm))
        unknown = np.setdiff1d(rows, cut.test, assume_unique=True)
        later = _predict(work, one, dataset, unknown)
        place, values, cutoffs = np.searchsorted(rows, cut.test), [], []
        keys = [(k, family) for k in _by_horizon(dataset, one.labels) for family in one.models]
        for k, family in keys:
            both = np.empty((len(rows), 2), np.float32)
            both[place] = one.test[family][:, k][:, [SELL, BUY]]
            both[np.searchsorted(rows, unknown)] = later[family][:, k][:, [SELL, BUY]]
            chosen = metrics.call_cutoffs(
                one.validation[family][:, k], y[cut.validation, dataset.label_names.index(one.labels[k])]
            )
            values.append(both)
            cutoffs.append((chosen["buy"], chosen["sell"]))
        of_model = tuple((family, *_label(dataset, one.labels[k])) for k, family in keys)
        found.append(Said(one.sector, rows, of_model, np.stack(values, axis=1), tuple(cutoffs), learned))
    return found


def _predict(work: Work, one: Trained, dataset: Dataset, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Of each family float32 (n_rows, n_labels, 3), on the host, as `training` predicts the split's own rows."""
    from threadpoolctl import threadpool_limits

    if not len(rows):
        return {family: np.empty((0, len(one.labels), N_CLASSES), np.float32) for family in one.models}
    X = dataset.X[work.device.asarray(rows)]
    said: dict[str, np.ndarray] = {}
    with threadpool_limits(1, "blas"):
        for family, fitted in one.models.items():
            if family == META:
                said[family] = predict_meta(fitted, said, work.device)
            else:
                said[family] = work.device.to_host(registry.family(family).predict(fitted, X, work.device))
    return said


def _label(dataset: Dataset, label: str) -> tuple[int, float]:
    k = dataset.label_names.index(label)
    return int(dataset.horizon_of_label[k]), float(dataset.threshold_of_label[k])


def _by_horizon(dataset: Dataset, labels: Sequence[str]) -> list[int]:
    return sorted(range(len(labels)), key=lambda k: _label(dataset, labels[k]))
