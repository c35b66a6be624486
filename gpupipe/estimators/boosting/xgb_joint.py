"""xgb_joint: one vector-leaf booster for all targets and groups, then rounds of the group's own on its margins."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpupipe.config import Config, Section
from gpupipe.dataset.row_view import RowView
from gpupipe.estimators.boosting import gradient_boosting, tree_model
from gpupipe.estimators.boosting.gradient_boosting import (
    Boosted,
    EarlierBooster,
    Objective,
    Stopping,
    target_scale,
)
from gpupipe.estimators.boosting.settings import Booster
from gpupipe.estimators.boosting.tree_estimator import TreeEstimator, boosted_bytes, boosting_work, tree_ranges
from gpupipe.estimators.boosting.tree_model import N_OUTPUTS, Stage, TreeModel
from gpupipe.estimators.contract import EstimatorSettings, SearchSpace, Shape, Watch
from gpupipe.estimators.earlier import EarlierModels
from gpupipe.estimators.three_classes import CLASS_COUNT
from gpupipe.estimators.training_set import TrainingSet, tile
from gpupipe.evaluation.paired_test import clearly_better
from gpupipe.runtime.placement import Size, Work


def _pooled(rounds: int, learning_rate: float) -> Booster:
    """The pooled stage."""
    # Many rows in every leaf: on short histories whole days are alike, and small leaves learn the day. The rows of all
    # groups are so many that a tree needs but a quarter of them, and then most of the columns.
    return Booster(rounds, learning_rate, depth=4, min_child_weight=50.0, l2=50.0, subsample=0.25, column_share=0.8)


def _group_stage(rounds: int, learning_rate: float) -> Booster:
    """The stage of a group's own rounds."""
    return Booster(rounds, learning_rate, depth=3, min_child_weight=20.0, l2=50.0, subsample=0.25)


class XgbJoint(TreeEstimator):
    """One booster whose leaves hold all targets, pooled over groups, and a group's own rounds where they help.

    >>> joint = XgbJoint()
    >>> joint.sections["joint"].start("fast").rounds, joint.sections["joint_sector"].start("fast").rounds
    (80, 20)
    """

    name = "xgb_joint"
    short_name = "joint"
    sections = {
        "joint": Section(
            Booster, {"fast": _pooled(80, 0.15), "balanced": _pooled(300, 0.05), "quality": _pooled(800, 0.025)}
        ),
        "joint_sector": Section(
            Booster,
            {"fast": _group_stage(20, 0.1), "balanced": _group_stage(60, 0.05), "quality": _group_stage(150, 0.025)},
        ),
    }
    shared_settings = ("early_stopping",)
    pooled_sample = "joint"
    warm_startable = True
    judged = True
    chart_style = ("m1", "circle", (1, 0))
    search = SearchSpace("joint", tree_ranges, pooled=True)
    first_cost_us = (75.0, 15.0)
    kernels = gradient_boosting.KERNELS

    def fit_pool(
        self, training_set: TrainingSet, settings: EstimatorSettings, frozen_choices: Sequence[TreeModel] | None
    ) -> list[TreeModel]:
        """One model for each target, all of the same booster at the target's own number of rounds."""
        rounds = [model.stages[0].rounds for model in frozen_choices] if frozen_choices else None
        return pooled_models(training_set, settings.joint, Stopping(settings.early_stopping, rounds), self.earlier)

    def fit_group(
        self,
        training_set: TrainingSet,
        group: str,
        settings: EstimatorSettings,
        pooled: Sequence[TreeModel],
        frozen_choices: Sequence[TreeModel] | None,
    ) -> list[TreeModel]:
        """One model for each target: the pooled one, with own rounds where they clearly help on validation."""
        rounds = None
        if frozen_choices:
            rounds = [model.stages[1].rounds if len(model.stages) > 1 else 0 for model in frozen_choices]
        if len(training_set.groups) == 1 or (rounds is not None and not any(rounds)):
            return list(pooled)
        objective = Objective(
            range(training_set.n_targets),
            lambda rows: _margin(pooled, rows),
            training_set.weights(),
            target_scale(training_set),
        )
        earlier_stages: list[Stage | None] = []
        if self.earlier:
            earlier_stages = [m.stages[1] if len(m.stages) > 1 else None for m in self.earlier.by_group[group]]
        boosted = gradient_boosting.boost(
            training_set, group, objective, settings.joint_sector, Stopping(settings.early_stopping, rounds),
            _earlier_booster(earlier_stages),
        )  # fmt: skip
        if rounds is None:
            rounds = _worthwhile(training_set.validation[group], objective, boosted)
        booster = tree_model.first_rounds(boosted.booster, rounds)
        return [
            dataclasses.replace(
                model,
                stages=(*model.stages, Stage(booster, rounds[k], N_OUTPUTS * k)),
                scope="sector",
                warm=self.earlier.started(model.warm.rounds[0] if model.warm else 0, boosted.from_old(k))
                if self.earlier
                else None,
            )
            if rounds[k] > 0
            else model
            for k, model in enumerate(pooled)
        ]

    def search_pool(self, training_set: TrainingSet, stage: Booster, patience: int, watch: Watch) -> list[TreeModel]:
        """The pooled models of a search's trial."""
        return pooled_models(training_set, stage, Stopping(patience, None, watch), self.earlier)

    def sampled_shares(self, settings: Config) -> tuple[list[float], list[float]]:
        """The shares of both stages."""
        return [settings.joint.subsample], [settings.joint_sector.subsample]

    def work(self, size: Size, settings: Config, pooled: bool) -> Work:
        """All targets in one booster."""
        stage = settings.joint if pooled else settings.joint_sector
        return boosting_work(stage, size, stage.subsample, together=True)

    def fit_bytes(self, shape: Shape, settings: Config, sparing: bool) -> float:
        """Margins and derivatives of all targets."""
        return boosted_bytes(shape, settings.joint.subsample)


def pooled_models(
    training_set: TrainingSet, stage: Booster, stopping: Stopping, earlier: EarlierModels | None = None
) -> list[TreeModel]:
    """One model for each target, all of one booster over all groups, at the target's own number of rounds.

    earlier: models that the booster starts from.
    """
    bias, weight = np.log(training_set.shares()).astype(np.float32).ravel(), training_set.weights()
    objective = Objective(
        range(training_set.n_targets), lambda rows: tile(bias, rows), weight, target_scale(training_set)
    )
    begun = _earlier_booster([model.stages[0] for model in next(iter(earlier.by_group.values()))]) if earlier else None
    boosted = gradient_boosting.boost(training_set, None, objective, stage, stopping, begun)
    booster = boosted.used
    return [
        TreeModel(
            (Stage(booster, boosted.rounds[k], N_OUTPUTS * k),),
            bias[CLASS_COUNT * k : CLASS_COUNT * (k + 1)] + np.log(weight[k]),
            "softmax",
            weight[k],
            training_set.pool_scope,
            earlier.started(boosted.from_old(k)) if earlier else None,
        )
        for k in range(training_set.n_targets)
    ]


def _earlier_booster(stages: Sequence[Stage | None]) -> EarlierBooster | None:
    """The booster that an earlier run's targets share, with 0 rounds where one did without."""
    boosters = [stage.booster for stage in stages if stage]
    return EarlierBooster(boosters[0], tuple(stage.rounds if stage else 0 for stage in stages)) if boosters else None


def _worthwhile(rows: RowView, objective: Objective, boosted: Boosted) -> list[int]:
    """Own rounds of each target, or 0 where the pooled booster alone is not clearly worse on validation."""
    device = rows.device
    start = gradient_boosting.losses(objective.start(rows), objective.y(rows), device)
    reference, time_ns = device.to_host(start), device.to_host(rows.time_ns)
    return [
        boosted.rounds[k] if clearly_better(boosted.loss[:, k], reference[:, k], time_ns) else 0
        for k in range(len(boosted.rounds))
    ]


def _margin(pooled: Sequence[TreeModel], rows: RowView) -> Any:
    """The pooled models' margins, float32 (n_rows, 3 * n_targets), corrected for class weights."""
    bias = np.concatenate([model.bias - np.log(model.class_weight) for model in pooled])
    total = tile(bias, rows)
    margins = tree_model.margins([model.stages[0] for model in pooled], rows.X)
    for k, margin in enumerate(margins):
        if margin is not None:
            tree_model.add_activity(total[:, CLASS_COUNT * k : CLASS_COUNT * (k + 1)], margin)
    return total
