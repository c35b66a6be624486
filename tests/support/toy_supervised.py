"""A supervised workload with a value target: the next price of quotes, cross-fitted by the toy estimator."""

from __future__ import annotations

import pathlib

import numpy as np

from gpupipe.config import Catalogue, Config, Section
from gpupipe.data.panel import Panel
from gpupipe.dataset.dataset import NEVER, Dataset
from gpupipe.features.matrix import Features
from gpupipe.pipeline.supervised import SupervisedWorkload
from tests.support.toy_workload.estimator import LineSettings
from tests.support.toy_workload.steps import COLUMNS, TARGET


def features_of(panel: Panel, settings: Config, cache: pathlib.Path | None) -> Features:
    values = np.stack([panel.columns[name] for name in COLUMNS], axis=1).astype(np.float32)
    return Features(values, COLUMNS, COLUMNS, panel)


def dataset_of(panel: Panel, features: Features, labels: None, group: str, settings: Config) -> Dataset:
    price = panel.columns["price"].astype(np.float32)
    y = np.append(price[1:], np.float32(np.nan))[:, None]
    return Dataset(
        group=group,
        X=features.values,
        names=features.names,
        y=y,
        target=TARGET,
        time_ns=panel.time_ns,
        end_time_ns=np.append(panel.time_ns[1:], NEVER),
        warm=np.ones(panel.n_rows, bool),
        usable=~np.isnan(y[:, 0]),
        offsets=panel.offsets,
        extra={"last_value": price},
    )


def outline(panel: Panel, group: str, settings: Config) -> Dataset:
    nothing = Features(np.empty((panel.n_rows, 0), np.float32), (), (), panel)
    return dataset_of(panel, nothing, None, group, settings)


TOY_SUPERVISED = SupervisedWorkload(
    name="toy supervised",
    place="tests.support.toy_supervised:TOY_SUPERVISED",
    catalogue=lambda: Catalogue({"toy_line": Section(LineSettings)}, ("toy_line",), ("toy_line",)),
    target=lambda settings: TARGET,
    features=features_of,
    dataset=dataset_of,
    outline=outline,
)
