"""Panel: what it refuses, how it is cut, and that its arrays go elsewhere without a copy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpupipe import compute_features, tp_dd_labels
from tests.support.panels import random_panel


def test_arrays_go_elsewhere_without_a_copy(device):
    panel = random_panel().to(device)
    arrays = {
        "close": panel.close, "time_ns": panel.time_ns, "features": compute_features(panel, "roc_*").values,
        "labels": tp_dd_labels(panel).y,
    }  # fmt: skip
    for name, array in arrays.items():
        other = device.xp.from_dlpack(array)
        assert device.xp.shares_memory(other, array), name


def test_to_arrow_has_symbol_and_time_first():
    panel = random_panel(lengths=(3, 1))
    table = panel.to_arrow()
    assert table.column_names == ["symbol", "time", "sector", "open", "high", "low", "close", "volume"]
    assert table["symbol"].to_pylist() == ["S000"] * 3 + ["S001"]
    assert table["sector"].to_pylist() == ["technology"] * 3 + ["energy"]
    np.testing.assert_array_equal(table["close"].to_numpy(), panel.close)
    labels = tp_dd_labels(panel, horizons=(1,), thresholds=(0.05,)).to_arrow()
    assert labels.column_names[:3] == ["symbol", "time", "label_1d_5pct"]


def test_of_sector_is_the_rows_of_its_symbols():
    panel = random_panel(lengths=(5, 2, 4))
    part = panel.of_sector("technology")
    assert part.symbols == ("S000", "S002")
    np.testing.assert_array_equal(part.offsets, [0, 5, 9])
    np.testing.assert_array_equal(part.close, np.concatenate([panel.close[:5], panel.close[7:]]))
    np.testing.assert_array_equal(panel.symbol_of_row, [0] * 5 + [1] * 2 + [2] * 4)
    with pytest.raises(ValueError, match="no symbol of sector 'utilities'; the panel has energy, technology"):
        panel.of_sector("utilities")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"close": np.ones(4)}, "dtype float64, expected float32"),
        ({"close": np.ones(3, np.float32)}, "has shape"),
        ({"offsets": np.array([0, 3, 5])}, "offsets must rise"),
        ({"offsets": np.array([0, 4])}, "offsets has shape"),
        ({"symbols": ("B", "A")}, "sorted"),
        ({"sector": ("x",)}, "1 sectors for 2 symbols"),
        ({"time_ns": np.array([1, 1, 2, 1])}, "strictly increasing"),
    ],
)
def test_what_a_panel_is_not(change, message):
    panel = random_panel(lengths=(3, 1))
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(panel, **change)
