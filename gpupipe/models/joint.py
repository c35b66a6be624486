"""xgb_joint: one vector-leaf booster for all labels and sectors, then rounds of the sector's own on its margins."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe import config
from gpupipe.kernels.softmax import activity_gradient, softmax_log_loss
from gpupipe.models import trees
from gpupipe.models.choose import clearly_better
from gpupipe.models.fold import N_CLASSES, Fold, Rows
from gpupipe.models.trees import N_OUTPUTS, Stage, TreeModel


@dataclass(frozen=True)
class _Boosted:
    booster: Any
    rounds: tuple[int, ...]  # for each label, the round with the lowest validation loss; all of them without validation
    loss: np.ndarray  # float32 (n_validation, n_labels), of each label at its round


def fit_pool(fold: Fold, settings: config.Config, like: Sequence[TreeModel] | None) -> list[TreeModel]:
    """Fit the pooled booster: one model for each label, all of the same booster at the label's own number of rounds.

    like: models of the same kind whose numbers of rounds are taken; chosen on validation if None.
    """
    bias = np.log(fold.shares()).astype(np.float32).ravel()
    rounds = [model.stages[0].rounds for model in like] if like else None
    boosted = _boost(
        fold, fold.bins(), list(fold.fit.values()), [rows.tile(bias, fold.device) for rows in fold.fit.values()],
        list(fold.validation.values()), [rows.tile(bias, fold.device) for rows in fold.validation.values()],
        settings.joint, settings.training.early_stopping, fold.threads, rounds,
    )  # fmt: skip
    booster, weight = trees.first_rounds(boosted.booster, boosted.rounds), fold.weights()
    return [
        TreeModel(
            (Stage(booster, boosted.rounds[k], N_OUTPUTS * k, N_OUTPUTS),),
            bias[N_CLASSES * k : N_CLASSES * (k + 1)] + np.log(weight[k]), "softmax", weight[k], fold.scope,
        )
        for k in range(fold.n_labels)
    ]  # fmt: skip


def fit_sector(
    fold: Fold, sector: str, settings: config.Config, pooled: Sequence[TreeModel], like: Sequence[TreeModel] | None
) -> list[TreeModel]:
    """One model for each label of a sector: the pooled one, with own rounds where they clearly help on validation.

    like: models of the same kind whose numbers of own rounds are taken; chosen on validation if None.
    """
    rounds = [m.stages[1].rounds if len(m.stages) > 1 else 0 for m in like] if like else None
    if len(fold.sectors) == 1 or (rounds is not None and not any(rounds)):
        return list(pooled)
    validation = [fold.validation[sector]] if rounds is None else []
    own = _boost(
        fold, fold.bins(sector), [fold.fit[sector]], [_margin(pooled, fold.fit[sector], fold)], validation,
        [_margin(pooled, v, fold) for v in validation], settings.joint_sector, settings.training.early_stopping, 1,
        rounds,
    )  # fmt: skip
    if rounds is None:
        rounds = _worthwhile(fold, sector, pooled, own)
    booster = trees.first_rounds(own.booster, rounds)
    return [
        dataclasses.replace(m, stages=(*m.stages, Stage(booster, rounds[k], N_OUTPUTS * k, N_OUTPUTS)), scope="sector")
        if rounds[k] > 0
        else m
        for k, m in enumerate(pooled)
    ]


def _worthwhile(fold: Fold, sector: str, pooled: Sequence[TreeModel], own: _Boosted) -> list[int]:
    """Own rounds of each label, or 0 where the pooled booster alone is not clearly worse on validation."""
    rows = fold.validation[sector]
    reference = fold.device.to_host(_losses([_margin(pooled, rows, fold)], [rows], fold))
    time_ns = fold.device.to_host(rows.time_ns)
    return [
        own.rounds[k] if clearly_better(own.loss[:, k], reference[:, k], time_ns) else 0 for k in range(fold.n_labels)
    ]


def _boost(
    fold: Fold, bins: Any, parts: list[Rows], start: list[Any], validation: list[Rows], validation_start: list[Any],
    settings: config.Booster, patience: int, threads: int, rounds: Sequence[int] | None,
) -> _Boosted:  # fmt: skip
    """Boost all labels together; margins stay on the device and grow by each round's trees."""
    xp, n_labels = fold.device.xp, fold.n_labels
    parameters = trees.parameters(settings, fold.device, fold.max_bin, threads, fold.seed)
    booster = trees.vector_leaf(parameters, n_labels, bins)
    margin, y = xp.concatenate(start), xp.concatenate([rows.y for rows in parts])
    weight = fold.device.asarray(fold.weights() * label_scale(fold)[:, None])
    # Boosting sees margins of weighted classes; what is validated is corrected for the weights.
    margin += fold.device.asarray(np.log(fold.weights()).ravel())
    gradient, hessian = (xp.empty((margin.shape[0], N_OUTPUTS * n_labels), dtype=xp.float32) for _ in range(2))
    best_loss = _losses(validation_start, validation, fold) if validation else xp.empty((0, n_labels), dtype="float32")
    means = [_mean(best_loss, fold)]
    for k in range(max(rounds) if rounds is not None else settings.rounds):
        activity_gradient(margin.shape[0], margin, y, weight, gradient, hessian)
        booster.boost(bins, k, grad=gradient, hess=hessian)
        if k == 0:
            trees.refuse_silent_cpu(booster, fold.device)
        _add_round(booster, k, parts, margin)
        if rounds is None:
            for rows, validated in zip(validation, validation_start, strict=True):
                trees.add_activity(validated, trees.stage_margin(booster, rows.X, k, k + 1))
            loss = _losses(validation_start, validation, fold)
            means.append(_mean(loss, fold))
            for label in np.flatnonzero(means[-1] < np.min(means[:-1], axis=0)):
                best_loss[:, label] = loss[:, label]
            if k + 1 - int(np.argmin(means, axis=0).max()) >= patience:
                break
    chosen = tuple(int(r) for r in (rounds if rounds is not None else np.argmin(means, axis=0)))
    return _Boosted(booster, chosen, fold.device.to_host(best_loss))


def label_scale(fold: Fold) -> np.ndarray:
    """float32 (n_labels,), mean 1: rare labels weigh more, by one over the root of their entropy.

    Every split is chosen for the sum of all labels' gains, and without this the most frequent label chooses them all.
    """
    shares = fold.shares()
    entropy = -(shares * np.log(shares)).sum(axis=1)
    scale = 1.0 / np.sqrt(entropy)
    return (scale / scale.mean()).astype(np.float32)


def _add_round(booster: Any, k: int, parts: list[Rows], margin: Any) -> None:
    first = 0
    for rows in parts:
        trees.add_activity(margin[first : first + rows.n], trees.stage_margin(booster, rows.X, k, k + 1))
        first += rows.n


def _margin(pooled: Sequence[TreeModel], rows: Rows, fold: Fold) -> Any:
    """The pooled models' margins, float32 (n_rows, 3 * n_labels), corrected for class weights."""
    bias = np.concatenate([model.bias - np.log(model.class_weight) for model in pooled])
    margin = rows.tile(bias, fold.device)
    stages = [model.stages[0] for model in pooled]
    by_rounds = {
        r: trees.stage_margin(stages[0].booster, rows.X, 0, r) for r in {stage.rounds for stage in stages} if r > 0
    }
    for k, stage in enumerate(stages):
        if stage.rounds > 0:
            said = by_rounds[stage.rounds][:, stage.column : stage.column + N_OUTPUTS]
            trees.add_activity(margin[:, N_CLASSES * k : N_CLASSES * (k + 1)], said)
    return margin


def _losses(margins: list[Any], parts: list[Rows], fold: Fold) -> Any:
    """float32 (n_rows, n_labels): log-loss of each row and label, NaN where the label is not known."""
    losses = []
    for margin, rows in zip(margins, parts, strict=True):
        losses.append(fold.device.xp.empty(rows.y.shape, dtype="float32"))
        softmax_log_loss(rows.n, margin, rows.y, losses[-1])
    return fold.device.xp.concatenate(losses)


def _mean(loss: Any, fold: Fold) -> np.ndarray:
    """Mean over the known rows, float64 (n_labels,), the only thing that a round brings to the host."""
    xp = fold.device.xp
    known = ~xp.isnan(loss)
    total = xp.where(known, loss, 0).sum(axis=0, dtype=xp.float64)
    return fold.device.to_host(total / xp.maximum(known.sum(axis=0), 1))
