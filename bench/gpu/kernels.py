"""Kernels on a GPU: every value against the CPU loop's bits, milliseconds, and the share of the rate of a copy."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bench import runs
from bench.gpu.market_calls import compared
from gpupipe.data.panel import Panel
from tests.support.kernel_calls import Call

TIMES = 5  # launches that are timed; the first, which also loads the code, is compared and not timed
COPIED_BYTES = 1 << 30


def measured(panel: Panel, only: str = "") -> Iterator[runs.Line]:
    """A line with the rate of copies, then a line for each kernel of each step.

    gb_s: bytes of the kernel's arrays, scratch memory left out, over the milliseconds of its launches: what has to be
    read or written at least once, if every array is. share: of the rate at which the GPU copies.
    """
    rates = copy_rates()
    yield {"step": "copies", **rates}
    for line in compared(panel, only, on_gpu):
        gb_s = line["bytes"] / line["ms"] / 1e6 if line["ms"] else 0.0
        yield {**line, "gb_s": gb_s, "share": gb_s / rates["on_device_gb_s"]}


def on_gpu(call: Call, arguments: list[Any]) -> runs.Line:
    """Run a call on the GPU, over its arguments in place: the median milliseconds of a launch, and its bytes."""
    import cupy

    kernel = call.kernel
    state = [cupy.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments]

    def launch() -> None:
        kernel(call.n, *state)

    kernel(call.n, *state)
    for array, on_device in zip(arguments, state, strict=True):
        if isinstance(array, np.ndarray):
            array[...] = cupy.asnumpy(on_device)
    arrays = arguments[int(kernel.cooperative) :]
    n_bytes = sum(a.nbytes for a in arrays if isinstance(a, np.ndarray))
    return {"ms": milliseconds(launch), "bytes": n_bytes}


def milliseconds(call: Callable[[], Any], times: int = TIMES) -> float:
    """The median milliseconds of a call on the current stream, by events."""
    import cupy

    spent = []
    for _ in range(times):
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record()
        call()
        end.record()
        end.synchronize()
        spent.append(cupy.cuda.get_elapsed_time(begin, end))
    return statistics.median(spent)


def copy_rates() -> runs.Line:
    """GB/s of a copy on the device (read and written bytes), to the device and to the host."""
    import cupy

    source, target = (cupy.zeros(COPIED_BYTES, cupy.uint8) for _ in range(2))
    host = np.zeros(COPIED_BYTES, np.uint8)
    ways: dict[str, tuple[Callable[[], Any], int]] = {
        "on_device_gb_s": (lambda: cupy.copyto(target, source), 2),
        "to_device_gb_s": (lambda: target.set(host), 1),
        "to_host_gb_s": (lambda: source.get(out=host), 1),
    }
    for copy, _ in ways.values():
        copy()
    return {name: n * COPIED_BYTES / milliseconds(copy) / 1e6 for name, (copy, n) in ways.items()}
