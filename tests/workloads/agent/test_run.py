"""A whole run: its files, positions that are what its policies decide, what is reused, no bar that is seen early."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch", reason="policies are trained by Torch, which has no CPU build for this Python")

from gpupipe.cli import main
from gpupipe.estimators.torch.policy_files import StoredPolicy
from gpupipe.estimators.torch.scaler import WindowScaler
from gpupipe.pipeline import job
from gpupipe.pipeline.listener import Listener
from gpupipe.workloads.agent import AGENT, recipe
from gpupipe.workloads.agent.episodes_played import play_step_by_step
from gpupipe.workloads.agent.market import Market
from tests.support.agent_market import made_bars
from tests.support.agent_run import N_ROWS, STEP, lasting, rows_of, run_agent, small_settings

FILES = {"policy.json", "policy.safetensors"}
SERIES = ("equity", "return", "exposure", "turnover")
TABLES = {f"{name}.parquet" for name in ("positions", "trades", "equity", "random", "training")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(OUT, summary) of a run with a drawdown stop."""
    out = tmp_path_factory.mktemp("agent") / "OUT"
    return out, run_agent(out, "market.max_drawdown=0.1")[0]


def scrambled(panel, begin, end=None):
    """Bars that are shuffled from a row on."""
    order = np.arange(panel.n_rows)
    order[begin:end] = np.random.default_rng(8).permutation(order[begin:end])
    return panel.replace(columns={name: column[order] for name, column in panel.columns.items()})


def stored(out, iteration):
    folder = out / "iterations" / iteration.name
    return StoredPolicy.from_contents({name: (folder / name).read_bytes() for name in FILES})


def test_the_files_of_a_run(finished):
    out, whole = finished
    tests = recipe.walk_forward(made_bars(N_ROWS), small_settings())
    assert [it.test.n for it in tests] == [STEP, STEP, 10]
    there = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and ".gpupipe" not in path.parts}
    policies = {f"iterations/{it.name}/{name}" for it in tests for name in FILES}
    others = {"manifest.json", "optimization_summary.json", "run.jsonl", "summary.json", "summary.parquet"}
    assert there >= TABLES | policies | others  # and what people look at
    named = set(json.loads((out / "manifest.json").read_bytes())["files"])
    assert named == there - {"manifest.json", "run.jsonl"}
    assert [row["name"] for row in whole["agent"]["iterations"]] == [it.name for it in tests]
    assert whole["units"]["step"] == {"made": 3, "reused": 0}
    assert whole["agent"]["sealed"]["statistics"][0]["path"] == "agent"
    training = rows_of(out, "training.parquet")
    assert {row["kind"] for row in training} == {"update", "evaluation"}
    assert {row["iteration"] for row in training} == {0, 1, 2}


def test_positions_are_what_the_stored_policies_decide_step_by_step(finished):
    out = finished[0]
    bars, settings = made_bars(N_ROWS), small_settings("market.max_drawdown=0.1")
    found, positions = [], pq.read_table(out / "positions.parquet")
    for it in recipe.walk_forward(bars, settings):
        policy = stored(out, it)
        scaler = WindowScaler.from_dict(policy.about["scaler"])
        market = Market.of(bars, settings.features.names, scaler=scaler, **settings.market.rules())
        policy.require_observation(market.observed, policy.definitions)
        fitted = market.fitted(it.train.begin, it.train.end - 1).scaler
        assert scaler.as_dict() == fitted.as_dict()
        episode = (it.test.begin, it.test.end - 1)
        played = play_step_by_step([policy.weights], market, [episode])
        found.append([*played.positions[0, 0], 0])
    assert np.concatenate(found).tolist() == positions["position"].to_pylist()
    first = recipe.walk_forward(bars, settings)[0].test.begin
    times = bars.time_ns[first : first + len(positions)]
    assert np.array_equal(positions["time"].to_numpy().astype(np.int64), times)
    assert any(positions["position"].to_pylist())


@pytest.mark.parametrize(("fill", "seed"), [("open", 0), ("close", 4)])  # policies that trade
def test_the_backtest_of_the_positions_gives_the_same_trades_and_equity(tmp_path, fill, seed, capsys):
    bars = made_bars(N_ROWS)
    times = bars.time_ns + 10**18
    bars = bars.replace(time_ns=times)
    pq.write_table(bars.to_arrow().drop_columns(["sector"]), tmp_path / "bars.parquet")
    costs = ("market.spread=6 bps", "market.commission=2", "market.slippage=3", f"market.fill={fill}",
             "market.size=0.5")  # fmt: skip
    learning = ("agent.warm_start=false", "agent.progressive=false", "agent.convergence_stop=false",
                "ppo.learning_rate=0.05", "ppo.epochs=8")  # fmt: skip
    run_agent(tmp_path / "OUT", *costs, *learning, panel=bars, seed=seed)
    arguments = ("--positions", tmp_path / "OUT" / "positions.parquet", "--data", tmp_path / "bars.parquet", "--fill",
                 fill, "--halts", "fill", "--commission", 2, "--spread", 6, "--slippage", 3, "--size", 0.5, "--out",
                 tmp_path / "backtest", "--quiet")  # fmt: skip
    assert main.main(["backtest", *map(str, arguments)]) == 0, capsys.readouterr().err
    for name, numbers in (("trades", ("net_return", "entry_price", "exit_price")), ("equity", SERIES)):
        ours = [row for row in rows_of(tmp_path / "OUT", f"{name}.parquet") if row["path"] == "agent"]
        theirs = [row for row in rows_of(tmp_path / "backtest", f"{name}.parquet") if row["path"] == "positions"]
        assert len(ours) == len(theirs) > 0
        for left, right in zip(ours, theirs, strict=True):
            for key in left.keys() - {"path", "group"}:
                expected = pytest.approx(left[key], rel=1e-12) if key in numbers else left[key]
                assert right[key] == expected, key


def test_the_sealed_equity_is_that_of_the_environments(tmp_path):
    """One test, so that the account of the chain and that of the episode begin with the same balance."""
    bars, chosen = made_bars(N_ROWS).take(np.arange(N_ROWS) < 204), ("market.max_drawdown=0.08",)
    run_agent(tmp_path, *chosen, panel=bars)
    settings = small_settings(*chosen)
    (it,) = recipe.walk_forward(bars, settings)
    market = Market.of(bars, settings.features.names, **settings.market.rules())
    market = market.fitted(it.train.begin, it.train.end - 1)
    played = play_step_by_step([stored(tmp_path, it).weights], market, [(it.test.begin, it.test.end - 1)])
    equity = [row["equity"] for row in rows_of(tmp_path, "equity.parquet") if row["path"] == "agent"]
    assert equity[int(played.steps[0, 0])] == played.equity[0, 0]


def test_a_run_says_how_far_it_is(tmp_path):
    said = []
    listener, options = Listener(detail=said.append), job.JobOptions(jobs=1)
    job.execute(AGENT, made_bars(N_ROWS), None, small_settings(), tmp_path, options, listener)
    assert said[0].startswith("iteration_000: 64 of 384 steps, ") and " steps/s, at most " in said[0]
    assert ", validation " in said[2] and any(text.startswith("iteration_002: ") for text in said)


def test_a_second_run_does_nothing(finished):
    out, whole = finished
    before = lasting(out)
    again, worked = run_agent(out, "market.max_drawdown=0.1")
    assert not worked and again == whole and lasting(out) == before


def test_appended_bars_reuse_the_finished_iterations_and_changed_ones_do_not(tmp_path):
    long = made_bars(N_ROWS + 40)
    short = long.take(np.arange(long.n_rows) < N_ROWS - 10)  # two tests of full length
    out = tmp_path / "OUT"
    run_agent(out, panel=short)
    policies = {name: content for name, content in lasting(out).items() if "iteration" in name}
    assert len(policies) == 2
    whole, _ = run_agent(out, panel=long)
    assert whole["units"]["step"] == {"made": 2, "reused": 2}
    after = lasting(out)
    assert all(after[name] == content for name, content in policies.items())

    fresh = tmp_path / "fresh"
    run_agent(fresh, panel=long)
    assert lasting(fresh) == after
    changed = long.replace(columns={**long.columns, "close": long.columns["close"].copy()})
    changed.columns["close"][60] *= 1.001  # in the training bars of two windows
    chosen = ("features.names=roc_1,roc_5", "agent.warm_start=false")
    begins = [it.train.begin for it in recipe.walk_forward(long, small_settings(*chosen))]
    assert sum(begin <= 65 for begin in begins) == 2 and len(begins) == 4
    assert run_agent(out, *chosen, panel=long)[0]["units"]["step"] == {"made": 4, "reused": 0}
    assert run_agent(out, *chosen, panel=changed)[0]["units"]["step"] == {"made": 2, "reused": 2}


def test_the_number_of_jobs_changes_no_byte(tmp_path, finished):
    chosen = ("market.max_drawdown=0.1", "agent.candidates=2", "agent.warm_start=false")
    for jobs in (1, 2, 3):
        run_agent(tmp_path / str(jobs), *chosen, jobs=jobs)
    assert lasting(tmp_path / "1") == lasting(tmp_path / "2") == lasting(tmp_path / "3")
    run_agent(tmp_path / "warm", "market.max_drawdown=0.1", jobs=2)
    assert lasting(tmp_path / "warm") == lasting(finished[0])


def test_a_candidate_trains_as_it_does_alone(tmp_path):
    def trainings(out, candidates):
        run_agent(out, "agent.warm_start=false", f"agent.candidates={candidates}", jobs=2)
        return [row for row in rows_of(out, "training.parquet") if row["candidate"] == 0]

    assert trainings(tmp_path / "one", 1) == trainings(tmp_path / "three", 3)


@pytest.mark.parametrize("k", [0, 1])
def test_bars_after_a_test_change_nothing_before_them(tmp_path, finished, k):
    bars = made_bars(N_ROWS)
    it = recipe.walk_forward(bars, small_settings())[k]
    run_agent(tmp_path, "market.max_drawdown=0.1", panel=scrambled(bars, it.test.end))
    n = (k + 1) * STEP
    ours, theirs = (rows_of(out, "positions.parquet") for out in (tmp_path, finished[0]))
    assert ours[:n] == theirs[:n]
    before, after = lasting(finished[0]), lasting(tmp_path)
    for number in range(k + 1):
        name = f"iterations/iteration_{number:03d}/policy.safetensors"
        assert before[name] == after[name]
    last = f"iterations/iteration_{k + 1:03d}/policy.safetensors"
    equity = [[row["equity"] for row in rows_of(out, "equity.parquet")][n:] for out in (tmp_path, finished[0])]
    assert before[last] != after[last] or equity[0] != equity[1]


def test_no_choice_sees_the_bars_of_its_test(tmp_path, finished):
    bars = made_bars(N_ROWS)
    first, second, _ = recipe.walk_forward(bars, small_settings())
    run_agent(tmp_path, "market.max_drawdown=0.1", panel=scrambled(bars, second.test.begin))
    before, after = lasting(finished[0]), lasting(tmp_path)
    for it in (first, second):
        name = f"iterations/{it.name}/policy.safetensors"
        assert before[name] == after[name]
    rows = [
        [row for row in rows_of(out, "training.parquet") if row["iteration"] < 2] for out in (tmp_path, finished[0])
    ]
    assert rows[0] == rows[1]
