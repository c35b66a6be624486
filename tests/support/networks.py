"""Networks of the presets for tests, with weights and running moments that are not those of the start."""

from __future__ import annotations

import numpy as np
import torch

from gpupipe.estimators.torch.architecture import ARCHITECTURES, Head
from gpupipe.estimators.torch.network import Network

LENGTHS = {"fast": 60, "balanced": 90, "quality": 120, "legacy": 120}
HEADS = (Head("label_1d_5pct", 3), Head("log_return_1", 1), Head("label_5d_10pct", 3))
N_COLUMNS = 11


def windows_of(n_rows, length, n_columns=N_COLUMNS, seed=0):
    """float32 (n_rows, length, n_columns): scaled columns that move slowly, as features do."""
    steps = np.random.default_rng(seed).normal(size=(n_rows, length, n_columns))
    return np.clip(steps.cumsum(axis=1) / np.sqrt(length), -4, 4).astype(np.float32)


def network_of(name, length=None, n_columns=N_COLUMNS, seed=0):
    """A network whose biases, scales and running moments are random too, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    network = Network(ARCHITECTURES[name], length or LENGTHS[name], n_columns, HEADS, generator)
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if tensor.ndim == 1:
                noise = torch.randn(tensor.shape, generator=generator)
                tensor += 0.2 * (noise.abs() if key.endswith("running_var") else noise)
    return network.eval()
