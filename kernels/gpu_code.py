"""The GPU code of kernels: PTX and cubins by definition and architecture, shipped, kept on disk, or compiled once.

Code is looked up in this order: in `gpu_code.zip` beside this file, which a wheel may ship; in the folder that
`NUMBA_CACHE_DIR` names, else in `__pycache__` beside this file, else (an environment that only root may write to) in
the user's cache folder. What is nowhere is compiled by numba-cuda, under a lock that processes share, and kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import os
import pathlib
import re
import threading
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from lzma import LZMAError
from typing import TYPE_CHECKING

from . import notice

if TYPE_CHECKING:
    from .compile import Kernel

Capability = tuple[int, int]
# Turing (the oldest that CUDA 13 supports), A100, RTX 30, RTX 40, H100, B200, RTX 50. A device runs the code of the
# newest architecture that is not newer than itself.
ARCHITECTURES: tuple[Capability, ...] = ((7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0))
# NVVM writes PTX of two generations. One text of each serves all architectures from its target on, and cubins are
# assembled of it: what tests run on a CPU is therefore what every GPU runs.
PTX_TARGETS: tuple[Capability, ...] = ((7, 5), (10, 0))
SHIPPED = pathlib.Path(__file__).with_name("gpu_code.zip")
# What reading a file raises that is missing or damaged: it counts as one that is not there.
_UNREADABLE = (OSError, KeyError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error, LZMAError)
_ENTRY = re.compile(r"\.entry\s+(\w+)\s*\(([^)]*)\)")
_PARAMETER = re.compile(r"\.param\s+\.\w+\s+([\w$]+)")


class MissingCodeError(Exception):
    """A kernel has no code for a GPU, and none can be compiled; the message names the fix."""


@dataclass(frozen=True)
class GpuCode:
    """The code of one kernel for one architecture.

    ptx: text with one entry, whose parameters are named after the arguments that they come from: `n_items`, the name of
        a scalar, `x$data` (the address of an array), `x$shape0` (the length of its first dimension).
    cubin: machine code made of the PTX, which loads in no time.

        >>> code = GpuCode(".visible .entry double(.param .u64 n_items, .param .u64 x$data)\\n{ ret; }", b"\\x7fELF")
        >>> code.entry, code.parameters
        ('double', ('n_items', 'x$data'))
    """

    ptx: str
    cubin: bytes

    @property
    def entry(self) -> str:
        """The name of the function that is launched."""
        return self._signature[1]

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of its parameters, in order."""
        return tuple(_PARAMETER.findall(self._signature[2]))

    @property
    def _signature(self) -> re.Match[str]:
        found = _ENTRY.search(self.ptx)
        if found is None:
            raise ValueError("the PTX has no .entry")
        return found

    @property
    def text(self) -> bytes:
        """The PTX as a driver loads it, with the 0 byte that ends it."""
        return self.ptx.encode() + b"\0"


def architecture_of(capability: Capability) -> Capability:
    """The architecture whose code a device of a compute capability runs; MissingCodeError for one that is too old.

    >>> architecture_of((9, 0)), architecture_of((12, 1)), architecture_of((8, 7))
    ((9, 0), (12, 0), (8, 6))
    """
    able = [architecture for architecture in ARCHITECTURES if architecture <= capability]
    if not able:
        oldest = ".".join(map(str, ARCHITECTURES[0]))
        raise MissingCodeError(f"the GPU has compute capability {'.'.join(map(str, capability))}; {oldest} is needed")
    return able[-1]


def ptx_target(architecture: Capability) -> Capability:
    """The target of the PTX whose code an architecture runs.

    >>> ptx_target((9, 0)), ptx_target((12, 0))
    ((7, 5), (10, 0))
    """
    return max(target for target in PTX_TARGETS if target <= architecture)


def arch_name(architecture: Capability) -> str:
    """The name that compilers give an architecture.

    >>> arch_name((12, 0)), capability_of("sm_120")
    ('sm_120', (12, 0))
    """
    return f"sm_{architecture[0]}{architecture[1]}"


def capability_of(arch: str) -> Capability:
    """The architecture of a name such as sm_90."""
    digits = arch.removeprefix("sm_")
    return int(digits[:-1]), int(digits[-1])


def name_of(full_name: str, architecture: Capability) -> str:
    """What is shown of a kernel's code: labels.label_cube sm_90."""
    return f"{full_name} {arch_name(architecture)}"


def file_name(kernel: Kernel, architecture: Capability) -> str:
    """The name of a kernel's code without suffix: kernel, hash of its definition and of what compiles it, architecture.

    The version of numba-cuda is no part of the hash, so that shipped code is found without it.
    """
    text = f"{kernel.definition}\0{kernel.types}\0{kernel.cooperative}\0{_compiler_source()}"
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{kernel.full_name}-{digest}-{arch_name(architecture)}"


def available(kernel: Kernel, architecture: Capability) -> bool:
    """Whether the code is shipped or kept, so that nothing has to be compiled."""
    return _found(kernel, architecture) is not None


def code_of(kernel: Kernel, architecture: Capability) -> GpuCode:
    """The code of a kernel, compiled and kept where it is neither shipped nor kept.

    Raises MissingCodeError where numba-cuda, which compiles, is not installed.
    """
    began, name = time.perf_counter(), name_of(kernel.full_name, architecture)
    if (code := _found(kernel, architecture)) is not None:
        notice.made.append(notice.Made(name, time.perf_counter() - began, loaded=True))
        return code
    if problem := why_not([kernel], architecture):
        raise MissingCodeError(problem)
    folder = cache_folder()
    with _only_one(folder, kernel):
        code = _found(kernel, architecture)  # another thread or process may have been first
        loaded = code is not None
        if code is None:
            from .gpu_compile import compile_for

            notice.compiling(name)
            code = compile_for(kernel, architecture)
            if folder is not None:
                _keep(folder, kernel, architecture, code)
        notice.made.append(notice.Made(name, time.perf_counter() - began, loaded))
        return code


def can_compile() -> bool:
    """Whether numba-cuda and nvJitLink are installed."""
    try:
        found = [importlib.util.find_spec(name) for name in ("numba_cuda", "cuda.bindings.nvjitlink")]
    except ModuleNotFoundError:  # no package `cuda`
        return False
    return all(found)


def why_not(kernels: Iterable[Kernel], architecture: Capability) -> str:
    """Why some of the kernels cannot run on an architecture, and the fix; empty where all can."""
    if can_compile():
        return ""
    missing = [kernel.full_name for kernel in kernels if not available(kernel, architecture)]
    if not missing:
        return ""
    number = ".".join(map(str, architecture))
    return (
        f"{len(missing)} kernels have no code for compute capability {number} here ({missing[0]}), and numba-cuda, "
        "which compiles it, is not installed: pip install 'gpupipe[kernels]', or numba-cuda[cu12] for a CUDA 12 driver"
    )


def cache_folder() -> pathlib.Path | None:
    """Where compiled code is kept; None where no folder can be written."""
    for folder in _folders():
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    return None


def _folders() -> Iterator[pathlib.Path]:
    """Where code is looked up, the first first: also in folders that cannot be written."""
    import numba

    if numba.config.CACHE_DIR:
        yield pathlib.Path(numba.config.CACHE_DIR, "gpu", _compiler_version())
        return
    yield pathlib.Path(__file__).parent / "__pycache__" / "gpu" / _compiler_version()
    if (user := users_cache()) is not None:
        yield user / "gpu" / _compiler_version()


def users_cache() -> pathlib.Path | None:
    """The user's cache folder of gpupipe; None for a user without a home."""
    if base := os.environ.get("XDG_CACHE_HOME"):
        return pathlib.Path(base, "gpupipe")
    with contextlib.suppress(RuntimeError):
        return pathlib.Path.home() / ".cache" / "gpupipe"
    return None


@functools.cache
def _compiler_version() -> str:
    """The version of numba-cuda: what another one has compiled is not taken."""
    try:
        return importlib.metadata.version("numba-cuda")
    except importlib.metadata.PackageNotFoundError:
        return "none"


@functools.cache
def _compiler_source() -> str:
    """The source of what compiles, and of what writes the entries: code that an earlier one made is not taken."""
    from .compile import linked, loop_over_items

    file = pathlib.Path(__file__).with_name("gpu_compile.py")
    return file.read_text(encoding="utf-8") + inspect.getsource(linked) + inspect.getsource(loop_over_items)


def _found(kernel: Kernel, architecture: Capability) -> GpuCode | None:
    ptx, cubin = files_of(kernel, architecture)
    with contextlib.suppress(*_UNREADABLE), zipfile.ZipFile(SHIPPED) as shipped:
        return _whole(shipped.read(ptx), shipped.read(cubin))
    for folder in _folders():
        with contextlib.suppress(*_UNREADABLE):
            return _whole((folder / ptx).read_bytes(), (folder / cubin).read_bytes())
    return None


def _whole(ptx: bytes, cubin: bytes) -> GpuCode:
    """The code of two files; ValueError for one that is cut short."""
    code = GpuCode(ptx.decode(), cubin)
    if not code.entry or not code.ptx.rstrip().endswith("}") or not cubin:
        raise ValueError("cut short")
    return code


def files_of(kernel: Kernel, architecture: Capability) -> tuple[str, str]:
    """Names of a kernel's PTX and cubin."""
    return f"{file_name(kernel, ptx_target(architecture))}.ptx", f"{file_name(kernel, architecture)}.cubin"


def _keep(folder: pathlib.Path, kernel: Kernel, architecture: Capability, code: GpuCode) -> None:
    """Write both files, each whole or not at all; a full disk keeps nothing."""
    ptx, cubin = files_of(kernel, architecture)
    with contextlib.suppress(OSError):
        for name, content in ((ptx, code.ptx.encode()), (cubin, code.cubin)):
            part = folder / f"{name}.{os.getpid()}"
            try:
                with part.open("wb") as file:  # with the permissions of the user's other files
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())  # or a machine that loses its power may have an empty file of this name
                part.replace(folder / name)
            finally:
                part.unlink(missing_ok=True)


_threads_turn = threading.Lock()  # numba compiles one kernel at a time in a process anyhow


@contextlib.contextmanager
def _only_one(folder: pathlib.Path | None, kernel: Kernel) -> Iterator[None]:
    """Let one thread of one process compile a kernel; the others then find it on disk.

    Where files cannot be locked, several processes may compile the same.
    """
    with _threads_turn, contextlib.ExitStack() as stack:
        if folder is not None:
            with contextlib.suppress(OSError):
                file = stack.enter_context((folder / f"{kernel.full_name}.lock").open("w"))
                fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, also by a process that dies
        yield
