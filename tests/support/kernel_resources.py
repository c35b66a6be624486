"""What the CUDA compilers say about our kernels, without a GPU: PTX, registers, stack and spills.

`python -m tests.support.kernel_resources` writes kernel_resources.json, the registers that test_cuda_static.py holds
the kernels to; run it after a kernel came or changed, and look at what changed in the table.
"""

from __future__ import annotations

import functools
import json
import pathlib
import re

from gpupipe.kernels import gpu_code
from gpupipe.kernels.compile import Kernel, all_kernels
from gpupipe.kernels.gpu_code import GpuCode
from gpupipe.kernels.gpu_compile import assembled
from gpupipe.kernels.gpu_ship import compile_all

TABLE = pathlib.Path(__file__).with_name("kernel_resources.json")
# Ampere (RTX 30), Ada (RTX 40), Hopper (H100), Blackwell (RTX 50).
ARCHITECTURES = ((8, 6), (8, 9), (9, 0), (12, 0))


def arch_of(cc: tuple[int, int]) -> str:
    """The name of a compute capability: sm_90."""
    return gpu_code.arch_name(cc)


@functools.cache
def code_of(kernel: Kernel, cc: tuple[int, int]) -> GpuCode:
    """The code of a kernel for a compute capability, compiled where no folder has it."""
    return gpu_code.code_of(kernel, cc)


def ptx_of(kernel: Kernel, cc: tuple[int, int]) -> str:
    """The PTX of a kernel for a compute capability."""
    return code_of(kernel, cc).ptx


def resources_of(ptx: str, cc: tuple[int, int]) -> dict[str, int]:
    """Registers a thread, and bytes of stack and of spills, after nvJitLink has made a cubin of the PTX."""
    _, text = assembled(ptx, cc)
    wanted = {
        "registers": r"Used (\d+) registers", "stack": r"(\d+) bytes stack frame",
        "spill_stores": r"(\d+) bytes spill stores", "spill_loads": r"(\d+) bytes spill loads",
    }  # fmt: skip
    return {name: max(map(int, re.findall(pattern, text))) for name, pattern in wanted.items()}


def table() -> dict[str, dict[str, int]]:
    """Registers a thread of every kernel for every architecture."""
    return {
        kernel.full_name: {arch_of(cc): resources_of(ptx_of(kernel, cc), cc)["registers"] for cc in ARCHITECTURES}
        for kernel in all_kernels()
    }


if __name__ == "__main__":
    compile_all(all_kernels(), ARCHITECTURES)
    lines = [f'  "{name}": {json.dumps(row)}' for name, row in table().items()]
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{len(lines)} kernels in {TABLE.name}")
