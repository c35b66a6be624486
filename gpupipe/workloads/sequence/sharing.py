"""How many networks of a run are trained at once: measured on its own data before it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpupipe.config import Config
from gpupipe.data.panel import Panel
from gpupipe.dataset.row_view import RowView
from gpupipe.estimators.torch.architecture import ARCHITECTURES, Head
from gpupipe.estimators.torch.scaler import fit_scaler
from gpupipe.estimators.torch.sequence import LOG_RETURN
from gpupipe.kernels.cores import available_cores
from gpupipe.workloads.equity import recipe as of_equity
from gpupipe.workloads.sequence import recipe
from gpupipe.workloads.sequence.settings import SECTION

if TYPE_CHECKING:
    from gpupipe.estimators.torch.side_by_side import SideBySide

BARS = 6_000  # of the first symbol, at most, on which it is measured


def measure(panel: Panel, settings: Config) -> SideBySide | None:
    """Whether networks side by side, a thread each, or one after the other give more rows a second on these cores.

    None where there is nothing to choose: no network, one training, one core, or a GPU. A choice changes no byte of
    the results. Takes a few seconds.
    """
    n_symbols = 1 if settings.training.pool == "all" else panel.n_symbols
    n_trainings = n_symbols * max(1, settings.split.walk_forward)
    cores = available_cores()
    if SECTION not in settings.training.models or panel.device.kind != "cpu" or min(n_trainings, cores) < 2:
        return None
    import torch

    from gpupipe.estimators.torch.losses import HeadLoss, HeadLosses, HeadTargets
    from gpupipe.estimators.torch.network import Network
    from gpupipe.estimators.torch.plan import TrainingPlan
    from gpupipe.estimators.torch.side_by_side import choose
    from gpupipe.estimators.torch.windows import Windows

    section, symbol = settings.sections[SECTION], panel.groups[0]
    bars = panel.of_group(symbol)
    bars = bars.take(np.arange(bars.n_rows) >= bars.n_rows - BARS)
    features, labels = of_equity.features_of(bars, settings, None), recipe.labels_of(bars, settings)
    dataset = recipe.dataset(bars, features, labels, symbol, settings)
    view = RowView(dataset, np.flatnonzero(dataset.usable))
    if not view.n:
        return None
    windows = Windows([view.features], section.length, fit_scaler([view.features], section.scaling, section.clip))
    heads = [*(Head(name, dataset.target.n_outputs) for name in dataset.target.names), Head(LOG_RETURN, 1)]
    targets = HeadTargets.of([*dataset.y[view.rows].T, view.extra(LOG_RETURN)])

    def network() -> Network:
        generator = torch.Generator().manual_seed(settings.seed)
        return Network(ARCHITECTURES[section.network], section.length, windows.n_columns, heads, generator)

    losses = HeadLosses([HeadLoss(head) for head in heads])
    plan = TrainingPlan.of(section, settings.seed)
    return choose(n_trainings, cores, network, windows, targets, losses, plan)
