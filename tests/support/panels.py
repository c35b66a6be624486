"""Random panels for tests of columns and labels."""

from __future__ import annotations

import numpy as np

from gpupipe.data.panel import Panel


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
    return Panel.of_bars(
        **{name: np.concatenate(parts).astype(np.float32) for name, parts in columns.items()},
        time_ns=np.concatenate(times),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        symbols=tuple(f"S{k:03d}" for k in range(len(lengths))),
        sector=tuple(sectors[k % len(sectors)] for k in range(len(lengths))),
    )
