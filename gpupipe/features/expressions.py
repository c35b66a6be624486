"""Formulas of features: what a column is, written once, and the program that computes many of them together.

A formula is built from the columns of a bar by arithmetic and by the functions below. All of them look back only, so
whatever is built from them can be a feature. Parts that formulas have in common are found and computed once.
A value is NaN where one that it needs is not known, and windows are NaN until they are full.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gpupipe.kernels import operations as machine

STORED_TOGETHER = 16  # columns: float32 of one cache line


@dataclass(frozen=True, eq=False)
class Series:
    """A value for every bar of a symbol; equal formulas are the same object.

    code: an operation of the machine.  args: what it reads.  n: its window, or the lag of its second argument.
    value: its constant.  skip: of averages that go on, the values before the first that counts.
    """

    code: int
    args: tuple[Series, ...] = ()
    n: int = 0
    value: float = 0.0
    skip: int = 0

    def __add__(self, other: Series | float) -> Series:
        other = as_series(other)
        if self.code == machine.LAG:  # only the second argument may be one of the past
            return _two(machine.ADD, other, self)
        return _two(machine.ADD, self, other)

    def __radd__(self, other: float) -> Series:
        return as_series(other) + self

    def __sub__(self, other: Series | float) -> Series:
        return _two(machine.SUBTRACT, self, as_series(other))

    def __rsub__(self, other: float) -> Series:
        return as_series(other) - self

    def __mul__(self, other: Series | float) -> Series:
        if other == 1.0:
            return self
        return _two(machine.MULTIPLY, self, as_series(other))

    def __rmul__(self, other: float) -> Series:
        return self * other

    def __truediv__(self, other: Series | float) -> Series:
        return _two(machine.DIVIDE, self, as_series(other))

    def __rtruediv__(self, other: float) -> Series:
        return as_series(other) / self

    def __bool__(self) -> bool:
        raise TypeError(
            "a formula has a value for every bar, so it cannot be asked with if, and, or, max(), min() or a < b < c: "
            "use where, maximum, minimum of gpupipe.features.expressions, and a product of conditions for all of them"
        )

    def __neg__(self) -> Series:
        return 0.0 - self

    def __abs__(self) -> Series:
        return _make(machine.ABSOLUTE, (self,))

    def __gt__(self, other: Series | float) -> Series:
        return _two(machine.GREATER, self, as_series(other))

    def __lt__(self, other: Series | float) -> Series:
        return as_series(other) > self

    def __ge__(self, other: Series | float) -> Series:
        return _two(machine.AT_LEAST, self, as_series(other))

    def __le__(self, other: Series | float) -> Series:
        return as_series(other) >= self


class Bar(NamedTuple):
    """What a formula reads of a bar. Prices are NaN unless finite and above 0, the volume unless finite and at least 0.

    day: whole days since 1970-01-01, UTC.  time_of_day: the part of the day that has passed, 0 to 1.
    """

    open: Series
    high: Series
    low: Series
    close: Series
    volume: Series
    day: Series
    time_of_day: Series


@functools.cache
def _make(code: int, args: tuple[Series, ...] = (), n: int = 0, value: float = 0.0, skip: int = 0) -> Series:
    return Series(code, args, n, value, skip)


def _two(code: int, a: Series, b: Series) -> Series:
    if b.code == machine.LAG:
        return _make(code, (a, b.args[0]), b.n)
    return _make(code, (a, b))


def as_series(x: Series | float) -> Series:
    """A constant as a series."""
    return x if isinstance(x, Series) else _make(machine.CONSTANT, (), 0, float(x))


BAR = Bar(*(_make(code) for code in (
    machine.OPEN, machine.HIGH, machine.LOW, machine.CLOSE, machine.VOLUME, machine.DAY, machine.TIME_OF_DAY,
)))  # fmt: skip


def lag(x: Series, n: int) -> Series:
    """The value n bars before."""
    _at_least(n, 0, "lag")
    if n == 0:
        return x
    return _make(machine.LAG, (x.args[0],), x.n + n) if x.code == machine.LAG else _make(machine.LAG, (x,), n)


def change(x: Series, n: int = 1) -> Series:
    """The value less that of n bars before."""
    return x - lag(x, n)


def log(x: Series) -> Series:
    """Natural logarithm; NaN of what is not above 0."""
    return _make(machine.LOGARITHM, (x,))


def sqrt(x: Series) -> Series:
    """Square root; NaN of negative values."""
    return _make(machine.ROOT, (x,))


def sign(x: Series) -> Series:
    """-1, 0 or 1."""
    return _make(machine.SIGN, (x,))


def floor(x: Series) -> Series:
    """The largest whole number that is not larger."""
    return _make(machine.FLOOR, (x,))


def fill(x: Series, value: float) -> Series:
    """`value` where x is NaN: also before its first known value."""
    return _make(machine.FILL, (x,), 0, float(value))


def equal(x: Series, y: Series | float) -> Series:
    """1 where the two are equal, 0 where they are not."""
    return _two(machine.EQUAL, x, as_series(y))


def where(condition: Series, x: Series | float, y: Series | float) -> Series:
    """x where the condition holds, else y. The one that is not chosen may be NaN."""
    return _make(machine.WHERE, (as_series(x), as_series(y), condition))


def maximum(x: Series, y: Series | float) -> Series:
    """The larger of two."""
    return _two(machine.MAXIMUM, x, as_series(y))


def minimum(x: Series, y: Series | float) -> Series:
    """The smaller of two."""
    return _two(machine.MINIMUM, x, as_series(y))


def total(x: Series, n: int) -> Series:
    """Sum of the last n values.

    Of sums of half the window, so that windows share their parts, no value stays longer than its window and
    rounding does not grow with the length of the series.
    """
    _at_least(n, 1, "window")
    if n == 1:
        return x
    if n % 2:
        return total(x, n - 1) + lag(x, n - 1)
    return total(x, n // 2) + lag(total(x, n // 2), n // 2)


def mean(x: Series, n: int) -> Series:
    """Mean of the last n values (TA-Lib SMA)."""
    return total(x, n) / n


def highest(x: Series, n: int) -> Series:
    """Highest of the last n values (TA-Lib MAX)."""
    return _extreme(machine.MAXIMUM, x, n)


def lowest(x: Series, n: int) -> Series:
    """Lowest of the last n values (TA-Lib MIN)."""
    return _extreme(machine.MINIMUM, x, n)


def _extreme(code: int, x: Series, n: int) -> Series:
    _at_least(n, 1, "window")
    if n == 1:
        return x
    half = 1 << (n - 1).bit_length() - 1  # two windows of this length cover n, where they overlap it does not matter
    part = _extreme(code, x, half)
    return _two(code, part, lag(part, n - half))


def bars_since_highest(x: Series, n: int, oldest: bool = False) -> Series:
    """Bars since the highest of the last n values, 0 to n - 1; the newest of equal ones, or the oldest."""
    return _since(machine.MAXIMUM, x, n, oldest)


def bars_since_lowest(x: Series, n: int, oldest: bool = False) -> Series:
    """Bars since the lowest of the last n values, 0 to n - 1; the newest of equal ones, or the oldest."""
    return _since(machine.MINIMUM, x, n, oldest)


@functools.cache
def _since(code: int, x: Series, n: int, oldest: bool) -> Series:
    """Of the two windows of `_extreme`, the one that has the extreme knows how old it is."""
    _at_least(n, 1, "window")
    if n == 1:
        return 0.0 * x
    half = 1 << (n - 1).bit_length() - 1
    part, since, late = _extreme(code, x, half), _since(code, x, half, oldest), n - half
    before, since_before = lag(part, late), lag(since, late) + float(late)
    if code == machine.MAXIMUM:
        newer = part > before if oldest else part >= before
    else:
        newer = part < before if oldest else part <= before
    return where(newer, since, since_before)


def absolute_deviation(x: Series, n: int) -> Series:
    """Mean absolute deviation of the last n values from their mean."""
    return _make(machine.ABSOLUTE_DEVIATION, (x, mean(x, n)), n) / n


def central_moment(x: Series, n: int, power: int) -> Series:
    """Mean of the n last values' distance from their mean, to the power 2, 3 or 4."""
    if power not in (2, 3, 4):
        raise ValueError(f"power is {power}, expected 2, 3 or 4")
    _at_least(n, 1, "window")
    return (_products(x, x, n) if power == 2 else _powers(x, n, power)) / n


def deviation(x: Series, n: int) -> Series:
    """Standard deviation of the last n values, of the population (TA-Lib STDDEV)."""
    return sqrt(central_moment(x, n, 2))


def comoment(x: Series, y: Series, n: int) -> Series:
    """Covariance of the last n values, of the population."""
    _at_least(n, 1, "window")
    return _products(x, y, n) / n


@functools.cache
def _products(x: Series, y: Series, n: int) -> Series:
    """Sum, over the last n values, of the distances of x and of y from their means, multiplied.

    A sum over a window is the sums over its two parts and what the distance of their means adds: nothing is taken away
    from anything large (Chan, Golub and LeVeque, 1983).
    """
    if n == 1:
        return 0.0 * (x * y)
    if n % 2:
        apart = (_off_last(x, n) * _off_last(y, n)) / (n * (n - 1.0))
        return _products(x, y, n - 1) + apart
    half = n // 2
    apart = change(total(x, half), half) * change(total(y, half), half) / n
    return _products(x, y, half) + lag(_products(x, y, half), half) + apart


def _off_last(x: Series, n: int) -> Series:
    """n - 1 times how far the mean of the last n - 1 values is above the value before them."""
    return total(x, n - 1) - (n - 1.0) * lag(x, n - 1)


@functools.cache
def _powers(x: Series, n: int, power: int) -> Series:
    """Sum of the third or fourth powers of the distances from the mean, of two parts likewise (Pebay, 2008)."""
    if n == 1:
        return 0.0 * x
    if n % 2:
        m, d = n - 1.0, _off_last(x, n) / (1.0 - n)  # d: the one value less the mean of the others
        second = _products(x, x, n - 1)
        third = _powers(x, n - 1, 3)
        if power == 3:
            return third + d * (d * d * (m * (m - 1) / n**2) - 3.0 / n * second)
        added = d * d * (d * d * (m * (m * m - m + 1) / n**3) + 6.0 / n**2 * second) - 4.0 / n * (d * third)
        return _powers(x, n - 1, 4) + added
    half = n // 2
    d = change(total(x, half), half) / half
    second = _products(x, x, half)
    third = _powers(x, half, 3)
    if power == 3:
        return third + lag(third, half) + 1.5 * (d * change(second, half))
    fourth = _powers(x, half, 4)
    added = d * (d * (d * d * (half / 8.0) + 1.5 * (second + lag(second, half))) + 2.0 * change(third, half))
    return fourth + lag(fourth, half) + added


def rank(x: Series, n: int) -> Series:
    """Share of the last n values that are lower, and half a share for each equal one beside the own: 1 / n to 1."""
    return _make(machine.RANK, (x,), n)


def quantile(x: Series, n: int, q: float) -> Series:
    """The q-quantile of the last n values, linear between two of them."""
    if not 0 <= q <= 1:
        raise ValueError(f"q is {q}, expected 0 to 1")
    return _make(machine.QUANTILE, (x,), n, float(q))


def weighted_total(x: Series, n: int) -> Series:
    """Sum of the last n values times their age in bars, 0 to n - 1."""
    _at_least(n, 1, "window")
    if n == 1:
        return 0.0 * x
    if n % 2:
        return weighted_total(x, n - 1) + (n - 1.0) * lag(x, n - 1)
    half = n // 2
    return weighted_total(x, half) + lag(weighted_total(x, half) + float(half) * total(x, half), half)


def ema(x: Series, n: int, skip: int = 0) -> Series:
    """Exponential average, 2 / (n + 1) of the new value; begins with the mean of n values after `skip`. TA-Lib EMA."""
    _at_least(n, 1, "period")
    return _make(machine.MOVING, (x,), n, 1.0 - 2.0 / (n + 1.0), skip)


def wilder(x: Series, n: int) -> Series:
    """Wilder's average, 1 / n of the new value; begins with the mean of n values."""
    _at_least(n, 1, "period")
    return _make(machine.MOVING, (x,), n, 1.0 - 1.0 / n)


def wilder_total(x: Series, n: int) -> Series:
    """Wilder's sum, (1 - 1 / n) of the old sum and the new value; begins with the sum of n - 1 values."""
    _at_least(n, 1, "period")
    return _make(machine.DECAYING, (x,), n, 1.0 - 1.0 / n)


@dataclass(frozen=True)
class Across:
    """A series within its sector at its time: `output` of kernels.cross_section, over n of the sector's times."""

    series: Series
    output: int
    n: int = 1


def across(x: Series, output: int, n: int = 1) -> Across:
    """A column of x against the other symbols of the sector; it can be a feature, and not a part of another formula."""
    return Across(x, output, n)


def _at_least(n: int, least: int, what: str) -> None:
    if int(n) != n or n < least:
        raise ValueError(f"{what} is {n}, expected a whole number of at least {least}")


class Program(NamedTuple):
    """What the machine runs.

    operations: int64 (n_operations, 8), see kernels.program.  values: float64 (n_operations,), their constants.
    outputs: int64 (n_columns, 2), the register of each column and where it goes.
    n_registers: how many are in use at once.
    n_states: averages that go on from bar to bar.  halo: bars before a block of rows that it needs.
    """

    operations: np.ndarray
    values: np.ndarray
    outputs: np.ndarray
    n_registers: int
    n_states: int
    halo: int


_RECURSIVE = (machine.MOVING, machine.DECAYING)
_WINDOWED = (machine.ABSOLUTE_DEVIATION, machine.RANK, machine.QUANTILE)


def reach(node: Series, argument: int) -> int:
    """Bars before the row at which `node` reads its argument."""
    if node.code == machine.LAG or (machine.ADD <= node.code <= machine.EQUAL and argument == 1):
        return node.n
    # The second argument of a window is read at the row itself.
    if node.code in _WINDOWED and argument == 0:
        return node.n - 1
    return 0


def lower(columns: Sequence[Series], places: Sequence[int] | None = None) -> Program:
    """The program that computes `columns`; places: the column of the output of each, their order if None."""
    return _lowered(tuple(columns), tuple(range(len(columns)) if places is None else places))


@functools.lru_cache(maxsize=32)
def _lowered(columns: tuple[Series, ...], places: tuple[int, ...]) -> Program:
    order = _in_order(columns)
    need = _needs(order)
    order, together = _recursions_first(order, need)
    last_use, stored_after = _last_uses(order, columns, together)
    ends: dict[int, list[Series]] = {}
    for used, k in last_use.items():
        ends.setdefault(k, []).append(used)

    register: dict[Series, int] = {}
    free: list[int] = []
    n_registers = n_states = 0
    operations: list[list[int]] = []
    values: list[float] = []

    def take() -> int:
        nonlocal n_registers
        if free:
            return free.pop()
        n_registers += 1
        return n_registers - 1

    outputs = np.zeros((len(columns), 2), dtype=np.int64)
    outputs[:, 1] = places
    for k, node in enumerate(order):
        read = [register[argument] for argument in node.args] + [0] * 3
        operation = [node.code, take(), read[0], read[1], node.n, read[2], 0, 0]
        register[node] = operation[machine.OUT]
        if node.code in _RECURSIVE:
            operation[machine.C], operation[machine.D], operation[machine.NEED] = n_states, node.skip, need[node]
            operation[machine.B] = together[node]
            n_states += 1
        if node.code == machine.QUANTILE:
            operation[machine.C] = take()
            free.append(operation[machine.C])
        operations.append(operation)
        values.append(node.value)
        for group in stored_after.get(k, ()):
            for column in group:
                outputs[column, 0] = register[columns[column]]
            operations.append([machine.STORE, 0, 0, 0, group.start, len(group), 0, 0])
            values.append(0.0)
        free += [register[finished] for finished in ends.get(k, ())]
    program = Program(
        np.array(operations, dtype=np.int64).reshape(-1, 8), np.array(values, dtype=np.float64), outputs, n_registers,
        n_states, max(need.values(), default=0),
    )  # fmt: skip
    for array in (program.operations, program.values, program.outputs):  # it is given out again
        array.setflags(write=False)
    return program


def _last_uses(
    order: Sequence[Series], columns: Sequence[Series], together: dict[Series, int]
) -> tuple[dict[Series, int], dict[int, list[range]]]:  # fmt: skip
    """The place in the order after which nobody reads each part; and the columns that are stored after each place."""
    place = {node: k for k, node in enumerate(order)}
    last_use = dict(place)
    done = 0  # what runs together may be anywhere in its rows until all of it is done
    for k, node in enumerate(order):
        done = max(done, k + together.get(node, 0) - 1, k)
        for argument in node.args:
            last_use[argument] = max(last_use[argument], done)
    stored_after: dict[int, list[range]] = {}
    for start in range(0, len(columns), STORED_TOGETHER):  # a column stays in its register until the last of these
        group = range(start, min(start + STORED_TOGETHER, len(columns)))
        done = max(place[columns[k]] for k in group)
        stored_after.setdefault(done, []).append(group)
        for k in group:
            last_use[columns[k]] = max(last_use[columns[k]], done)
    return last_use, stored_after


def _in_order(columns: Iterable[Series]) -> list[Series]:
    """Every part of the columns once, each after what it reads."""
    done: dict[Series, None] = {}
    for column in columns:
        waiting = [column]
        while waiting:
            node = waiting[-1]
            missing = [argument for argument in reversed(node.args) if argument not in done]
            if missing:
                waiting += missing
            else:
                done[waiting.pop()] = None
    return list(done)


def _recursions_first(order: Sequence[Series], need: dict[Series, int]) -> tuple[list[Series], dict[Series, int]]:
    """The parts in another order, recursions as early as can be; and how many recursions begin together at each.

    A recursion waits for its own last value most of the time, so those that need nothing of each other run as one.
    """
    depth: dict[Series, int] = {}  # recursions on the way to a part
    for node in order:
        depth[node] = max((depth[argument] for argument in node.args), default=0) + (node.code in _RECURSIVE)
    done: dict[Series, None] = {}
    together: dict[Series, int] = {}
    for level in range(1, max(depth.values(), default=0) + 1):
        ready = [node for node in order if node.code in _RECURSIVE and depth[node] == level]
        ready.sort(key=lambda node: need[node])  # together they need the same rows
        done.update(dict.fromkeys(_in_order([argument for node in ready for argument in node.args])))
        done.update(dict.fromkeys(ready))
        for _, alike in itertools.groupby(ready, key=lambda node: need[node]):
            first, *others = alike
            together[first] = 1 + len(others)
            together.update(dict.fromkeys(others, 0))
    return [*done, *(node for node in order if node not in done)], together


def _needs(order: Sequence[Series]) -> dict[Series, int]:
    """For each part, how many bars before the first row that is asked for it must be right."""
    need = dict.fromkeys(order, 0)
    for node in reversed(order):
        for k, argument in enumerate(node.args):
            need[argument] = max(need[argument], need[node] + reach(node, k))
    return need


def warm_up(node: Series | Across) -> int:
    """The first bar of a symbol, counted from 0, that can be known."""
    if isinstance(node, Across):  # n of the sector's times have passed since the first value
        return warm_up(node.series) + node.n - 1
    first: dict[Series, int] = {}
    for part in _in_order([node]):
        known = max([first[argument] + reach(part, k) for k, argument in enumerate(part.args)], default=0)
        if part.code == machine.MOVING:
            known += part.skip + part.n - 1
        elif part.code == machine.DECAYING:
            known += part.n - 1
        first[part] = 0 if part.code == machine.FILL else known
    return first[node]
