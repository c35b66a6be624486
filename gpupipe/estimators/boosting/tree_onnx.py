"""Tree models as ONNX graphs, and XGBoost's boosters in the form that they are written from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpupipe.estimators.boosting.tree_model import N_OUTPUTS, SMALLEST_PROBABILITY, TreeModel, learner_of
from gpupipe.estimators.ensemble import Ensemble, TreeReader
from gpupipe.estimators.onnx_graph import CriticalValues, OnnxGraph, softmax, zeros
from gpupipe.estimators.three_classes import CLASS_COUNT, LOWER, MIDDLE, UPPER
from gpupipe.runtime.errors import UserError

CLASS_MARGINS = np.zeros((N_OUTPUTS, CLASS_COUNT), np.float32)  # activity u, direction d -> u - d, 0, u + d
CLASS_MARGINS[:, LOWER], CLASS_MARGINS[:, UPPER] = (1, -1), (1, 1)
LEFT_OVER = np.zeros((CLASS_COUNT, CLASS_COUNT), np.float32)  # the middle class is what the outer ones leave of 1
LEFT_OVER[LOWER, (LOWER, MIDDLE)] = LEFT_OVER[UPPER, (UPPER, MIDDLE)] = 1, -1


def probabilities(graph: OnnxGraph, model: TreeModel) -> str:
    """The name of a tree model's probabilities."""
    total = margin(graph, stages(model, graph.reader), model.bias, CLASS_MARGINS)
    if model.link == "softmax":
        return softmax(graph, total, model.class_weight)
    shares = graph.add("MatMul", [total, LEFT_OVER])
    shares = graph.add("Add", [shares, np.eye(CLASS_COUNT, dtype=np.float32)[[MIDDLE]]])
    shares = graph.add("Max", [shares, np.float32(SMALLEST_PROBABILITY)])
    shares = graph.add("Div", [shares, model.class_weight[None]])
    return graph.add("Div", [shares, graph.add("ReduceSum", [shares, np.array([1])], keepdims=1)])


def margin(graph: OnnxGraph, ensembles: Sequence[Ensemble], bias: np.ndarray, outputs: np.ndarray | None = None) -> str:
    """The name of bias + the sum of the ensembles, (n_rows, n_classes).

    outputs: float32 (n_outputs, n_classes), by which an ensemble's outputs are multiplied; None leaves them alone.
    """
    total: str | None = None
    for ensemble in ensembles:
        if ensemble.n_trees == 0:
            continue
        grown = graph.trees(ensemble)
        if outputs is not None:
            grown = graph.add("MatMul", [grown, outputs])
        total = grown if total is None else graph.add("Add", [total, grown])
    return graph.add("Add", [zeros(graph, len(bias)) if total is None else total, bias[None]])


def critical_values(ensembles: Sequence[Ensemble]) -> CriticalValues:
    """All splits of the ensembles."""
    return CriticalValues(splits=[ensemble.splits_of() for ensemble in ensembles])


def stages(model: TreeModel, reader: TreeReader) -> list[Ensemble]:
    """An ensemble for each stage of a model: its rounds, and the two outputs of the model's target."""
    ensembles = []
    for stage in model.stages:
        ensemble, rounds = reader.read(stage.booster, ensemble_of)
        ensembles.append(ensemble.part(rounds[stage.rounds], slice(stage.column, stage.column + N_OUTPUTS)))
    return ensembles


def ensemble_of(booster: Any) -> tuple[Ensemble, np.ndarray]:
    """All trees of a booster with vector leaves, and the number of its first tree for each round, (n_rounds + 1,).

    XGBoost compares float32 values, x < split.  Raises UserError for a booster of another kind.
    Source: XGBoost's JSON model (doc/model.schema), of 3.2 to 3.4.
    """
    learner = learner_of(booster)
    model = learner["gradient_booster"]["model"]
    n_outputs = int(learner["learner_model_param"]["num_target"])
    columns: dict[str, list[np.ndarray]] = {}
    n_leaves, counts = 0, [0]
    for tree in model["trees"]:
        about = tree["tree_param"]
        if int(about["size_leaf_vector"]) != n_outputs or n_outputs < 2 or int(about["num_deleted"]):
            raise UserError("leaves that hold no vectors cannot be exported: train again with this gpupipe")
        left, right = (np.array(tree[name], dtype=np.int64) for name in ("left_children", "right_children"))
        is_leaf = left < 0
        values = np.array(tree["leaf_weights"], dtype=np.float32).reshape(-1, n_outputs)
        for name, values_of_tree in (
            ("feature", np.array(tree["split_indices"], dtype=np.int64)),
            ("split", np.array(tree["split_conditions"], dtype=np.float32)),
            ("left", np.where(is_leaf, 0, left)),
            ("right", np.where(is_leaf, 0, right)),
            ("missing_left", np.array(tree["default_left"], dtype=bool)),
            ("leaf", np.where(is_leaf, right + n_leaves, -1)),  # the right child of a leaf is its row of values
            ("values", values),
        ):
            columns.setdefault(name, []).append(values_of_tree)
        n_leaves += len(values)
        counts.append(len(left))
    whole = {name: np.concatenate(parts) for name, parts in columns.items()}
    rounds = np.array(model["iteration_indptr"], dtype=np.int64)
    return Ensemble(offsets=np.cumsum(counts), inclusive=False, **whole), rounds
