"""xgb_hist and xgb_leafwise: boosted trees of one sector and one label, early-stopped on validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpupipe import config
from gpupipe.models import trees
from gpupipe.models.fold import BUY, N_CLASSES, SELL, Fold, clear_labels, quantile_matrix
from gpupipe.models.trees import Stage, TreeModel


def too_few(fold: Fold, sector: str, minimum: int) -> list[bool]:
    """For each label, whether the fitted rows of a sector hold fewer than `minimum` of BUY or of SELL."""
    return [bool(min(row[SELL], row[BUY]) < minimum) for row in fold.counts[sector]]


def fit_pool(
    fold: Fold, stage: config.Booster, patience: int, minimum: int, like: Sequence[TreeModel | None] | None
) -> list[TreeModel | None]:
    """Over all sectors, the labels of which some sector has too few positives; None for the others.

    minimum: BUY and SELL rows, each, below which a sector does not fit a label by itself.
    like: models whose presence and numbers of rounds are taken; chosen by `minimum` and on validation if None.
    """
    if like:
        needed = [model is not None for model in like]
    else:
        few = [too_few(fold, sector, minimum) for sector in fold.sectors]
        needed = [len(fold.sectors) > 1 and any(column) for column in zip(*few, strict=True)]
    parts = list(fold.validation.values())
    validation = validation_y = None
    if parts and any(needed):
        validation = quantile_matrix([rows.X for rows in parts], fold.max_bin, fold.threads, ref=fold.bins())
        validation_y = fold.device.xp.concatenate([rows.y for rows in parts])
    y = fold.device.xp.concatenate([rows.y for rows in fold.fit.values()])
    models = [
        _fit(
            fold, stage, patience, k, fold.bins(), y, validation, validation_y, fold.shares()[k], fold.weights()[k],
            fold.threads, _rounds(like, k), "pool",
        )
        if needed[k]
        else None
        for k in range(fold.n_labels)
    ]  # fmt: skip
    clear_labels(fold.bins())
    return models


def fit_sector(
    fold: Fold, sector: str, stage: config.Booster, patience: int, minimum: int,
    pooled: Sequence[TreeModel | None], like: Sequence[TreeModel] | None,
) -> list[TreeModel]:  # fmt: skip
    """One model for each label of a sector: its own, or the pooled one where it has too few positives."""
    few = [model.scope == "pool" for model in like] if like else too_few(fold, sector, minimum)
    bins = fold.bins(sector)
    validation = fold.validation_bins(sector, bins) if fold.validation else None
    validation_y = fold.validation[sector].y if fold.validation else None
    shares, weights = fold.shares([sector]), fold.weights([sector])
    models = []
    for k, shared in enumerate(pooled):
        if few[k] and shared is not None:
            models.append(shared)
        else:
            models.append(
                _fit(
                    fold, stage, patience, k, bins, fold.fit[sector].y, validation, validation_y, shares[k],
                    weights[k], 1, _rounds(like, k), "sector",
                )
            )  # fmt: skip
    return models


def _rounds(like: Sequence[TreeModel | None] | None, label: int) -> int | None:
    model = like[label] if like else None
    return model.stages[0].rounds if model else None


def _fit(
    fold: Fold, stage: config.Booster, patience: int, label: int, bins: Any, y: Any, validation: Any,
    validation_y: Any, shares: np.ndarray, weight: np.ndarray, threads: int, rounds: int | None, scope: str,
) -> TreeModel:  # fmt: skip
    """Train one label on bins that are shared with others: set its label, weight and starting margin, then boost."""
    import xgboost

    bias = np.log(shares).astype(np.float32)
    _set_label(bins, y[:, label], bias + np.log(weight), weight, fold)
    parameters = {
        **trees.parameters(stage, fold.device, fold.max_bin, threads, fold.seed),
        "objective": "multi:softprob",
        "num_class": N_CLASSES,
        "eval_metric": "mlogloss",
    }
    early: dict[str, Any] = {}
    if validation is not None:
        # Validated without the class weights: that is the loss of the corrected probabilities.
        _set_label(validation, validation_y[:, label], bias, np.ones(N_CLASSES, np.float32), fold)
        early = {"evals": [(validation, "validation")], "early_stopping_rounds": patience, "verbose_eval": False}
    booster = xgboost.train(parameters, bins, num_boost_round=rounds or stage.rounds, **early)
    trees.refuse_silent_cpu(booster, fold.device)
    best = rounds or booster.best_iteration + 1
    return TreeModel((Stage(booster[:best], best, 0, N_CLASSES),), bias + np.log(weight), "softmax", weight, scope)


def _set_label(matrix: Any, y: Any, bias: np.ndarray, weight: np.ndarray, fold: Fold) -> None:
    """Give a shared matrix one label; rows whose label is not known weigh nothing."""
    xp = fold.device.xp
    known = y >= 0
    label = xp.where(known, y, 1)
    row_weight = xp.where(known, fold.device.asarray(weight)[label.astype(xp.int64)], 0).astype(xp.float32)
    margin = xp.tile(fold.device.asarray(bias.astype(np.float32)), (y.shape[0], 1))
    matrix.set_info(label=label.astype(xp.float32), weight=row_weight, base_margin=margin)
