"""Networks of the presets for tests, with weights and running moments that are not those of the start."""

from __future__ import annotations

import torch

from gpupipe.estimators.torch.architecture import ARCHITECTURES
from gpupipe.estimators.torch.network import Network, load_arrays
from tests.support.network_oracle import HEADS, LENGTHS, N_COLUMNS, random_arrays


def network_of(name, length=None, n_columns=N_COLUMNS, seed=0):
    """The network of a preset with the weights of `random_arrays`, in eval mode."""
    network = Network(
        ARCHITECTURES[name], length or LENGTHS[name], n_columns, HEADS, torch.Generator().manual_seed(seed)
    )
    load_arrays(network, random_arrays(ARCHITECTURES[name], n_columns, seed=seed))
    return network.eval()
