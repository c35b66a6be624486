"""Every trade, equity and reward equals that of a plain loop over the bars, on made bars and on real gold."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gpupipe.workloads.agent.market import Environments, Market
from tests.support import market_oracle as oracle
from tests.support.agent_market import gold, made_bars

CLOSE = {"rtol": 1e-11, "atol": 1e-9}  # cash and units are rounded otherwise than a balance and a stake
FEATURES = ("roc_5", "rsi_14")
OPTIONS = {
    "fill": ("open", "close"), "reward": ("log", "legacy"), "commission_bps": (0.0, 2.0), "slippage_bps": (0.0, 3.0),
    "size": (0.3, 1.0, 4.0), "max_drawdown": (None, 0.05), "ruin": (0.0, 0.9),
    "spread": (None, 0.0, 0.03, "5 bps", "20 points"),
}  # fmt: skip


def choices(seed: int, n: int) -> list[dict]:
    """n sets of options, in which every value of each option occurs, and then drawn ones."""
    rng = np.random.default_rng(seed)
    most = max(map(len, OPTIONS.values()))
    columns = {name: [values[k % len(values)] for k in range(most)] for name, values in OPTIONS.items()}
    for name, values in OPTIONS.items():
        rng.shuffle(columns[name])
        columns[name] += [values[k] for k in rng.integers(0, len(values), n - most)]
    return [{name: columns[name][k] for name in OPTIONS} for k in range(n)]


def oracle_rules(options: dict) -> oracle.Rules:
    return oracle.Rules(
        options["fill"], options["commission_bps"] / 1e4, options["slippage_bps"] / 1e4, options["size"],
        max_drawdown=options["max_drawdown"], ruin=options["ruin"], reward=options["reward"],
    )  # fmt: skip


def spreads(panel, options: dict) -> np.ndarray:
    """The spread of each row in price units."""
    price = (panel.open if options["fill"] == "open" else panel.close).astype(float)
    return {
        None: panel.spread.astype(float), 0.0: 0 * price, 0.03: 0 * price + 0.03, "5 bps": 5e-4 * price,
        "20 points": 0 * price + 0.2,
    }[options["spread"]]  # fmt: skip


def trades_of(environments: Environments, positions: list[int], start: int) -> list[tuple[int, int, int | None]]:
    """Side, entry row and exit row of each trade of a position path: a maximal run of one position that is not 0."""
    trades = []
    row = start + 1
    for side, run in itertools.groupby(positions):
        n = len(list(run))
        if side:
            end = row + n
            trades.append((side, row, end if end <= start + len(positions) else None))
        row += n
    return trades


def compare(panel, options: dict, seed: int, rows: tuple[int, int], n: int = 8) -> set[str]:
    """Trade a few environments side by side and alone in the oracle; what happened."""
    rng = np.random.default_rng(seed)
    market = Market.of(panel, FEATURES, point_size=0.01 if options["spread"] == "20 points" else None, **options)
    environments = Environments(market, n, rows)
    observation = environments.reset()
    persistence = rng.uniform(0, 1, n)  # from a new action at each step to one that is held for long
    actions = rng.integers(0, 4, (rows[1] - rows[0], n))
    actions[rng.random(actions.shape) < persistence] = 0
    spread, rules = spreads(panel, options), oracle_rules(options)
    expected = [oracle.trade(panel.open, panel.close, spread, rules, actions[:, i], *rows) for i in range(n)]
    going, positions, fills = np.ones(n, bool), [[] for _ in range(n)], [{} for _ in range(n)]
    happened = set()
    for k, row in enumerate(actions):
        step = environments.step(row)
        for i in np.flatnonzero(going):
            episode, last = expected[i], k == len(expected[i].equity) - 1
            np.testing.assert_allclose(step.equity[i], episode.equity[k], **CLOSE)
            np.testing.assert_allclose(step.reward[i], episode.reward[k], rtol=1e-5, atol=1e-6)
            assert step.position[i] == episode.position[k]
            ended = bool(step.terminated[i]), bool(step.truncated[i])
            assert ended == ((episode.terminated, episode.truncated) if last else (False, False))
            observation = (step.final_observation if last else step.observation)[i]
            assert observation[-3] == episode.position[k]
            np.testing.assert_allclose(
                observation[-2:], [np.clip(episode.unrealised[k], -1, 1), min(episode.held[k] / 96, 1)], atol=1e-7
            )
            np.testing.assert_array_equal(
                observation[:-3], market.scaler.scaled(market.features.values[rows[0] + k + 1])
            )
            positions[i].append(int(step.position[i]))
            if not last:
                fills[i][rows[0] + k + 1] = environments.current("paid")[i]
            going[i] = not last
            happened |= {"terminated"} if ended[0] else set()
    assert not going.any()
    for i, episode in enumerate(expected):
        trades = [(trade.side, trade.entry_row, trade.exit_row) for trade in episode.trades]
        assert trades_of(environments, positions[i], rows[0]) == trades
        for trade in episode.trades:
            if trade.entry_row in fills[i]:
                np.testing.assert_allclose(fills[i][trade.entry_row], trade.entry, rtol=1e-13)
        sides = [trade.side for trade in episode.trades]
        ends = [trade.exit_row for trade in episode.trades]
        starts = [trade.entry_row for trade in episode.trades]
        happened |= {"reversal"} if any(a == b for a, b in zip(ends, starts[1:], strict=False)) else set()
        happened |= {"long"} if 1 in sides else set()
        happened |= {"short"} if -1 in sides else set()
        happened |= {"open at the end"} if None in ends else set()
    return happened


def test_made_bars_are_traded_like_a_plain_loop_under_all_options():
    happened, met = set(), {name: set() for name in OPTIONS}
    for seed, options in enumerate(choices(0, 40)):
        happened |= compare(made_bars(260, seed), options, seed, (20, 259))
        for name, value in options.items():
            met[name].add(value)
    assert met == {name: set(values) for name, values in OPTIONS.items()}
    assert happened == {"terminated", "reversal", "long", "short", "open at the end"}


@pytest.mark.parametrize("seed", range(6))
def test_gold_is_traded_like_a_plain_loop(seed):
    panel, rng = gold(), np.random.default_rng(seed)
    for k, options in enumerate(choices(seed, 5)):
        first = int(rng.integers(14, panel.n_rows - 600))
        compare(panel, options, 100 * seed + k, (first, first + 500), n=4)


def test_all_of_gold_in_one_episode():
    panel = gold()
    options = dict.fromkeys(OPTIONS) | {
        "fill": "open",
        "reward": "log",
        "commission_bps": 0.2,
        "slippage_bps": 0.1,
        "size": 1.0,
        "ruin": 0.0,
    }
    assert "reversal" in compare(panel, options, 0, (14, panel.n_rows - 1), n=2)


def test_a_fall_to_nothing_is_traded_like_a_plain_loop():
    """A position of many times the balance loses it at a mark, and at a fill, and opens nothing afterwards."""
    options = dict.fromkeys(OPTIONS) | {
        "fill": "open",
        "reward": "log",
        "commission_bps": 1.0,
        "slippage_bps": 1.0,
        "size": 60.0,
        "ruin": 0.0,
    }
    lost = set()
    for seed, reward in itertools.product(range(6), ("log", "legacy")):
        lost |= compare(made_bars(60, seed, 0.03), options | {"reward": reward}, seed, (20, 59), n=30)
    assert "terminated" in lost
