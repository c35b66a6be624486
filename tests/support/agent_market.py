"""Bars of one symbol for tests of the agent: made ones, and real gold."""

from __future__ import annotations

import functools
import os
import pathlib

import numpy as np
import pytest

from gpupipe.data.panel import Panel

BAR_NS = 15 * 60 * 10**9


def made_bars(n_rows: int = 400, seed: int = 0, volatility: float = 0.02) -> Panel:
    """A random walk with gaps between a close and the next open, and a column of spreads in price units."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, volatility, n_rows)))
    open_ = np.roll(close, 1) * np.exp(rng.normal(0, volatility / 4, n_rows))
    open_[0] = close[0]
    columns = {
        "open": open_, "high": np.maximum(open_, close) * 1.002, "low": np.minimum(open_, close) * 0.998,
        "close": close, "volume": rng.uniform(10, 100, n_rows), "spread": close * rng.uniform(0, 4e-4, n_rows),
    }  # fmt: skip
    return Panel(
        {name: column.astype(np.float32) for name, column in columns.items()}, np.arange(n_rows) * BAR_NS,
        np.array([0, n_rows]), ("MADE",), {"sector": ("unknown",)},
    )  # fmt: skip


@functools.cache
def gold() -> Panel:
    """5,864 bars of 15 minutes of XAU/USD, with a made column of spreads; skips the test without GPUPIPE_DATA."""
    from gpupipe.data import read

    file = pathlib.Path(os.environ.get("GPUPIPE_DATA", ""), "xauusd_15m.parquet")
    if not os.environ.get("GPUPIPE_DATA") or not file.exists():
        pytest.skip("GPUPIPE_DATA does not name a folder with xauusd_15m.parquet")
    panel = read(file, device="cpu", group_by="symbol")
    spread = np.random.default_rng(0).uniform(0.1, 0.5, panel.n_rows).astype(np.float32)
    return panel.replace(columns={**panel.columns, "spread": spread})
