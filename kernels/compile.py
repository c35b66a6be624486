"""One scalar body, two compilers: `Kernel` runs a body on the CPU (njit loop) or on CUDA, after where its arrays are."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cuda, njit, prange  # cuda at the top of the module, or the simulator cannot replace it

THREADS_PER_BLOCK = 128


class Kernel:
    """A kernel made of `body(i, inputs..., outputs...)`, run for i in [0, n).

    Call it as `kernel(n, *arrays_and_scalars)`. All arrays are numpy (the loop runs on the CPU) or
    all are CuPy (it runs on the current CUDA device, in the current CuPy stream, and returns without
    waiting). Scalars must be typed (`np.float32(...)`, `np.int64(...)`), or the two compilers would
    choose different types. The body stays as `kernel.body`: the definition, and the oracle of the tests.

    double_precision: the body asks for float64 arithmetic (accumulators). The PTX of every other
    kernel must hold no .f64 instruction, and a test reads it.

    Raises ValueError when numpy and CuPy arrays are mixed: a silent copy would hide a transfer.
    """

    def __init__(self, body: Callable[..., None], *, double_precision: bool = False) -> None:
        self.body = body
        self.double_precision = double_precision
        functools.update_wrapper(self, body)

    @functools.cached_property
    def cpu(self) -> Callable[..., None]:
        """The compiled CPU loop `(n, *arguments)`."""
        scalar = njit(error_model="numpy")(self.body)
        return njit(parallel=True, error_model="numpy")(_wrapper(self.body, "for i in prange(n_items):", scalar))

    @functools.cached_property
    def cuda(self) -> Any:
        """The CUDA kernel `(n, *arguments)`; compiling it to PTX needs no driver, launching it does.

        Under NUMBA_ENABLE_CUDASIM=1 the same call gives the simulator's kernel.
        """
        # Without inline="always" numba-cuda asks the driver for the device when it meets the call.
        scalar = cuda.jit(device=True, inline="always")(self.body)
        return cuda.jit(_wrapper(self.body, "i = cuda.grid(1)\n    if i < n_items:", scalar))

    def __call__(self, n: int, *arguments: Any) -> None:
        """Run the body for i in [0, n); outputs are among `arguments` and are written in place."""
        on_device = {hasattr(a, "__cuda_array_interface__") for a in arguments if hasattr(a, "shape") and a.shape != ()}
        if len(on_device) > 1:
            raise ValueError(f"kernel {self.__name__}: numpy and CuPy arrays are mixed; move them with Device.asarray")
        if n == 0:
            return
        if on_device == {True}:
            blocks = (n + THREADS_PER_BLOCK - 1) // THREADS_PER_BLOCK
            self.cuda[blocks, THREADS_PER_BLOCK, _current_stream()](np.int64(n), *arguments)
        else:
            self.cpu(np.int64(n), *arguments)


def kernel(body: Callable[..., None] | None = None, *, double_precision: bool = False) -> Any:
    """Decorator: make a `Kernel` of a body."""
    if body is None:
        return lambda function: Kernel(function, double_precision=double_precision)
    return Kernel(body, double_precision=double_precision)


def _wrapper(body: Callable[..., None], head: str, scalar: Any) -> Callable[..., None]:
    """`def wrapper(n, a0, a1, ...)` that calls the compiled body for each i: neither compiler takes `*arguments` here."""
    arguments = ", ".join(list(inspect.signature(body).parameters)[1:])
    source = f"def wrapper(n_items, {arguments}):\n    {head}\n        scalar(i, {arguments})\n"
    # The names are looked up in this module, where the simulator puts its own `cuda`.
    namespace = {"prange": prange, "cuda": cuda, "scalar": scalar, "__name__": __name__}
    exec(source, namespace)
    wrapper = namespace["wrapper"]
    wrapper.__name__ = wrapper.__qualname__ = body.__name__
    return wrapper


def _current_stream() -> Any:
    import cupy

    return cuda.external_stream(cupy.cuda.get_current_stream().ptr)
