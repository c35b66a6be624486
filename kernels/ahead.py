"""Kernels compiled ahead of their first call, side by side in processes of their own.

Numba compiles under one lock for the whole process, so threads would take turns; processes do not. They leave CPU loops
and GPU code on disk, where this process finds them. A kernel that they could not compile is compiled by its first call,
as without them.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numba

from . import compile as compiler
from . import gpu_code, notice
from .compile import Kernel, all_kernels
from .cores import available_cores
from .gpu_code import Capability
from .notice import Made


@dataclass(frozen=True)
class Wanted:
    """A kernel's CPU loop, or its code for a GPU's architecture.

    >>> from gpupipe.kernels.linear import linear_margin
    >>> Wanted(linear_margin).name, Wanted(linear_margin, (9, 0)).name
    ('linear.linear_margin', 'linear.linear_margin sm_90')
    """

    kernel: Kernel
    architecture: Capability | None = None

    @property
    def name(self) -> str:
        """The kernel's full name, and the architecture."""
        name = self.kernel.full_name
        return name if self.architecture is None else gpu_code.name_of(name, self.architecture)

    @property
    def kept(self) -> bool | None:
        """Whether it is there already; None where no folder can hold it."""
        if self.architecture is None:
            return self.kernel.kept
        if gpu_code.available(self.kernel, self.architecture):
            return True
        return None if gpu_code.cache_folder() is None else False

    def make(self) -> None:
        """Compile it, and leave it on disk."""
        if self.architecture is None:
            _ = self.kernel.cpu
        else:
            gpu_code.code_of(self.kernel, self.architecture)


class Ahead:
    """Kernels that are being compiled.

    missing: names of what was not on disk, the longest first.  kept: whether compiled code can be kept on disk.
    compiled: what is done.  processes: how many work on it.

        >>> nothing = Ahead([], processes=2)
        >>> nothing.missing, nothing.wait()
        ((), 0.0)
    """

    def __init__(self, wanted: Iterable[Wanted], processes: int) -> None:
        on_disk = {item: item.kept for item in wanted}
        missing = sorted((item for item in on_disk if not on_disk[item]), key=_effort, reverse=True)
        self.missing = tuple(item.name for item in missing)
        self.kept = None not in on_disk.values()
        self.compiled: list[Made] = []
        self.processes = min(processes, len(missing)) if self.kept and sys.executable else 0
        self._waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        if self.processes:
            for item in missing:
                if item.architecture is None:  # who waits for GPU code waits for the lock of `gpu_code`
                    compiler.awaited[item.name] = threading.Event()
                self._waiting.put(item.name)
        # Daemons: a command that is refused or stopped does not wait for compilers, which end with their input.
        self._threads = [threading.Thread(target=self._feed, daemon=True) for _ in range(self.processes)]
        self._left = self.processes
        self._lock = threading.Lock()
        for thread in self._threads:
            thread.start()

    def wait(self) -> float:
        """Wait until all are done; the seconds that it took."""
        began = time.perf_counter()
        for thread in self._threads:
            thread.join()
        return time.perf_counter() - began if self._threads else 0.0

    def _feed(self) -> None:
        """Give names to one process, each when the one before is done."""
        with contextlib.suppress(OSError, ValueError), _compiler() as process:
            assert process.stdin and process.stdout
            with contextlib.suppress(queue.Empty):
                while True:
                    name = self._waiting.get_nowait()
                    try:
                        process.stdin.write(f"{name}\n")
                        process.stdin.flush()
                        if (answer := json.loads(process.stdout.readline())) is not None:
                            self.compiled.append(Made(**answer))
                    finally:
                        if (event := compiler.awaited.pop(name, None)) is not None:
                            event.set()
        with self._lock:
            self._left -= 1
            if self._left == 0:  # what is still waiting was left by processes that failed
                for name in self.missing:
                    if (event := compiler.awaited.pop(name, None)) is not None:
                        event.set()


def _effort(item: Wanted) -> int:
    """The time grows with the code, and GPU code takes longer. Long ones go first: all processes then end together."""
    return len(item.kernel.definition) * (1 if item.architecture is None else 3)


def _compiler() -> subprocess.Popen[str]:
    """A process that compiles the kernels whose names it reads, with the modules and the cache of this one."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if numba.config.CACHE_DIR:
        environment["NUMBA_CACHE_DIR"] = numba.config.CACHE_DIR
    # -P: no module of the working folder takes the place of one of ours.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, env=environment,
    )  # fmt: skip


_begun: dict[tuple[tuple[str, ...], Capability | None], Ahead] = {}
_lock = threading.Lock()


def begin(names: Iterable[str], processes: int | None = None, architecture: Capability | None = None) -> Ahead:
    """Begin to compile those of the named kernels that are not on disk; once a process for the same arguments.

    names: such as "labels.label_cube"; KeyError for an unknown one.  processes: one for each core if None.
    architecture: of the GPU that runs them, too: stages that are placed on the CPU still need loops.
    """
    key = tuple(sorted(set(names))), architecture
    with _lock:
        if key not in _begun:
            known = {kernel.full_name: kernel for kernel in all_kernels()}
            places = (None,) if architecture is None else (None, architecture)
            wanted = [Wanted(known[name], place) for name in key[0] for place in places]
            _begun[key] = Ahead(wanted, available_cores() if processes is None else processes)
        return _begun[key]


def main() -> None:
    """Compile what standard input names, as `Wanted.name` does; a line of JSON for each, a `Made`.

    The end of the input ends the process at once, whatever it compiles: the process that asked has what it wants, or is
    gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked
    names: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            names.put(line.strip())
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    gc.disable()  # a tenth of numba's time goes to looking for cycles, and this process ends soon
    known = {kernel.full_name: kernel for kernel in all_kernels()}
    while True:
        name = names.get()
        kernel, _, architecture = name.partition(" ")
        wanted = Wanted(known[kernel], gpu_code.capability_of(architecture) if architecture else None)
        try:
            wanted.make()
        except Exception:  # its first call says what is wrong; the others are still to be compiled
            print("null", flush=True)
            continue
        print(json.dumps(next(vars(item) for item in reversed(notice.made) if item.name == name)), flush=True)


if __name__ == "__main__":
    main()
