"""Statistics of portfolios of ranks: planted skill, none, and ranks that never change; trials; tables."""

from __future__ import annotations

import numpy as np
import pytest

from gpupipe.backtest import Rules, statistics
from gpupipe.backtest.rank_benchmarks import nulls
from gpupipe.backtest.rank_portfolio import rank_portfolio
from gpupipe.backtest.rank_rules import LONG_SHORT, RankRules
from gpupipe.backtest.rank_statistics import (
    equity_table,
    from_second_date,
    held_returns,
    measured,
    models_with_scores,
    money,
)
from gpupipe.backtest.rank_trades import round_trips
from gpupipe.data import simulate
from tests.support import rank_oracle

N_SYMBOLS, N_DATES = 24, 160
FREE = Rules(commission_bps=0, spread_bps=0, slippage_bps=0)


@pytest.fixture(scope="module")
def source():
    """Model 0 knows part of the coming return, model 1 knows nothing, model 2 has one rank for each symbol for ever."""
    panel = simulate(n_symbols=N_SYMBOLS, n_bars=N_DATES)
    rng = np.random.default_rng(0)
    close = panel.close.reshape(N_SYMBOLS, N_DATES).astype(float)
    ahead = np.zeros_like(close)
    ahead[:, :-6] = close[:, 6:] / panel.open.reshape(N_SYMBOLS, N_DATES)[:, 1:-5] - 1
    noise = rng.normal(size=(2, N_SYMBOLS, N_DATES))
    knowing = np.tanh(10 * ahead + noise[0])
    score = np.stack(
        [knowing, np.tanh(noise[1]), np.linspace(-0.5, 0.5, N_SYMBOLS)[:, None].repeat(N_DATES, 1)], axis=2
    )
    return rank_oracle.source_of(panel, score.reshape(-1, 3) * 0.99, horizons=(5, 5, 5))


@pytest.mark.parametrize("side", ["long", LONG_SHORT])
def test_planted_skill_is_found_and_nothing_else(source, side):
    result = rank_portfolio(source, RankRules(side=side, hold="top:25%"))
    knowing, ignorant, constant = nulls(result, seed=0)
    assert knowing.p_moved == knowing.p_names == 1 / 501 and knowing.mean > knowing.names_mean + 0.005
    assert ignorant.p_moved > 0.1 and ignorant.p_names > 0.1
    assert constant.p_moved == 1.0 and constant.moved_mean == pytest.approx(constant.mean)  # the same on any date
    rows = measured(result, round_trips(result), seed=0)
    assert [row["skill"] for row in rows[:3]] == [statistics.SKILL, statistics.NO_SKILL, statistics.NO_SKILL]
    assert rows[3]["model"] == "buy_and_hold" and "skill" not in rows[3]
    assert rows[0]["trials"] == 3 and rows[0]["deflated_sharpe"] > 0.95
    many = measured(result, round_trips(result), seed=0, trials=10_000)
    assert many[1]["trials"] == 10_000 and many[1]["deflated_sharpe"] < rows[1]["deflated_sharpe"]


def test_the_mean_of_a_period_is_that_of_the_portfolio_without_costs(source):
    """With decisions as rare as periods, the periods' mean is the mean of the equity's growth between fills."""
    result = rank_portfolio(source, RankRules(hold="top:25%", fills=Rules(entry="close", **{
        name: 0 for name in ("commission_bps", "spread_bps", "slippage_bps")})))  # fmt: skip
    for model, null in enumerate(nulls(result, seed=0)):
        fills = result.decisions.date[result.decisions.model == model]
        fills = fills[fills < result.bars.n_dates - 1]
        marks = result.equity[model, np.append(fills, result.bars.n_dates - 1)]
        assert null.mean == pytest.approx((marks[1:] / marks[:-1] - 1).mean(), rel=1e-9)


def test_random_names_are_unbiased(source):
    """The mean of the draws of names is the mean of all names, period by period."""
    result = rank_portfolio(source, RankRules(hold="top:25%", fills=FREE))
    null = nulls(result, seed=0)[1]
    dates = result.decisions.date[result.decisions.model == 1]
    first = result.bars.open[dates[dates < N_DATES - 1] + 1]
    every_name = np.vstack([first[1:], result.bars.mark[-1:]]) / first - 1
    assert null.names_mean == pytest.approx(every_name.mean(), abs=3e-4)
    assert nulls(result, seed=0) == nulls(result, seed=0) != nulls(result, seed=1)


def test_too_few_dates_are_not_known():
    panel = simulate(n_symbols=5, n_bars=22)
    score = np.random.default_rng(0).uniform(-0.5, 0.5, panel.n_rows)
    result = rank_portfolio(rank_oracle.source_of(panel, score), RankRules(hold="top:2"))
    assert np.isnan(nulls(result, seed=0)[0].p_moved)
    rows = measured(result, round_trips(result), seed=0)
    assert rows[0]["skill"] == statistics.NOT_KNOWN


def test_figures_are_those_of_the_series(source):
    result = rank_portfolio(source, RankRules(side=LONG_SHORT, hold="top:3"))
    trips = round_trips(result)
    rows, table = measured(result, trips, seed=0), equity_table(result).to_pandas()
    per_year = statistics.periods_per_year(result.bars.times)
    for m, row in enumerate(rows[:3]):
        assert row["total_return"] == pytest.approx(result.equity[m, -1] - 1)
        assert row["turnover"] == pytest.approx(result.traded[m, 1:].mean() / 2 * per_year)
        assert row["costs"] == pytest.approx(result.cost[m, 1:].mean() * per_year)
        assert row["trades"] == (trips.model == m).sum() and row["rebalance"] == 5
        assert row["information_ratio"] == row["sharpe"]  # without a market to be compared with
        part = table[table.model == row["model"]]
        np.testing.assert_array_equal(part.equity, result.equity[m])
        np.testing.assert_array_equal(part.positions, result.names[m])
        assert abs(row["net_exposure"]) < 0.05 < row["exposure"] - 0.8
    held = table[table.model == "buy_and_hold"]
    np.testing.assert_array_equal(held["return"], held_returns(result))
    assert rows[3]["total_return"] == pytest.approx(held.equity.iloc[-1] - 1)


@pytest.mark.parametrize("entry", ["open", "close"])
def test_fills_of_the_first_date_are_counted(source, entry):
    """At the close of the first date the whole portfolio is bought: its return, cost and turnover are in the rows."""
    result = rank_portfolio(source, RankRules(hold="top:3", fills=Rules(entry=entry, commission_bps=50)))
    returns, traded, cost = from_second_date(result)
    np.testing.assert_allclose(np.prod(1 + returns, axis=1), result.equity[:, -1])
    np.testing.assert_allclose(traded.sum(axis=1), result.traded.sum(axis=1))
    np.testing.assert_allclose(cost.sum(axis=1), result.cost.sum(axis=1))
    assert (result.traded[:, 0] > 0).all() == (entry == "close")
    rows = measured(result, round_trips(result), seed=0)
    assert [row["total_return"] for row in rows[:3]] == pytest.approx((result.equity[:, -1] - 1).tolist())


def test_a_model_without_scores_has_no_row(source):
    panel = source.panel
    score = np.random.default_rng(0).uniform(-0.5, 0.5, (panel.n_rows, 2))
    score[:, 0] = np.nan
    result = rank_portfolio(rank_oracle.source_of(panel, score, horizons=(5, 5)), RankRules(hold="top:3"))
    assert models_with_scores(result) == [1]
    assert [row["model"] for row in measured(result, round_trips(result), 0)] == ["model_1", "buy_and_hold"]


def test_money_is_short():
    assert [money(x) for x in (0, 999.4, 999.6, 1_234, 5e12)] == ["0", "999", "1k", "1.23k", "5T"]
