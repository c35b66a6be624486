"""Intervals of fair spreads: of groups of validation predictions, and of the residuals of a fit."""

from __future__ import annotations

import numpy as np
import pytest

from gpupipe.workloads.bonds import intervals
from gpupipe.workloads.bonds.dates import less_mean_of_date
from gpupipe.workloads.bonds.intervals import FEWEST_ROWS, GROUPS, Calibration, Residuals


def rows(seed, n_dates=40, by_date=60, slope=1.0):
    rng = np.random.default_rng(seed)
    date = np.repeat(np.arange(n_dates), by_date)
    predicted = 0.03 * rng.standard_normal(len(date))
    happened = slope * predicted + 0.08 * rng.standard_normal(len(date))
    return less_mean_of_date(predicted, date), less_mean_of_date(happened, date), date


def test_means_are_those_of_groups_of_equal_size():
    predicted, happened, date = rows(1)
    found = Calibration.of(predicted, happened, date, horizon=1, seed=5)
    order = np.argsort(predicted)
    for k, own in enumerate(np.array_split(order, GROUPS)):
        assert set(found.group(predicted[own])) == {k}
        assert found.mean[k] == pytest.approx(happened[own].mean())
        assert found.low[k] < found.mean[k] < found.high[k]
    assert found.low[-1] > 0 > found.high[0]
    shuffled = np.random.default_rng(2).permutation(len(date))
    again = Calibration.of(predicted[shuffled], happened[shuffled], date[shuffled], horizon=1, seed=5)
    assert (
        np.allclose([again.low, again.high], [found.low, found.high]) and again.edges.tolist() == found.edges.tolist()
    )


def test_predictions_without_skill_have_intervals_around_0():
    outside = []
    for seed in range(40):
        found = Calibration.of(*rows(seed, slope=0.0), horizon=1, seed=seed)
        outside += [low > 0 or high < 0 for low, high in zip(found.low, found.high, strict=True)]
    assert 0.02 < np.mean(outside) < 0.15  # 90 % intervals


def test_few_rows_few_dates_equal_or_unknown_predictions():
    predicted, happened, date = rows(3, n_dates=10, by_date=12)
    assert len(Calibration.of(predicted, happened, date, 1, 1).mean) == 120 // FEWEST_ROWS
    assert len(Calibration.of(predicted[:9], happened[:9], date[:9], 1, 1).mean) == 1
    two = Calibration.of(predicted[:24], happened[:24], date[:24], 1, 1)
    assert np.isfinite(two.mean).all() and np.isnan(two.low).all() and np.isnan(two.high).all()
    same = Calibration.of(np.zeros(len(date)), happened, date, 1, 1)
    assert same.mean.tolist() == pytest.approx([happened.mean()]) and not len(same.edges)
    unknown = Calibration.of(np.full(3, np.nan), happened[:3], date[:3], 1, 1)
    assert np.isnan(unknown.mean).all() and unknown.group(np.array([0.1])).tolist() == [0]
    again = intervals.read(unknown.record())
    assert np.isnan(again.mean).all() and unknown.record()["low"] == [None]


def test_a_record_gives_the_same_calibration():
    found = Calibration.of(*rows(4), horizon=1, seed=1)
    again = intervals.read(found.record())
    for name in ("edges", "mean", "low", "high"):
        assert np.array_equal(getattr(found, name), getattr(again, name))


def test_residuals_hold_their_share_of_quotes():
    residual = np.random.default_rng(1).standard_normal(4_000)
    rating = np.repeat([3, 4], [3_960, 40])
    found = Residuals.of(np.append(residual, np.nan), np.append(rating, 3))
    assert set(found.by_rating) == {-1, 3}  # 40 quotes of a rating are too few
    low, high = found.by_rating[3]
    assert np.mean((residual[:3_960] >= low) & (residual[:3_960] <= high)) == pytest.approx(0.9, abs=0.002)
    fair, ends_low, ends_high = found.ends(np.array([0.5, -0.5]), np.array([2.0, 3.0]), np.array([3, 4]))
    assert fair.tolist() == [2.5, 2.5]
    assert ends_low.tolist() == [2.5 + low, 2.5 + found.by_rating[-1][0]] and ends_high[0] == 2.5 + high
    assert intervals.read(found.record()) == found
    nothing = intervals.read(Residuals.of(np.full(3, np.nan), np.zeros(3, int)).record())
    assert all(np.isnan(end).all() for end in nothing.ends(np.zeros(1), np.ones(1), np.zeros(1, int))[1:])


def test_fair_spreads_follow_the_group_of_the_relative_move():
    found = Calibration(np.array([0.0]), np.array([-0.1, 0.1]), np.array([-0.2, 0.05]), np.array([-0.05, 0.2]))
    # Less their mean these are moves of -0.1, 0.05 and 0.05.
    change, spread = np.array([-0.16, 0.11, 0.0275]), np.array([4.0, 1.0, 0.1])
    fair, low, high = found.ends(change, spread, np.zeros(3, int))
    assert fair == pytest.approx([3.6, 1.1, 0.125]) and low == pytest.approx([3.2, 1.05, 0.1125])
    assert high == pytest.approx([3.8, 1.2, 0.15])  # spreads below 0.25 move as if they were that wide


def test_a_group_of_few_dates_has_no_interval():
    """On one date all bonds are predicted to move: their group has no other date."""
    rng = np.random.default_rng(6)
    date = np.repeat(np.arange(12), [100, 100, 100, 200, *[100] * 8])
    predicted = 0.01 * rng.standard_normal(len(date)) + np.where(date == 3, 5.0, 0.0)
    happened = less_mean_of_date(0.1 * rng.standard_normal(len(date)), date)
    found = Calibration.of(predicted, happened, date, 1, 1)
    assert np.isnan(found.high[-1]) and np.isnan(found.low[-1]) and np.isfinite(found.high[:8]).all()
    # Predictions against the others of their date, as a run gives them, are in groups of all dates.
    assert np.isfinite(Calibration.of(less_mean_of_date(predicted, date), happened, date, 1, 1).high).all()


def test_blocks_of_dates_span_the_targets(monkeypatch):
    lengths = []
    draw = intervals.block_bootstrap.draw
    monkeypatch.setattr(
        intervals.block_bootstrap, "draw", lambda *given: lengths.append(draw(*given).block) or draw(*given)
    )
    for horizon in (1, 10):
        Calibration.of(*rows(7, n_dates=120), horizon, 1)
    assert lengths == [5, 20]  # the cube root of the dates, and twice the horizon
