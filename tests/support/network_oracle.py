"""Sequence networks in plain numpy, float64, bar by bar: what Network and its export are compared with."""

from __future__ import annotations

import numpy as np

from gpupipe.estimators.torch.architecture import Head

EPSILON = 1e-5  # of both normalisations
LENGTHS = {"fast": 60, "balanced": 90, "quality": 120, "legacy": 120}
HEADS = (Head("label_1d_5pct", 3), Head("log_return_1", 1), Head("label_5d_10pct", 3))
N_COLUMNS = 11


def windows_of(n_rows, length, n_columns=N_COLUMNS, seed=0):
    """float32 (n_rows, length, n_columns): scaled columns that move slowly, as features do."""
    steps = np.random.default_rng(seed).normal(size=(n_rows, length, n_columns))
    return np.clip(steps.cumsum(axis=1) / np.sqrt(length), -4, 4).astype(np.float32)


def random_arrays(architecture, n_columns=N_COLUMNS, heads=HEADS, seed=0):
    """Arrays by the names of `arrays_of`, of the size that they have in a network; running variances are near 1."""
    rng, shapes, width = np.random.default_rng(seed), {}, n_columns
    for k, layer in enumerate(architecture.convolutions):
        shapes |= _linear_shapes(f"convolutions.{k}.convolution", layer.channels, (width, 3))
        width = layer.channels
        if layer.normalised:
            names = ("weight", "bias", "running_mean", "running_var")
            shapes |= {f"convolutions.{k}.normalisation.{name}": (width,) for name in names}
    for k, layer in enumerate(architecture.recurrent):
        lines = layer.size * {"gru": 3, "lstm": 4}[layer.kind]
        for suffix in ["", "_reverse"] if layer.both else [""]:
            cell = f"recurrent.{k}.cell."
            shapes |= {
                f"{cell}weight_ih_l0{suffix}": (lines, width),
                f"{cell}weight_hh_l0{suffix}": (lines, layer.size),
            }
            shapes |= {f"{cell}bias_{name}_l0{suffix}": (lines,) for name in ("ih", "hh")}
        width = layer.width
        if layer.normalised:
            shapes |= _linear_shapes(f"recurrent.{k}.normalisation", width, ())
    for k, n_outputs in enumerate(architecture.dense):
        shapes |= _linear_shapes(f"dense.{k}.linear", n_outputs, (width,))
        width = n_outputs
    shapes |= _linear_shapes("output", sum(head.n_outputs for head in heads), (width,))
    arrays = {name: rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]) or 1) for name, shape in shapes.items()}
    for name, array in arrays.items():
        if array.ndim == 1:
            array *= 0.2
            if "normalisation.weight" in name or name.endswith("running_var"):
                array += 1
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def _linear_shapes(prefix, n_outputs, inputs):
    return {f"{prefix}.weight": (n_outputs, *inputs), f"{prefix}.bias": (n_outputs,)}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def margins_of(architecture, arrays, windows):
    """Margins float64 (n_rows, n_outputs) of windows (n_rows, length, n_columns), from arrays by `arrays_of`."""
    arrays = {name: array.astype(np.float64) for name, array in arrays.items()}
    x = windows.astype(np.float64)
    for k, layer in enumerate(architecture.convolutions):
        x = convolved(x, layer, _below(arrays, f"convolutions.{k}."))
    for k, layer in enumerate(architecture.recurrent):
        own = _below(arrays, f"recurrent.{k}.")
        forward, final = scanned(x, layer.kind, own, "")
        if layer.both:
            backward, final_backward = scanned(x[:, ::-1], layer.kind, own, "_reverse")
            forward = np.concatenate([forward, backward[:, ::-1]], axis=2)
            final = np.concatenate([final, final_backward], axis=1)
        x = forward if k < len(architecture.recurrent) - 1 else final
        if layer.normalised:
            centred = x - x.mean(axis=-1, keepdims=True)
            x = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON)
            x = x * own["normalisation.weight"] + own["normalisation.bias"]
    for k in range(len(architecture.dense)):
        own = _below(arrays, f"dense.{k}.linear.")
        x = np.maximum(x @ own["weight"].T + own["bias"], 0)
    return x @ arrays["output.weight"].T + arrays["output.bias"]


def _below(arrays, prefix):
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def convolved(x, layer, own):
    """A convolution of 3 bars, batch normalisation by running moments, ReLU, the larger of each two bars."""
    if layer.same:
        x = np.pad(x, ((0, 0), (1, 1), (0, 0)))
    n_bars = x.shape[1] - 2
    weight = own["convolution.weight"]  # (channels, inputs, 3)
    x = sum(x[:, k : k + n_bars] @ weight[:, :, k].T for k in range(3)) + own["convolution.bias"]
    if layer.normalised:
        deviation = np.sqrt(own["normalisation.running_var"] + EPSILON)
        x = (x - own["normalisation.running_mean"]) / deviation
        x = x * own["normalisation.weight"] + own["normalisation.bias"]
    x = np.maximum(x, 0)
    if layer.pooled:
        half = x.shape[1] // 2
        x = np.maximum(x[:, 0 : 2 * half : 2], x[:, 1 : 2 * half : 2])
    return x


def scanned(x, kind, own, suffix):
    """Outputs of all bars (n_rows, n_bars, size), and of the last one, by the equations in Torch's documentation."""
    weight, recurrent = own[f"cell.weight_ih_l0{suffix}"], own[f"cell.weight_hh_l0{suffix}"]
    bias, recurrent_bias = own[f"cell.bias_ih_l0{suffix}"], own[f"cell.bias_hh_l0{suffix}"]
    n_gates = {"gru": 3, "lstm": 4}[kind]
    h = np.zeros((len(x), recurrent.shape[1]))
    c = np.zeros_like(h)
    outputs = []
    for bar in range(x.shape[1]):
        of_input = np.split(x[:, bar] @ weight.T + bias, n_gates, axis=1)
        of_state = np.split(h @ recurrent.T + recurrent_bias, n_gates, axis=1)
        if kind == "gru":
            reset, update = (sigmoid(of_input[k] + of_state[k]) for k in range(2))
            new = np.tanh(of_input[2] + reset * of_state[2])
            h = (1 - update) * new + update * h
        else:
            entry, forget, cell, output = (of_input[k] + of_state[k] for k in range(4))
            c = sigmoid(forget) * c + sigmoid(entry) * np.tanh(cell)
            h = sigmoid(output) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, axis=1), h
