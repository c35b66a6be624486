"""Curve: what a training was like, epoch by epoch, whichever way it was done."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Epoch:
    """seconds: since training began.  loss, validation_loss: mean log-loss of all labels, nats.  rate: of its steps."""

    seconds: float
    loss: float
    validation_loss: float
    rate: float


@dataclass(frozen=True)
class Curve:
    """The epochs of one training, in order."""

    epochs: tuple[Epoch, ...]

    @property
    def seconds(self) -> float:
        """Until training ended."""
        return self.epochs[-1].seconds

    @property
    def best(self) -> Epoch:
        """The first epoch with the lowest validation loss: its weights are kept."""
        return min(self.epochs, key=lambda epoch: epoch.validation_loss)

    def seconds_to(self, loss: float) -> float | None:
        """Until the validation loss was at most `loss`; None where it never was."""
        return next((epoch.seconds for epoch in self.epochs if epoch.validation_loss <= loss), None)

    def as_list(self) -> list[dict[str, Any]]:
        """Plain values, as JSON can hold them."""
        return [asdict(epoch) for epoch in self.epochs]

    @classmethod
    def from_list(cls, plain: list[dict[str, Any]]) -> Curve:
        """The curve of `as_list`."""
        return cls(tuple(Epoch(**epoch) for epoch in plain))
