"""Boosting with gradients of our own: rounds on samples of the rows in turn, each target stopped at its own best."""

from __future__ import annotations

import copy
import itertools
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.dataset.row_view import RowView
from gpupipe.estimators import arithmetic
from gpupipe.estimators.boosting import tree_model
from gpupipe.estimators.boosting.binned_matrix import Sample, binned
from gpupipe.estimators.boosting.settings import Booster
from gpupipe.estimators.boosting.tree_model import N_OUTPUTS, Grower
from gpupipe.estimators.boosting.tree_walk import Walk
from gpupipe.estimators.contract import Watch
from gpupipe.estimators.training_set import TrainingSet, this_process_only
from gpupipe.evaluation import paired_test
from gpupipe.kernels.softmax import activity_gradient, softmax_log_loss
from gpupipe.runtime.device import Device

# What fits with gradients of our own call, and the predictions of their models.
KERNELS = (
    "softmax.activity_gradient", "softmax.softmax_log_loss", "softmax.softmax_probability", "sums.column_sums",
    "trees.add_leaf_activity", "trees.leaves_of_trees",
)  # fmt: skip
DRAW_ROUNDS = 10
# Validation is evaluated after every second round, as an evaluation takes about half as long as a round.
LOOK_ROUNDS = 2
OLD_LOOK_ROUNDS = 10  # of an earlier run's rounds, in addition to those that its targets stopped at
ROOM = 0.1  # share of an earlier booster's rounds that is grown again, so that new rows are learned from
SMALLEST_CHANCE = 0.1  # of the share, so that no row weighs more than ten times as in a plain draw


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
class Objective:
    """What is boosted.

    targets: positions of the targets, which one booster takes together.
    start(rows): their margins before the first round, float32 (n_rows, 3 * n_targets), of true probabilities.
    class_weight: float32 (n_targets, 3), which boosting sees and validation does not.
    scale: float32 (n_targets,), what each target counts when a split is chosen for all of them.

        >>> from gpupipe.dataset.dataset import Dataset
        >>> from gpupipe.estimators.training_set import tile
        >>> from gpupipe.targets.target import Target
        >>> numbers, all_true = np.arange(2), np.ones(2, bool)
        >>> dataset = Dataset(
        ...     "energy", np.zeros((2, 1), np.float32), ("x",), np.int8([[0, 2], [1, -1]]),
        ...     Target(("label_1d", "label_2d"), "classes", (1, 2), ("sell", "hold", "buy")),
        ...     numbers, numbers + 2, all_true, all_true, np.array([0, 2]))
        >>> bias, ones = np.float32([-1.5, 0, -1]), np.ones((1, 3), np.float32)
        >>> objective = Objective([1], lambda rows: tile(bias, rows), class_weight=ones, scale=ones[:, 0])
        >>> view = RowView(dataset, numbers)
        >>> objective.y(view).tolist(), objective.start(view).tolist()
        ([[2], [-1]], [[-1.5, 0.0, -1.0], [-1.5, 0.0, -1.0]])
    """

    targets: Sequence[int]
    start: Callable[[RowView], Any]
    class_weight: np.ndarray
    scale: np.ndarray

    def y(self, rows: RowView) -> Any:
        """int8 (n_rows, n_targets), C order."""
        return rows.device.xp.ascontiguousarray(rows.y[:, list(self.targets)])


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


class _Fitted:
    """The margins of a sample on the device, which grow by the rounds since it was fitted last.

    weight: float32 (n_rows, 2 * n_targets), by which gradients and Hessians are multiplied; None for 1.
    """

    def __init__(self, sample: Sample, objective: Objective, device: Device) -> None:
        xp = device.xp
        self.sample, self.rounds = sample, 0
        self.margin = xp.concatenate([objective.start(rows) for rows in sample.blocks])
        # Boosting sees margins of weighted classes.
        self.margin += device.asarray(np.log(objective.class_weight).ravel())
        self.y = xp.concatenate([objective.y(rows) for rows in sample.blocks])
        shape = (self.margin.shape[0], N_OUTPUTS * len(objective.targets))
        self.gradient, self.hessian = xp.empty(shape, xp.float32), xp.empty(shape, xp.float32)
        self.weight = None
        if sample.blocks[0].weight is not None:
            weights = xp.concatenate([rows.weight[:, list(objective.targets)] for rows in sample.blocks])
            self.weight = xp.repeat(weights, N_OUTPUTS, axis=1)

    def catch_up(self, walk: Walk, k: int, class_weight: Any) -> None:
        """Add the rounds before k to the margins, and compute the derivatives there."""
        ends = np.cumsum([0, *(rows.n for rows in self.sample.blocks)])
        margins = [self.margin[a:b] for a, b in itertools.pairwise(ends)]
        walk.add(margins, [rows.X for rows in self.sample.blocks], self.rounds, k)
        self.rounds = k
        activity_gradient(self.margin.shape[0], self.margin, self.y, class_weight, self.gradient, self.hessian)
        if self.weight is not None:
            self.gradient *= self.weight
            self.hessian *= self.weight

    def boost(self, grower: Grower, walk: Walk, k: int, class_weight: Any) -> None:
        """Add round k to the booster, fitted on this sample."""
        self.catch_up(walk, k, class_weight)
        grower.boost(self.sample.bins, k, self.gradient, self.hessian)


class _InTurn:
    """Every row in one of 1 / share samples, which rounds take in turn."""

    def __init__(
        self, training_set: TrainingSet, group: str | None, share: float, objective: Objective, class_weight: Any
    ) -> None:
        samples = binned(training_set).samples(share, group)
        self.fitted = [_Fitted(sample, objective, training_set.device) for sample in samples]

    def at(self, walk: Walk, k: int) -> _Fitted:
        """What round k is fitted on."""
        return self.fitted[k % len(self.fitted)]


class _GradientDraws:
    """A draw of `share` of the rows, more often of those with large derivatives, anew every DRAW_ROUNDS rounds.

    A row is taken with probability min(1, norm / mu), where norm is the root of the sum of its squared gradients and
    Hessians and mu makes the probabilities add up to share * n_rows. It weighs the inverse of its probability, so that
    the sums in a tree's nodes are estimated without bias (Ibragimov and Gusev 2019, minimal variance sampling, with
    lambda 1; XGBoost's own sampling_method="gradient_based" draws for every tree, and on CUDA only). The rows drawn
    stay for some rounds because their bins need a matrix of their own: rows of weight 0 cost as much as others.
    """

    def __init__(
        self, training_set: TrainingSet, group: str | None, share: float, objective: Objective, class_weight: Any
    ) -> None:
        self.training_set, self.share = training_set, share
        self.objective, self.class_weight = objective, class_weight
        (sample,) = binned(training_set).samples(1.0, group)
        self.whole = self.drawn = _Fitted(sample, objective, training_set.device)
        seed = [training_set.seed, zlib.crc32(f"{group} {list(objective.targets)}".encode())]
        self.random = np.random.default_rng(seed)
        self.threads = training_set.threads if group is None else 1

    def at(self, walk: Walk, k: int) -> _Fitted:
        """What round k is fitted on."""
        if k % DRAW_ROUNDS == 0 or self.drawn is self.whole:
            self.whole.catch_up(walk, k, self.class_weight)
            self.drawn = self._draw(k)
        return self.drawn

    def _draw(self, k: int) -> _Fitted:
        device = self.training_set.device
        norm = arithmetic.derivative_norms(self.whole.gradient, self.whole.hessian, device).astype(np.float64)
        probability = inclusion_probability(norm, self.share)
        taken = self.random.random(len(norm)) < probability
        blocks, first = [], 0
        for rows in self.whole.sample.blocks:
            at = device.asarray(np.flatnonzero(taken[first : first + rows.n]))
            blocks.append(rows.take(at))
            first += rows.n
        bins = binned(self.training_set).matrix([rows.X for rows in blocks], self.threads)
        drawn = _Fitted(Sample(tuple(blocks), bins), self.objective, device)
        at = device.asarray(np.flatnonzero(taken))
        drawn.margin, drawn.rounds = self.whole.margin[at], k
        times = device.asarray((1 / probability[taken]).astype(np.float32)[:, None])
        drawn.weight = times if drawn.weight is None else drawn.weight * times
        return drawn


def inclusion_probability(norm: np.ndarray, share: float) -> np.ndarray:
    """float64 (n_rows,), in (0, 1]: min(1, norm / mu) with a mean of `share`; `share` for each where all norms are 0.

    norm: float64 (n_rows,), >= 0.
    """
    wanted = share * len(norm)
    largest_first = np.sort(norm)[::-1]
    rest = np.append(np.cumsum(largest_first[::-1])[::-1], 0.0)  # rest[m]: sum of all but the m largest
    if rest[0] == 0:
        return np.full(len(norm), share)
    # With the m largest taken for certain, the others share what is left of the draw: mu = rest[m] / (wanted - m).
    m = np.arange(int(np.ceil(wanted)))
    mu = rest[m] / (wanted - m)
    certain = int(np.argmax(largest_first[m] <= mu)) if (largest_first[m] <= mu).any() else len(m) - 1
    # A row that no derivative asks for is drawn now and then all the same: later rounds may need it.
    return np.clip(norm / mu[certain], SMALLEST_CHANCE * share, 1.0)


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
    source = _GradientDraws if training_set.ml.gradient_sampling and settings.subsample < 1 else _InTurn
    rows_of_round = source(training_set, group, settings.subsample, objective, weight)
    kept = earlier.kept if earlier else 0
    if earlier and kept:
        booster = tree_model.resume(earlier.booster, kept, parameters)
    else:
        booster = tree_model.vector_leaf(parameters, len(objective.targets), binned(training_set).cut_points)
    walk, grower = Walk(booster, device), Grower(booster, device)
    rounds, patience = stopping.rounds, stopping.patience
    validation = [rows for name, rows in training_set.validation.items() if group in (None, name)]
    total = training_set.total if group is None else this_process_only
    curve = _ValidationCurve(validation, objective, device, total) if rounds is None and validation else None
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
        loss = curve.loss if curve else device.xp.empty((0, len(objective.targets)), dtype="float32")
    return Boosted(booster, tuple(int(r) for r in rounds), device.to_host(loss), kept)


class _ValidationCurve:
    """Validation log-losses as rounds are added; only their means come to the host.

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
        self.validation, self.device, self.total = validation, device, total
        self.y = [objective.y(rows) for rows in validation]
        self.margins = [objective.start(rows) for rows in validation]
        self.loss = losses(self.margins, self.y, device)
        self.best, self.rounds, self.means = self.loss.copy(), [0], [mean(self.loss, device, total)]

    @property
    def best_rounds(self) -> np.ndarray:
        """int64 (n_targets,): the number of rounds with the lowest mean."""
        return np.array(self.rounds)[np.argmin(self.means, axis=0)]

    def add(self, walk: Walk, rounds: int) -> None:
        """Add the rounds since the last evaluation, and evaluate."""
        walk.add(self.margins, [rows.X for rows in self.validation], self.rounds[-1], rounds)
        self.rounds.append(rounds)
        self.loss = losses(self.margins, self.y, self.device)
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
        twin.margins, twin.best = [margin.copy() for margin in self.margins], self.best.copy()
        twin.rounds, twin.means = list(self.rounds), list(self.means)
        return twin


def losses(margins: Sequence[Any], y: Sequence[Any], device: Device) -> Any:
    """float32 (n_rows, n_targets): log-loss of each row and target, NaN where the target is not known."""
    blocks = [device.xp.empty(labels.shape, dtype="float32") for labels in y]
    softmax_log_loss.together([
        (len(labels), margin, labels, loss) for margin, labels, loss in zip(margins, y, blocks, strict=True)
    ])  # fmt: skip
    return device.xp.concatenate(blocks)


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
