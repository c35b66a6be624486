"""How the benchmarks measure time: the sides in turn, medians, and the ceiling that memory bandwidth sets."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from gpupipe.kernels.cores import available_cores
from gpupipe.runtime.device import Device, pick

T = TypeVar("T")


def cores() -> int:
    """Cores that this process may use."""
    return available_cores()


def alternate(
    times: int, sides: dict[str, Callable[[], Any]], device: Device | None = None, limit_s: float = math.inf
) -> tuple[dict[str, float], int]:
    """Median seconds of each side, run in turn, and the number of rounds; no round begins after `limit_s`.

    The caller has run every side once before: its check of the results is the warm-up.
    """
    device = device or pick("cpu")
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    first = time.perf_counter()
    done = 0
    while done < times and (done == 0 or time.perf_counter() - first < limit_s):
        for name, side in sides.items():
            device.sync()
            began = time.perf_counter()
            side()
            device.sync()
            seconds[name].append(time.perf_counter() - began)
        done += 1
    return {name: statistics.median(values) for name, values in seconds.items()}, done


def in_turn(times: int, sides: dict[str, Callable[[int], T]]) -> dict[str, list[T]]:
    """Results of every side, `times` runs of each, in turn: every second round in reversed order.

    A side gets the number of its round.
    """
    results: dict[str, list[T]] = {name: [] for name in sides}
    for k in range(times):
        for name in list(sides)[:: -1 if k % 2 else 1]:
            results[name].append(sides[name](k))
    return results


def excess(seconds: Sequence[float], reference: Sequence[float]) -> tuple[float, float]:
    """Median of seconds / reference - 1 over pairs of runs, and its standard error (inf for a single pair)."""
    ratios = [a / b - 1 for a, b in zip(seconds, reference, strict=True)]
    error = statistics.stdev(ratios) / math.sqrt(len(ratios)) if len(ratios) > 1 else math.inf
    return statistics.median(ratios), error


def timed(call: Callable[[], T]) -> tuple[float, T]:
    """Seconds of one call, and its result."""
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


def memory_copy(device: Device) -> float:
    """Bytes a second, read and written, of copying 256 MB within the memory of `device`, on all cores."""
    source = device.xp.ones(1 << 25, dtype=np.float64)
    target = device.xp.zeros_like(source)
    if device.kind == "cuda":
        copies, _ = alternate(5, {"copy": lambda: device.xp.copyto(target, source)}, device, 10)
        return 2 * source.nbytes / copies["copy"]
    from concurrent.futures import ThreadPoolExecutor

    edges = [len(source) * k // cores() for k in range(cores() + 1)]
    with ThreadPoolExecutor(cores()) as pool:

        def copy() -> None:
            list(pool.map(lambda a, b: np.copyto(target[a:b], source[a:b]), edges[:-1], edges[1:]))

        copy()
        copies, _ = alternate(5, {"copy": copy}, device, 10)
    return 2 * source.nbytes / copies["copy"]
