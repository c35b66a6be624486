"""Barriers reached to the cent: the labels of decimal prices are those of integer arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from gpupipe.backtest import OutOfSample, Rules, backtest
from gpupipe.backtest.engine import REASONS
from gpupipe.kernels.barriers import barrier_above, barrier_below
from gpupipe.targets.barriers import barrier_prices
from gpupipe.targets.triple_barrier import tp_dd_labels
from tests.support.panels import random_panel

BUY, HOLD, SELL = 2, 1, 0
# (digits after the point, the price below which float32 keeps such decimals apart)
REACH = ((0, 2**24), (1, 1_048_576), (2, 131_072), (3, 16_384), (4, 1_024), (5, 128), (6, 16), (7, 1))


def ticks_around(ticks, t, side):
    """The first whole number of ticks that reaches ticks * (1 + side * t), and the last that falls short of it."""
    share = 1 + side * Fraction(str(t))
    product = ticks * share.numerator
    reached = -(-product // share.denominator) if side > 0 else product // share.denominator
    return reached, reached - side


def sample(digits, below, step):
    """Whole numbers of ticks: one in `step`, and all near a power of two, where the step of float32 changes."""
    powers = 2 ** np.arange(0, int(np.log2(below)) + 1) * 10**digits
    near = (powers[:, None] + np.arange(-40, 41)).ravel()
    ticks = np.unique(np.concatenate([np.arange(1, below * 10**digits, step), near]))
    return ticks[(ticks > 0) & (ticks < below * 10**digits)]


@pytest.mark.parametrize("t", [0.01, 0.02, 0.05, 0.1, 0.2, 0.0125, 0.00015])
@pytest.mark.parametrize(("digits", "below"), REACH)
def test_a_decimal_reaches_a_barrier_as_integers_do(digits, below, t):
    ticks, scale = sample(digits, below, 997), 10**digits
    for side, barrier in zip((1, -1), barrier_prices((ticks / scale).astype(np.float32), t), strict=True):
        reached, short = (n / scale for n in ticks_around(ticks, t, side))
        inside = reached < below
        reached, short = reached.astype(np.float32)[inside], short.astype(np.float32)[inside]
        assert inside.sum() > 100 and (side * reached >= side * barrier[inside]).all()
        assert not (side * short >= side * barrier[inside]).any()


def test_beyond_the_reach_two_decimals_may_be_one_float32():
    """Four digits above 1,024: a high that is one tick short of the barrier can be called."""
    ticks = np.arange(10_300_000, 10_400_000)
    _, short = ticks_around(ticks, 0.05, 1)
    barrier, _ = barrier_prices((ticks / 1e4).astype(np.float32), 0.05)
    assert ((short / 1e4).astype(np.float32) >= barrier).any()


@pytest.mark.parametrize("rule", ["take_profit_first", "first_touch"])
@pytest.mark.parametrize("window", ["bars", "calendar"])
@pytest.mark.parametrize("t", [0.05, 0.1, 0.2])
def test_labels_of_limits_are_those_of_decimals(device, t, window, rule):
    """Closes of whole ticks and the next bar's high (or low) at the limit, or a tick short of it."""
    for digits in (2, 3, 4):
        ticks, scale = (
            np.arange(40, 1000 * 10**digits, 99_991 if digits == 4 else 9_973 if digits == 3 else 991),
            10**digits,
        )
        ticks = ticks[ticks * (1 + t) < 1_000 * scale]
        for side, called in ((1, BUY), (-1, SELL)):
            for limit, expected in zip(ticks_around(ticks, t, side), (called, HOLD), strict=True):
                close = np.repeat(ticks / scale, 2).astype(np.float32)
                other = close.copy()
                other[1::2] = (limit / scale).astype(np.float32)
                panel = random_panel((len(close),))
                columns = {"high": other if side > 0 else close, "low": other if side < 0 else close}
                panel = panel.replace(open=close, close=close, **columns).to(device)
                y = device.to_host(tp_dd_labels(panel, (1,), (t,), rule=rule, window=window).y)[::2, 0]
                np.testing.assert_array_equal(y, expected)


def test_multiples_of_a_volatility_use_the_same_barriers(device):
    close = np.float32([4.88, 4.88, 0.88, 0.88, 62.88, 62.88])
    high = np.float32([4.88, 5.49, 0.88, 0.99, 62.88, 70.74])
    panel = random_panel((6,)).replace(open=close, high=high, low=close, close=close).to(device)
    eighth = device.asarray(np.full(6, 0.0625, np.float32))  # in float32 half of it, as a decimal, is exact
    labels = tp_dd_labels(panel, (1,), (), multiples=(2,), volatility=eighth)
    assert device.to_host(labels.y)[::2, 0].tolist() == [BUY, BUY, BUY]
    assert (close[::2] * np.float32(1.125) > high[1::2]).any(), "a float32 product does the same here"


@pytest.mark.parametrize(("side", "price", "reason"), [("long", 4.73, "target"), ("short", 4.73, "stop")])
def test_a_trade_leaves_at_the_limit_to_the_cent(side, price, reason):
    opens, highs = np.float32([4.30, 4.30, 4.30]), np.float32([4.30, 4.30, 4.73])
    panel = random_panel((3,)).replace(open=opens, high=highs, low=opens, close=opens)
    values = np.full((3, 1, 3), np.nan, np.float32)
    values[0, 0] = (0, 0, 1) if side == "long" else (1, 0, 0)
    n_sectors = len(panel.groups)
    source = OutOfSample(
        values, np.full((1, n_sectors, 2), 0.5, np.float32), (2,), (0.1,), ("drawn",), np.zeros(n_sectors, np.int64),
        np.full(n_sectors, 2**62), "drawn", panel,
    )  # fmt: skip
    trades = backtest(source, Rules(side=side)).trades
    assert trades.exit_price.tolist() == [np.float32(price)] and REASONS[trades.reason[0]] == reason


def test_a_barrier_is_within_two_steps_of_the_product():
    prices = np.exp(np.random.default_rng(3).uniform(-12, 18, 5000)).astype(np.float32)
    for t in (0.01, 0.1):
        for sign, barrier in zip((1, -1), barrier_prices(prices, t), strict=True):
            exact = (prices.astype(np.float64) * (1 + sign * t)).astype(np.float32)
            assert (np.abs(barrier.view(np.int32).astype(np.int64) - exact.view(np.int32)) <= 2).all()


def test_prices_that_are_none_give_none():
    prices = np.float32([np.nan, 0, -3, np.inf, 1e30])
    above, below = barrier_prices(prices, 0.1)
    np.testing.assert_allclose(above, [np.nan, 0, -3.3, np.inf, 1.1e30], rtol=1e-6)
    np.testing.assert_allclose(below, [np.nan, 0, -2.7, np.inf, 0.9e30], rtol=1e-6)
    plain = (
        [barrier_above(price, np.float64(1.1)) for price in prices],
        [barrier_below(price, np.float64(0.9)) for price in prices],
    )
    np.testing.assert_array_equal(plain, [above, below])


@pytest.mark.parametrize("t", [0.0, 1.0, -0.1, float("nan")])
def test_a_threshold_outside_of_0_and_1_is_refused(t):
    with pytest.raises(ValueError, match=r"inside \(0, 1\)"):
        barrier_prices(np.float32([1]), t)
