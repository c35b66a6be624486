"""What can only be measured on a GPU, in one call: `python -m bench.gpu --data BARS.parquet --out LINES.jsonl`.

    windows    windows gathered on the GPU against those of the CPU, bit for bit, and their GB/s
    epoch      seconds of an epoch of each preset: captured as a CUDA graph, and one operator at a time; fp32 and bf16
    loss       the best validation loss of a short training, on the GPU and on the CPU

The most valuable step comes first, and each adds a JSON line to the file at once, so that nothing is lost where time
ends. --steps chooses. Never run on a GPU yet.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from bench import runs
from bench.runs import Line
from gpupipe.runtime.device import pick, why_no_cuda

STEPS = ("windows", "epoch", "loss")
EPOCHS = 3  # that are timed; the first also captures, and is not counted


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="a Parquet file of one series")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="lines are added")
    parser.add_argument("--steps", type=runs.numbers(str), default=list(STEPS))
    parser.add_argument("--presets", type=runs.numbers(str), default=["fast", "balanced", "quality"])
    chosen = parser.parse_args(arguments)
    if reason := why_no_cuda():
        raise SystemExit(f"there is no GPU to measure on: {reason}")
    for step in STEPS:
        if step in chosen.steps:
            for line in MEASURES[step](chosen):
                add(chosen.out, {"kind": step, **about(), **line})
    return 0


def about() -> Line:
    """What every line says of the machine."""
    import torch

    return {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "time": time.strftime("%F %T%z")}


def add(out: pathlib.Path, line: Line) -> None:
    """Add a line to the file, and show it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a") as file:
        file.write(json.dumps(line) + "\n")
    runs.show(line)


def problems(chosen: argparse.Namespace, kind: str) -> Any:
    """Rows, labels and features of the series on a device; see bench.sequence.problem."""
    from bench.sequence.problem import problem_of, read_series

    return problem_of(chosen.data.stem, read_series(chosen.data).to(pick(kind)), "core")


def windows(chosen: argparse.Namespace) -> Iterator[Line]:
    """Every preset's windows of 1,024 rows."""
    import torch

    from gpupipe.estimators.torch.scaler import fit_scaler
    from gpupipe.estimators.torch.settings import PRESETS
    from gpupipe.estimators.torch.windows import Windows

    on_cpu, on_gpu = (problems(chosen, kind).training for kind in ("cpu", "cuda"))
    scaler = fit_scaler([on_cpu])
    for preset in chosen.presets:
        length = PRESETS[preset].length
        both = [Windows([rows], length, scaler) for rows in (on_cpu, on_gpu)]
        positions = np.random.default_rng(0).permutation(on_cpu.n)[:1024]
        expected = both[0].batch(positions).numpy()
        batch = both[1].batch(positions)
        equal = bool((batch.cpu().numpy() == expected).all())
        seconds = []
        for _ in range(20):
            torch.cuda.synchronize()
            began = time.perf_counter()
            both[1].batch(positions)
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
        gigabytes = 2 * expected.nbytes / 1e9  # read once, written once
        yield {"preset": preset, "equal": equal, "gb_s": gigabytes / statistics.median(seconds)}


def epoch(chosen: argparse.Namespace) -> Iterator[Line]:
    """An epoch of each preset and precision, captured and not."""
    problem = problems(chosen, "cuda")
    for preset in chosen.presets:
        for precision in ("fp32", "bf16"):
            for captured in (True, False):
                seconds, loss = trained(problem, preset, precision, captured)
                yield {
                    "preset": preset, "precision": precision, "captured": captured, "rows": problem.training.n,
                    "epoch_s": statistics.median(seconds[1:]), "first_epoch_s": seconds[0], "validation_loss": loss,
                }  # fmt: skip


def loss(chosen: argparse.Namespace) -> Iterator[Line]:
    """The best validation loss of a few epochs, on the GPU and on the CPU."""
    for preset in chosen.presets[:1]:
        on_gpu = trained(problems(chosen, "cuda"), preset, "auto", True)[1]
        on_cpu = trained(problems(chosen, "cpu"), preset, "auto", False)[1]
        yield {"preset": preset, "on_gpu": on_gpu, "on_cpu": on_cpu, "ratio": on_gpu / on_cpu}


def trained(problem: Any, preset: str, precision: str, captured: bool) -> tuple[list[float], float]:
    """Seconds of each epoch of a short training, and its best validation loss."""
    import dataclasses

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


MEASURES: dict[str, Callable[[argparse.Namespace], Iterator[Line]]] = {
    "windows": windows, "epoch": epoch, "loss": loss,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
