"""Portfolios of ranks: equal to plain loops, identities of costs and turnover, no look-ahead, the edges."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from gpupipe.backtest import Rules
from gpupipe.backtest.rank_bars import bars_of, score_of
from gpupipe.backtest.rank_portfolio import REASONS, rank_portfolio
from gpupipe.backtest.rank_rules import EQUAL, INVERSE, LONG_ONLY, LONG_SHORT, RankRules
from gpupipe.backtest.rank_trades import capacity, round_trips, trips_table
from gpupipe.data import simulate
from gpupipe.data.panel import Panel
from gpupipe.features.matrix import compute_features
from gpupipe.runtime.errors import UserError
from tests.support import rank_oracle
from tests.support.market import DAY_NS

HOLDS = ("top:3", "top:40%", "quantile:3", "topk-dropout:3,1", "topk-dropout:4,2")
FREE = Rules(commission_bps=0, spread_bps=0, slippage_bps=0)


@pytest.fixture(scope="module")
def panel():
    return rank_oracle.dirty_market()


def bars_by_hand(prices, volume=1000.0):
    """A panel of closes and opens: {symbol: [(day, open, close), ...]}."""
    rows = [(k, *bar) for k, bars in enumerate(prices.values()) for bar in bars]
    symbol, day, first, close = (np.array(column) for column in zip(*rows, strict=True))
    first, close = first.astype(np.float32), close.astype(np.float32)
    return Panel.of_bars(
        open=first, high=np.maximum(first, close), low=np.minimum(first, close), close=close,
        volume=np.full(len(day), volume, np.float32), time_ns=day.astype(np.int64) * DAY_NS,
        offsets=np.searchsorted(symbol, np.arange(len(prices) + 1)), symbols=tuple(prices),
        sector=("energy",) * len(prices),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("side", "weighting", "entry", "halts"),
    list(itertools.product((LONG_ONLY, LONG_SHORT), (EQUAL, INVERSE), ("open", "close"), ("wait", "fill"))),
)
def test_equal_to_plain_loops_on_dirty_bars(panel, side, weighting, entry, halts):
    score = rank_oracle.dirty_scores(panel, n_models=3)
    source = rank_oracle.source_of(panel, score, horizons=(1, 3, 5))
    volatility = compute_features(panel, "volatility_20").values[:, 0].astype(float) if weighting == INVERSE else None
    fills = Rules(entry=entry, halts=halts, commission_bps=5, spread_bps=8, slippage_bps=3)
    waited = unfilled = 0
    for hold in HOLDS:
        rules = RankRules(side=side, weighting=weighting, hold=hold, fills=fills)
        result = rank_portfolio(source, rules)
        trips = round_trips(result)
        assert result.every.tolist() == [1, 3, 5]
        for model, every in enumerate(result.every.tolist()):
            equity, trades = rank_oracle.portfolio(panel, np.asarray(score_of(source))[:, model], every, rules,
                                                   volatility)  # fmt: skip
            np.testing.assert_allclose(result.equity[model], equity, rtol=1e-12)
            own = trips.model == model
            ours = sorted(zip(trips.symbol[own].tolist(), trips.side[own].tolist(), trips.entry[own].tolist(),
                              trips.exit[own].tolist(), trips.net[own].tolist(), strict=True))  # fmt: skip
            assert [trip[:4] for trip in ours] == [trip[:4] for trip in sorted(trades)]
            np.testing.assert_allclose([trip[4] for trip in ours], [trip[4] for trip in sorted(trades)], atol=1e-12)
            assert len(ours) > 3 and len({trip[1] for trip in ours}) == (2 if side == LONG_SHORT else 1)
        waited, unfilled = waited + trips.waited.sum(), unfilled + result.unfilled.sum()
    assert (waited > 0) == (halts == "wait")
    assert unfilled == 0 if halts == "fill" else unfilled > 0 or entry == "close"


def test_shares_and_costs_by_hand():
    """Two symbols, the first is the best on day 0, the second on day 2: each fill by hand."""
    bars = bars_by_hand({
        "A": [(0, 10, 10), (1, 10, 12), (2, 12, 12), (3, 16, 20), (4, 20, 20)],
        "B": [(0, 50, 50), (1, 50, 50), (2, 50, 50), (3, 40, 44), (4, 44, 55)],
    })  # fmt: skip
    score = np.array([0.5, 0, 0, 0, 0, 0.1, 0, 0.2, 0, 0])
    fills = Rules(commission_bps=100, spread_bps=0, slippage_bps=200)
    result = rank_portfolio(rank_oracle.source_of(bars, score, (2,)), RankRules(hold="top:1", fills=fills))
    bought = 1 / (10 * 1.02 * 1.01)  # day 1 at the open: all the cash, with its costs
    cash = bought * 16 * 0.98 * 0.99  # day 3 at the open: sold, and B bought for it
    other = cash / (40 * 1.02 * 1.01)
    np.testing.assert_allclose(result.equity[0], [1, bought * 12, bought * 12, other * 44, other * 55 * 0.98 * 0.99])
    assert result.gross[0].tolist() == pytest.approx([0, 1, 1, 1, 1])
    assert result.net[0].tolist() == pytest.approx([0, 1, 1, 1, 1]) and result.names[0].tolist() == [0, 1, 1, 1, 1]
    day_3 = (bought * 16 + other * 40) / (bought * 12)
    np.testing.assert_allclose(result.traded[0], [0, bought * 10, 0, day_3, 55 / 44])
    np.testing.assert_allclose(result.cost[0, [1, 4]], [1 - bought * 10, (1 - 0.98 * 0.99) * 55 / 44])
    trips = round_trips(result)
    assert (trips.entry.tolist(), trips.exit.tolist(), trips.decided.tolist()) == ([1, 3], [3, 4], [0, 2])
    assert [REASONS[reason] for reason in trips.reason] == ["rebalance", "end of data"]
    paid, got = np.array([10, 40]) * 1.02, np.array([16, 55]) * 0.98
    np.testing.assert_allclose(trips.net, (got * 0.99 - paid * 1.01) / paid)
    table = trips_table(result, trips)
    assert table["symbol"].to_pylist() == ["A", "B"] and table["entry_price"].to_pylist() == [10, 40]
    assert table["weight"].to_pylist() == pytest.approx([bought * 10, other * 40 / (bought * 16)])


def test_short_positions_by_hand():
    """Half of the equity long in A, half short in B: the value of both legs, by hand."""
    bars = bars_by_hand({
        "A": [(0, 10, 10), (1, 10, 11), (2, 12, 12)], "B": [(0, 20, 20), (1, 20, 25), (2, 30, 24)],
    })  # fmt: skip
    rules = RankRules(side=LONG_SHORT, hold="top:1", fills=FREE)
    result = rank_portfolio(rank_oracle.source_of(bars, [0.5, 0, 0, 0.1, 0, 0], (5,)), rules)
    long, short = 0.5 / 10, 0.5 / 20
    equity = [1, 1 + long * 1 - short * 5, 1 + long * 2 - short * 4]
    np.testing.assert_allclose(result.equity[0], equity)
    np.testing.assert_allclose(result.net[0, 1], (long * 11 - short * 25) / equity[1])
    np.testing.assert_allclose(result.gross[0, 1], (long * 11 + short * 25) / equity[1])
    np.testing.assert_allclose(round_trips(result).net, [0.2, -0.2])
    assert round_trips(result).side.tolist() == [1, -1]


@pytest.mark.parametrize(("rebalance", "reason"), [(1, "rebalance"), (4, "all lost")])
def test_a_short_position_may_lose_everything(rebalance, reason):
    bars = bars_by_hand({
        "A": [(day, 10, 10) for day in range(6)],
        "B": [(0, 10, 10), (1, 10, 10), (2, 40, 40), (3, 40, 40), (4, 1, 1), (5, 1, 1)],
    })  # fmt: skip
    rules = RankRules(side=LONG_SHORT, hold="top:1", rebalance=rebalance, fills=FREE)
    result = rank_portfolio(rank_oracle.source_of(bars, [0.5] * 6 + [0.1] * 6), rules)
    assert result.equity[0].tolist() == [1, 1, 0, 0, 0, 0]
    assert result.returns[0].tolist() == [0, 0, -1, 0, 0, 0]
    trips = round_trips(result)
    assert trips.exit.tolist() == [2, 2] and {REASONS[k] for k in trips.reason} == {reason}
    assert result.fills.date.max() == 2


@pytest.mark.parametrize("side", [LONG_ONLY, LONG_SHORT])
def test_identities(panel, side):
    """Without costs the profits of all round trips are the profit; costs are what the fills say; turnover too."""
    score = rank_oracle.dirty_scores(panel, n_models=2)
    source = rank_oracle.source_of(panel, score, horizons=(3, 5))
    free = rank_portfolio(source, RankRules(side=side, hold="top:3", fills=FREE))
    fills = free.fills
    profit = -np.bincount(fills.portfolio, fills.shares * fills.price)
    np.testing.assert_allclose(profit, free.equity[:, -1] - 1, atol=1e-12)
    assert (free.cost == 0).all() or np.abs(free.cost).max() < 1e-14
    dear = rank_portfolio(source, RankRules(side=side, hold="top:3", fills=Rules(commission_bps=20)))
    assert (dear.equity[:, -1] < free.equity[:, -1]).all()
    for model in (0, 1):
        own = dear.fills.portfolio == model
        shares, price, date = dear.fills.shares[own], dear.fills.price[own], dear.fills.date[own]
        at_fill = price * (1 + np.sign(shares) * dear.rules.fills.slip)
        cost = np.abs(shares) * (np.abs(at_fill - price) + at_fill * dear.rules.fills.commission)
        before = np.append(1, dear.equity[model])[date]  # of the date before
        by_date = [np.bincount(date, x / before, dear.bars.n_dates) for x in (cost, np.abs(shares) * price)]
        np.testing.assert_allclose(dear.cost[model], by_date[0], atol=1e-14)
        np.testing.assert_allclose(dear.traded[model], by_date[1], atol=1e-14)
    closing = np.concatenate([[0], np.cumprod(1 + dear.returns[0])])[1:]
    np.testing.assert_allclose(closing, dear.equity[0])
    assert (dear.fills.after[np.isin(dear.fills.step, 2)] == 0).all()
    paid = np.bincount(dear.fills.portfolio, dear.fills.shares)  # nothing is left
    held = {(m, s): 0.0 for m in (0, 1) for s in range(panel.n_symbols)}
    for m, s, n in zip(dear.fills.portfolio, dear.fills.symbol, dear.fills.shares, strict=True):
        held[m, s] += n
    assert max(map(abs, held.values())) < 1e-12 and len(paid) == 2


@pytest.mark.parametrize(("hold", "side"), list(itertools.product(HOLDS, (LONG_ONLY, LONG_SHORT))))
def test_the_future_changes_nothing_before_it(panel, hold, side):
    score = rank_oracle.dirty_scores(panel)
    rules = RankRules(hold=hold, side=side, weighting=INVERSE, rebalance=2)
    whole = rank_portfolio(rank_oracle.source_of(panel, score), rules)
    day = 60  # from then on other prices, volumes and scores; the last bars stay where they are
    later = panel.time_ns >= np.unique(panel.time_ns)[day]
    rng = np.random.default_rng(3)
    columns = dict(panel.columns)
    for name in ("open", "high", "low", "close", "volume"):
        columns[name] = np.where(later, columns[name] * rng.uniform(0.5, 2), columns[name]).astype(np.float32)
    changed = dataclasses.replace(panel, columns=columns)
    other = np.where(later[:, None], rng.uniform(-0.9, 0.9, score.shape), score)
    part = rank_portfolio(rank_oracle.source_of(changed, other), rules)
    for name in ("equity", "returns", "gross", "net", "names", "traded", "cost"):
        np.testing.assert_array_equal(getattr(whole, name)[:, :day], getattr(part, name)[:, :day])
    assert (whole.equity[:, day:] != part.equity[:, day:]).all()
    of = [(fills.date < day) for fills in (whole.fills, part.fills)]
    for name in ("symbol", "date", "price", "shares", "equity"):
        np.testing.assert_array_equal(getattr(whole.fills, name)[of[0]], getattr(part.fills, name)[of[1]])
    assert of[0].sum() > 20


def test_decisions_are_filled_at_the_next_bar_of_each_symbol():
    """B has no bar on day 1: its purchase waits for day 2, and lapses if nothing is traded there."""
    prices = {"A": [(day, 10, 10) for day in range(4)], "B": [(0, 10, 10), (2, 8, 10), (3, 10, 10)]}
    bars = bars_by_hand(prices)
    score = [0.5, 0, 0, 0, 0.4, 0, 0]
    rules = RankRules(hold="top:2", rebalance=10, fills=FREE)
    result = rank_portfolio(rank_oracle.source_of(bars, score), rules)
    entries = {(s, d): p for s, d, p, n in zip(result.fills.symbol, result.fills.date, result.fills.price,
                                               result.fills.shares, strict=True) if n > 0}  # fmt: skip
    assert entries == {(0, 1): 10, (1, 2): 8}
    columns = dict(bars.columns)
    columns["volume"] = bars.volume.copy()
    for name in ("open", "high", "low", "close"):
        columns[name] = getattr(bars, name).copy()
        columns[name][5] = 10
    columns["volume"][5] = 0
    halted = rank_portfolio(rank_oracle.source_of(dataclasses.replace(bars, columns=columns), score), rules)
    assert set(halted.fills.symbol.tolist()) == {0} and halted.unfilled.tolist() == [1]


def test_edges():
    one_date = bars_by_hand({"A": [(0, 10, 10)], "B": [(0, 10, 11)]})
    result = rank_portfolio(rank_oracle.source_of(one_date, [0.1, 0.2]))
    assert result.equity.tolist() == [[1.0]] and result.fills.n_fills == 0 and len(result.decisions.date) == 1
    one = bars_by_hand({"A": [(day, 10 + day, 10 + day) for day in range(5)]})
    alone = rank_portfolio(rank_oracle.source_of(one, [-0.5] * 5), RankRules(hold="top:50", fills=FREE))
    np.testing.assert_allclose(alone.equity[0], [1, 1, 12 / 11, 13 / 11, 14 / 11])
    assert rank_portfolio(rank_oracle.source_of(one, [0.5] * 5), RankRules(side=LONG_SHORT)).fills.n_fills == 0
    unknown = rank_portfolio(rank_oracle.source_of(one, [np.nan] * 5))
    assert (unknown.equity == 1).all() and unknown.decisions.of(0, 1).shape == (0, 1)
    assert round_trips(unknown).n_trips == 0 and np.isnan(capacity(unknown)).all()
    # A date without scores keeps the portfolio, and the schedule; fewer names than wanted share it all.
    gap = rank_portfolio(
        rank_oracle.source_of(one, [0.5, np.nan, np.nan, 0.5, 0.5]), RankRules(hold="top:5", rebalance=2)
    )
    assert gap.decisions.date.tolist() == [0, 4] and gap.names[0].tolist() == [0, 1, 1, 1, 1]


def test_no_volatility_is_no_share():
    panel = simulate(n_symbols=6, n_bars=40)
    score = np.random.default_rng(0).uniform(-0.5, 0.5, panel.n_rows)
    result = rank_portfolio(rank_oracle.source_of(panel, score), RankRules(hold="top:3", weighting=INVERSE))
    known = ~np.isnan(compute_features(panel, "volatility_20").values[:40, 0])
    assert not known[:15].any() and (result.names[0, : known.argmax() + 1] == 0).all()
    weights = result.decisions.of(0, 6)
    assert set(np.round(weights.sum(axis=1), 12)) == {0.0, 1.0} and weights.max() < 1


def test_capacity_is_the_share_of_volume(panel):
    score = rank_oracle.dirty_scores(panel)
    source = rank_oracle.source_of(panel, score)
    result = rank_portfolio(source, RankRules(hold="top:3", volume_share=0.02))
    dates = np.searchsorted(result.bars.times, panel.time_ns).tolist()
    row_of = {at: row for row, at in enumerate(zip(dates, panel.symbol_of_row.tolist(), strict=True))}
    money = []
    fills = result.fills
    for k in np.flatnonzero(fills.reason == 0):
        at = (int(fills.decided[k]), int(fills.symbol[k]))
        if at in row_of:
            money.append(0.02 * rank_oracle.median_volume(panel, row_of[at]) / float(fills.weight[k]))
    median, low = capacity(result)
    np.testing.assert_allclose([median[0], low[0]], np.quantile(money, (0.5, 0.1)), rtol=1e-9)
    twice = capacity(rank_portfolio(source, RankRules(hold="top:3", volume_share=0.04)))
    np.testing.assert_allclose(twice, np.array([median, low]) * 2)
    silent = bars_by_hand({"A": [(day, 10, 10) for day in range(4)]}, volume=np.nan)
    assert np.isnan(capacity(rank_portfolio(rank_oracle.source_of(silent, [0.5] * 4)))).all()


def test_rules_that_cannot_be_are_refused():
    for wrong in (
        {"side": "short"}, {"weighting": "size"}, {"hold": "best"}, {"rebalance": 0}, {"volume_share": 0},
        {"volume_share": 2}, {"fills": Rules(overlapping=True)}, {"fills": Rules(sizing="concentrated")},
    ):  # fmt: skip
        with pytest.raises(UserError):
            RankRules(**wrong)
    rules = RankRules(side=LONG_SHORT, hold="quantile:5", rebalance=3, weighting=INVERSE, fills=Rules(entry="close"))
    assert (
        RankRules.of_dict(rules.as_dict()) == rules
        and rules.digest() == dataclasses.replace(rules, volume_share=0.5).digest()
    )
    assert rules.digest() != dataclasses.replace(rules, rebalance=4).digest()


def test_bars_before_the_first_unseen_row_are_not_traded(panel):
    score = rank_oracle.dirty_scores(panel)
    begin = np.unique(panel.time_ns)[30]
    source = rank_oracle.source_of(panel, np.where((panel.time_ns < begin)[:, None], np.nan, score))
    source = dataclasses.replace(source, since_ns=np.full(len(panel.groups), begin))
    bars, cut = bars_of(source, RankRules(weighting=INVERSE))
    assert bars.times[0] == begin and cut.n_rows == (panel.time_ns >= begin).sum() == len(bars.symbol)
    assert (~np.isnan(bars.volatility[0])).sum() > 3  # volatility looks back over the rows before
