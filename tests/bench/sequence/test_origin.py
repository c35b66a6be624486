"""The usual way's stages, by hand and against ours."""

from __future__ import annotations

import numpy as np
import pytest

from bench.sequence import origin
from bench.sequence.problem import read_series
from gpupipe import compute_features

pytest.importorskip("pandas", reason="pandas is not installed (the extra bench)")


def test_the_strength_index_by_hand():
    strength = origin.relative_strength(np.array([10.0, 11.0, 10.0, 12.0, 12.0]), 2)
    # gains 1, 0, 2, 0 and losses 0, 1, 0, 0: averages start as means of two, then Wilder's a half each.
    assert np.isnan(strength[:2]).all()
    np.testing.assert_allclose(strength[2:], [100 * 0.5 / 1.0, 100 * 1.25 / 1.5, 100 * 0.625 / 0.75])
    assert origin.relative_strength(np.full(5, 3.0), 2)[2:].tolist() == [50.0] * 3
    assert np.isnan(origin.relative_strength(np.array([1.0, 2.0]), 2)).all(), "too short"


def test_features_are_ours(series):
    """Prices and averages to the rounding of float32; the RSI averages small differences of rounded prices."""
    pytest.importorskip("torch", reason="torch is not installed (the extra torch), which bench.sequence.equality loads")
    from bench.sequence.equality import PRICE_TOLERANCE, STRENGTH_TOLERANCE

    frame, panel = origin.load(series), read_series(series)
    np.testing.assert_array_equal(origin.nanoseconds(frame), panel.time_ns)
    assert all(frame[name].dtype == "float64" for name in origin.COLUMNS)
    theirs, ours = origin.features(frame), compute_features(panel, "atb9").values
    assert theirs.shape == ours.shape == (panel.n_rows, 9)
    np.testing.assert_array_equal(np.isnan(theirs), np.isnan(ours))
    np.testing.assert_allclose(ours[:, :8], theirs[:, :8], rtol=PRICE_TOLERANCE)
    np.testing.assert_allclose(ours[:, 8], theirs[:, 8], rtol=0, atol=STRENGTH_TOLERANCE)
    assert np.nanstd(theirs[:, 8]) > 5, "the index moves, so that the tolerance says something"


def test_scalers_see_training_rows_alone():
    values = np.array([[0.0, 5.0, np.nan], [2.0, 5.0, np.nan], [4.0, 5.0, 1.0], [10.0, 6.0, 2.0], [np.nan, 5.0, 3.0]])
    table, scalers = origin.scaled(values, np.arange(3), "minmax")
    np.testing.assert_allclose(table[:, 0], [0, 0.5, 1, 2, 0], err_msg="10 is clipped at 2, NaN is 0")
    assert (table[:, 1] == 0).all() and scalers[1] is None, "constant in training"
    assert (table[:, 2] == 0).all() and scalers[2] is None, "a single value is constant, too"
    assert origin.scaler_numbers(scalers[0])["data_max_"] == [4.0]
    table, scalers = origin.scaled(values, np.arange(3), "standard")
    np.testing.assert_allclose(table[:4, 0], np.clip((values[:4, 0] - 2) / np.sqrt(8 / 3), -4, 4))
    assert origin.scaler_numbers(scalers[0])["mean_"] == [2.0]


def test_windows_are_copies_oldest_first():
    table = np.arange(12.0).reshape(6, 2)
    windows = origin.windows(table, np.array([2, 5]), 3)
    assert windows.dtype == np.float32 and windows.tolist() == [
        [[0, 1], [2, 3], [4, 5]], [[6, 7], [8, 9], [10, 11]]
    ]  # fmt: skip
    assert not np.shares_memory(windows, table)
