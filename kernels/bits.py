"""The bits of a float as an integer of the same size, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from .lanes import inline


@inline
def bits_32(x: Any) -> Any:
    """The bits of a float32 as an int32."""
    return np.float32(x).view(np.int32)


@inline
def float_32(bits: Any) -> Any:
    """The float32 of the bits of an int32."""
    return np.int32(bits).view(np.float32)


@inline
def bits_64(x: Any) -> Any:
    """The bits of a float64 as an int64."""
    return np.float64(x).view(np.int64)


@inline
def float_64(bits: Any) -> Any:
    """The float64 of the bits of an int64."""
    return np.int64(bits).view(np.float64)
