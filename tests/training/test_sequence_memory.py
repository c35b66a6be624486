"""What training of the family sequence holds beside the feature matrix: neither the rows of a fit nor their windows."""

from __future__ import annotations

import tracemalloc

import pytest

from gpupipe.data import simulate
from gpupipe.store.content_store import Store
from gpupipe.training.context import TrainingContext
from gpupipe.training.groups import train
from gpupipe.workloads import equity
from tests.support.tiny import QUICK, prepare

pytest.importorskip("torch", reason="the family sequence trains with Torch")

N_SYMBOLS, N_BARS, N_COLUMNS = 55, 1000, 195
SETTINGS = (
    *QUICK, "sequence.length=120", "sequence.epochs=1", "sequence.epoch_rows=512", "sequence.step_rows=128",
    "sequence.validation_rows=256", "labels.horizons=1", "labels.thresholds=0.02", "split.parts=2",
    "training.min_rows=5", "features.names=default",
)  # fmt: skip


def grown(prepared, settings, folder) -> int:
    """Bytes of numpy's arrays that training holds at its peak, beside those that were there before."""
    panel = next(iter(prepared.datasets.values())).device
    context = TrainingContext(
        prepared.datasets, prepared.splits, prepared.folds.published, settings, Store(folder), "ab12", panel, jobs=1
    )
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        train(context)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def test_neither_rows_nor_windows_of_all_rows_are_copied(tmp_path):
    """Copies of the rows of fit and validation are 0.7 of the matrix, as a family that reads rows shows, and windows
    of 120 bars 120 times as much. Batches of windows are Torch's memory, and of one size whatever the rows are.
    """
    peaks = {}
    for n_symbols in (11, N_SYMBOLS):  # the first time libraries are imported, and kernels compiled
        panel = simulate(n_symbols=n_symbols, n_bars=N_BARS, seed=2)
        for models in ("sequence", "linear,sequence"):
            settings = equity.make("fast", settings=[*SETTINGS, f"training.models={models}"])
            prepared = prepare(panel, settings)
            matrix = sum(dataset.X.nbytes for dataset in prepared.datasets.values())
            assert matrix == 4 * n_symbols * N_BARS * N_COLUMNS
            peaks[models] = grown(prepared, settings, tmp_path / f"{models}{n_symbols}") / matrix
    assert peaks["sequence"] < 0.2, peaks
    assert peaks["linear,sequence"] > 0.8, f"the measure sees no copies: {peaks}"
