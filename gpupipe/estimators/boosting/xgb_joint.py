"""xgb_joint: one vector-leaf booster for all labels and sectors, then rounds of the sector's own on its margins."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpupipe import config
from gpupipe.estimators.boosting import gradient_boosting, tree_model
from gpupipe.estimators.boosting.gradient_boosting import Boosted, Grown, Target, Watch, label_scale
from gpupipe.estimators.boosting.tree_model import N_OUTPUTS, Stage, TreeModel
from gpupipe.estimators.earlier import Earlier
from gpupipe.estimators.training_set import Fold, Rows
from gpupipe.evaluation.paired_test import clearly_better
from gpupipe.targets.classes import N_CLASSES


def fit_pool(
    fold: Fold, settings: config.Config, like: Sequence[TreeModel] | None, watch: Watch | None = None,
    earlier: Earlier | None = None,
) -> list[TreeModel]:  # fmt: skip
    """Fit the pooled booster: one model for each label, all of the same booster at the label's own number of rounds.

    like: models of the same kind whose numbers of rounds are taken; chosen on validation if None.
    earlier: an earlier run's models of the same labels, to go on from.
    """
    bias, weight = np.log(fold.shares()).astype(np.float32).ravel(), fold.weights()
    target = Target(range(fold.n_labels), lambda rows: rows.tile(bias, fold.device), weight, label_scale(fold))
    boosted = gradient_boosting.boost(
        fold, None, target, settings.joint, settings.training.early_stopping,
        [model.stages[0].rounds for model in like] if like else None, watch,
        _grown([model.stages[0] for model in next(iter(earlier.by_sector.values()))]) if earlier else None,
    )  # fmt: skip
    booster = boosted.used
    return [
        TreeModel(
            (Stage(booster, boosted.rounds[k], N_OUTPUTS * k),),
            bias[N_CLASSES * k : N_CLASSES * (k + 1)] + np.log(weight[k]), "softmax", weight[k], fold.scope,
            earlier.started(boosted.from_old(k)) if earlier else None,
        )
        for k in range(fold.n_labels)
    ]  # fmt: skip


def fit_sector(
    fold: Fold, sector: str, settings: config.Config, pooled: Sequence[TreeModel], like: Sequence[TreeModel] | None,
    earlier: Earlier | None = None,
) -> list[TreeModel]:  # fmt: skip
    """One model for each label of a sector: the pooled one, with own rounds where they clearly help on validation.

    like: models of the same kind whose numbers of own rounds are taken; chosen on validation if None.
    earlier: an earlier run's models of the same labels, to go on from.
    """
    rounds = [m.stages[1].rounds if len(m.stages) > 1 else 0 for m in like] if like else None
    if len(fold.sectors) == 1 or (rounds is not None and not any(rounds)):
        return list(pooled)
    target = Target(range(fold.n_labels), lambda rows: _margin(pooled, rows, fold), fold.weights(), label_scale(fold))
    had = [m.stages[1] if len(m.stages) > 1 else None for m in earlier.by_sector[sector]] if earlier else []
    own = gradient_boosting.boost(
        fold, sector, target, settings.joint_sector, settings.training.early_stopping, rounds, old=_grown(had)
    )
    if rounds is None:
        rounds = _worthwhile(fold, fold.validation[sector], target, own)
    booster = tree_model.first_rounds(own.booster, rounds)
    return [
        dataclasses.replace(
            m, stages=(*m.stages, Stage(booster, rounds[k], N_OUTPUTS * k)), scope="sector",
            warm=earlier.started(m.warm.rounds[0] if m.warm else 0, own.from_old(k)) if earlier else None,
        )
        if rounds[k] > 0
        else m
        for k, m in enumerate(pooled)
    ]  # fmt: skip


def _grown(stages: Sequence[Stage | None]) -> Grown | None:
    """What to go on from: the booster that an earlier run's labels share, 0 rounds where one did without."""
    boosters = [stage.booster for stage in stages if stage]
    return Grown(boosters[0], tuple(stage.rounds if stage else 0 for stage in stages)) if boosters else None


def _worthwhile(fold: Fold, rows: Rows, target: Target, own: Boosted) -> list[int]:
    """Own rounds of each label, or 0 where the pooled booster alone is not clearly worse on validation."""
    start = gradient_boosting.losses([target.start(rows)], [target.y(rows, fold.device)], fold.device)
    reference, time_ns = fold.device.to_host(start), fold.device.to_host(rows.time_ns)
    return [
        own.rounds[k] if clearly_better(own.loss[:, k], reference[:, k], time_ns) else 0 for k in range(fold.n_labels)
    ]


def _margin(pooled: Sequence[TreeModel], rows: Rows, fold: Fold) -> Any:
    """The pooled models' margins, float32 (n_rows, 3 * n_labels), corrected for class weights."""
    bias = np.concatenate([model.bias - np.log(model.class_weight) for model in pooled])
    margin = rows.tile(bias, fold.device)
    said = tree_model.margins([model.stages[0] for model in pooled], rows.X)
    for k, one in enumerate(said):
        if one is not None:
            tree_model.add_activity(margin[:, N_CLASSES * k : N_CLASSES * (k + 1)], one)
    return margin
