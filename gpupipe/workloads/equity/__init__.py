"""Equity: bars of many symbols in sectors, labels by barriers, 396 models."""

from gpupipe.estimators import registry
from gpupipe.pipeline.supervised import SupervisedWorkload
from gpupipe.workloads.equity import recipe
from gpupipe.workloads.equity.settings import DEFAULT_MODELS, Labels, catalogue, make, with_table

EQUITY = SupervisedWorkload(
    name="equity",
    place="gpupipe.workloads.equity:EQUITY",
    catalogue=catalogue,
    target=recipe.target,
    features=recipe.features_of,
    dataset=lambda panel, features, group, settings: recipe.join(
        panel,
        features,
        recipe.labels_of(panel, settings),
        group,
        settings.training.sample_weight == "uniqueness",
        lookback=registry.lookback(settings),
    ),
    outline=recipe.outline,
    kernels=recipe.kernels_of,
    returns=lambda target, column: recipe.forward_return(target.horizon_rows[column]),
    trades=recipe.trades_of,
    volatility=recipe.NATR,
    baselines=recipe.BASELINES,
)

__all__ = ["DEFAULT_MODELS", "EQUITY", "Labels", "catalogue", "make", "with_table"]
