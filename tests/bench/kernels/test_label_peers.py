"""Labels in other libraries are ours."""

from __future__ import annotations

import numpy as np
import pytest

from bench import runs
from bench.kernels import label_peers
from bench.kernels.label_peers import FIELDS, numpy_label_cube
from gpupipe.targets.triple_barrier import barrier_classes, tp_dd_labels
from tests.support.barriers import barriers_of

HORIZONS, THRESHOLDS = (1, 3, 7), (0.01, 0.03, 0.05)


def loop_over_rows(panel, horizons, thresholds):
    """All fields of the labels, one row, horizon and threshold after the other."""
    unit, n, n_labels = np.float32(1), panel.n_rows, len(horizons) * len(thresholds)
    out = {
        "y": np.full((n, n_labels), -1, np.int8), "touch": np.full((n, n_labels), -1, np.int8),
        "touch_bars": np.zeros((n, n_labels), np.int16), "realised_return": np.full((n, n_labels), np.nan, np.float32),
        "exit_row": np.zeros((n, len(horizons)), np.int64),
        **{name: np.full((n, len(horizons)), np.nan, np.float32) for name in ("tp", "dd", "forward_return")},
    }  # fmt: skip
    barriers = [barriers_of(panel.close, t) for t in thresholds]
    for i in range(n):
        stop = panel.offsets[panel.symbol_of_row[i] + 1]
        entry = panel.close[i]
        for k, h in enumerate(horizons):
            out["exit_row"][i, k] = min(i + h, stop - 1)
            window = slice(i + 1, i + 1 + h)
            bars = np.stack([panel.high[window], panel.low[window], panel.close[window]])
            if i + h >= stop or not entry > 0 or np.isnan(bars).any():
                continue
            highs, lows, closes = bars
            out["tp"][i, k], out["dd"][i, k] = highs.max() / entry - unit, lows.min() / entry - unit
            out["forward_return"][i, k] = closes[-1] / entry - unit
            for m in range(len(thresholds)):
                column = k * len(thresholds) + m
                up, down = (prices[i] for prices in barriers[m])
                out["y"][i, column] = 2 if highs.max() >= up else 0 if lows.min() <= down else 1
                out["touch"][i, column] = 0
                out["realised_return"][i, column] = out["forward_return"][i, k]
                for j in range(h):
                    touch = int(highs[j] >= up) + 2 * int(lows[j] <= down)
                    if touch:
                        out["touch"][i, column], out["touch_bars"][i, column] = touch, j + 1
                        out["realised_return"][i, column] = (up if touch == 1 else down) / entry - unit
                        break
    return out


@pytest.mark.parametrize("block_rows", [5, 64, 10_000])
def test_the_cube_in_numpy_equals_a_loop_over_rows(panel_with_gaps, block_rows):
    expected = loop_over_rows(panel_with_gaps, HORIZONS, THRESHOLDS)
    cube = numpy_label_cube(panel_with_gaps, FIELDS, HORIZONS, THRESHOLDS, block_rows)
    assert set(cube) == set(expected)
    assert set(np.unique(expected["touch"])) == {-1, 0, 1, 2, 3} and set(np.unique(expected["y"])) == {-1, 0, 1, 2}
    for name, values in expected.items():
        assert cube[name].dtype == values.dtype, name
        np.testing.assert_array_equal(cube[name], values, err_msg=name)


def test_the_cube_in_numpy_equals_ours(panel_with_gaps):
    cube = numpy_label_cube(panel_with_gaps, FIELDS, HORIZONS, THRESHOLDS)
    ours = tp_dd_labels(panel_with_gaps, HORIZONS, THRESHOLDS)
    for name in FIELDS:
        np.testing.assert_array_equal(cube[name], getattr(ours, name), err_msg=name)


@pytest.mark.parametrize("make", label_peers.IN_LIBRARIES)
def test_labels_of_peers_equal_ours(panel, make):
    try:
        peer = make(panel)
    except runs.SkippedError as error:
        pytest.skip(str(error))
    np.testing.assert_array_equal(peer.matrix(peer.run()), barrier_classes(panel))


@pytest.mark.parametrize("make", [label_peers.in_numpy, label_peers.in_numpy_blocks])
def test_labels_in_numpy_equal_ours_where_prices_are_not_known(panel_with_gaps, make):
    peer = make(panel_with_gaps)
    np.testing.assert_array_equal(peer.matrix(peer.run()), barrier_classes(panel_with_gaps))
