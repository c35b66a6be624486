"""What a run of the family sequence holds in memory: the feature matrix once, never windows or rows of all of it."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tempfile

import pytest

pytest.importorskip("torch", reason="the family sequence trains with Torch")

LENGTH, FEW, MANY, N_BARS = 120, 30, 120, 1000


def in_kilobytes(name: str) -> int:
    """A line of /proc/self/status, such as VmRSS."""
    (line,) = [line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1])


def measure(models: str) -> None:
    """Print, as JSON, how many bytes larger the matrix of many symbols is than that of a few, and the peak of training.

    "grown": by how much the peak of training is larger, beside the matrix.  "batches": that peak with a few symbols.
    """
    from gpupipe.data import simulate
    from gpupipe.runtime import memory
    from gpupipe.store.content_store import Store
    from gpupipe.training.context import TrainingContext
    from gpupipe.training.groups import train
    from gpupipe.workloads import equity
    from tests.support.tiny import QUICK, prepare

    settings = equity.make("fast", settings=[
        *QUICK, f"sequence.length={LENGTH}", "sequence.epochs=1", "sequence.epoch_rows=1024", "sequence.step_rows=64",
        "sequence.validation_rows=512", "labels.horizons=1", "labels.thresholds=0.02", "split.parts=2",
        "training.min_rows=10", "features.names=default", f"training.models={models}",
    ])  # fmt: skip

    def trained(panel):
        prepared = prepare(panel, settings)
        with tempfile.TemporaryDirectory() as folder:
            context = TrainingContext(
                prepared.datasets, prepared.splits, prepared.folds.published, settings, Store(folder), "ab12",
                panel.device, jobs=1,
            )  # fmt: skip
            memory.give_back()
            before = in_kilobytes("VmRSS")
            pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            train(context)
        return prepared, (in_kilobytes("VmHWM") - before) * 1024

    trained(simulate(n_symbols=FEW, n_bars=N_BARS, seed=1))  # libraries and compiled kernels come into memory
    found = []
    for n_symbols in (FEW, MANY):
        prepared, grown = trained(simulate(n_symbols=n_symbols, n_bars=N_BARS, seed=2))
        found.append((sum(dataset.X.nbytes for dataset in prepared.datasets.values()), grown))
    (matrix, grown), (larger_matrix, larger) = found
    print(json.dumps({"matrix": larger_matrix - matrix, "grown": larger - grown, "batches": grown}))


def measured(models: str) -> dict[str, int]:
    """What `measure` prints in a process of its own."""
    command = [sys.executable, "-c", f"from tests.training.test_sequence_memory import measure; measure({models!r})"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.skipif(not pathlib.Path("/proc/self/clear_refs").exists(), reason="the peak is read as Linux tells it")
def test_neither_rows_nor_windows_of_all_rows_are_copied():
    """What training holds beside the matrix hardly grows with it: 1.3 times the matrix in all, and batches of windows.

    Copies of the rows of fit and validation would be 0.7 of the matrix, as a family that reads rows shows; all windows
    120 times as much.
    """
    windows_alone, rows_too = measured("sequence"), measured("linear,sequence")
    assert windows_alone["matrix"] == rows_too["matrix"] == 4 * (MANY - FEW) * N_BARS * 195
    assert windows_alone["grown"] < 0.3 * windows_alone["matrix"], windows_alone
    assert rows_too["grown"] > 0.5 * rows_too["matrix"], f"the measure sees no copies: {rows_too}"
