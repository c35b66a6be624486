"""The benchmark of bonds: both ways value alike, every step runs on a few bonds, and what is planted is found again."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from threadpoolctl import threadpool_limits

from bench.bonds import __main__ as bench
from bench.bonds import eleven, markets, planted, treasury, usual_values
from gpupipe.data.panel import NS_PER_DAY
from gpupipe.workloads.bonds import schema
from gpupipe.workloads.bonds.fair_values import fair_values

FEW = [f"--set={setting}" for setting in markets.TINY]


def test_unknown_steps_and_shares_are_refused():
    with pytest.raises(SystemExit, match="no step other; there are kernel, eleven, planted, treasury"):
        bench.main(["--steps", "other"])
    with pytest.raises(SystemExit, match="no share luck; there are parallel groups"):
        bench.main(["--steps", "treasury", "--shares", "luck"])


def test_the_usual_loop_values_bonds_as_the_kernel_does():
    pytest.importorskip("pandas", reason="pandas is not installed (the extra bench)")
    from bench.bonds import origin

    panel = markets.market(200, 30, seed=3, mispricing=5.0).panel
    assert {"floating", "zero"} <= set(panel.attributes["type"]) and "yes" in panel.attributes["callable"]
    frame, matrix = origin.converted(panel)
    assert len(frame) == len(matrix) == panel.n_rows and (frame["clean"].to_numpy() == panel.clean).all()
    usual = usual_values.fair_values(frame, schema.reference_rate(panel)).arrays()
    for name, ours in fair_values(panel, markets.CONVENTION).arrays().items():
        np.testing.assert_allclose(usual[name], ours, rtol=0, atol=1e-9, err_msg=name)


def test_days_are_counted_by_30_360():
    day = np.array(["2024-01-31", "2024-02-29", "2024-03-31", "2024-05-15"], "M8[D]").astype(np.int64)
    assert usual_values.days_of_360(day[1:], day[:-1]).tolist() == [29, 32, 45]


def test_full_training_stops_nowhere():
    pytest.importorskip("optuna", reason="optuna is not installed (the extra tune)")
    from bench.bonds.origin import FULL
    from gpupipe.workloads.bonds.families.contract import FitRows
    from gpupipe.workloads.bonds.settings import BoostingSettings, ForestSettings, NetworkSettings

    rng = np.random.default_rng(4)
    X, noise = rng.normal(size=(300, 3)).astype(np.float32), rng.normal(size=300).astype(np.float32)
    X[::7, 1] = np.nan
    rows = FitRows(X, noise, X[:50], noise[:50], seed=1)
    few = {
        "forest": ForestSettings(n_trees=7),
        "boosting": BoostingSettings(rounds=9),
        "network": NetworkSettings(epochs=4),
    }
    for name, settings in few.items():
        prediction = FULL[name].fit(rows, settings).predict(X)
        assert prediction.dtype == np.float32 and np.isfinite(prediction).all() and FULL[name].name == name


def test_a_model_is_as_good_where_its_gain_is():
    def measured(gain):
        return eleven.Measured(1.0, {}, {"basic": gain, "last spread": 0.0}, {"basic": 45.0, "last spread": 45.1})

    for ours, theirs, as_good in (
        (0.040, 0.044, True), (0.038, 0.044, False), (0.06, 0.044, True), (-0.2, 0.044, False), (None, 0.044, False),
        (0.044, None, False),
    ):  # fmt: skip
        line = eleven.quality("basic", measured(theirs), measured(ours))
        assert line["as_good"] is as_good and line["ours_rmse_bp"] == 45.0, (ours, theirs)


def test_the_usual_way_has_all_threads_of_blas():
    pytest.importorskip("optuna", reason="optuna is not installed (the extra tune)")
    pytest.importorskip("pandas", reason="pandas is not installed (the extra bench)")
    import types

    from bench.bonds import origin
    from gpupipe.workloads.bonds import recipe

    panel = types.SimpleNamespace(device=types.SimpleNamespace(kind="cpu"))
    for step in recipe.steps(panel, markets.settings(bench.parser().parse_args([]), 1)):
        limited, free = step.make, origin.on_all_threads(step)
        assert limited.__qualname__ == free.__qualname__ and limited is not free


def test_both_ways_take_the_eleven_steps(tmp_path):
    pytest.importorskip("optuna", reason="optuna is not installed (the extra tune)")
    pytest.importorskip("pandas", reason="pandas is not installed (the extra bench)")
    out = tmp_path / "lines.jsonl"
    options = ["--steps", "eleven", "--n-bonds", "250", "--n-months", "40", *FEW, "--out", str(out)]
    with threadpool_limits(1):  # XGBoost and BLAS would wait for each other's threads where tests share the cores
        assert bench.main(options) == 0
    lines = [json.loads(text) for text in out.read_text().splitlines()]
    kinds = [line["kind"] for line in lines]
    assert kinds == ["fair values", *["step"] * 13, "usual stages", *["quality"] * 6, *["share"] * 4, "eleven bar"]
    steps = {line["name"]: line for line in lines if line["kind"] == "step"}
    assert steps["rows"]["usual_s"] == 0 < min(line["ours_s"] for line in steps.values())
    last = lines[-1]
    assert set(last["shares"]) == set(eleven.SHARES) and last["ratio"] > 0 and last["rounds"] == 1
    assert last["usual_s"] >= sum(line["usual_s"] for line in steps.values())


def test_rows_of_predictions_are_found_in_the_panel():
    market = markets.market(40, 12, seed=2, mispricing=5.0)
    panel = market.panel
    rows = np.random.default_rng(1).permutation(panel.n_rows)[:50]
    bonds = [panel.symbols[k] for k in panel.symbol_of_row[rows]]
    assert planted.rows_of(market, bonds, panel.time_ns[rows] // NS_PER_DAY).tolist() == rows.tolist()


def test_a_model_that_knows_the_truth_has_the_oracles_correlation():
    market = markets.market(150, 24, seed=2, mispricing=5.0)
    panel, spread = market.panel, np.zeros(market.panel.n_rows)
    happened = market.expected + np.random.default_rng(1).normal(size=panel.n_rows)
    columns = {
        "bond": [panel.symbols[k] for k in panel.symbol_of_row], "date": panel.time_ns.astype("datetime64[ns]"),
        "spread": spread, "next_spread": happened, "oracle": market.expected, "opposite": -market.expected,
    }  # fmt: skip
    predictions = pa.table({name: pa.array(column) for name, column in columns.items()})
    known = planted.correlations(market, predictions, "oracle")
    assert known["with_truth"] == pytest.approx(1) and known["share"] == pytest.approx(1)
    assert planted.correlations(market, predictions, "opposite")["share"] == pytest.approx(-1)


def test_runs_with_and_without_a_mispricing_are_measured(tmp_path):
    pytest.importorskip("optuna", reason="optuna is not installed (the extra tune)")
    out = tmp_path / "lines.jsonl"
    options = ["--steps", "planted", "--planted-bonds", "250", "--n-months", "40", "--seeds", "1", *FEW]
    assert bench.main([*options, "--out", str(out)]) == 0
    lines = [json.loads(text) for text in out.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["planted", "nothing planted", "planted bar"]
    assert lines[0]["oracle_with_change"] > 0.1 and set(lines[0]["verdicts"]) == set(eleven.TRAINED) - {"tuning"} | {
        "tuned"
    }


def test_what_runs_publish_of_auctions_is_measured_beside_the_curves(capsys):
    pytest.importorskip("optuna", reason="optuna is not installed (the extra tune)")
    assert bench.main(["--steps", "treasury"]) == 0
    lines = [json.loads(text) for text in capsys.readouterr().out.splitlines() if text.startswith("{")]
    found = {line["curve"]: line for line in lines if line["kind"] == "residual"}
    assert list(found) == [treasury.PAR, treasury.PUBLISHED, treasury.SVENSSON]
    for measure in ("rms_bp", "median_bp"):
        assert found[treasury.PAR][measure] < found[treasury.SVENSSON][measure]
    last = lines[-1]
    ratio = found[treasury.PUBLISHED]["rms_bp"] / found[treasury.SVENSSON]["rms_bp"]
    assert last["kind"] == "treasury bar" and last["rms_ratio"] == pytest.approx(ratio)
    assert last["holds"] and max(last["rms_ratio"], last["median_ratio"]) <= 1
    assert treasury.measures(np.array([0.03, -0.04])) == {"rms_bp": pytest.approx(3.5355, rel=1e-4), "median_bp": 3.5}
