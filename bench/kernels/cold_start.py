"""The first labels and features of a fresh process; bench.kernels.comparison --cold measures it.

`python -m bench.kernels.cold_start DEVICE` is that process. Compiling the kernels binds, then importing libraries.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from bench import runs

TIMES = 3
SYMBOLS, BARS = 11, 500


def main() -> None:
    """Print the moments at which a panel, its labels and its features were there."""
    from gpupipe.data import simulate
    from gpupipe.features.matrix import compute_features
    from gpupipe.runtime.device import pick
    from gpupipe.targets.triple_barrier import barrier_classes

    device = pick(sys.argv[1])
    panel = simulate(SYMBOLS, BARS).to(device)
    moments = {"panel": time.time()}
    for name, compute in (("labels", barrier_classes), ("features", compute_features)):
        compute(panel)
        device.sync()
        moments[name] = time.time()
    print(json.dumps(moments))


def cold_start(device: str) -> Iterator[runs.Line]:
    """Lines of the time from the start of a process to its first default set of columns, and to what comes before.

    Once with nothing compiled, then with the kernels that this process left on disk.
    """
    with tempfile.TemporaryDirectory() as compiled:
        moments = [_seconds(device, compiled) for _ in range(1 + TIMES)]
    for kernels, repeated in (("nothing compiled", moments[:1]), ("kernels compiled on disk", moments[1:])):
        seconds = {name: statistics.median(run[name] for run in repeated) for name in repeated[0]}
        yield {
            "what": f"cold, {kernels}", "seconds": seconds["features"],
            **{f"until_{name}_seconds": value for name, value in seconds.items()},
            "times": len(repeated), "check": "none: the time until it is there", "rows": SYMBOLS * BARS,
            "symbols": SYMBOLS,
        }  # fmt: skip


def _seconds(device: str, compiled: str) -> dict[str, float]:
    """Seconds from the start of a process, which keeps its compiled kernels in a folder, until each moment."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": compiled, "PYTHONPATH": str(runs.ROOT)}
    began = time.time()
    command = [sys.executable, "-m", "bench.kernels.cold_start", device]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment, cwd=runs.ROOT)
    return {name: moment - began for name, moment in json.loads(done.stdout).items()}


if __name__ == "__main__":
    main()
