"""The bits of a float as an integer of the same size, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import config
from numba.cuda import libdevice

from .lanes import ON_CUDA, inline


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


def _cuda_bits_32(x: Any) -> Any:
    return libdevice.float_as_int(np.float32(x))


def _cuda_float_32(bits: Any) -> Any:
    return libdevice.int_as_float(np.int32(bits))


def _cuda_bits_64(x: Any) -> Any:
    return libdevice.double_as_longlong(np.float64(x))


def _cuda_float_64(bits: Any) -> Any:
    return libdevice.longlong_as_double(np.int64(bits))


# numba-cuda compiles `view` as a function of its own, for which it asks the driver. These are moves between registers,
# and the simulator has none of them.
if not config.ENABLE_CUDASIM:
    ON_CUDA.update({
        bits_32: _cuda_bits_32, float_32: _cuda_float_32, bits_64: _cuda_bits_64, float_64: _cuda_float_64
    })  # fmt: skip
