"""Kernels on a GPU: every value against the CPU loop's bits, milliseconds, and the share of the rate of a copy."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bench import runs
from bench.gpu.market_calls import compared
from bench.gpu.sizes import Sizes
from gpupipe.data.panel import Panel
from gpupipe.kernels import gpu_launch
from gpupipe.kernels.elementary import log_growth
from tests.support.kernel_calls import Call
from tests.support.ptx.comparison import STATE


def measured(panel: Panel, sizes: Sizes, only: str = "") -> Iterator[runs.Line]:
    """A line with the rates of copies and the time of a launch, then a line for each kernel of each step.

    launch_us: microseconds of the host for a launch by the kernel's call.  ms: of the kernel alone, summed over its
    calls.  gb_s: bytes of the kernel's arrays, scratch memory left out, over these milliseconds: what has to be read or
    written at least once, if every array is.  share: of the rate at which the GPU copies.
    """
    import cupy

    source, target = (cupy.zeros(sizes.copied_bytes, cupy.uint8) for _ in range(2))
    rates = copy_rates(source, target)
    yield {"step": "copies", **rates, "launch_us": launch_microseconds()}
    # The device copies until the launch that follows is queued: the kernel is timed, and not what Python does.
    run = functools.partial(on_gpu, functools.partial(cupy.copyto, target, source), sizes.launches)
    for line in compared(panel, only, run, sizes.valued_bonds):
        if line.get("ms"):
            gb_s = line["bytes"] / line["ms"] / 1e6
            line |= {"gb_s": gb_s, "share": gb_s / rates["on_device_gb_s"]}
        yield line


def on_gpu(busy: Callable[[], Any], times: int, call: Call, arguments: list[Any]) -> runs.Line:
    """Run a call on the GPU, over its arguments in place: the median milliseconds of `times` more, and its bytes.

    busy: what is queued ahead of a launch that is timed, longer than a launch takes the host. The first launch, which
        also loads the code, is not timed.
    """
    import cupy

    kernel = call.kernel
    state = [cupy.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments]
    # What the kernel reads before it writes it is put back, so that each launch does the same work.
    kept = STATE.get(kernel.full_name, ())
    first = {k: state[k].copy() for k, name in enumerate(kernel.names) if name in kept}

    def launch() -> None:
        if call.n:  # CUDA refuses a launch of no block
            gpu_launch.launch(kernel, call.n, state)  # a call of the kernel would be recorded as another one

    def before() -> None:
        for k, array in first.items():
            cupy.copyto(state[k], array)
        busy()

    launch()
    for array, on_device in zip(arguments, state, strict=True):
        if isinstance(array, np.ndarray):
            array[...] = cupy.asnumpy(on_device)
    arrays = arguments[int(kernel.cooperative) :]
    n_bytes = sum(a.nbytes for a in arrays if isinstance(a, np.ndarray))
    return {"ms": milliseconds(launch, before, times), "bytes": n_bytes}


def milliseconds(call: Callable[[], Any], before: Callable[[], Any] | None = None, times: int = 5) -> float:
    """The median milliseconds of a call on the current stream, by events.

    before: queued ahead of each call, and not timed.
    """
    import cupy

    spent = []
    for _ in range(times):
        if before is not None:
            before()
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record()
        call()
        end.record()
        end.synchronize()
        spent.append(cupy.cuda.get_elapsed_time(begin, end))
    return statistics.median(spent)


def launch_microseconds(n: int = 1_000) -> float:
    """The host's microseconds for a launch: the mean of many of a small kernel, which the device does meanwhile."""
    import cupy

    source, target = (cupy.ones(128, np.float32) for _ in range(2))
    log_growth(128, source, target)
    cupy.cuda.runtime.deviceSynchronize()
    began = time.perf_counter()
    for _ in range(n):
        log_growth(128, source, target)
    spent = time.perf_counter() - began
    cupy.cuda.runtime.deviceSynchronize()
    return 1e6 * spent / n


def copy_rates(source: Any, target: Any) -> runs.Line:
    """GB/s of a copy between two arrays of bytes on the device (read and written), to the device and to the host."""
    import cupy

    host = np.ones(source.nbytes, np.uint8)  # zeros would be one page, read again and again
    ways: dict[str, tuple[Callable[[], Any], int]] = {
        "on_device_gb_s": (lambda: cupy.copyto(target, source), 2),
        "to_device_gb_s": (lambda: target.set(host), 1),
        "to_host_gb_s": (lambda: source.get(out=host), 1),
    }
    for copy, _ in ways.values():
        copy()
    return {name: n * source.nbytes / milliseconds(copy) / 1e6 for name, (copy, n) in ways.items()}
