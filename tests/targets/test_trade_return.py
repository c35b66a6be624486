"""The returns of trades that calls would open: those of the backtest, before its costs."""

from __future__ import annotations

import numpy as np
import pytest

from gpupipe.backtest import engine
from gpupipe.backtest.rules import Rules
from gpupipe.data.halts import halted_rows
from gpupipe.kernels import backtest as kernel
from gpupipe.targets import trade_return
from gpupipe.targets.trade_return import LONG, SHORT, trade_returns
from tests.support.panels import random_panel
from tests.support.tiny import tiny_market

FREE = {"commission_bps": 0.0, "spread_bps": 0.0, "slippage_bps": 0.0}


@pytest.mark.parametrize("costs", [FREE, {}, {"commission_bps": 30.0, "spread_bps": 80.0, "slippage_bps": 12.0}])
def test_net_of_costs_they_are_the_trades_of_the_backtest(costs):
    panel, labels = tiny_market(), ((1, 0.02), (3, 0.02), (3, 0.04))
    returns = trade_returns(panel, [h for h, _ in labels], [t for _, t in labels])
    rules = Rules(side="both", **costs)
    outcomes, variant = engine.outcomes_of(
        panel, tuple(h for h, _ in labels), tuple(t for _, t in labels), rules, halted_rows(panel)
    )
    for k in range(len(labels)):
        for s, side in enumerate((LONG, SHORT)):
            at = outcomes.row_of(variant[k], side)
            sides = np.full(panel.n_rows, side, np.int8)
            net = engine.net_returns(panel, sides, outcomes.entry_price, outcomes.exit_price[at], rules)
            ended = outcomes.reason[at] != engine.REASONS.index("end of data")
            gross = returns.gross[:, k, s]
            assert np.isnan(gross[~ended]).all()
            known = np.isfinite(gross)
            assert known.sum() > 0.9 * panel.n_rows
            assert rules.net(gross[known].astype(np.float64), side) == pytest.approx(net[known], abs=3e-7)
            last = panel.time_ns[np.maximum(outcomes.exit_row[at], 0)]
            assert (returns.end_time_ns[known, k] >= last[known]).all()


def test_bars_with_holes_have_no_trade_or_a_finite_one():
    panel = random_panel(lengths=(60, 1, 2, 40), seed=3)
    returns = trade_returns(panel, (2,), (0.05,))
    assert np.isnan(returns.gross[panel.offsets[1:] - 1]).all()  # no bar is left to enter at
    known = returns.gross[np.isfinite(returns.gross)]
    assert known.size and (np.abs(known) < 1e3).all()


def test_the_numbers_of_sides_and_of_the_end_are_the_kernels():
    assert (trade_return.NOTHING, LONG, SHORT) == (kernel.NOTHING, kernel.LONG, kernel.SHORT)
    assert trade_return.END_OF_DATA == kernel.END
