"""random_forest: one forest for all labels over all sectors, then a sector's trees on what it leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpupipe import config
from gpupipe.estimators.boosting import tree_model
from gpupipe.estimators.boosting.gradient_boosting import label_scale
from gpupipe.estimators.boosting.tree_model import N_OUTPUTS, Stage, TreeModel
from gpupipe.estimators.training_set import BLOCK_ROWS, Fold, Rows, Sample, whole
from gpupipe.evaluation.paired_test import clearly_better
from gpupipe.targets.classes import BUY, N_CLASSES, SELL

# Hessian of activity and of direction: leaves go half of the way in direction, which counts half when a split is
# chosen, as in xgb_joint (kernels.softmax.activity_gradient).
STEEPNESS = np.array([1, 2], dtype=np.float32)


def fit_pool(fold: Fold, settings: config.Config) -> list[TreeModel]:
    """Fit the pooled forest: a model for each label. Squared error on one-hot classes makes leaves class shares.

    The squared errors of a row's three classes add up to 0, so HOLD's share is what SELL's and BUY's leave.
    """
    weighted = fold.shares() * fold.weights()
    bias = (weighted / weighted.sum(axis=1, keepdims=True)).astype(np.float32)
    forest = settings.forest
    booster = _grow(
        fold, fold.samples(forest.subsample), lambda rows: rows.tile(bias.ravel(), fold.device), forest, forest.trees,
        forest.shrink_rows, fold.threads,
    )  # fmt: skip
    return [
        TreeModel(
            (Stage(booster, forest.trees, N_OUTPUTS * k),), bias[k], "identity", fold.weights()[k],
            fold.scope,
        )
        for k in range(fold.n_labels)
    ]  # fmt: skip


def fit_sector(
    fold: Fold, sector: str, settings: config.Config, pooled: Sequence[TreeModel], like: Sequence[TreeModel] | None
) -> list[TreeModel]:
    """One model for each label: the pooled forest, with the sector's own trees where they clearly help on validation.

    like: models of the same kind, whose choice is taken; chosen on validation if None.
    """
    use_own = [model.scope == "sector" for model in like] if like else None
    if len(fold.sectors) == 1 or (use_own is not None and not any(use_own)):
        return list(pooled)
    bias, forest = np.concatenate([model.bias for model in pooled]), settings.forest

    def expected(rows: Rows) -> Any:
        start = rows.tile(bias, fold.device)
        tree_model.add_activity(start, tree_model.stage_margin(pooled[0].stages[0].booster, rows.X, 0, forest.trees))
        return start

    samples = fold.samples(forest.subsample, sector)
    booster = _grow(fold, samples, expected, forest, forest.sector_trees, forest.sector_shrink_rows, 1)
    own = [
        dataclasses.replace(m, stages=(*m.stages, Stage(booster, forest.sector_trees, N_OUTPUTS * k)), scope="sector")
        for k, m in enumerate(pooled)
    ]
    if use_own is None:
        use_own = _worthwhile(fold, sector, pooled, own)
    return [o if use else p for o, p, use in zip(own, pooled, use_own, strict=True)]


def _worthwhile(fold: Fold, sector: str, pooled: Sequence[TreeModel], own: Sequence[TreeModel]) -> list[bool]:
    rows = fold.validation[sector]
    y, time_ns = fold.device.to_host(rows.y), fold.device.to_host(rows.time_ns)
    losses = []
    for models in (own, pooled):
        probability = fold.device.to_host(tree_model.predict_trees(models, whole(rows.X), fold.device))
        known = np.take_along_axis(probability, np.maximum(y, 0)[:, :, None].astype(np.int64), axis=2)[:, :, 0]
        losses.append(np.where(y >= 0, -np.log(known), np.nan))
    return [clearly_better(losses[0][:, k], losses[1][:, k], time_ns) for k in range(fold.n_labels)]


def _grow(
    fold: Fold, samples: Sequence[Sample], expected: Callable[[Rows], Any], forest: config.Forest, n_trees: int,
    shrink_rows: float, threads: int,
) -> Any:  # fmt: skip
    """Trees on the residuals of `expected`, each on one of the samples in turn, that add up to their mean.

    expected(rows): shares float32 (n_rows, 3 * n_labels). Leaves are shrunk by pseudo-rows without a residual.
    """
    stage = config.Booster(
        rounds=n_trees, learning_rate=1.0 / n_trees, depth=forest.depth, l2=shrink_rows,
        min_child_weight=forest.min_rows * float(STEEPNESS.mean()),
        column_share=forest.column_share or fold.n_columns**-0.5,
    )  # fmt: skip
    parameters = tree_model.parameters(stage, fold.device, fold.max_bin, threads, fold.seed)
    booster = tree_model.vector_leaf(parameters, fold.n_labels, samples[0].bins)
    derivatives = [_derivatives(fold, sample, expected) for sample in samples[:n_trees]]
    for k in range(n_trees):
        gradient, hessian = derivatives[k % len(derivatives)]
        booster.boost(samples[k % len(derivatives)].bins, k, grad=gradient, hess=hessian)
    tree_model.refuse_silent_cpu(booster, fold.device)
    return booster.reset()  # or it keeps hold of the bins and of the last tree's rows


def _derivatives(fold: Fold, sample: Sample, expected: Callable[[Rows], Any]) -> tuple[Any, Any]:
    """Gradient and Hessian of the weighted squared error, float32 (n_rows, 2 * n_labels)."""
    xp, n_rows = fold.device.xp, sum(rows.n for rows in sample.blocks)
    gradient, hessian = (xp.empty((n_rows, N_OUTPUTS * fold.n_labels), dtype=xp.float32) for _ in range(2))
    done = 0
    for rows in sample.blocks:
        for first in range(0, rows.n, BLOCK_ROWS):  # what is made on the way is four times as large
            block = rows.slice(first, first + BLOCK_ROWS)
            at = slice(done, done + block.n)
            gradient[at], hessian[at] = _derivatives_of(fold, block, expected)
            done += block.n
    return gradient, hessian


def _derivatives_of(fold: Fold, rows: Rows, expected: Callable[[Rows], Any]) -> tuple[Any, Any]:
    xp, y = fold.device.xp, rows.y
    shares = expected(rows).reshape(-1, fold.n_labels, N_CLASSES)
    sold, bought = (shares[:, :, c] - (y == c) for c in (SELL, BUY))
    # SELL is activity less direction, BUY their sum: half of the sum and half of the difference of the errors.
    error = xp.stack([(bought + sold) / 2, (bought - sold) / 2], axis=2)
    class_weight = xp.take_along_axis(
        fold.device.asarray(fold.weights())[None], xp.maximum(y, 0)[:, :, None].astype(xp.int64), axis=2
    )
    weight = class_weight * fold.device.asarray(label_scale(fold))[None, :, None]
    weight = xp.where(y[:, :, None] >= 0, weight, 0).astype(xp.float32)
    if rows.weight is not None:
        weight = weight * rows.weight[:, :, None]
    gradient = (weight * error).astype(xp.float32).reshape(y.shape[0], -1)
    return gradient, (weight * fold.device.asarray(STEEPNESS)).reshape(y.shape[0], -1)
