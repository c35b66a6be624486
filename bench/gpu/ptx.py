"""Kernels by their PTX against the CPU loops, on all bars of a file: `python -m bench.gpu.ptx --data BARS.parquet`.

The program's own calls for labels by all rules and windows, weights, features, bins, Alpha158, backtests and bonds run
twice: by the compiled loop, and by the PTX that a GPU would run, translated to C (tests/support/ptx). Every value is
compared bit by bit; every NaN is equal to every NaN. --arch chooses the architecture, --only the kernels whose names
begin so ("labels."). Needs gcc, and the extra `test` for the PTX; takes no GPU.

A line for each step and kernel; the last lines are JSON. Exit code 1 where a value differs.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterator
from typing import Any

from bench import runs
from bench.gpu.market_calls import compared
from bench.gpu.page import is_wrong
from gpupipe.kernels.gpu_launch import THREADS_PER_BLOCK
from tests.support.kernel_calls import Call
from tests.support.kernel_resources import ptx_of
from tests.support.ptx import program, why_not
from tests.support.ptx.comparison import launch


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
        for line in compared(panel, chosen.only, functools.partial(by_ptx, (int(major), int(minor)))):
            lines.append(line)
            yield line

    about = {"arch": chosen.arch, "rows": panel.n_rows, "symbols": panel.n_symbols}
    runs.report("gpu.ptx", remembered(), chosen.out, **about)
    return int(any(map(is_wrong, lines)))


def by_ptx(arch: tuple[int, int], call: Call, arguments: list[Any]) -> runs.Line:
    """Run a call by the PTX of an architecture, over its arguments in place."""
    code = program(ptx_of(call.kernel, arch))
    began = time.perf_counter()
    launch(code, call, arguments, THREADS_PER_BLOCK)
    return {"ptx_seconds": time.perf_counter() - began}


if __name__ == "__main__":
    sys.exit(main())
