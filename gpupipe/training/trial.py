"""The fit of a tuning trial: an estimator as training fits it, with its validation loss reported while it is fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.estimators.contract import Estimator, Model, Watch
from gpupipe.estimators.training_set import TrainingSet

SMALLEST_PROBABILITY = 1e-6  # probabilities are clipped to it before the logarithm


@dataclass(frozen=True)
class Validation:
    """The validation rows of some groups and targets of a training set, and the loss of the class prior on them.

    time_ns: int64 (n_rows,).  y: int8 (n_rows, n_targets), -1 where not known.
    prior_loss: float64 (n_rows, n_targets): log-loss of the class shares of the row's group in its fitted rows; NaN
        where y is not known.

        >>> loss = np.array([[0.5, 1.0], [0.7, np.nan]])
        >>> Validation(np.array([1, 2]), np.array([[0, 1], [2, -1]], np.int8), loss).prior
        array([0.6, 1. ])
    """

    time_ns: np.ndarray
    y: np.ndarray
    prior_loss: np.ndarray

    @property
    def prior(self) -> np.ndarray:
        """float64 (n_targets,): mean log-loss of the class prior."""
        return np.nanmean(self.prior_loss, axis=0)

    @property
    def judged(self) -> np.ndarray:
        """bool (n_targets,): targets of whose rows more than one class is known; all if there is none.

        With a single class the prior's loss is next to nothing, and a gain over it any number.
        """
        several = np.array([len(np.unique(column[column >= 0])) > 1 for column in self.y.T])
        return several if several.any() else np.ones_like(several)


def validation_of(training_set: TrainingSet, groups: Sequence[str], targets: Sequence[int]) -> Validation:
    """The validation rows of `groups` in turn, with the targets at these positions."""
    to_host, time_ns, y, loss = training_set.device.to_host, [], [], []
    n_classes = training_set.target.n_classes
    for group in groups:
        rows = training_set.validation[group]
        time_ns.append(to_host(rows.time_ns))
        y.append(to_host(rows.y)[:, list(targets)])
        shares = np.broadcast_to(training_set.shares([group])[list(targets)], (rows.n, len(targets), n_classes))
        loss.append(losses(shares, y[-1]))
    return Validation(np.concatenate(time_ns), np.concatenate(y), np.concatenate(loss))


def losses(probability: np.ndarray, y: np.ndarray) -> np.ndarray:
    """float64 (n_rows, n_targets): log-loss of probabilities (n_rows, n_targets, n_classes), NaN where y is -1."""
    known = y >= 0
    at = np.where(known, y, 0).astype(np.int64)[:, :, None]
    chosen = np.take_along_axis(probability, at, axis=2)[:, :, 0].astype(np.float64)
    return np.where(known, -np.log(np.maximum(chosen, SMALLEST_PROBABILITY)), np.nan)


@dataclass(frozen=True)
class TrialRows:
    """The rows that every trial of a study is fitted and validated on.

    group: "" for all groups.  targets: positions in the training set.

        >>> from gpupipe.dataset.dataset import Dataset
        >>> from gpupipe.dataset.row_view import RowView
        >>> from gpupipe.targets.target import Target
        >>> target = Target(("up",), "classes", (1,), ("down", "up"))
        >>> dataset = Dataset(
        ...     "energy", np.zeros((4, 1), np.float32), ("rsi_14",), np.array([[0], [1], [0], [1]], np.int8), target,
        ...     np.arange(4), np.arange(1, 5), np.ones(4, bool), np.ones(4, bool), np.array([0, 4]))
        >>> fit, validation = ({"energy": RowView(dataset, np.array(rows))} for rows in ([0, 1], [2, 3]))
        >>> training_set = TrainingSet("final", fit, validation, target, dataset.device, 32, "none", 1, 0)
        >>> rows = TrialRows(training_set, "energy", (0,), validation_of(training_set, ["energy"], (0,)))
        >>> rows.validation.prior.round(4)  # ln 2: both classes are as frequent
        array([0.6931])
    """

    training_set: TrainingSet
    group: str
    targets: tuple[int, ...]
    validation: Validation


def fit_labels(estimator: Any, rows: TrialRows, stage: Any, patience: int, report: Watch) -> np.ndarray:
    """Losses of an estimator that fits the labels of one group in turn.

    report(step, losses): called with the losses of all targets so far; a target that has not begun has the prior's
        loss. Target k begins at step k * stage.rounds.
    """
    training_set, validation = rows.training_set, rows.validation
    current, losses_of_rows = validation.prior.copy(), np.empty_like(validation.prior_loss)
    for position, k in enumerate(rows.targets):

        def after_round(done: int, loss: np.ndarray, position: int = position) -> None:
            current[position] = loss[0]
            report(position * stage.rounds + done, current)

        prediction = training_set.device.to_host(
            estimator.search_label(training_set, rows.group, k, stage, patience, after_round)
        )
        losses_of_rows[:, position] = losses(prediction[:, None], validation.y[:, [position]])[:, 0]
        current[position] = np.nanmean(losses_of_rows[:, position])
    return losses_of_rows


def fit_pool(estimator: Any, rows: TrialRows, stage: Any, patience: int, report: Watch) -> np.ndarray:
    """Losses of an estimator's pooled models on the validation rows of all groups."""
    training_set = rows.training_set
    models = estimator.search_pool(training_set, stage, patience, report)
    predictions = [_predicted(estimator, models, view, training_set) for view in training_set.validation.values()]
    return losses(np.concatenate(predictions), rows.validation.y)


def _predicted(estimator: Estimator, models: Sequence[Model], view: Any, training_set: TrainingSet) -> np.ndarray:
    return training_set.device.to_host(estimator.predict(models, view.features))
