"""Returns shared by formulas of several families."""

from __future__ import annotations

from gpupipe.features.expressions import Bar, Series, lag, log

# A variance of returns below that of one float32 step of the price: the price has not moved.
SMALLEST_VARIANCE = 1e-15


def log_return(bar: Bar) -> Series:
    """ln(close / previous close)."""
    return log(bar.close / lag(bar.close, 1))


def log_gap(bar: Bar) -> Series:
    """ln(open / previous close)."""
    return log(bar.open / lag(bar.close, 1))
