"""Stopping: Ctrl-C, SIGTERM and SIGHUP end a command with one line; the same command then goes on where it was."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE_S = 5.0  # for the main thread to leave what it is in; then the process ends as it does at a second signal


class Stopped(KeyboardInterrupt):
    """A signal asked the process to stop. number: of the signal.

    >>> stopped = Stopped(signal.SIGTERM)
    >>> str(stopped), stopped.exit_code
    ('SIGTERM', 143)
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell says of a process that the signal ended: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + self.number


@contextlib.contextmanager
def stoppable(line: str) -> Iterator[None]:
    """Within it the first signal raises Stopped in the main thread; the second ends the process at once, by `line`.

    Python runs a handler only between two steps of the main thread, which may be inside a library for long. A thread
    that the signals wake in any case ends the process then: at a second signal, and PATIENCE_S after the first. What is
    stored is whole at any moment, so that nothing has to be waited for. A signal that is ignored (nohup) stays so, and
    outside of the main thread nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    stopping = threading.Event()

    def handle(number: int, frame: Any) -> None:
        if not stopping.is_set():
            stopping.set()
            raise Stopped(number)

    def watch() -> None:
        first = None
        while True:
            if not select.select([reading], [], [], None if first is None else PATIENCE_S)[0]:
                assert first is not None
                end(Stopped(first), line)
            for number in os.read(reading, 16):
                if number == 0:
                    return
                if number in taken and first is not None:
                    end(Stopped(number), line)
                first = number if number in taken else first

    watcher = threading.Thread(target=watch, name="stopping", daemon=True)
    before = {number: signal.signal(number, handle) for number in taken}
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.write(writing, b"\0")
        watcher.join()
        os.close(reading)
        os.close(writing)


def end(stopped: Stopped, line: str) -> None:
    """Say so and end the process, whatever its threads are doing; nothing is waited for."""
    with contextlib.suppress(OSError, ValueError):
        # Not by sys.stderr: the thread that is interrupted may hold its lock.
        os.write(2, (("\n" if stopped.number == signal.SIGINT else "") + line + "\n").encode("utf-8", "replace"))
    os._exit(stopped.exit_code)


def flush() -> None:
    """Hand on what was printed, as `end` will not."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
