"""Equity: bars of many symbols in sectors, labels by barriers, 396 models."""

from gpupipe.pipeline.supervised import SupervisedWorkload
from gpupipe.workloads.equity import recipe
from gpupipe.workloads.equity.settings import DEFAULT_MODELS, Labels, catalogue, make, with_table

EQUITY = SupervisedWorkload(
    name="equity",
    place="gpupipe.workloads.equity:EQUITY",
    catalogue=catalogue,
    target=recipe.target,
    features=recipe.features_of,
    labels=recipe.labels_of,
    dataset=recipe.dataset,
    outline=recipe.outline,
    kernels=recipe.kernels_of,
    returns=lambda target, column: recipe.forward_return(target.horizon_rows[column]),
    trades=recipe.trades_of,
    volatility=recipe.NATR,
    baselines=recipe.BASELINES,
)

__all__ = ["DEFAULT_MODELS", "EQUITY", "Labels", "catalogue", "make", "with_table"]
