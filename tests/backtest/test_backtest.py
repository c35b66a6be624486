"""The backtest against a plain-Python event loop, trade for trade, and against sums by hand."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

from gpupipe.backtest import OutOfSample, Rules, backtest, benchmarks, statistics
from gpupipe.backtest.engine import REASONS
from gpupipe.backtest.job import measured
from gpupipe.backtest.sources import InSampleError
from gpupipe.data.panel import BARS, Panel
from gpupipe.evaluation.metrics import calls
from gpupipe.runtime.errors import UserError
from tests.support.barriers import barriers_of
from tests.support.market import DAY_NS, demo_panel
from tests.support.panels import random_panel

FREE = {"commission_bps": 0.0, "spread_bps": 0.0, "slippage_bps": 0.0}
ALWAYS = np.iinfo(np.int64).max


def source_of(panel, values, horizons=(2, 5), thresholds=(0.05, 0.1), cutoff=0.4, since=0):
    n_models, n_sectors = values.shape[1], len(panel.groups)
    return OutOfSample(
        values=np.asarray(values, np.float32), cutoffs=np.full((n_models, n_sectors, 2), cutoff, np.float32),
        horizons=tuple(horizons), thresholds=tuple(thresholds), families=("linear",) * n_models,
        since_ns=np.full(n_sectors, since), until_ns=np.full(n_sectors, ALWAYS), source="test", panel=panel,
    )  # fmt: skip


def random_values(panel, n_models=2, seed=0):
    return np.random.default_rng(seed).dirichlet((1, 2, 1), (panel.n_rows, n_models)).astype(np.float32)


def bars_of(*bars, sector="energy") -> Panel:
    """A panel of one symbol from (open, high, low, close)."""
    n = len(bars)
    columns = dict(zip(BARS, (*np.array(bars, np.float32).T.copy(), np.ones(n, np.float32)), strict=True))
    return Panel.of_bars(
        **columns, time_ns=np.arange(n, dtype=np.int64) * DAY_NS,
        offsets=np.array([0, n], np.int64), symbols=("A",), sector=(sector,),
    )  # fmt: skip


def calling(panel, rows, side="buy"):
    """Probabilities of one model that call the rows and no other."""
    values = np.zeros((panel.n_rows, 1, 3), np.float32)
    values[:, :, 1] = 1
    values[rows, 0] = (0, 0, 1) if side == "buy" else (1, 0, 0)
    return values


def one_trade(panel, horizon=3, threshold=0.1, row=0, side="buy", **rules):
    """(exit row, exit price, reason, net return) of the only trade of a call on a row; None if there is none."""
    side_of = "long" if side == "buy" else "short"
    values = calling(panel, [row], side)
    result = backtest(source_of(panel, values, (horizon,), (threshold,)), Rules(**{**FREE, "side": side_of, **rules}))
    trades = result.trades
    if not trades.n_trades:
        return None
    assert trades.n_trades == 1
    return int(trades.last_row[0]), float(trades.exit_price[0]), REASONS[trades.reason[0]], float(trades.net[0])


# ---- the reference


def reference_exit(bars, i, h, t, side, rules):
    """(entry price, exit position, exit price, reason) of a call at position i of one symbol's bars, or None."""
    if i + 1 >= len(bars):
        return None
    entry = bars[i][3] if rules.entry == "close" else bars[i + 1][0]
    if not entry > 0:
        return None
    above, below = (float(price[0]) for price in barriers_of(np.float32([entry]), t))
    last = None
    for j in range(i + 1, len(bars)):
        open_, high, low, close = bars[j]
        if j > i + h:
            for price in (open_, close):
                if price > 0:
                    return entry, j, price, "time"
            continue
        up, down = ("target", "stop") if side == "long" else ("stop", "target")
        if open_ > 0 and not (rules.entry == "open" and j == i + 1):
            if open_ >= above:
                return entry, j, open_, up
            if open_ <= below:
                return entry, j, open_, down
        touched = {name: price for name, price, yes in ((up, above, high >= above), (down, below, low <= below)) if yes}
        if touched:
            why = rules.both_in_bar if len(touched) == 2 else next(iter(touched))
            return entry, j, touched[why], why
        if close > 0:
            last = (entry, j, close, "end of data")
            if j == i + h:
                return entry, j, close, "time"
    return last


def reference(panel, called, horizon, threshold, rules):
    """The trades of one model by a loop over events: (call row, exit row, side, entry, exit, reason)."""
    table = np.stack([panel.open, panel.high, panel.low, panel.close], axis=1).tolist()
    sides = {"long": ("long",), "short": ("short",), "both": ("long", "short")}[rules.side]
    trades = []
    for start, stop in itertools.pairwise(panel.offsets.tolist()):
        bars = table[start:stop]
        busy_until = 0  # the first position whose call may be acted on
        for i in range(stop - start):
            side = {2: "long", 0: "short"}.get(int(called[start + i]))
            if side not in sides or (i < busy_until and not rules.overlapping):
                continue
            position = reference_exit(bars, i, horizon, threshold, side, rules)
            if position is None:
                continue
            entry, j, price, why = position
            busy = j
            if rules.exit_on_opposite:
                for r in range(i + 1, j):
                    at, value = (r, bars[r][3]) if rules.entry == "close" else (r + 1, bars[r + 1][0])
                    if int(called[start + r]) == {"long": 0, "short": 2}[side] and value > 0:
                        j, price, why, busy = at, value, "opposite call", r
                        break
            busy_until = busy
            trades.append((start + i, start + j, side, entry, price, why))
    return trades


def trades_of(result, model):
    t = result.trades
    at = np.flatnonzero(t.model == model)
    at = at[np.argsort(t.row[at])]
    sides, reasons = ("", "long", "short"), t.reason[at]
    return [
        (row, last, sides[side], entry, leave, REASONS[why])
        for row, last, side, entry, leave, why in zip(
            t.row[at].tolist(), t.last_row[at].tolist(), t.side[at].tolist(), t.entry_price[at].tolist(),
            t.exit_price[at].tolist(), reasons.tolist(), strict=True,
        )
    ]  # fmt: skip


OPTIONS = [
    dict(zip(("entry", "side", "both_in_bar", "overlapping", "exit_on_opposite"), chosen, strict=True))
    for chosen in itertools.product(
        ("open", "close"), ("long", "short", "both"), ("stop", "target"), (False, True), (False, True)
    )
]


def dirty(panel):
    """The panel with unknown prices here and there, and gaps."""
    rng = np.random.default_rng(5)
    columns = {name: getattr(panel, name).copy() for name in ("open", "high", "low", "close")}
    for column in columns.values():
        column[rng.random(panel.n_rows) < 0.04] = np.nan
    return panel.replace(**columns)


@pytest.mark.parametrize("data", ["demo", "dirty"])
def test_every_trade_is_that_of_the_event_loop(data):
    panel = demo_panel(6) if data == "demo" else dirty(random_panel((300, 1, 2, 120)))
    horizons, thresholds = (1, 5, 20), (0.02, 0.05, 0.03)
    values = random_values(panel, 3)
    source = source_of(panel, values, horizons, thresholds)
    seen = set()
    for options in OPTIONS:
        result = backtest(source, rules := Rules(**options))
        for m, (h, t) in enumerate(zip(horizons, thresholds, strict=True)):
            called = calls(values[:, m], {"buy": 0.4, "sell": 0.4})
            expected = reference(panel, called, h, t, rules)
            assert trades_of(result, m) == expected, options
            seen |= {trade[5] for trade in expected}
    assert seen == {"target", "stop", "time", "opposite call", "end of data"}


# ---- rules by hand


def test_a_bar_that_reaches_both_is_left_at_the_stop_unless_told_otherwise():
    panel = bars_of((10, 10, 10, 10), (10, 12, 8, 10), (10, 10, 10, 10))
    assert one_trade(panel)[:3] == (1, pytest.approx(9.0), "stop")
    assert one_trade(panel, both_in_bar="target")[:3] == (1, pytest.approx(11.0), "target")


def test_a_gap_through_a_price_is_filled_at_the_open_not_at_the_price():
    down = bars_of((10, 10, 10, 10), (10, 10, 10, 10), (7, 12, 7, 8), (8, 8, 8, 8))
    assert one_trade(down)[:3] == (2, 7.0, "stop")
    assert one_trade(down, side="sell")[:3] == (2, 7.0, "target")
    up = bars_of((10, 10, 10, 10), (10, 10, 10, 10), (13, 13, 7, 8), (8, 8, 8, 8))
    assert one_trade(up)[:3] == (2, 13.0, "target")
    assert one_trade(up, side="sell")[:3] == (2, 13.0, "stop")


def test_the_open_of_the_entry_is_no_gap_unless_the_entry_was_the_close_before():
    panel = bars_of((10, 10, 10, 10), (13, 13, 13, 13), (13, 13, 13, 13), (13, 13, 13, 13))
    assert one_trade(panel, horizon=2) == (2, 13.0, "time", 0.0)
    assert one_trade(panel, horizon=2, entry="close")[:3] == (1, 13.0, "target")


def test_ends_of_history_and_missing_bars():
    nan = math.nan
    assert one_trade(bars_of((10, 10, 10, 10)), row=0) is None  # no next bar
    flat = (10, 10, 10, 10)
    assert one_trade(bars_of(flat, flat, (10, 10.5, 9.5, 10.2)), horizon=5)[2] == "end of data"
    assert one_trade(bars_of(flat, (nan, 11, 9, 10), flat)) is None  # no open to enter at
    late = bars_of(flat, (10, 10, 10, nan), (10.3, 11, 10, 11), flat)
    assert one_trade(late, horizon=1)[:3] == (2, pytest.approx(10.3), "time")  # the close that was due is not known
    assert one_trade(bars_of(flat, (10, 10, 10, nan)), horizon=1) is None  # never a price to leave at


def test_costs_by_hand():
    panel = bars_of((100, 100, 100, 100), (100, 100, 100, 100), (105, 105, 105, 105))
    rules = {"commission_bps": 10, "spread_bps": 20, "slippage_bps": 5}
    paid, got = 100 * 1.0015, 105 * 0.9985
    net = got / paid - 1 - 0.001 * (1 + got / paid)
    assert one_trade(panel, horizon=2, **rules)[3] == pytest.approx(net, abs=1e-12)
    sold, bought = 100 * 0.9985, 105 * 1.0015
    short = one_trade(panel, horizon=2, side="sell", **rules)[3]
    assert short == pytest.approx(1 - bought / sold - 0.001 * (1 + bought / sold), abs=1e-12)


def two_symbols():
    """Closes of A 100, 100, 110, 110, of B 100, 100, 100, 90; opens are the closes before."""
    close = np.array([100, 100, 110, 110, 100, 100, 100, 90], np.float32)
    open_ = np.array([100, 100, 100, 110, 100, 100, 100, 100], np.float32)
    return Panel.of_bars(
        open=open_, high=np.maximum(open_, close), low=np.minimum(open_, close), close=close,
        volume=np.ones(8, np.float32), time_ns=np.tile(np.arange(4), 2).astype(np.int64) * DAY_NS,
        offsets=np.array([0, 4, 8], np.int64), symbols=("A", "B"), sector=("energy", "energy"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("sizing", "returns", "exposure"),  # where A is held on dates 1 and 2, B on 1, 2 and 3
    [
        ("equal", [0, 0, 0.05, -0.05], [0, 1, 1, 0.5]),
        ("concentrated", [0, 0, 0.05, -0.10], [0, 1, 1, 1]),
    ],
)
def test_a_portfolio_by_hand(sizing, returns, exposure):
    panel = two_symbols()
    values = calling(panel, [0, 4])
    rules = Rules(**FREE, sizing=sizing)
    result = backtest(source_of(panel, np.concatenate([values, values], axis=1), (2, 3), (0.5, 0.5)), rules)
    two = result.series(0, slice(None))
    assert two[0].tolist() == pytest.approx([0, 0, 0.05, 0])  # h = 2: both until date 2
    assert two[1].tolist() == [0, 1, 1, 0]
    broken = panel.replace(close=panel.close.copy(), open=panel.open.copy())
    broken.close[3], broken.high[3] = np.nan, np.nan
    panel_a_ends = backtest(source_of(broken, calling(broken, [0, 4]), (3,), (0.5,)), rules)
    # A's close of date 3 is not known, and its rows end: it was left at the close of date 2.
    assert panel_a_ends.series(0, slice(None))[0].tolist() == pytest.approx(returns)
    assert panel_a_ends.series(0, slice(None))[1].tolist() == pytest.approx(exposure)


def test_costs_reach_the_equity():
    panel = two_symbols()
    result = backtest(source_of(panel, calling(panel, [0]), (2,), (0.5,)), Rules(commission_bps=100, spread_bps=0,
                                                                               slippage_bps=0))  # fmt: skip
    # Half of the equity: 1 % at the entry, and 1 % of 1.1 at the exit, two dates later.
    assert result.series(0, slice(None))[0].tolist() == pytest.approx([0, -0.005, 0.5 * (0.1 - 0.011), 0])
    assert result.series(0, slice(None))[2].tolist() == pytest.approx([0, 0.5, 0.5, 0])
    assert result.trades.net.tolist() == pytest.approx([0.1 - 0.01 * 2.1])


def test_the_dates_of_a_long_position_multiply_to_its_trade():
    panel = random_panel((80,))
    rules = Rules(**{**FREE, "slippage_bps": 30, "sizing": "concentrated"})
    result = backtest(source_of(panel, calling(panel, [10]), (7,), (0.2,)), rules)
    assert statistics.equity_curve(result.series(0, slice(None))[0])[-1] - 1 == pytest.approx(result.trades.net[0])


def test_equal_shares_of_overlapping_positions_never_add_up_to_more_than_all():
    panel = random_panel((120, 120, 90))
    always = np.zeros((panel.n_rows, 1, 3), np.float32)
    always[..., 2] = 1
    for entry in ("open", "close"):
        result = backtest(source_of(panel, always, (5,), (0.9,)), Rules(overlapping=True, entry=entry))
        exposure = result.series(0, slice(None))[1]
        assert exposure.max() == pytest.approx(1) and exposure.min() >= 0
        assert result.trades.n_trades == panel.n_rows - panel.n_symbols


def test_inverse_volatility_gives_the_calmer_symbol_more():
    panel = random_panel((100, 100))
    wild = np.repeat([1.0, 3.0], 100)
    steps = np.diff(np.log(panel.close.astype(np.float64)), prepend=0) * wild
    steps[[0, 100]] = np.log(100)
    close = np.exp(np.concatenate([np.cumsum(steps[:100]), np.cumsum(steps[100:])])).astype(np.float32)
    panel = panel.replace(open=close, high=close, low=close, close=close)
    result = backtest(source_of(panel, calling(panel, [50, 150]), (5,), (0.9,)), Rules(sizing="inverse_volatility"))
    weights = result.days[0, :, 1].max(axis=1)
    by_sector = dict(zip(panel.groups, weights, strict=True))
    assert by_sector[panel.sector[0]] == pytest.approx(3 * by_sector[panel.sector[1]], rel=0.5)
    assert by_sector[panel.sector[0]] > by_sector[panel.sector[1]] > 0


# ---- honesty


def test_rows_that_the_models_have_seen_are_refused():
    panel = random_panel((50,))
    values = random_values(panel, 1)
    with pytest.raises(InSampleError, match="only out-of-sample rows"):
        source_of(panel, values, (2,), (0.05,), since=20 * DAY_NS)
    values[:20] = np.nan
    result = backtest(source_of(panel, values, (2,), (0.05,), since=20 * DAY_NS))
    assert result.panel.n_rows == 30 and result.times[0] == 20 * DAY_NS
    with pytest.raises(ValueError, match="no row of the panel is out of sample"):
        backtest(source_of(panel, np.full_like(values, np.nan), (2,), (0.05,), since=999 * DAY_NS))


def test_nothing_after_an_exit_or_call_changes_a_trade():
    panel = random_panel((200, 150))
    values = random_values(panel, 2)
    rules = Rules(side="both", exit_on_opposite=True)
    before = backtest(source_of(panel, values), rules)
    ends = before.trades.last_row
    cut = 100
    future = (np.arange(panel.n_rows) - panel.offsets[panel.symbol_of_row]) > cut
    changed = {name: np.where(future, getattr(panel, name) * np.float32(1.7), getattr(panel, name))
               for name in ("open", "high", "low", "close")}  # fmt: skip
    other = values.copy()
    other[future] = random_values(panel, 2, seed=9)[future]
    after = backtest(source_of(panel.replace(**changed), other), rules)
    closed = ~future[ends]
    assert 10 < closed.sum() < len(closed)
    kept = {(m, *trade) for m in (0, 1) for trade in trades_of(after, m)}
    expected = {(m, *trade) for m in (0, 1) for trade in trades_of(before, m) if not future[trade[1]]}
    assert expected <= kept


def test_rules_that_are_nothing_are_refused():
    for wrong in ({"entry": "vwap"}, {"side": "flat"}, {"commission_bps": -1}, {"slippage_bps": math.nan}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            Rules(**wrong)


# ---- statistics and benchmarks


def test_statistics_by_hand():
    returns = np.array([0.1, -0.2, 0.05, 0.0, 0.1, -0.05, 0.02])
    assert statistics.equity_curve(returns)[1] == pytest.approx(0.88)
    assert statistics.drawdown(returns[:3]) == pytest.approx(0.2)
    assert statistics.drawdown(np.array([-0.1, 0.2])) == pytest.approx(0.1)
    ratio, error = statistics.sharpe_and_error(returns, 4.0)
    assert ratio == pytest.approx(2 * returns.mean() / returns.std(ddof=1))
    assert error == pytest.approx(2 / math.sqrt(6), rel=0.2)  # about 1 / sqrt(n - 1) where the ratio is near 0
    assert math.isnan(statistics.sharpe_and_error(np.zeros(9), 4.0)[0])
    measures = statistics.trade_measures(np.array([0.1, -0.05, 0.0, 0.05]))
    assert (measures["trades"], measures["hit_rate"]) == (4, 0.5)
    assert measures["profit_factor"] == pytest.approx(3)
    assert statistics.periods_per_year(np.arange(366) * DAY_NS) == pytest.approx(365.25)


def test_buy_and_hold_is_the_mean_of_the_symbols():
    panel = two_symbols()
    result = backtest(source_of(panel, calling(panel, [0]), (2,), (0.5,)), Rules(**FREE))
    assert benchmarks.buy_and_hold(result)[-1].tolist() == pytest.approx([0, 0, 0.05, -0.05])
    two = bars_of((10, 10, 10, 10), (10, 11, 10, 11))  # bought and sold on the only date that has a return
    costly = backtest(source_of(two, calling(two, [0]), (1,), (0.5,)), Rules(commission_bps=100, spread_bps=0,
                                                                            slippage_bps=0))  # fmt: skip
    assert benchmarks.buy_and_hold(costly)[-1].tolist() == pytest.approx([0, 0.1 - 0.02])


def test_draws_move_every_date_once_and_keep_neighbours():
    moved = benchmarks.moved_dates(87, 5, 40, seed=1)
    assert (np.sort(moved, axis=1) == np.arange(87)).all()
    assert np.array_equal(moved, benchmarks.moved_dates(87, 5, 40, seed=1))
    assert (np.diff(moved, axis=1) == 1).mean() > 0.85
    assert len({tuple(row) for row in moved.tolist()}) == 40


def test_random_entries_are_the_outcomes_of_the_moved_calls():
    panel = random_panel((90, 90, 60))
    result = backtest(source_of(panel, random_values(panel)), Rules(side="both"))
    drawn = benchmarks.random_entries(result, seed=3, n_draws=4)
    moved = np.vstack([np.arange(90), benchmarks.moved_dates(90, 5, 4, seed=3)])
    net = benchmarks.net_of_every_row(result, result.rules)
    trades = result.trades
    for draw in range(5):
        expected = [0.0, 0.0]
        for k in range(trades.n_trades):
            outcome = result.outcomes.row_of(result.variant_of_model[trades.model[k]], int(trades.side[k]))
            date = moved[draw, result.date_of_row[trades.row[k]]]
            value = net[outcome, panel.symbol_of_row[trades.row[k]], date]
            expected[trades.model[k]] += 0 if np.isnan(value) else float(value)
        assert drawn.total[:, :, draw].sum(axis=1).tolist() == pytest.approx(expected)
    assert drawn.total[0, :, 0].sum() == pytest.approx(trades.net[trades.model == 0].sum(), rel=1e-5)


def test_calls_that_know_the_future_have_skill_and_random_ones_have_not():
    panel = random_panel((250,) * 8, sectors=("energy",))
    ahead = np.full(panel.n_rows, np.nan)
    ahead[:-3] = panel.close[3:] / panel.open[1:-2] - 1
    knows = np.zeros((panel.n_rows, 3), np.float32)
    knows[:, 2] = ahead > 0.02
    values = np.stack([knows, *random_values(panel, 5, seed=2).transpose(1, 0, 2)], axis=1)
    result = backtest(source_of(panel, values, (2,) * 6, (0.1,) * 6), Rules())
    rows, by_year = measured(result, seed=0)
    acting = [row for row in rows if row["model"] != "buy_and_hold"]
    assert [row["skill"] for row in acting] == ["skill"] + ["no skill"] * 5
    assert acting[0]["p_value"] == 1 / 501 and acting[0]["trials"] == 6
    assert sum(row["trades"] for row in by_year if "trades" in row) == result.trades.n_trades


def test_twice_is_the_same():
    panel = random_panel((150, 150, 80))
    source = source_of(panel, random_values(panel))
    first, second = (measured(backtest(source, Rules(side="both")), 0) for _ in range(2))
    assert json.dumps(first) == json.dumps(second)
