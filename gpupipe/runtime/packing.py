"""Several arrays in one block of bytes, which crosses the host-device bus at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

ALIGNMENT = 16  # bytes


def _aligned_ends(arrays: Sequence[Any]) -> list[int]:
    """Where each array begins in the bytes of all, and where the last one ends."""
    return list(itertools.accumulate((-(-array.nbytes // ALIGNMENT) * ALIGNMENT for array in arrays), initial=0))


def packed(arrays: Sequence[Any], xp: Any) -> Any:
    """uint8 (n_bytes,): the bytes of arrays in C order, one after another, each from a multiple of ALIGNMENT on.

    arrays: of numpy or CuPy, whose module is xp.

        >>> block = packed([np.int8([1, 2]), np.float32([[0.5]])], np)
        >>> block.shape, [array.tolist() for array in unpacked(block, [np.zeros(2, np.int8), np.zeros((1, 1), "f4")])]
        ((32,), [[1, 2], [[0.5]]])
    """
    ends = _aligned_ends(arrays)
    block = xp.zeros(ends[-1], np.uint8)
    for array, first in zip(arrays, ends, strict=False):
        block[first : first + array.nbytes] = xp.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return block


def unpacked(block: Any, arrays: Sequence[Any]) -> tuple[Any, ...]:
    """Views of a block of `packed` with the dtypes and shapes of the arrays."""
    return tuple(
        block[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
        for array, first in zip(arrays, _aligned_ends(arrays), strict=False)
    )
