"""The expected return of a trade: payoffs, slope and level by hand and by simulation, and what an edge case gives."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gpupipe.evaluation import expected_return
from gpupipe.evaluation.expected_return import (
    FEWEST_BLOCKS,
    PRIOR_ROWS,
    PRIOR_SYMBOLS,
    Effect,
    ExpectedReturn,
    block_length,
    fit,
)

THRESHOLD = 0.05


def market(n_dates=300, n_symbols=30, truth=1.0, drift=0.0, seed=0):
    """(probability, volatility, time, y, gross): the predicted direction holds a share `truth` of the true one."""
    rng = np.random.default_rng(seed)
    n = n_dates * n_symbols
    time = np.repeat(np.arange(n_dates) * 86_400 * 10**9, n_symbols)
    volatility = rng.lognormal(0, 0.4, n)
    touch, lean = np.clip(0.2 * volatility, 0.02, 0.8), rng.uniform(-0.4, 0.4, n)
    real = np.stack([touch * (0.5 - lean / 2), 1 - touch, touch * (0.5 + lean / 2)], axis=1)
    said_lean = truth * lean + (1 - truth) * rng.uniform(-0.4, 0.4, n)
    said = np.stack([touch * (0.5 - said_lean / 2), 1 - touch, touch * (0.5 + said_lean / 2)], axis=1)
    y = (rng.random(n)[:, None] > real.cumsum(axis=1)).sum(axis=1)
    moved = np.repeat(rng.normal(drift, 0.01, n_dates), n_symbols)  # the market, which all symbols of a date share
    gross = (y - 1) * THRESHOLD + np.where(y == 1, 0.01 * rng.normal(size=n) * volatility, 0) + moved
    return said.astype(np.float32), volatility, time, y, np.stack([gross, -gross], axis=1)


def test_the_slope_is_1_where_the_direction_is_right_and_0_where_it_is_noise():
    right, noise = fit(*market(), horizon=1), fit(*market(truth=0.0), horizon=1)
    for side in range(2):
        assert abs(right.slope[side].estimate - 1) < 3 * right.slope[side].error < 0.6
        assert abs(noise.slope[side].estimate) < 3 * noise.slope[side].error
    said, volatility, time, *_ = market(truth=0.0)
    spread = [fitted.scores(said, volatility, time).selection[:, 0].std() for fitted in (right, noise)]
    assert spread[1] < spread[0] / 3


def test_false_slopes_are_as_rare_as_their_errors_say():
    """Without any direction the slope lies above two of its errors in some 2.5 % of markets: at most 4 of 40."""
    clear = 0
    for seed in range(40):
        slope = fit(*market(n_dates=120, n_symbols=12, truth=0.0, seed=seed), horizon=1).slope[0]
        clear += slope.estimate > 2 * slope.error
    assert clear <= 4


def test_expected_returns_are_calibrated_by_decile_on_later_dates():
    said, volatility, time, y, gross = market(n_dates=600, drift=0.002)
    early = time < time[len(time) // 2]
    fitted = fit(said[early], volatility[early], time[early], y[early], gross[early], horizon=1)
    late = ~early
    scores = fitted.scores(said[late], volatility[late], time[late])
    expected, realised = scores.expected[:, 0], gross[late, 0]
    dates = np.unique(time[late], return_inverse=True)[1]
    decile = np.argsort(np.argsort(expected)) * 10 // len(expected)
    means = []
    for k in range(10):
        rows = decile == k
        by_date = np.bincount(dates[rows], realised[rows] - expected[rows]) / np.maximum(np.bincount(dates[rows]), 1)
        assert abs(np.mean(realised[rows] - expected[rows])) < 3 * by_date.std() / np.sqrt(len(by_date)) + 2e-3
        means.append(realised[rows].mean())
    assert np.corrcoef(np.arange(10), means)[0, 1] > 0.95 and means[-1] > means[0] + 0.005


def test_payoffs_by_hand():
    y, bins = np.array([2, 2, 0, 1]), np.array([0, 0, 0, 1])
    gross = np.array([[0.05, -0.05], [0.07, -0.07], [-0.05, 0.05], [0.01, -0.01]])
    payoff = expected_return._payoffs(bins, y, gross, 2, 3)
    mean = gross[:, 0].mean()
    of_class = np.array([(-0.05 + mean) / 2, (0.01 + mean) / 2, (0.12 + mean) / 3])
    assert payoff[0, 0] == pytest.approx(
        [(-0.05 + PRIOR_ROWS * of_class[0]) / (PRIOR_ROWS + 1), of_class[1],
         (0.12 + PRIOR_ROWS * of_class[2]) / (PRIOR_ROWS + 2)]
    )  # fmt: skip
    assert payoff[0, 1, 2] == pytest.approx(of_class[2])


def test_scores_compare_the_symbols_of_a_date():
    flat = np.zeros((2, 1, 3))
    flat[0, 0], flat[1, 0] = (-0.05, 0.0, 0.05), (0.05, 0.0, -0.05)
    level, slope = (Effect(0.002, 0.0), Effect(-0.002, 0.0)), (Effect(1.0, 0.1), Effect(1.0, 0.1))
    fitted = ExpectedReturn(np.empty(0), flat, np.array([0.0, 0.0]), level, slope, 1000, 100)
    said = np.float32([[0.1, 0.6, 0.3], [0.3, 0.6, 0.1], [0.2, 0.5, 0.3]])
    scores = fitted.scores(said, np.ones(3), np.array([1, 1, 2]))
    raw = np.array([0.01, -0.01, 0.005])
    reference = np.array([0.0, 0.0, 0.005 / (1 + PRIOR_SYMBOLS)])
    shrunk = 1 / 1.01
    assert scores.ranking[:, 0] == pytest.approx(raw - reference, abs=1e-8)
    assert scores.expected[:, 0] == pytest.approx(0.002 + shrunk * (raw - reference), abs=1e-8)
    assert scores.selection_error[:, 0] == pytest.approx(np.abs(raw - reference) * 0.1 / np.sqrt(1.01), abs=1e-8)
    assert scores.expected[:, 1] == pytest.approx(-scores.expected[:, 0], abs=1e-8)


def test_an_order_that_was_worth_less_than_nothing_is_not_turned_around():
    zero = Effect(0.0, 0.0)
    payoff = np.tile(np.array([-0.05, 0.0, 0.05]), (2, 1, 1))
    fitted = ExpectedReturn(np.empty(0), payoff, np.zeros(2), (zero, zero), (Effect(-1.0, 0.1),) * 2, 1000, 100)
    scores = fitted.scores(np.float32([[0.1, 0.6, 0.3]]), np.ones(1), np.zeros(1, np.int64))
    assert not scores.selection.any() and scores.ranking.all()


def test_edges():
    said, volatility, time, y, gross = market(n_dates=60, n_symbols=4)
    short = time < np.unique(time)[FEWEST_BLOCKS * block_length(39, 1) - 1]
    assert fit(said[short], volatility[short], time[short], y[short], gross[short], 1) is None
    assert fit(said, volatility, time, np.full(len(y), -1), gross, 1) is None
    empty = [array[:0] for array in (said, volatility, time, y, gross)]
    assert fit(*empty, 1) is None
    unknown = fit(said, np.full(len(y), np.nan), time, y, gross, 1)
    assert unknown.edges.size == 0 and np.isfinite(unknown.payoff).all()
    one = fit(said[::4], volatility[::4], time[::4], y[::4], gross[::4], 1)  # one symbol on each date: no order
    assert one.slope == (Effect(0.0, 0.0), Effect(0.0, 0.0))
    holes = said.copy()
    holes[3] = np.nan
    scores = unknown.scores(holes, volatility, time)
    assert np.isnan(scores.expected[3]).all() and np.isfinite(np.delete(scores.expected, 3, axis=0)).all()
    assert unknown.scores(said[:0], volatility[:0], time[:0]).expected.shape == (0, 2)
    y_one = np.ones(len(y), np.int64)
    assert np.isfinite(fit(said, volatility, time, y_one, gross, 1).payoff).all()


def test_it_is_json_and_back_to_the_last_bit():
    fitted = fit(*market(n_dates=80, n_symbols=6), horizon=5)
    again = ExpectedReturn.from_dict(json.loads(json.dumps(fitted.as_dict())))
    assert again.as_dict() == fitted.as_dict() and again.slope == fitted.slope
    with pytest.raises(ValueError, match="payoff has shape"):
        ExpectedReturn.from_dict({**fitted.as_dict(), "payoff": [[[0.0]]]})
    with pytest.raises(KeyError):
        ExpectedReturn.from_dict({})


def test_later_rows_change_nothing_that_was_learned_before():
    said, volatility, time, y, gross = market(n_dates=120, n_symbols=6)
    fitted = fit(said, volatility, time, y, gross, 1)
    early, late = time < time[300], time >= time[300]
    before = fitted.scores(said[early], volatility[early], time[early]).expected
    both = fitted.scores(said, np.where(late, 9.0, volatility), time).expected[early]
    assert (before == both).all()
