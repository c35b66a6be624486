"""What a fitted stage depends on: the rows as digests, the settings, the code and the libraries."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.config import Config
from gpupipe.estimators import registry
from gpupipe.estimators.contract import Estimator
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.runtime.device import Device
from gpupipe.store import fingerprint
from gpupipe.store.content_store import Store, dump_json, sha256

# What runs every stage, whatever its estimator: these files count, and what they import does not.
DRIVERS = (
    "gpupipe.training.groups", "gpupipe.training.fold_tasks", "gpupipe.training.fold_data",
    "gpupipe.training.cache_keys", "gpupipe.estimators.registry", "gpupipe.estimators.columns",
)  # fmt: skip


def blocks_of(estimator: Estimator, targets: Sequence[int], settings: Config) -> list[list[int]]:
    """Positions of the targets that are kept together: each alone, or all."""
    # Drawn rows depend on a target's place among the others.
    apart = estimator.by_label and not settings.ml.gradient_sampling
    return [[k] for k in targets] if apart else [list(targets)]


@dataclass(frozen=True)
class Inputs:
    """What a training set holds, as digests.

    rows: of X and times, of all parts and groups in order.  targets: of each target.
    fixed: settings that every estimator depends on, by name.
    """

    rows: str
    targets: tuple[str, ...]
    fixed: dict[str, Any]

    @classmethod
    def of(
        cls,
        held: Mapping[str, GroupDigests],
        settings: Config,
        columns: np.ndarray | None,
        spread: Sequence[Sequence[str]] = (),
    ) -> Inputs:
        """Of a training set, by the digests of each group, in pooled order.

        columns: see TrainingSet.  spread: the groups of each process, where several hold the set: sums depend on it.
        """
        chosen = None if columns is None else columns.tolist()
        rows = sha256(dump_json([chosen, [[group, *digests.rows] for group, digests in held.items()]]))
        by_target = zip(*(digests.targets for digests in held.values()), strict=True)
        targets = tuple(
            sha256(dump_json([[group, *parts] for group, parts in zip(held, of_target, strict=True)]))
            for of_target in by_target
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
    """The rows of one group in a training set, as digests of its parts: of X and times, and of each target by part."""

    rows: tuple[str, ...]
    targets: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, training_set: TrainingSet, group: str, lookback_rows: int = 0) -> GroupDigests:
        """Of a training set's arrays, which are copied to the host for it."""
        parts = [views[group] for views in (training_set.fit, training_set.validation) if group in views]
        targets = zip(*(rows.target_digests() for rows in parts), strict=True)
        return cls(tuple(rows.digest(lookback_rows) for rows in parts), tuple(targets))


def base_parts(name: str, device: Device) -> dict[str, Any]:
    """What every stage of an estimator depends on: its code, the libraries that it runs, the kind of device."""
    roots = [registry.module_of(name)]
    drivers = [fingerprint.module(driver).digest for driver in DRIVERS]
    return {
        "code": sha256(dump_json([drivers, fingerprint.code_hash([*roots, "gpupipe.estimators.columns"])])),
        "libraries": {
            library: version
            for library, version in fingerprint.libraries(roots).items()
            if device.kind == "cuda" or library not in ("cupy", "rmm")
        },
        "device": device.kind,
    }


def save_models(store: Store, models: Sequence[Any]) -> list[Any]:
    """Models as a record holds them; their files are kept as contents of the store."""
    return [
        None
        if model is None
        else {**model.describe(), "files": {suffix: store.put(content) for suffix, content in model.files().items()}}
        for model in models
    ]


def load_models(store: Store, saved: Sequence[Any], boosters: dict[bytes, Any]) -> list[Any]:
    """Models of a record again; `boosters` is shared between calls, so that equal files are loaded once."""
    return [
        None
        if description is None
        else registry.load_model(
            {suffix: store.get(digest) for suffix, digest in description["files"].items()}, description, boosters
        )
        for description in saved
    ]


def digest_of_models(saved: Sequence[Any]) -> str:
    """SHA-256 of models as a record holds them: what depends on them does so by their content."""
    return sha256(dump_json(list(saved)))
