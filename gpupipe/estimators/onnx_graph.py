"""ONNX: the graph that an estimator adds a model to, and pieces that several estimators share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gpupipe.estimators.ensemble import Ensemble, TreeReader

FLOAT = 1  # onnx.TensorProto.FLOAT


class OnnxGraph(Protocol):
    """The graph of one model. Nodes are known by the names of their outputs, which are arrays with one line per row.

    input: the name of the rows' features, float32 (n_rows, n_features), NaN where missing.
    reader: reads boosters, each once for all models of a group.

        >>> from gpupipe.artifacts.onnx.graphs import graph_of
        >>> from gpupipe.estimators.linear.softmax_linear import LinearModel, Scaler, Weights
        >>> scaler = Scaler(np.zeros(2, np.float32), np.ones(2, np.float32), np.array([], int), clip=4.0)
        >>> model = LinearModel(scaler, Weights(np.zeros((2, 3)), np.zeros(3)), np.ones(3, np.float32), "pool")
        >>> graph = graph_of("linear", {"linear": model}, (2, 3), {}, TreeReader()).graph  # doctest: +SKIP
        >>> [node.op_type for node in graph.node]  # doctest: +SKIP
        ['Sub', 'Div', 'IsNaN', 'Clip', 'Where', 'MatMul', 'Add', 'Softmax', 'Identity']
    """

    input: str
    reader: TreeReader

    def add(self, operator: str, inputs: Sequence[Any], **attributes: Any) -> str:
        """Add a node; its inputs are names or arrays, which become constants. Returns the name of its output."""
        ...

    def columns(self) -> str:
        """The name of the columns that the model was fitted on, float32 (n_rows, n_columns)."""
        ...

    def windows(self, length: int) -> str:
        """The name of windows of the columns of `columns`, float32 (n_rows, length, n_columns), oldest bar first.

        A graph that asks for them takes windows in the place of rows, whose last bar is then `input`.
        """
        ...

    def trees(self, ensemble: Ensemble) -> str:
        """Add an ensemble, whose features are numbers of the model's columns; (n_rows, n_outputs), sums of leaves."""
        ...

    def prediction_of(self, estimator: str) -> str:
        """Add another estimator's model of the same group and target; the name of its predictions."""
        ...


@dataclass(frozen=True)
class CriticalValues:
    """Values near which a model and its exported graph would differ first; exports are checked on rows near them.

    splits: for each ensemble, int64 column numbers and float32 values (n_splits,).
    mean, scale: float32 (n_columns,), of a model that scales its columns; None for one that does not.

        >>> CriticalValues(mean=np.zeros(2, np.float32), scale=np.ones(2, np.float32)).splits
        ()
    """

    splits: Sequence[tuple[np.ndarray, np.ndarray]] = ()
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None


def zeros(graph: OnnxGraph, n_outputs: int) -> str:
    """Zeros float32 (n_rows, n_outputs)."""
    n_rows = graph.add("Slice", [graph.add("Shape", [graph.input]), np.array([0]), np.array([1])])
    shape = graph.add("Concat", [n_rows, np.array([n_outputs])], axis=0)
    return graph.add("Expand", [np.zeros((1, n_outputs), np.float32), shape])


def softmax(graph: OnnxGraph, margin: str, class_weight: np.ndarray) -> str:
    """Probabilities of margins (n_rows, n_classes), divided by the class weights of training and put back to 1."""
    if (class_weight != 1).any():
        margin = graph.add("Sub", [margin, np.log(class_weight)[None]])
    return graph.add("Softmax", [margin], axis=1)


def linear(graph: OnnxGraph, inputs: str, coefficients: np.ndarray, intercept: np.ndarray) -> str:
    """inputs @ coefficients + intercept, in float32."""
    product = graph.add("MatMul", [inputs, coefficients.astype(np.float32)])
    return graph.add("Add", [product, intercept.astype(np.float32)[None]])
