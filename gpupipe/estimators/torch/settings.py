"""Settings of sequence networks, and the values of the four presets."""

from __future__ import annotations

from dataclasses import dataclass

from gpupipe.estimators.torch.architecture import ARCHITECTURES

PRECISIONS = ("auto", "bf16", "fp32")
# Fields that say how a network is trained, and not what it is: a network that is trained on may have others.
HOW_TRAINED = (
    "epochs", "batch", "patience", "rate", "step_rows", "epoch_rows", "validation_rows", "precision", "head_l2",
)  # fmt: skip
SCALINGS = ("standard", "minmax")


@dataclass(frozen=True)
class SequenceSettings:
    """How a sequence network is built and trained.

    >>> PRESETS["fast"].step_rate == 4 * PRESETS["fast"].rate  # steps of 1,024 rows in the place of 64
    True
    """

    MAY_BE_ZERO = ("step_rows", "epoch_rows", "validation_rows", "max_gap_bars", "return_weight")

    network: str = "balanced"  # model type: fast, balanced, quality or legacy
    epochs: int = 200  # at most
    batch: int = 48  # rows of a step, for which `rate` is meant
    length: int = 90  # bars of a window, the row itself included
    patience: int = 15  # epochs without a better validation loss after which training ends
    rate: float = 1e-3  # learning rate of Adam; halved after max(patience // 3, 3) epochs without a better loss
    step_rows: int = 1024  # rows of a step in the place of `batch`, with rate * sqrt(step_rows / batch); 0: `batch`
    epoch_rows: int = 0  # rows drawn anew for each epoch; 0: all rows
    validation_rows: int = 0  # validation rows that stop the training, at most, at equal distances; 0: all rows
    precision: str = "auto"  # bf16: autocast; fp32; auto: bf16 on a GPU that has it, else fp32
    scaling: str = "standard"  # standard: mean 0, deviation 1; minmax: 0 to 1. Both from fitted rows alone
    clip: float = 4.0  # standardised columns are clipped at this many deviations; min-max ones at -1 and 2
    max_gap_bars: int = 0  # a window may cross gaps of this many bars; 0: of five days, or 10 bars where that is more
    head_l2: float = 4_000.0  # pulls a group's own heads to the pooled ones, as linear.sector_l2 does
    return_weight: float = 0.0  # weight of the next bar's log-return among the losses of the heads; 0: no such head

    @property
    def rows_of_step(self) -> int:
        """Rows of a step."""
        return self.step_rows or self.batch

    @property
    def step_rate(self) -> float:
        """The learning rate of a step: Adam's grows by the square root of its rows (Malladi et al. 2022)."""
        return float(self.rate * (self.rows_of_step / self.batch) ** 0.5)

    def problem(self) -> tuple[str, str] | None:
        """The field that cannot be used, and what is expected of it."""
        if self.network not in ARCHITECTURES:
            return "network", ", ".join(ARCHITECTURES)
        if self.length < (least := ARCHITECTURES[self.network].least_length):
            return "length", f"{least} bars or more, of which the network {self.network} leaves one"
        if self.precision not in PRECISIONS:
            return "precision", ", ".join(PRECISIONS)
        return None if self.scaling in SCALINGS else ("scaling", " or ".join(SCALINGS))


PRESETS = {
    "fast": SequenceSettings(
        "fast", epochs=100, batch=64, length=60, patience=10, rate=2e-3, epoch_rows=32_768, validation_rows=32_768
    ),
    "balanced": SequenceSettings(
        "balanced", epochs=200, batch=48, length=90, patience=15, rate=1e-3, epoch_rows=65_536, validation_rows=65_536
    ),
    "quality": SequenceSettings("quality", epochs=300, batch=32, length=120, patience=20, rate=5e-4),
    "legacy": SequenceSettings("legacy", epochs=300, batch=32, length=120, patience=15, rate=1e-3, step_rows=0),
}
