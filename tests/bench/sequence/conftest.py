"""A short series in a file, as those of the benchmark are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

N_ROWS = 900


@pytest.fixture(scope="session")
def series(tmp_path_factory):
    """A Parquet file of 900 hourly bars of one symbol: a random walk, float64."""
    rng = np.random.default_rng(5)
    close = 100 * np.exp(np.cumsum(rng.standard_t(4, N_ROWS) * 0.006))
    open_ = close * np.exp(rng.normal(0, 0.001, N_ROWS))
    high, low = (
        edge * np.exp(sign * rng.exponential(0.003, N_ROWS))
        for edge, sign in ((np.maximum(open_, close), 1), (np.minimum(open_, close), -1))
    )
    times = pa.array(
        1_500_000_000_000 // 3_600_000 * 3_600_000 + 3_600_000 * np.arange(N_ROWS), pa.timestamp("ms", "UTC")
    )
    path = tmp_path_factory.mktemp("series") / "walk_1h.parquet"
    columns = {"open": open_, "high": high, "low": low, "close": close, "volume": rng.lognormal(3, 1, N_ROWS)}
    pq.write_table(pa.table({"timestamp": times, **columns}), path)
    return path
