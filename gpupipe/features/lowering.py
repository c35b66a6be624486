"""From formulas to the program that gpupipe.kernels.program runs: order of operations, registers, halo, warm-up.

One program computes many columns. Shared subexpressions are computed once, registers are reused as soon as their value
is no longer read, and recursions that do not depend on each other run side by side.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from gpupipe.features.series import Across, Series
from gpupipe.kernels import operations

STORED_TOGETHER = 16  # columns: float32 of one cache line


class Program(NamedTuple):
    """A program of vector operations for gpupipe.kernels.program; its arrays are read-only.

    operations: int64 (n_operations, 8), fields as in gpupipe.kernels.operations.
    values: float64 (n_operations,), the constant of each operation.
    outputs: int64 (n_columns, 2), register and output column of each column.
    n_registers: registers in use at once.  n_states: recursive averages, each with a state from bar to bar.
    halo: bars before a block of rows that the block depends on.

        >>> from gpupipe.features.expressions import BAR, lag, lower
        >>> program = lower([BAR.close / lag(BAR.close, 5)])
        >>> program.operations.shape, program.n_registers, program.halo  # load close, divide, store
        ((3, 8), 2, 5)
    """

    operations: np.ndarray
    values: np.ndarray
    outputs: np.ndarray
    n_registers: int
    n_states: int
    halo: int


class _Lifetimes(NamedTuple):
    """When a register can be reused, and when columns leave for memory; keys and values are positions in the order.

    last_use: the position after which no operation reads a node.
    stored_after: the groups of columns (ranges) to store after a position.
    """

    last_use: dict[Series, int]
    stored_after: dict[int, list[range]]


_RECURSIVE = (operations.MOVING, operations.DECAYING)
_WINDOWED = (operations.ABSOLUTE_DEVIATION, operations.RANK, operations.QUANTILE)


def reach(node: Series, argument: int) -> int:
    """How many bars before the row `node` reads its operand number `argument`."""
    if node.code == operations.LAG or (operations.ADD <= node.code <= operations.EQUAL and argument == 1):
        return node.n
    # The second operand of a window is read at the row itself.
    if node.code in _WINDOWED and argument == 0:
        return node.n - 1
    return 0


def lower(columns: Sequence[Series], places: Sequence[int] | None = None) -> Program:
    """The program that computes `columns`.

    places: the output column of each, 0, 1, 2, ... if None; -1, -2, ... are columns of the kernel's `aside` array.
    """
    return _lowered(tuple(columns), tuple(range(len(columns)) if places is None else places))


@functools.lru_cache(maxsize=32)
def _lowered(columns: tuple[Series, ...], places: tuple[int, ...]) -> Program:
    order = _topological_order(columns)
    needed = _needed_bars(order)
    order, together = _recursions_first(order, needed)
    lifetimes = _lifetimes(order, columns, together)
    ends: dict[int, list[Series]] = {}
    for node, k in lifetimes.last_use.items():
        ends.setdefault(k, []).append(node)

    register: dict[Series, int] = {}
    free: list[int] = []
    n_registers = n_states = 0
    rows: list[list[int]] = []
    values: list[float] = []

    def allocate() -> int:
        nonlocal n_registers
        if free:
            return free.pop()
        n_registers += 1
        return n_registers - 1

    outputs = np.zeros((len(columns), 2), dtype=np.int64)
    outputs[:, 1] = places
    for k, node in enumerate(order):
        operands = [register[argument] for argument in node.args] + [0] * 3
        operation = [node.code, allocate(), operands[0], operands[1], node.n, operands[2], 0, 0]
        register[node] = operation[operations.OUT]
        if node.code in _RECURSIVE:
            operation[operations.C], operation[operations.D] = n_states, node.skip
            operation[operations.NEED], operation[operations.B] = needed[node], together[node]
            n_states += 1
        if node.code == operations.QUANTILE:  # scratch for the sorted window
            operation[operations.C] = allocate()
            free.append(operation[operations.C])
        rows.append(operation)
        values.append(node.value)
        for group in lifetimes.stored_after.get(k, ()):
            for column in group:
                outputs[column, 0] = register[columns[column]]
            rows.append([operations.STORE, 0, 0, 0, group.start, len(group), 0, 0])
            values.append(0.0)
        free += [register[finished] for finished in ends.get(k, ())]
    table = np.array(rows, dtype=np.int64).reshape(-1, 8)
    constants = np.array(values, dtype=np.float64)
    for array in (table, constants, outputs):  # the cache returns the same arrays again
        array.setflags(write=False)
    return Program(table, constants, outputs, n_registers, n_states, max(needed.values(), default=0))


def _lifetimes(order: Sequence[Series], columns: Sequence[Series], together: dict[Series, int]) -> _Lifetimes:
    position = {node: k for k, node in enumerate(order)}
    last_use = dict(position)
    done = 0  # threads of a group of recursions may be at any row until the whole group is done
    for k, node in enumerate(order):
        done = max(done, k + together.get(node, 0) - 1, k)
        for argument in node.args:
            last_use[argument] = max(last_use[argument], done)
    stored_after: dict[int, list[range]] = {}
    for start in range(0, len(columns), STORED_TOGETHER):  # a column keeps its register until its group is complete
        group = range(start, min(start + STORED_TOGETHER, len(columns)))
        done = max(position[columns[k]] for k in group)
        stored_after.setdefault(done, []).append(group)
        for k in group:
            last_use[columns[k]] = max(last_use[columns[k]], done)
    return _Lifetimes(last_use, stored_after)


def _topological_order(columns: Iterable[Series]) -> list[Series]:
    """Every node of the columns once, operands before the nodes that read them."""
    done: dict[Series, None] = {}
    for column in columns:
        stack = [column]
        while stack:
            node = stack[-1]
            missing = [argument for argument in reversed(node.args) if argument not in done]
            if missing:
                stack += missing
            else:
                done[stack.pop()] = None
    return list(done)


def _recursions_first(order: Sequence[Series], needed: dict[Series, int]) -> tuple[list[Series], dict[Series, int]]:
    """The nodes reordered so that recursions run as early as they can, and the size of the group each one opens.

    A recursion waits most of the time for its previous value. Recursions that do not depend on each other therefore run
    as one group: its first member has the group's size, the others have 0.
    """
    depth: dict[Series, int] = {}  # recursions on the longest path to a node
    for node in order:
        depth[node] = max((depth[argument] for argument in node.args), default=0) + (node.code in _RECURSIVE)
    done: dict[Series, None] = {}
    together: dict[Series, int] = {}
    for level in range(1, max(depth.values(), default=0) + 1):
        ready = [node for node in order if node.code in _RECURSIVE and depth[node] == level]
        ready.sort(key=lambda node: needed[node])  # members of a group need the same rows
        done.update(dict.fromkeys(_topological_order([argument for node in ready for argument in node.args])))
        done.update(dict.fromkeys(ready))
        for _, group in itertools.groupby(ready, key=lambda node: needed[node]):
            first, *others = group
            together[first] = 1 + len(others)
            together.update(dict.fromkeys(others, 0))
    return [*done, *(node for node in order if node not in done)], together


def _needed_bars(order: Sequence[Series]) -> dict[Series, int]:
    """For each node, how many bars before the first requested row it must be correct."""
    needed = dict.fromkeys(order, 0)
    for node in reversed(order):
        for k, argument in enumerate(node.args):
            needed[argument] = max(needed[argument], needed[node] + reach(node, k))
    return needed


def warm_up(node: Series | Across) -> int:
    """The first bar of a symbol, counted from 0, in which the value can be other than NaN."""
    if isinstance(node, Across):  # n of the sector's times must have passed since the first value
        return warm_up(node.series) + node.n - 1
    first: dict[Series, int] = {}
    for part in _topological_order([node]):
        known = max([first[argument] + reach(part, k) for k, argument in enumerate(part.args)], default=0)
        if part.code == operations.MOVING:
            known += part.skip + part.n - 1
        elif part.code == operations.DECAYING:
            known += part.n - 1
        first[part] = 0 if part.code == operations.FILL else known
    return first[node]
