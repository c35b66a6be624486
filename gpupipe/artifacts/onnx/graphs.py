"""A model as an ONNX graph: the whole feature matrix in, probabilities of SELL, HOLD and BUY out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpupipe.artifacts.onnx.ensembles import Ensemble, of_catboost, of_lightgbm, of_xgboost
from gpupipe.estimators.boosting.hosted import HostedModel
from gpupipe.estimators.boosting.tree_model import N_OUTPUTS, SMALLEST_PROBABILITY, TreeModel
from gpupipe.estimators.columns import OfColumns
from gpupipe.estimators.linear.softmax_linear import LinearModel
from gpupipe.estimators.stacking import meta_learner
from gpupipe.estimators.stacking.meta_learner import MetaModel
from gpupipe.targets.classes import BUY, HOLD, N_CLASSES, SELL

INPUT, OUTPUT = "features", "probabilities"
# Old enough for every runtime of the last years. Trees are TreeEnsembleRegressor and not opset 5's TreeEnsemble, whose
# leaves hold one number: two outputs of a vector leaf would take two trees.
OPSET, ML_OPSET, IR_VERSION = 17, 3, 8
TARGETS = np.zeros((N_OUTPUTS, N_CLASSES), np.float32)  # activity, direction -> SELL u - d, HOLD 0, BUY u + d
TARGETS[:, SELL], TARGETS[:, BUY] = (1, -1), (1, 1)
LEFT_OVER = np.zeros((N_CLASSES, N_CLASSES), np.float32)  # HOLD is what SELL and BUY leave of 1
LEFT_OVER[SELL, (SELL, HOLD)] = LEFT_OVER[BUY, (BUY, HOLD)] = 1, -1
AGAINST_HOLD = np.zeros((N_CLASSES, 2), np.float32)  # SELL - HOLD, BUY - HOLD
AGAINST_HOLD[(SELL, BUY), (0, 1)], AGAINST_HOLD[HOLD] = 1, -1


class Ensembles:
    """The trees of boosters, each read once however many models share it."""

    def __init__(self) -> None:
        self._read: dict[int, tuple[Any, Any]] = {}  # a booster beside its trees, so that its id stays its own

    def of(self, model: TreeModel | HostedModel) -> list[Ensemble]:
        """What adds up to a model's margin: of a TreeModel, each stage's two outputs of its label; else three."""
        if isinstance(model, HostedModel):
            read = {"lightgbm": of_lightgbm, "catboost": of_catboost}[model.library.name]
            return [self._once(model.booster, read)]
        found = []
        for stage in model.stages:
            ensemble, rounds = self._once(stage.booster, of_xgboost)
            found.append(ensemble.part(rounds[stage.rounds], slice(stage.column, stage.column + N_OUTPUTS)))
        return found

    def _once(self, booster: Any, read: Any) -> Any:
        if id(booster) not in self._read:
            self._read[id(booster)] = booster, read(booster)
        return self._read[id(booster)][1]


def model_of(
    model: Any, others: Mapping[str, Any], n_features: int, properties: Mapping[str, str], ensembles: Ensembles
) -> Any:
    """An onnx.ModelProto.

    others: the sector's and label's models by family, of which a meta-learner's bases become a part of its graph.
    properties: what to write into the file's metadata.
    Input "features", float32 (n_rows, n_features), NaN where missing; output "probabilities", float32 (n_rows, 3).
    """
    from onnx import TensorProto, helper

    graph = _Graph(ensembles)
    graph.add("Identity", [_probability(graph, model, others, None)], output=OUTPUT)
    whole = helper.make_graph(
        graph.nodes, "gpupipe",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["rows", n_features])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["rows", N_CLASSES])], graph.constants,
    )  # fmt: skip
    made = helper.make_model(
        whole, producer_name="gpupipe", ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)],
    )  # fmt: skip
    helper.set_model_props(made, dict(properties))
    return made


class _Graph:
    """Nodes and constants as they are made; names are numbers."""

    def __init__(self, ensembles: Ensembles) -> None:
        self.ensembles = ensembles
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._number = itertools.count()

    def constant(self, value: Any) -> str:
        """The name of an array."""
        from onnx import numpy_helper

        name = f"c{next(self._number)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, operator: str, inputs: Sequence[Any], output: str | None = None, **attributes: Any) -> str:
        """The name of a node's output; inputs are names, or arrays."""
        from onnx import helper

        names = [one if isinstance(one, str) else self.constant(one) for one in inputs]
        name = output or f"t{next(self._number)}"
        self.nodes.append(helper.make_node(operator, names, [name], name=f"{operator}_{name}", **attributes))
        return name

    def trees(self, ensemble: Ensemble, columns: np.ndarray | None) -> str:
        """Sums of leaves, (n_rows, n_outputs). columns: which of the input's the trees' features are; all if None."""
        from onnx import NodeProto

        name = f"t{next(self._number)}"
        node = NodeProto(
            op_type="TreeEnsembleRegressor", domain="ai.onnx.ml", input=[INPUT], output=[name], name=f"Trees_{name}"
        )
        for key, value in _attributes(ensemble, columns).items():
            _set(node, key, value)
        self.nodes.append(node)
        return name


def _attributes(ensemble: Ensemble, columns: np.ndarray | None) -> dict[str, Any]:
    """Attributes of TreeEnsembleRegressor, lists by name. Trees choose their columns by number, without a Gather."""
    sizes = np.diff(ensemble.offsets)
    tree = np.repeat(np.arange(len(sizes)), sizes)
    node = np.arange(len(tree)) - np.repeat(ensemble.offsets[:-1], sizes)
    is_leaf = ensemble.leaf >= 0
    feature = np.where(is_leaf, 0, ensemble.feature if columns is None else columns[ensemble.feature * ~is_leaf])
    names = np.where(is_leaf, "LEAF", "BRANCH_LEQ" if ensemble.inclusive else "BRANCH_LT")
    values = ensemble.values[ensemble.leaf[is_leaf]]
    said = values != 0
    said[~said.any(axis=1), 0] = True  # a leaf has to say something
    at, output = np.nonzero(said)
    return {
        "n_targets": ensemble.values.shape[1],
        "nodes_treeids": tree, "nodes_nodeids": node, "nodes_featureids": feature,
        "nodes_modes": names, "nodes_values": np.where(is_leaf, np.float32(0), ensemble.split),
        "nodes_truenodeids": ensemble.left, "nodes_falsenodeids": ensemble.right,
        "nodes_missing_value_tracks_true": (ensemble.missing_left & ~is_leaf).astype(np.int64),
        "target_treeids": tree[is_leaf][at], "target_nodeids": node[is_leaf][at], "target_ids": output,
        "target_weights": values[at, output],
    }  # fmt: skip


def _set(node: Any, name: str, value: Any) -> None:
    """Give a node an attribute; onnx.helper looks at each number by itself, which takes minutes for 396 models."""
    from onnx import AttributeProto

    one = node.attribute.add()
    one.name = name
    if isinstance(value, int):
        one.type, one.i = AttributeProto.INT, value
    elif value.dtype.kind == "U":
        one.type = AttributeProto.STRINGS
        one.strings.extend([text.encode() for text in value.tolist()])
    elif value.dtype.kind == "f":
        one.type = AttributeProto.FLOATS
        one.floats.extend(value.tolist())
    else:
        one.type = AttributeProto.INTS
        one.ints.extend(value.tolist())


def _probability(graph: _Graph, model: Any, others: Mapping[str, Any], columns: np.ndarray | None) -> str:
    """The name of a model's probabilities. columns: those of the input that the model takes; all if None."""
    if isinstance(model, OfColumns):
        return _probability(graph, model.model, others, model.columns)
    if isinstance(model, TreeModel | HostedModel):
        return _of_trees(graph, model, columns)
    if isinstance(model, LinearModel):
        return _of_linear(graph, model, columns)
    if isinstance(model, MetaModel):
        return _of_meta(graph, model, others)
    raise TypeError(f"no graph for a {type(model).__name__}")


def _of_trees(graph: _Graph, model: TreeModel | HostedModel, columns: np.ndarray | None) -> str:
    total: str | None = None
    for ensemble in graph.ensembles.of(model):
        if ensemble.n_trees == 0:
            continue
        margin = graph.trees(ensemble, columns)
        if isinstance(model, TreeModel):
            margin = graph.add("MatMul", [margin, TARGETS])
        total = margin if total is None else graph.add("Add", [total, margin])
    if total is None:
        total = _zeros(graph)
    total = graph.add("Add", [total, model.bias[None]])
    if isinstance(model, HostedModel) or model.link == "softmax":
        return _softmax(graph, total, model.class_weight)
    shares = graph.add("MatMul", [total, LEFT_OVER])
    shares = graph.add("Add", [shares, np.eye(N_CLASSES, dtype=np.float32)[[HOLD]]])
    shares = graph.add("Max", [shares, np.float32(SMALLEST_PROBABILITY)])
    shares = graph.add("Div", [shares, model.class_weight[None]])
    return graph.add("Div", [shares, graph.add("ReduceSum", [shares, np.array([1])], keepdims=1)])


def _zeros(graph: _Graph) -> str:
    """Zeros (n_rows, 3), for a model without a tree."""
    rows = graph.add("Slice", [graph.add("Shape", [INPUT]), np.array([0]), np.array([1])])
    return graph.add("Expand", [np.zeros((1, N_CLASSES), np.float32),
                                graph.add("Concat", [rows, np.array([N_CLASSES])], axis=0)])  # fmt: skip


def _softmax(graph: _Graph, margin: str, class_weight: np.ndarray) -> str:
    if (class_weight != 1).any():
        margin = graph.add("Sub", [margin, np.log(class_weight)[None]])
    return graph.add("Softmax", [margin], axis=1)


def _of_linear(graph: _Graph, model: LinearModel, columns: np.ndarray | None) -> str:
    scaler = model.scaler
    X = INPUT if columns is None else graph.add("Gather", [INPUT, columns], axis=1)
    scaled = graph.add("Div", [graph.add("Sub", [X, scaler.mean[None]]), scaler.scale[None]])
    missing = graph.add("IsNaN", [scaled])
    clipped = graph.add("Clip", [scaled, np.float32(-scaler.clip), np.float32(scaler.clip)])
    Z = graph.add("Where", [missing, np.float32(0), clipped])
    if len(scaler.flagged):
        flags = graph.add("Gather", [graph.add("Cast", [missing], to=1), scaler.flagged], axis=1)  # 1: float32
        Z = graph.add("Concat", [Z, flags], axis=1)
    return _softmax(graph, _product(graph, Z, model.weights), model.class_weight)


def _product(graph: _Graph, Z: str, weights: Any) -> str:
    product = graph.add("MatMul", [Z, weights.coefficients.astype(np.float32)])
    return graph.add("Add", [product, weights.intercept.astype(np.float32)[None]])


def _of_meta(graph: _Graph, model: MetaModel, others: Mapping[str, Any]) -> str:
    said = [_probability(graph, others[family], others, None) for family in model.families]
    if model.inputs == "log_odds":
        logs = [graph.add("Log", [graph.add("Max", [one, np.float32(SMALLEST_PROBABILITY)])]) for one in said]
        said = [graph.add("MatMul", [one, AGAINST_HOLD]) for one in logs]
    Z = graph.add("Concat", said, axis=1)
    if model.inputs == "log_odds":
        largest = np.float32(meta_learner.LARGEST_LOG_ODDS)
        Z = graph.add("Clip", [Z, -largest, largest])
    return _softmax(graph, _product(graph, Z, model.weights), np.ones(N_CLASSES, np.float32))
