"""Standard output and error of every command: characters that an encoding lacks, a closed pipe, a full disk."""

from __future__ import annotations

import codecs
import contextlib
import errno
import json
import os
import pathlib
import re
import signal
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from gpupipe.runtime.errors import UserError
from gpupipe.runtime.interrupts import Stopped

READABLE = "gpupipe.readable"  # the error handler for characters that an encoding lacks
# What stands for our own signs. Any other character that an encoding lacks becomes a question mark.
ASCII = {"–": "-", "—": "-", "−": "-", "…": "...", "±": "+/-", "·": "-", "→": "->", "×": "x", "“": '"', "”": '"',
         "‘": "'", "’": "'", "━": "-", "╸": "-", "╺": "-", "─": "-", "│": "|"}  # fmt: skip


class OutputError(UserError):
    """Standard output cannot be written to, as on a full disk.

    >>> str(OutputError("standard output: No space left on device"))
    'standard output: No space left on device'
    """


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Within it nothing that is printed ends a command in a traceback.

    A character that the encoding lacks is replaced, see `readable`. A closed pipe raises Stopped (SIGPIPE), any other
    failure of standard output OutputError; from then on what is printed is dropped. Standard error is best effort: its
    failures are dropped.
    """
    codecs.register_error(READABLE, _replace)
    out, err = sys.stdout, sys.stderr
    for stream in (out, err):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=READABLE)
    if out is not None:  # a closed descriptor: there is nothing to write to
        sys.stdout = _Output(out)
    if err is not None:
        sys.stderr = _Errors(err)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err


def readable(text: str, encoding: str) -> str:
    """A text in the characters of an encoding: our own signs in ASCII, all others that it lacks as question marks.

    >>> readable("0.25 ± 0.10 – é", "latin-1"), readable("± é", "ascii")
    ('0.25 ± 0.10 - é', '+/- ?')
    """
    if text.isascii():
        return text
    codecs.register_error(READABLE, _replace)
    return text.encode(encoding, READABLE).decode(encoding)


def flush() -> None:
    """Hand on what was printed; raises as printing does."""
    if sys.stdout is not None:
        sys.stdout.flush()


def print_json_file(path: pathlib.Path) -> None:
    """Print a JSON file; in an encoding other than UTF-8 with escapes for all characters beyond ASCII."""
    text = path.read_text(encoding="utf-8")
    if not (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf8"):
        text = re.sub(r"[^\x00-\x7f]", lambda match: json.dumps(match[0])[1:-1], text)
    print(text, end="")


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(ASCII.get(character, "?") for character in error.object[error.start : error.end]), error.end


class _Stream:
    """A text stream whose writing may fail; all else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, unless the stream is lost."""
        if not self._lost:
            try:
                self._stream.write(text)
            except OSError as error:
                self._failed(error)
        return len(text)

    def flush(self) -> None:
        """Flush, unless the stream is lost."""
        if not self._lost:
            try:
                self._stream.flush()
            except OSError as error:
                self._failed(error)

    def _failed(self, error: OSError) -> None:
        """Drop what is printed from now on, also what the stream still holds: Python writes that as it exits."""
        self._lost = True
        with contextlib.suppress(OSError, ValueError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self._stream.fileno())
            os.close(nothing)


class _Output(_Stream):
    def _failed(self, error: OSError) -> None:
        super()._failed(error)
        if error.errno == errno.EPIPE:
            raise Stopped(signal.SIGPIPE) from None
        raise OutputError(
            f"standard output: {error.strerror or error}: make room where it goes, or send it elsewhere"
        ) from None


class _Errors(_Stream):
    pass
