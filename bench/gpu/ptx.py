"""Kernels by their PTX against the CPU loops, on all bars of a file: `python -m bench.gpu.ptx --data BARS.parquet`.

The program's own calls for labels by all rules and windows, weights, features, bins, Alpha158, backtests and bonds run
twice: by the compiled loop, and by the PTX that a GPU would run, translated to C (tests/support/ptx). Every value is
compared bit by bit; every NaN is equal to every NaN. --arch chooses the architecture, --only the kernels whose names
begin so ("labels."). Needs gcc, and the extra `test` for the PTX; takes no GPU.

A line for each step and kernel; the last lines are JSON. Exit code 1 where a value differs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from bench import runs
from gpupipe.data.panel import Panel
from gpupipe.features.matrix import compute_bins, compute_features
from gpupipe.kernels.gpu_launch import THREADS_PER_BLOCK
from gpupipe.targets.triple_barrier import barrier_classes, tp_dd_labels
from tests.support.kernel_calls import Call, each_call, run_backtests, value_bonds
from tests.support.kernel_resources import name_of, ptx_of
from tests.support.ptx import program, why_not
from tests.support.ptx.comparison import Comparison, launch, outputs_of

BONDS = 4_000


def main() -> int:
    parser = runs.options(__doc__, data="demo")
    parser.add_argument("--arch", default="9.0", help="compute capability")
    parser.add_argument("--only", default="", help="kernels whose full names begin so")
    parser.add_argument("--out", help="a file that the JSON lines are added to")
    chosen = parser.parse_args()
    if reason := why_not():
        raise SystemExit(reason)
    panel, _ = runs.read(chosen)
    major, _, minor = chosen.arch.partition(".")
    lines: list[runs.Line] = []

    def remembered() -> Iterator[runs.Line]:
        for line in compared(panel, (int(major), int(minor)), chosen.only):
            lines.append(line)
            yield line

    about = {"arch": chosen.arch, "rows": panel.n_rows, "symbols": panel.n_symbols}
    runs.report("gpu.ptx", remembered(), chosen.out, **about)
    return int(any(line["differ"] for line in lines))


def steps(panel: Panel) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What the program computes, by name."""
    fraction = panel.high / panel.low - np.float32(1)
    for rule in ("take_profit_first", "first_touch"):
        for window in ("bars", "calendar"):
            yield f"labels, {rule}, {window}", partial(tp_dd_labels, panel, rule=rule, window=window)
    yield (
        "labels, scaled thresholds",
        partial(tp_dd_labels, panel, (7, 30, 250), rule="first_touch", multiples=(1, 3), volatility=fraction),
    )
    yield "weights", lambda: tp_dd_labels(panel).weight
    yield "classes", partial(barrier_classes, panel)
    yield "features", partial(compute_features, panel, "default")
    cuts = cuts_of(compute_features(panel, "default").values)  # between two steps, so that it is not compared again
    yield "bins", partial(compute_bins, panel, "default", cuts)
    yield "features, Alpha158", partial(compute_features, panel, "alpha158")
    yield "backtests", partial(run_backtests, panel)
    yield f"{BONDS:,} bonds", partial(value_bonds, BONDS)


def cuts_of(values: np.ndarray) -> list[np.ndarray]:
    """Quantiles of the known values of every column, as the cut points of its bins."""
    shares = np.linspace(0, 1, 65)[1:-1]
    known = (column[~np.isnan(column)] for column in values.T)
    return [np.unique(np.quantile(column, shares).astype(np.float32)) if len(column) else column for column in known]


def compared(panel: Panel, arch: tuple[int, int], only: str) -> Iterator[runs.Line]:
    """A line for each kernel of each step."""
    for step, compute in steps(panel):
        found: dict[str, Comparison] = {}
        seconds: dict[str, float] = {}

        def use(call: Call, found: dict[str, Comparison] = found, seconds: dict[str, float] = seconds) -> None:
            name = name_of(call.kernel)
            if not name.startswith(only):
                return
            ptx = program(ptx_of(call.kernel, arch))
            got = [np.array(a) if isinstance(a, np.ndarray) else a for a in call.before]
            began = time.perf_counter()
            launch(ptx, call, got, THREADS_PER_BLOCK)
            seconds[name] = seconds.get(name, 0) + time.perf_counter() - began
            comparison = found.setdefault(name, Comparison())
            for output, a, b in outputs_of(call, got, call.after):
                comparison.add(output, a, b)

        with each_call(use):
            compute()
        for name, comparison in found.items():
            yield {
                "step": step, "kernel": name, "values": comparison.values, "differ": comparison.differ,
                "ulps": comparison.ulps, "where": comparison.where, "ptx_seconds": round(seconds[name], 2),
            }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
