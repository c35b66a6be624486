"""Whom a process tells that it compiles a kernel. Without numba, so that a command can say it before it needs one."""

from __future__ import annotations

from collections.abc import Callable


def _nobody(name: str) -> None:
    pass


compiling: Callable[[str], None] = _nobody  # called with a kernel's full name before this process compiles it
