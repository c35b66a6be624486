"""Launch kernels on a GPU by CuPy's Module and Function: without numba, whose launch costs ten times as much."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .gpu_code import Capability, GpuCode, MissingCodeError, architecture_of, capability_of, code_of

if TYPE_CHECKING:
    from .compile import Kernel

THREADS_PER_BLOCK = 128


def launch(kernel: Kernel, n: int, arguments: Sequence[Any]) -> None:
    """Launch a kernel for items [0, n) on the current device, in CuPy's current stream, without waiting.

    arguments: as `Kernel.__call__` takes them; all arrays are CuPy's.
    """
    blocks = min(n, len(arguments[0])) if kernel.cooperative else -(-n // THREADS_PER_BLOCK)
    _launcher(kernel)(blocks, int(n), arguments)  # a typed number would be passed by its own width


def address_of(array: Any) -> int:
    """Where the memory of an array of CuPy begins."""
    return array.data.ptr


class Parameters:
    """How the parameters of a kernel's entry follow from the arguments of a call.

    names: of the parameters, as `GpuCode` has them.

        >>> from gpupipe.kernels.linear import linear_margin
        >>> parameters = Parameters(linear_margin, ("n_items", "Z$data", "Z$shape1"))
        >>> Z = np.zeros((4, 3), np.float32)
        >>> parameters.of(4, (Z,), address=lambda array: "Z's memory")
        (4, "Z's memory", 3)
    """

    def __init__(self, kernel: Kernel, names: Sequence[str]) -> None:
        number = {name: k for k, name in enumerate(kernel.names)}
        # Number of the argument (-1 for n), and what of it is passed: "" for a scalar, "data", or an axis.
        self._plan: list[tuple[int, str | int]] = []
        self._scalars: dict[int, type[np.generic]] = {}
        for name in names:
            argument, _, part = name.partition("$")
            k = number.get(argument, -1)
            if not part and k >= 0:
                self._scalars[k] = np.dtype(kernel.types[k]).type
            self._plan.append((k, int(part.removeprefix("shape")) if part.startswith("shape") else part))

    def of(self, n: int, arguments: Sequence[Any], address: Callable[[Any], Any] = address_of) -> tuple[Any, ...]:
        """Their values: integers are 64 bits wide, scalars as typed.

        address: where an array's memory begins; tests that run PTX on a CPU have another one.
        """
        values: list[Any] = []
        for k, part in self._plan:
            if part == "data":
                values.append(address(arguments[k]))
            elif part != "":
                values.append(arguments[k].shape[part])
            else:
                values.append(n if k < 0 else self._scalars[k](arguments[k]))
        return tuple(values)


class Launcher:
    """A kernel that is loaded on the current device."""

    def __init__(self, kernel: Kernel, code: GpuCode) -> None:
        import cupy

        self._parameters = Parameters(kernel, code.parameters)
        module = cupy.cuda.function.Module()
        try:
            module.load(code.cubin)
        except cupy.cuda.driver.CUDADriverError:  # a driver that is older than the cubin
            try:
                module.load(code.text)
            except cupy.cuda.driver.CUDADriverError as error:
                raise MissingCodeError(
                    f"the CUDA driver loads neither the machine code nor the PTX of {kernel.full_name} ({error}): "
                    "install a newer driver (nvidia-smi shows yours), or run with --device cpu"
                ) from error
        self._function = module.get_function(code.entry)

    def __call__(self, blocks: int, n: int, arguments: Sequence[Any]) -> None:
        """Launch so many blocks."""
        self._function((blocks,), (THREADS_PER_BLOCK,), self._parameters.of(n, arguments))


_loaded: dict[tuple[Kernel, int], Launcher] = {}  # by kernel and number of the device
_lock = threading.Lock()


def _launcher(kernel: Kernel) -> Launcher:
    import cupy

    key = (kernel, cupy.cuda.runtime.getDevice())
    launcher = _loaded.get(key)
    if launcher is None:
        with _lock:
            launcher = _loaded.get(key)
            if launcher is None:
                launcher = _loaded[key] = Launcher(kernel, code_of(kernel, architecture_of(capability())))
    return launcher


def capability() -> Capability:
    """The compute capability of the current device."""
    import cupy

    return capability_of(cupy.cuda.Device().compute_capability)  # "90", "120"
