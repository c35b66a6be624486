"""What a process compiles: whom it tells before, and what it made. Without numba, which takes long to import."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Made:
    """A CPU loop or GPU code that a process made.

    name: of the kernel, with the architecture behind it for GPU code.  seconds: of wall time.  loaded: whether it was
    found on disk, not compiled.

        >>> Made("labels.label_cube", seconds=6.5, loaded=False).name
        'labels.label_cube'
    """

    name: str
    seconds: float
    loaded: bool


def _nobody(name: str) -> None:
    pass


compiling: Callable[[str], None] = _nobody  # called with the name before this process compiles it
made: list[Made] = []  # what this process has compiled or loaded, in that order
