"""Arithmetic of arrays with the same bits on a CPU and a GPU, where numpy and CuPy round or add differently.

Sums, products, quotients and square roots of single numbers are rounded in one way everywhere. Sums of many numbers
depend on their order, and logarithms on the library: those of arrays that live on the device are here. Arrays of a few
numbers, such as the weights of classes, are better computed by numpy before they are copied.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpupipe.kernels.elementary import logarithms
from gpupipe.kernels.sums import ROWS_OF_BLOCK, column_sums, derivative_norm
from gpupipe.runtime.device import Device

NUMBERS_AT_ONCE = {"cpu": 1 << 12, "cuda": 1}  # of an item of `logarithms`


def known_sums(values: Any, device: Device) -> np.ndarray:
    """Sums of the columns, and numbers of what is known in them: float64 (2, n_columns), on the host.

    values: float32 (n_rows, n_columns), on the device.  NaN is left out.

        >>> from gpupipe.runtime.device import pick
        >>> known_sums(np.float32([[1, 2], [np.nan, 4], [5, 6]]), pick("cpu")).tolist()
        [[6.0, 12.0], [2.0, 3.0]]
    """
    n_rows, n_columns = values.shape
    n_blocks = -(-n_rows // ROWS_OF_BLOCK)
    sums = device.xp.empty((2, n_blocks, n_columns))
    column_sums(n_blocks * n_columns, device.xp.ascontiguousarray(values), sums)
    total: np.ndarray = device.to_host(sums).sum(axis=1)
    return total


def log(values: Any, device: Device) -> Any:
    """Logarithms, float32 of the shape of `values`, float32 on the device; -infinity for 0, NaN below 0.

    >>> from gpupipe.runtime.device import pick
    >>> log(np.float32([[1, 0]]), pick("cpu")).tolist()
    [[0.0, -inf]]
    """
    xp, at_once = device.xp, NUMBERS_AT_ONCE[device.kind]
    flat = xp.ascontiguousarray(values).reshape(-1)
    out = xp.empty_like(flat)
    logarithms(-(-flat.size // at_once), np.int64(at_once), flat, out)
    return out.reshape(values.shape)


def derivative_norms(gradient: Any, hessian: Any, device: Device) -> np.ndarray:
    """The root of the sum of squares of each row's derivatives, float32 (n_rows,), on the host.

    gradient, hessian: float32 (n_rows, n_outputs), C order, on the device.

        >>> from gpupipe.runtime.device import pick
        >>> derivative_norms(np.float32([[3, 0]]), np.float32([[0, 4]]), pick("cpu")).tolist()
        [5.0]
    """
    norm = device.xp.empty(gradient.shape[0], device.xp.float32)
    derivative_norm(gradient.shape[0], gradient, hessian, norm)
    return device.to_host(norm)
