"""Recorded calls of kernels by their PTX and by the CPU loop, on the same arguments, whose outputs hold garbage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gpupipe.kernels.gpu_launch import Parameters
from tests.support.kernel_calls import Call, copies
from tests.support.ptx.program import Program, Report, guarded

# What a kernel reads before it writes it. All other arrays that it writes hold garbage before it runs here: they come
# from the allocator as they are, and their content must not matter.
STATE: dict[str, tuple[str, ...]] = {
    "backtest.portfolio_days": ("days",),
    "bond_closed.yield_closed": ("status",),
    "bond_curves.discount_flows": ("amount",),
    "bond_yields.rate_of_flows": ("status",),
    "bond_yields.yield_of_rate": ("rate",),
    "bonds.bond_terms": ("status",),
    "environment.step_market": ("row", "stop", "episode", "position", "balance", "stake", "paid", "equity",
                                "peak", "bars_held"),
    "episodes.policy_episode": ("scratch",),
    "labels.label_cube": ("exit_row",),
    "program.run_program": ("states",),
    "trees.add_leaf_activity": ("margin",),
}  # fmt: skip

# Faults that do no harm: lanes mark labels unknown for different reasons, or raise a flag, all by the same value.
TOLERATED = {"labels.barrier_labels": ("same value by two",), "labels.label_cube": ("same value by two",)}
# Kernels that load scratch memory which nothing has written, and discard it: here, prices after the last bar. Other
# garbage there must give the same outputs.
DISCARDS_SCRATCH = {"labels.label_cube"}

SOME = 100_000  # values whose distance is computed: slow, and an output that is wrong may have a billion


@dataclass
class Comparison:
    """Of all outputs: values, those whose bits differ, by how many units in the last place, and where first.

    ulps: the most among the first SOME values of an output that differ.

    >>> Comparison().differ
    0
    """

    values: int = 0
    differ: int = 0
    ulps: int = 0
    where: str = ""
    faults: dict[str, int] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def add(self, name: str, got: np.ndarray, expected: np.ndarray) -> None:
        """Compare an output. Every NaN is equal to every NaN; 0.0 and -0.0 are not equal."""
        self.values += got.size
        unlike = differing(got, expected)
        if not unlike.any():
            return
        self.differ += int(unlike.sum())
        some = [values[unlike][:SOME] for values in (got, expected)]
        self.ulps = max(self.ulps, int(units_apart(*some).max()))
        if not self.where:
            at = tuple(map(int, np.unravel_index(int(unlike.argmax()), unlike.shape)))
            self.where = f"{name}{list(at)} is {got[at]!r}, not {expected[at]!r}"

    def meet(self, faults: dict[str, int], messages: Sequence[str]) -> None:
        """Add the faults of a launch."""
        for fault, n in faults.items():
            self.faults[fault] = self.faults.get(fault, 0) + n
        self.messages += [text for text in messages if text not in self.messages]


def differing(got: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Where the bits of two arrays differ and not both are NaN."""
    if got.dtype.kind != "f":
        return got != expected
    bits = np.dtype(f"i{got.itemsize}")
    return (got.view(bits) != expected.view(bits)) & ~(np.isnan(got) & np.isnan(expected))


def units_apart(got: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Units in the last place between floats, and 2**53 from NaN to a number; between integers their difference."""
    if got.dtype.kind != "f":
        return np.abs(got.astype(np.float64) - expected.astype(np.float64))
    lowest = -(2 ** (8 * got.itemsize - 1))
    ordered = [x.view(f"i{x.itemsize}").astype(object) for x in (got, expected)]
    a, b = (np.where(x < 0, lowest - x, x) for x in ordered)
    return np.where(np.isnan(got) != np.isnan(expected), 2**53, np.abs(a - b))


def fill(array: np.ndarray, seed: int) -> None:
    """Fill an array with random bytes."""
    if array.size:
        array.view(np.uint8)[...] = np.random.default_rng(seed).integers(0, 256, array.view(np.uint8).shape, np.uint8)


def with_garbage(call: Call, seed: int) -> list[Any]:
    """Copies of a call's arguments, apart from each other in memory; what the kernel only writes is garbage."""
    kernel, arguments = call.kernel, copies(call.before, guarded)
    for k, unknown in enumerate(unknown_arguments(call)):
        if unknown:
            fill(arguments[k], seed + k)
    assert len(arguments) == len(kernel.names)
    return arguments


def unknown_arguments(call: Call) -> list[bool]:
    """Whether the content of each argument must not matter."""
    kernel = call.kernel
    state = STATE.get(kernel.full_name, ())
    return [written and name not in state for name, written in zip(kernel.names, kernel.written, strict=True)]


def blocks_of(call: Call, threads: int) -> int:
    """Blocks of a launch: as `Kernel.__call__` launches on a GPU."""
    return min(call.n, len(call.before[0])) if call.kernel.cooperative else -(-call.n // threads)


def launch(
    program: Program, call: Call, arguments: Sequence[Any], threads: int, order: int = 0, skip_barrier: int = 0,
    written: Sequence[bool] | None = None,
) -> Report:  # fmt: skip
    """Run a call by a program, over `arguments` in place.

    written: for each argument, whether it may be stored to; those that the kernel writes to, if None.
    """
    written = call.kernel.written if written is None else written
    unknown, memory = unknown_arguments(call), [k for k, value in enumerate(arguments) if isinstance(value, np.ndarray)]
    if call.kernel.full_name in DISCARDS_SCRATCH:
        unknown[0] = False
    parameters = Parameters(call.kernel, [parameter.name for parameter in program.parameters])
    return program.launch(
        parameters.of(call.n, arguments, address=lambda array: array), blocks_of(call, threads), threads,
        [arguments[k] for k in memory], order, [written[k] for k in memory], [unknown[k] for k in memory], skip_barrier,
    )  # fmt: skip


def run(program: Program, call: Call, order: int, threads: int, seed: int, found: Comparison) -> None:
    """Run a call by PTX in one order, and compare it to the CPU loop, which finds the same garbage.

    The loop is not run where the PTX has a fault: it could read garbage as an index.
    """
    kernel, got = call.kernel, with_garbage(call, seed)
    expected = copies(got)
    if kernel.cooperative:
        fill(expected[0], seed + len(expected))  # other garbage than for the PTX
    report = launch(program, call, got, threads, order)
    tolerated = TOLERATED.get(kernel.full_name, ())
    faults = {fault: n for fault, n in report.faults.items() if fault not in tolerated}
    if faults:
        found.meet(faults, report.messages)
        return
    kernel(call.n, *expected)
    for name, a, b in outputs_of(call, got, expected):
        found.add(name, a, b)


def outputs_of(call: Call, got: Sequence[Any], expected: Sequence[Any]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name and both versions of every array that the kernel writes, but for the scratch memory."""
    kernel = call.kernel
    for k, (name, written) in enumerate(zip(kernel.names, kernel.written, strict=True)):
        if written and not (kernel.cooperative and k == 0):
            yield name, got[k], expected[k]


def in_few_blocks(call: Call, blocks: int) -> Call:
    """A call of a cooperative kernel with scratch memory for so many blocks, which take several items in turn."""
    scratch, *others = call.before
    return replace(call, before=(np.ascontiguousarray(scratch[:blocks]), *others))
