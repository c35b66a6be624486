"""Equity: bars of many symbols in sectors, labels by barriers, 396 models."""

from gpupipe.estimators import registry
from gpupipe.estimators.baselines.class_shares import PooledPrior, TableOfColumn
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
    baselines=(
        PooledPrior(),
        TableOfColumn(
            "volatility_table_sector", recipe.NATR, pooled=False, reference_table=True, short_name="volat. sector"
        ),
        TableOfColumn(
            "volatility_table_all", recipe.NATR, pooled=True, reference_table=True, short_name="volat. pooled"
        ),
        TableOfColumn("momentum_table", recipe.MOMENTUM, pooled=True, short_name="momentum"),
        TableOfColumn("reversal_table", recipe.REVERSAL, pooled=True, short_name="reversal"),
    ),
)

__all__ = ["DEFAULT_MODELS", "EQUITY", "Labels", "catalogue", "make", "with_table"]
