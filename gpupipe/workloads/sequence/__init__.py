"""Sequence: bars of one symbol or of several, each a group of its own, for recurrent networks on windows of bars."""

from gpupipe.pipeline.supervised import SupervisedWorkload
from gpupipe.workloads.equity import recipe as of_equity
from gpupipe.workloads.sequence import recipe
from gpupipe.workloads.sequence.measures import ReturnMeasures
from gpupipe.workloads.sequence.settings import DEFAULT_MODELS, PRESETS, Labels, catalogue

SEQUENCE = SupervisedWorkload(
    name="sequence",
    place="gpupipe.workloads.sequence:SEQUENCE",
    catalogue=catalogue,
    target=recipe.target,
    features=of_equity.features_of,
    labels=recipe.labels_of,
    dataset=recipe.dataset,
    outline=recipe.outline,
    kernels=recipe.kernels_of,
    returns=lambda target, column: of_equity.forward_return(target.horizon_rows[column]),
    trades=of_equity.trades_of,
    volatility=of_equity.NATR,
    baselines=of_equity.BASELINES,
    measures=ReturnMeasures(),
)

__all__ = ["DEFAULT_MODELS", "PRESETS", "SEQUENCE", "Labels", "catalogue"]
