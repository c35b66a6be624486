"""Panel: what it refuses, how it is cut, and that its arrays go elsewhere without a copy."""

from __future__ import annotations

import numpy as np
import pytest

from gpupipe import compute_features, tp_dd_labels
from gpupipe.data.panel import Panel
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
    part = panel.of_group("technology")
    assert part.symbols == ("S000", "S002")
    np.testing.assert_array_equal(part.offsets, [0, 5, 9])
    np.testing.assert_array_equal(part.close, np.concatenate([panel.close[:5], panel.close[7:]]))
    np.testing.assert_array_equal(panel.symbol_of_row, [0] * 5 + [1] * 2 + [2] * 4)
    with pytest.raises(ValueError, match="no symbol of sector 'utilities'; the panel has energy, technology"):
        panel.of_group("utilities")


def test_by_group_puts_the_groups_one_after_another(device):
    panel = random_panel(lengths=(5, 2, 4, 0)).to(device)
    arranged = panel.by_group()
    assert arranged.symbols == ("S001", "S003", "S000", "S002") and arranged.groups == panel.groups
    assert arranged.slices_of_groups() == {"energy": slice(0, 2), "technology": slice(2, 11)}
    assert arranged.by_group() is arranged and arranged.device.kind == device.kind
    for group, rows in arranged.slices_of_groups().items():
        for own in (panel.of_group(group), arranged.of_group(group)):
            for name in ("time_ns", "close", "volume"):
                ours, theirs = (device.to_host(getattr(which, name)) for which in (arranged, own))
                np.testing.assert_array_equal(ours[rows], theirs)
    with pytest.raises(ValueError, match="not one after another; by_group"):
        panel.slices_of_groups()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"symbols": ("A", "A")}, "without duplicates"),
        ({"close": np.ones(4)}, "dtype float64, expected float32"),
        ({"close": np.ones(3, np.float32)}, "has shape"),
        ({"offsets": np.array([0, 3, 5])}, "offsets must rise"),
        ({"offsets": np.array([0, 4])}, "offsets has shape"),
        ({"symbols": ("B", "A")}, "sorted"),
        ({"sector": ("x",)}, "1 values of 'sector' for 2 symbols"),
        ({"time_ns": np.array([1, 1, 2, 1])}, "strictly increasing"),
    ],
)
def test_what_a_panel_is_not(change, message):
    panel = random_panel(lengths=(3, 1))
    with pytest.raises(ValueError, match=message):
        panel.replace(**change)


def test_take_selects_rows_and_leaves_out_symbols_without_any():
    panel = random_panel((3, 1, 2), sectors=("technology", "energy"))
    first = panel.take(panel.time_ns == 0)
    assert first.n_rows == 3 and first.symbols == panel.symbols and first.sector == panel.sector
    later = panel.take(panel.time_ns > 0)
    assert later.symbols == ("S000", "S002") and later.offsets.tolist() == [0, 2, 3]
    np.testing.assert_array_equal(later.close, panel.close[[1, 2, 5]])
    kept = panel.take(panel.time_ns > 0, keep_empty=True)
    assert kept.symbols == panel.symbols and kept.offsets.tolist() == [0, 2, 2, 3]
    with pytest.raises(ValueError, match="no symbol is left"):
        panel.take(np.zeros(6, bool))


def test_other_schemas_and_groups_are_values():
    quotes = Panel({"price": np.array([99.5, 99.0]), "yield": np.array([4.1, 4.2])}, np.array([0, 1]), np.array([0, 2]),
                   ("BOND",), group_by="symbol")  # fmt: skip
    assert quotes.price.dtype == np.float64 and quotes.groups == ("BOND",) and quotes.of_group("BOND").n_rows == 2
    with pytest.raises(AttributeError, match="a Panel has no 'close'; its columns are price, yield"):
        _ = quotes.close
    with pytest.raises(ValueError, match="group_by is 'sector', which is no attribute"):
        quotes.replace(group_by="sector")
