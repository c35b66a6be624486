"""Kernels of the stand-in's device: modules of PTX, run by tests.support.ptx, and counted by name."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from tests.support.ptx import program
from tests.support.stand_in import counting
from tests.support.stand_in.counting import COUNTS
from tests.support.stand_in.memory import ALLOCATIONS
from tests.support.stand_in.recorded import RefusedError

_one_launch = threading.Lock()  # the launcher of PTX is for one thread at a time
_HARMLESS = {"same value by two"}  # several threads may store the same value


class Checked:
    """Whether kernels are run with checks."""

    on = False


CHECKED = Checked()


class CUDADriverError(RuntimeError):
    """An error of CUDA's driver."""


class Module:
    """`cupy.cuda.function.Module`: a program that was loaded, of PTX."""

    def __init__(self) -> None:
        self._ptx = ""

    def load(self, cubin: bytes) -> None:
        """Load PTX. CUDADriverError for a cubin, as of a driver that is older than it."""
        if cubin.startswith(b"\x7fELF"):
            raise CUDADriverError("CUDA_ERROR_NO_BINARY_FOR_GPU: the stand-in runs PTX")
        self._ptx = cubin.rstrip(b"\0").decode()

    def get_function(self, name: str) -> Function:
        """The kernel of a name."""
        return Function(self._ptx, name)


class Function:
    """`cupy.cuda.function.Function`: a kernel, called with its grid, its block and its parameters."""

    def __init__(self, ptx: str, name: str) -> None:
        self._program, self.name = program(ptx, checked=CHECKED.on), name

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], shared_mem: int = 0,
        stream: Any = None,
    ) -> None:  # fmt: skip
        """Run it over host memory. args: addresses, integers of 64 bits and typed scalars, one for each parameter."""
        for value in args:
            if not isinstance(value, int | float | bool | np.number | np.bool_):
                raise RefusedError(f"kernel {self.name}: Unsupported type {type(value)} of a parameter")
        blocks, threads = (int(np.prod(shape)) for shape in (grid, block))
        arrays = ALLOCATIONS.alive() if CHECKED.on else []
        with _one_launch:
            done = self._program.launch(args, blocks, threads, arrays=arrays)
        if faults := done.faults.keys() - _HARMLESS:
            raise RefusedError(f"kernel {self.name}: {', '.join(sorted(faults))}; {done.messages[0]}")
        COUNTS.add(counting.LAUNCHES, self.name)
