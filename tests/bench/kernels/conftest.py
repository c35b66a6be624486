"""Panels whose labels and columns are compared."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.panels import random_panel


@pytest.fixture(scope="session")
def panel():
    return random_panel((300, 1, 40, 120, 2, 6))


@pytest.fixture(scope="session")
def panel_with_gaps(panel):
    """The same with prices that are not known, or 0."""
    rng = np.random.default_rng(1)
    columns = {name: getattr(panel, name).copy() for name in ("high", "low", "close")}
    for values in columns.values():
        values[rng.integers(0, panel.n_rows, 6)] = np.nan
    columns["close"][[17, 301, 350]] = 0.0
    return panel.replace(**columns)
