"""How the benchmarks measure: both sides in turn, medians, and the ceiling that memory sets."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from gpupipe.runtime.device import Device


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def alternate(
    times: int, limit_s: float, device: Device, sides: dict[str, Callable[[], Any]]
) -> tuple[dict[str, float], int]:
    """Median seconds of each side, run in turn, and how often; it ends early once `limit_s` has gone by.

    The caller has run every side once before: its check of the answer is the warm-up.
    """
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


def memory_copy(device: Device) -> float:
    """Bytes a second, read and written, of copying 256 MB within the memory of `device`, on all cores."""
    source = device.xp.ones(1 << 25, dtype=np.float64)
    target = device.xp.zeros_like(source)
    if device.kind == "cuda":
        copies, _ = alternate(5, 10, device, {"copy": lambda: device.xp.copyto(target, source)})
        return 2 * source.nbytes / copies["copy"]
    from concurrent.futures import ThreadPoolExecutor

    edges = [len(source) * k // cores() for k in range(cores() + 1)]
    with ThreadPoolExecutor(cores()) as pool:

        def copy() -> None:
            list(pool.map(lambda a, b: np.copyto(target[a:b], source[a:b]), edges[:-1], edges[1:]))

        copy()
        copies, _ = alternate(5, 10, device, {"copy": copy})
    return 2 * source.nbytes / copies["copy"]
