"""ONNX files of single networks, whose input is raw windows."""

from __future__ import annotations

import numpy as np

from gpupipe.artifacts.onnx.graphs import IR_VERSION, OPSET, OUTPUT, WINDOWS, _Graph
from gpupipe.estimators.ensemble import TreeReader
from gpupipe.estimators.onnx_graph import softmax
from gpupipe.estimators.torch.onnx import add_network
from gpupipe.estimators.torch.scaler import WindowScaler


def content_of(arrays, architecture, length, heads, head_numbers, scaling, as_classes=False):
    """The bytes of an ONNX model: windows (n_rows, length, n_columns) to margins, or to probabilities."""
    from onnx import TensorProto, checker, helper

    graph = _Graph({}, TreeReader())
    out = add_network(graph, graph.windows(length), arrays, architecture, length, heads, head_numbers, scaling)
    graph.output(softmax(graph, out, np.ones(3, np.float32)) if as_classes else out, OUTPUT)
    n_outputs = sum(heads[k].n_outputs for k in head_numbers)
    whole = helper.make_graph(
        graph.nodes, "network",
        [helper.make_tensor_value_info(WINDOWS, TensorProto.FLOAT, ["rows", length, len(scaling.offset)])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["rows", n_outputs])], graph.constants,
    )  # fmt: skip
    model = helper.make_model(whole, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)])
    checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def scaling_of(n_columns):
    """A scaling that differs by column; the last column is constant, and so 0 everywhere."""
    rng = np.random.default_rng(5)
    offset, scale = rng.normal(size=(2, n_columns)).astype(np.float32)
    low, high = np.full(n_columns, -4, np.float32), np.full(n_columns, 4, np.float32)
    low[-1] = high[-1] = 0
    return WindowScaler(offset * 20, np.abs(scale) * 10 + np.float32(0.1), low, high)


def scaled(windows, scaling):
    """What a network reads, in numpy."""
    values = (windows - scaling.offset) / scaling.scale
    return np.where(np.isnan(values), np.float32(0), np.clip(values, scaling.low, scaling.high)).astype(np.float32)
