"""xgb_hist and xgb_leafwise: boosted trees of one group and one target, early-stopped on validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpupipe.config import Config, Section
from gpupipe.estimators.boosting import gradient_boosting, tree_model
from gpupipe.estimators.boosting.gradient_boosting import EarlierBooster, Objective, Stopping
from gpupipe.estimators.boosting.settings import Booster
from gpupipe.estimators.boosting.tree_estimator import TreeEstimator, boosted_bytes, boosting_work, tree_ranges
from gpupipe.estimators.boosting.tree_model import Stage, TreeModel
from gpupipe.estimators.contract import EstimatorSettings, SearchSpace, Shape, Watch
from gpupipe.estimators.three_classes import LOWER, UPPER
from gpupipe.estimators.training_set import TrainingSet, tile
from gpupipe.runtime.placement import Size, Work

POOL_SHARE = 0.25


def too_few(training_set: TrainingSet, group: str, minimum: int) -> list[bool]:
    """For each target, whether the fitted rows of a group hold fewer than `minimum` of either outer class."""
    return [bool(min(row[LOWER], row[UPPER]) < minimum) for row in training_set.counts[group]]


def needs_pool(training_set: TrainingSet, minimum: int, frozen_choices: Sequence[Any | None] | None) -> list[bool]:
    """For each target, whether some group has too few rows of its own and so needs a pooled model."""
    if frozen_choices:
        return [model is not None for model in frozen_choices]
    few = [too_few(training_set, group, minimum) for group in training_set.groups]
    return [len(training_set.groups) > 1 and any(column) for column in zip(*few, strict=True)]


class XgbByLabel(TreeEstimator):
    """Boosted trees of one group and one target; a pooled booster where a group has too few rows of an outer class.

    >>> [(estimator.name, estimator.section, estimator.by_label) for estimator in (XgbHist(), XgbLeafwise())]
    [('xgb_hist', 'hist', True), ('xgb_leafwise', 'leafwise', True)]
    """

    shared_settings = ("early_stopping", "min_positives")
    by_label = True
    warm_startable = True
    kernels = gradient_boosting.KERNELS
    section: str

    def fit_pool(
        self, training_set: TrainingSet, settings: EstimatorSettings, frozen_choices: Sequence[TreeModel | None] | None
    ) -> list[TreeModel | None]:
        """Over all groups, the targets of which some group has too few positives; None for the others."""
        needed = needs_pool(training_set, settings.min_positives, frozen_choices)
        stage = getattr(settings, self.section)
        fewer = dataclasses.replace(stage, subsample=_share(stage, pooled=True))
        return [
            self.fit_label(training_set, None, k, fewer, Stopping(settings.early_stopping, _rounds(frozen_choices, k)))
            if needed[k]
            else None
            for k in range(training_set.n_targets)
        ]

    def fit_group(
        self,
        training_set: TrainingSet,
        group: str,
        settings: EstimatorSettings,
        pooled: Sequence[TreeModel | None],
        frozen_choices: Sequence[TreeModel] | None,
    ) -> list[TreeModel]:
        """One model for each target of a group: its own, or the pooled one where it has too few positives."""
        few = (
            [model.scope == "pool" for model in frozen_choices]
            if frozen_choices
            else too_few(training_set, group, settings.min_positives)
        )
        models = []
        for k, shared in enumerate(pooled):
            if few[k] and shared is not None:
                models.append(shared)
            else:
                stage = settings.for_label(self.section, group, training_set.target.names[k])
                stopping = Stopping(settings.early_stopping, _rounds(frozen_choices, k))
                models.append(self.fit_label(training_set, group, k, stage, stopping))
        return models

    def fit_label(
        self, training_set: TrainingSet, group: str | None, target: int, stage: Booster, stopping: Stopping
    ) -> TreeModel:
        """The model of one target, of the rows of one group or (None) of all."""
        groups = None if group is None else [group]
        shares, weight = training_set.shares(groups)[target], training_set.weights(groups)[target]
        bias = np.log(shares).astype(np.float32)
        objective = Objective([target], lambda rows: tile(bias, rows), weight[None], np.ones(1, np.float32))
        scope, old = "pool" if group is None else "sector", None
        if self.earlier:
            model = self.earlier.pooled()[target] if group is None else self.earlier.by_group[group][target]
            if model is not None and model.scope == scope:
                old = EarlierBooster(model.stages[0].booster, (model.stages[0].rounds,))
        boosted = gradient_boosting.boost(training_set, group, objective, stage, stopping, old)
        return TreeModel(
            (Stage(boosted.used, boosted.rounds[0], 0),),
            bias + np.log(weight),
            "softmax",
            weight,
            scope,
            self.earlier.started(boosted.from_old(0)) if self.earlier else None,
        )

    def search_label(
        self, training_set: TrainingSet, group: str, target: int, stage: Booster, patience: int, watch: Watch
    ) -> Any:
        """Predictions (n_rows, n_outputs) of a trial's model for the validation rows of a group."""
        model = self.fit_label(training_set, group, target, stage, Stopping(patience, None, watch))
        rows = training_set.validation[group]
        return tree_model.predict_trees([model], rows.X, training_set.device)[:, 0]

    def sampled_shares(self, settings: Config) -> tuple[list[float], list[float]]:
        """Only groups' fits draw samples as a rule; the pooled ones are few."""
        return [], [getattr(settings, self.section).subsample]

    def work(self, size: Size, settings: Config, pooled: bool) -> Work:
        """A booster for each target; of the pool for no more than these, as many need none."""
        stage = getattr(settings, self.section)
        return boosting_work(stage, size, _share(stage, pooled), together=False)

    def fit_bytes(self, shape: Shape, settings: Config, sparing: bool) -> float:
        """Margins and derivatives of one target of the largest group."""
        subsample = getattr(settings, self.section).subsample
        return boosted_bytes(shape, subsample) / shape.n_targets * shape.largest


def _share(stage: Booster, pooled: bool) -> float:
    """The share of the rows that a tree sees."""
    # Where trees see a share of the rows, those of the pool need no more than those of a group, of which all have many.
    return stage.subsample * POOL_SHARE if pooled and stage.subsample < 1 else stage.subsample


def _rounds(frozen_choices: Sequence[TreeModel | None] | None, target: int) -> list[int] | None:
    model = frozen_choices[target] if frozen_choices else None
    return [model.stages[0].rounds] if model else None


class XgbHist(XgbByLabel):
    """Depth-wise trees.

    >>> XgbHist().sections["hist"].start("fast").depth, sorted(XgbHist().search.ranges(Booster()))[:2]
    (3, ['column_share', 'depth'])
    """

    name = "xgb_hist"
    short_name = "hist"
    section = "hist"
    chart_style = ("m3", "square", (2, 2))
    sections = {
        "hist": Section(
            Booster,
            {
                "fast": Booster(rounds=60, learning_rate=0.1),
                "balanced": Booster(rounds=200, learning_rate=0.05),
                "quality": Booster(rounds=600, learning_rate=0.025),
            },
            by_group=True,
        )
    }
    search = SearchSpace("hist", tree_ranges)
    first_cost_us = (25.0, 60.0)


class XgbLeafwise(XgbByLabel):
    """Loss-guided trees with a limit on their leaves.

    >>> stage = XgbLeafwise().sections["leafwise"].start("fast")
    >>> stage.depth, stage.leaves, XgbLeafwise().search.ranges(stage)["leaves"].high
    (0, 8, 64)
    """

    name = "xgb_leafwise"
    short_name = "leafwise"
    section = "leafwise"
    chart_style = ("m4", "triangle-up", (4, 4))
    sections = {
        "leafwise": Section(
            Booster,
            {
                "fast": Booster(rounds=60, learning_rate=0.1, depth=0, leaves=8),
                "balanced": Booster(rounds=200, learning_rate=0.05, depth=0, leaves=8),
                "quality": Booster(rounds=600, learning_rate=0.025, depth=0, leaves=8),
            },
            by_group=True,
        )
    }
    search = SearchSpace("leafwise", tree_ranges)
    first_cost_us = (25.0, 55.0)
