"""Losses of a network's heads: log-loss of classes, squared error of values, each over the rows that have a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from gpupipe.estimators.torch.architecture import Head

UNKNOWN = -1  # the class of a row whose target is not known; of values NaN


@dataclass(frozen=True)
class HeadLoss:
    """How the loss of a head is measured, and what it counts among those of all heads.

    weight: among the heads, >= 0.
    class_weights: what a row of each class counts; None where all classes count alike.
    corrected: whether margins that were fitted with these weights are measured without them: the log-loss of the
        probabilities that a model predicts, of rows that count alike.
    centre, deviation: of a value's targets in training: the head predicts (target - centre) / deviation, and its loss
        is the squared error of that, so that 1 is what the mean of the training targets would get.

    Raises ValueError for a negative weight, a deviation that is not above 0, and class weights of another number.

        >>> HeadLoss(Head("log_return_1", 1), deviation=0.02).weight
        1.0
    """

    head: Head
    weight: float = 1.0
    class_weights: tuple[float, ...] | None = None
    centre: float = 0.0
    deviation: float = 1.0
    corrected: bool = False

    def __post_init__(self) -> None:
        if not (self.weight >= 0 and self.deviation > 0 and np.isfinite([self.centre, self.deviation]).all()):
            raise ValueError(f"{self.head.name}: expected a weight >= 0 and a finite deviation > 0, got {self}")
        if self.class_weights is not None and len(self.class_weights) != self.head.n_outputs:
            raise ValueError(f"{self.head.name} has {len(self.class_weights)} class weights, not {self.head.n_outputs}")


@dataclass(frozen=True, eq=False)
class HeadTargets:
    """Targets of the heads on rows, as tensors on one device.

    columns: of each head (n_rows,): int8 classes with -1 for unknown, or float32 values with NaN.
    weights: of each head float32 (n_rows,), what its rows count; None where they count alike.

        >>> columns = [np.int8([0, -1, 2]), np.float32([0.1, np.nan, 0.3])]
        >>> targets = HeadTargets.of(columns)
        >>> targets.take(torch.tensor([2, 1])).columns[0].tolist()
        [2, -1]
    """

    columns: tuple[torch.Tensor, ...]
    weights: tuple[torch.Tensor | None, ...]

    @classmethod
    def of(cls, columns: Sequence[Any], weights: Sequence[Any] | None = None, torch_device: str = "cpu") -> HeadTargets:
        """Targets of arrays of numpy or CuPy, copied to the device; ValueError where numbers of rows differ."""
        weights = weights or [None] * len(columns)
        lengths = {len(column) for column in (*columns, *weights) if column is not None}
        if len(lengths) > 1 or len(weights) != len(columns):
            raise ValueError(f"targets of {len(columns)} heads have {sorted(lengths)} rows, {len(weights)} weights")

        def tensor(column: Any) -> torch.Tensor:
            kind = torch.float32 if column.dtype.kind == "f" else torch.int8
            return torch.as_tensor(column, device=torch_device).to(kind, copy=True)

        return cls(tuple(map(tensor, columns)), tuple(None if w is None else tensor(w) for w in weights))

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0

    def take(self, positions: torch.Tensor) -> HeadTargets:
        """Of some rows, copied; positions int64, on the device."""
        return self._each(lambda tensor: tensor[positions])

    def take_into(self, positions: torch.Tensor, out: HeadTargets) -> None:
        """Copy some rows to `out`, which has as many."""
        for source, wanted in zip((*self.columns, *self.weights), (*out.columns, *out.weights), strict=True):
            if source is not None and wanted is not None:
                torch.index_select(source, 0, positions, out=wanted)

    def slice(self, first: int, last: int) -> HeadTargets:
        """Of rows first to last - 1, as views."""
        return self._each(lambda tensor: tensor[first:last])

    def _each(self, part: Any) -> HeadTargets:
        weights = tuple(None if weight is None else part(weight) for weight in self.weights)
        return HeadTargets(tuple(map(part, self.columns)), weights)


class HeadLosses:
    """The losses of all heads, with what they need on one device.

    losses: of the heads, in the order of their margins.

    Raises ValueError where no head has a weight above 0.

        >>> losses = HeadLosses([HeadLoss(Head("up", 2)), HeadLoss(Head("return", 1), deviation=0.5)])
        >>> targets = HeadTargets.of([np.int8([1, -1]), np.float32([1, np.nan])])
        >>> sums, counts = losses.sums(torch.zeros(2, 3), targets), losses.counts(targets)
        >>> [round(x, 4) for x in sums.tolist()], counts.tolist(), round(losses.objective(sums, counts).item(), 4)
        ([0.6931, 4.0], [1.0, 1.0], 2.3466)
    """

    def __init__(self, losses: Sequence[HeadLoss], torch_device: str = "cpu") -> None:
        if not sum(loss.weight for loss in losses) > 0:
            raise ValueError("no head has a weight above 0")
        self.losses = tuple(losses)
        # Made here, once: what is made from host memory within a step waits for the device.
        weights = torch.tensor([loss.weight for loss in losses], dtype=torch.float64, device=torch_device)
        self._shares = weights / weights.sum()
        weighted = [
            None if loss.class_weights is None else torch.tensor(loss.class_weights, device=torch_device)
            for loss in losses
        ]
        pairs = list(zip(losses, weighted, strict=True))
        self._class_weights = [None if loss.corrected else weights for loss, weights in pairs]
        self._shifts = [weights.log() if loss.corrected and weights is not None else None for loss, weights in pairs]
        self._torch_device = torch_device

    @property
    def names(self) -> list[str]:
        """Of the heads."""
        return [loss.head.name for loss in self.losses]

    def corrected(self) -> HeadLosses:
        """The same losses, measured as validation measures: without the class weights of the fit."""
        return HeadLosses([replace(loss, corrected=True) for loss in self.losses], self._torch_device)

    def counts(self, targets: HeadTargets) -> torch.Tensor:
        """float64 (n_heads,): what the rows with a known target count together, for each head.

        That is their number, or the sum of their weights times the weights of their classes.
        """
        return torch.stack([self._row_weights(k, targets).sum(dtype=torch.float64) for k in range(len(self.losses))])

    def sums(self, margins: torch.Tensor, targets: HeadTargets) -> torch.Tensor:
        """float64 (n_heads,): the sum of each head's losses over its rows with a known target.

        margins: float32 (n_rows, total outputs), those of the heads side by side.
        A class head's row has the log-loss -log(softmax(margins)[class]), in nats, a value head's the squared error in
        units of the training deviation, times its weight and that of its class. Divided by `counts` it is the mean. A
        row without a known target adds 0, whatever its margins, and gets a gradient of 0.
        NaN:     a margin that is NaN makes the sum NaN where the target is known.
        """
        sums, column = [], 0
        for k, (loss, target) in enumerate(zip(self.losses, targets.columns, strict=True)):
            margin = margins[:, column : column + loss.head.n_outputs]
            column += loss.head.n_outputs
            if (shift := self._shifts[k]) is not None:
                margin = margin - shift
            weights = self._row_weights(k, targets)
            # Rows that do not count get margins of 0, so that a NaN of theirs stays without effect.
            margin = torch.where((weights > 0)[:, None], margin, 0)
            if loss.head.is_value:
                wanted = torch.where(weights > 0, (target - loss.centre) / loss.deviation, 0)
                row_losses = (margin[:, 0] - wanted) ** 2
            else:
                row_losses = torch.nn.functional.cross_entropy(margin, target.clamp_min(0).long(), reduction="none")
            sums.append((row_losses * weights).sum(dtype=torch.float64))
        return torch.stack(sums)

    def objective(self, sums: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """float64 scalar, to be minimised: the mean of the heads' mean losses, by the weights of the heads.

        A head of which no row counts adds 0. `sums` may be those of a part of the rows, and `counts` those of all: the
        parts' gradients then add up to the gradient of all rows.
        """
        return (sums / counts.clamp_min(1e-12) * self._shares).sum()

    def means(self, sums: np.ndarray, counts: np.ndarray) -> tuple[float, list[float]]:
        """(mean over the heads by their weights, mean of each head), of sums over all rows, on the host.

        NaN for a head of which no row counts; such heads are left out of the mean, which is NaN if those are all.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            means = np.where(counts > 0, sums / counts, np.nan)
        weights = np.where(counts > 0, [loss.weight for loss in self.losses], 0.0)
        if not weights.sum() > 0:
            return float("nan"), means.tolist()
        return float((np.where(weights > 0, means, 0.0) * weights).sum() / weights.sum()), means.tolist()

    def _row_weights(self, k: int, targets: HeadTargets) -> torch.Tensor:
        """float32 (n_rows,): what each row counts for head k; 0 where its target is not known."""
        target, weight, class_weights = targets.columns[k], targets.weights[k], self._class_weights[k]
        known = ~torch.isnan(target) if self.losses[k].head.is_value else target >= 0
        row_weights = known.float()
        if class_weights is not None:
            row_weights = row_weights * class_weights[target.clamp_min(0).long()]
        return row_weights if weight is None else torch.where(known, row_weights * weight, 0)
