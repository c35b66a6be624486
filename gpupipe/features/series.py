"""A formula as an expression graph: the columns of a bar, arithmetic on them, and element-wise functions.

Formulas are built, not evaluated: `close / lag(close, 1) - 1` is a graph of `Series` nodes that `lowering` turns into a
program. Equal formulas are the same object, so that shared subexpressions are computed once.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

from gpupipe.kernels import operations


@dataclass(frozen=True, eq=False)
class Series:
    """One node of an expression graph: a float64 value for every bar of a symbol.

    Build it by arithmetic and comparisons (1 or 0) on other series and numbers, and by the functions of
    `gpupipe.features.expressions`. All of these look back only, so a formula cannot look ahead.

    code: the operation, a number of gpupipe.kernels.operations.  args: the operands, 0 to 3 series.
    n: window length in bars; for an operation of two operands, the lag of the second operand.
    value: the constant of CONSTANT, FILL and QUANTILE, and the decay of recursive averages.
    skip: how many values a recursive average ignores before its first one.

    NaN: a value is NaN where an operand is; a window is NaN until it is full. `where` and `fill` are the exceptions.
    Raises TypeError where Python asks for the truth of a series (if, and, or, max, a < b < c).

        >>> from gpupipe.features.expressions import BAR, mean
        >>> momentum = BAR.close / mean(BAR.close, 20) - 1
        >>> mean(BAR.close, 20) is mean(BAR.close, 20)
        True
    """

    code: int
    args: tuple[Series, ...] = ()
    n: int = 0
    value: float = 0.0
    skip: int = 0

    def __add__(self, other: Series | float) -> Series:
        other = as_series(other)
        if self.code == operations.LAG:  # an operation can lag its second operand only
            return binary(operations.ADD, other, self)
        return binary(operations.ADD, self, other)

    def __radd__(self, other: float) -> Series:
        return as_series(other) + self

    def __sub__(self, other: Series | float) -> Series:
        return binary(operations.SUBTRACT, self, as_series(other))

    def __rsub__(self, other: float) -> Series:
        return as_series(other) - self

    def __mul__(self, other: Series | float) -> Series:
        if other == 1.0:
            return self
        return binary(operations.MULTIPLY, self, as_series(other))

    def __rmul__(self, other: float) -> Series:
        return self * other

    def __truediv__(self, other: Series | float) -> Series:
        return binary(operations.DIVIDE, self, as_series(other))

    def __rtruediv__(self, other: float) -> Series:
        return as_series(other) / self

    def __bool__(self) -> bool:
        raise TypeError(
            "a formula has a value for every bar, so if, and, or, max(), min() and a < b < c cannot evaluate it: "
            "use where, maximum, minimum of gpupipe.features.expressions, and multiply conditions that must all hold"
        )

    def __neg__(self) -> Series:
        return 0.0 - self

    def __abs__(self) -> Series:
        return node(operations.ABSOLUTE, (self,))

    def __gt__(self, other: Series | float) -> Series:
        return binary(operations.GREATER, self, as_series(other))

    def __lt__(self, other: Series | float) -> Series:
        return as_series(other) > self

    def __ge__(self, other: Series | float) -> Series:
        return binary(operations.AT_LEAST, self, as_series(other))

    def __le__(self, other: Series | float) -> Series:
        return as_series(other) >= self


class Bar(NamedTuple):
    """The columns of a bar that a formula can read.

    open, high, low, close: NaN unless finite and above 0.  volume: NaN unless finite and at least 0.
    day: whole days since 1970-01-01 UTC.  time_of_day: elapsed share of the UTC day, 0 to 1.

        >>> BAR.close is BAR[3]
        True
    """

    open: Series
    high: Series
    low: Series
    close: Series
    volume: Series
    day: Series
    time_of_day: Series


@functools.cache
def node(code: int, args: tuple[Series, ...] = (), n: int = 0, value: float = 0.0, skip: int = 0) -> Series:
    """The Series with these fields: the cache makes equal formulas the same object."""
    return Series(code, args, n, value, skip)


def binary(code: int, a: Series, b: Series) -> Series:
    """An operation of two operands; a lag of the second one becomes part of the operation."""
    if b.code == operations.LAG:
        return node(code, (a, b.args[0]), b.n)
    return node(code, (a, b))


def as_series(x: Series | float) -> Series:
    """A number as a constant series; a series unchanged."""
    return x if isinstance(x, Series) else node(operations.CONSTANT, (), 0, float(x))


BAR = Bar(
    node(operations.OPEN),
    node(operations.HIGH),
    node(operations.LOW),
    node(operations.CLOSE),
    node(operations.VOLUME),
    node(operations.DAY),
    node(operations.TIME_OF_DAY),
)


def lag(x: Series, n: int) -> Series:
    """The value n bars earlier; ValueError unless n is a whole number of at least 0."""
    check_at_least(n, 0, "lag")
    if n == 0:
        return x
    return node(operations.LAG, (x.args[0],), x.n + n) if x.code == operations.LAG else node(operations.LAG, (x,), n)


def change(x: Series, n: int = 1) -> Series:
    """x - lag(x, n)."""
    return x - lag(x, n)


def log(x: Series) -> Series:
    """Natural logarithm; NaN unless x is above 0."""
    return node(operations.LOGARITHM, (x,))


def sqrt(x: Series) -> Series:
    """Square root; NaN where x is negative."""
    return node(operations.ROOT, (x,))


def sign(x: Series) -> Series:
    """-1, 0 or 1."""
    return node(operations.SIGN, (x,))


def floor(x: Series) -> Series:
    """The largest whole number that is at most x."""
    return node(operations.FLOOR, (x,))


def sine(turns: Series) -> Series:
    """sin(2 pi * turns), within 1e-9: of time_of_day, the wave of a day.

    The angle is folded into a quarter turn, and Taylor's series of degree 13 follows: arithmetic alone, so that no
    library's sine decides the last bits.
    """
    turn = turns - floor(turns + 0.5)  # -0.5 to 0.5
    size = abs(turn)
    angle = (2.0 * math.pi) * minimum(size, 0.5 - size)
    series = as_series(1.0)
    for k in (12, 10, 8, 6, 4, 2):
        series = 1.0 - angle * angle / (k * (k + 1.0)) * series
    return sign(turn) * (angle * series)


def fill(x: Series, value: float) -> Series:
    """`value` where x is NaN, warm-up rows included."""
    return node(operations.FILL, (x,), 0, float(value))


def equal(x: Series, y: Series | float) -> Series:
    """1 where x equals y, else 0."""
    return binary(operations.EQUAL, x, as_series(y))


def where(condition: Series, x: Series | float, y: Series | float) -> Series:
    """x where the condition is not 0, else y; NaN where the condition is, but not where only the other branch is."""
    return node(operations.WHERE, (as_series(x), as_series(y), condition))


def maximum(x: Series, y: Series | float) -> Series:
    """The larger of x and y."""
    return binary(operations.MAXIMUM, x, as_series(y))


def minimum(x: Series, y: Series | float) -> Series:
    """The smaller of x and y."""
    return binary(operations.MINIMUM, x, as_series(y))


@dataclass(frozen=True)
class Across:
    """A cross-sectional column: a series compared within its sector at each time.

    series: the values to compare.
    output: the number of an output of kernels.cross_section (0 rank, 1 excess, 2 mean, ...).
    n: how many of the sector's times the output averages; 1 except for output 4.

        >>> from gpupipe.features.expressions import BAR, across, lag
        >>> across(BAR.close / lag(BAR.close, 5), 0).n  # rank of the 5-bar return in the sector
        1
    """

    series: Series
    output: int
    n: int = 1


def across(x: Series, output: int, n: int = 1) -> Across:
    """x compared with the other symbols of its sector: a feature by itself, never part of another formula."""
    return Across(x, output, n)


def check_at_least(n: int, least: int, name: str) -> None:
    """ValueError unless n is a whole number of at least `least`; `name` is how the message calls it."""
    if int(n) != n or n < least:
        raise ValueError(f"{name} is {n}, expected a whole number of at least {least}")
