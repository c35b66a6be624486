"""The market's kernels: the compiled loop equals the plain body, which equals arithmetic by hand."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest

from gpupipe.kernels import environment as kernel
from gpupipe.kernels.environment import BUY, CLOSE, HOLD, SELL

N_ROWS, N_FEATURES = 60, 5
RULES = {
    kernel.AT_CLOSE: 0, kernel.LEGACY: 0, kernel.COMMISSION: 1e-3, kernel.SIZE: 1.0, kernel.INITIAL_BALANCE: 1000.0,
    kernel.KEPT_SHARE: 0.0,
    kernel.RUIN_EQUITY: 0.0, kernel.HELD_SCALE: 4.0, kernel.REWARD_SCALE: 1.0, kernel.RISK_AVERSION: 0.0,
}  # fmt: skip
STATE = ("row", "stop", "start", "episode", "position", "balance", "stake", "paid", "equity", "peak", "bars_held")
OUTPUTS = ("observation", "reward", "terminated", "truncated", "final_observation", "marked_equity", "target_position")


def market(seed=0, columns=(), volatility=0.03):
    """The inputs of step_market up to `scaling`, of a random walk with unknown features."""
    rng = np.random.default_rng(seed)
    close = (50 * np.exp(np.cumsum(rng.normal(0, volatility, N_ROWS)))).astype(np.float32)
    open_ = (np.roll(close, 1) * rng.uniform(0.99, 1.01, N_ROWS)).astype(np.float32)
    values = rng.normal(0, 3, (N_ROWS, N_FEATURES)).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    values[7, 1], values[9, 2] = np.inf, -np.inf
    numbers = np.array(columns, np.int64)
    n_columns = len(numbers) or N_FEATURES
    limits = np.full(n_columns, 2.5)
    scaling = np.stack([rng.normal(0, 1, n_columns), rng.uniform(0.5, 2, n_columns), -limits, limits])
    return [open_, close, rng.uniform(0, 2e-3, N_ROWS), values, numbers, scaling.astype(np.float32)]


class Accounts:
    """n environments at the first rows of their episodes, that step by the compiled loop or the plain body."""

    def __init__(self, inputs, starts, stops, rules=None, plain=False):
        self.n, self.plain, self.inputs = len(starts), plain, inputs
        self.rules = np.array([{**RULES, **(rules or {})}[k] for k in range(kernel.N_RULES)])
        self.table = np.array(starts, np.int64), np.array(stops, np.int64)
        n, initial = self.n, self.rules[kernel.INITIAL_BALANCE]
        first, last = (rows[:, 0].copy() for rows in self.table)
        self.state = dict(zip(STATE, (
            first, last, first.copy(), np.zeros(n, np.int64), np.zeros(n, np.int8), np.full(n, initial), np.zeros(n),
            np.ones(n), np.full(n, initial), np.full(n, initial), np.zeros(n, np.int64),
        ), strict=True))  # fmt: skip
        width = inputs[5].shape[1] + kernel.ACCOUNT_COLUMNS
        self.out = dict(zip(OUTPUTS, (
            np.zeros((n, width), np.float32), np.zeros(n, np.float32), np.zeros(n, bool), np.zeros(n, bool),
            np.zeros((n, width), np.float32), np.zeros(n), np.zeros(n, np.int8),
        ), strict=True))  # fmt: skip

    def run(self, body, *arguments):
        if not self.plain:
            return body(self.n, *arguments)
        with np.errstate(all="ignore"):
            for i in range(self.n):
                body.body(i, *arguments)

    def step(self, *actions):
        self.run(
            kernel.step_market, np.array(actions, np.int64), *self.inputs, self.rules, *self.table,
            *self.state.values(), *self.out.values(),
        )  # fmt: skip
        return {name: array.copy() for name, array in self.out.items()}

    def observe(self):
        observation = np.full_like(self.out["observation"], np.nan)
        account = (self.state[name] for name in ("row", "position", "paid", "bars_held"))
        self.run(kernel.observe, self.inputs[1], *self.inputs[3:], self.rules, *account, observation)
        return observation


@pytest.mark.parametrize("legacy", [0, 1])
@pytest.mark.parametrize("at_close", [0, 1])
@pytest.mark.parametrize("columns", [(), (4, 0, 0)], ids=len)
def test_the_compiled_loop_equals_the_plain_body(columns, at_close, legacy):
    rng = np.random.default_rng(3)
    starts = rng.integers(0, 40, (9, 3))
    stops = starts + rng.integers(1, 15, (9, 3))
    rules = {
        kernel.KEPT_SHARE: 0.93, kernel.RUIN_EQUITY: 900.0, kernel.RISK_AVERSION: 0.7, kernel.SIZE: 2.0,
        kernel.AT_CLOSE: at_close, kernel.LEGACY: legacy,
    }  # fmt: skip
    both = [Accounts(market(1, columns), starts, stops, rules, plain) for plain in (False, True)]
    seen = set()
    for _ in range(60):
        actions = rng.integers(0, 4, 9)
        compiled, plain = (accounts.step(*actions) for accounts in both)
        for name in OUTPUTS:
            np.testing.assert_array_equal(compiled[name], plain[name], err_msg=name)
        for name in STATE:
            np.testing.assert_array_equal(both[0].state[name], both[1].state[name], err_msg=name)
        np.testing.assert_array_equal(both[0].observe(), both[1].observe())
        np.testing.assert_array_equal(both[0].observe(), compiled["observation"])
        seen |= {"terminated"} if compiled["terminated"].any() else set()
        seen |= {"truncated"} if compiled["truncated"].any() else set()
    assert seen == {"terminated", "truncated"}


def flat_market(prices, spread=0.0):
    """Bars whose open is the close before, from a list of closes, with one feature: the row's number."""
    close = np.array(prices, np.float32)
    values = np.arange(len(prices), dtype=np.float32)[:, None]
    slip = np.full(len(prices), spread / 2)
    return [np.roll(close, 1), close, slip, values, np.empty(0, np.int64), np.float32([[0], [1], [-1000], [1000]])]


def test_a_trade_by_hand():
    accounts = Accounts(flat_market([100, 100, 110, 121, 121, 121]), [[0]], [[5]])
    first = accounts.step(BUY)  # in at the open of row 1, 100; marked at its close, 100
    assert first["marked_equity"] == pytest.approx(1000 * (1 - 1e-3))
    assert first["reward"] == pytest.approx(math.log(1 - 1e-3))
    second = accounts.step(HOLD)  # marked at 110
    assert second["marked_equity"] == pytest.approx(999 + 100)
    np.testing.assert_allclose(second["observation"][0], [2, 1, 0.1, 0.5])
    third = accounts.step(CLOSE)  # out at the open of row 3, 110
    assert third["marked_equity"] == pytest.approx(999 + 100 - 1e-3 * 1100) == accounts.state["balance"]
    np.testing.assert_array_equal(third["observation"][0], [3, 0, 0, 0])
    accounts.step(HOLD)
    assert accounts.step(SELL)["truncated"].tolist() == [True]


def test_a_reversal_is_two_fills_and_a_second_buy_is_none():
    accounts = Accounts(flat_market([100] * 5, spread=0.002), [[0]], [[4]], {kernel.SIZE: 0.5})
    bought = accounts.step(BUY)
    assert bought["marked_equity"] == pytest.approx(1000 - 0.5 - 500 * 0.001 / 1.001)
    assert accounts.step(BUY)["marked_equity"] == bought["marked_equity"]
    sold = accounts.step(SELL)
    balance = 1000 - 0.5 + 500 * ((99.9 - 100.1) / 100.1 - 1e-3 * 99.9 / 100.1)
    assert accounts.state["balance"][0] == pytest.approx(balance * (1 - 0.5e-3)) and sold["target_position"] == -1
    assert accounts.state["stake"][0] == pytest.approx(balance / 2) and accounts.state["bars_held"][0] == 1


@pytest.mark.parametrize("action", [HOLD, BUY, SELL])
def test_the_drawdown_stop_leaves_at_the_next_fill_whatever_the_action(action):
    accounts = Accounts(flat_market([100, 100, 120, 105, 60, 60]), [[0, 1]], [[5, 5]], {kernel.KEPT_SHARE: 0.9})
    accounts.step(BUY)
    accounts.step(HOLD)
    assert not accounts.step(HOLD)["terminated"]  # the close of row 3 is 12.5 % below the peak
    ended = accounts.step(action)  # left at the open of row 4, 105, before the fall
    assert ended["terminated"] and not ended["truncated"] and ended["target_position"] == 0
    assert ended["marked_equity"] == pytest.approx(999 + 50 - 1.05)
    np.testing.assert_array_equal(ended["final_observation"][0], [4, 0, 0, 0])
    np.testing.assert_array_equal(ended["observation"][0], [1, 0, 0, 0])
    assert accounts.state["row"] == 1 and accounts.state["equity"] == accounts.state["peak"] == 1000


def test_ruin_ends_an_episode_and_a_lost_balance_opens_nothing():
    inputs = flat_market([100, 100, 60, 60, 60, 60, 60])
    accounts = Accounts(inputs, [[0]], [[6]], {kernel.SIZE: 3.0})
    accounts.step(BUY)
    lost = accounts.step(HOLD)  # three times the balance fell by 40 %
    assert lost["marked_equity"] == pytest.approx(997 - 1200) and lost["reward"] == pytest.approx(
        math.log(1e-6 / 0.997)
    )
    ended = accounts.step(SELL)
    assert ended["terminated"] and ended["target_position"] == 0 and ended["reward"] == 0
    # Reversed before the loss is marked: the fill itself takes more than the balance.
    gap = flat_market([100, 100, 100, 100, 100, 100, 100])
    gap[0][2] = 60
    accounts = Accounts(gap, [[0]], [[6]], {kernel.SIZE: 3.0})
    accounts.step(BUY)
    reversed_ = accounts.step(SELL)
    assert reversed_["target_position"] == 0 and accounts.state["stake"] == 0 and reversed_["marked_equity"] < 0
    assert accounts.step(HOLD)["terminated"]


def test_the_end_of_the_rows_keeps_the_position_and_the_next_episodes_follow_in_turn():
    accounts = Accounts(flat_market(range(100, 120)), [[2, 10]], [[4, 12]])
    accounts.step(BUY)
    ended = accounts.step(HOLD)
    assert ended["truncated"] and ended["target_position"] == 1
    np.testing.assert_allclose(ended["final_observation"][0], [4, 1, 104 / 102 - 1, 0.5], rtol=1e-6)
    np.testing.assert_array_equal(ended["observation"][0], [10, 0, 0, 0])
    rows = []
    for _ in range(6):
        accounts.step(HOLD)
        rows.append((int(accounts.state["episode"][0]), int(accounts.state["row"][0])))
    assert rows == [(1, 11), (2, 2), (2, 3), (3, 10), (3, 11), (4, 2)]


def test_an_observation_is_scaled_and_clipped_and_without_nan():
    inputs = market(5)
    accounts = Accounts(inputs, [[7], [9], [20]], [[30], [30], [30]])
    offset, scale, low, high = inputs[5]
    with np.errstate(invalid="ignore"):
        z = np.clip((inputs[3][[7, 9, 20]] - offset) / scale, low, high)
    np.testing.assert_array_equal(accounts.observe()[:, :N_FEATURES], np.where(np.isnan(z), 0, z))
    np.testing.assert_array_equal(accounts.observe()[:, N_FEATURES:], 0)


def test_a_large_profit_and_a_long_hold_are_observed_as_1():
    accounts = Accounts(flat_market([100] + [350] * 9), [[0]], [[9]])
    accounts.inputs[0][1] = 100
    for action in (BUY, HOLD, HOLD, HOLD, HOLD):
        step = accounts.step(action)
    np.testing.assert_array_equal(step["observation"][0], [5, 1, 1, 1])


def test_no_environment_steps_nothing():
    none = np.empty((0, 1), np.int64)
    accounts = Accounts(market(), none, none)
    assert accounts.step()["reward"].shape == (0,) and accounts.observe().shape == (0, N_FEATURES + 3)


def test_the_logarithm_of_a_ratio_is_exact_on_both_sides_of_its_series():
    ends = [(1 + s) / (1 - s) for s in (kernel.SERIES_BELOW * (1 - 1e-12), kernel.SERIES_BELOW * (1 + 1e-12))]
    for ratio in [1.0, 1 + 1e-9, 0.999, *ends, *(1 / end for end in ends), 3.0, 1e-6, 1e6]:
        for before in (1e-3, 1.0, 1e9):
            after = np.float64(before * ratio)
            expected = float((Decimal(float(after)) / Decimal(before)).ln())
            assert kernel.log_ratio(after, np.float64(before)) == pytest.approx(expected, rel=1e-14, abs=1e-20)
