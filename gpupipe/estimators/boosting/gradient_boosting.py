"""Boosting with gradients of our own: rounds on samples of the rows in turn, each target stopped at its own best."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.dataset.row_view import RowView, divided, in_few_arrays
from gpupipe.estimators import arithmetic
from gpupipe.estimators.boosting import tree_model
from gpupipe.estimators.boosting.binned_matrix import binned
from gpupipe.estimators.boosting.round_rows import GradientDraws, InTurn, Objective
from gpupipe.estimators.boosting.settings import Booster
from gpupipe.estimators.boosting.tree_model import Grower
from gpupipe.estimators.boosting.tree_walk import Walk
from gpupipe.estimators.contract import Watch
from gpupipe.estimators.training_set import TrainingSet, this_process_only
from gpupipe.evaluation import paired_test
from gpupipe.kernels.softmax import softmax_log_loss
from gpupipe.runtime.device import Device

# What fits with gradients of our own call, and the predictions of their models.
KERNELS = (
    "softmax.activity_gradient", "softmax.softmax_log_loss", "softmax.softmax_probability", "sums.column_sums",
    "trees.add_leaf_activity", "trees.leaves_of_trees",
)  # fmt: skip
# Validation is evaluated after every second round, as an evaluation takes about half as long as a round.
LOOK_ROUNDS = 2
OLD_LOOK_ROUNDS = 10  # of an earlier run's rounds, in addition to those that its targets stopped at
ROOM = 0.1  # share of an earlier booster's rounds that is grown again, so that new rows are learned from


@dataclass(frozen=True)
class Boosted:
    """A booster and, for each target, how much of it is used.

    rounds: the round with the lowest validation log-loss; all of them without validation or patience.
    loss: float32 (n_validation, n_targets), of each target at its round.
    old: how many of the booster's rounds are an earlier run's.

        >>> boosted = Boosted(None, (40, 12), np.zeros((0, 2), np.float32), old=20)
        >>> boosted.from_old(0), boosted.from_old(1)
        (20, 12)
    """

    booster: Any
    rounds: tuple[int, ...]
    loss: np.ndarray
    old: int = 0

    def from_old(self, target: int) -> int:
        """How many of a target's rounds are an earlier run's."""
        return min(self.old, self.rounds[target])

    @property
    def used(self) -> Any:
        """The booster cut after the last round that a target uses."""
        return tree_model.first_rounds(self.booster, self.rounds)


@dataclass(frozen=True)
class EarlierBooster:
    """An earlier run's booster to resume, and the rounds that each of its targets stopped at.

    >>> earlier = EarlierBooster(None, (40, 12))
    >>> earlier.kept, earlier.evaluated(0, 40)
    (36, [10, 12, 20, 30, 40])
    """

    booster: Any
    rounds: tuple[int, ...]

    @property
    def kept(self) -> int:
        """How many rounds boosting begins with: all that a target used but the last ROOM of them."""
        used = max(self.rounds)
        return used - max(LOOK_ROUNDS, math.ceil(ROOM * used)) if used > LOOK_ROUNDS else 0

    def evaluated(self, first: int, last: int) -> list[int]:
        """The numbers of rounds in (first, last] that are evaluated on validation."""
        every = {*range(0, last, OLD_LOOK_ROUNDS), *self.rounds, last}
        return sorted(k for k in every if first < k <= last)


@dataclass(frozen=True)
class Stopping:
    """When boosting ends.

    patience: rounds without a lower validation log-loss of any target after which it ends; 0 runs all rounds.
    rounds: for each target, the numbers that an earlier fit chose; validation is not evaluated then.
    watch: called with the round and the losses after each evaluation.

        >>> Stopping(patience=8), Stopping(0, rounds=[40, 12]).rounds
        (Stopping(patience=8, rounds=None, watch=None), [40, 12])
    """

    patience: int
    rounds: Sequence[int] | None = None
    watch: Watch | None = None


def boost(
    training_set: TrainingSet,
    group: str | None,
    objective: Objective,
    settings: Booster,
    stopping: Stopping,
    earlier: EarlierBooster | None = None,
) -> Boosted:
    """Boost the targets of `objective` together, on the rows of one group or (None) of all.

    earlier: an earlier run's booster of the same targets and columns, whose first rounds it begins with. They count as
        rounds, so that there are never more than settings.rounds, and are evaluated anew on validation.
    """
    device, threads = training_set.device, training_set.threads if group is None else 1
    parameters = tree_model.parameters(settings, device, training_set.max_bin, threads, training_set.seed)
    weight = device.asarray(objective.class_weight * objective.scale[:, None])
    source = GradientDraws if training_set.ml.gradient_sampling and settings.subsample < 1 else InTurn
    rows_of_round = source(training_set, group, settings.subsample, objective, weight)
    kept = earlier.kept if earlier else 0
    if earlier and kept:
        booster = tree_model.resume(earlier.booster, kept, parameters)
    else:
        booster = tree_model.vector_leaf(parameters, len(objective.targets), binned(training_set).cut_points)
    walk, grower = Walk(booster, device), Grower(booster, device)
    rounds, patience = stopping.rounds, stopping.patience
    curve = _validation_curve(training_set, group, objective) if rounds is None else None
    as_it_was = None
    if curve and earlier and kept:
        curve.add_earlier(earlier, 0, kept)
        as_it_was = curve.fork()
    for k in range(kept, max(1, *rounds) if rounds is not None else settings.rounds):
        rows_of_round.at(walk, k).boost(grower, walk, k, weight)
        if k == kept:
            tree_model.refuse_silent_cpu(booster, device)
        if curve and ((k + 1) % LOOK_ROUNDS == 0 or k + 1 == settings.rounds):
            curve.add(walk, k + 1)
            if stopping.watch:
                stopping.watch(k + 1, curve.means[-1])
            if patience and k + 1 - max(kept, curve.best_rounds.max()) >= patience:
                break
    if curve and earlier and as_it_was and patience:
        as_it_was.add_earlier(earlier, kept, max(earlier.rounds))
        # Not where it is a little better: the better of two, night after night, would be fitted to the validation part.
        if as_it_was.clearly_better(curve):
            curve, booster, kept = as_it_was, earlier.booster, max(earlier.rounds)
    if curve and patience:
        rounds, loss = curve.best_rounds.tolist(), curve.best
    else:
        rounds = rounds if rounds is not None else [settings.rounds] * len(objective.targets)
        loss = curve.loss if curve else np.empty((0, len(objective.targets)), np.float32)
    return Boosted(booster, tuple(int(r) for r in rounds), device.to_host(loss), kept)


class _ValidationCurve:
    """Validation log-losses as rounds are added; only their means come to the host.

    A look waits for the device once. Means of several looks are not kept there to be read together: XGBoost itself
    waits for a GPU at every level of a tree, so that nothing would be won.

    rounds, means: numbers of rounds from 0 on, and float64 (n_targets,) for each.  loss: float32 (n_rows, n_targets),
    after the last evaluation; best: of each target at its lowest mean.
    """

    def __init__(
        self,
        validation: Sequence[RowView],
        objective: Objective,
        device: Device,
        total: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        self.validation, self.parts, self.device, self.total = validation, in_few_arrays(validation), device, total
        self.y = device.xp.concatenate([objective.y(rows) for rows in validation])
        self.margin = device.xp.concatenate([objective.start(rows) for rows in validation])
        self.loss = losses(self.margin, self.y, device)
        self.best, self.rounds, self.means = self.loss.copy(), [0], [mean(self.loss, device, total)]

    @property
    def best_rounds(self) -> np.ndarray:
        """int64 (n_targets,): the number of rounds with the lowest mean."""
        return np.array(self.rounds)[np.argmin(self.means, axis=0)]

    def add(self, walk: Walk, rounds: int) -> None:
        """Add the rounds since the last evaluation, and evaluate."""
        walk.add(divided(self.margin, map(len, self.parts)), self.parts, self.rounds[-1], rounds)
        self.rounds.append(rounds)
        self.loss = losses(self.margin, self.y, self.device)
        self.means.append(mean(self.loss, self.device, self.total))
        for target in np.flatnonzero(self.means[-1] < np.min(self.means[:-1], axis=0)):
            self.best[:, target] = self.loss[:, target]

    def add_earlier(self, earlier: EarlierBooster, first: int, last: int) -> None:
        """Evaluate the rounds (first, last] of an earlier booster, in larger steps."""
        walk = Walk(earlier.booster, self.device)
        for rounds in earlier.evaluated(first, last):
            self.add(walk, rounds)

    def clearly_better(self, other: _ValidationCurve) -> bool:
        """Whether its best rounds are, over all targets; each log-loss counts as a share of that before round 0."""
        mine, others = (self.device.to_host(curve.best) / self.means[0] for curve in (self, other))
        time_ns = np.concatenate([self.device.to_host(rows.time_ns) for rows in self.validation])
        return paired_test.clearly_better(mine.mean(axis=1), others.mean(axis=1), time_ns)

    def fork(self) -> _ValidationCurve:
        """A copy of the curve, which continues independently."""
        twin = copy.copy(self)
        twin.margin, twin.best = self.margin.copy(), self.best.copy()
        twin.rounds, twin.means = list(self.rounds), list(self.means)
        return twin


def _validation_curve(training_set: TrainingSet, group: str | None, objective: Objective) -> _ValidationCurve | None:
    """The curve of the validation rows of one group or (None) of all; None where there are none."""
    validation = [rows for name, rows in training_set.validation.items() if group in (None, name)]
    if not validation:
        return None
    total = training_set.total if group is None else this_process_only
    return _ValidationCurve(validation, objective, training_set.device, total)


def losses(margin: Any, y: Any, device: Device) -> Any:
    """float32 (n_rows, n_targets): log-loss of each row and target, NaN where the target is not known."""
    loss = device.xp.empty(y.shape, dtype="float32")
    softmax_log_loss(len(y), margin, y, loss)
    return loss


def mean(loss: Any, device: Device, total: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Mean over the known rows, float64 (n_targets,); total: see `TrainingSet`."""
    sums, counts = total(arithmetic.known_sums(loss, device))
    return sums / np.maximum(counts, 1)


def target_scale(training_set: TrainingSet) -> np.ndarray:
    """float32 (n_targets,), mean 1: rare targets weigh more, by one over the root of their entropy.

    Every split is chosen for the sum of all targets' gains, and without this the most frequent one chooses them all.
    """
    shares = training_set.shares()
    entropy = -(shares * np.log(shares)).sum(axis=1)
    scale = 1.0 / np.sqrt(entropy)
    return (scale / scale.mean()).astype(np.float32)
