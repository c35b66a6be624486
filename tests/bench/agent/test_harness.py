"""The benchmark of the agent's training: every step on a few updates, curves, and what is missing said in words."""

from __future__ import annotations

import json

import pytest

from bench.agent import __main__ as bench
from bench.agent import curves


def test_curves_are_compared_by_seed():
    same = curves.paired_difference([10.0, 20.0, 30.0], [11.0, 19.0, 30.0])
    assert same["difference"] == 0 and same["interval"][0] < 0 < same["interval"][1] and same["as_good"]
    worse = curves.paired_difference([10.0, 20.0, 30.0], [20.0, 31.0, 40.0])
    assert worse["interval"][1] < 0 and not worse["as_good"]
    assert curves.paired_difference([1.0], [2.0])["as_good"] is None
    assert curves.area([10.0, None, 30.0]) == 20


def test_unknown_steps_are_refused():
    with pytest.raises(SystemExit, match="no step other; there are environment, cartpole"):
        bench.main(["--steps", "other"])


def test_the_markets_in_python_are_the_kernels_market():
    pytest.importorskip("gymnasium", reason="gymnasium is not installed (the extra agent)")
    from bench.agent import environment
    from bench.agent.planted import planted
    from gpupipe.workloads.agent.market import Market

    market = Market.of(planted(600, 1, drift=0.0)[0], "session", spread="2 bps", max_drawdown=0.05)
    assert environment.compared(market) < environment.TOLERANCE


def test_an_oracle_earns_from_a_planted_signal_and_nothing_without():
    from bench.agent.planted import oracle_growth, planted

    assert oracle_growth(*planted(4_000, 1, drift=0.0005)) > 0.3 > oracle_growth(*planted(4_000, 1, drift=0.0))


def test_our_curve_has_the_episodes_of_each_update():
    pytest.importorskip("torch", reason="torch is not installed (the extra torch)")
    from bench.agent import cartpole, training

    ended = training.ours(cartpole.TASK, seed=1, total_steps=2048)
    assert [item.steps for item in ended] == [1024, 2048] and all(item.episodes > 10 for item in ended)
    assert ended == training.ours(cartpole.TASK, seed=1, total_steps=2048)


@pytest.mark.parametrize("step, first", [("cartpole", "physics"), ("market", "oracle")])
def test_both_sides_train_and_add_their_lines(tmp_path, step, first):
    pytest.importorskip("sb3_contrib", reason="sb3-contrib is not installed (the extra bench)")
    out, few = tmp_path / "lines.jsonl", "--seeds 1 --total-steps 2048 --trained-steps 1024 --times 1"
    assert bench.main(["--steps", step, *few.split(), "--out", str(out)]) == 0
    lines = [json.loads(text) for text in out.read_text().splitlines()]
    assert [line["kind"] for line in lines] == [first, "curve", "curve", "learning", "pace"]
    assert lines[0].get("largest_difference", 0) < 1e-12 and lines[0].get("mean_return", 1) > 0
    assert lines[-1]["ratio"] > 0 and set(lines[-1]["libraries"]) >= {"sb3-contrib", "torch"}


def test_a_way_holds_by_its_time_and_its_score():
    from bench.agent import seven

    def line(way, seed, seconds, scores, clocks):
        return {"way": way, "seed": seed, "seconds": seconds, "scores": scores, "clocks": clocks}

    found = []
    for seed in (1, 2):
        found.append(line("original", seed, 60.0, [0.05, 0.04], [[(20.0, 0.05)], [(30.0, 0.04)]]))
        found.append(line("all", seed, 6.0, [0.06 + seed / 100, 0.03], [[(2.0, 0.04), (4.0, 0.06)], [(1.0, 0.03)]]))
        found += [line(f"without {name}", seed, 9.0, [0.05, 0.05], [[], []]) for name in seven.SEVEN]
    result = seven.conclusion(found)
    assert result["whole_ratio"] == 10 and result["holds"] and result["shares"]["warm_start"] == 1.5
    assert (result["iterations"], result["reached"]) == (4, 2)
    worse = [{**one, "scores": [0.01, 0.01 * one["seed"] / 2]} if one["way"] == "all" else one for one in found]
    assert not seven.conclusion(worse)["holds"]
