"""The larger and the smaller of two floats, by comparisons: CUDA's max and min leave NaN out, and a CPU's do not."""

from __future__ import annotations

from .compile import inline


@inline
def larger(a, b):
    """The larger of two numbers, as Python's max(a, b): a where one of them is NaN."""
    return b if b > a else a


@inline
def smaller(a, b):
    """The smaller of two numbers, as Python's min(a, b): a where one of them is NaN."""
    return b if b < a else a


@inline
def clipped(x, low, high):
    """x within [low, high]; NaN stays NaN."""
    return smaller(larger(x, low), high)
