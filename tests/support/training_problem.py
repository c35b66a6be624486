"""A small problem for the tests of training: noisy windows whose sum says the class, and the last bar's value."""

from __future__ import annotations

import numpy as np

from gpupipe.dataset.row_view import RowView
from gpupipe.estimators.torch.architecture import Architecture, Convolution, Head, Recurrent
from gpupipe.estimators.torch.losses import HeadLoss, HeadTargets
from gpupipe.estimators.torch.scaler import fit_scaler
from gpupipe.estimators.torch.windows import Windows
from tests.support.matrices import CPU, dataset_of

LENGTH, N_COLUMNS = 8, 3
HEADS = (Head("label", 3), Head("value", 1))
LOSSES = (HeadLoss(HEADS[0]), HeadLoss(HEADS[1], 0.5, deviation=0.8))
SMALL = Architecture((Convolution(6),), (Recurrent("gru", 8, normalised=True), Recurrent("gru", 5)), (6,), dropout=0.2)


def problem(n_rows=700, seed=0, noise=0.5, length=LENGTH, device=CPU) -> tuple[Windows, HeadTargets]:
    """Windows of rows in random order, and their targets, some of them unknown."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows + 50, N_COLUMNS)).astype(np.float32)
    X[rng.random(X.shape) < 0.05] = np.nan
    view = RowView(dataset_of(X, device=device), rng.permutation(n_rows + 50)[:n_rows]).features
    windows = Windows([view], length, fit_scaler([view]))
    known = np.nan_to_num(view.device.to_host(view.windows(LENGTH)))
    score = known[:, -4:, 0].sum(axis=1) + noise * rng.normal(size=n_rows)
    y = np.digitize(score, [-1, 1]).astype(np.int8)
    value = (0.8 * known[:, -1, 1] + 0.1 * rng.normal(size=n_rows)).astype(np.float32)
    y[rng.random(n_rows) < 0.1], value[rng.random(n_rows) < 0.1] = -1, np.nan
    return windows, HeadTargets.of([y, value], torch_device=device.kind)


def network_of(seed=0, architecture=SMALL, length=LENGTH):
    """A fresh network; equal seeds give equal ones."""
    import torch

    from gpupipe.estimators.torch.network import Network

    return Network(architecture, length, N_COLUMNS, HEADS, torch.Generator().manual_seed(seed))
