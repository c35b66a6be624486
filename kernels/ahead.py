"""Kernels compiled ahead of their first call, side by side in processes of their own.

Numba compiles under one lock for the whole process, so threads would take turns; processes do not. They leave the
compiled loops on disk, where this process finds them. A kernel that they could not compile is compiled by its first
call, as without them.
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

import numba

from . import compile as compiler
from .compile import Kernel, Made, all_kernels
from .cores import available_cores


class Ahead:
    """Kernels that are being compiled.

    missing: names of those that were not on disk, the longest first.  kept: whether compiled loops can be kept on disk.
    compiled: those that are done.  processes: how many work on them.

        >>> nothing = Ahead([], processes=2)
        >>> nothing.missing, nothing.wait()
        ((), 0.0)
    """

    def __init__(self, kernels: Iterable[Kernel], processes: int) -> None:
        on_disk = {kernel: kernel.kept for kernel in kernels}
        # The time of a kernel grows with its code. The longest go first, so that all processes end at about one time.
        missing = sorted((k for k in on_disk if not on_disk[k]), key=lambda k: len(k.definition), reverse=True)
        self.missing = tuple(kernel.full_name for kernel in missing)
        self.kept = None not in on_disk.values()
        self.compiled: list[Made] = []
        self.processes = min(processes, len(missing)) if self.kept and sys.executable else 0
        self._waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        if self.processes:
            for name in self.missing:
                compiler.awaited[name] = threading.Event()
                self._waiting.put(name)
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
                        self.compiled.append(Made(**json.loads(process.stdout.readline())))
                    finally:
                        compiler.awaited.pop(name).set()
        with self._lock:
            self._left -= 1
            if self._left == 0:  # what is still waiting was left by processes that failed
                for name in self.missing:
                    if (event := compiler.awaited.pop(name, None)) is not None:
                        event.set()


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


_begun: dict[tuple[str, ...], Ahead] = {}
_lock = threading.Lock()


def begin(names: Iterable[str], processes: int | None = None) -> Ahead:
    """Begin to compile those of the named kernels that are not on disk; once a process for the same names.

    names: such as "labels.label_cube"; KeyError for an unknown one.  processes: one for each core if None.
    """
    key = tuple(sorted(set(names)))
    with _lock:
        if key not in _begun:
            known = {kernel.full_name: kernel for kernel in all_kernels()}
            wanted = [known[name] for name in key]
            _begun[key] = Ahead(wanted, available_cores() if processes is None else processes)
        return _begun[key]


def main() -> None:
    """Compile the kernels whose names are read from standard input; a line of JSON for each, a `Made`.

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
        _ = known[name].cpu
        print(json.dumps(next(vars(item) for item in reversed(compiler.made) if item.name == name)), flush=True)


if __name__ == "__main__":
    main()
