"""What the CUDA compilers say about our kernels, without a GPU: PTX, registers, stack and spills.

`python -m tests.support.kernel_resources` writes kernel_resources.json, the registers that test_cuda_static.py holds
the kernels to; run it after a kernel came or changed, and look at what changed in the table.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import json
import pathlib
import re
import sys
import tempfile
from types import SimpleNamespace
from typing import Any

import pytest

from gpupipe.kernels import lanes
from tests.support.ptx.program import cache_folder

ROOT = pathlib.Path(__file__).parents[2]
LANES = pathlib.Path(lanes.__file__).read_text()
TABLE = pathlib.Path(__file__).with_name("kernel_resources.json")
# Ampere (RTX 30), Ada (RTX 40), Hopper (H100), Blackwell (RTX 50).
ARCHITECTURES = ((8, 6), (8, 9), (9, 0), (12, 0))


def name_of(kernel: Any) -> str:
    """Module and name: labels.label_cube."""
    return f"{kernel.__module__.rpartition('.')[2]}.{kernel.__name__}"


def arch_of(cc: tuple[int, int]) -> str:
    """The name of a compute capability: sm_90."""
    return f"sm_{cc[0]}{cc[1]}"


@functools.cache
def ptx_of(kernel: Any, cc: tuple[int, int]) -> str:
    """The PTX of a kernel for a compute capability, in which no product is fused with a sum.

    It is kept on disk by what it depends on, because making it for all kernels takes half a minute.
    """
    import numba
    import numba_cuda

    parts = (kernel.definition, kernel.types, kernel.cooperative, cc, numba.__version__, numba_cuda.__version__, LANES)
    path = cache_folder() / f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:24]}.ptx"
    if not path.exists():
        library = _lowered(kernel)
        library._nvvm_options["fma"] = 0  # numba-cuda has no public option for it
        (ptx,) = library.get_asm_strs(cc=cc)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".ptx", delete=False) as file:
            file.write(ptx)
        pathlib.Path(file.name).replace(path)
    return path.read_text()


@functools.cache
def _lowered(kernel: Any) -> Any:
    """A kernel as LLVM's code, which for all of ARCHITECTURES is the same."""
    from numba import types
    from numba.cuda import compiler, dispatcher

    gc.disable()  # numba copies millions of small objects, which the collector would look through again and again
    try:
        with pytest.MonkeyPatch.context() as patch:
            # Numba asks the driver for its device, to compile the functions that a kernel calls for it.
            anything = SimpleNamespace(compute_capability=ARCHITECTURES[0])
            patch.setattr(dispatcher, "get_current_device", lambda: anything)
            library, _ = compiler._compile_pyfunc_with_fixup(
                kernel.cuda.py_func, types.void(*kernel.signature), device=False, abi="numba", cc=ARCHITECTURES[0]
            )
    finally:
        gc.enable()
    return library


def resources_of(ptx: str, cc: tuple[int, int]) -> dict[str, int]:
    """Registers a thread, and bytes of stack and of spills, after nvJitLink has made a cubin of the PTX."""
    from cuda.bindings import nvjitlink

    handle = nvjitlink.create(2, [f"-arch={arch_of(cc)}", "-verbose"])
    try:
        code = ptx.encode()
        nvjitlink.add_data(handle, nvjitlink.InputType.PTX, code, len(code), "kernel")
        nvjitlink.complete(handle)
        log = bytearray(nvjitlink.get_info_log_size(handle))
        nvjitlink.get_info_log(handle, log)
        assert nvjitlink.get_linked_cubin_size(handle) > 0
    finally:
        nvjitlink.destroy(handle)
    text = log.decode()
    wanted = {
        "registers": r"Used (\d+) registers", "stack": r"(\d+) bytes stack frame",
        "spill_stores": r"(\d+) bytes spill stores", "spill_loads": r"(\d+) bytes spill loads",
    }  # fmt: skip
    return {name: max(map(int, re.findall(pattern, text))) for name, pattern in wanted.items()}


def table() -> dict[str, dict[str, int]]:
    """Registers a thread of every kernel for every architecture."""
    from gpupipe.kernels.compile import all_kernels

    return {
        name_of(kernel): {arch_of(cc): resources_of(ptx_of(kernel, cc), cc)["registers"] for cc in ARCHITECTURES}
        for kernel in all_kernels()
    }


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    lines = [f'  "{name}": {json.dumps(row)}' for name, row in table().items()]
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{len(lines)} kernels in {TABLE.name}")
