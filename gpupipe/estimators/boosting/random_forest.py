"""random_forest: one forest for all targets over all groups, then a group's trees on what it leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gpupipe.config import Config, Section
from gpupipe.dataset.row_view import BLOCK_ROWS, RowView, whole
from gpupipe.estimators.boosting import tree_model
from gpupipe.estimators.boosting.binned_matrix import Sample, binned
from gpupipe.estimators.boosting.gradient_boosting import target_scale
from gpupipe.estimators.boosting.settings import Booster
from gpupipe.estimators.boosting.tree_estimator import TreeEstimator
from gpupipe.estimators.boosting.tree_model import N_OUTPUTS, Grower, Stage, TreeModel
from gpupipe.estimators.contract import EstimatorSettings, Shape
from gpupipe.estimators.three_classes import CLASS_COUNT, LOWER, UPPER
from gpupipe.estimators.training_set import TrainingSet, tile
from gpupipe.evaluation.paired_test import clearly_better
from gpupipe.runtime.placement import Size, Work

# Hessian of activity and of direction: leaves go half of the way in direction, which counts half when a split is
# chosen, as in xgb_joint (kernels.softmax.activity_gradient).
STEEPNESS = np.array([1, 2], dtype=np.float32)


@dataclass(frozen=True)
class Forest:
    """A random forest; the group's own trees are fitted to what the pooled forest leaves.

    >>> Forest(trees=30).subsample, Forest(depth=0).problem()
    (0.25, ('depth', '1 or more'))
    """

    MAY_BE_ZERO: ClassVar[tuple[str, ...]] = ("column_share",)
    trees: int = 100
    sector_trees: int = 50
    depth: int = 7
    subsample: float = 0.25
    column_share: float = 0.25  # of the columns, drawn for each node; 0: the square root of their number
    min_rows: float = 50.0
    shrink_rows: float = 50.0  # pseudo-rows of the class prior (pooled) or of no change (group) in every leaf
    sector_shrink_rows: float = 500.0

    def problem(self) -> tuple[str, str] | None:
        """The field that cannot be used, and what is expected of it."""
        return None if self.depth >= 1 else ("depth", "1 or more")


class RandomForest(TreeEstimator):
    """A random forest of class shares, on the same bins as the boosters.

    >>> forest = RandomForest()
    >>> forest.sections["forest"].start("fast").trees, forest.uses_bins, forest.pooled_sample
    (30, True, 'forest')
    """

    name = "random_forest"
    short_name = "forest"
    sections = {
        "forest": Section(
            Forest,
            {
                "fast": Forest(trees=30, sector_trees=15, depth=6),
                "quality": Forest(trees=300, sector_trees=150, depth=8),
            },
        )
    }
    pooled_sample = "forest"
    chart_style = ("m5", "triangle-down", (8, 4))
    first_cost_us = (25.0, 12.0)

    def fit_pool(
        self, training_set: TrainingSet, settings: EstimatorSettings, frozen_choices: Sequence[TreeModel] | None
    ) -> list[TreeModel]:
        """Fit the pooled forest: squared error on one-hot classes makes leaves class shares.

        The squared errors of a row's three classes add up to 0, so the middle class has the share that the outer leave.
        """
        weighted = training_set.shares() * training_set.weights()
        bias = (weighted / weighted.sum(axis=1, keepdims=True)).astype(np.float32)
        forest = settings.forest
        samples = binned(training_set).samples(forest.subsample)
        plan = _Growth(forest, forest.trees, forest.shrink_rows, training_set.threads)
        booster = _grow(training_set, samples, lambda rows: tile(bias.ravel(), rows), plan)
        return [
            TreeModel(
                (Stage(booster, forest.trees, N_OUTPUTS * k),),
                bias[k],
                "identity",
                training_set.weights()[k],
                training_set.pool_scope,
            )
            for k in range(training_set.n_targets)
        ]

    def fit_group(
        self,
        training_set: TrainingSet,
        group: str,
        settings: EstimatorSettings,
        pooled: Sequence[TreeModel],
        frozen_choices: Sequence[TreeModel] | None,
    ) -> list[TreeModel]:
        """One model for each target: the pooled forest, with the group's own trees where they clearly help."""
        use_group = [model.scope == "sector" for model in frozen_choices] if frozen_choices else None
        if len(training_set.groups) == 1 or (use_group is not None and not any(use_group)):
            return list(pooled)
        bias, forest = np.concatenate([model.bias for model in pooled]), settings.forest

        def expected(rows: RowView) -> Any:
            start = tile(bias, rows)
            tree_model.add_activity(
                start, tree_model.stage_margin(pooled[0].stages[0].booster, rows.X, 0, forest.trees)
            )
            return start

        samples = binned(training_set).samples(forest.subsample, group)
        plan = _Growth(forest, forest.sector_trees, forest.sector_shrink_rows, 1)
        booster = _grow(training_set, samples, expected, plan)
        with_group_trees = [
            dataclasses.replace(
                model, stages=(*model.stages, Stage(booster, forest.sector_trees, N_OUTPUTS * k)), scope="sector"
            )
            for k, model in enumerate(pooled)
        ]
        if use_group is None:
            use_group = _worthwhile(training_set, group, pooled, with_group_trees)
        return [
            group_model if use else shared
            for group_model, shared, use in zip(with_group_trees, pooled, use_group, strict=True)
        ]

    def sampled_shares(self, settings: Config) -> tuple[list[float], list[float]]:
        """The forest's share, of both stages."""
        return [settings.forest.subsample], [settings.forest.subsample]

    def work(self, size: Size, settings: Config, pooled: bool) -> Work:
        """Trees of all targets."""
        forest = settings.forest
        values = size.rows * size.columns * N_OUTPUTS * size.targets * forest.depth
        return Work("forest", forest.trees if pooled else forest.sector_trees, values, forest.subsample)

    def fit_bytes(self, shape: Shape, settings: Config, sparing: bool) -> float:
        """Derivatives, and XGBoost's histograms of the leaves."""
        forest, outputs = settings.forest, 2 * shape.n_targets
        leaves = min(2.0 ** (forest.depth + 1), shape.fit / max(1.0, 4 * forest.min_rows))
        histograms = 2 * leaves * shape.n_features * settings.training.max_bin * outputs * 16
        return shape.fit * 8 * outputs * 1.5 + histograms


def _worthwhile(
    training_set: TrainingSet, group: str, pooled: Sequence[TreeModel], with_group_trees: Sequence[TreeModel]
) -> list[bool]:
    rows, device = training_set.validation[group], training_set.device
    y, time_ns = device.to_host(rows.y), device.to_host(rows.time_ns)
    losses = []
    for models in (with_group_trees, pooled):
        probability = device.to_host(tree_model.predict_trees(models, whole(rows.X), device))
        known = np.take_along_axis(probability, np.maximum(y, 0)[:, :, None].astype(np.int64), axis=2)[:, :, 0]
        losses.append(np.where(y >= 0, -np.log(known), np.nan))
    return [clearly_better(losses[0][:, k], losses[1][:, k], time_ns) for k in range(training_set.n_targets)]


@dataclass(frozen=True)
class _Growth:
    """How trees are grown. shrink_rows: pseudo-rows without a residual that shrink every leaf."""

    forest: Forest
    n_trees: int
    shrink_rows: float
    threads: int


def _grow(
    training_set: TrainingSet, samples: Sequence[Sample], expected: Callable[[RowView], Any], growth: _Growth
) -> Any:
    """Trees on the residuals of `expected`, each on one of the samples in turn, that add up to their mean.

    expected(rows): shares float32 (n_rows, 3 * n_targets).
    """
    forest, n_trees = growth.forest, growth.n_trees
    stage = Booster(
        rounds=n_trees,
        learning_rate=1.0 / n_trees,
        depth=forest.depth,
        l2=growth.shrink_rows,
        min_child_weight=forest.min_rows * float(STEEPNESS.mean()),
        column_share=forest.column_share or training_set.n_columns**-0.5,
    )
    parameters = tree_model.parameters(
        stage, training_set.device, training_set.max_bin, growth.threads, training_set.seed
    )
    booster = tree_model.vector_leaf(parameters, training_set.n_targets, samples[0].bins)
    turns = samples[:n_trees]
    matrices = {id(sample.bins): sample for sample in turns}  # which samples may share
    derivatives = {key: _derivatives(training_set, sample, expected) for key, sample in matrices.items()}
    grower = Grower(booster, training_set.device)
    for k in range(n_trees):
        sample = turns[k % len(turns)]
        sample.boost(grower, k, *derivatives[id(sample.bins)])
    tree_model.refuse_silent_cpu(booster, training_set.device)
    return booster.reset()  # or it keeps hold of the bins and of the last tree's rows


def _derivatives(training_set: TrainingSet, sample: Sample, expected: Callable[[RowView], Any]) -> tuple[Any, Any]:
    """Gradient and Hessian of the weighted squared error, float32 (n_rows, 2 * n_targets)."""
    xp, n_rows = training_set.device.xp, sum(rows.n for rows in sample.blocks)
    gradient, hessian = (xp.empty((n_rows, N_OUTPUTS * training_set.n_targets), dtype=xp.float32) for _ in range(2))
    done = 0
    for rows in sample.blocks:
        for first in range(0, rows.n, BLOCK_ROWS):  # intermediate arrays are four times as large
            block = rows.slice(first, first + BLOCK_ROWS)
            at = slice(done, done + block.n)
            gradient[at], hessian[at] = _derivatives_of_rows(training_set, block, expected)
            done += block.n
    return gradient, hessian


def _derivatives_of_rows(
    training_set: TrainingSet, rows: RowView, expected: Callable[[RowView], Any]
) -> tuple[Any, Any]:
    device, xp, y = training_set.device, training_set.device.xp, rows.y
    shares = expected(rows).reshape(-1, training_set.n_targets, CLASS_COUNT)
    lower, upper = (shares[:, :, c] - (y == c) for c in (LOWER, UPPER))
    # The lower class is activity less direction, the upper their sum: half of the sum and of the difference of errors.
    error = xp.stack([(upper + lower) / 2, (upper - lower) / 2], axis=2)
    class_weight = xp.take_along_axis(
        device.asarray(training_set.weights())[None], xp.maximum(y, 0)[:, :, None].astype(xp.int64), axis=2
    )
    weight = class_weight * device.asarray(target_scale(training_set))[None, :, None]
    weight = xp.where(y[:, :, None] >= 0, weight, 0).astype(xp.float32)
    if rows.weight is not None:
        weight = weight * rows.weight[:, :, None]
    gradient = (weight * error).astype(xp.float32).reshape(y.shape[0], -1)
    return gradient, (weight * device.asarray(STEEPNESS)).reshape(y.shape[0], -1)
