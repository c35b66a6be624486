"""int8 weights for exported networks, and what they cost: loss, size, and the largest difference of a prediction."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

ROWS_AT_ONCE = 1024
LARGEST = 127  # of an int8 weight: symmetric, so that 0 stays 0
# Operators with large weights: the numbers of the inputs that hold these, and the axis of the outputs.
WEIGHTS: Mapping[str, tuple[tuple[int, ...], int]] = {
    "Conv": ((1,), 0), "Gemm": ((1,), 0), "GRU": ((1, 2), 1), "LSTM": ((1, 2), 1)
}  # fmt: skip


def quantized(content: bytes) -> bytes:
    """An ONNX file of a network (see `onnx.add_network`) with its weights as int8; equal files give equal bytes.

    The weights of convolutions, recurrent and dense layers, and of heads become int8, rounded to the nearest multiple
    of the largest of their output over 127 (of a layer in both directions: of the output in both). DequantizeLinear
    makes float32 of them when the file is run. Biases, layer normalisation, scaling and all arithmetic stay float32.
    With 11 columns, files are 3.3 (fast), 3.5 (balanced), 3.9 (quality) and 3.7 (legacy) times smaller.

    This is not onnxruntime's dynamic quantisation, which also rounds what flows between layers. That rounds by the
    largest value among all rows of a call, so a row's prediction depends on the rows beside it: by 0.001 to 0.004 of a
    probability on networks with random weights. It also knows no GRU, and leaves 97 % of the size of fast and 84 % of
    balanced.
    ValueError for weights that are not finite.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_from_string(content)
    graph = model.graph
    constants = {constant.name: constant for constant in graph.initializer}
    axes = {name: axis for node in graph.node for name, axis in _weights_of(node) if name in constants}
    nodes, arrays = [], []
    for name, axis in axes.items():
        weights = numpy_helper.to_array(constants[name])
        rounded, scale = _rounded(weights, axis)
        graph.initializer.remove(constants[name])
        arrays += [numpy_helper.from_array(rounded, f"{name}_int8"), numpy_helper.from_array(scale, f"{name}_scale")]
        inputs = [f"{name}_int8", f"{name}_scale"]  # without a zero point, which would be 0
        nodes.append(helper.make_node("DequantizeLinear", inputs, [name], name=f"DequantizeLinear_{name}", axis=axis))
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(arrays)
    return model.SerializeToString(deterministic=True)


def _weights_of(node: Any) -> list[tuple[str, int]]:
    """Names of a node's large weights, each with the axis of its outputs."""
    numbers, axis = WEIGHTS.get(node.op_type, ((), 0))
    if node.op_type == "Gemm" and not any(attribute.name == "transB" and attribute.i for attribute in node.attribute):
        axis = 1
    return [(node.input[k], axis) for k in numbers]


def _rounded(weights: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 of the shape of `weights`, and float32 (n_outputs,), what they are to be multiplied by."""
    if not np.isfinite(weights).all():
        raise ValueError("a network with weights that are not finite cannot be quantised")
    others = tuple(k for k in range(weights.ndim) if k != axis)
    largest = np.abs(weights).max(axis=others)
    scale = np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)
    scale = np.maximum(scale, np.finfo(np.float32).tiny)
    steps = np.rint(weights / np.expand_dims(scale, others))
    return np.clip(steps, -LARGEST, LARGEST).astype(np.int8), scale


@dataclass(frozen=True)
class Comparison:
    """What int8 weights cost on some rows.

    loss, quantized_loss: log-loss of classes or mean squared error of a value, over rows whose target is known; NaN
        where there are none.
    n_bytes, quantized_bytes: sizes of the files.
    largest_difference: of a probability or a value, over all rows; 0 without rows, infinite where one is NaN.

        >>> comparison = Comparison(0.61, 0.6125, 120_000, 37_500, 0.004)
        >>> round(comparison.added_loss, 4), comparison.times_smaller
        (0.0025, 3.2)
    """

    loss: float
    quantized_loss: float
    n_bytes: int
    quantized_bytes: int
    largest_difference: float

    @property
    def added_loss(self) -> float:
        """By how much the loss is higher with int8 weights; it may be lower."""
        return self.quantized_loss - self.loss

    @property
    def times_smaller(self) -> float:
        """The file's size over that of the quantised one."""
        return self.n_bytes / self.quantized_bytes


def compare(content: bytes, quantized_content: bytes, windows: Any, targets: np.ndarray) -> Comparison:
    """Score two files with one output each by onnxruntime on the CPU, on the same rows.

    windows: raw, float32 (n_rows, length, n_columns), an array or what gives such arrays by slices.
    targets: (n_rows,), integers for classes, -1 where not known; floats for a value, NaN where not known.
    ValueError where there are not as many targets as windows.
    """
    if len(windows) != len(targets):
        raise ValueError(f"expected a target for each of {len(windows)} windows, got {len(targets)}")
    sessions = [_session(content), _session(quantized_content)]
    classes = np.issubdtype(targets.dtype, np.integer)
    losses, count, largest = np.zeros(2), 0, 0.0
    for start in range(0, len(targets), ROWS_AT_ONCE):
        rows, known_targets = windows[start : start + ROWS_AT_ONCE], targets[start : start + ROWS_AT_ONCE]
        outputs = [session.run(None, {session.get_inputs()[0].name: rows})[0] for session in sessions]
        difference = np.abs(outputs[0].astype(np.float64) - outputs[1])
        largest = max(largest, float(np.where(np.isnan(difference), np.inf, difference).max(initial=0.0)))
        known = known_targets >= 0 if classes else ~np.isnan(known_targets)
        count += int(known.sum())
        losses += [_summed_loss(output[known], known_targets[known], classes) for output in outputs]
    loss, quantized_loss = losses / count if count else (np.nan, np.nan)
    return Comparison(float(loss), float(quantized_loss), len(content), len(quantized_content), largest)


def _summed_loss(output: np.ndarray, targets: np.ndarray, classes: bool) -> float:
    output = output.astype(np.float64)
    if not classes:
        return float(np.square(output[:, 0] - targets).sum())
    probability = output[np.arange(len(targets)), targets.astype(np.int64)]
    return float(-np.log(np.maximum(probability, np.finfo(np.float32).tiny)).sum())


def _session(content: bytes) -> Any:
    # From 1.29 on it reports names and hashes of the models that it loads, unless it is told not to.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
