"""What rounds of boosting are fitted on: samples of the rows in turn, or rows drawn by their gradients."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.dataset.row_view import RowView, divided
from gpupipe.estimators import arithmetic
from gpupipe.estimators.boosting.binned_matrix import Sample, binned
from gpupipe.estimators.boosting.tree_model import N_OUTPUTS, Grower
from gpupipe.estimators.boosting.tree_walk import Walk
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.kernels.softmax import activity_gradient
from gpupipe.runtime.device import Device

DRAW_ROUNDS = 10
SMALLEST_CHANCE = 0.1  # of the share, so that no row weighs more than ten times as in a plain draw


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


class Rows:
    """The rows of a matrix, on the device: their targets, derivatives, and margins, which grow by the rounds before.

    weight: float32 (n_rows, 2 * n_targets), by which gradients and Hessians are multiplied; None for 1.
    """

    def __init__(self, sample: Sample, objective: Objective, device: Device) -> None:
        xp = device.xp
        self.parts, self.rounds = sample.parts, 0
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

    def catch_up(self, walk: Walk, k: int) -> None:
        """Add the rounds before k to the margins."""
        walk.add(divided(self.margin, map(len, self.parts)), self.parts, self.rounds, k)
        self.rounds = k

    def derive(self, class_weight: Any, weight: Any) -> None:
        """Compute the derivatives at the margins, times a weight."""
        activity_gradient(self.margin.shape[0], self.margin, self.y, class_weight, self.gradient, self.hessian)
        if weight is not None:
            self.gradient *= weight
            self.hessian *= weight


@dataclass(frozen=True)
class Fitted:
    """What a round is fitted on: a sample, the rows of its matrix, and their weights (see `Rows`)."""

    sample: Sample
    rows: Rows
    weight: Any

    def catch_up(self, walk: Walk, k: int, class_weight: Any) -> None:
        """Add the rounds before k to the margins, and compute the derivatives there."""
        self.rows.catch_up(walk, k)
        self.rows.derive(class_weight, self.weight)

    def boost(self, grower: Grower, walk: Walk, k: int, class_weight: Any) -> None:
        """Add round k to the booster, fitted on this sample."""
        self.catch_up(walk, k, class_weight)
        self.sample.boost(grower, k, self.rows.gradient, self.rows.hessian)


class InTurn:
    """Every row in one of 1 / share samples, which rounds take in turn."""

    def __init__(
        self, training_set: TrainingSet, group: str | None, share: float, objective: Objective, class_weight: Any
    ) -> None:
        samples = binned(training_set).samples(share, group)
        rows: dict[int, Rows] = {}  # of each matrix, which samples may share
        for sample in samples:
            if id(sample.bins) not in rows:
                rows[id(sample.bins)] = Rows(sample, objective, training_set.device)
        of_sample = [(sample, rows[id(sample.bins)]) for sample in samples]
        self.fitted = [Fitted(sample, its_rows, its_rows.weight) for sample, its_rows in of_sample]

    def at(self, walk: Walk, k: int) -> Fitted:
        """What round k is fitted on."""
        return self.fitted[k % len(self.fitted)]


class GradientDraws:
    """A draw of `share` of the rows, more often of those with large derivatives, anew every DRAW_ROUNDS rounds.

    A row is taken with probability min(1, norm / mu), where norm is the root of the sum of its squared gradients and
    Hessians and mu makes the probabilities add up to share * n_rows. It weighs the inverse of its probability, so that
    the sums in a tree's nodes are estimated without bias (Ibragimov and Gusev 2019, minimal variance sampling, with
    lambda 1; XGBoost's own sampling_method="gradient_based" draws for every tree, and on CUDA only). The rows drawn
    stay for some rounds because on the CPU their bins need a matrix of their own: rows of weight 0 cost as much as
    others.
    """

    def __init__(
        self, training_set: TrainingSet, group: str | None, share: float, objective: Objective, class_weight: Any
    ) -> None:
        self.training_set, self.share = training_set, share
        self.objective, self.class_weight = objective, class_weight
        (sample,) = binned(training_set).samples(1.0, group)
        rows = Rows(sample, objective, training_set.device)
        self.whole = self.drawn = Fitted(sample, rows, rows.weight)
        seed = [training_set.seed, zlib.crc32(f"{group} {list(objective.targets)}".encode())]
        self.random = np.random.default_rng(seed)
        self.threads = training_set.threads if group is None else 1

    def at(self, walk: Walk, k: int) -> Fitted:
        """What round k is fitted on."""
        if k % DRAW_ROUNDS == 0 or self.drawn is self.whole:
            self.whole.catch_up(walk, k, self.class_weight)
            self.drawn = self._draw(k)
        return self.drawn

    def _draw(self, k: int) -> Fitted:
        device, whole = self.training_set.device, self.whole.rows
        norm = arithmetic.derivative_norms(whole.gradient, whole.hessian, device).astype(np.float64)
        probability = inclusion_probability(norm, self.share)
        taken = self.random.random(len(norm)) < probability
        sample = binned(self.training_set).draw(self.whole.sample, taken, self.threads)
        rows = whole
        if sample.bins is not self.whole.sample.bins:
            rows = Rows(sample, self.objective, device)
            rows.margin, rows.rounds = whole.margin[device.asarray(np.flatnonzero(taken))], k
            probability = probability[taken]
        times = device.asarray((1 / probability).astype(np.float32)[:, None])
        return Fitted(sample, rows, times if rows.weight is None else rows.weight * times)


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
