"""xgb_hist and xgb_leafwise: boosted trees of one sector and one label, early-stopped on validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from gpupipe import config
from gpupipe.estimators.boosting import gradient_boosting
from gpupipe.estimators.boosting.gradient_boosting import Grown, Target, Watch
from gpupipe.estimators.boosting.tree_model import Stage, TreeModel
from gpupipe.estimators.earlier import Earlier
from gpupipe.estimators.training_set import Fold
from gpupipe.targets.classes import BUY, SELL

POOL_SHARE = 0.25


def too_few(fold: Fold, sector: str, minimum: int) -> list[bool]:
    """For each label, whether the fitted rows of a sector hold fewer than `minimum` of BUY or of SELL."""
    return [bool(min(row[SELL], row[BUY]) < minimum) for row in fold.counts[sector]]


def fit_pool(
    fold: Fold, stage: config.Booster, patience: int, minimum: int, like: Sequence[TreeModel | None] | None,
    earlier: Earlier | None = None,
) -> list[TreeModel | None]:  # fmt: skip
    """Over all sectors, the labels of which some sector has too few positives; None for the others.

    minimum: BUY and SELL rows, each, below which a sector does not fit a label by itself.
    like: models whose presence and numbers of rounds are taken; chosen by `minimum` and on validation if None.
    earlier: an earlier run's models of the same labels, to go on from where a label was shared there too.
    """
    if like:
        needed = [model is not None for model in like]
    else:
        few = [too_few(fold, sector, minimum) for sector in fold.sectors]
        needed = [len(fold.sectors) > 1 and any(column) for column in zip(*few, strict=True)]
    # Where trees see a share of the rows, these need no more rows than those of a sector, of which all have many.
    fewer = stage if stage.subsample == 1 else dataclasses.replace(stage, subsample=stage.subsample * POOL_SHARE)
    return [
        fit_label(fold, None, k, fewer, patience, _rounds(like, k), None, earlier) if needed[k] else None
        for k in range(fold.n_labels)
    ]


def fit_sector(
    fold: Fold, sector: str, stages: Sequence[config.Booster], patience: int, minimum: int,
    pooled: Sequence[TreeModel | None], like: Sequence[TreeModel] | None, earlier: Earlier | None = None,
) -> list[TreeModel]:  # fmt: skip
    """One model for each label of a sector: its own, or the pooled one where it has too few positives.

    stages: how to boost each label.  earlier: as of `fit_pool`, where a sector had its own model there too.
    """
    few = [model.scope == "pool" for model in like] if like else too_few(fold, sector, minimum)
    return [
        shared
        if few[k] and shared is not None
        else fit_label(fold, sector, k, stages[k], patience, _rounds(like, k), None, earlier)
        for k, shared in enumerate(pooled)
    ]


def _rounds(like: Sequence[TreeModel | None] | None, label: int) -> int | None:
    model = like[label] if like else None
    return model.stages[0].rounds if model else None


def fit_label(
    fold: Fold, sector: str | None, label: int, stage: config.Booster, patience: int, rounds: int | None,
    watch: Watch | None = None, earlier: Earlier | None = None,
) -> TreeModel:  # fmt: skip
    """One label's model, of one sector's rows or (None) of all.

    patience: rounds without a lower validation log-loss; 0 takes all of stage.rounds.
    rounds: how many, as an earlier fit chose; chosen on validation if None.
    earlier: an earlier run's models; the one of this label is gone on from, if its scope is the same.
    """
    own = None if sector is None else [sector]
    shares, weight = fold.shares(own)[label], fold.weights(own)[label]
    bias = np.log(shares).astype(np.float32)
    target = Target([label], lambda rows: rows.tile(bias, fold.device), weight[None], np.ones(1, np.float32))
    old = None
    if earlier:
        model = earlier.pooled()[label] if sector is None else earlier.by_sector[sector][label]
        if model is not None and model.scope == ("pool" if sector is None else "sector"):
            old = Grown(model.stages[0].booster, (model.stages[0].rounds,))
    boosted = gradient_boosting.boost(
        fold, sector, target, stage, patience, None if rounds is None else [rounds], watch, old
    )
    return TreeModel(
        (Stage(boosted.used, boosted.rounds[0], 0),), bias + np.log(weight), "softmax", weight,
        "pool" if sector is None else "sector",
        earlier.started(boosted.from_old(0)) if earlier else None,
    )  # fmt: skip
