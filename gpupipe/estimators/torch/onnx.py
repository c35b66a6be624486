"""Sequence networks and recurrent policies as nodes of an ONNX graph, from arrays of weights; needs no Torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gpupipe.estimators.onnx_graph import OnnxGraph
from gpupipe.estimators.torch.architecture import Architecture, Convolution, Head, Recurrent
from gpupipe.estimators.torch.scaler import WindowScaler

EPSILON = 1e-5  # Torch's, of batch and of layer normalisation
# Numbers of Torch's gates in the order of ONNX: reset, update, new -> update, reset, new;
# input, forget, cell, output -> input, output, forget, cell.
GATES = {"gru": (1, 0, 2), "lstm": (0, 3, 1, 2)}

Arrays = Mapping[str, np.ndarray]


def add_network(
    graph: OnnxGraph,
    windows: str,
    arrays: Arrays,
    architecture: Architecture,
    length: int,
    heads: Sequence[Head],
    head_numbers: Sequence[int],
    scaler: WindowScaler,
) -> str:
    """Add a network; the name of its margins, float32 (n_rows, outputs of the chosen heads), in that order.

    windows: the name of raw windows, float32 (n_rows, length, n_columns), NaN where missing.
    arrays: all weights, as `network.arrays_of` names them.
    head_numbers: of the heads whose margins are wanted, at least one.
    scaler: how raw windows become what the network reads.

    Batch normalisation becomes a part of the convolution before it. No rows are taken for one of zeros, which is cut
    off at the end: onnxruntime's recurrent layers end the process where there are none.
    """
    n_rows = graph.add("Slice", [graph.add("Shape", [windows]), np.array([0]), np.array([1])])
    x = _scaled(graph, windows, scaler)
    missing_rows = graph.add("Sub", [np.array([1]), graph.add("Min", [n_rows, np.array([1])])])
    shape = graph.add("Concat", [missing_rows, np.array([length, scaler.n_columns])], axis=0)
    x = graph.add("Concat", [x, graph.add("ConstantOfShape", [shape])], axis=0)
    x = graph.add("Transpose", [x], perm=[0, 2, 1])
    for k, convolution in enumerate(architecture.convolutions):
        x = _convolution(graph, x, convolution, _below(arrays, f"convolutions.{k}."))
    x = graph.add("Transpose", [x], perm=[2, 0, 1])
    for k, recurrent in enumerate(architecture.recurrent):
        last = k == len(architecture.recurrent) - 1
        x = _recurrent(graph, x, recurrent, _below(arrays, f"recurrent.{k}."), last)
    for k in range(len(architecture.dense)):
        dense = _below(arrays, f"dense.{k}.linear.")
        x = graph.add("Relu", [graph.add("Gemm", [x, dense["weight"], dense["bias"]], transB=1)])
    chosen = _outputs_of(heads, head_numbers)
    x = graph.add("Gemm", [x, arrays["output.weight"][chosen], arrays["output.bias"][chosen]], transB=1)
    return graph.add("Slice", [x, np.array([0]), n_rows, np.array([0])])


def add_policy(graph: OnnxGraph, observation: str, h: str, c: str, arrays: Arrays) -> dict[str, str]:
    """Add a step of a `RecurrentPolicy`; the names of logits, value, next_h and next_c.

    observation: the name of observations, float32 (n_rows, n_observations).  h, c: of states, (layers, n_rows, size).
    arrays: all weights by name.  value is (n_rows, 1). Rows may be none.
    """
    x, states, cells = observation, [], []
    for layer in range(sum(name.startswith("lstm.weight_hh") for name in arrays)):
        own = {name: arrays[f"lstm.{name}_l{layer}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        before, cell = (
            graph.add("Squeeze", [graph.add("Gather", [state, np.array([layer])], axis=0), np.array([0])])
            for state in (h, c)
        )
        gates = graph.add("Gemm", [x, own["weight_ih"], own["bias_ih"] + own["bias_hh"]], transB=1)
        gates = graph.add("Gemm", [before, own["weight_hh"], gates], transB=1)
        size = own["weight_hh"].shape[1]
        entry, forget, new, output = (
            graph.add("Slice", [gates, np.array([k * size]), np.array([(k + 1) * size]), np.array([1])])
            for k in range(4)
        )
        kept = graph.add("Mul", [graph.add("Sigmoid", [forget]), cell])
        added = graph.add("Mul", [graph.add("Sigmoid", [entry]), graph.add("Tanh", [new])])
        cell = graph.add("Add", [kept, added])
        x = graph.add("Mul", [graph.add("Sigmoid", [output]), graph.add("Tanh", [cell])])
        states.append(graph.add("Unsqueeze", [x, np.array([0])]))
        cells.append(graph.add("Unsqueeze", [cell, np.array([0])]))
    logits, value = (_head(graph, x, _below(arrays, f"{head}.")) for head in ("policy_head", "value_head"))
    next_h, next_c = (graph.add("Concat", parts, axis=0) for parts in (states, cells))
    return {"logits": logits, "value": value, "next_h": next_h, "next_c": next_c}


def _head(graph: OnnxGraph, x: str, arrays: Arrays) -> str:
    """Linear layers with ReLU between them."""
    n_layers = len(arrays) // 2
    for k in range(n_layers):
        x = graph.add("Gemm", [x, arrays[f"{k}.weight"], arrays[f"{k}.bias"]], transB=1)
        x = graph.add("Relu", [x]) if k < n_layers - 1 else x
    return x


def _below(arrays: Arrays, prefix: str) -> dict[str, np.ndarray]:
    """The arrays of one layer, by their names within it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _outputs_of(heads: Sequence[Head], head_numbers: Sequence[int]) -> np.ndarray:
    """The numbers of the outputs of some heads, int64."""
    stops = np.cumsum([head.n_outputs for head in heads])
    return np.concatenate([np.arange(stops[k] - heads[k].n_outputs, stops[k]) for k in head_numbers])


def _scaled(graph: OnnxGraph, windows: str, scaler: WindowScaler) -> str:
    offset, scale, low, high = (
        values[None, None] for values in (scaler.offset, scaler.scale, scaler.low, scaler.high)
    )  # fmt: skip
    scaled = graph.add("Div", [graph.add("Sub", [windows, offset]), scale])
    clipped = graph.add("Min", [graph.add("Max", [scaled, low]), high])
    return graph.add("Where", [graph.add("IsNaN", [scaled]), np.float32(0), clipped])


def _convolution(graph: OnnxGraph, x: str, layer: Convolution, arrays: Arrays) -> str:
    """(n_rows, n_channels, n_bars) to (n_rows, channels, bars that are left)."""
    weight, bias = arrays["convolution.weight"].astype(np.float64), arrays["convolution.bias"].astype(np.float64)
    if layer.normalised:
        factor = arrays["normalisation.weight"] / np.sqrt(
            arrays["normalisation.running_var"].astype(np.float64) + EPSILON
        )
        weight = weight * factor[:, None, None]
        bias = (bias - arrays["normalisation.running_mean"]) * factor + arrays["normalisation.bias"]
    pads = [1, 1] if layer.same else [0, 0]
    x = graph.add("Conv", [x, weight.astype(np.float32), bias.astype(np.float32)], kernel_shape=[3], pads=pads)
    x = graph.add("Relu", [x])
    return graph.add("MaxPool", [x], kernel_shape=[2], strides=[2]) if layer.pooled else x


def _recurrent(graph: OnnxGraph, x: str, layer: Recurrent, arrays: Arrays, last: bool) -> str:
    """(n_bars, n_rows, n_inputs) to (n_bars, n_rows, width), or to (n_rows, width) of the last layer."""
    directions = ["", "_reverse"] if layer.both else [""]
    weight, recurrent = (
        np.stack([_in_onnx_order(arrays[f"cell.{name}_l0{suffix}"], layer) for suffix in directions])
        for name in ("weight_ih", "weight_hh")
    )
    bias = np.stack([
        np.concatenate([_in_onnx_order(arrays[f"cell.{name}_l0{suffix}"], layer) for name in ("bias_ih", "bias_hh")])
        for suffix in directions
    ])  # fmt: skip
    attributes = {"hidden_size": layer.size, "direction": "bidirectional" if layer.both else "forward"}
    if layer.kind == "gru":
        attributes["linear_before_reset"] = 1  # Torch's reset gate acts on the product of the state, not on the state
    bars = graph.add(layer.kind.upper(), [x, weight, recurrent, bias], **attributes)  # (n_bars, directions, rows, size)
    if last:
        x = _state(graph, bars, -1, 0)
        if layer.both:  # the backward pass is done after the first bar
            x = graph.add("Concat", [x, _state(graph, bars, 0, 1)], axis=1)
    else:
        bars = graph.add("Transpose", [bars], perm=[0, 2, 1, 3])
        x = graph.add("Reshape", [bars, np.array([0, 0, layer.width])])
    if layer.normalised:
        scale, shift = arrays["normalisation.weight"], arrays["normalisation.bias"]
        x = graph.add("LayerNormalization", [x, scale, shift], axis=-1, epsilon=EPSILON)
    return x


def _state(graph: OnnxGraph, bars: str, bar: int, direction: int) -> str:
    """Outputs (n_rows, size) of a bar in one direction."""
    chosen = graph.add("Gather", [graph.add("Gather", [bars, np.array([bar])], axis=0), np.array([direction])], axis=1)
    return graph.add("Squeeze", [chosen, np.array([0, 1])])


def _in_onnx_order(array: np.ndarray, layer: Recurrent) -> np.ndarray:
    """Lines of a parameter gate by gate, in the order of ONNX."""
    gates = np.split(array, len(GATES[layer.kind]))
    return np.concatenate([gates[k] for k in GATES[layer.kind]])
