"""Boosting with gradients of our own: rounds on samples of the rows in turn, each label stopped at its own best."""

from __future__ import annotations

import copy
import itertools
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe import config
from gpupipe.estimators.boosting import tree_model
from gpupipe.estimators.boosting.tree_model import N_OUTPUTS
from gpupipe.estimators.boosting.tree_walk import Walk
from gpupipe.estimators.training_set import Fold, Rows, Sample, alone
from gpupipe.evaluation import paired_test
from gpupipe.kernels.softmax import activity_gradient, softmax_log_loss
from gpupipe.runtime.device import Device

DRAW_ROUNDS = 10
# Validation is looked at after every second round, as a look takes about half as long as a round.
LOOK_ROUNDS = 2
OLD_LOOK_ROUNDS = 10  # of an earlier run's rounds, beside those that its labels stopped at
ROOM = 0.1  # share of an earlier booster's rounds that is grown again, so that new rows are learned from
SMALLEST_CHANCE = 0.1  # of the share, so that no row weighs more than ten times as in a plain draw

# Told the number of rounds done and the validation log-loss, float64 (n_labels,), after each; may raise to stop.
Watch = Callable[[int, np.ndarray], None]


@dataclass(frozen=True)
class Boosted:
    """A booster and, for each label, how much of it is used.

    rounds: the round with the lowest validation log-loss; all of them without validation or patience.
    loss: float32 (n_validation, n_labels), of each label at its round.
    old: how many of the booster's rounds are an earlier run's.
    """

    booster: Any
    rounds: tuple[int, ...]
    loss: np.ndarray
    old: int = 0

    def from_old(self, label: int) -> int:
        """How many of a label's rounds are an earlier run's."""
        return min(self.old, self.rounds[label])

    @property
    def used(self) -> Any:
        """The booster cut after the last round that a label uses."""
        return tree_model.first_rounds(self.booster, self.rounds)


@dataclass(frozen=True)
class Grown:
    """An earlier run's booster to go on from, and the rounds that each of its labels stopped at."""

    booster: Any
    rounds: tuple[int, ...]

    @property
    def kept(self) -> int:
        """How many rounds boosting begins with: all that a label used but the last ROOM of them."""
        used = max(self.rounds)
        return used - max(LOOK_ROUNDS, math.ceil(ROOM * used)) if used > LOOK_ROUNDS else 0

    def looks(self, first: int, last: int) -> list[int]:
        """The numbers of rounds in (first, last] that validation judges."""
        every = {*range(0, last, OLD_LOOK_ROUNDS), *self.rounds, last}
        return sorted(k for k in every if first < k <= last)


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
    """A sample's margins on the device, which grow by the rounds since it was fitted last.

    weight: float32 (n_rows, 2 * n_labels), by which gradients and Hessians are multiplied; None for 1.
    """

    def __init__(self, sample: Sample, target: Target, device: Device) -> None:
        xp = device.xp
        self.sample, self.rounds = sample, 0
        self.margin = xp.concatenate([target.start(rows) for rows in sample.blocks])
        # Boosting sees margins of weighted classes.
        self.margin += device.asarray(np.log(target.class_weight).ravel())
        self.y = xp.concatenate([target.y(rows, device) for rows in sample.blocks])
        shape = (self.margin.shape[0], N_OUTPUTS * len(target.labels))
        self.gradient, self.hessian = xp.empty(shape, xp.float32), xp.empty(shape, xp.float32)
        self.weight = None
        if sample.blocks[0].weight is not None:
            weights = xp.concatenate([rows.weight[:, list(target.labels)] for rows in sample.blocks])
            self.weight = xp.repeat(weights, N_OUTPUTS, axis=1)

    def catch_up(self, walk: Walk, k: int, class_weight: Any) -> None:
        """Add the rounds before k to the margins, and find the derivatives there."""
        ends = np.cumsum([0, *(rows.n for rows in self.sample.blocks)])
        margins = [self.margin[a:b] for a, b in itertools.pairwise(ends)]
        walk.add(margins, [rows.X for rows in self.sample.blocks], self.rounds, k)
        self.rounds = k
        activity_gradient(self.margin.shape[0], self.margin, self.y, class_weight, self.gradient, self.hessian)
        if self.weight is not None:
            self.gradient *= self.weight
            self.hessian *= self.weight

    def boost(self, walk: Walk, k: int, class_weight: Any) -> None:
        """Add round k to the booster, fitted on this sample."""
        self.catch_up(walk, k, class_weight)
        walk.booster.boost(self.sample.bins, k, grad=self.gradient, hess=self.hessian)


class _InTurn:
    """Every row in one of 1 / share samples, which rounds take in turn."""

    def __init__(self, fold: Fold, sector: str | None, share: float, target: Target, class_weight: Any) -> None:
        self.fitted = [_Fitted(sample, target, fold.device) for sample in fold.samples(share, sector)]

    def at(self, walk: Walk, k: int) -> _Fitted:
        """What round k is fitted on."""
        return self.fitted[k % len(self.fitted)]


class _GradientDraws:
    """A draw of `share` of the rows, more often of those with large derivatives, anew every DRAW_ROUNDS rounds.

    A row is taken with probability min(1, norm / mu), where norm is the root of the sum of its squared gradients and
    Hessians and mu makes the probabilities add up to share * n_rows, and weighs the inverse of it, so that the sums in
    a tree's nodes are estimated without bias (Ibragimov and Gusev 2019, minimal variance sampling, with lambda 1;
    XGBoost's own sampling_method="gradient_based" draws for every tree, and on CUDA only). The rows drawn stay for some
    rounds because their bins have to be put into a matrix of their own: rows that only weigh 0 cost as much as others.
    """

    def __init__(self, fold: Fold, sector: str | None, share: float, target: Target, class_weight: Any) -> None:
        self.fold, self.share, self.target, self.class_weight = fold, share, target, class_weight
        (sample,) = fold.samples(1.0, sector)
        self.whole = self.drawn = _Fitted(sample, target, fold.device)
        self.random = np.random.default_rng([fold.seed, zlib.crc32(f"{sector} {list(target.labels)}".encode())])
        self.threads = fold.threads if sector is None else 1

    def at(self, walk: Walk, k: int) -> _Fitted:
        """What round k is fitted on."""
        if k % DRAW_ROUNDS == 0 or self.drawn is self.whole:
            self.whole.catch_up(walk, k, self.class_weight)
            self.drawn = self._draw(k)
        return self.drawn

    def _draw(self, k: int) -> _Fitted:
        device, xp = self.fold.device, self.fold.device.xp
        norm = device.to_host(xp.sqrt((self.whole.gradient**2 + self.whole.hessian**2).sum(axis=1))).astype(np.float64)
        probability = inclusion_probability(norm, self.share)
        taken = self.random.random(len(norm)) < probability
        blocks, first = [], 0
        for rows in self.whole.sample.blocks:
            at = device.asarray(np.flatnonzero(taken[first : first + rows.n]))
            blocks.append(rows.take(at))
            first += rows.n
        bins = self.fold.matrix([rows.X for rows in blocks], self.threads)
        drawn = _Fitted(Sample(tuple(blocks), bins), self.target, device)
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
    fold: Fold, sector: str | None, target: Target, settings: config.Booster, patience: int,
    rounds: Sequence[int] | None = None, watch: Watch | None = None, old: Grown | None = None,
) -> Boosted:  # fmt: skip
    """Boost the labels of `target` together, on the rows of one sector or (None) of all.

    patience: rounds without a lower validation log-loss of any label after which it ends; 0 goes on to the last.
    rounds: for each label, as an earlier fit chose them; validation is not looked at then.
    old: an earlier run's booster of the same labels and columns, whose first rounds it begins with. They count as
        rounds, so that there are never more than settings.rounds, and are judged anew on validation.
    """
    device, threads = fold.device, fold.threads if sector is None else 1
    parameters = tree_model.parameters(settings, device, fold.max_bin, threads, fold.seed)
    weight = device.asarray(target.class_weight * target.scale[:, None])
    source = _GradientDraws if fold.ml.gradient_sampling and settings.subsample < 1 else _InTurn
    rows_of_round = source(fold, sector, settings.subsample, target, weight)
    kept = old.kept if old else 0
    if old and kept:
        booster = tree_model.go_on(old.booster, kept, parameters)
    else:
        booster = tree_model.vector_leaf(parameters, len(target.labels), fold.bins())
    walk = Walk(booster, device)
    validation = [rows for name, rows in fold.validation.items() if sector in (None, name)]
    total = fold.total if sector is None else alone
    judge = _Judge(validation, target, device, total) if rounds is None and validation else None
    as_it_was = None
    if judge and old and kept:
        judge.look_back(old, 0, kept)
        as_it_was = judge.twin()
    for k in range(kept, max(1, *rounds) if rounds is not None else settings.rounds):
        rows_of_round.at(walk, k).boost(walk, k, weight)
        if k == kept:
            tree_model.refuse_silent_cpu(booster, device)
        if judge and ((k + 1) % LOOK_ROUNDS == 0 or k + 1 == settings.rounds):
            judge.look(walk, k + 1)
            if watch:
                watch(k + 1, judge.means[-1])
            if patience and k + 1 - max(kept, judge.best_rounds.max()) >= patience:
                break
    if judge and old and as_it_was and patience:
        as_it_was.look_back(old, kept, max(old.rounds))
        # Not where it is a little better: the better of two, night after night, would be fitted to the validation part.
        if as_it_was.clearly_better(judge):
            judge, booster, kept = as_it_was, old.booster, max(old.rounds)
    if judge and patience:
        rounds, loss = judge.best_rounds.tolist(), judge.best
    else:
        rounds = rounds if rounds is not None else [settings.rounds] * len(target.labels)
        loss = judge.loss if judge else device.xp.empty((0, len(target.labels)), dtype="float32")
    return Boosted(booster, tuple(int(r) for r in rounds), device.to_host(loss), kept)


class _Judge:
    """Validation log-losses as rounds are added; only their means come to the host.

    rounds, means: numbers of rounds from 0 on, and float64 (n_labels,) for each.  loss: float32 (n_rows, n_labels), as
    it stands; best: of each label at its lowest mean.
    """

    def __init__(
        self, validation: Sequence[Rows], target: Target, device: Device, total: Callable[[np.ndarray], np.ndarray]
    ) -> None:  # fmt: skip
        self.validation, self.device, self.total = validation, device, total
        self.y = [target.y(rows, device) for rows in validation]
        self.margins = [target.start(rows) for rows in validation]
        self.loss = losses(self.margins, self.y, device)
        self.best, self.rounds, self.means = self.loss.copy(), [0], [mean(self.loss, device, total)]

    @property
    def best_rounds(self) -> np.ndarray:
        """int64 (n_labels,): the number of rounds with the lowest mean."""
        return np.array(self.rounds)[np.argmin(self.means, axis=0)]

    def look(self, walk: Walk, rounds: int) -> None:
        """Add the rounds since the last look."""
        walk.add(self.margins, [rows.X for rows in self.validation], self.rounds[-1], rounds)
        self.rounds.append(rounds)
        self.loss = losses(self.margins, self.y, self.device)
        self.means.append(mean(self.loss, self.device, self.total))
        for label in np.flatnonzero(self.means[-1] < np.min(self.means[:-1], axis=0)):
            self.best[:, label] = self.loss[:, label]

    def look_back(self, old: Grown, first: int, last: int) -> None:
        """Judge the rounds (first, last] of an earlier booster, in larger steps."""
        walk = Walk(old.booster, self.device)
        for rounds in old.looks(first, last):
            self.look(walk, rounds)

    def clearly_better(self, other: _Judge) -> bool:
        """Whether its best rounds are, over all labels; a label's log-loss counts as a share of that before round 0."""
        own, others = (self.device.to_host(judge.best) / self.means[0] for judge in (self, other))
        time_ns = np.concatenate([self.device.to_host(rows.time_ns) for rows in self.validation])
        return paired_test.clearly_better(own.mean(axis=1), others.mean(axis=1), time_ns)

    def twin(self) -> _Judge:
        """A judge that has seen the same and goes its own way."""
        twin = copy.copy(self)
        twin.margins, twin.best = [margin.copy() for margin in self.margins], self.best.copy()
        twin.rounds, twin.means = list(self.rounds), list(self.means)
        return twin


def losses(margins: Sequence[Any], y: Sequence[Any], device: Device) -> Any:
    """float32 (n_rows, n_labels): log-loss of each row and label, NaN where the label is not known."""
    found = [device.xp.empty(labels.shape, dtype="float32") for labels in y]
    softmax_log_loss.together([
        (len(labels), margin, labels, loss) for margin, labels, loss in zip(margins, y, found, strict=True)
    ])  # fmt: skip
    return device.xp.concatenate(found)


def mean(loss: Any, device: Device, total: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Mean over the known rows, float64 (n_labels,); total as of Fold."""
    xp = device.xp
    known = ~xp.isnan(loss)
    sums = xp.stack([xp.where(known, loss, 0).sum(axis=0, dtype=xp.float64), known.sum(axis=0)])
    losses, counts = total(device.to_host(sums))
    return losses / np.maximum(counts, 1)


def label_scale(fold: Fold) -> np.ndarray:
    """float32 (n_labels,), mean 1: rare labels weigh more, by one over the root of their entropy.

    Every split is chosen for the sum of all labels' gains, and without this the most frequent label chooses them all.
    """
    shares = fold.shares()
    entropy = -(shares * np.log(shares)).sum(axis=1)
    scale = 1.0 / np.sqrt(entropy)
    return (scale / scale.mean()).astype(np.float32)
