"""A kernel in PTX as a shared library, and its launches over numpy arrays."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.support.ptx.syntax import BITS, parse
from tests.support.ptx.translate import translate

FOLDER = pathlib.Path(__file__).parent
# No contraction and no assumption on rounding: each instruction rounds by itself. Integers wrap.
FLAGS = ("-std=gnu11", "-ffp-contract=off", "-frounding-math", "-fno-math-errno", "-fno-strict-aliasing",
         "-fwrapv", "-fPIC", "-fvisibility=hidden", "-w", "-Werror=implicit-function-declaration")  # fmt: skip
# In the order of the constants in runtime.c.
FAULTS = ("outside", "race", "same value by two", "between blocks", "store to input", "barrier", "not written",
          "unaligned", "division by zero")  # fmt: skip
MARGIN_BYTES = 1 << 16
_TEXT_BYTES = 1 << 14


def why_not() -> str:
    """Why programs cannot run here, and what to do about it; empty where they can."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return f"PTX runs on the CPU on Linux and x86-64 alone, not on {platform.system()} {platform.machine()}"
    if shutil.which("gcc") is None:
        return "PTX runs on the CPU by gcc, which is not installed: apt-get install gcc libc6-dev"
    return ""


@dataclass
class Report:
    """What a checked launch found wrong: the number of each fault, and the first ones in words; unchecked, little.

    >>> Report().faults
    {}
    """

    faults: dict[str, int] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)


class Program:
    """A kernel, compiled; compiled programs are kept on disk by their content.

    checked: with all checks, some ten times slower. Launches hold the GIL, as a program runs one launch at a time.
    `key` is equal for kernels whose PTX differs in nothing that matters here, as for many pairs of architectures.
    """

    def __init__(self, ptx: str, checked: bool = False) -> None:
        entry = parse(ptx)
        self.name, self.parameters, self.checked = entry.name, entry.parameters, checked
        source = f'#include "runtime.h"\n{translate(entry)}\n'
        flags = (*FLAGS, "-DCHECKED") if checked else FLAGS
        runtime = _compiled((FOLDER / "runtime.c").read_text(), "o", ("-O1", *flags))
        # Checked programs run on little data: compiling them takes the time.
        library = _compiled(source, "so", ("-O0" if checked else "-O1", *flags), runtime)
        self.key = library.stem
        self._library = ctypes.PyDLL(str(library))

    def launch(
        self, parameters: Sequence[Any], grid: int, block: int, arrays: Sequence[np.ndarray] = (), order: int = 0,
        written: Sequence[bool] | None = None, unknown: Sequence[bool] | None = None, skip_barrier: int = 0,
    ) -> Report:  # fmt: skip
        """Run with parameters as the PTX declares them: integers, addresses, numpy's scalars; an array is its address.

        arrays: the memory that may be accessed, for a checked program; written and unknown are of them.
        """
        if len(parameters) != len(self.parameters):
            raise ValueError(f"{self.name} has {len(self.parameters)} parameters, got {len(parameters)}")
        slots = [_slot(value, wanted.kind) for value, wanted in zip(parameters, self.parameters, strict=True)]
        table = _table(arrays, written, unknown) if self.checked else []
        counts, text = (ctypes.c_uint64 * len(FAULTS))(), ctypes.create_string_buffer(_TEXT_BYTES)
        self._library.launch(
            (ctypes.c_uint64 * len(slots))(*slots), int(grid), int(block), int(order), int(skip_barrier),
            (ctypes.c_uint64 * max(1, len(table)))(*table), len(table) // 4, counts, text, len(text),
        )  # fmt: skip
        return Report(
            {fault: n for fault, n in zip(FAULTS, counts, strict=True) if n}, text.value.decode().splitlines()
        )


@functools.cache
def program(ptx: str, checked: bool = False) -> Program:
    """As Program, made once in a process."""
    return Program(ptx, checked)


def guarded(array: np.ndarray) -> np.ndarray:
    """A copy of an array with unused memory around it, so that what lies next to it is no other array."""
    memory = np.empty(array.nbytes + 2 * MARGIN_BYTES, np.uint8)
    copy = memory[MARGIN_BYTES : MARGIN_BYTES + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def cache_folder() -> pathlib.Path:
    """Where compiled programs are kept: beside numba's compiled kernels where NUMBA_CACHE_DIR is set."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    folder = pathlib.Path(chosen, "ptx") if chosen else pathlib.Path(tempfile.gettempdir(), f"ptx-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _compiled(source: str, suffix: str, flags: tuple[str, ...], *objects: pathlib.Path) -> pathlib.Path:
    """What gcc makes of C, an object "o" or a library "so", kept by a hash of all that it depends on."""
    header = (FOLDER / "runtime.h").read_text()
    parts = (source, header, suffix, *flags, *(path.stem for path in objects))
    path = cache_folder() / f"{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:24]}.{suffix}"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # renamed when whole: others may do the same
            new = pathlib.Path(folder, path.name)
            command = ["gcc", *flags, f"-I{FOLDER}", {"o": "-c", "so": "-shared"}[suffix], "-x", "c", "-"]
            command += ["-x", "none", *map(str, objects), "-o", str(new), "-lm"]
            done = subprocess.run(command, input=source, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"gcc cannot compile the translated kernel: {done.stderr[:2000]}")
            new.replace(path)
    return path


def _slot(value: Any, kind: str) -> int:
    """A parameter in 8 bytes."""
    if isinstance(value, np.ndarray):
        value = value.ctypes.data if value.size else 0
    elif isinstance(value, float):  # also np.float64
        value = np.float64(value)
    if isinstance(value, np.generic) and 8 * value.itemsize != BITS[kind]:
        raise ValueError(f"{value!r} is passed for a parameter of type {kind}")
    if isinstance(value, np.floating):
        return int(value.view(np.uint32 if value.itemsize == 4 else np.uint64))
    return int(value) % 2 ** BITS[kind]


def _table(arrays: Sequence[np.ndarray], written: Sequence[bool] | None, unknown: Sequence[bool] | None) -> list[int]:
    """Address, bytes, may be stored to, content is unknown: of each array; of arrays that overlap together."""
    regions: list[list[int]] = []
    for k, array in sorted(enumerate(arrays), key=lambda item: item[1].ctypes.data):
        if array.size == 0:
            continue
        begin, end = np.lib.array_utils.byte_bounds(array)
        may_store, is_unknown = int(written is None or written[k]), int(unknown is not None and unknown[k])
        if regions and begin < regions[-1][0] + regions[-1][1]:
            last = regions[-1]
            last[1] = max(last[1], end - last[0])
            last[2], last[3] = last[2] | may_store, last[3] & is_unknown
        else:
            regions.append([begin, end - begin, may_store, is_unknown])
    return [number for region in regions for number in region]
