"""Shared fixtures: devices, real data, small synthetic panels."""

from __future__ import annotations

import os
import pathlib

import numpy as np
import pytest

from gpupipe.device import pick, why_no_cuda
from gpupipe.panel import Panel


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    if request.param == "cuda" and (problem := why_no_cuda()):
        pytest.skip(problem)
    return pick(request.param)


@pytest.fixture(scope="session")
def sp500_folder() -> pathlib.Path:
    """The folder of the large real data: sp500_daily.parquet and sectors.csv."""
    folder = os.environ.get("GPUPIPE_DATA")
    if not folder or not pathlib.Path(folder, "sp500_daily.parquet").exists():
        pytest.skip("GPUPIPE_DATA does not name a folder with sp500_daily.parquet and sectors.csv")
    return pathlib.Path(folder)


def random_panel(lengths=(300, 1, 40, 120), seed=0, sectors=("technology", "energy")) -> Panel:
    """A small panel of random walks, one symbol for each length, sectors in turn."""
    rng = np.random.default_rng(seed)
    columns = {name: [] for name in ("open", "high", "low", "close", "volume")}
    times = []
    for length in lengths:
        close = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, length)))
        open_ = close * np.exp(rng.normal(0, 0.01, length))
        columns["open"].append(open_)
        columns["close"].append(close)
        columns["high"].append(np.maximum(open_, close) * np.exp(np.abs(rng.normal(0, 0.01, length))))
        columns["low"].append(np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0, 0.01, length))))
        columns["volume"].append(rng.lognormal(12, 1, length))
        times.append(np.arange(length, dtype=np.int64) * 86_400_000_000_000)
    return Panel(
        **{name: np.concatenate(parts).astype(np.float32) for name, parts in columns.items()},
        time_ns=np.concatenate(times),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        symbols=tuple(f"S{k:03d}" for k in range(len(lengths))),
        sector=tuple(sectors[k % len(sectors)] for k in range(len(lengths))),
    )


@pytest.fixture
def own():
    """Forget what the test registers."""
    from gpupipe.formulas import FEATURES
    from gpupipe.formulas.registry import load_modules

    load_modules([])
    before = dict(FEATURES)
    yield
    load_modules([])
    FEATURES.clear()
    FEATURES.update(before)
