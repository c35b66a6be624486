"""One of several measurements of a step: where it fails, its line says why, and the others are made."""

from __future__ import annotations

from collections.abc import Callable

from bench.runs import Line


def line_of(about: Line, measure: Callable[[], Line]) -> Line:
    """What is measured, behind what it is about; the error in its place where it fails.

    >>> line_of({"preset": "fast"}, lambda: {"ms": 1 / 2}), line_of({"preset": "fast"}, lambda: {"ms": 1 / 0})
    ({'preset': 'fast', 'ms': 0.5}, {'preset': 'fast', 'error': 'ZeroDivisionError: division by zero'})
    """
    try:
        return {**about, **measure()}
    except Exception as error:
        return {**about, "error": f"{type(error).__name__}: {error}"}
