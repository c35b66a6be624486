"""`python -m gpupipe.kernels.gpu_ship`: compile all kernels for all architectures into gpu_code.zip.

A wheel that is built afterwards contains the file, and needs no compiler where it is installed.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
import zipfile
from collections.abc import Iterable

from . import gpu_code
from .ahead import Ahead, Wanted
from .compile import Kernel, all_kernels
from .cores import available_cores
from .gpu_code import ARCHITECTURES, SHIPPED, Capability


def compile_all(kernels: Iterable[Kernel], architectures: Iterable[Capability] = ARCHITECTURES) -> Ahead:
    """Compile what is missing and wait for it, a process for each core."""
    architectures = tuple(architectures)
    building = Ahead([Wanted(kernel, item) for kernel in kernels for item in architectures], available_cores())
    building.wait()
    return building


def ship(path: pathlib.Path = SHIPPED, architectures: Iterable[Capability] = ARCHITECTURES) -> int:
    """Write the code of all kernels into one file; how many entries it has. Equal code gives equal bytes."""
    kernels, architectures = all_kernels(), tuple(architectures)
    compile_all(kernels, architectures)
    part = path.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_LZMA) as file:
        for kernel in kernels:
            members: dict[str, bytes] = {}
            for architecture in architectures:
                code, (ptx, cubin) = gpu_code.code_of(kernel, architecture), gpu_code.files_of(kernel, architecture)
                members |= {ptx: code.ptx.encode(), cubin: code.cubin}
            for name, content in members.items():
                file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_LZMA)
        n_members = len(file.namelist())
    os.replace(part, path)
    return n_members


def main() -> int:
    """Compile all kernels into the file that wheels ship; exit code 2 without a compiler."""
    parser = argparse.ArgumentParser(description="Compile all kernels for GPUs into gpu_code.zip, which wheels ship.")
    parser.add_argument("--out", type=pathlib.Path, default=SHIPPED)
    chosen = parser.parse_args()
    if not gpu_code.can_compile():
        print("numba-cuda is not installed: pip install 'gpupipe[kernels]'", file=sys.stderr)
        return 2
    n_members = ship(chosen.out)
    print(f"{n_members} entries, {chosen.out.stat().st_size / 1e6:.1f} MB in {chosen.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
