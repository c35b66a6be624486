"""Expected moves: the reflection principle against simulated walks and by hand, its inverse, and edge cases."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpupipe.evaluation.expected_move import (
    EXPONENTS,
    FEWEST_ROWS,
    SMALLEST,
    Scale,
    calibrate,
    implied_volatility,
    stop_probability,
    touch_probability,
)

VOLATILITY = np.array([0.004, 0.01, 0.02, 0.04, 0.08])


def above(x: float) -> float:
    """P(a standard normal value > x)."""
    return math.erfc(x / math.sqrt(2)) / 2


def test_a_touch_by_hand_is_twice_the_reflected_tail_of_each_side_less_both():
    spread, width = 0.02 * math.sqrt(5), math.atanh(0.05)
    by_hand = 4 * (above(width / spread) - above(3 * width / spread) + above(5 * width / spread))
    assert touch_probability(0.05, np.array([0.02]), 5)[0] == pytest.approx(by_hand, abs=1e-12)


def test_a_touch_is_as_frequent_as_in_simulated_walks():
    rng, n_steps, v = np.random.default_rng(0), 400, 0.02
    shift = 0.5826 * v * math.sqrt(5 / n_steps)  # of a path that is seen at its steps alone: Broadie et al. 1997
    paths = np.abs(rng.normal(0, v * math.sqrt(5 / n_steps), (20_000, n_steps)).cumsum(axis=1)).max(axis=1)
    share = float((paths >= math.atanh(0.05) - shift).mean())
    expected = touch_probability(0.05, np.array([v]), 5)[0]
    assert share == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 20_000) + 0.003)


def test_a_touch_is_more_probable_for_larger_volatility_nearer_barriers_and_longer_horizons():
    v = np.linspace(0, 0.5, 400)
    p = touch_probability(0.05, v, 5)
    assert p[0] == 0 and p[-1] == pytest.approx(1) and (np.diff(p) >= 0).all()
    assert (touch_probability(0.1, v, 5) <= p).all() and (touch_probability(0.05, v, 2) <= p).all()
    assert np.isnan(touch_probability(0.05, np.array([np.nan, -0.1]), 5)).all()


@pytest.mark.parametrize("horizon", [1, 5, 60])
def test_the_implied_volatility_is_the_inverse(horizon):
    for thresholds in ((0.05,), (0.05, 0.1), (0.02, 0.05, 0.2)):
        v = VOLATILITY / math.sqrt(horizon) * 2
        touch = np.stack([touch_probability(t, v, horizon) for t in thresholds], axis=1)
        touch = np.where((touch > SMALLEST) & (touch < 1 - SMALLEST), touch, np.nan)
        some = ~np.isnan(touch).all(axis=1)
        assert some.sum() >= 2
        assert implied_volatility(touch, thresholds, horizon)[some] == pytest.approx(v[some], rel=1e-5)


def test_a_row_uses_the_thresholds_that_it_has():
    touch = np.array([[0.5, 0.1], [0.5, np.nan], [np.nan, 0.1], [np.nan, np.nan]])
    both, near, far, none = implied_volatility(touch, (0.05, 0.1), 5)
    assert near == pytest.approx(implied_volatility(np.array([[0.5]]), (0.05,), 5)[0], rel=1e-12)
    assert far == pytest.approx(implied_volatility(np.array([[0.1]]), (0.1,), 5)[0], rel=1e-12)
    assert min(near, far) < both < max(near, far) and np.isnan(none)


def test_a_threshold_next_to_one_half_says_more_than_one_next_to_0():
    near = implied_volatility(np.array([[0.5]]), (0.05,), 5)[0]
    far = implied_volatility(np.array([[0.0]]), (0.1,), 5)[0]
    both = implied_volatility(np.array([[0.5, 0.0]]), (0.05, 0.1), 5)[0]
    assert abs(math.log(both / near)) < 0.01 * abs(math.log(far / near))


def test_certain_touches_give_finite_volatilities():
    v = implied_volatility(np.array([[0.0], [SMALLEST / 2], [0.5], [1.0]]), (0.05,), 5)
    assert np.isfinite(v).all() and v[0] == v[1] and 0 < v[0] < v[2] < v[3] < 0.1
    assert implied_volatility(np.empty((0, 1)), (0.05,), 5).shape == (0,)


@pytest.mark.parametrize(
    ("touch", "thresholds", "horizon"),
    [(np.ones((2, 1)), (0.05, 0.1), 5), (np.ones(2), (0.05,), 5), (np.ones((2, 0)), (), 5),
     (np.ones((2, 1)), (1.0,), 5), (np.ones((2, 1)), (0.05,), 0)],
)  # fmt: skip
def test_other_shapes_thresholds_and_horizons_are_refused(touch, thresholds, horizon):
    with pytest.raises(ValueError):
        implied_volatility(touch, thresholds, horizon)


def qlike(v, realised, horizon):
    return float(np.mean(2 * np.log(v) + realised**2 / (v**2 * horizon)))


@pytest.mark.parametrize(("factor", "exponent"), [(0.7, 1.0), (0.1, 0.5), (6.0, 1.4)])
def test_a_calibration_finds_level_and_flatness(factor, exponent):
    rng = np.random.default_rng(1)
    v = rng.lognormal(-4, 0.4, 50_000)
    realised = factor * v**exponent * math.sqrt(5) * rng.standard_normal(len(v))
    scale = calibrate(v, realised, 5)
    assert scale.exponent == pytest.approx(exponent, abs=0.05)
    assert scale.of(np.exp([-4.0])) == pytest.approx(factor * math.exp(-4 * exponent), rel=0.02)
    best = qlike(scale.of(v), realised, 5)
    assert best < min(qlike(c * scale.of(v), realised, 5) for c in (0.98, 1.02))
    other = [Scale(scale.factor * math.exp(-4 * -d), scale.exponent + d) for d in (-0.05, 0.05)]
    assert best < min(qlike(one.of(v), realised, 5) for one in other)


def test_a_calibration_never_reverses_the_order():
    rng = np.random.default_rng(2)
    v = rng.lognormal(-4, 0.4, 20_000)
    scale = calibrate(v, rng.standard_normal(len(v)) / v, 1)
    assert scale.exponent == pytest.approx(EXPONENTS[0])
    assert (np.diff(scale.of(np.sort(v))) >= 0).all()


def test_a_calibration_of_equal_volatilities_is_a_factor():
    scale = calibrate(np.full(FEWEST_ROWS, 0.02), np.full(FEWEST_ROWS, 0.02), 1)
    assert scale.exponent == 1 and scale.factor == pytest.approx(1)
    assert np.isnan(scale.of(np.array([np.nan, np.inf, 0.0, -1.0]))).all()


def test_a_calibration_with_a_given_exponent_learns_the_factor():
    rng = np.random.default_rng(3)
    v = rng.lognormal(-4, 0.4, 50_000)
    scale = calibrate(v, 2 * v * rng.standard_normal(len(v)), 1, exponent=1.0)
    assert scale.exponent == 1 and scale.factor == pytest.approx(2, rel=0.02)


def test_a_calibration_needs_enough_known_rows_that_moved():
    v, realised = np.linspace(0.01, 0.02, FEWEST_ROWS), np.full(FEWEST_ROWS, 0.02)
    assert calibrate(v, realised, 1) is not None
    third = np.arange(len(v)) == 3
    for spoilt in (np.nan, np.inf, 0.0, -1.0):
        assert calibrate(np.where(third, spoilt, v), realised, 1) is None
    assert calibrate(v, np.where(third, np.nan, realised), 1) is None
    assert calibrate(v, 0 * realised, 1) is None and calibrate(v[:0], realised[:0], 1) is None


def test_a_stop_of_one_move_closes_a_third():
    rng = np.random.default_rng(2)
    lowest = rng.normal(0, 1 / 20, (20_000, 400)).cumsum(axis=1).min(axis=1)  # seen at 400 steps: a little too few
    assert (lowest <= -1).mean() == pytest.approx(stop_probability(1.0), abs=0.025)
    assert stop_probability(0.0) == 1 and stop_probability(50.0) == 0
    with pytest.raises(ValueError):
        stop_probability(-0.1)
