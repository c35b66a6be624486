"""Run log: OUT/run.jsonl gets each event of a run as it happens, one a line, from any module and thread."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import math
import os
import pathlib
import threading
import time
import uuid
import warnings
from collections.abc import Iterator
from typing import Any

from gpupipe.runtime import device
from gpupipe.runtime.errors import UserError

FILE = "run.jsonl"


class Journal:
    """The events of one run: kept until there is a file for them, then written as they come.

    A line is one write to a file opened for appending, so lines of several threads and processes do not mix, and it is
    with the operating system before `add` returns: a run that is killed has logged what it did. Nothing waits for the
    disk, so the last lines may be lost with the machine. A line that cannot be written never stops the run; `lost`
    counts them, and the last line says so.

        >>> import tempfile
        >>> path, journal = pathlib.Path(tempfile.mkdtemp()) / FILE, Journal()
        >>> journal.add("stage", stage="features")  # kept until the file is open
        >>> journal.open(path); journal.add("stage", stage="labels"); journal.close()
        >>> [event["stage"] for event in read(path)], journal.lost
        (['features', 'labels'], 0)
    """

    def __init__(self) -> None:
        self.run = uuid.uuid4().hex[:12]
        self.began = time.perf_counter()
        self.lost = 0
        self._waiting: list[bytes] = []
        self._file: int | None = None
        self._lock = threading.RLock()  # a signal's handler may add a line while its thread adds one

    def add(self, event: str, **fields: Any) -> None:
        """Write one event, with the memory held; values are numbers, texts, lists and dictionaries of them."""
        known = {name: value for name, value in fields.items() if value is not None}
        thread = threading.current_thread().name
        with self._lock:  # from here on, so that lines are in the order of their times
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            line = {"time": now, "run": self.run, "event": event, "thread": thread, **device.held(), **known}
            content = (json.dumps(_plain(line), ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "replace")
            if self._file is None:
                self._waiting.append(content)
            else:
                self._write(content)

    def open(self, path: pathlib.Path) -> None:
        """Append to a file from now on, first what is waiting; OSError where it cannot be opened."""
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        with self._lock:
            self._file = file
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                self._write(b"\n")  # a run that was killed left half a line
            for content in self._waiting:
                self._write(content)
            self._waiting.clear()

    def close(self) -> None:
        """Write no more to the file."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
            self._file = None

    def _write(self, content: bytes) -> None:
        assert self._file is not None
        try:
            self.lost += os.write(self._file, content) != len(content)
        except OSError:
            self.lost += 1


_current: Journal | None = None


def event(name: str, **fields: Any) -> None:
    """Add an event to the log of the run that is going on, if one is.

    stage, unit: what it is about.  seconds: what it took.  rows: what it was done on.  bytes: what came of it.
    Other fields are the event's own; None leaves a field out.
    """
    if (journal := _current) is not None:
        journal.add(name, **fields)


@contextlib.contextmanager
def recording() -> Iterator[Journal]:
    """Collect events and warnings; the one in force if there is one. `opened` gives them a file, else they are let go.

    A process logs one run at a time.
    """
    global _current
    if _current is not None:
        yield _current
        return
    journal = _current = Journal()
    log = logging.getLogger("gpupipe")
    # A filter, as a handler would take the place of the last resort that shows warnings to the user.
    log.addFilter(_note)
    shown = warnings.showwarning

    def show(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        event("warning", text=f"{category.__name__}: {message}", where=f"{pathlib.Path(filename).name}:{lineno}")
        shown(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    try:
        yield journal
    finally:
        if warnings.showwarning is show:
            warnings.showwarning = shown
        log.removeFilter(_note)
        _current = None


@contextlib.contextmanager
def opened(out: pathlib.Path, **about: Any) -> Iterator[Journal]:
    """Log to OUT/run.jsonl, after what is there: "start" with `about`, what happens, and "end" with how it ended.

    status of the end: done, refused (the user has something to mend), interrupted, failed. The log of a run that is
    refused before anything was kept is removed again, with everything else that it wrote.
    """
    with recording() as journal:
        path = out / FILE
        fresh = not path.exists()
        journal.add("start", **about)
        journal.open(path)
        status, text, refused = "done", None, False
        try:
            yield journal
        except BaseException as error:
            refused = isinstance(error, UserError)
            stopped = isinstance(error, KeyboardInterrupt)
            status = "refused" if refused else "interrupted" if stopped else "failed"
            text = None if stopped else f"{type(error).__name__}: {error}"
            raise
        finally:
            elapsed_s = time.perf_counter() - journal.began
            journal.add("end", status=status, error=text, seconds=elapsed_s, lines_lost=journal.lost or None)
            journal.close()
            if refused and fresh and not any((out / ".gpupipe").glob("*/*")):
                path.unlink(missing_ok=True)


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The events of a run.jsonl, in order; half lines that killed runs left are passed over."""
    events = []
    for line in pathlib.Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict):
            events.append(content)
    return events


def _note(record: logging.LogRecord) -> bool:
    if record.levelno >= logging.WARNING:
        event("warning", text=record.getMessage())
    return True


def _plain(value: Any) -> Any:
    """What JSON has: numbers of numpy become Python's, those that are not finite null, whatever else its text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)
