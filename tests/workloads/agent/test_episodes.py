"""Episodes in one call of the kernel equal those that are stepped through, to the last bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpupipe.estimators.torch.policy_weights import PolicyWeights
from gpupipe.runtime.errors import UserError
from gpupipe.workloads.agent.episodes_played import Played, play, play_step_by_step
from gpupipe.workloads.agent.iteration import compare
from gpupipe.workloads.agent.market import Market
from gpupipe.workloads.agent.windows import Rows
from tests.support.agent_market import made_bars
from tests.support.policies import arrays_of_policy

FEATURES = ("roc_1", "rsi_14")
EPISODES = ((14, 80), (60, 61), (100, 399), (200, 260))


def market_of(panel=None, **rules):
    chosen = made_bars() if panel is None else panel
    return Market.of(chosen, FEATURES, fit_rows=(14, 150), **{"commission_bps": 5.0, **rules})


def policies_of(n, seed, layers=1, **shape):
    """Policies that trade: their logits are spread widely."""
    found = []
    for k in range(n):
        arrays = arrays_of_policy(layers, seed=100 * seed + k, **shape)
        found.append(PolicyWeights.of({name: 3 * array for name, array in arrays.items()}))
    return found


def require_equal(left: Played, right: Played):
    for field in dataclasses.fields(Played):
        ours, theirs = getattr(left, field.name), getattr(right, field.name)
        assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs), field.name


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("fill", ["open", "close"])
@pytest.mark.parametrize("max_drawdown", [None, 0.1])
@pytest.mark.parametrize("seed", range(4))
def test_all_in_one_call_equals_step_by_step(layers, fill, max_drawdown, seed):
    market = market_of(made_bars(seed=seed), fill=fill, max_drawdown=max_drawdown, size=1.5)
    policies = policies_of(3, seed, layers)
    played = play(policies, market, EPISODES)
    require_equal(played, play_step_by_step(policies, market, EPISODES))
    lengths = [last - first for first, last in EPISODES]
    assert played.positions.shape == (3, 4, max(lengths)) and (played.steps <= lengths).all()
    if max_drawdown is None:
        assert (played.steps == lengths).all()
    for p, e in np.ndindex(3, 4):
        assert not played.positions[p, e, played.steps[p, e] :].any()


def test_episodes_of_these_tests_trade_and_some_stop():
    played = [play(policies_of(3, seed), market_of(made_bars(seed=seed), max_drawdown=0.1), EPISODES)
              for seed in range(4)]  # fmt: skip
    positions = np.concatenate([one.positions for one in played])
    assert set(np.unique(positions)) == {-1, 0, 1}
    lengths = [last - first for first, last in EPISODES]
    stopped = np.concatenate([one.steps < lengths for one in played])
    assert stopped.any() and not stopped.all()
    assert len({float(equity) for one in played for equity in one.equity.ravel()}) > 20


def test_ruin_and_other_heads():
    market = market_of(made_bars(volatility=0.1), size=4.0, ruin=0.3, commission_bps=50.0)
    policies = policies_of(2, 3, size=5, heads=(3, 7))
    played = play(policies, market, EPISODES)
    require_equal(played, play_step_by_step(policies, market, EPISODES))
    assert (played.steps[:, 2] < 299).all() and np.isfinite(played.growth).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_policy_alone_plays_as_among_others_and_an_episode_too(seed):
    market, policies = market_of(max_drawdown=0.2), policies_of(4, seed)
    together = play(policies, market, EPISODES)
    for p, e in np.ndindex(4, 4):
        alone = play([policies[p]], market, [EPISODES[e]])
        longest = alone.positions.shape[2]
        assert np.array_equal(alone.positions[0, 0], together.positions[p, e, :longest])
        assert alone.equity[0, 0] == together.equity[p, e] and alone.steps[0, 0] == together.steps[p, e]


@pytest.mark.parametrize("fill", ["open", "close"])
def test_bars_after_an_episode_change_nothing(fill):
    bars, policies, episodes = made_bars(), policies_of(3, 1), [(14, 80), (100, 200)]
    rng, columns = np.random.default_rng(5), {}
    for name, column in bars.columns.items():
        columns[name] = column.copy()
        columns[name][201:] = rng.permutation(column[201:])
    played = play(policies, market_of(bars, fill=fill), episodes)
    require_equal(played, play(policies, market_of(bars.replace(columns=columns), fill=fill), episodes))
    columns["close"][200] *= 1.5  # the last bar of an episode does
    other = play(policies, market_of(bars.replace(columns=columns), fill=fill), episodes)
    assert not np.array_equal(played.equity[:, 1], other.equity[:, 1])
    assert np.array_equal(played.equity[:, 0], other.equity[:, 0])


def test_short_validation_bars_make_fewer_episodes():
    market, policies = market_of(), policies_of(2, 5)
    for n, episodes in ((2, [(30, 31)]), (3, [(30, 32)]), (5, [(30, 31), (32, 34)]), (9, [(30, 33), (34, 38)])):
        n_episodes = 2 if n == 9 else 4
        scores = compare(policies, market, Rows(30, 30 + n), n_episodes, fast=True)
        assert scores == play(policies, market, episodes).growth.mean(axis=1).tolist()
        assert scores == compare(policies, market, Rows(30, 30 + n), n_episodes, fast=False)


def test_rows_that_the_market_does_not_have_are_refused():
    market, policies = market_of(), policies_of(1, 0)
    for playing in (play, play_step_by_step):
        with pytest.raises(UserError, match="rows 10 to 400"):
            playing(policies, market, [(10, 400)])
