"""A run measures how its scores rank the symbols of all groups, from the predictions of the sealed test."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from gpupipe import config
from gpupipe.data import simulate
from gpupipe.estimators import registry
from gpupipe.evaluation import block_bootstrap, calibration, calibration_slices
from gpupipe.evaluation.rank_summary import REGIMES
from gpupipe.pipeline import job, supervised
from gpupipe.training import pooled_test, rank_measures
from gpupipe.workloads import equity
from tests.support import tiny
from tests.support.tiny import SECTORS, in_sectors
from tests.support.toy_supervised import TOY_SUPERVISED
from tests.support.toy_workload import LINE_PLACE, toy_panel

MODELS = ("xgb_joint", "linear", "meta_learner")
SETTINGS = (
    "labels.horizons=1,3", "labels.thresholds=0.02", "training.max_bin=16", "split.parts=2", "joint.rounds=30",
    "joint.learning_rate=0.2", f"training.models={','.join(MODELS)}",
)  # fmt: skip


def run(out, signal, patched):
    """(summary, what `measure` was called with) of a job on 30 symbols in three sectors."""
    called = {}
    measure = rank_measures.measure

    def listening(*arguments):
        called["arguments"] = arguments
        return measure(*arguments)

    patched.setattr(supervised.rank_measures, "measure", listening)
    panel = in_sectors(simulate(110, 500, seed=1, signal=signal, memory=0.0), SECTORS)
    summary, _ = tiny.execute(panel, None, equity.make("fast", settings=SETTINGS), out, 2)
    return summary, called["arguments"]


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        out = tmp_path_factory.mktemp("planted") / "OUT"
        return (out, *run(out, 1.0, patched))


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        return run(tmp_path_factory.mktemp("noise") / "OUT", 0.0, patched)[0]


def by_difference(summary):
    return [row for row in summary["ranking"] if row["score"] == "probability_difference"]


def test_a_planted_market_is_ranked_and_its_quantiles_are_monotone(planted):
    _, summary, _ = planted
    rows = summary["ranking"]
    assert [(row["label"], row["model"], row["score"]) for row in rows] == [
        (label, model, score)
        for label in ("label_1d_2pct", "label_3d_2pct")
        for model in MODELS
        for score in ("expected_return", "probability_difference")
    ]
    for row in rows:
        assert row["symbols"] == 30 and row["quantiles"] == 5
        assert row["rank_ic_low"] > 0.05 and row["rank_ic_neutral_low"] > 0.05 and row["ic_low"] > 0.03
        assert row["monotone"] > 0.89 and row["hit_rate"] > 0.5
        assert row["spread_low"] > 0 and row["spread"] > row["spread_net"]
        assert {part["regime"] for part in row["by_regime"]} <= set(REGIMES) and row["by_regime"]
        assert sum(part["dates"] for part in row["by_regime"]) == row["dates"]


def test_a_market_without_a_signal_is_not_ranked(noise):
    for row in noise["ranking"]:
        assert row["rank_ic_low"] is None or row["rank_ic_low"] < 0 < row["rank_ic_high"], row
        assert row["spread_net_low"] < 0


def test_measures_equal_pandas_from_the_predictions_of_all_groups(planted):
    out, summary, (_, context, trained, _) = planted
    frames = []
    for models in trained:
        dataset, rows = context.datasets[models.group], context.splits[models.group].test
        probability = models.test["linear"][:, models.labels.index("label_3d_2pct")]
        frames.append(pd.DataFrame({
            "time": dataset.time_ns[rows], "score": probability[:, 2] - probability[:, 0],
            "natr": dataset.extra["natr"][rows], "return": dataset.extra["forward_return_3"][rows],
            "sector": models.group,
        }))  # fmt: skip
    table = pd.concat(frames)
    rank_ic = pd.Series({t: g["score"].corr(g["return"], method="spearman") for t, g in table.groupby("time")})
    row = next(row for row in by_difference(summary) if (row["label"], row["model"]) == ("label_3d_2pct", "linear"))
    assert row["rank_ic"] == pytest.approx(rank_ic.mean()) and row["rank_ic_std"] == pytest.approx(rank_ic.std())
    cell = table.groupby(["time", "sector"])[["score", "return"]]
    table[["own", "earned"]] = table[["score", "return"]] - cell.transform("mean")
    neutral = [g["own"].corr(g["earned"], method="spearman") for _, g in table.groupby("time")]
    assert row["rank_ic_neutral"] == pytest.approx(np.mean(neutral), abs=1e-3)  # float32 means may tie or not
    stored = pq.read_table(out / rank_measures.FILE).to_pandas()
    stored = stored[(stored["label"] == "label_3d_2pct") & (stored["model"] == "linear")]
    stored = stored[stored["score"] == "probability_difference"]
    np.testing.assert_allclose(stored["rank_ic"], rank_ic, rtol=1e-6)
    assert stored["time"].astype("int64").tolist() == rank_ic.index.tolist()
    assert (stored["quantile_returns"].map(len) == 5).all() and (stored["symbols"] == 30).all()
    # Regimes: terciles of the median NATR of training dates.
    train = pd.concat(
        pd.DataFrame({"time": (d := context.datasets[g]).time_ns[s.train], "natr": d.extra["natr"][s.train]})
        for g, s in context.splits.items()
    )
    cuts = np.quantile(train.groupby("time")["natr"].median(), [1 / 3, 2 / 3])
    regime = np.searchsorted(cuts, table.groupby("time")["natr"].median(), side="right")
    expected = {REGIMES[k]: rank_ic.to_numpy()[regime == k].mean() for k in np.unique(regime)}
    assert {part["regime"]: part["rank_ic"] for part in row["by_regime"]} == pytest.approx(expected)


def test_another_score_is_one_more_value(planted):
    _, summary, (workload, context, trained, draws) = planted

    def calm(test, model):
        assert len(test.predictions(model)) == len(test.time_ns)
        return -test.column_of("natr")

    def backwards(test, model):
        return test.predictions(model)[:, 0] - test.predictions(model)[:, -1]

    reversed_score = rank_measures.Score("reversed", "reversed", backwards)
    scores = (reversed_score, rank_measures.Score("calm", "low volatility", calm))
    measured = rank_measures.measure(workload, context, trained, draws, scores)
    assert [row["score"] for row in measured.rows] == ["reversed", "calm"] * 6
    for row, own in zip(measured.rows[::2], by_difference(summary), strict=True):
        assert (row["rank_ic"], row["rank_ic_low"]) == pytest.approx((-own["rank_ic"], -own["rank_ic_high"]), rel=1e-6)
    assert len({row["rank_ic"] for row in measured.rows[1::2]}) == 2  # one number a horizon, whatever the model


def test_groups_and_labels_that_are_missing_are_left_out(planted):
    workload, context, trained, draws = planted[2]
    first = dataclasses.replace(
        trained[0],
        labels=trained[0].labels[1:],
        test={name: values[:, 1:] for name, values in trained[0].test.items() if name != "linear"},
    )
    tests = pooled_test.pooled_tests(context, [first, *trained[1:]])
    assert [(test.label, len(test.members)) for test in tests] == [("label_1d_2pct", 2), ("label_3d_2pct", 3)]
    assert tests[0].models == MODELS and tests[1].models == ("xgb_joint", "meta_learner")
    scores = (rank_measures.PROBABILITY_DIFFERENCE,)
    measured = rank_measures.measure(workload, context, [first, *trained[1:]], draws, scores)
    assert [(row["model"], row["symbols"]) for row in measured.rows] == [
        *((model, 20) for model in MODELS), ("xgb_joint", 30), ("meta_learner", 30),
    ]  # fmt: skip
    without_returns = dataclasses.replace(workload, returns=lambda target, column: "")
    assert rank_measures.measure(without_returns, context, trained, draws).for_summary == {}
    assert rank_measures.measure(workload, context, [], draws).rows == []


def test_files_are_in_the_manifest_and_slices_add_up_to_the_curves(planted):
    out, _, _ = planted
    listed = json.loads((out / "manifest.json").read_bytes())["files"]
    assert {rank_measures.FILE, calibration_slices.FILE} <= set(listed)
    sums = {}
    for name in (calibration.CURVES, calibration_slices.FILE):
        table = pq.read_table(out / name).to_pandas()
        table = table[table["model"].isin(MODELS)]
        table = table[table["by"] == "month"] if "by" in table else table
        if "expected" not in table:
            table["expected"] = table["probability"] * table["rows"]
        sums[name] = table.groupby(["label", "model", "side"])[["rows", "happened", "expected"]].sum()
    pd.testing.assert_frame_equal(*sums.values(), check_exact=False, rtol=1e-6)


def test_a_workload_that_predicts_values_has_no_ranking(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.ESTIMATORS, "toy_line", LINE_PLACE)
    summary, _ = job.execute(TOY_SUPERVISED, toy_panel(), None, config.make(TOY_SUPERVISED.catalogue()), tmp_path)
    assert summary["n_models"] == 2 and "ranking" not in summary
    assert not {rank_measures.FILE, calibration_slices.FILE} & {path.name for path in tmp_path.iterdir()}


def test_draws_of_other_dates_are_refused(planted):
    workload, context, trained, draws = planted[2]
    other = block_bootstrap.draw(draws.times[:-1], 3, seed=0)
    with pytest.raises(ValueError, match="include all dates"):
        rank_measures.measure(workload, context, trained, other)
