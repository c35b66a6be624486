"""How every command ends: exit codes, one line for what the user must mend, and signals."""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import signal
import sys
from collections.abc import Callable
from typing import Any, Protocol

from gpupipe.runtime.errors import UserError

USER_ERROR = 2


class Request(Protocol):
    """What a command was asked for, as a value.

    >>> from gpupipe.cli.clean import CleanRequest
    >>> CleanRequest("OUT").folder
    'OUT'
    """

    @property
    def folder(self) -> str:
        """The folder that it writes to; "" for a command that only looks."""
        ...


class Verb(Protocol):
    """A module of this package that is a command.

    >>> from gpupipe.cli import clean
    >>> parser = argparse.ArgumentParser()
    >>> clean.add_arguments(parser)
    >>> clean.request_of(parser.parse_args(["OUT", "--dry-run"]))
    CleanRequest(out='OUT', dry_run=True, json=False)
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Give a parser its options."""
        ...

    def request_of(self, chosen: argparse.Namespace) -> Any:
        """Its Request; UserError for options that mean nothing."""
        ...

    def run(self, request: Any) -> int:
        """Do it; the exit code. UserError or OSError for what the user must mend."""
        ...


def entry(command: Callable[[], int]) -> int:
    """Do a command of the command line as the process: its exit code; what is printed cannot end it in a traceback.

    141 where the reader of standard output has closed it (`| head`), 2 where it cannot be written to (a full disk).
    """
    from gpupipe.cli import output
    from gpupipe.runtime.interrupts import Stopped

    with output.guarded():
        try:
            try:
                code = command()
            except SystemExit:  # of --help, whose text may still be in the buffer
                output.flush()
                raise
            output.flush()
            return code
        except output.OutputError as error:
            return refuse(error)
        except Stopped as stopped:
            if stopped.number != signal.SIGPIPE:
                raise
            return stopped.exit_code


def perform(verb: Verb, chosen: argparse.Namespace) -> int:
    """Do a command; 2 with one line on standard error for what the user must mend."""
    try:
        request: Request = verb.request_of(chosen)
    except UserError as error:
        return refuse(error)
    return guarded(functools.partial(verb.run, request), request.folder)


def guarded(job: Callable[[], int], folder: str) -> int:
    """Do a job that writes to a folder; 2 with one line on standard error for what the user must mend."""
    from gpupipe.cli.output import OutputError
    from gpupipe.runtime import interrupts, run_log

    line = "gpupipe: stopped" + (f"; the same command goes on where this one was ({folder})" if folder else "")
    with interrupts.stoppable(line):
        try:
            with run_log.recording():  # what was read and warned of before there is an OUT to log to
                return job()
        except UserError as error:
            return refuse(error)
        except _missing_code() as error:
            return refuse(UserError(str(error)))
        except OSError as error:  # anything else is our mistake: a traceback
            return refuse(UserError(of_system(error, folder)))
        except UnicodeEncodeError as error:
            if (reason := of_file_name(error)) is None:
                raise
            return refuse(UserError(reason))
        except interrupts.Stopped as stopped:
            if stopped.number == signal.SIGPIPE:
                if not folder:  # it only looks: nothing is left to do, and its reader has seen enough
                    return stopped.exit_code
                line = line.replace("stopped", "stopped, as its output was closed", 1)
            with contextlib.suppress(OutputError, interrupts.Stopped):
                interrupts.flush()
            interrupts.end(stopped, line)  # threads are still at work, and what they would finish is not waited for
            raise
        except KeyboardInterrupt:
            print(f"\n{line}", file=sys.stderr)
            return 130


def of_system(error: OSError, out: str) -> str:
    """What the operating system refused, and what mends it."""
    reason = error.strerror or str(error)
    where = error.filename or out
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"{out}: {reason}: make room on that disk and give the same command again, which goes on where this one "
            "was; or choose another --out"
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"{where}: {reason}: make it writable, or choose another --out"
    return str(error)


def of_file_name(error: UnicodeEncodeError) -> str | None:
    """Why the name of a file could not be encoded, and what mends it; None for a text that is no such name."""
    part = error.object[max(0, error.start - 40) : error.end + 40]
    if 0xDC80 <= ord(error.object[error.start]) <= 0xDCFF:  # what Python reads a byte as that is not UTF-8
        return f"the name {part!r} holds bytes that are not UTF-8: rename that file or folder, or link to it"
    if error.encoding == sys.getfilesystemencoding() != "utf-8":
        return f"the name {part!r} cannot be encoded as {error.encoding}, as file names are here: set PYTHONUTF8=1"
    return None


def _missing_code() -> type[Exception]:
    """The error of kernels without code for the GPU; imported once there is an error."""
    from gpupipe.kernels.gpu_code import MissingCodeError

    return MissingCodeError


def refuse(error: Exception) -> int:
    """Say what the user must mend in one line on standard error; returns the exit code for it."""
    from gpupipe.data.errors import printable

    print(f"gpupipe: {printable(' '.join(str(error).split()))}", file=sys.stderr)
    return USER_ERROR
