"""Boosting with gradients of our own: rounds on samples of the rows in turn, each label stopped at its own best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe import config
from gpupipe.device import Device
from gpupipe.kernels.softmax import activity_gradient, softmax_log_loss
from gpupipe.models import trees
from gpupipe.models.fold import Fold, Rows, Sample
from gpupipe.models.trees import N_OUTPUTS

# Told the number of rounds done and the validation log-loss, float64 (n_labels,), after each; may raise to stop.
Watch = Callable[[int, np.ndarray], None]


@dataclass(frozen=True)
class Boosted:
    """A booster and, for each label, how much of it is used.

    rounds: the round with the lowest validation log-loss; all of them without validation or patience.
    loss: float32 (n_validation, n_labels), of each label at its round.
    """

    booster: Any
    rounds: tuple[int, ...]
    loss: np.ndarray

    @property
    def used(self) -> Any:
        """The booster cut after the last round that a label uses."""
        return trees.first_rounds(self.booster, self.rounds)


@dataclass(frozen=True)
class Target:
    """What is boosted.

    labels: numbers of the labels, which one booster takes together.
    start(rows): their margins before the first round, float32 (n_rows, 3 * n_labels), of true probabilities.
    class_weight: float32 (n_labels, 3), which boosting sees and validation does not.
    scale: float32 (n_labels,), what each label counts when a split is chosen for all of them.
    """

    labels: Sequence[int]
    start: Callable[[Rows], Any]
    class_weight: np.ndarray
    scale: np.ndarray

    def y(self, rows: Rows, device: Device) -> Any:
        """int8 (n_rows, n_labels), C order."""
        return device.xp.ascontiguousarray(rows.y[:, list(self.labels)])


class _Fitted:
    """A sample's margins on the device, which grow by the rounds since it was fitted last."""

    def __init__(self, sample: Sample, target: Target, device: Device) -> None:
        xp = device.xp
        self.sample, self.rounds = sample, 0
        self.margin = xp.concatenate([target.start(rows) for rows in sample.blocks])
        # Boosting sees margins of weighted classes.
        self.margin += device.asarray(np.log(target.class_weight).ravel())
        self.y = xp.concatenate([target.y(rows, device) for rows in sample.blocks])
        shape = (self.margin.shape[0], N_OUTPUTS * len(target.labels))
        self.gradient, self.hessian = xp.empty(shape, xp.float32), xp.empty(shape, xp.float32)

    def boost(self, booster: Any, k: int, weight: Any) -> None:
        """Add round k to the booster, fitted on this sample."""
        first = 0
        for rows in self.sample.blocks:
            if self.rounds < k:
                grown = trees.stage_margin(booster, rows.X, self.rounds, k)
                trees.add_activity(self.margin[first : first + rows.n], grown)
            first += rows.n
        self.rounds = k
        activity_gradient(self.margin.shape[0], self.margin, self.y, weight, self.gradient, self.hessian)
        booster.boost(self.sample.bins, k, grad=self.gradient, hess=self.hessian)


def boost(
    fold: Fold, samples: Sequence[Sample], validation: Sequence[Rows], target: Target, settings: config.Booster,
    patience: int, threads: int, rounds: Sequence[int] | None = None, watch: Watch | None = None,
) -> Boosted:  # fmt: skip
    """Boost the labels of `target` together.

    patience: rounds without a lower validation log-loss of any label after which it ends; 0 goes on to the last.
    rounds: for each label, as an earlier fit chose them; validation is not looked at then.
    """
    device = fold.device
    parameters = trees.parameters(settings, device, fold.max_bin, threads, fold.seed)
    booster = trees.vector_leaf(parameters, len(target.labels), samples[0].bins)
    weight = device.asarray(target.class_weight * target.scale[:, None])
    fitted = [_Fitted(sample, target, device) for sample in samples]
    judge = _Judge(validation, target, device) if rounds is None and validation else None
    for k in range(max(1, *rounds) if rounds is not None else settings.rounds):
        fitted[k % len(fitted)].boost(booster, k, weight)
        if k == 0:
            trees.refuse_silent_cpu(booster, device)
        if judge:
            judge.look(booster, k)
            if watch:
                watch(k + 1, judge.means[-1])
            if patience and k + 1 - int(np.argmin(judge.means, axis=0).max()) >= patience:
                break
    if judge and patience:
        rounds, loss = np.argmin(judge.means, axis=0).tolist(), judge.best
    else:
        rounds = rounds if rounds is not None else [settings.rounds] * len(target.labels)
        loss = judge.loss if judge else device.xp.empty((0, len(target.labels)), dtype="float32")
    return Boosted(booster, tuple(int(r) for r in rounds), device.to_host(loss))


class _Judge:
    """Validation log-losses as rounds are added; only their means come to the host.

    means: float64 (n_labels,) for each number of rounds from 0 on.  loss: float32 (n_rows, n_labels), as it stands;
    best: of each label at its lowest mean.
    """

    def __init__(self, validation: Sequence[Rows], target: Target, device: Device) -> None:
        self.validation, self.device = validation, device
        self.y = [target.y(rows, device) for rows in validation]
        self.margins = [target.start(rows) for rows in validation]
        self.loss = losses(self.margins, self.y, device)
        self.best, self.means = self.loss.copy(), [mean(self.loss, device)]

    def look(self, booster: Any, k: int) -> None:
        """Add round k."""
        for rows, margin in zip(self.validation, self.margins, strict=True):
            trees.add_activity(margin, trees.stage_margin(booster, rows.X, k, k + 1))
        self.loss = losses(self.margins, self.y, self.device)
        self.means.append(mean(self.loss, self.device))
        for label in np.flatnonzero(self.means[-1] < np.min(self.means[:-1], axis=0)):
            self.best[:, label] = self.loss[:, label]


def losses(margins: Sequence[Any], y: Sequence[Any], device: Device) -> Any:
    """float32 (n_rows, n_labels): log-loss of each row and label, NaN where the label is not known."""
    found = []
    for margin, labels in zip(margins, y, strict=True):
        found.append(device.xp.empty(labels.shape, dtype="float32"))
        softmax_log_loss(labels.shape[0], margin, labels, found[-1])
    return device.xp.concatenate(found)


def mean(loss: Any, device: Device) -> np.ndarray:
    """Mean over the known rows, float64 (n_labels,)."""
    xp = device.xp
    known = ~xp.isnan(loss)
    total = xp.where(known, loss, 0).sum(axis=0, dtype=xp.float64)
    return device.to_host(total / xp.maximum(known.sum(axis=0), 1))


def label_scale(fold: Fold) -> np.ndarray:
    """float32 (n_labels,), mean 1: rare labels weigh more, by one over the root of their entropy.

    Every split is chosen for the sum of all labels' gains, and without this the most frequent label chooses them all.
    """
    shares = fold.shares()
    entropy = -(shares * np.log(shares)).sum(axis=1)
    scale = 1.0 / np.sqrt(entropy)
    return (scale / scale.mean()).astype(np.float32)
