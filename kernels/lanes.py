"""Functions that bodies may call, and those by which threads work on an item together: one lane on a CPU.

On a GPU others take their place (`gpu_compile.ON_CUDA`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def inline(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: mark a plain function that bodies may call; it stays plain, and each compiler compiles a copy."""
    function.__kernel_inline__ = True  # type: ignore[attr-defined]
    return function


@inline
def lane() -> int:
    """The number of this thread among those that work on an item together."""
    return 0


@inline
def n_lanes() -> int:
    """How many threads work on an item together."""
    return 1


@inline
def rows_at_once() -> int:
    """Rows that a thread should process together: enough to fill vector registers on a CPU, 1 on a GPU."""
    return 64


@inline
def recursions_at_once() -> int:
    """Recursions that a thread should interleave: enough to hide their latency on a CPU, 1 on a GPU."""
    return 4


@inline
def barrier() -> None:
    """Wait for all threads that work on the item."""
