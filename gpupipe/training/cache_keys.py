"""Cache keys of fitted stages: digests of the rows, the settings, the code and the libraries."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.config import Config
from gpupipe.estimators import registry
from gpupipe.estimators.contract import Estimator, Model
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.runtime.device import Device
from gpupipe.store import fingerprint
from gpupipe.store.content_store import Store, sha256_of

# Modules that run the stages of every estimator. Their own text is part of each key; the modules they import are not.
DRIVERS = (
    "gpupipe.training.groups", "gpupipe.training.fold_tasks", "gpupipe.training.fitted_stage",
    "gpupipe.training.fold_data", "gpupipe.training.cache_keys", "gpupipe.estimators.registry",
    "gpupipe.estimators.columns",
)  # fmt: skip


def blocks_of(estimator: Estimator, targets: Sequence[int], settings: Config) -> list[list[int]]:
    """Positions of the targets in each cached result: one target, or all of them."""
    # Sampled rows depend on the position of a target among the others.
    apart = estimator.by_label and not settings.ml.gradient_sampling
    return [[k] for k in targets] if apart else [list(targets)]


@dataclass(frozen=True)
class Inputs:
    """The content of a training set, as digests.

    rows: digest of X and times over all parts and groups, in order.  targets: one digest for each target.
    fixed: settings that every estimator depends on, by name.

        >>> from gpupipe.workloads.equity import EQUITY
        >>> settings = EQUITY.settings("fast")
        >>> first = Inputs.of({"energy": GroupDigests(("x",), (("a",), ("b",)))}, settings, None)
        >>> second = Inputs.of({"energy": GroupDigests(("x",), (("a",), ("c",)))}, settings, None)
        >>> first.rows == second.rows, [a == b for a, b in zip(first.targets, second.targets)]  # another target
        (True, [True, False])
    """

    rows: str
    targets: tuple[str, ...]
    fixed: dict[str, Any]

    @classmethod
    def of(
        cls,
        by_group: Mapping[str, GroupDigests],
        settings: Config,
        columns: np.ndarray | None,
        spread: Sequence[Sequence[str]] = (),
    ) -> Inputs:
        """Combine the digests of each group, in pooled order.

        columns: see TrainingSet.  spread: the groups of each process, where several processes hold the training set;
            sums depend on them.
        """
        chosen = None if columns is None else columns.tolist()
        rows = sha256_of([chosen, [[group, *digests.rows] for group, digests in by_group.items()]])
        by_target = zip(*(digests.targets for digests in by_group.values()), strict=True)
        targets = tuple(
            sha256_of([[group, *parts] for group, parts in zip(by_group, target_digests, strict=True)])
            for target_digests in by_target
        )
        ml = {f"ml.{name}": value for name, value in dataclasses.asdict(settings.ml).items() if name != "use_rmm"}
        fixed = {
            "training.max_bin": settings.training.max_bin, "training.class_weight": settings.training.class_weight,
            "seed": settings.seed, **ml,
        }  # fmt: skip
        if len(spread) > 1:
            fixed["training.spread"] = [list(groups) for groups in spread]
        return cls(rows, targets, fixed)


@dataclass(frozen=True)
class GroupDigests:
    """Digests of one group's rows in a training set.

    rows: X and times of each part.  targets: for each target, its values in each part.

        >>> from gpupipe.dataset.dataset import Dataset
        >>> from gpupipe.dataset.row_view import RowView
        >>> from gpupipe.targets.target import Target
        >>> target = Target(("up_1", "up_5"), "classes", (1, 5), ("down", "up"))
        >>> dataset = Dataset(
        ...     "energy", np.zeros((4, 1), np.float32), ("rsi_14",), np.zeros((4, 2), np.int8), target, np.arange(4),
        ...     np.arange(1, 5), np.ones(4, bool), np.ones(4, bool), np.array([0, 4]))
        >>> fit, validation = ({"energy": RowView(dataset, np.array(rows))} for rows in ([0, 1], [2, 3]))
        >>> training_set = TrainingSet("final", fit, validation, target, dataset.device, 32, "none", 1, 0)
        >>> digests = GroupDigests.of(training_set, "energy")
        >>> len(digests.rows), [len(parts) for parts in digests.targets]  # two parts; two targets in two parts
        (2, [2, 2])
    """

    rows: tuple[str, ...]
    targets: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, training_set: TrainingSet, group: str, lookback_rows: int = 0) -> GroupDigests:
        """Hash a group's rows."""
        parts = [views[group] for views in (training_set.fit, training_set.validation) if group in views]
        targets = zip(*(rows.target_digests() for rows in parts), strict=True)
        return cls(tuple(rows.digest(lookback_rows) for rows in parts), tuple(targets))


def base_parts(name: str, device: Device) -> dict[str, Any]:
    """Key parts that all stages of an estimator share: its code, its libraries, and the kind of device."""
    roots = [registry.module_of(name)]
    drivers = [fingerprint.module(driver).digest for driver in DRIVERS]
    return {
        "code": sha256_of([drivers, fingerprint.code_hash([*roots, "gpupipe.estimators.columns"])]),
        "libraries": {
            library: version
            for library, version in fingerprint.libraries(roots).items()
            if device.kind == "cuda" or library not in ("cupy", "rmm")
        },
        "device": device.kind,
    }


def save_models(store: Store, models: Sequence[Model | None]) -> list[Any]:
    """Put the models' files into the store; returns their descriptions, as a record holds them."""
    return [
        None
        if model is None
        else {**model.describe(), "files": {suffix: store.put(content) for suffix, content in model.files().items()}}
        for model in models
    ]


def load_models(store: Store, saved: Sequence[Any], boosters: dict[bytes, Any]) -> list[Any]:
    """Load the models of a record. boosters: shared between calls, so that equal files are loaded once."""
    return [
        None
        if description is None
        else registry.load_model(
            {suffix: store.get(digest) for suffix, digest in description["files"].items()}, description, boosters
        )
        for description in saved
    ]


def digest_of_models(saved: Sequence[Any]) -> str:
    """SHA-256 of the models of a record; results that depend on models depend on this content."""
    return sha256_of(list(saved))
