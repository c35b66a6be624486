"""Networks on a GPU: windows against the CPU's, epochs captured and not, the loss on both, Torch on RMM's pool."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.gpu import caught
from bench.gpu.workloads import differing_values
from bench.runs import Line
from gpupipe.runtime.device import pick, pool_statistics, torch_on

EPOCHS = 3  # that are timed; the first also captures, and is not counted


def pool(chosen: argparse.Namespace) -> Iterator[Line]:
    """Whether Torch's tensors and CuPy's arrays come from one pool.

    Once Torch allocates from the pool, it captures no graph until its process ends: each step has its own process.
    """
    import torch

    device = pick("cuda")
    torch_on(device.kind)
    before = pool_statistics().get("current_bytes")
    tensor = torch.empty(1 << 26, dtype=torch.uint8, device="cuda")
    with_tensor = pool_statistics().get("current_bytes")
    array = device.xp.empty(1 << 26, np.uint8)
    with_array = pool_statistics().get("current_bytes")
    yield {
        "before": before,
        "with_tensor": with_tensor,
        "with_array": with_array,
        "bytes": tensor.nbytes + array.nbytes,
    }


def problem_on(chosen: argparse.Namespace, kind: str) -> Any:
    """Rows, labels and features of the series, made on the host, on a device; see bench.sequence.problem."""
    from bench.sequence.problem import problem_of, read_series

    problem = problem_of(chosen.series.stem, read_series(chosen.series).to(pick("cpu")), "core")
    return dataclasses.replace(problem, dataset=problem.dataset.on(pick(kind)))


def windows(chosen: argparse.Namespace) -> Iterator[Line]:
    """Every preset's windows of 1,024 rows."""
    import torch

    from gpupipe.estimators.torch.scaler import fit_scaler
    from gpupipe.estimators.torch.settings import PRESETS
    from gpupipe.estimators.torch.windows import Windows

    on_cpu, on_gpu = (problem_on(chosen, kind).training for kind in ("cpu", "cuda"))
    scaler = fit_scaler([on_cpu])
    for preset in chosen.presets:
        length = PRESETS[preset].length
        both = [Windows([rows], length, scaler) for rows in (on_cpu, on_gpu)]
        positions = np.random.default_rng(0).permutation(on_cpu.n)[:1024]
        expected = both[0].batch(positions).numpy()
        positions = pick("cuda").asarray(positions)
        compared = differing_values(both[1].batch(positions).cpu().numpy(), expected)
        seconds = []
        for _ in range(20):
            torch.cuda.synchronize()
            began = time.perf_counter()
            both[1].batch(positions)
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
        gigabytes = 2 * expected.nbytes / 1e9  # read once, written once
        yield {"preset": preset, **compared, "gb_s": gigabytes / statistics.median(seconds)}


def epoch(chosen: argparse.Namespace) -> Iterator[Line]:
    """An epoch of each preset and precision, captured and not."""
    problem = problem_on(chosen, "cuda")
    for preset in chosen.presets:
        for precision in ("fp32", "bf16"):
            for captured in (True, False):
                case = {"preset": preset, "precision": precision, "captured": captured}
                yield caught.line_of(case, functools.partial(epoch_line, problem, **case))


def epoch_line(problem: Any, preset: str, precision: str, captured: bool) -> Line:
    """Seconds of an epoch, the first left out, and the best validation loss."""
    seconds, loss = trained(problem, preset, precision, captured)
    return {
        "rows": problem.training.n, "epoch_s": statistics.median(seconds[1:]), "first_epoch_s": seconds[0],
        "validation_loss": loss,
    }  # fmt: skip


def loss(chosen: argparse.Namespace) -> Iterator[Line]:
    """The best validation loss of a few epochs, on the GPU and on the CPU."""
    for preset in chosen.presets[:1]:
        on_gpu = trained(problem_on(chosen, "cuda"), preset, "auto", True)[1]
        on_cpu = trained(problem_on(chosen, "cpu"), preset, "auto", False)[1]
        yield {"preset": preset, "on_gpu": on_gpu, "on_cpu": on_cpu, "ratio": on_gpu / on_cpu}


def trained(problem: Any, preset: str, precision: str, captured: bool) -> tuple[list[float], float]:
    """Seconds of each epoch of a short training, and its best validation loss."""
    from bench.sequence import ours
    from gpupipe.estimators.torch import steps
    from gpupipe.estimators.torch.settings import PRESETS

    settings = dataclasses.replace(PRESETS[preset], precision=precision)
    network = ours.network_of(problem, settings, seed=1)
    fit, validation, _ = ours.dataset(problem, settings, settings.scaling)
    can_capture, steps.can_capture = steps.can_capture, lambda: captured
    try:
        network = network.to(fit.torch_device)
        curve = ours.train(network, problem, fit, validation, settings, 1, 1, EPOCHS)
    finally:
        steps.can_capture = can_capture
    ends = [point.seconds for point in curve.epochs]
    return np.diff([0.0, *ends]).tolist(), curve.best.validation_loss
