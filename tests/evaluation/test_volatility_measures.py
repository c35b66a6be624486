"""What a forecast of volatility is worth: each measure by hand, without a forecast's merit, and on degenerate rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from gpupipe.evaluation.block_bootstrap import draw
from gpupipe.evaluation.volatility_measures import ABOVE_RIVAL, N_GROUPS, YEAR_NS, Outcomes, bars_a_year, compare

DAY_NS = 86_400 * 10**9
INTERVALS = ("move_ratio", "rank_correlation", "qlike", "stop_share", "stop_unevenness", "portfolio_volatility",
             "sharpe", "risk_dispersion")  # fmt: skip


def market(n_dates=120, n_symbols=30, spread=0.5, seed=0, horizon=1):
    """(true volatility, outcomes): normal returns of bars whose volatility differs by symbol and date."""
    rng = np.random.default_rng(seed)
    n = n_dates * n_symbols
    time = np.repeat(np.arange(n_dates) * DAY_NS, n_symbols)
    volatility = 0.02 * rng.lognormal(0, spread, n)
    path = (
        (volatility[:, None, None] * rng.normal(0, math.sqrt(1 / 20), (n, horizon, 20))).reshape(n, -1).cumsum(axis=1)
    )
    rise, fall = np.maximum(path.max(axis=1), 0), np.maximum(-path.min(axis=1), 0)
    return volatility, Outcomes(time, horizon, path[:, -1], path[:, 19], rise, fall)


def compared(volatility, rival, outcomes):
    return compare(volatility, rival, outcomes, draw(outcomes.time_ns, outcomes.horizon, seed=0))


def constant(outcomes):
    return np.full(len(outcomes.time_ns), 0.02)


def test_true_volatility_is_worth_something_and_a_constant_nothing():
    true, outcomes = market()
    measures = compared(true, constant(outcomes), outcomes)
    assert measures["move_ratio"][1] > 1.5 and measures["rank_correlation"][1] > 0.2
    above = measures["above_rival"]
    assert above["move_ratio"][1] > 0.5
    for name in ("qlike", "stop_unevenness", "portfolio_volatility", "risk_dispersion"):  # smaller is better
        assert above[name][2] < 0, name
    reverse = compared(constant(outcomes), true, outcomes)
    assert reverse["move_ratio"] == pytest.approx([1, 1, 1]) and reverse["rank_correlation"] == [None, None, None]
    for name in ("qlike", "stop_unevenness", "portfolio_volatility", "risk_dispersion"):
        assert reverse["above_rival"][name][0] == pytest.approx(-above[name][0], abs=0.02 if "stop" in name else 1e-9)


def test_noise_is_found_worthless():
    """A forecast without merit lies clearly above a constant in few of 20 markets, and its ratio is about 1."""
    clear = 0
    for seed in range(20):
        _, outcomes = market(spread=0.0, seed=seed)
        noise = 0.02 * np.random.default_rng(seed + 100).lognormal(0, 0.5, len(outcomes.time_ns))
        measures = compared(noise, constant(outcomes), outcomes)
        clear += measures["move_ratio"][1] > 1
        assert measures["move_ratio"][0] == pytest.approx(1, abs=0.15)
        assert measures["above_rival"]["qlike"][1] > 0  # it loses, clearly
    assert clear <= 2


def test_measures_are_what_their_definitions_say():
    true, outcomes = market(n_dates=60, n_symbols=20, horizon=5)
    true = np.round(true, 3)  # with ties
    measures = compared(true, constant(outcomes), outcomes)
    size, v = np.abs(outcomes.moved), true
    by_date = [np.flatnonzero(outcomes.time_ns == t) for t in np.unique(outcomes.time_ns)]
    top = []
    for rows in by_date:  # two places: those above the second largest forecast, and the ties with it in equal parts
        cut = np.sort(v[rows])[-2]
        larger, equal = rows[v[rows] > cut], rows[v[rows] == cut]
        top.append((size[larger].sum() + (2 - len(larger)) * size[equal].mean()) / 2)
    assert measures["move_ratio"][0] == pytest.approx(np.mean(top) / size.mean())
    ranks = [spearmanr(v[rows], size[rows]).statistic for rows in by_date]
    assert measures["rank_correlation"][0] == pytest.approx(np.mean(ranks))
    assert measures["qlike"][0] == pytest.approx(np.mean(np.log(v**2 * 5) + size**2 / (v**2 * 5)))
    closed = np.stack([outcomes.rise, outcomes.fall]) >= v * math.sqrt(5)
    assert measures["stop_share"][0] == pytest.approx(closed.mean())
    returns = np.array([np.average(outcomes.next_return[rows], weights=1 / v[rows]) for rows in by_date])
    assert measures["portfolio_volatility"][0] == pytest.approx(returns.std())
    assert measures["worst_bar"] == pytest.approx(-returns.min())
    worth = np.cumprod(1 + returns)
    peak = np.maximum(np.maximum.accumulate(worth), 1)
    assert measures["drawdown"] == pytest.approx((1 - worth / peak).max())
    yearly = math.sqrt(YEAR_NS / DAY_NS)
    assert measures["sharpe"][0] == pytest.approx(returns.mean() / returns.std() * yearly)
    risk = [(size[rows] / v[rows]).std() / (size[rows] / v[rows]).mean() for rows in by_date]
    assert measures["risk_dispersion"][0] == pytest.approx(np.mean(risk))
    assert (measures["rows"], measures["dates"]) == (1200, 60)


def test_stops_of_both_close_as_many_and_the_better_distance_is_more_even():
    true, outcomes = market(n_dates=200, spread=0.6)
    wrong = true * np.random.default_rng(5).lognormal(0, 0.6, len(true))
    measures = compared(true, wrong, outcomes)
    shares, rival = (np.array(measures[name]) for name in ("stop_shares", "rival_stop_shares"))
    assert len(shares) == N_GROUPS and shares.mean() == pytest.approx(rival.mean(), abs=0.002)
    even = math.sqrt(np.mean((shares - shares.mean()) ** 2))
    assert measures["stop_unevenness"][0] == pytest.approx(even, abs=1e-4) and even < 0.02
    assert measures["above_rival"]["stop_unevenness"][2] < 0


def test_a_forecast_against_itself_differs_by_nothing():
    true, outcomes = market(n_dates=60)
    above = compared(true, true, outcomes)["above_rival"]
    assert set(above) == set(ABOVE_RIVAL)
    assert all(value == [0.0, 0.0, 0.0] for value in above.values())


def test_the_unit_of_a_forecast_does_not_change_order_weights_or_dispersion():
    true, outcomes = market(n_dates=60)
    one, other = (compared(c * true, constant(outcomes), outcomes) for c in (1.0, 3.0))
    for name in ("move_ratio", "rank_correlation", "portfolio_volatility", "risk_dispersion"):
        assert one[name] == pytest.approx(other[name])
    assert one["stop_share"][0] > other["stop_share"][0]


def test_rows_that_are_not_known_are_left_out_for_both():
    true, outcomes = market(n_dates=60)
    spoilt, rival = true.copy(), constant(outcomes)
    spoilt[::7], rival[::11] = np.nan, 0.0
    moved = outcomes.moved.copy()
    moved[::13] = np.nan
    known = np.isfinite(spoilt) & (rival > 0) & np.isfinite(moved)
    expected = compared(true[known], constant(outcomes)[known], outcomes.of(known))
    measures = compared(spoilt, rival, Outcomes(outcomes.time_ns, 1, moved, *(
        getattr(outcomes, name) for name in ("next_return", "rise", "fall")
    )))  # fmt: skip
    assert measures["rows"] == known.sum()
    for name in INTERVALS:
        assert measures[name] == pytest.approx(expected[name])


def test_highs_and_next_returns_that_are_not_known_leave_only_their_measures():
    true, outcomes = market(n_dates=60)
    nothing = np.full(len(true), np.nan)
    measures = compared(true, constant(outcomes), Outcomes(outcomes.time_ns, 1, outcomes.moved, *[nothing] * 3))
    assert measures["move_ratio"][0] > 1
    for name in ("stop_share", "stop_unevenness", "portfolio_volatility", "sharpe"):
        assert measures[name] == [None, None, None]
    assert measures["stop_shares"] == [None] * N_GROUPS
    assert (measures["worst_bar"], measures["drawdown"]) == (None, None)


@pytest.mark.parametrize(("n_dates", "n_symbols"), [(1, 1), (1, 30), (60, 1), (60, 9)])
def test_few_dates_and_few_symbols(n_dates, n_symbols):
    true, outcomes = market(n_dates, n_symbols)
    measures = compared(true, constant(outcomes), outcomes)
    assert measures["rows"] == n_dates * n_symbols
    assert (measures["move_ratio"][0] is None) == (n_symbols < 10)
    assert (measures["move_ratio"][1] is None) == (n_symbols < 10 or n_dates == 1)  # no interval of a single block
    assert measures["qlike"][0] is not None and measures["portfolio_volatility"][0] is not None
    assert (measures["sharpe"][0] is None) == (n_dates == 1)


def test_no_rows():
    true, outcomes = market(n_dates=3)
    measures = compared(np.full(len(true), np.nan), true, outcomes)
    assert (measures["rows"], measures["dates"]) == (0, 0)
    assert all(measures[name] == [None, None, None] for name in INTERVALS)


def test_bars_a_year():
    assert bars_a_year(np.arange(365) * DAY_NS) == pytest.approx(365.25)
    assert np.isnan(bars_a_year(np.array([5, 5]))) and np.isnan(bars_a_year(np.array([], np.int64)))
