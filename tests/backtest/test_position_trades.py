"""Position trades against a plain-Python event loop, trade for trade and equity for equity, and by hand."""

from __future__ import annotations

import itertools
import math
import os
import pathlib

import numpy as np
import pytest

from gpupipe import read
from gpupipe.backtest import PositionPath, PositionRules, backtest_positions
from gpupipe.backtest.engine import REASONS
from gpupipe.data.halts import halted_rows
from gpupipe.data.panel import BARS, Panel
from gpupipe.kernels.account import equity as marked
from gpupipe.kernels.account import turned
from gpupipe.runtime.errors import UserError
from tests.support.market import DAY_NS
from tests.support.panels import random_panel
from tests.support.position_oracle import follow

FREE = {"commission_bps": 0.0, "spread_bps": 0.0, "slippage_bps": 0.0}
COSTS = {"commission_bps": 3.0, "spread_bps": 8.0, "slippage_bps": 2.0}
ALWAYS = 2**62
OPTIONS = [
    dict(fill=fill, halts=halts, size=size, **costs)
    for fill, halts, size, costs in itertools.product(
        ("open", "close"), ("wait", "fill"), (1.0, 0.5, 9.0), (FREE, COSTS)
    )
]


def bars_of(*bars, volume=None) -> Panel:
    """A panel of one symbol from (open, close); all volumes are 1 unless given."""
    open_, close = np.array(bars, np.float32).reshape(-1, 2).T.copy()
    n = len(bars)
    columns = (open_, np.fmax(open_, close), np.fmin(open_, close), close, np.ones(n, np.float32))
    panel = Panel.of_bars(
        **dict(zip(BARS, columns, strict=True)), time_ns=np.arange(n, dtype=np.int64) * DAY_NS,
        offsets=np.array([0, n], np.int64), symbols=("A",), sector=("energy",),
    )  # fmt: skip
    return panel if volume is None else panel.replace(volume=np.float32(volume))


def run(panel, positions, slip=None, initial=1.0, **rules):
    path = np.atleast_2d(np.asarray(positions, np.int8))
    names = tuple(f"path {k}" for k in range(len(path)))
    chosen = PositionRules(**{**FREE, **rules})
    return backtest_positions(PositionPath(path, names, panel, -ALWAYS, ALWAYS), chosen, slip, initial)


def sticky(n_rows, seed, n_paths=1, stay=0.9):
    """int8 (n_paths, n_rows): paths that keep their position with this probability."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(-1, 2, (n_paths, n_rows)).astype(np.int8)
    keep = rng.random((n_paths, n_rows)) < stay
    keep[:, :1] = False
    last = np.maximum.accumulate(np.where(keep, -1, np.arange(n_rows)), axis=1)
    return np.take_along_axis(drawn, last, axis=1)


def dirty(panel):
    """The panel with unknown opens and closes, and halted stretches."""
    rng = np.random.default_rng(5)
    columns = {name: getattr(panel, name).copy() for name in BARS}
    for begin in rng.choice(panel.n_rows - 8, panel.n_rows // 20, replace=False):
        length = int(rng.integers(1, 6))
        for name in BARS[:4]:
            columns[name][begin : begin + length] = columns["close"][begin - 1]
        columns["volume"][begin : begin + length] = 0
    for name in ("open", "close"):
        columns[name][rng.random(panel.n_rows) < 0.04] = np.nan
    return panel.replace(**columns)


def real(name):
    folder = os.environ.get("GPUPIPE_DATA")
    if not folder or not pathlib.Path(folder, name).exists():
        pytest.skip(f"GPUPIPE_DATA does not name a folder with {name}")
    return read(pathlib.Path(folder, name), group_by="symbol", device="cpu")


def trades_of(result, path, symbol):
    t, panel = result.trades, result.path.panel
    at = np.flatnonzero((t.model == path) & (panel.symbol_of_row[t.row] == symbol))
    begin = panel.offsets[symbol]
    sides = {1: 1, 2: -1}
    return [
        (int(t.row[k] - begin), int(t.first_row[k] - begin), int(t.last_row[k] - begin), sides[int(t.side[k])],
         float(t.entry_price[k]), float(t.exit_price[k]), REASONS[t.reason[k]], bool(t.waited[k]), float(t.net[k]))
        for k in at
    ]  # fmt: skip


def assert_followed(panel, positions, slip=None, **options):
    """The result equals the event loop; returns the reasons, waits and unfilled decisions that occurred."""
    result = run(panel, positions, slip, **options)
    rules, n_groups = result.rules, len(panel.groups)
    halted = halted_rows(panel) if rules.halts == "wait" else np.zeros(panel.n_rows, np.int8)
    slip = np.full(panel.n_rows, rules.slip) if slip is None else slip
    seen, unfilled = set(), np.zeros((len(positions), n_groups), int)
    for p, path in enumerate(positions):
        for s, (begin, end) in enumerate(itertools.pairwise(panel.offsets.tolist())):
            columns = (panel.open, panel.close, path, halted, slip)
            expected = follow(
                *(column[begin:end].tolist() for column in columns), rules.commission, rules.size, rules.at_close
            )
            np.testing.assert_allclose(result.accounts.equity[p, begin:end], expected.equity, rtol=1e-9, atol=1e-9)
            assert result.accounts.held[p, begin:end].tolist() == expected.held
            got = trades_of(result, p, s)
            assert [trade[:-1] for trade in got] == [trade[:-1] for trade in expected.trades], options
            np.testing.assert_allclose([t[-1] for t in got], [t[-1] for t in expected.trades], rtol=1e-9, atol=1e-12)
            seen |= {trade[6] for trade in expected.trades} | {"waited" for trade in expected.trades if trade[7]}
            unfilled[p, panel.group_of_symbol[s]] += expected.unfilled
    assert result.trades.unfilled.tolist() == unfilled.ravel().tolist()
    assert_sorted_by_groups(result)
    return seen | ({"unfilled"} if unfilled.any() else set())


def assert_sorted_by_groups(result):
    trades, panel = result.trades, result.path.panel
    n_groups = len(panel.groups)
    group = panel.group_of_symbol[panel.symbol_of_row[trades.row]]
    for k, (begin, end) in enumerate(itertools.pairwise(trades.groups.tolist())):
        assert (trades.model[begin:end] == k // n_groups).all() and (group[begin:end] == k % n_groups).all()
    assert trades.groups[0] == 0 and trades.groups[-1] == trades.n_trades


@pytest.mark.parametrize("data", ["clean", "dirty"])
def test_made_bars_are_followed_under_all_options(data):
    panel = random_panel((300, 1, 2, 0, 120))
    panel = dirty(panel) if data == "dirty" else panel
    positions = np.concatenate([sticky(panel.n_rows, 1, 2), sticky(panel.n_rows, 2, 1, stay=0.0)])
    slip = np.random.default_rng(3).uniform(0, 0.01, panel.n_rows)
    seen = set()
    for options in OPTIONS:
        seen |= assert_followed(panel, positions, **options)
        seen |= assert_followed(panel, positions, slip, **options)
    assert seen == {"position", "all lost", "end of data"} | ({"waited", "unfilled"} if data == "dirty" else set())


@pytest.mark.parametrize("name", ["xauusd_15m.parquet", "btcusd_1h.parquet"])
def test_real_bars_are_followed(name):
    panel = real(name)
    positions = np.concatenate([sticky(panel.n_rows, 1), sticky(panel.n_rows, 2, stay=0.5)])
    slip = np.random.default_rng(3).uniform(0, 0.001, panel.n_rows)
    for fill in ("open", "close"):
        assert_followed(panel, positions, fill=fill, **COSTS)
        assert_followed(panel, positions, slip, fill=fill, size=2.0, commission_bps=0.2)


@pytest.mark.parametrize("fill", ["open", "close"])
def test_without_halts_the_equity_is_that_of_the_market_to_the_last_bit(fill):
    """The market turns the account at each row's fill and marks it at the row's close, and does nothing else."""
    panel, path = random_panel((400,)), sticky(400, 4)
    slip = np.random.default_rng(3).uniform(0, 0.01, panel.n_rows)
    got = run(panel, path, slip, initial=10_000.0, fill=fill, commission_bps=3.0, size=0.7).accounts.equity[0]
    commission, size = np.float64(3.0) / 1e4, np.float64(0.7)
    balance, stake, paid, position = np.float64(10_000.0), np.float64(0.0), np.float64(1.0), 0
    price, equity = panel.open if fill == "open" else panel.close, [balance]
    for row in range(1, 400):
        target = int(path[0, row - 1])
        balance, stake, paid = turned(
            balance, stake, paid, position, target, price[row], slip[row], commission, size
        )  # fmt: skip
        position = target
        equity.append(marked(balance, stake, paid, position, panel.close[row]))
    assert got.tolist() == equity


def test_net_returns_are_those_of_the_backtest_of_calls():
    from gpupipe.kernels.backtest import trade_returns

    panel = random_panel((400,))
    result = run(panel, sticky(400, 4), **COSTS)
    t, net = result.trades, np.empty(result.trades.n_trades)
    slip, commission = np.float64(result.rules.slip), np.float64(result.rules.commission)
    trade_returns(t.n_trades, t.side, t.entry_price, t.exit_price, slip, commission, net)
    assert t.n_trades > 20 and t.net.tolist() == net.tolist()


def test_the_balance_after_the_last_trade_is_the_product_of_net_returns():
    path = sticky(400, 4)
    path[:, -3:] = 0
    result = run(random_panel((400,)), path, size=0.5, **COSTS)
    assert result.accounts.equity[0, -1] == pytest.approx(np.prod(1 + 0.5 * result.trades.net), rel=1e-12)


# ---- by hand


def test_a_path_by_hand():
    """Long from the open of row 1 to that of row 3, where it turns short, left at the last close."""
    panel = bars_of((10, 10), (10, 11), (12, 12), (15, 12), (12, 9))
    result = run(panel, [1, 1, -1, -1, 1])
    assert trades_of(result, 0, 0) == [
        (0, 1, 3, 1, 10.0, 15.0, "position", False, 0.5), (2, 3, 4, -1, 15.0, 9.0, "end of data", False, 0.4)
    ]  # fmt: skip
    equity, series = result.series(0, [0])
    # 1.5 at the reversal; the short gains 3 of 15 by the close, then 6 of 15.
    np.testing.assert_allclose(equity, [1, 1.1, 1.2, 1.8, 2.1])
    np.testing.assert_allclose(series[0], [0, 0.1, 1.2 / 1.1 - 1, 0.5, 2.1 / 1.8 - 1])
    np.testing.assert_allclose(series[1], [0, 1, 1, 1.5 * 12 / 15 / 1.8, 1.5 * 9 / 15 / 2.1])
    np.testing.assert_allclose(series[2], [0, 1, 0, (1.5 + 1.5) / 1.2, 0])


def test_buy_and_hold_is_a_path_that_is_always_long():
    panel = random_panel((60, 20))
    result = run(panel, np.ones(80), **COSTS)
    for expected, got in zip(result.series(0, [0, 1]), result.series(None, [0, 1]), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("positions", [[0] * 6, [0, 0, 0, 0, 0, 1]])
def test_a_flat_path_and_a_decision_in_the_last_row_make_no_trade(positions):
    result = run(random_panel((6,)), positions, **COSTS)
    assert result.trades.n_trades == 0 and result.trades.unfilled.tolist() == [0]
    assert result.series(0, [0])[0].tolist() == [1.0] * 6


def test_a_flip_in_every_bar_is_two_fills_a_bar():
    result = run(bars_of(*[(10, 10)] * 5), [1, -1, 1, -1, 1], commission_bps=100.0)
    assert result.trades.first_row.tolist() == [1, 2, 3, 4] and result.trades.last_row.tolist() == [2, 3, 4, 4]
    # An entry costs 1 % of the balance and leaving it 1 % of the same stake.
    np.testing.assert_allclose(result.accounts.equity[0], [1, *(0.99 * 0.98**k for k in range(4))])


@pytest.mark.parametrize("n", [0, 1])
def test_symbols_without_rows_or_with_one_row(n):
    panel = random_panel((n, 5))
    result = run(panel, np.ones(panel.n_rows))
    assert result.trades.n_trades == 1 and result.trades.row.tolist() == [n]


def test_an_unknown_open_and_a_halt_wait_and_halts_can_be_filled():
    nan = math.nan
    waited = bars_of((10, 10), (nan, 10), (11, 11), (nan, 12), (13, 13))
    assert trades_of(run(waited, [1, 1, 0, 0, 0]), 0, 0)[0][:8] == (0, 2, 4, 1, 11.0, 13.0, "position", True)
    assert run(waited, [1, 0, 0, 0, 0]).trades.unfilled.tolist() == [1]
    halt = bars_of((10, 10), (10, 10), (10, 10), (11, 12), (13, 13), volume=[1, 0, 0, 1, 1])
    assert trades_of(run(halt, [1, 1, 1, 0, 0]), 0, 0)[0][:8] == (0, 3, 4, 1, 11.0, 13.0, "position", False)
    assert trades_of(run(halt, [1, 1, 1, 0, 0], halts="fill"), 0, 0)[0][1] == 1
    # Turned in the halt: the fill goes to the position decided last, and the first one was never entered.
    turned_around = run(halt, [1, -1, -1, 0, 0])
    assert trades_of(turned_around, 0, 0)[0][:4] == (1, 3, 4, -1) and turned_around.trades.unfilled.tolist() == [1]


def test_an_unknown_close_keeps_the_mark():
    panel = bars_of((10, 10), (10, math.nan), (12, math.nan), (13, 14))
    assert run(panel, [1, 1, 1, 1]).accounts.equity[0].tolist() == [1.0, 1.0, 1.0, 1.4]
    last = bars_of((10, 10), (10, 11), (12, math.nan))
    assert trades_of(run(last, [1, 1, 1]), 0, 0)[0][2:7] == (1, 1, 10.0, 11.0, "end of data")


def test_an_account_that_is_lost_is_left_and_opens_nothing_again():
    panel = bars_of((10, 10), (10, 25), (30, 30), (30, 30), (30, 30))
    result = run(panel, [-1, -1, -1, 1, 1])
    assert trades_of(result, 0, 0) == [(0, 1, 2, -1, 10.0, 30.0, "all lost", False, -2.0)]
    assert result.accounts.equity[0].tolist() == [1.0, -0.5, -1.0, -1.0, -1.0]
    assert result.series(0, [0])[1][0].tolist() == [0.0, -1.0, 0.0, 0.0, 0.0]


def test_symbols_are_accounts_of_their_own_and_keep_their_last_equity():
    panel = random_panel((30, 12))
    result = run(panel, np.ones(42), **COSTS)
    equity = result.accounts.equity[0]
    both = (equity[:30] + np.append(equity[30:], np.full(18, equity[41]))) / 2
    np.testing.assert_allclose(result.series(0, [0, 1])[0], both, rtol=1e-14)
    single = result.series(0, [panel.groups.index(panel.group[1])])[0]
    np.testing.assert_allclose(single[:12], equity[30:], rtol=1e-14)


def test_only_unseen_rows_are_traded():
    panel = random_panel((30,))
    path = PositionPath(np.ones((1, 30), np.int8), ("p",), panel, int(panel.time_ns[10]), int(panel.time_ns[20]))
    result = backtest_positions(path)
    assert result.path.panel.n_rows == 10 and result.trades.first_row.tolist() == [1]
    assert float(result.trades.entry_price[0]) == float(panel.open[11])
    nothing = PositionPath(np.ones((1, 30), np.int8), ("p",), panel, ALWAYS, ALWAYS + 1, "a test")
    with pytest.raises(ValueError, match="no bar is in the times that no choice has seen \\(a test\\)"):
        backtest_positions(nothing)


def test_what_cannot_be_is_refused():
    panel = random_panel((4,))
    for positions, names, reason in (
        (np.zeros((1, 4), np.int64), ("a",), "expected int8"),
        (np.zeros((1, 3), np.int8), ("a",), "expected int8 \\(1, 4\\)"),
        (np.zeros((2, 4), np.int8), ("a", "a"), "occur twice"),
        (np.full((1, 4), 2, np.int8), ("a",), "-1 \\(short\\)"),
    ):
        with pytest.raises(ValueError, match=reason):
            PositionPath(positions, names, panel, 0, ALWAYS)
    for rules, reason in (
        ({"fill": "mid"}, "fill 'mid': expected open or close"), ({"size": 0.0}, "size 0"), ({"halts": "x"}, "halts"),
        ({"commission_bps": -1.0}, "basis points"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=reason):
            PositionRules(**rules)
    with pytest.raises(ValueError, match="slip: expected float64"):
        run(panel, np.zeros(4), slip=np.full(4, 1.0))
    with pytest.raises(ValueError, match="initial"):
        run(panel, np.zeros(4), initial=0.0)
