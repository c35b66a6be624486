"""Score the models and the baselines of a group on validation rows and on the sealed test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.dataset.dataset import Dataset
from gpupipe.estimators.baselines.contract import Predict, TrainingRows
from gpupipe.evaluation import block_bootstrap, calibration, losses, touch_direction
from gpupipe.evaluation.block_bootstrap import EVENTS, PRIOR, PRIOR_ALL
from gpupipe.evaluation.scorers import scorer_of
from gpupipe.evaluation.skill import skill_by_part
from gpupipe.training.context import TrainingContext
from gpupipe.training.groups import GroupModels
from gpupipe.training.recipe import Recipe


@dataclass(frozen=True)
class Baselines:
    """The baselines of a workload, fitted on training rows.

    >>> def half(dataset, rows):
    ...     return np.full((len(rows), 1, 2), 0.5)
    >>> Baselines({"coin": half}).predict(None, np.arange(3))["coin"].shape
    (3, 1, 2)
    """

    learned: dict[str, Predict]

    @classmethod
    def learn(cls, workload: Recipe, context: TrainingContext, groups: Sequence[str]) -> Baselines:
        """Fit every baseline on the training rows of `groups`."""
        rows = TrainingRows(
            {group: context.datasets[group] for group in groups},
            {group: context.splits[group].train for group in groups},
        )
        return cls({baseline.name: baseline.learn(rows) for baseline in workload.baselines})

    def predict(self, dataset: Dataset, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Predictions of each baseline for these rows, float64 (n_rows, n_targets, n_outputs), all targets."""
        return {name: predict(dataset, rows) for name, predict in self.learned.items()}


@dataclass(frozen=True)
class ModelScore:
    """The scores of one model or baseline on one target.

    cutoffs: probabilities from which a row is called.  metrics: measures by part and name.

        >>> score = ModelScore({"sell": 0.3, "buy": 0.25}, {"test": {"log_loss": 0.76, "prior_log_loss": 0.8}})
        >>> test = score.metrics["test"]
        >>> round(1 - test["log_loss"] / test["prior_log_loss"], 3)  # the gain over the prior
        0.05
    """

    cutoffs: dict[str, float]
    metrics: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class GroupScores:
    """The scores of one group by (target, model), and its losses on the sealed test, from which intervals are drawn.

    curves: lines of curves.parquet, see `calibration.curve_lines`.

        >>> key, trained = ("label_1d_5pct", "linear"), GroupModels("energy", ("label_1d_5pct",), {}, {}, {}, {})
        >>> losses_by_time = block_bootstrap.by_time(np.array([10, 10, 20]), {key: np.array([0.5, 0.25, 1.0])})
        >>> scores = GroupScores(trained, {key: ModelScore({"buy": 0.25}, {})}, losses_by_time, [])
        >>> scores.scores[key].cutoffs["buy"], scores.losses.sums[key].tolist()
        (0.25, [0.75, 1.0])
    """

    trained: GroupModels
    scores: dict[tuple[str, str], ModelScore]
    losses: block_bootstrap.Losses
    curves: list[dict[str, Any]]


def score(workload: Recipe, context: TrainingContext, trained: GroupModels, baselines: Baselines) -> GroupScores:
    """Score every model of one group, and every baseline."""
    dataset, split, to_host = context.datasets[trained.group], context.splits[trained.group], context.device.to_host
    target, y = dataset.target, to_host(dataset.y)
    scorer = scorer_of(target)
    parts = {"validation": split.validation, "test": split.test}
    baseline_predictions = {part: baselines.predict(dataset, rows) for part, rows in parts.items()}
    scores: dict[tuple[str, str], ModelScore] = {}
    row_losses: dict[tuple[str, str], np.ndarray] = {}
    touch: dict[tuple[str, str], np.ndarray] = {}
    curves: list[dict[str, Any]] = []
    for position, label in enumerate(trained.labels):
        k = target.names.index(label)
        returns = _returns_of(workload, dataset, k)
        references = {part: reference_predictions(dataset, k, split.train, rows) for part, rows in parts.items()}
        predictions = {
            name: {"validation": trained.validation[name][:, position], "test": trained.test[name][:, position]}
            for name in trained.models
        }
        predictions |= {
            name: {part: baseline_predictions[part][name][:, k] for part in parts} for name in baselines.learned
        }
        test_y = y[split.test, k]
        row_losses[label, PRIOR] = losses.losses_of(target, references["test"], test_y)
        if target.kind == "classes":
            row_losses[label, EVENTS] = block_bootstrap.events_of(test_y)
        for name, by_part in predictions.items():
            cutoffs = scorer.cutoffs(by_part["validation"], y[split.validation, k])
            metrics = {
                part: scorer.measures(by_part[part], y[rows, k], references[part], cutoffs, returns[rows])
                for part, rows in parts.items()
            }
            scores[label, name] = ModelScore(cutoffs, metrics)
            row_losses[label, name] = losses.losses_of(target, by_part["test"], test_y)
            if target.kind == "classes":
                curves += calibration.curve_lines(trained.group, label, name, by_part["test"], test_y)
        tested = {PRIOR: references["test"], **{name: by_part["test"] for name, by_part in predictions.items()}}
        touch |= touch_direction.by_model(target, label, tested, test_y)
    by_time = block_bootstrap.by_time(to_host(dataset.time_ns)[split.test], row_losses, touch)
    return GroupScores(trained, scores, by_time, curves)


def _returns_of(workload: Recipe, dataset: Dataset, k: int) -> np.ndarray:
    """float32 (n_rows,): the return of a call in each row for a target; NaN where the workload has none."""
    name = workload.returns(dataset.target, k)
    if not name:
        return np.full(dataset.n_rows, np.nan, np.float32)
    return dataset.device.to_host(dataset.extra[name])


def reference_predictions(dataset: Dataset, k: int, train: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Predictions of the target's reference for these rows, float64 (n_rows, n_outputs)."""
    to_host = dataset.device.to_host
    last_value = dataset.extra.get("last_value")
    values = None if last_value is None else to_host(last_value)[rows]
    return losses.reference_of(dataset.target, to_host(dataset.y)[train, k], len(rows), values)


def add_intervals(measured: Sequence[GroupScores], longest_horizon: int, seed: int) -> block_bootstrap.Resampled:
    """Add the interval of the gain over the prior on the sealed test, and skill in words, to every score.

    The measures of the test part get gain_low, gain_high and skill, and each part of the gain has its own (touch_skill,
    direction_skill and so on). Returns the resampled losses, which averages over
    groups need: all groups share the same draws of dates.
    """
    times = np.concatenate([scores.losses.times for scores in measured])
    draws = block_bootstrap.draw(times, longest_horizon, seed)
    resampled = block_bootstrap.resample(draws, {scores.trained.group: scores.losses for scores in measured})
    for scores in measured:
        for (label, name), model_score in scores.scores.items():
            test, prior_all = model_score.metrics["test"], scores.scores.get((label, PRIOR_ALL))
            gains_all = touch_direction.gains_of(prior_all.metrics["test"]) if prior_all else None
            gains = touch_direction.gains_of(test)
            test |= skill_by_part(resampled, [scores.trained.group], label, name, gains, gains_all)
    return resampled
