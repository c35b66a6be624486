"""Nothing is filled in a halt: entries, exits by time, by an opposite call and at a stop, and what is counted."""

from __future__ import annotations

import numpy as np
import pytest

from gpupipe.backtest import OutOfSample, Rules, backtest
from gpupipe.backtest.choices import HALTS
from gpupipe.backtest.engine import REASONS
from gpupipe.backtest.job import measured
from gpupipe.cli.backtest import halts_of
from gpupipe.data.halts import halted_rows
from tests.support.panels import random_panel

N = 16
FREE = {"commission_bps": 0.0, "spread_bps": 0.0, "slippage_bps": 0.0}


def halted_panel(halt, after=101.0):
    """Sixteen bars at 100 with a volume of 10; those of `halt` are not traded, and the open after them is `after`."""
    prices = {name: np.full(N, 100, np.float32) for name in ("open", "high", "low", "close")}
    volume = np.full(N, 10, np.float32)
    for row in halt:
        volume[row] = 0
    resumed = (max(halt) + 1) if len(halt) else N
    if resumed < N:
        prices["open"][resumed:] = prices["close"][resumed:] = after
        prices["high"][resumed:], prices["low"][resumed:] = max(after, 100), min(after, 100)
        prices["high"][resumed + 1 :] = prices["low"][resumed + 1 :] = after
        prices["low"][resumed] = prices["high"][resumed] = after
    return random_panel((N,)).replace(volume=volume, **prices)


def run(panel, calls, horizon=3, threshold=0.5, **rules):
    """The backtest of calls {row: "buy" or "sell"}."""
    values = np.full((panel.n_rows, 1, 3), np.nan, np.float32)
    values[:, 0] = 0, 1, 0
    for row, call in calls.items():
        values[row, 0] = (0, 0, 1) if call == "buy" else (1, 0, 0)
    n = len(panel.groups)
    source = OutOfSample(
        values, np.full((1, n, 2), 0.5, np.float32), (horizon,), (threshold,), ("drawn",), np.zeros(n, np.int64),
        np.full(n, 2**62), "drawn", panel,
    )  # fmt: skip
    return backtest(source, Rules(**{**FREE, **rules}))


def only(result):
    """(exit row, exit price, reason, whether it waited) of the only trade."""
    trades = result.trades
    assert trades.n_trades == 1
    price = round(float(trades.exit_price[0]), 4)
    return int(trades.last_row[0]), price, REASONS[trades.reason[0]], bool(trades.waited[0])


def test_a_halted_bar_has_no_volume_and_the_previous_close():
    panel = halted_panel(range(4, 8))
    assert np.flatnonzero(halted_rows(panel)).tolist() == [4, 5, 6, 7]
    panel.high[5] = 100.5  # a quote moved
    panel.volume[6] = np.nan  # not known
    assert np.flatnonzero(halted_rows(panel)).tolist() == [4, 7]
    panel.close[4] = panel.open[4] = panel.high[4] = panel.low[4] = 99  # a price of its own
    assert np.flatnonzero(halted_rows(panel)).tolist() == [7]


@pytest.mark.parametrize(("price", "halted"), [(100.05, [4, 5, 6, 7]), (100.5, [5, 6, 7])])
def test_a_halt_at_the_rounded_close(price, halted):
    panel = halted_panel(range(4, 8))
    for column in (panel.open, panel.high, panel.low, panel.close):
        column[4:8] = price
    assert np.flatnonzero(halted_rows(panel)).tolist() == halted


def test_a_vendor_repeats_the_last_bar_in_a_halt():
    panel = halted_panel(range(4, 8))
    panel.high[3], panel.low[3] = 101, 99
    for column in (panel.open, panel.high, panel.low, panel.close):
        column[4:8] = column[3]
    assert np.flatnonzero(halted_rows(panel)).tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize("volume", [0, np.nan])
def test_a_symbol_without_any_volume_trades_as_before(volume):
    panel = halted_panel(range(4, 8))
    panel.volume[:] = volume
    assert not halted_rows(panel).any()
    assert only(run(panel, {4: "buy"}, horizon=2)) == (6, 100.0, "time", False)


@pytest.mark.parametrize(("row", "entry"), [(3, "open"), (5, "open"), (7, "open"), (5, "close"), (7, "close")])
def test_a_call_in_a_halt_or_before_one_opens_nothing(row, entry):
    result = run(halted_panel(range(4, 8)), {row: "buy"}, entry=entry)
    assert result.trades.n_trades == 0 and result.trades.unfilled.sum() == 1


def test_a_call_at_the_last_close_before_a_halt_is_filled_at_that_close_and_leaves_after_it():
    assert only(run(halted_panel(range(4, 8)), {3: "buy"}, entry="close")) == (8, 101.0, "time", True)


def test_halts_are_filled_where_the_rules_say_so():
    result = run(halted_panel(range(4, 8)), {3: "buy"}, horizon=2, halts="fill")
    assert only(result) == (5, 100.0, "time", False) and result.trades.unfilled.sum() == 0


@pytest.mark.parametrize("side", ["long", "short"])
@pytest.mark.parametrize("horizon", [2, 3, 5])
def test_an_exit_by_time_in_a_halt_waits_for_the_next_open(horizon, side):
    """Called in row 2, in at the open of row 3; rows 4 to 7 are halted."""
    call = "buy" if side == "long" else "sell"
    result = run(halted_panel(range(4, 8)), {2: call}, horizon=horizon, side=side)
    assert only(result) == (8, 101.0, "time", True)


def test_a_halt_that_ends_before_the_horizon_delays_nothing():
    assert only(run(halted_panel(range(4, 6)), {2: "buy"}, horizon=5)) == (7, 101.0, "time", False)


@pytest.mark.parametrize(("after", "reason"), [(130.0, "target"), (70.0, "stop")])
def test_a_barrier_passed_in_a_halt_is_left_at_the_open_after_it(after, reason):
    result = run(halted_panel(range(4, 8), after), {2: "buy"}, horizon=10, threshold=0.1)
    assert only(result) == (8, after, reason, False)


def test_the_data_may_end_in_a_halt():
    assert only(run(halted_panel(range(4, N)), {2: "buy"})) == (N - 1, 100.0, "end of data", False)


@pytest.mark.parametrize(("row", "expected"), [(3, (8, 101.0, "opposite call", True)), (6, (12, 101.0, "time", False)),
                                               (9, (10, 101.0, "opposite call", False))])  # fmt: skip
def test_an_opposite_call_waits_for_the_end_of_the_halt_and_one_in_it_is_not_acted_on(row, expected):
    calls = {2: "buy", row: "sell"}
    assert only(run(halted_panel(range(4, 8)), calls, horizon=10, exit_on_opposite=True)) == expected


def test_other_bars_trade_as_without_the_rule():
    """A call after the halt, and one whose horizon ends before it."""
    panel = halted_panel(range(6, 8))
    for row in (1, 9):
        wait, fill = (run(panel, {row: "buy"}, horizon=2, halts=halts) for halts in ("wait", "fill"))
        assert only(wait) == only(fill)


def test_statistics_and_console_count_orders_and_exits():
    result = run(halted_panel(range(4, 8)), {2: "buy", 5: "buy", 6: "buy"}, overlapping=True)
    row = next(row for row in measured(result, 0)[0] if row["model"] == "drawn")
    assert [row[name] for name in HALTS] == [2, 1]
    (sentence,) = halts_of({"statistics": [row]})
    assert "2 orders of all models opened nothing, 1 exit waited" in sentence
    assert halts_of({"statistics": [{**row, "unfilled": 0, "waited": 0}]}) == []
