"""Groups of rows by predicted return: by hand, with ties, and intervals as wide as the noise says."""

from __future__ import annotations

import numpy as np
import pytest

from gpupipe.evaluation.return_groups import ReturnGroup, by_prediction

HOUR = 3_600_000_000_000


def test_tenths_by_hand():
    predicted = np.arange(20.0)[::-1]
    realised = predicted * 2
    groups = by_prediction(np.arange(20) * HOUR, predicted, realised, seed=1)
    assert [group.rows for group in groups] == [2] * 10
    assert [group.predicted for group in groups] == [0.5 + 2 * k for k in range(10)]
    assert [group.realised for group in groups] == [1 + 4.0 * k for k in range(10)]
    assert all(np.isnan([group.low, group.high]).all() for group in groups)  # two blocks of ten bars


def test_equal_predictions_are_one_group_and_what_is_not_known_is_left_out():
    times, realised = np.arange(6), np.array([1.0, 2.0, 3.0, np.nan, 5.0, 6.0])
    (group,) = by_prediction(times, np.full(6, 0.5), realised, seed=1)
    assert (group.rows, group.predicted, group.realised) == (5, 0.5, pytest.approx(3.4))
    low, high = by_prediction(times, np.array([0, 0, 0, 0, 1, np.nan]), realised, seed=1)
    assert (low.rows, low.realised, high.rows, high.realised) == (3, 2.0, 1, 5.0)
    (one,) = by_prediction(np.zeros(1, np.int64), np.ones(1), np.ones(1), seed=1)
    assert one == ReturnGroup(1, 1.0, 1.0, one.low, one.high) and np.isnan(one.low)
    empty = np.zeros(0)
    assert by_prediction(np.zeros(0, np.int64), empty, empty, seed=1) == []
    assert by_prediction(np.arange(3), np.full(3, np.nan), np.ones(3), seed=1) == []


def test_intervals_are_as_wide_as_independent_noise_says():
    rng = np.random.default_rng(5)
    n, deviation = 8000, 0.01
    predicted, realised = rng.normal(size=n), rng.normal(scale=deviation, size=n)
    times = np.arange(n) * HOUR
    groups = by_prediction(times, predicted, realised, seed=3)
    expected = 2 * 1.96 * deviation / np.sqrt(n / 10)
    widths = np.array([group.high - group.low for group in groups])
    assert (np.abs(widths / expected - 1) < 0.25).all()
    assert all(group.low < group.realised < group.high for group in groups)
    covered = sum(group.low <= 0 <= group.high for group in groups)
    assert covered >= 8
    assert groups == by_prediction(times, predicted, realised, seed=3)
    order = rng.permutation(n)  # rows in another order are the same rows
    shuffled = by_prediction(times[order], predicted[order], realised[order], seed=3)
    for ours, theirs in zip(groups, shuffled, strict=True):
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
