"""Gymnasium's environments: they pass its checks, and give what Environments gives."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from gpupipe import agent
from gpupipe.runtime.errors import UserError
from gpupipe.workloads.agent.market import Environments, Market
from tests.support.agent_market import made_bars

gymnasium = pytest.importorskip("gymnasium")

FEATURES = ("roc_5", "rsi_14")


@pytest.mark.parametrize("options", [
    {}, {"episode_length": 30}, {"reward": "legacy", "fill": "close"}, {"features": "core", "rows": (60, 90)},
], ids=str)  # fmt: skip
def test_gymnasium_checks_the_environment_without_a_warning(options):
    from gymnasium.utils.env_checker import check_env

    check_env(agent.make_env(made_bars(), **{"features": FEATURES, "spread": "2 bps", **options}))


def test_the_environment_gives_what_environments_give():
    env = agent.make_env(made_bars(), FEATURES, spread=0.02, episode_length=25, max_drawdown=0.1, seed=4)
    plain = Environments(Market.of(made_bars(), FEATURES, spread=0.02, max_drawdown=0.1), 1, length=25, seed=4)
    observation, info = env.reset()
    assert np.array_equal(observation, plain.reset()[0]) and info["equity"] == 10_000 and info["position"] == 0
    ends = []
    for action in np.random.default_rng(0).integers(0, 4, 300):
        row = plain.current("row")[0]
        observation, reward, terminated, truncated, info = env.step(action)
        step = plain.step([action])
        assert (reward, terminated, truncated) == (step.reward[0], step.terminated[0], step.truncated[0])
        assert info == {"equity": step.equity[0], "position": step.position[0], "row": row + 1}
        if not (terminated or truncated):
            assert np.array_equal(observation, step.observation[0])
            continue
        ends.append(terminated)
        assert np.array_equal(observation, step.final_observation[0])
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(0)
        observation, info = env.reset()
        assert np.array_equal(observation, step.observation[0]) and info["row"] == plain.current("row")[0]
    assert True in ends and False in ends


def test_the_vector_environment_follows_gymnasiums_conventions():
    from gymnasium.vector import AutoresetMode, SyncVectorEnv

    n, options = 4, {"features": FEATURES, "spread": 0.02, "max_drawdown": 0.1, "rows": (20, 60)}
    ours = agent.make_env(made_bars(), n_envs=n, **options)
    theirs = SyncVectorEnv([lambda: agent.make_env(made_bars(), **options)] * n, autoreset_mode=AutoresetMode.SAME_STEP)
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]
    for name in ("num_envs", "single_observation_space", "single_action_space", "observation_space", "action_space"):
        assert getattr(ours, name) == getattr(theirs, name), name
    (mine, info), (expected, expected_info) = ours.reset(seed=1), theirs.reset(seed=1)
    assert np.array_equal(mine, expected) and ours.observation_space.contains(mine)
    assert {name: array.tolist() for name, array in info.items()} == {
        name: array.tolist() for name, array in expected_info.items()
    }
    ours.action_space.seed(0)
    n_ended, kept = 0, []
    for _ in range(150):
        actions = ours.action_space.sample()
        got, expected = ours.step(actions), theirs.step(actions)
        for a, b in zip(got[:4], expected[:4], strict=True):
            assert np.array_equal(a, b)
        assert ("final_obs" in got[4]) == ("final_obs" in expected[4]) == bool((got[2] | got[3]).any())
        for name in ("equity", "position", "row"):
            assert np.array_equal(got[4][name], expected[4][name]), name
        if "final_obs" in got[4]:
            mask = got[4]["_final_obs"]
            n_ended += mask.sum()
            assert np.array_equal(mask, expected[4]["_final_obs"])
            assert np.array_equal(got[4]["_final_info"], expected[4]["_final_info"])
            for k in np.flatnonzero(mask):
                assert np.array_equal(got[4]["final_obs"][k], expected[4]["final_obs"][k])
            assert all(value is None for value in got[4]["final_obs"][~mask])
            final, their_final = got[4]["final_info"], expected[4]["final_info"]
            assert np.array_equal(final["equity"][mask], their_final["equity"][mask])
        kept.append((got[0], got[0].copy()))
    assert n_ended > 10 and all(np.array_equal(array, copy) for array, copy in kept)
    ours.close()
    theirs.close()


def test_a_seed_repeats_the_episodes():
    envs = agent.make_env(made_bars(), FEATURES, 50, spread=0.0, episode_length=20)
    rows = [envs.reset(seed=seed)[1]["row"] for seed in (7, None, 7, 8)]
    assert np.array_equal(rows[0], rows[2])
    assert not np.array_equal(rows[0], rows[1]) and not np.array_equal(rows[0], rows[3])
    with pytest.raises(ValueError, match="reset_mask"):
        envs.reset(options={"reset_mask": np.ones(50, bool)})


@pytest.mark.parametrize("action", [4, -1, 1.5, [1], "buy"])
def test_an_action_that_is_none_is_refused(action):
    env = agent.make_env(made_bars(), FEATURES, spread=0.0)
    env.reset()
    with pytest.raises(ValueError, match=r"expected 0 \(hold\), 1 \(buy\), 2 \(sell\), 3 \(close\)"):
        env.step(action)


@pytest.mark.parametrize(("actions", "message"), [
    ([0, 4], r"actions from 0 to 4: expected 0 \(hold\)"), ([-1, 0], "actions from -1 to 0"),
    ([0.0, 1.0], r"actions are float64 \(2,\), expected integers \(2,\)"), ([0], r"int64 \(1,\)"),
])  # fmt: skip
def test_actions_that_are_none_are_refused(actions, message):
    envs = agent.make_env(made_bars(), FEATURES, 2, spread=0.0)
    envs.reset()
    with pytest.raises(ValueError, match=message):
        envs.step(actions)


def test_a_missing_gymnasium_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(UserError, match=r"make_env needs Gymnasium: pip install -e '\.\[agent\]'"):
        agent.make_env(made_bars(), FEATURES, spread=0.0)


def test_importing_agent_loads_neither_gymnasium_nor_torch_and_making_one_no_torch():
    code = """
import sys
from gpupipe import agent
assert not {"gymnasium", "torch", "numba"} & set(sys.modules)
from tests.support.agent_market import made_bars
agent.make_env(made_bars(), ["roc_5"], 2, spread=0.0).reset()
assert "gymnasium" in sys.modules and "torch" not in sys.modules
"""
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, cwd=agent.__file__.rpartition("/gpupipe/")[0]
    )


def test_recurrent_ppo_of_sb3_contrib_trains_on_it_unchanged():
    sb3_contrib = pytest.importorskip("sb3_contrib")
    env = agent.make_env(made_bars(), FEATURES, spread="2 bps", episode_length=50)
    model = sb3_contrib.RecurrentPPO("MlpLstmPolicy", env, n_steps=32, batch_size=16, n_epochs=1, seed=0, device="cpu")
    model.learn(96)
    actions, states = model.predict(env.reset(seed=0)[0], deterministic=True)
    assert env.action_space.contains(actions) and states is not None
