"""What a training is given and what it came to, as values: plan, result of an epoch, history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpupipe.estimators.torch.settings import PRECISIONS, SequenceSettings
from gpupipe.runtime.errors import UserError

LEAST_RATE = 1e-6


class TrainingError(UserError):
    """A training cannot go on; the message names the rate."""


@dataclass(frozen=True)
class TrainingPlan:
    """How a network is trained.

    epochs: at most, where validation stops the training; else exactly that many.
    rate: of Adam, in the first epoch.  rows_of_step: rows of an optimiser step.
    patience: epochs without a better validation loss after which training ends; after max(patience // 3, 3) of them,
        and again after as many, the rate is halved, down to LEAST_RATE.
    rates: of each epoch, where they are given in advance (`Trained.rates`): then nothing stops or changes the training.
    epoch_rows: rows drawn anew for each epoch; 0: all rows.
    seed: of the order of rows and of the dropout.
    precision: "fp32"; "bf16": autocast; "auto": bf16 on a GPU that has it, else fp32.
    heads_only: whether the layers that heads share stay as they are, their running statistics included.
    from_start: whether the network as it is given competes with those after the epochs: as epoch 0.

    Raises ValueError for numbers that are out of range, and for another number of rates than epochs.

        >>> plan = TrainingPlan.of(SequenceSettings("fast", 100, batch=64, length=60, patience=10, rate=2e-3), seed=1)
        >>> plan.rate, plan.rows_of_step, plan.plateau
        (0.008, 1024, 3)
    """

    epochs: int
    rate: float
    rows_of_step: int
    patience: int = 10
    rates: tuple[float, ...] | None = None
    epoch_rows: int = 0
    seed: int = 0
    precision: str = "fp32"
    heads_only: bool = False
    from_start: bool = False

    def __post_init__(self) -> None:
        if self.rows_of_step < 1 or self.patience < 1 or self.epochs < 0 or self.epoch_rows < 0 or not self.rate > 0:
            raise ValueError(f"expected positive numbers, got {self}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision {self.precision!r} is unknown; expected {', '.join(PRECISIONS)}")
        if self.rates is not None and len(self.rates) != self.epochs:
            raise ValueError(f"{len(self.rates)} rates are given for {self.epochs} epochs")

    @classmethod
    def of(cls, settings: SequenceSettings, seed: int, **others: Any) -> TrainingPlan:
        """As settings say; the other fields by name."""
        named = {name: getattr(settings, name) for name in ("epochs", "rows_of_step", "patience", "epoch_rows")}
        return cls(rate=settings.step_rate, precision=settings.precision, seed=seed, **(named | others))

    @property
    def plateau(self) -> int:
        """Epochs without a better loss after which the rate is halved."""
        return max(self.patience // 3, 3)


@dataclass(frozen=True)
class EpochResult:
    """What an epoch came to.

    epoch: from 1 on; 0 is the network before training.  rate: of the epoch.
    loss: mean over the fitted rows, of the steps as they came; NaN for epoch 0.
    validation_loss: after the epoch; None without validation.
    heads: mean loss of each head: of validation, else of the fitted rows; NaN where no target is known.

        >>> EpochResult(1, 0.01, 0.7, 0.6, {"label": 0.6}).row
        {'epoch': 1, 'rate': 0.01, 'loss': 0.7, 'validation_loss': 0.6, 'label': 0.6}
    """

    epoch: int
    rate: float
    loss: float
    validation_loss: float | None
    heads: Mapping[str, float]

    @property
    def row(self) -> dict[str, Any]:
        """By column: epoch, rate, loss, validation_loss, and one for each head."""
        columns = ("epoch", "rate", "loss", "validation_loss")
        return {name: getattr(self, name) for name in columns} | dict(self.heads)


@dataclass(frozen=True)
class Trained:
    """What a training came to; the network holds the weights of `best_epoch`.

    best_epoch: of the lowest validation loss; without validation the last one.

        >>> epochs = [EpochResult(k, 0.1 / k, 0.7, loss, {}) for k, loss in ((1, 0.6), (2, 0.5), (3, 0.55))]
        >>> Trained(tuple(epochs), best_epoch=2).rates
        (0.1, 0.05)
    """

    history: tuple[EpochResult, ...]
    best_epoch: int

    @property
    def rates(self) -> tuple[float, ...]:
        """The rate of each epoch up to the best one: what an out-of-fold fit takes (`TrainingPlan.rates`)."""
        return tuple(result.rate for result in self.history if 1 <= result.epoch <= self.best_epoch)
