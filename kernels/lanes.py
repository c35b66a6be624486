"""Functions that bodies may call, and those by which threads work on an item together: one lane on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import cuda  # at the top of the module, or the simulator cannot replace it


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


def _cuda_lane() -> int:
    return cuda.threadIdx.x


def _cuda_n_lanes() -> int:
    return cuda.blockDim.x


def _cuda_rows_at_once() -> int:
    return 1


def _cuda_recursions_at_once() -> int:
    return 1


def _cuda_barrier() -> None:
    cuda.syncthreads()


ON_CUDA: dict[Callable[..., Any], Callable[..., Any]] = {
    lane: _cuda_lane, n_lanes: _cuda_n_lanes, rows_at_once: _cuda_rows_at_once,
    recursions_at_once: _cuda_recursions_at_once, barrier: _cuda_barrier,
}  # fmt: skip
