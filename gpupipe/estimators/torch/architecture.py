"""Architecture: the layers of a sequence network as a value, and the four networks of the presets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Convolution:
    """A convolution over time with a kernel of 3 bars, then ReLU.

    channels: outputs.  same: whether the length stays (one bar of zeros at each end), else it shrinks by 2.
    normalised: batch normalisation before the ReLU.  pooled: max-pooling of 2 bars after it.

        >>> Convolution(32).length_after(60), Convolution(64, same=False, normalised=False).length_after(120)
        (30, 59)
    """

    channels: int
    same: bool = True
    normalised: bool = True
    pooled: bool = True

    def length_after(self, length: int) -> int:
        """Number of bars that are left of `length`."""
        length = length if self.same else length - 2
        return length // 2 if self.pooled else length


@dataclass(frozen=True)
class Recurrent:
    """A recurrent layer over the bars that are left; the last layer of a network gives its last bar alone.

    kind: "gru" or "lstm".  size: of its state, in each direction.
    both: whether a second pass runs backwards, whose outputs stand beside the first's.
    normalised: layer normalisation of the outputs.

        >>> Recurrent("lstm", 120, both=True).width
        240
    """

    kind: str
    size: int
    both: bool = False
    normalised: bool = False

    @property
    def width(self) -> int:
        """Outputs of a bar."""
        return self.size * (2 if self.both else 1)


@dataclass(frozen=True)
class Architecture:
    """The layers of a network: convolutions, recurrent layers, dense layers with ReLU, then a linear layer per head.

    dropout: share of the outputs that is dropped in training, after each recurrent and each dense layer.

        >>> network = ARCHITECTURES["fast"]
        >>> network.length_after(60), [layer.size for layer in network.recurrent], network.least_length
        (30, [64, 32], 2)
    """

    convolutions: tuple[Convolution, ...]
    recurrent: tuple[Recurrent, ...]
    dense: tuple[int, ...]
    dropout: float = 0.2

    def length_after(self, length: int) -> int:
        """Number of bars that reach the recurrent layers, of a window of `length`."""
        for layer in self.convolutions:
            length = layer.length_after(length)
        return length

    @property
    def least_length(self) -> int:
        """The shortest window of which a bar is left."""
        return next(length for length in range(1, 1000) if self.length_after(length) >= 1)


ARCHITECTURES = {
    "fast": Architecture((Convolution(32),), (Recurrent("gru", 64), Recurrent("gru", 32)), (32,)),
    "balanced": Architecture(
        (Convolution(48), Convolution(96)), (Recurrent("gru", 80, normalised=True), Recurrent("gru", 40)), (40,)
    ),
    "quality": Architecture(
        (Convolution(64), Convolution(128), Convolution(256, pooled=False)),
        (Recurrent("lstm", 120, both=True, normalised=True), Recurrent("lstm", 60)),
        (80, 40),
        dropout=0.3,
    ),
    "legacy": Architecture(
        (Convolution(64, same=False, normalised=False), Convolution(128, same=False, normalised=False)),
        (Recurrent("lstm", 100), Recurrent("lstm", 50)),
        (50,),
    ),
}


@dataclass(frozen=True)
class Head:
    """One output of a network: a linear layer of its own on the shared layers.

    name: of what it predicts.  n_outputs: margins of that many classes (log-loss), or 1 for a value (squared error).

        >>> Head("label_1d_5pct", 3).is_value, Head("log_return_1", 1).is_value
        (False, True)
    """

    name: str
    n_outputs: int

    @property
    def is_value(self) -> bool:
        """Whether it predicts a value, not classes."""
        return self.n_outputs == 1
