"""A model as an ONNX graph: the whole feature matrix in, predictions out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gpupipe.estimators import registry
from gpupipe.estimators.columns import ColumnSubsetModel
from gpupipe.estimators.ensemble import Ensemble, TreeReader
from gpupipe.estimators.onnx_graph import OnnxGraph

INPUT, WINDOWS, OUTPUT = "features", "windows", "probabilities"
# Old enough for every runtime of the last years. Trees are TreeEnsembleRegressor and not opset 5's TreeEnsemble, whose
# leaves hold one number: two outputs of a vector leaf would take two trees.
OPSET, ML_OPSET, IR_VERSION = 17, 3, 8


def graph_of(
    family: str,
    models: Mapping[str, Any],
    shape: tuple[int, int],
    properties: Mapping[str, str],
    reader: TreeReader,
) -> Any:
    """The onnx.ModelProto of one model.

    models: all models of the group and target, by estimator: those that a meta-learner reads become a part of its
        graph.
    shape: the numbers of features and of outputs.
    properties: what to write into the file's metadata.
    Input "features", float32 (n_rows, n_features), NaN where missing; or, of models that look back, "windows", float32
    (n_rows, length, n_features), oldest bar first. Output "probabilities", (n_rows, n_outputs).
    UserError for a model that has no ONNX form.
    """
    graph = _Graph(models, reader)
    graph.output(graph.prediction_of(family), OUTPUT)
    n_features, n_outputs = shape
    return _whole(graph, n_features, {OUTPUT: n_outputs}, properties)


def graph_of_heads(
    add: Callable[[OnnxGraph], Mapping[str, str]],
    columns: np.ndarray | None,
    n_features: int,
    n_outputs: Mapping[str, int],
    properties: Mapping[str, str],
) -> Any:
    """The onnx.ModelProto of a model with several outputs; its input is as that of `graph_of`.

    add(graph): adds the model; the names of its predictions by output.
    columns: numbers of the features that the model reads; None for all.  n_outputs: numbers of an output, by its name.
    """
    graph = _Graph({}, TreeReader(), columns)
    for output, name in add(graph).items():
        graph.output(name, output)
    return _whole(graph, n_features, n_outputs, properties)


def _whole(graph: _Graph, n_features: int, n_outputs: Mapping[str, int], properties: Mapping[str, str]) -> Any:
    """The model of a graph whose nodes are all there."""
    from onnx import TensorProto, helper

    taken = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["rows", n_features])
    nodes = graph.nodes
    if graph.length:
        taken = helper.make_tensor_value_info(WINDOWS, TensorProto.FLOAT, ["rows", graph.length, n_features])
        last, bar = graph.constant(np.array([-1])), graph.constant(np.array([1]))
        nodes = [
            helper.make_node("Gather", [WINDOWS, last], ["last_bar"], name="Gather_last_bar", axis=1),
            helper.make_node("Squeeze", ["last_bar", bar], [INPUT], name=f"Squeeze_{INPUT}"), *nodes,
        ]  # fmt: skip
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", n]) for name, n in n_outputs.items()]
    return _model(nodes, [taken], outputs, graph.constants, properties)


def graph_of_tensors(
    add: Callable[[OnnxGraph], Mapping[str, str]],
    inputs: Mapping[str, Sequence[Any]],
    outputs: Mapping[str, Sequence[Any]],
    properties: Mapping[str, str],
) -> Any:
    """The onnx.ModelProto of a model with several float32 inputs and outputs.

    add(graph): adds the model, which knows its inputs by their names; the names of its results by output.
    inputs, outputs: shapes by name; a text in the place of a number is a length that may vary.
    """
    from onnx import TensorProto, helper

    graph = _Graph({}, TreeReader())
    for output, name in add(graph).items():
        graph.output(name, output)
    taken, given = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in shapes.items()]
        for shapes in (inputs, outputs)
    )
    return _model(graph.nodes, taken, given, graph.constants, properties)


def _model(nodes: Any, inputs: Any, outputs: Any, constants: Any, properties: Mapping[str, str]) -> Any:
    from onnx import helper

    model = helper.make_model(
        helper.make_graph(nodes, "gpupipe", inputs, outputs, constants), producer_name="gpupipe",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)],
    )  # fmt: skip
    helper.set_model_props(model, dict(properties))
    return model


def split_selection(model: Any) -> tuple[Any, np.ndarray | None]:
    """A model without its choice of columns, and the numbers of these; None where it takes all."""
    return (model.model, model.columns) if isinstance(model, ColumnSubsetModel) else (model, None)


class _Graph:
    """Nodes and constants in the order in which they are added, with numbers for names; see `OnnxGraph`."""

    input = INPUT

    def __init__(self, models: Mapping[str, Any], reader: TreeReader, columns: np.ndarray | None = None) -> None:
        self.reader = reader
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.length = 0  # bars of the longest windows that were asked for
        self._models = models
        self._columns = columns  # of the model that is being added
        self._number = itertools.count()

    def prediction_of(self, estimator: str) -> str:
        """Add the model of an estimator; the name of its predictions."""
        outer = self._columns
        model, self._columns = split_selection(self._models[estimator])
        name = registry.estimator(estimator).to_onnx(model, self)
        self._columns = outer
        return name

    def columns(self) -> str:
        """The name of the columns of the model that is being added."""
        return INPUT if self._columns is None else self.add("Gather", [INPUT, self._columns], axis=1)

    def windows(self, length: int) -> str:
        """The name of windows of the columns of the model that is being added, their last `length` bars."""
        self.length = max(self.length, length)
        bars = self.add("Slice", [WINDOWS, np.array([-length]), np.array([np.iinfo(np.int64).max]), np.array([1])])
        return bars if self._columns is None else self.add("Gather", [bars, self._columns], axis=2)

    def output(self, name: str, output: str) -> None:
        """Make a node's output one of the graph's."""
        from onnx import helper

        self.nodes.append(helper.make_node("Identity", [name], [output], name=f"Identity_{output}"))

    def constant(self, value: Any) -> str:
        """The name of an array."""
        from onnx import numpy_helper

        name = f"c{next(self._number)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, operator: str, inputs: Sequence[Any], **attributes: Any) -> str:
        """Add a node, whose inputs are names or arrays; the name of its output."""
        from onnx import helper

        names = [item if isinstance(item, str) else self.constant(item) for item in inputs]
        name = f"t{next(self._number)}"
        self.nodes.append(helper.make_node(operator, names, [name], name=f"{operator}_{name}", **attributes))
        return name

    def trees(self, ensemble: Ensemble) -> str:
        """Add an ensemble; the name of the sums of its leaves, (n_rows, n_outputs)."""
        from onnx import NodeProto

        name = f"t{next(self._number)}"
        node = NodeProto(
            op_type="TreeEnsembleRegressor", domain="ai.onnx.ml", input=[INPUT], output=[name], name=f"Trees_{name}"
        )
        for key, value in _attributes(ensemble, self._columns).items():
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
    written = values != 0
    written[~written.any(axis=1), 0] = True  # a leaf needs at least one value
    at, output = np.nonzero(written)
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

    attribute = node.attribute.add()
    attribute.name = name
    if isinstance(value, int):
        attribute.type, attribute.i = AttributeProto.INT, value
    elif value.dtype.kind == "U":
        attribute.type = AttributeProto.STRINGS
        attribute.strings.extend([text.encode() for text in value.tolist()])
    elif value.dtype.kind == "f":
        attribute.type = AttributeProto.FLOATS
        attribute.floats.extend(value.tolist())
    else:
        attribute.type = AttributeProto.INTS
        attribute.ints.extend(value.tolist())
