"""The expected return of a trade: payoffs, slope and level by hand and by simulation, and what an edge case gives."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gpupipe.evaluation import expected_return_fit
from gpupipe.evaluation.block_bootstrap import block_length
from gpupipe.evaluation.expected_return import (
    LEAN,
    PRIOR_SYMBOLS,
    RAW,
    Effect,
    ExpectedReturn,
    Slopes,
    lean_of,
    peers_of,
    scores_of,
)
from gpupipe.evaluation.expected_return_fit import FEWEST_BLOCKS, IC_DEVIATION, PRIOR_ROWS
from gpupipe.evaluation.return_calibration import calibrate

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


def fit(said, volatility, time, y, gross, horizon, lean=None, **more):
    lean = np.zeros(len(y)) if lean is None else lean
    return expected_return_fit.fit(said, lean, volatility, time, y, gross, horizon, **more)


def scores(fitted, said, volatility, time, lean=None):
    return fitted.scores(said, np.zeros(len(said)) if lean is None else lean, volatility, time)


def slope(fitted, side=0) -> Effect:
    return fitted.slopes[side].effect(RAW)


def test_the_slope_is_1_where_the_direction_is_right_and_0_where_it_is_noise():
    right, noise = fit(*market(), horizon=1), fit(*market(truth=0.0), horizon=1)
    for side in range(2):
        assert abs(slope(right, side).estimate - 1) < 3 * slope(right, side).error < 0.6
        assert abs(slope(noise, side).estimate) < 3 * slope(noise, side).error
    said, volatility, time, *_ = market(truth=0.0)
    spread = [scores(fitted, said, volatility, time).selection[:, 0].std() for fitted in (right, noise)]
    assert spread[1] < spread[0] / 3


def test_false_slopes_are_as_rare_as_their_errors_say():
    """Without any direction the slope lies above two of its errors in some 2.5 % of markets: at most 4 of 40."""
    clear = 0
    for seed in range(40):
        found = slope(fit(*market(n_dates=120, n_symbols=12, truth=0.0, seed=seed), horizon=1))
        clear += found.estimate > 2 * found.error
    assert clear <= 4


def test_expected_returns_are_calibrated_by_decile_on_later_dates():
    said, volatility, time, y, gross = market(n_dates=600, drift=0.002)
    early = time < time[len(time) // 2]
    fitted = fit(said[early], volatility[early], time[early], y[early], gross[early], horizon=1)
    late = ~early
    expected, realised = scores(fitted, said[late], volatility[late], time[late]).expected[:, 0], gross[late, 0]
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
    payoff = expected_return_fit._payoffs(bins, y, gross, 2, 3)
    mean = gross[:, 0].mean()
    of_class = np.array([(-0.05 + mean) / 2, (0.01 + mean) / 2, (0.12 + mean) / 3])
    assert payoff[0, 0] == pytest.approx(
        [(-0.05 + PRIOR_ROWS * of_class[0]) / (PRIOR_ROWS + 1), of_class[1],
         (0.12 + PRIOR_ROWS * of_class[2]) / (PRIOR_ROWS + 2)]
    )  # fmt: skip
    assert payoff[0, 1, 2] == pytest.approx(of_class[2])


def certain(raw: float, lean: float = 0.0) -> tuple[Slopes, Slopes]:
    """Slopes with these estimates and hardly an error."""
    return (Slopes(np.array([raw, lean]), np.eye(2) * 1e-12, np.array([1.0, 1.0 if lean else 0.0])),) * 2


def test_scores_compare_the_symbols_of_a_date():
    flat = np.zeros((2, 1, 3))
    flat[0, 0], flat[1, 0] = (-0.05, 0.0, 0.05), (0.05, 0.0, -0.05)
    level = (Effect(0.002, 0.0), Effect(-0.002, 0.0))
    fitted = ExpectedReturn(np.empty(0), flat, np.zeros(3), level, certain(1.0), 1000, 100)
    said = np.float32([[0.1, 0.6, 0.3], [0.3, 0.6, 0.1], [0.2, 0.5, 0.3]])
    found = scores(fitted, said, np.ones(3), np.array([1, 1, 2]))
    raw = np.array([0.01, -0.01, 0.005])
    beyond = raw - np.array([0.0, 0.0, 0.005 / (1 + PRIOR_SYMBOLS)])
    assert found.ranking[:, 0] == pytest.approx(beyond, abs=1e-8)
    assert found.expected[:, 0] == pytest.approx(0.002 + beyond, abs=1e-8)
    assert found.expected[:, 1] == pytest.approx(-found.expected[:, 0], abs=1e-8)
    unsure = Slopes(np.array([1.0, 0.0]), np.diag([0.01, 0.0]), np.array([1.0, 0.0]))
    fitted = ExpectedReturn(np.empty(0), flat, np.zeros(3), level, (unsure, unsure), 1000, 100)
    found = scores(fitted, said, np.ones(3), np.array([1, 1, 2]))
    assert found.selection[:, 0] == pytest.approx(beyond / 1.01, abs=1e-8)
    assert found.selection_error[:, 0] == pytest.approx(np.abs(beyond) * np.sqrt(0.01 / 1.01), abs=1e-8)


def test_peers_are_of_the_same_date_and_of_like_volatility():
    """Volatile symbols all lean to one side: that is no merit of any of them, and calm ones are not punished."""
    n_dates, n_symbols = 40, 60
    time, volatility = np.repeat(np.arange(n_dates), n_symbols), np.tile(np.linspace(1, 5, n_symbols), n_dates)
    peers = peers_of(time, volatility)
    assert len(np.unique(peers)) == 5 * n_dates and (np.bincount(peers)[np.unique(peers)] == 12).all()
    assert (peers_of(time[::10], volatility[::10]) == np.repeat(np.arange(n_dates) * 5, 6)).all()  # six are one group
    up = np.where(volatility > 3, 0.3, 0.1)
    said = np.stack([0.4 - up, np.full(len(up), 0.6), up], axis=1)
    payoff = np.tile(np.array([-0.05, 0.0, 0.05]), (2, 1, 1))
    fitted = ExpectedReturn(np.empty(0), payoff, np.zeros(3), (Effect(0, 0),) * 2, certain(1.0), 1000, 100)
    found = scores(fitted, said, volatility, time).selection[:, 0]
    assert np.abs(found[volatility > 3.5]).max() < np.abs(0.01) * PRIOR_SYMBOLS / 12


def test_the_lean_is_learned_where_it_goes_with_returns():
    """An estimator whose log-odds order the returns of a date, though its probabilities of touches say nothing."""
    rng = np.random.default_rng(3)
    said, volatility, time, y, gross = market(truth=0.0, n_dates=400)
    lean = 0.05 * rng.normal(size=len(y))
    gross = gross + np.outer(0.003 * lean / 0.05 * volatility, [1, -1])
    fitted = fit(said, volatility, time, y, gross, horizon=1, lean=lean, ranker="direction")
    for side in range(2):
        effect = fitted.slopes[side].effect(LEAN)
        assert effect.estimate == pytest.approx(0.06, abs=4 * effect.error) and effect.estimate > 5 * effect.error
    found = scores(fitted, said, volatility, time, lean)
    assert np.corrcoef(found.selection[:, 0], lean * volatility)[0, 1] > 0.95
    assert fitted.ranker == ExpectedReturn.from_dict(fitted.as_dict()).ranker == "direction"
    noise = fit(said, volatility, time, y, gross, horizon=1, lean=rng.normal(size=len(y)))
    believed, _ = noise.slopes[0].posterior()
    # Beforehand a lean of one deviation was expected to earn at most some IC_DEVIATION of the deviation of returns.
    assert believed[LEAN] * (volatility**2).mean() ** 0.5 < IC_DEVIATION * gross[:, 0].std()


def test_an_order_that_was_worth_less_than_nothing_is_not_turned_around():
    zero = Effect(0.0, 0.0)
    payoff = np.tile(np.array([-0.05, 0.0, 0.05]), (2, 1, 1))
    fitted = ExpectedReturn(np.empty(0), payoff, np.zeros(3), (zero, zero), certain(-1.0), 1000, 100)
    found = scores(fitted, np.float32([[0.1, 0.6, 0.3]]), np.ones(1), np.zeros(1, np.int64))
    assert not found.selection.any() and found.ranking.all()


def test_predictors_that_do_not_vary_or_are_the_same_are_left_out():
    said, volatility, time, y, gross = market(n_dates=80, n_symbols=20)
    constant = fit(said, np.ones(len(y)), time, y, gross, 1, lean=np.ones(len(y)))
    assert constant.slopes[0].deviation[LEAN] == 0 and constant.slopes[0].estimate[LEAN] == 0
    same = fit(said, np.ones(len(y)), time, y, gross, 1, lean=lean_of(said) * 0)
    assert same.slopes[0].deviation.tolist() == [1.0, 0.0]
    assert np.isfinite(scores(constant, said, volatility, time).expected).all()


def test_groups_that_share_an_expected_return_are_compared_with_each_other():
    said, volatility, time, y, gross = market(n_dates=80, n_symbols=10)
    one, other = fit(said, volatility, time, y, gross, 1), fit(said, volatility, time, y, -gross, 1)
    group, lean = np.tile(np.arange(10) % 2, 80), np.zeros(len(y))
    shared = scores_of([one, one], said, lean, volatility, time, group)
    assert (shared.expected == scores(one, said, volatility, time).expected).all()
    apart = scores_of([one, other], said, lean, volatility, time, group)
    first = group == 0
    assert (apart.expected[first] == scores(one, said[first], volatility[first], time[first]).expected).all()
    assert np.isnan(scores_of([None, other], said, lean, volatility, time, group).expected[first]).all()


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
    assert slope(one) == slope(one, 1) == Effect(0.0, 0.0)
    holes = said.copy()
    holes[3] = np.nan
    found = scores(unknown, holes, volatility, time).expected
    assert np.isnan(found[3]).all() and np.isfinite(np.delete(found, 3, axis=0)).all()
    assert scores(unknown, said[:0], volatility[:0], time[:0]).expected.shape == (0, 2)
    y_one = np.ones(len(y), np.int64)
    assert np.isfinite(fit(said, volatility, time, y_one, gross, 1).payoff).all()


def test_it_is_json_and_back_to_the_last_bit():
    fitted = fit(*market(n_dates=80, n_symbols=6), horizon=5)
    again = ExpectedReturn.from_dict(json.loads(json.dumps(fitted.as_dict())))
    assert again.as_dict() == fitted.as_dict() and again.level == fitted.level
    with pytest.raises(ValueError, match="payoff has shape"):
        ExpectedReturn.from_dict({**fitted.as_dict(), "payoff": [[[0.0]]]})
    with pytest.raises(KeyError):
        ExpectedReturn.from_dict({})


def test_later_rows_change_nothing_that_was_learned_before():
    said, volatility, time, y, gross = market(n_dates=120, n_symbols=6)
    fitted = fit(said, volatility, time, y, gross, 1)
    early, late = time < time[300], time >= time[300]
    before = scores(fitted, said[early], volatility[early], time[early]).expected
    both = scores(fitted, said, np.where(late, 9.0, volatility), time).expected[early]
    assert (before == both).all()


def test_calibration_of_a_constant_of_nothing_and_of_few_dates():
    time, realised = np.repeat(np.arange(100), 5), np.random.default_rng(0).normal(0, 0.01, 500)
    one = calibrate(np.zeros(500), np.zeros(500), realised, time, 1)
    assert one.rows == (500,) and one.realised[0] == pytest.approx(realised.mean()) and one.error[0] > 0
    assert calibrate(np.full(500, np.nan), np.zeros(500), realised, time, 1).rows == ()
    few = calibrate(realised, np.zeros(500), realised, time // 10, 1)
    assert np.isnan(few.error).all() and np.isnan(few.worst) and few.is_monotone


def test_a_score_does_not_depend_on_rows_without_a_prediction_or_on_other_dates():
    """A symbol that is not predicted is nobody's peer, and an unknown volatility is not filled in from later rows."""
    said, volatility, time, y, gross = market(n_dates=80, n_symbols=24)
    lean = np.random.default_rng(4).normal(size=len(y))
    fitted = fit(said, volatility, time, y, gross, horizon=1, lean=lean, ranker="direction")
    first, rest = slice(24), slice(24, None)
    volatility[3] = np.nan
    alone = scores(fitted, said[first], volatility[first], time[first], lean[first])
    volatility[rest] *= 10
    together = scores(fitted, said, volatility, time, lean)
    for name in ("expected", "error", "ranking"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(together, name)[first])
    blank = np.arange(24) % 3 == 0
    said[first][blank] = np.nan
    holed = scores(fitted, said[first], volatility[first], time[first], lean[first])
    kept = [values[first][~blank] for values in (said, volatility, time, lean)]
    np.testing.assert_array_equal(holed.expected[~blank], scores(fitted, *kept).expected)
    assert np.isnan(holed.expected[blank]).all()


def test_a_group_without_an_error_has_no_difference_in_errors():
    """Returns that are all equal, as of symbols that stood still, have none."""
    time, still = np.repeat(np.arange(100), 4), np.zeros(200)
    expected, realised = np.append(still, still + 0.01), np.append(still, np.arange(200) * 1e-4)
    calibration = calibrate(expected, np.zeros(400), realised, time, horizon=1)
    assert calibration.error[0] == 0 and np.isfinite(calibration.worst) and calibration.worst > 0
    assert np.isnan(calibrate(still, still, still, time[:200], horizon=1).worst)
