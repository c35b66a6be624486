"""The machine that is measured, and its kernels compiled, so that no later step counts a compiler's time."""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench.runs import Line
from bench.timing import cores
from gpupipe.kernels.ahead import Ahead, Wanted
from gpupipe.kernels.compile import all_kernels
from gpupipe.runtime.device import pick
from gpupipe.store import fingerprint


def described() -> Iterator[Line]:
    """The GPU, its driver, its memory, the cores beside it, and versions."""
    import cupy

    free, whole = cupy.cuda.runtime.memGetInfo()
    yield {
        "capability": cupy.cuda.Device().compute_capability, "driver": cupy.cuda.runtime.driverGetVersion(),
        "runtime": cupy.cuda.runtime.runtimeGetVersion(), "memory_gb": whole / 1e9, "free_gb": free / 1e9,
        "cores": cores(), "versions": fingerprint.versions(),
    }  # fmt: skip


def compiled() -> Iterator[Line]:
    """Every kernel for the CPU and for the GPU, a process for each core: what was missing, and seconds."""
    architecture = pick("cuda").architecture
    began = time.perf_counter()
    wanted = [Wanted(kernel, target) for kernel in all_kernels() for target in (None, architecture)]
    building = Ahead(wanted, cores())
    building.wait()
    missing = len(building.missing)
    yield {"kernels": len(wanted), "compiled": missing, "compile_seconds": time.perf_counter() - began}
