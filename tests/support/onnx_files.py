"""ONNX files of single models, and what is in them."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gpupipe.artifacts.load import Models
from gpupipe.artifacts.onnx import checking, export
from gpupipe.estimators import registry
from gpupipe.estimators.boosting.hosted import HostedModel
from gpupipe.estimators.ensemble import TreeReader
from gpupipe.workloads.equity import recipe

SECTOR = "é ✓"


def exported(
    folder: pathlib.Path,
    name: str,
    models: Sequence[Any],
    n_features: int = 6,
    others: Mapping[str, Any] | None = None,
) -> list[bytes]:
    """The ONNX file of each label's model. others: the models that a meta-learner needs, by name."""
    target = recipe.target_of(tuple(range(1, len(models) + 1)), (0.02,))
    by_label = {label: {**(others or {}), name: model} for label, model in zip(target.names, models, strict=True)}
    cutoffs = {(SECTOR, label, family): (0.5, 0.5) for label, by_family in by_label.items() for family in by_family}
    names = tuple(f"x{k}" for k in range(n_features))
    loaded = Models(folder, {}, names, "", target, {SECTOR: by_label}, {}, {"run_key": ""}, {}, cutoffs)
    done = export.export(loaded, folder, export.Wanted(families=[name]), {})
    assert not done.failed and len(done.files) == len(models)
    return [(folder / path).read_bytes() for path in done.files]


def hard_rows(models: Iterable[tuple[str, Any]], n_features: int = 6) -> np.ndarray:
    """The rows that an export checks models on, which are given with the names of their estimators."""
    return checking.check_rows(models, n_features, TreeReader())


def trees_of(content: bytes) -> list[dict[str, np.ndarray]]:
    """The attributes of each tree ensemble of an ONNX file."""
    import onnx

    nodes = [node for node in onnx.load_from_string(content).graph.node if node.op_type == "TreeEnsembleRegressor"]
    read = onnx.helper.get_attribute_value
    return [{one.name: np.array(read(one)) for one in node.attribute} for node in nodes]


def splits_of(ensemble: Mapping[str, np.ndarray]) -> np.ndarray:
    """bool, for each node of `trees_of`: whether it is a split and no leaf."""
    return ensemble["nodes_modes"] != b"LEAF"


def hosted_model(name: str, booster: Any) -> HostedModel:
    """The model of a booster of this library, with nothing learned beside it."""
    ones = np.ones(3, np.float32)
    return HostedModel(registry.estimator(name), booster, b"", 1, np.log(ones / 3), ones, "sector")
