"""Compile kernels to PTX by numba-cuda, and to cubins by nvJitLink: needed to build and to test gpupipe, not to run it.

Products and sums stay apart (NVVM's `fma=0`): PTX then has `mul.rn` and `add.rn`, which no later compiler may fuse, and
a kernel gives the same bits as its CPU loop. Numba passes an array as five numbers, its shape and its strides; the
parameters that a kernel never reads are removed, and the others are named after their arguments.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import re
from collections.abc import Callable, Iterator
from typing import Any

from numba import cuda, types

from .compile import Kernel, linked, loop_over_items
from .gpu_code import PTX_TARGETS, Capability, GpuCode, arch_name, ptx_target
from .lanes import barrier, lane, n_lanes, recursions_at_once, rows_at_once

_HEAD = re.compile(r"\.visible\s+\.entry\s+(\w+)\s*\((.*?)\n\)", re.DOTALL)
_DECLARATION = re.compile(r"\.param\s+\.(\w+)\s+(?:\.ptr\s+)?(?:\.align\s+\d+\s+)?(\w+)")
# The first version of PTX that knows a target: a driver reads PTX up to its own version, and our kernels need nothing
# newer.
_PTX_VERSION: dict[Capability, str] = {(7, 5): "6.3", (10, 0): "8.6"}


def _cuda_lane() -> int:
    return cuda.threadIdx.x


def _cuda_n_lanes() -> int:
    return cuda.blockDim.x


def _one() -> int:
    return 1


def _cuda_barrier() -> None:
    cuda.syncthreads()


# What takes the place of a function on a GPU.
ON_CUDA: dict[Callable[..., Any], Callable[..., Any]] = {
    lane: _cuda_lane, n_lanes: _cuda_n_lanes, rows_at_once: _one, recursions_at_once: _one, barrier: _cuda_barrier,
}  # fmt: skip


def compile_for(kernel: Kernel, architecture: Capability) -> GpuCode:
    """The PTX and the cubin of a kernel for an architecture."""
    ptx = ptx_of(kernel, architecture)
    cubin, _ = assembled(ptx, architecture)
    return GpuCode(ptx, cubin)


def ptx_of(kernel: Kernel, architecture: Capability) -> str:
    """The PTX of a kernel that an architecture runs, its entry and parameters named as `GpuCode` says."""
    target = ptx_target(architecture)
    (ptx,) = _lowered(kernel).get_asm_strs(cc=target)
    ptx = re.sub(r"\.common \.global .* _ZN08NumbaEnv\w+;\n", "", ptx)  # which no kernel reads
    ptx = re.sub(r"\.version \d+\.\d+", f".version {_PTX_VERSION[target]}", ptx, count=1)
    return _with_readable_parameters(ptx, kernel)


def assembled(ptx: str, architecture: Capability) -> tuple[bytes, str]:
    """A cubin of PTX, and what the assembler says of registers and stack (nvJitLink, `-verbose`)."""
    from cuda.bindings import nvjitlink

    handle = nvjitlink.create(2, [f"-arch={arch_name(architecture)}", "-verbose"])
    try:
        code = ptx.encode()
        nvjitlink.add_data(handle, nvjitlink.InputType.PTX, code, len(code), "kernel")
        nvjitlink.complete(handle)
        log = bytearray(nvjitlink.get_info_log_size(handle))
        nvjitlink.get_info_log(handle, log)
        cubin = bytearray(nvjitlink.get_linked_cubin_size(handle))
        nvjitlink.get_linked_cubin(handle, cubin)
    finally:
        nvjitlink.destroy(handle)
    return bytes(cubin), log.decode()


@functools.lru_cache(maxsize=4)  # all architectures of a kernel are asked for one after the other
def _lowered(kernel: Kernel) -> Any:
    """A kernel as LLVM's code, which is the same for all architectures."""
    from numba.cuda import compiler

    collects = gc.isenabled()
    gc.disable()  # numba copies millions of small objects, which the collector would look through again and again
    try:
        with _without_a_device():
            library, _ = compiler._compile_pyfunc_with_fixup(
                _cuda_loop(kernel), types.void(*kernel.signature), device=False, abi="numba", cc=PTX_TARGETS[0]
            )
    finally:
        if collects:
            gc.enable()
    library._nvvm_options["fma"] = 0  # numba-cuda has no public way to ask for it
    return library


@contextlib.contextmanager
def _without_a_device() -> Iterator[None]:
    """Numba asks the driver for its device, to compile the functions that a kernel calls for it: here it need not."""
    from numba.cuda import dispatcher

    asked, dispatcher.get_current_device = dispatcher.get_current_device, lambda: _AnyDevice
    try:
        yield
    finally:
        dispatcher.get_current_device = asked


class _AnyDevice:
    """A device of the oldest architecture."""

    compute_capability = PTX_TARGETS[0]


def _cuda_loop(kernel: Kernel) -> Callable[..., None]:
    """The plain function `(n_items, *arguments)` of which numba-cuda makes the entry."""
    scalar = _cuda_function(kernel.body)
    if kernel.cooperative:
        head = "for i in range(cuda.blockIdx.x, n_items, cuda.gridDim.x):"
        return loop_over_items(kernel.body, kernel.__name__, "n_items", head, scalar, "[cuda.blockIdx.x]", cuda=cuda)
    head = "i = cuda.grid(1)\n    if i < n_items:"
    return loop_over_items(kernel.body, kernel.__name__, "n_items", head, scalar, cuda=cuda)


@functools.cache
def _cuda_function(function: Callable[..., Any]) -> Any:
    """A function that CUDA kernels call, or what replaces it on CUDA; compiled once for each types of its arguments."""
    # NVVM inlines it. Numba's own inlining copies and types a body again at each call, which takes minutes for some.
    compiler = cuda.jit(device=True, forceinline=True)
    return compiler(linked(ON_CUDA.get(function, function), _cuda_function))


def _slots(kernel: Kernel) -> Iterator[str]:
    """What numba passes a kernel, in order: for an array five numbers, its shape and its strides."""
    yield "n_items"
    for name, kind in zip(kernel.names, kernel.signature[1:], strict=True):
        if not isinstance(kind, types.Array):
            yield name
            continue
        yield from (f"{name}${part}" for part in ("meminfo", "parent", "size", "itemsize", "data"))
        for part in ("shape", "strides"):
            yield from (f"{name}${part}{axis}" for axis in range(kind.ndim))


def _with_readable_parameters(ptx: str, kernel: Kernel) -> str:
    """PTX without the parameters that it never reads, the others named after their arguments."""
    head = _HEAD.search(ptx)
    assert head is not None, "numba-cuda made PTX of another form"
    entry, declared = head[1], _DECLARATION.findall(head[2])
    body = ptx[head.end() :]
    declarations = []
    for (kind, parameter), name in zip(declared, _slots(kernel), strict=True):
        pattern = re.compile(rf"\b{parameter}\b")
        if pattern.search(body):
            declarations.append(f"\t.param .{kind} {name}")
            body = pattern.sub(name.replace("\\", ""), body)
    unknown = [name for name in declarations if "$" in name and not re.search(r"\$(data|shape\d)$", name)]
    assert not unknown, f"a kernel of C-contiguous arrays reads {unknown}"
    listed = ",\n".join(declarations)
    text = f"{ptx[: head.start()]}.visible .entry {kernel.__name__}(\n{listed}\n){body}"
    return re.sub(rf"\b{entry}\b", kernel.__name__, text)
