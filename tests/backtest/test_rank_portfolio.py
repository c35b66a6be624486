"""Portfolios of ranks: equal to plain loops, identities of costs and turnover, no look-ahead, the edges."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from gpupipe.backtest import Rules
from gpupipe.backtest.rank_bars import bars_of, score_of
from gpupipe.backtest.rank_portfolio import LOST, REASONS, rank_portfolio
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
    assert (unfilled > 0) == (halts == "wait" and entry == "open")  # a halted bar has no score to act on at its close
