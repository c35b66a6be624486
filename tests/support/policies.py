"""Weights of recurrent policies for tests, and a step of one in plain numpy, float64."""

from __future__ import annotations

import numpy as np

from tests.support.network_oracle import sigmoid

N_OBSERVATIONS, N_ACTIONS = 5, 4


def arrays_of_policy(layers=1, size=8, heads=(6, 4), n_observations=N_OBSERVATIONS, n_actions=N_ACTIONS, seed=0):
    """float32 arrays by the names of a `RecurrentPolicy`, of the size that they have in a trained one."""
    rng, shapes, width = np.random.default_rng(seed), {}, n_observations
    for layer in range(layers):
        shapes |= {f"lstm.weight_ih_l{layer}": (4 * size, width), f"lstm.weight_hh_l{layer}": (4 * size, size)}
        shapes |= {f"lstm.bias_{name}_l{layer}": (4 * size,) for name in ("ih", "hh")}
        width = size
    for head, n_outputs in (("policy_head", n_actions), ("value_head", 1)):
        widths = (size, *heads, n_outputs)
        for k in range(len(widths) - 1):
            shapes |= {f"{head}.{k}.weight": (widths[k + 1], widths[k]), f"{head}.{k}.bias": (widths[k + 1],)}
    return {
        name: (rng.normal(size=shape) / np.sqrt(shape[-1] if len(shape) == 2 else 9)).astype(np.float32)
        for name, shape in shapes.items()
    }


def naive_step(arrays, observations, h, c):
    """Logits, values, next h and c, float64, by the equations in Torch's documentation; states (n, layers * size)."""
    arrays = {name: array.astype(np.float64) for name, array in arrays.items()}
    size = arrays["lstm.weight_hh_l0"].shape[1]
    x, next_h, next_c = observations.astype(np.float64), [], []
    for layer in range(h.shape[1] // size):
        own = {name: arrays[f"lstm.{name}_l{layer}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        before, cell = (state[:, layer * size : (layer + 1) * size].astype(np.float64) for state in (h, c))
        gates = x @ own["weight_ih"].T + own["bias_ih"] + before @ own["weight_hh"].T + own["bias_hh"]
        entry, forget, new, output = np.split(gates, 4, axis=1)
        cell = sigmoid(forget) * cell + sigmoid(entry) * np.tanh(new)
        x = sigmoid(output) * np.tanh(cell)
        next_h.append(x)
        next_c.append(cell)
    outputs = []
    for head in ("policy_head", "value_head"):
        y, n_layers = x, sum(name.startswith(head) for name in arrays) // 2
        for k in range(n_layers):
            y = y @ arrays[f"{head}.{k}.weight"].T + arrays[f"{head}.{k}.bias"]
            y = np.maximum(y, 0) if k < n_layers - 1 else y
        outputs.append(y)
    return outputs[0], outputs[1][:, 0], np.concatenate(next_h, axis=1), np.concatenate(next_c, axis=1)
