"""Statistics of position trades: random entries, intervals, skill of a planted path and none of a coin flip."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpupipe.backtest import PositionPath, PositionRules, backtest_positions, position_statistics, statistics
from gpupipe.backtest.engine import REASONS
from gpupipe.backtest.position_benchmarks import random_entries, random_equity, random_places
from gpupipe.backtest.position_measures import Days
from gpupipe.backtest.position_tables import equity_table, trades_table
from gpupipe.backtest.tables import parquet
from gpupipe.evaluation.block_bootstrap import draw, interval
from gpupipe.evaluation.multiple_testing import deflated_sharpe
from tests.backtest.test_position_trades import ALWAYS, COSTS, FREE, bars_of, dirty, real, sticky
from tests.support.panels import random_panel


def run(panel, positions, **rules):
    path = np.atleast_2d(np.asarray(positions, np.int8))
    names = tuple(f"path {k}" for k in range(len(path)))
    return backtest_positions(PositionPath(path, names, panel, -ALWAYS, ALWAYS), PositionRules(**{**FREE, **rules}))


def minutes(panel, minutes_a_bar=15, bars_a_day=40):
    """The panel with bars of minutes, on weekdays alone."""
    n = panel.n_rows
    day = np.arange(n) // bars_a_day
    day = day + 2 * (day // 5)
    return panel.replace(time_ns=(day * 1440 + np.arange(n) % bars_a_day * minutes_a_bar) * 60 * 10**9)


def row_of(result, name="path 0", group=None, **options):
    rows = position_statistics(result, **options)["statistics"]
    return next(row for row in rows if row["path"] == name and group in (None, row["group"]))


# ---- random entries


@pytest.mark.parametrize("n_rows", [12, 13, 60])
def test_random_places_keep_lengths_and_do_not_overlap(n_rows):
    lengths = np.array([3, 1, 0, 4, 2])
    rows, trade = random_places(lengths, n_rows, 400, np.random.default_rng(0))
    assert (np.sort(trade, axis=1) == np.arange(5)).all()
    ends = rows + lengths[trade]
    assert rows.min() == 1 and ends.max() == n_rows - 1 and (rows[:, 1:] >= ends[:, :-1]).all()
    assert len(np.unique(trade, axis=0)) > 80  # of 120 orders
    assert min(n_rows - 11, 20) <= len(np.unique(rows[:, 0])) <= n_rows - 11


def test_trades_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        random_places(np.array([5, 6]), 12, 1, np.random.default_rng(0))


@pytest.mark.parametrize("fill", ["open", "close"])
def test_random_entries_are_the_same_trades_at_other_places(fill):
    """Net returns of the draws, by hand from the places that the same seed gives."""
    panel = random_panel((300,))
    result = run(panel, sticky(300, 4), fill=fill, **COSTS)
    trades, n_draws = result.trades, 7
    drawn = random_entries(result, seed=3, n_draws=n_draws)
    lengths = trades.last_row - trades.first_row
    rows, trade = random_places(lengths, 300, n_draws, np.random.default_rng([3, 8, 0]))
    price, slip, fee = panel.open if fill == "open" else panel.close, result.rules.slip, result.rules.commission
    for k in range(n_draws):
        total = 0.0
        for row, t in zip(rows[k].tolist(), trade[k].tolist(), strict=True):
            side = 1 if trades.side[t] == 1 else -1
            paid = float(price[row]) * (1 + side * slip)
            got = float(price[row + int(lengths[t])]) * (1 - side * slip)
            total += side * (got / paid - 1) - fee * (1 + got / paid)
        assert drawn.total[0, 0, 1 + k] == pytest.approx(total, abs=1e-12)
    assert (drawn.known == trades.n_trades).all()
    ended = np.array([REASONS[k] for k in trades.reason]) != "end of data"
    closed = float(trades.net[ended].sum())
    last = drawn.total[0, 0, 0] - closed
    assert abs(last) < 0.2 and (ended.all() == (last == 0) or fill == "close")


@pytest.mark.parametrize("fill", ["open", "close"])
def test_equity_of_random_entries_is_that_of_an_account(fill):
    """The drawn trades, as paths, have the equity of the backtest; but for trades that touch, which it would merge."""
    path = [0, 1, 1, 1, 0, 0, -1, -1, 0, 0, 0, 1] + [0] * 188
    result = run(random_panel((200,)), path, size=0.5, fill=fill, **COSTS)
    trades, at, n_draws = result.trades, np.arange(0, 200, 3), 20
    equity = random_equity(result, 0, at, seed=3, n_draws=n_draws)
    lengths = trades.last_row - trades.first_row
    rows, trade = random_places(lengths, 200, n_draws, np.random.default_rng([3, 8, 0]))
    compared = 0
    for k in range(n_draws):
        leave = rows[k] + lengths[trade[k]]
        if (rows[k][1:] == leave[:-1]).any():
            continue
        drawn = np.zeros(200, np.int8)
        for entry, last, t in zip(rows[k].tolist(), leave.tolist(), trade[k].tolist(), strict=True):
            drawn[entry - 1 : last - 1] = 1 if trades.side[t] == 1 else -1
        account = run(random_panel((200,)), drawn, size=0.5, fill=fill, **COSTS).accounts.equity[0]
        assert equity[k] == pytest.approx(account[at], rel=1e-12)
        compared += 1
    assert compared > 10


def test_equity_without_trades_is_one_and_of_two_symbols_the_mean():
    flat = run(random_panel((50,)), [0] * 50)
    assert (random_equity(flat, 0, np.array([0, 49]), seed=0, n_draws=3) == 1).all()
    long = [1] * 20 + [0] * 30
    first, second = (run(random_panel((50, 50)), path) for path in (long + [0] * 50, [0] * 50 + long))
    both = run(random_panel((50, 50)), long + long)
    last = np.array([49])
    of_first, of_second, of_both = (random_equity(x, 0, last, seed=0, n_draws=3) for x in (first, second, both))
    assert of_both == pytest.approx(of_first + of_second - 1) and (of_first != 1).all()


def test_random_entries_wait_as_paths_do_and_count_what_finds_no_entry():
    panel = dirty(random_panel((300,)))
    result = run(panel, sticky(300, 4))
    drawn = random_entries(result, seed=0, n_draws=200)
    assert (drawn.known[..., 1:] <= result.trades.n_trades).all() and np.isfinite(drawn.total).all()
    halted = random_panel((40,))
    for name in ("open", "high", "low", "close"):
        getattr(halted, name)[20:] = halted.close[19]
    halted.volume[20:] = 0
    result = run(halted, [1, 1, 0] + [0] * 37)
    drawn = random_entries(result, seed=0, n_draws=200)
    assert result.trades.n_trades == 1 and 0 < drawn.known[0, 0, 1:].sum() < 200


def test_a_path_that_is_always_in_the_market_has_one_place():
    row = row_of(run(minutes(random_panel((2000,))), np.ones(2000), **COSTS))
    assert row["p_value"] == 1.0 and row["random_mean_trade"] == pytest.approx(row["mean_trade"], abs=0.02)
    assert row["skill"] == "no skill"


def test_paths_of_a_panel_of_several_groups():
    panel = minutes(random_panel((2000, 2000)))
    panel = panel.replace(time_ns=np.concatenate([minutes(random_panel((2000,))).time_ns] * 2))
    result = run(panel, sticky(4000, 4, n_paths=2), **COSTS)
    whole = position_statistics(result)
    assert [(row["group"], row["path"]) for row in whole["statistics"]] == [
        (group, path) for group in ("all", *panel.groups) for path in ("path 0", "path 1", "buy_and_hold")
    ]
    rows = {(row["group"], row["path"]): row for row in whole["statistics"]}
    for path in ("path 0", "path 1"):
        parts = [rows[group, path] for group in panel.groups]
        assert rows["all", path]["trades"] == sum(part["trades"] for part in parts)
        assert rows["all", path]["trials"] == 2


# ---- figures


def test_figures_of_returns_trades_and_buy_and_hold():
    panel = minutes(random_panel((3000,)))
    result = run(panel, sticky(3000, 4), **COSTS)
    whole = position_statistics(result, trials=10)
    row, held = whole["statistics"]
    equity, series = result.series(0, [0])
    per_year = statistics.periods_per_year(result.times)
    assert whole["bars_per_year"] == per_year and whole["bars"] == 3000 and whole["days"] == 75
    assert row["total_return"] == pytest.approx(equity[-1] - 1) and row["trades"] == result.trades.n_trades
    assert row["sharpe"] == statistics.sharpe_and_error(series[0, 1:], per_year)[0]
    assert row["deflated_sharpe"] == deflated_sharpe(series[0, 1:], 10) and row["trials"] == 10
    assert held["total_return"] == pytest.approx(result.series(None, [0])[0][-1] - 1) and "trades" not in held
    # 40 bars of 15 minutes on five of seven days.
    assert per_year == pytest.approx(40 * 5 / 7 * 365.25, rel=0.03)


def test_days_and_their_intervals():
    day = np.repeat(np.arange(60), 5)
    rng = np.random.default_rng(0)
    equity, hold = (np.exp(np.cumsum(rng.normal(0.001, 0.01, 300))) for _ in range(2))
    days = Days(day, seed=3)
    found = days.intervals(equity, hold)
    own, others = (np.diff(np.log(np.append(1, x[4::5]))) for x in (equity, hold))
    draws = draw(day, 1, 3)
    for name, values in (("day_return", own), ("over_hold", own - others)):
        assert found[name] == pytest.approx(values.mean())
        rows = (draws.starts[:, :, None] + np.arange(draws.block)) % 60
        expected = interval(values.mean(), values[rows].mean(axis=(1, 2)), draws.n_blocks)
        assert (found[f"{name}_low"], found[f"{name}_high"]) == pytest.approx(expected)
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]


def test_bars_and_days_give_the_same_sharpe_ratio_on_real_bars_of_15_minutes():
    """Bars of a calendar year, nights and weekends included, annualise bars of minutes as days of a year do days."""
    panel = real("xauusd_15m.parquet")
    result = run(panel, np.ones(panel.n_rows))
    equity, series = result.series(0, [0])
    by_bar = statistics.sharpe_and_error(series[0, 1:], statistics.periods_per_year(result.times))
    last = Days(panel.session_day, 0).last
    returns = np.diff(equity[last]) / equity[last][:-1]
    by_day = statistics.sharpe_and_error(returns, statistics.periods_per_year(result.times[last]))
    assert by_bar[0] == pytest.approx(by_day[0], rel=0.15) and by_bar[1] == pytest.approx(by_day[1], rel=0.05)


# ---- skill


def planted(n=4000, seed=1):
    """Bars of 15 minutes whose close follows the sign of a hidden state, and the path that follows that state."""
    rng = np.random.default_rng(seed)
    state = sticky(n, seed, stay=0.95)[0]
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.002, n) + 0.001 * np.roll(state, 1)))
    open_ = np.append(100, close[:-1])
    panel = minutes(bars_of(*zip(open_, close, strict=True)))
    return panel, state


def test_a_planted_path_has_skill_and_a_coin_flip_has_none():
    panel, state = planted()
    row = row_of(run(panel, state, **COSTS), trials=20)
    assert row["skill"] == "skill" and row["p_value"] <= 0.01 and row["deflated_sharpe"] > 0.99
    assert row["day_return_low"] > 0 and row["over_hold_low"] > 0
    verdicts = [row_of(run(panel, sticky(4000, seed, stay=0.95), **COSTS), trials=20) for seed in range(50, 60)]
    assert [verdict["skill"] for verdict in verdicts] == ["no skill"] * 10
    assert all(verdict["day_return_low"] < 0 for verdict in verdicts)


def test_without_enough_days_skill_is_not_known():
    row = row_of(run(minutes(random_panel((200,))), sticky(200, 1)))  # five days
    assert row["skill"] == "not known" and math.isnan(row["p_value"]) and math.isnan(row["day_return_low"])


def test_paths_without_trades_and_a_lost_account_have_figures():
    panel = minutes(random_panel((2000,)))
    flat = row_of(run(panel, np.zeros(2000)))
    assert flat["trades"] == 0 and flat["total_return"] == 0 and flat["skill"] == "not known"
    lost = row_of(run(panel, sticky(2000, 1), size=40.0))
    assert lost["total_return"] == -1.0 and math.isnan(lost["day_return"]) and lost["max_drawdown"] == 1.0


# ---- tables


def test_tables_and_equal_bytes():
    panel = minutes(dirty(random_panel((300, 40))))
    panel = panel.replace(time_ns=np.concatenate([panel.time_ns[:300], panel.time_ns[:40]]))
    tables = []
    for _ in range(2):
        result = run(panel, sticky(340, 4, n_paths=2), **COSTS)
        tables.append((trades_table(result), equity_table(result)))
    (trades, equity), again = tables
    assert [parquet(table) for table in tables[0]] == [parquet(table) for table in again]
    assert trades.num_rows == result.trades.n_trades and equity.num_rows == 3 * 3 * len(result.times)
    rows = trades.to_pylist()
    assert {row["side"] for row in rows} == {"long", "short"} and {row["path"] for row in rows} == {"path 0", "path 1"}
    assert all(row["decision_time"] < row["entry_time"] <= row["exit_time"] for row in rows)
    first = equity.slice(0, len(result.times)).to_pandas()
    np.testing.assert_array_equal(first["equity"], result.series(0, [0, 1])[0])
