"""Returns that many formulas read."""

from __future__ import annotations

from gpupipe.features.expressions import Bar, Series, lag, log

# Of returns: below what one step of a float32 price makes, so there was no move.
SMALLEST_VARIANCE = 1e-15


def log_return(bar: Bar) -> Series:
    """ln(close / close before)."""
    return log(bar.close / lag(bar.close, 1))


def log_gap(bar: Bar) -> Series:
    """ln(open / close before)."""
    return log(bar.open / lag(bar.close, 1))
