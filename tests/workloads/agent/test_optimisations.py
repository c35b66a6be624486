"""The seven optimisations of the agent's training: each acts where it is on, and does not where it is off."""

from __future__ import annotations

import dataclasses
import functools
import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="policies are trained by Torch, which has no CPU build for this Python")

from gpupipe.estimators.torch import recurrent_ppo
from gpupipe.estimators.torch.policy_files import StoredPolicy
from gpupipe.workloads.agent import recipe, schedule, settings, upkeep
from gpupipe.workloads.agent.windows import iterations
from tests.support.agent_market import made_bars
from tests.support.agent_run import N_ROWS, lasting, rows_of, run_agent, small_settings

SAMPLES = 64  # of an update
# A run of which only the switches that are looked at are on.
PLAIN = tuple(f"agent.{name}=false" for name in ("warm_start", "convergence_stop", "progressive", "adaptive_timesteps",
                                                 "adaptive_evaluation"))  # fmt: skip


def on(name):
    return (*(setting for setting in PLAIN if name not in setting), f"agent.{name}=true")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """(OUT, summary) of a run without those optimisations that change what is trained."""
    out = tmp_path_factory.mktemp("plain") / "OUT"
    return out, run_agent(out, *PLAIN)[0]


def training(out, kind, iteration=None):
    rows = [row for row in rows_of(out, "training.parquet") if row["kind"] == kind]
    return [row for row in rows if iteration is None or row["iteration"] == iteration]


def test_without_them_every_iteration_does_the_same(plain):
    out, whole = plain
    for number, row in enumerate(whole["agent"]["iterations"]):
        assert (row["budget"], row["steps"], row["stopped"], row["warm"]) == (384, [384], ["timesteps"], False)
        updates = training(out, "update", number)
        assert [update["steps"] for update in updates] == [SAMPLES * k for k in range(1, 7)]
        for name, value in (("learning_rate", 0.01), ("epochs", 2), ("entropy_weight", 0.01), ("clip", 0.2)):
            assert {update[name] for update in updates} == {value}
        assert [row["steps"] for row in training(out, "evaluation", number)] == [128, 256, 384]
    saved = whole["agent"]["optimisations"]
    assert saved["adaptive_timesteps"]["steps_saved"] == saved["convergence_stop"]["steps_saved"] == 0
    assert saved["warm_start"]["iterations"] == saved["convergence_stop"]["candidates"] == 0
    assert saved["original"] is None and not any(saved["on"][name] for name in ("warm_start", "progressive"))


def test_1_later_iterations_have_fewer_timesteps(plain, tmp_path):
    whole, _ = run_agent(tmp_path, *on("adaptive_timesteps"), "agent.total_timesteps=1280", "agent.min_timesteps=1200")
    expected = [schedule.timesteps(1280, 1200, number, adaptive=True) for number in range(3)]
    assert expected == [1280, 1216, 1200]
    rows = whole["agent"]["iterations"]
    assert [row["budget"] for row in rows] == expected
    assert [row["steps"] for row in rows] == [[SAMPLES * -(-budget // SAMPLES)] for budget in expected]
    assert whole["agent"]["optimisations"]["adaptive_timesteps"]["steps_saved"] == 64 + 80


def test_2_a_warm_start_begins_with_the_policy_of_before_and_another_rate(plain, tmp_path, monkeypatch):
    began = []

    class Watched(recurrent_ppo.Trainer):
        def __init__(self, *arguments, **options):
            assert options["torch_device"] == "cpu"  # that of the market
            super().__init__(*arguments, **options)
            began.append(({name: p.detach().numpy().copy() for name, p in self.policy.named_parameters()},
                          self.learning_rate))  # fmt: skip

    monkeypatch.setattr(recurrent_ppo, "Trainer", Watched)
    whole, _ = run_agent(tmp_path, *on("warm_start"))
    assert [rate for _, rate in began] == [0.01, 0.005, 0.005]
    for number in (1, 2):
        folder = tmp_path / "iterations" / f"iteration_{number - 1:03d}"
        before = StoredPolicy.from_contents({path.name: path.read_bytes() for path in folder.iterdir()}).arrays
        arrays = began[number][0]
        assert arrays.keys() == before.keys()
        assert all(np.array_equal(array, before[name]) for name, array in arrays.items())
        assert {row["learning_rate"] for row in training(tmp_path, "update", number)} == {0.005}
        assert training(tmp_path, "evaluation", number)[0]["steps"] == 0  # the policy of before competes
    assert [row["warm"] for row in whole["agent"]["iterations"]] == [False, True, True]
    assert whole["agent"]["optimisations"]["warm_start"]["iterations"] == 2
    first = "iterations/iteration_000/policy.safetensors", "iterations/iteration_001/policy.safetensors"
    ours, theirs = lasting(tmp_path), lasting(plain[0])
    assert ours[first[0]] == theirs[first[0]] and ours[first[1]] != theirs[first[1]]


def test_3_convergence_ends_an_iteration_and_not_the_walk_forward(plain, tmp_path):
    chosen = ("agent.total_timesteps=640", "agent.early_stopping_patience=1", "agent.convergence_threshold=10")
    whole, _ = run_agent(tmp_path, *on("convergence_stop"), *chosen)
    rows = whole["agent"]["iterations"]
    assert [(row["steps"], row["stopped"]) for row in rows] == [([256], ["converged"])] * 3
    saved = whole["agent"]["optimisations"]["convergence_stop"]
    assert saved["candidates"] == 3 and saved["steps_saved"] == 3 * (640 - 256)
    assert len(rows_of(tmp_path, "positions.parquet")) == len(rows_of(plain[0], "positions.parquet"))
    # Until then both trained the same.
    ours, theirs = (training(out, "update", 0)[:4] for out in (tmp_path, plain[0]))
    assert ours == theirs


def test_3_no_candidate_stops_before_the_least_timesteps_or_after_the_last(tmp_path):
    chosen = ("agent.early_stopping_patience=1", "agent.convergence_threshold=10")
    whole, _ = run_agent(tmp_path, *on("convergence_stop"), *chosen, "agent.min_timesteps=384")
    assert [row["stopped"] for row in whole["agent"]["iterations"]] == [["timesteps"]] * 3
    assert whole["agent"]["optimisations"]["convergence_stop"]["candidates"] == 0


def test_4_phases_reach_the_optimiser(tmp_path):
    run_agent(tmp_path, *on("progressive"), "ppo.epochs=4", "agent.total_timesteps=640")
    rows = training(tmp_path, "update", 0)
    for k, row in enumerate(rows):
        expected = schedule.values_at(k / 10, schedule.Values(0.01, 4, 0.01, 0.2), progressive=True)
        assert (row["learning_rate"], row["epochs"]) == (expected.learning_rate, expected.epochs)
        assert (row["entropy_weight"], row["clip"]) == (expected.entropy, expected.clip)
    assert len(rows) == 10
    for name in ("learning_rate", "epochs", "entropy_weight", "clip"):
        assert len({row[name] for row in rows}) > 1, name


def test_5_the_cache_is_hit_and_changes_no_byte(plain, tmp_path):
    out, whole = plain
    cache = whole["agent"]["optimisations"]["cache_environments"]
    # Each iteration asks, and its candidate: of the features once, and of a scaler in each iteration, there was none.
    assert (cache["asked"], cache["found"]) == (12, 8) and cache["hit_rate"] == pytest.approx(2 / 3)
    assert cache["seconds_saved"] > 0
    without, _ = run_agent(tmp_path / "without", *PLAIN, "agent.cache_environments=false")
    off = without["agent"]["optimisations"]["cache_environments"]
    assert (off["asked"], off["found"], off["seconds_saved"]) == (12, 0, 0.0)
    assert lasting(tmp_path / "without") == lasting(out)
    assert (upkeep.kept(out)["features"], upkeep.kept(out)["scalers"]) == (1, 3)


def test_5_candidates_share_the_cache(tmp_path):
    whole, _ = run_agent(tmp_path, *PLAIN, "agent.candidates=3")
    cache = whole["agent"]["optimisations"]["cache_environments"]
    assert (cache["asked"], cache["found"]) == (24, 20)


def test_5_a_later_run_finds_the_environments_until_they_are_removed(tmp_path):
    run_agent(tmp_path, *PLAIN)
    again, _ = run_agent(tmp_path, *PLAIN, seed=1)
    assert again["agent"]["optimisations"]["cache_environments"]["hit_rate"] == 1
    first = lasting(tmp_path)
    assert upkeep.clear(tmp_path)["features"] == 1
    assert upkeep.kept(tmp_path) == {"features": 0, "scalers": 0, "bytes": 0}
    assert not run_agent(tmp_path, *PLAIN, seed=1)[1]  # the run itself is whole
    later, _ = run_agent(tmp_path, *PLAIN, seed=2)
    assert later["agent"]["optimisations"]["cache_environments"]["found"] == 8
    assert lasting(tmp_path) != first
    fresh = tmp_path / "fresh"
    run_agent(fresh, *PLAIN, seed=2)
    assert lasting(fresh) == {name: lasting(tmp_path)[name] for name in lasting(fresh)}


def test_6_evaluations_become_denser(plain, tmp_path):
    chosen = ("agent.eval_freq=256", "agent.total_timesteps=1024", "agent.convergence_threshold=10")
    run_agent(tmp_path / "denser", *on("adaptive_evaluation"), *chosen)
    run_agent(tmp_path / "even", *PLAIN, *chosen)
    at = {name: [row["steps"] for row in training(tmp_path / name, "evaluation", 0)] for name in ("denser", "even")}
    assert at["even"] == [256, 512, 768, 1024]
    assert at["denser"] == [256, 512, 640, 704, 768, 832, 896, 960, 1024]
    ours, theirs = (training(tmp_path / name, "update") for name in ("denser", "even"))
    assert ours == theirs  # only the choice differs


def test_7_the_fast_comparison_changes_no_byte(plain, tmp_path):
    run_agent(tmp_path / "slow", *PLAIN, "agent.fast_comparison=false")
    assert lasting(tmp_path / "slow") == lasting(plain[0])
    chosen = (*PLAIN, "agent.candidates=2", "market.max_drawdown=0.05")
    for name in ("true", "false"):
        run_agent(tmp_path / name, *chosen, f"agent.fast_comparison={name}")
    assert lasting(tmp_path / "true") == lasting(tmp_path / "false")


def test_all_candidates_count_in_the_deflated_figure(tmp_path, monkeypatch):
    from gpupipe.workloads.agent import chain

    counted = []
    statistics = chain.statistics

    def watched(result, seed, trials):
        counted.append(trials)
        return statistics(result, seed, trials)

    monkeypatch.setattr(chain, "statistics", watched)
    whole, _ = run_agent(tmp_path, "agent.candidates=3")
    assert counted == [9] and whole["agent"]["sealed"]["trials"] == 9
    scores = [[] for _ in range(3)]
    for row in training(tmp_path, "evaluation"):
        if row["iteration"] == 0:
            scores[row["candidate"]].append(row["score"])
    first = whole["agent"]["iterations"][0]
    assert first["chosen"] == int(np.argmax([max(own) for own in scores]))
    assert first["validation_score"] == max(max(own) for own in scores)


def test_the_original_way():
    chosen = small_settings("agent.candidates=4", "market.fill=close", seed=7)
    original = settings.original(chosen)
    assert (original.ppo.size, original.ppo.layers, original.ppo.epochs) == (256, 2, 12)
    own = original.agent
    assert (own.total_timesteps, own.min_timesteps, own.eval_freq, own.candidates) == (100_000, 100_000, 10_000, 1)
    switches = ("adaptive_timesteps", "warm_start", "convergence_stop", "progressive", "cache_environments",
                "adaptive_evaluation", "fast_comparison")  # fmt: skip
    assert not any(getattr(own, name) for name in switches)
    assert original.market == chosen.market and original.seed == 7
    for name in ("initial_window", "step_size", "validation_size"):
        assert getattr(own, name) == getattr(chosen.agent, name)
    assert settings.trained(chosen) == chosen
    asked = chosen.replace(agent=dataclasses.replace(chosen.agent, original=True))
    assert settings.trained(asked).ppo == original.ppo


@pytest.fixture
def small_original(monkeypatch):
    """The original way, with a network that tests can wait for."""
    whole = settings.original

    @functools.wraps(whole)
    def smaller(chosen):
        made = whole(chosen)
        return made.replace(
            agent=dataclasses.replace(made.agent, total_timesteps=640, min_timesteps=640, eval_freq=320),
            ppo=dataclasses.replace(made.ppo, size=12, epochs=3),
        )

    monkeypatch.setattr(settings, "original", smaller)
    monkeypatch.setattr(recipe, "original", smaller)


def test_a_run_of_the_original_way(small_original, tmp_path):
    whole, _ = run_agent(tmp_path, "agent.original=true")
    rows = whole["agent"]["iterations"]
    assert [(row["steps"], row["budget"], row["warm"]) for row in rows] == [([640], 640, False)] * 3
    assert [row["steps"] for row in training(tmp_path, "evaluation", 2)] == [320, 640]
    assert {row["epochs"] for row in training(tmp_path, "update")} == {3}
    saved = whole["agent"]["optimisations"]
    assert not any(saved["on"].values()) and saved["original"] is None
    folder = tmp_path / "iterations" / "iteration_001"
    stored = StoredPolicy.from_contents({path.name: path.read_bytes() for path in folder.iterdir()})
    assert (stored.settings.size, stored.settings.layers) == (12, 2) and stored.weights.layers == 2
    assert stored.policy().size == 12  # the description fits the arrays


def test_benchmark_mode_trains_both_ways_and_measures(small_original, tmp_path):
    whole, _ = run_agent(tmp_path, "agent.benchmark=true", "agent.candidates=2", jobs=2)
    assert whole["units"]["step"] == {"made": 6, "reused": 0}
    sealed = whole["agent"]["sealed"]
    assert [row["path"] for row in sealed["statistics"]][:2] == ["agent", "original way"]
    assert sealed["trials"] == 3 * (2 + 1)
    assert {row["way"] for row in training(tmp_path, "update")} == {"agent", "original way"}
    measured = whole["agent"]["optimisations"]
    ours = sum(measured["seconds"].values())
    assert measured["original"]["speedup"] == pytest.approx(measured["original"]["seconds"] / ours)
    summary = json.loads((tmp_path / "optimization_summary.json").read_bytes())
    assert summary["total_speedup_achieved"] == measured["original"]["speedup"] > 0
    # The agent's own chain is that of a run without the comparison.
    run_agent(tmp_path / "alone", "agent.candidates=2")
    alone = rows_of(tmp_path / "alone", "positions.parquet")
    assert alone == rows_of(tmp_path, "positions.parquet")


def test_the_two_ways_of_a_benchmark_are_not_trained_at_the_same_time():
    chosen = small_settings("agent.benchmark=true", "agent.warm_start=false")
    steps = recipe.steps(made_bars(N_ROWS), chosen)
    assert [step.needs for step in steps] == [(), *((step.name,) for step in steps[:-1])]
    alone = recipe.steps(made_bars(N_ROWS), small_settings("agent.warm_start=false"))
    assert [step.needs for step in alone] == [()] * 3
    assert len(iterations(14, N_ROWS, 150, 40, 0.2)) == len(alone)


def test_the_summary_has_the_keys_of_the_system_before(plain):
    out, whole = plain
    summary = json.loads((out / "optimization_summary.json").read_bytes())
    assert list(summary) == sorted([
        "optimization_completed", "total_speedup_achieved", "total_timesteps_saved", "early_stops", "warm_starts",
        "avg_iteration_time_minutes", "estimated_time_saved_hours", "completion_timestamp",
    ])  # fmt: skip
    assert summary["optimization_completed"] is True and summary["total_speedup_achieved"] is None
    assert summary["total_timesteps_saved"] == summary["early_stops"] == summary["warm_starts"] == 0
    seconds = sum(whole["agent"]["optimisations"]["seconds"].values())
    assert summary["avg_iteration_time_minutes"] == pytest.approx(seconds / 3 / 60)
    assert summary["estimated_time_saved_hours"] == 0 and summary["completion_timestamp"].endswith("+00:00")
