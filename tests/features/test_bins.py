"""Features as bins: equal to the binned floats, the same trees, and no float matrix in between."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
import xgboost

from gpupipe import compute_bins, compute_features, panel_feature
from gpupipe.estimators.boosting.binned_matrix import cuts_of
from tests.support.panels import random_panel


def cuts_of_floats(values: np.ndarray, n: int) -> list[np.ndarray]:
    quantiles = np.linspace(0, 1, n + 2)[1:-1]
    with np.errstate(all="ignore"):
        return [np.unique(np.quantile(x[~np.isnan(x)], quantiles).astype(np.float32)) for x in values.T]


@pytest.mark.filterwarnings("ignore:invalid value")
def test_bins_equal_the_binned_floats(device, clean_registry):
    @panel_feature("momentum", source="the test")
    def row_number(panel):
        """the row"""
        return panel.device.xp.arange(panel.n_rows, dtype=np.float32)

    names = ["default", "row_number"]
    panel = random_panel((300, 1, 260, 280)).to(device)
    floats = device.to_host(compute_features(panel, names).values)
    cuts = cuts_of_floats(floats, 254)
    cuts[3] = np.array([], np.float32)  # one bin
    bins = compute_bins(panel, names, cuts)
    assert bins.values.dtype == np.uint8 and bins.values.flags["C_CONTIGUOUS"]
    for k, name in enumerate(bins.names):
        expected = np.searchsorted(cuts[k], floats[:, k], side="right")
        expected[np.isnan(floats[:, k])] = 255
        np.testing.assert_array_equal(device.to_host(bins.values[:, k]), expected, err_msg=name)
    assert max(map(len, cuts)) == 254 and (device.to_host(bins.values) == 254).any()


def test_trees_on_bins_equal_trees_on_floats():
    panel = random_panel((300, 260, 280), 4)
    features = compute_features(panel)
    y = (np.roll(panel.close, -5) > panel.close).astype(np.float32)
    options = {"objective": "binary:logistic", "max_depth": 4, "nthread": 1, "seed": 3, "colsample_bynode": 0.5}
    matrix = xgboost.QuantileDMatrix(features.values, y, max_bin=64)
    bins = compute_bins(panel, "default", cuts_of(matrix))
    of_bins = xgboost.QuantileDMatrix(bins.values, y, missing=255, max_bin=256)
    on_floats, on_bins = (xgboost.train({**options, "max_bin": n}, m, 30) for n, m in ((64, matrix), (256, of_bins)))
    np.testing.assert_array_equal(on_floats.predict(matrix), on_bins.predict(of_bins))
    trees, binned = (json.loads(b.save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"]
                     for b in (on_floats, on_bins))  # fmt: skip
    n_splits = 0
    for a, b in zip(trees, binned, strict=True):
        for key in ("left_children", "right_children", "split_indices", "default_left", "base_weights", "sum_hessian"):
            assert a[key] == b[key], key
        for column, cut, code, child in zip(
            a["split_indices"], a["split_conditions"], b["split_conditions"], a["left_children"], strict=True
        ):
            if child >= 0:  # "below the cut" means "in a bin before the bin that starts with the cut"
                begins = 1 + int(np.searchsorted(bins.cuts[column], np.float32(cut)))
                codes = bins.values[:, column][bins.values[:, column] != 255].astype(np.float32)
                assert begins > len(bins.cuts[column]) or np.array_equal(codes < code, codes < begins)
                n_splits += 1
    assert n_splits > 200


def test_no_float_matrix_is_allocated():
    panel = random_panel((20_000, 20_000))
    floats = compute_features(random_panel((300, 300))).values
    cuts = cuts_of_floats(floats[250:300], 60)
    compute_bins(random_panel((300, 300)), "default", cuts)  # compiles the kernels
    tracemalloc.start()
    bins = compute_bins(panel, "default", cuts)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    matrix = 4 * panel.n_rows * len(bins.names)
    assert bins.values.nbytes <= peak < matrix


@pytest.mark.parametrize(
    "cuts, message",
    [
        ([[1.0]], "cuts of 1 columns for 2 features"),
        ([[1.0], [2.0, 2.0]], "rsi_14: expected at most 254 numbers that rise"),
        ([[1.0], list(range(255))], "rsi_14: expected at most 254"),
        ([[float("nan")], []], "rsi_7"),
        (None, "cuts are NoneType"),
    ],
)
def test_invalid_cuts_are_refused(cuts, message):
    with pytest.raises(ValueError, match=message):
        compute_bins(random_panel((30,)), ["rsi_7", "rsi_14"], cuts)
