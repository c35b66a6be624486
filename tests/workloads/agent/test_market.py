"""The market and its environments: what is refused, what is observed, and that environments go on alike."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest

from gpupipe.data.outside import join
from gpupipe.data.panel import Panel
from gpupipe.estimators.torch.scaler import WindowScaler
from gpupipe.features.matrix import compute_features
from gpupipe.runtime.errors import UserError
from gpupipe.workloads.agent.market import STATE, Environments, Market
from tests.support.agent_market import BAR_NS, made_bars
from tests.support.panels import random_panel

FEATURES = ("roc_5", "rsi_14")


def market(panel: Panel | None = None, **options) -> Market:
    return Market.of(made_bars() if panel is None else panel, FEATURES, **options)


def changed(panel: Panel, name: str, row: int, value: float) -> Panel:
    column = panel.columns[name].copy()
    column[row] = value
    return panel.replace(**{name: column})


def trajectory(environments: Environments, actions: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """Copies of all that the steps gave; the final observations of episodes that ended."""
    steps = []
    for row in actions:
        step = environments.step(row)
        ended = step.terminated | step.truncated
        arrays = [getattr(step, field.name).copy() for field in dataclasses.fields(step)]
        arrays[4][~ended] = 0
        steps.append(tuple(arrays))
    return steps


def assert_same(got, expected, environment=slice(None)):
    """Equal arrays of equal steps; `environment`: those of `expected` that are compared."""
    for a, b in zip(got, expected, strict=True):
        assert all(np.array_equal(x, y[environment]) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("length", [None, 37])
def test_an_environment_does_not_depend_on_how_many_there_are(length):
    n = 5000  # more than a thread's share
    actions = np.random.default_rng(0).integers(0, 4, (120, n))
    of_market = market(spread="2 bps", max_drawdown=0.2)
    many = Environments(of_market, n, length=length, seed=5)
    together = many.reset(), trajectory(many, actions)
    for k in (0,) if length else (0, 1, n - 1):
        alone = Environments(of_market, 1, length=length, seed=5)
        assert np.array_equal(alone.reset(), together[0][k : k + 1])
        assert_same(trajectory(alone, actions[:, k : k + 1]), together[1], slice(k, k + 1))


def test_a_restored_state_goes_on_with_the_same_bits():
    actions = np.random.default_rng(1).integers(0, 4, (150, 20))
    of_market = market(spread=0.02, max_drawdown=0.1)
    first = Environments(of_market, 20, length=25, seed=3)
    first.reset(seed=11)
    trajectory(first, actions[:60])
    state = first.state()
    expected = trajectory(first, actions[60:])
    second = Environments(of_market, 20, length=25)
    second.restore(state)
    assert np.array_equal(second.observe()[:, :2], second.market.scaler.scaled(
        of_market.features.values[state["row"]]
    ))  # fmt: skip
    assert_same(trajectory(second, actions[60:]), expected)
    assert any(step[2].any() for step in expected) and any(step[3].any() for step in expected)
    assert np.array_equal(second.reset(), first.reset())


def test_a_state_of_other_environments_is_refused():
    environments = Environments(market(spread=0.0), 3)
    environments.reset()
    state = environments.state()
    for wrong in (
        {name: state[name] for name in STATE},
        {**state, "row": state["row"][:2]},
        {**state, "equity": state["equity"].astype(np.float32)},
        {**state, "row": state["stop"]},
        {**state, "stop": state["stop"] + 1},
    ):
        with pytest.raises(ValueError, match="the state is"):
            environments.restore(wrong)


def test_a_seed_draws_the_episodes_and_resets_go_through_them():
    environments = Environments(market(spread=0.0), 50, rows=(20, 300), length=40, seed=1)
    starts = []
    for seed in (None, None, 1, None, 2):
        environments.reset(seed)
        starts.append(environments.current("start").copy())
        assert (environments.current("stop") - starts[-1] == 40).all()
    assert np.array_equal(starts[0], starts[2]) and np.array_equal(starts[1], starts[3])
    assert not np.array_equal(starts[0], starts[1]) and not np.array_equal(starts[0], starts[4])
    assert min(map(np.min, starts)) >= 20 and max(map(np.max, starts)) <= 260
    assert len(np.unique(starts[0])) > 30


def test_environments_may_have_rows_of_their_own():
    environments = Environments(market(spread=0.0), 3, rows=(np.array([20, 50, 90]), np.array([30, 80, 95])))
    environments.reset()
    ended = [[], [], []]
    for k in range(1, 31):
        step = environments.step([0, 0, 0])
        for i in np.flatnonzero(step.truncated):
            ended[i].append(k)
    assert ended == [[10, 20, 30], [30], [5, 10, 15, 20, 25, 30]]


def test_the_future_changes_no_observation_and_no_equity_before_it():
    panel, t = made_bars(), 200
    rng = np.random.default_rng(2)
    later = {name: panel.columns[name].copy() for name in ("open", "high", "low", "close", "volume", "spread")}
    for name, column in later.items():
        column[t + 1 :] *= rng.uniform(0.5, 2, len(column) - t - 1).astype(np.float32)
        later[name] = column
    scaler = market(fit_rows=(14, t)).scaler
    actions = rng.integers(0, 4, (t - 20, 6))
    seen = []
    for bars in (panel, panel.replace(columns={**panel.columns, **later})):
        environments = Environments(market(bars, scaler=scaler), 6, rows=(20, 399))
        seen.append(([environments.reset()], trajectory(environments, actions)))
    assert_same(seen[0][0], seen[1][0])
    assert_same(seen[0][1], seen[1][1])
    assert np.array_equal(market(panel.replace(columns={**panel.columns, **later}), fit_rows=(14, t)).scaler.offset,
                          scaler.offset)  # fmt: skip


def test_columns_select_features_and_the_matrix_is_not_copied():
    panel = made_bars()
    matrix = compute_features(panel, ("roc_5", "rsi_14", "natr_14"))
    some = Market.of(panel, matrix, columns=("natr_14", "roc_5"), spread=0.0)
    alone = Market.of(panel, ("natr_14", "roc_5"), spread=0.0, fit_rows=(some.first_row, 399))
    assert some.features.values is matrix.values and some.observed[:2] == alone.observed[:2] == ("natr_14", "roc_5")
    assert np.array_equal(Environments(some, 4, rows=(30, 99)).reset(), Environments(alone, 4, rows=(30, 99)).reset())
    with pytest.raises(UserError, match="no feature rsi_15 among roc_5"):
        Market.of(panel, matrix, columns=("rsi_15",), spread=0.0)
    with pytest.raises(ValueError, match="the scaler is for 3 columns, and 2 are observed"):
        some.scaled(WindowScaler(*(np.full(3, k, np.float32) for k in (0, 1, -1, 1))))


def test_thousands_of_environments_need_little_memory_beside_the_matrix():
    of_market = Market.of(made_bars(100_000), "core", spread=0.0)
    tracemalloc.start()
    try:
        environments = Environments(of_market, 4096, length=2000)
        environments.reset()
        for k in range(3):
            environments.step(np.full(4096, k))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20  # the limit is 1 GB; the matrix alone has 100,000 rows of 89 columns


def test_steps_write_to_given_arrays():
    environments = Environments(market(spread=0.0), 2)
    environments.reset()
    into = environments.new_step()
    assert environments.step([1, 2], into) is into and into.position.tolist() == [1, -1]
    kept = into.observation.copy()
    environments.step([3, 3])
    assert np.array_equal(into.observation, kept)
    other = Environments(market(spread=0.0), 3).new_step()
    with pytest.raises(ValueError, match=r"observation has shape \(3, 5\), expected \(2, 5\)"):
        environments.step([0, 0], other)
    with pytest.raises(ValueError, match=r"actions have shape \(1,\), expected \(2,\)"):
        environments.step([0])
    with pytest.raises(ValueError, match="call reset first"):
        Environments(market(spread=0.0), 3).step([0, 0, 0])


def test_the_spread_of_a_column_a_number_points_or_basis_points():
    panel = made_bars()
    costs = {"slippage_bps": 0.0}
    price, column = panel.open.astype(np.float64), panel.spread.astype(np.float64)
    for options, expected in (
        ({}, column / 2 / price),
        ({"spread": "spread", "fill": "close"}, column / 2 / panel.close.astype(np.float64)),
        ({"spread": 0.5}, 0.25 / price),
        ({"spread": "0.5"}, 0.25 / price),
        ({"spread": "25 points", "point_size": 0.01}, 0.125 / price),
        ({"spread": np.full(400, 3), "point_size": 0.01}, 0.015 / price),
        ({"spread": "4 bps"}, np.full(400, 2e-4)),
        ({"spread": 0}, np.zeros(400)),
    ):
        np.testing.assert_allclose(market(panel, **costs, **options).slip, expected, rtol=1e-14)
    slip = market(panel, spread="4 bps", slippage_bps=3.0).slip
    assert (slip == (4.0 / 2 + 3.0) / 1e4).all()


def test_a_column_of_spreads_is_joined_from_a_file_of_bars():
    import pyarrow as pa

    panel = made_bars()
    bare = panel.replace(columns={name: panel.columns[name] for name in panel.columns if name != "spread"})
    table = pa.table({"time": pa.array(panel.time_ns, pa.timestamp("ns")), "spread": np.full(400, 3.0)})
    joined, _ = join(bare, table, least_coverage=None)
    assert panel.time_ns[1] == BAR_NS
    slip = market(joined, point_size=0.01, slippage_bps=0).slip
    np.testing.assert_allclose(slip, 0.015 / panel.open.astype(np.float64), rtol=1e-6)


def without_spread() -> Panel:
    panel = made_bars()
    return panel.replace(columns={name: panel.columns[name] for name in panel.columns if name != "spread"})


@pytest.mark.parametrize(("panel", "options", "message"), [
    (random_panel((50, 60)), {"spread": 0.1}, r"exactly one symbol, and the panel has S000, S001: pass .*== 'S000'"),
    (without_spread(), {}, r"no column of the spread and none is given; pass spread: a number in price units"),
    (made_bars(), {"spread": "wide"}, r"'wide': no column of the panel \(open, .*\); spread: a number"),
    (made_bars(), {"spread": "25 points"}, "pass point_size"),
    (made_bars(), {"spread": 0.1, "point_size": 0}, "point_size 0: expected the price of a point"),
    (made_bars(), {"spread": np.ones(3)}, r"shape \(3,\), expected \(400,\)"),
    (made_bars(), {"spread": np.full(400, 20)}, "if the column counts points, pass point_size"),
    (made_bars(), {"spread": 1e4}, "as large as the price in 400 of 400 rows, first at 1970-01-01: "),
    (changed(made_bars(), "spread", 2, np.nan), {}, "not known or negative in 1 of 400 rows, first at .*T00:30:00Z"),
    (changed(made_bars(), "open", 4, np.nan), {}, "MADE: the open is not known or not positive in 1 .*T01:00:00Z"),
    (changed(made_bars(), "close", 4, 0), {}, "MADE: the close is not known or not positive in 1 .*T01:00:00Z"),
    (made_bars(), {"fill": "high"}, "fill 'high': expected open or close"),
    (made_bars(), {"reward": "sharpe"}, "reward 'sharpe': expected log or legacy"),
    (made_bars(), {"size": 0}, "size 0: expected a number above 0"),
    (made_bars(), {"commission_bps": -1}, "commission_bps -1: expected basis points"),
    (made_bars(), {"max_drawdown": 20}, "max_drawdown 20: expected a share between 0 and 1"),
    (made_bars(), {"ruin": 1}, "ruin 1: expected a share of the initial balance"),
    (made_bars(), {"risk_aversion": -1}, "risk_aversion -1: expected 0 or more"),
    (made_bars(), {"fit_rows": (0, 400)}, "rows 0 to 400: expected a first before a last row, among the 400 rows"),
])  # fmt: skip
def test_what_no_market_can_be_made_of_is_refused(panel, options, message):
    with pytest.raises(UserError, match=message):
        Market.of(panel, FEATURES, **options)


@pytest.mark.parametrize(("options", "message"), [
    ({"n": 0}, "0 environments: expected 1 or more"),
    ({"n": 2, "rows": (30, 30)}, "rows 30 to 30: expected a first before a last"),
    ({"n": 2, "rows": (-1, 30)}, "rows -1 to 30"),
    ({"n": 2, "rows": (0.0, 30)}, r"rows float64 \(\): expected two numbers"),
    ({"n": 2, "rows": (np.arange(3), 30)}, r"rows int64 \(3,\): expected two numbers of rows, or two for each of 2"),
    ({"n": 2, "rows": (20, 30), "length": 11}, "an episode of 11 steps needs 12 rows, and there are 11"),
])  # fmt: skip
def test_rows_that_the_market_does_not_have_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Environments(market(), **options)


def test_bounds_hold_every_observation():
    of_market = market(changed(made_bars(), "volume", 3, 1), size=3.0)
    low, high = of_market.bounds()
    environments = Environments(of_market, 30, rows=(0, 399))
    observations = [environments.reset()]
    for row in np.random.default_rng(4).integers(0, 4, (300, 30)):
        observations.append(environments.step(row).observation.copy())
    assert (np.array(observations) >= low).all() and (np.array(observations) <= high).all() and (low < high).all()


def test_environments_on_a_device_equal_those_of_the_host(device):
    """On a GPU a sum of products may be contracted: equities then differ in the last places."""
    panel, actions = made_bars(), np.random.default_rng(6).integers(0, 4, (120, 9))
    on_host = Environments(market(panel, max_drawdown=0.1), 9, length=40)
    there = market(panel.to(device), max_drawdown=0.1, scaler=on_host.market.scaler)
    environments = Environments(there, 9, length=40)
    on_host.reset(seed=2), environments.reset(seed=2)
    for k, row in enumerate(actions):
        step, expected = environments.step(device.asarray(row)), on_host.step(row)
        for field in dataclasses.fields(step):
            got = device.to_host(getattr(step, field.name))
            np.testing.assert_allclose(got, getattr(expected, field.name), rtol=1e-6, atol=1e-6, err_msg=field.name)
        if k == 60:
            environments.restore(environments.state())
    np.testing.assert_allclose(device.to_host(environments.observe()), on_host.observe(), rtol=1e-6, atol=1e-6)
