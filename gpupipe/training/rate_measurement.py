"""Measure the rates of this machine: small fits of every kind of work, on each device, and copies over the bus."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpupipe.config import Config, Training
from gpupipe.dataset.dataset import Dataset
from gpupipe.dataset.row_view import RowView
from gpupipe.estimators import columns, registry
from gpupipe.estimators.contract import EstimatorSettings
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.runtime.device import Device
from gpupipe.runtime.placement import CPU, CUDA, Rate, Size, Work
from gpupipe.targets.target import Target

# The estimator whose pooled fits measure each kind of work, and the setting that is its number of steps.
MEASURED_BY = {"boosting": "xgb_joint", "forest": "random_forest", "regression": "linear"}
STEPS = {
    "boosting": ("joint", "rounds", 16),
    "forest": ("forest", "trees", 16),
    "regression": ("linear", "max_iterations", 8),
}
# Two sizes, far enough apart to tell what a step takes from what its values take.
SMALL, LARGE = Size(rows=4_000, columns=60, targets=1), Size(rows=60_000, columns=60, targets=6)
REPEATS = 3  # of which the fastest counts: others are disturbed
COPIED_BYTES = 1 << 28


@dataclass(frozen=True)
class Measured:
    """Rates by device kind and kind of work, and bytes a second over the bus by direction; empty without a GPU.

    >>> Measured({"cpu": {"forest": Rate(4e-4, 1e-9)}}, {}).copy_bytes_s
    {}
    """

    rates: Mapping[str, Mapping[str, Rate]]
    copy_bytes_s: Mapping[str, float]


def measure(devices: Sequence[Device], tell: Callable[[str], None] = lambda text: None) -> Measured:
    """Measure every kind of work on each device, some seconds each.  tell(text): called before each of them.

    On a CPU fits have one thread, as those of groups have: a placement divides by the number of threads.
    """
    from threadpoolctl import threadpool_limits

    measured: dict[str, dict[str, Rate]] = {}
    copies: dict[str, float] = {}
    for device in devices:
        measured[device.kind] = {}
        for kind in MEASURED_BY:
            tell(f"{kind} on {device.kind}")
            with threadpool_limits(1, "blas"):
                measured[device.kind][kind] = rate_of(
                    device.kind, *(_timed(kind, size, device) for size in (SMALL, LARGE))
                )
        if device.kind == CUDA:
            tell("copies over the bus")
            copies = _copies(device)
    return Measured(measured, copies)


def rate_of(device: str, small: tuple[Work, float], large: tuple[Work, float]) -> Rate:
    """The rate at which both fits take on a device what they took: (work, seconds) each.

    Where the larger fit took hardly longer, all of it counts as steps.

        >>> rate_of("cpu", (Work("forest", 10, 1e6), 0.011), (Work("forest", 10, 1e8), 1.001)).rounded
        Rate(step_s=0.0001, value_s=1e-09)
    """
    (small_work, small_s), (large_work, large_s) = small, large
    small_step, large_step = small_s / small_work.steps, large_s / large_work.steps
    few, many = small_work.values_on(device), large_work.values_on(device)
    value_s = max(0.0, large_step - small_step) / (many - few)
    return Rate(max(0.0, small_step - value_s * few), value_s)


def _timed(kind: str, size: Size, device: Device) -> tuple[Work, float]:
    """A fit, and the seconds of the fastest of some, after one that compiles kernels and makes bins.

    On a CPU these are seconds of this process, which other processes do not lengthen.
    """
    now = time.process_time if device.kind == CPU else time.perf_counter
    estimator = registry.estimator(MEASURED_BY[kind])
    settings = _settings(kind)
    training_set = training_rows(size, device)
    readable = EstimatorSettings(settings, estimator)
    seconds = []
    for _ in range(1 + REPEATS):
        began = now()
        columns.fit_pool(estimator, training_set, readable, None)
        device.sync()
        seconds.append(now() - began)
    work = estimator.work(size, settings, pooled=True)
    assert work is not None, f"{estimator.name} does not say what its fits compute"
    return work, min(seconds[1:])


def _settings(kind: str) -> Config:
    """The settings of preset fast, with as many steps as are measured and no early stop."""
    name = MEASURED_BY[kind]
    sections: dict[str, Any] = {key: section.start("fast") for key, section in registry.sections([name]).items()}
    section, field, n_steps = STEPS[kind]
    sections[section] = replace(sections[section], **{field: n_steps})
    return Config("fast", training=Training((name,), max_bin=32, early_stopping=0), sections=sections)


def training_rows(size: Size, device: Device) -> TrainingSet:
    """Random rows of one group, with classes that the first columns tell a little of; no validation part."""
    rng = np.random.default_rng(7)
    X = rng.standard_normal((size.rows, size.columns), dtype=np.float32)
    score = X[:, : size.targets] + 2 * rng.standard_normal((size.rows, size.targets))
    y = (1 + (score > 2.5).astype(np.int8) - (score < -2.5).astype(np.int8)).astype(np.int8)
    names = tuple(f"label_{k + 1}" for k in range(size.targets))
    target = Target(names, "classes", (1,) * size.targets, ("sell", "hold", "buy"))
    rows, known = np.arange(size.rows), np.ones(size.rows, bool)
    arrays = (device.asarray(array) for array in (rows, rows + 1, known, known, np.array([0, size.rows])))
    column_names = tuple(f"x{k}" for k in range(size.columns))
    dataset = Dataset("all", device.asarray(X), column_names, device.asarray(y), target, *arrays)
    return TrainingSet("final", {"all": RowView(dataset, rows)}, {}, target, device, 32, "none", threads=1, seed=7)


def _copies(device: Device) -> dict[str, float]:
    """Bytes a second over the bus, as `Device` copies, in both directions."""
    host = np.zeros(COPIED_BYTES // 4, np.float32)
    best = {"to_device": float("inf"), "to_host": float("inf")}
    for _ in range(1 + REPEATS):
        began = time.perf_counter()
        there = device.asarray(host)
        device.sync()
        best["to_device"] = min(best["to_device"], time.perf_counter() - began)
        began = time.perf_counter()
        device.to_host(there)
        best["to_host"] = min(best["to_host"], time.perf_counter() - began)
    return {way: host.nbytes / seconds for way, seconds in best.items()}
