"""A job learns the expected return of every model's trades, before the test, and it holds there."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gpupipe.artifacts.load import load
from gpupipe.artifacts.onnx.export import _properties
from gpupipe.data import simulate
from gpupipe.evaluation.expected_return import RAW, ExpectedReturn
from gpupipe.evaluation.expected_return_fit import fit
from gpupipe.targets.classes import CLASSES
from gpupipe.targets.trade_return import trade_returns
from gpupipe.workloads import equity
from tests.support import tiny

SETTINGS = ("labels.horizons=1", "labels.thresholds=0.02", "training.models=linear,random_forest,meta_learner",
            "forest.trees=20", "training.max_bin=16")  # fmt: skip


def run(out, **market):
    panel = simulate(n_symbols=44, n_bars=700, memory=0.0, **market)
    summary = tiny.execute(panel, None, equity.make("fast", settings=SETTINGS), out)[0]
    return panel, summary


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    out = tmp_path_factory.mktemp("planted") / "OUT"
    return out, *run(out, signal=1.0, seed=0)


def test_deciles_of_a_planted_direction_rise_and_are_calibrated(planted):
    _, _, summary = planted
    lines = [line for line in summary["expected_returns"] if line["model"] == "meta_learner"]
    assert {line["side"] for line in lines} == {"long", "short"}
    for line in lines:
        assert len(line["expected"]) == 10 and sum(line["rows"]) > 3000
        assert line["slope"] > 5 * line["slope_error"]
        realised = np.array(line["realised"])
        assert np.corrcoef(np.arange(10), realised)[0, 1] > 0.9 and realised[-1] - realised[0] > 0.005
        # A move of the market moves all deciles of the test together: it is in the error of each.
        z = np.abs(np.array(line["expected"]) - realised) / np.array(line["error"])
        assert np.median(z) < 2 and line["worst"] == pytest.approx(z.max())


def test_without_a_signal_nothing_is_promised(tmp_path):
    _, summary = run(tmp_path / "OUT", signal=0.0, seed=1)
    for line in summary["expected_returns"]:
        assert abs(line["slope"]) < 4 * line["slope_error"]
        if line["expected"]:
            assert max(line["expected"]) - min(line["expected"]) < 0.003


def test_metadata_onnx_and_models_carry_it(planted):
    out, _, summary = planted
    models = load(out)
    about = json.loads((out / "trained_2pct" / "energy" / "1d" / "metadata.json").read_text())
    plain = about["models"]["linear"]["expected_return"]
    learned = models.expected_returns["energy", "label_1d_2pct", "linear"]
    assert learned.as_dict() == plain == ExpectedReturn.from_dict(plain).as_dict()
    assert json.loads(_properties(models, "energy", "label_1d_2pct", "linear")["expected_return"]) == plain
    line = next(line for line in summary["expected_returns"] if line["model"] == "linear" and line["side"] == "long")
    slope = learned.slopes[0].effect(RAW)
    assert [line["slope"], line["slope_error"]] == [slope.estimate, slope.error]
    assert models.base_rates["energy", "label_1d_2pct"] == tuple(
        about["class_shares"]["train"][name] for name in CLASSES
    )


def test_it_is_learned_from_the_rows_before_the_test_alone(planted):
    """The linear model's expected return, learned again from its out-of-fold and validation predictions."""
    out, panel, summary = planted
    models = load(out)
    begin = np.datetime64(summary["split"]["test_from"], "ns").astype(np.int64)
    learned = models.expected_returns["energy", "label_1d_2pct", "linear"]
    dates = np.unique(panel.time_ns)
    assert learned.n_dates < (dates < begin).sum()
    # Level: the mean trade of the rows that were used; the trades of the whole market before the test are close to it.
    returns = trade_returns(panel, (1,), (0.02,))
    before = (returns.end_time_ns[:, 0] < begin) & np.isfinite(returns.gross).all(axis=(1, 2))
    whole = returns.gross[before, 0].mean(axis=0)
    assert [effect.estimate for effect in learned.level] == pytest.approx(whole, abs=3 * learned.level[0].error)


def test_a_trade_that_had_not_ended_is_left_out():
    rng = np.random.default_rng(0)
    n_dates, n = 60, 600
    time = np.repeat(np.arange(n_dates), 10)
    probability = rng.dirichlet([2, 5, 2], n)
    y = rng.integers(0, 3, n)
    gross = rng.normal(0, 0.02, (n, 2))
    known = time < 50
    lean = np.zeros(n)
    cut = fit(probability[known], lean[known], np.ones(known.sum()), time[known], y[known], gross[known], 1)
    masked = fit(
        probability, lean, np.ones(n), time, np.where(known, y, -1), np.where(known[:, None], gross, np.nan), 1
    )
    assert cut.as_dict() == masked.as_dict()
