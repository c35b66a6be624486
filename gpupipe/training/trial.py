"""What a tuning trial fits: a family as training fits it, its validation loss told on the way, and its rows' losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe import config
from gpupipe.estimators.boosting import tree_model, xgb_by_label, xgb_joint
from gpupipe.estimators.boosting.gradient_boosting import Watch
from gpupipe.estimators.linear import softmax_linear
from gpupipe.estimators.training_set import Fold, whole
from gpupipe.targets.classes import N_CLASSES


@dataclass(frozen=True)
class Validation:
    """The validation rows of some sectors and labels of a fold, and what the class prior loses on them.

    time_ns: int64 (n_rows,).  y: int8 (n_rows, n_labels), -1 where not known.
    prior_loss: float64 (n_rows, n_labels), NaN where not known: of each sector's own class shares in its fitted rows.
    """

    time_ns: np.ndarray
    y: np.ndarray
    prior_loss: np.ndarray

    @property
    def prior(self) -> np.ndarray:
        """float64 (n_labels,): mean log-loss of the class prior."""
        return np.nanmean(self.prior_loss, axis=0)


def validation_of(fold: Fold, sectors: Sequence[str], labels: Sequence[int]) -> Validation:
    """The validation rows of `sectors`, one after the other, and of the labels with these numbers."""
    to_host, time_ns, y, loss = fold.device.to_host, [], [], []
    for sector in sectors:
        rows = fold.validation[sector]
        time_ns.append(to_host(rows.time_ns))
        y.append(to_host(rows.y)[:, list(labels)])
        shares = np.broadcast_to(fold.shares([sector])[list(labels)], (rows.n, len(labels), N_CLASSES))
        loss.append(losses(shares, y[-1]))
    return Validation(np.concatenate(time_ns), np.concatenate(y), np.concatenate(loss))


def losses(probability: np.ndarray, y: np.ndarray) -> np.ndarray:
    """float64 (n_rows, n_labels): log-loss of probabilities (n_rows, n_labels, 3), NaN where y is -1."""
    known = y >= 0
    at = np.where(known, y, 0).astype(np.int64)[:, :, None]
    chosen = np.take_along_axis(probability, at, axis=2)[:, :, 0].astype(np.float64)
    return np.where(known, -np.log(np.maximum(chosen, tree_model.SMALLEST_PROBABILITY)), np.nan)


def boosted(
    fold: Fold, sector: str, labels: Sequence[int], seen: Validation, stage: config.Booster, patience: int, told: Watch
) -> np.ndarray:  # fmt: skip
    """xgb_hist or xgb_leafwise for labels of one sector, one after the other; losses as `losses` gives them.

    told: of all labels; one that has not begun has the prior's loss. Label number k begins after k * stage.rounds.
    """
    now, rows, found = seen.prior.copy(), fold.validation[sector], np.empty_like(seen.prior_loss)
    for position, k in enumerate(labels):

        def after_round(done: int, loss: np.ndarray, position: int = position) -> None:
            now[position] = loss[0]
            told(position * stage.rounds + done, now)

        model = xgb_by_label.fit_label(fold, sector, k, stage, patience, None, after_round)
        said = fold.device.to_host(model.predict(whole(rows.X), fold.device))
        found[:, position] = losses(said[:, None], seen.y[:, [position]])[:, 0]
        now[position] = np.nanmean(found[:, position])
    return found


def pooled_joint(
    fold: Fold, seen: Validation, settings: config.Config, stage: config.Booster, told: Watch
) -> np.ndarray:  # fmt: skip
    """The pooled booster of xgb_joint for all labels; losses of all sectors' validation rows."""
    models = xgb_joint.fit_pool(fold, dataclasses.replace(settings, joint=stage), None, told)
    return _predicted(fold, seen, tree_model.predict_trees, models)


def pooled_linear(fold: Fold, seen: Validation, settings: config.Config, stage: config.Linear) -> np.ndarray:
    """The pooled softmax regressions; losses of all sectors' validation rows."""
    models = softmax_linear.fit_pool(fold, dataclasses.replace(settings, linear=stage))
    return _predicted(fold, seen, softmax_linear.predict_linear, models)


def _predicted(fold: Fold, seen: Validation, predict: Callable[..., Any], models: Sequence[Any]) -> np.ndarray:
    said = [fold.device.to_host(predict(models, whole(rows.X), fold.device)) for rows in fold.validation.values()]
    return losses(np.concatenate(said), seen.y)
